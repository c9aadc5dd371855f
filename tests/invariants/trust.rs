//! Invariants 3 and 4: a read sees what was written before it began, and trusts nothing older.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use cachetronomy::cache::{Cache, Surroundings};
use cachetronomy::entry::{EntryMeta, NewEntry};
use cachetronomy::freshness::{Freshness, Touched};
use cachetronomy::settings::{Location, Settings};
use cachetronomy::store::Store;
use cachetronomy::store::sqlite::SqliteStore;
use cachetronomy::time::{ManualClock, Timestamp};

use super::{HOUR, SECOND, START, get, in_memory, open, put, settings};

/// A write by the cache, and what turns its clock.
type Write = fn(&Cache<u64>, &ManualClock);

#[test]
fn a_read_that_begins_after_a_write_returned_sees_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let hands = ManualClock::new(START);
    let (ours, theirs) = (open::<u64>(&path, &hands), open::<u64>(&path, &hands));
    let writes: [(&str, Write, Option<u64>); 6] = [
        (
            "store",
            |cache, _| put(cache, "k", 2, HOUR, &["t"]),
            Some(2),
        ),
        (
            "delete",
            |cache, _| assert_eq!(cache.delete(&["k"]).unwrap(), [true]),
            None,
        ),
        (
            "tags",
            |cache, _| {
                assert_eq!(
                    cache.delete_by_tags(&["t".to_owned()], false).unwrap(),
                    ["k"]
                );
            },
            None,
        ),
        (
            "exact tags",
            |cache, _| {
                assert_eq!(
                    cache.delete_by_tags(&["t".to_owned()], true).unwrap(),
                    ["k"]
                );
            },
            None,
        ),
        ("clear", |cache, _| cache.clear().unwrap(), None),
        (
            "expired",
            |cache, hands| {
                hands.advance(3_600 * SECOND);
                assert_eq!(cache.delete_expired().unwrap().len(), 2);
                // Back again: only that the entry was swept can keep it from being returned.
                hands.advance(-3_600 * SECOND);
            },
            None,
        ),
    ];
    for (name, write, expected) in writes {
        for (writer, reader) in [(&ours, &theirs), (&theirs, &ours), (&ours, &ours)] {
            ours.clear().unwrap();
            put(writer, "k", 1, HOUR, &["t"]);
            put(writer, "neighbour", 7, HOUR, &["u"]);
            for cache in [&ours, &theirs] {
                assert_eq!(
                    (get(cache, "k"), get(cache, "neighbour")),
                    (Some(1), Some(7))
                );
                assert_eq!(
                    in_memory(cache, "k"),
                    Some(1),
                    "{name}: memory has to be tested"
                );
            }
            write(writer, &hands);
            assert_eq!(in_memory(reader, "k").or(expected), expected, "{name}");
            assert_eq!(get(reader, "k"), expected, "{name}");
            assert_eq!(
                reader.memory_keys().unwrap().contains(&"k".to_owned()),
                expected.is_some()
            );
        }
    }
}

#[test]
fn a_read_in_another_thread_sees_what_was_written_before_it_began() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    for location in [Location::Memory, Location::File(path)] {
        let settings = Settings {
            location,
            ..Settings::default()
        };
        let cache: Cache<u64> = Cache::open(settings, Surroundings::default()).unwrap();
        let newest = AtomicU64::new(0);
        let reads = std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut reads = 0_u32;
                while newest.load(Ordering::Acquire) < 500 {
                    let floor = newest.load(Ordering::Acquire);
                    let seen = get(&cache, "k").unwrap_or(0);
                    assert!(
                        seen >= floor,
                        "{seen} was read after {floor} had been written"
                    );
                    reads += 1;
                }
                reads
            });
            for value in 1..=500 {
                put(&cache, "k", value, HOUR, &[]);
                newest.store(value, Ordering::Release);
            }
            reader.join().unwrap()
        });
        assert!(reads > 100, "only {reads} reads");
    }
}

#[test]
fn a_value_fetched_before_a_change_is_not_trusted_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let hands = ManualClock::new(START);
    let (ours, theirs) = (open::<u64>(&path, &hands), open::<u64>(&path, &hands));
    for writer in [&theirs, &ours] {
        for change in 0..3 {
            put(&ours, "k", 1, HOUR, &["t"]);
            let early = ours.fetch("k", None, true).unwrap().unwrap();
            let many = ours.fetch_many(&["k"]).unwrap().pop().unwrap().unwrap();
            match change {
                0 => put(writer, "k", 2, HOUR, &[]),
                1 => drop(writer.delete(&["k"]).unwrap()),
                _ => writer.clear().unwrap(),
            }
            for arrival in [early, many] {
                drop(ours.admit("k", 1, arrival, true));
                assert_ne!(in_memory(&ours, "k"), Some(1), "change {change}");
            }
            assert_eq!(get(&ours, "k"), (change == 0).then_some(2));
        }
    }
}

#[test]
fn a_value_written_before_anothers_write_is_not_kept_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let hands = ManualClock::new(START);
    let (ours, theirs) = (open::<u64>(&path, &hands), open::<u64>(&path, &hands));
    for other in [&theirs, &ours] {
        let part = ours.begin_write(None, None);
        let draft = ours.draft(b"1".to_vec(), "json", &part, 1, 0);
        let commit = ours.store(&[("k", &draft)]).unwrap();
        put(other, "k", 2, HOUR, &[]);
        assert!(
            ours.keep("k", 1, &draft, commit).contains(&1),
            "handed back"
        );
        assert_eq!(get(&ours, "k"), Some(2));
    }
}

#[test]
fn a_stamp_taken_while_a_later_commit_settles_does_not_survive_it() {
    let mut many = Touched::key("k");
    for number in 0..900 {
        many.add(&number.to_string());
    }
    for _ in 0..50 {
        let freshness = Freshness::private();
        let first = freshness.settle_private(&Touched::key("k"));
        let together = Barrier::new(2);
        let stamp = std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                together.wait();
                freshness.settle_private(&many);
            });
            together.wait();
            // The latest stamp that the first commit still gets: in the middle of the second.
            let mut latest = None;
            while !second.is_finished() {
                latest = freshness.after_write(first, "k").or(latest);
            }
            latest
        });
        if let Some(mut stamp) = stamp {
            assert!(
                !freshness.is_fresh(freshness.gate(), &mut stamp),
                "the second wrote the key"
            );
        }
    }
}

#[test]
fn nothing_proves_itself_fresh_once_a_store_stops_proving() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&folder.path().join("a.db"));
    // One that has only read, and one that has written.
    for writes in [false, true] {
        let store = SqliteStore::open(&settings).unwrap();
        let meta = EntryMeta {
            expire_at: Timestamp::NEVER,
            version: 1,
            compute_us: 0,
        };
        let entry = NewEntry {
            key: "k",
            data: b"1",
            format: "json",
            meta,
            tags: &[],
            profile: "p",
            function: None,
            stale_until: None,
        };
        if writes {
            store.write(std::slice::from_ref(&entry)).unwrap();
        }
        let mut stamp = store.read("k", true).unwrap().stamp;
        SqliteStore::open(&settings)
            .unwrap()
            .write(&[entry])
            .unwrap();
        store.stop_proving();
        let freshness = store.freshness();
        assert!(
            !freshness.is_fresh(freshness.gate(), &mut stamp),
            "writes: {writes}"
        );
    }
}
