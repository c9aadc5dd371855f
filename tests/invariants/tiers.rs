//! Invariants 1 and 2: deadlines hold on every path; memory holds what the store holds.

use std::time::Duration;

use cachetronomy::cache::Cache;
use cachetronomy::error::Error;
use cachetronomy::settings::Settings;
use cachetronomy::time::{ManualClock, Ttl};

use super::{HOUR, SECOND, START, by, get, in_memory, in_store, open, put, settings};

#[test]
fn a_value_past_its_deadline_is_never_returned_by_any_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let hands = ManualClock::new(START);
    let (writer, reader) = (open::<u64>(&path, &hands), open::<u64>(&path, &hands));
    put(&writer, "short", 1, Ttl::Micros(10 * SECOND), &["t"]);
    put(&writer, "long", 2, HOUR, &["t"]);
    assert_eq!(
        get(&reader, "short"),
        Some(1),
        "promoted, it keeps its deadline"
    );
    let paths = |cache: &Cache<u64>| {
        [
            in_memory(cache, "short").is_some(),
            in_store(cache, "short").is_some(),
            cache.fetch("short", Some(1), false).unwrap().is_some(),
            cache.fetch_many(&["short", "long"]).unwrap()[0].is_some(),
            cache.memory_keys().unwrap().contains(&"short".to_owned()),
            cache.store_keys().unwrap().contains(&"short".to_owned()),
            cache.stats().unwrap().store_keys == 2,
        ]
    };
    for cache in [&writer, &reader] {
        assert_eq!(cache.fetch_many(&["long"]).unwrap().len(), 1);
    }
    hands.advance(10 * SECOND - 1);
    assert!(
        paths(&reader).iter().all(|seen| *seen),
        "alive to the last microsecond"
    );
    hands.advance(1);
    for cache in [&reader, &writer] {
        // Listing first: a lookup would take the entry out of memory.
        assert!(!cache.memory_keys().unwrap().contains(&"short".to_owned()));
        assert_eq!(paths(cache), [false; 7], "gone at the deadline itself");
        assert_eq!(get(cache, "long"), Some(2));
    }
    assert_eq!(
        writer.delete(&["short"]).unwrap(),
        [false],
        "nothing live was there"
    );
    put(&writer, "zero", 3, Ttl::Micros(0), &[]);
    assert_eq!(
        (in_memory(&writer, "zero"), in_store(&writer, "zero")),
        (None, None)
    );
}

// 2

#[test]
fn what_memory_holds_the_store_holds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let hands = ManualClock::new(START);
    let (ours, theirs) = (open::<u64>(&path, &hands), open::<u64>(&path, &hands));
    for round in 0..30_u64 {
        for number in 0..10 {
            put(
                &ours,
                &format!("{}", (round * 3 + number) % 17),
                round,
                HOUR,
                &[],
            );
        }
        let key = (round % 17).to_string();
        match round % 4 {
            0 => drop(theirs.delete(&[&key]).unwrap()),
            1 => put(&theirs, &key, 1_000 + round, HOUR, &[]),
            2 => drop(ours.delete(&[&key]).unwrap()),
            _ => theirs.clear().unwrap(),
        }
        let stored = ours.store_keys().unwrap();
        for key in ours.memory_keys().unwrap() {
            assert!(stored.contains(&key), "{key} is in memory alone");
            assert_eq!(get(&ours, &key), in_store(&ours, &key));
        }
    }
    theirs.clear().unwrap();
    put(&ours, "last", 1, HOUR, &[]);
    assert_eq!(
        ours.memory_keys().unwrap(),
        ["last"],
        "what others cleared is no longer listed"
    );
}

#[test]
fn a_write_that_fails_leaves_both_tiers_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let hands = ManualClock::new(START);
    let busy_timeout = Duration::from_millis(20);
    let settings = Settings {
        busy_timeout,
        ..settings(&path)
    };
    let cache: Cache<u64> = Cache::open(settings, by(&hands)).unwrap();
    put(&cache, "a", 1, HOUR, &[]);
    let stranger = rusqlite::Connection::open(&path).unwrap();
    stranger.execute_batch("BEGIN IMMEDIATE").unwrap();
    let part = cache.begin_write(None, None);
    let draft = cache.draft(b"2".to_vec(), "json", &part, 1, 0);
    assert!(matches!(
        cache.store(&[("a", &draft)]),
        Err(Error::StoreBusy { .. })
    ));
    assert!(matches!(cache.delete(&["a"]), Err(Error::StoreBusy { .. })));
    assert!(matches!(cache.clear(), Err(Error::StoreBusy { .. })));
    assert_eq!(
        (in_memory(&cache, "a"), in_store(&cache, "a")),
        (Some(1), Some(1))
    );
    stranger.execute_batch("ROLLBACK").unwrap();
    // One entry of a transaction that SQLite refuses takes the others with it.
    let huge = cache.draft(vec![0; 1_000_000_001], "json", &part, 1, 0);
    let refused = cache.store(&[("a", &draft), ("huge", &huge)]);
    assert!(
        matches!(refused, Err(Error::Serialization { .. })),
        "{refused:?}"
    );
    assert_eq!(
        (in_memory(&cache, "a"), in_store(&cache, "a")),
        (Some(1), Some(1))
    );
    put(&cache, "a", 3, HOUR, &[]);
    assert_eq!(get(&cache, "a"), Some(3), "the store goes on");
}
