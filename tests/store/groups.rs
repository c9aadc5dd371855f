//! Entries of several writers in one transaction, and reads that must not wait.

use cachetronomy::cache::{Cache, Surroundings};
use cachetronomy::entry::NewEntry;
use cachetronomy::error::Error;
use cachetronomy::settings::{Location, Settings};
use cachetronomy::store::Store;
use cachetronomy::store::fence::{Subject, Watch};
use cachetronomy::store::sqlite::SqliteStore;
use cachetronomy::time::{Timestamp, Ttl};

use super::{data, index, meta, open, pairs, put, settings, stranger, tags};

fn entry<'a>(key: &'a str, data: &'a [u8], tags: &'a [String]) -> NewEntry<'a> {
    NewEntry {
        key,
        data,
        format: "json",
        meta: meta(Timestamp::NEVER),
        tags,
        profile: "p",
        function: None,
        stale_until: None,
    }
}

fn watch(store: &SqliteStore, key: &str) -> Watch {
    store.fence().watch(Subject {
        key: String::from(key),
        ..Subject::default()
    })
}

#[test]
fn a_group_is_one_transaction_and_its_last_word_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = open(&path);
    let other = stranger(&path);
    let commits = || -> i64 {
        other
            .query_row("PRAGMA data_version", [], |row| row.get(0))
            .unwrap()
    };
    let before = commits();
    let (t, none) = (tags(&["t"]), tags(&[]));
    let group = [
        (entry("a", b"1", &t), None),
        (entry("b", b"2", &none), None),
        (entry("a", b"3", &none), None),
    ];
    let (written, _) = store.write_group(&group).unwrap();
    assert_eq!(written, [true; 3]);
    assert_eq!(commits(), before + 1);
    assert_eq!(data(&store, "a").unwrap(), b"3");
    assert_eq!(data(&store, "b").unwrap(), b"2");
    assert_eq!(index(&path), pairs(&[]));
}

#[test]
fn a_result_whose_key_was_changed_is_left_out_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("a.db"));
    let none = tags(&[]);
    let (late, fresh) = (watch(&store, "late"), watch(&store, "fresh"));
    let outrun = watch(&store, "outrun");
    put(&store, "late", b"0", &[]);
    let group = [
        (entry("late", b"1", &none), Some(&late)),
        (entry("fresh", b"1", &none), Some(&fresh)),
        // By one before it in the group.
        (entry("outrun", b"0", &none), None),
        (entry("outrun", b"1", &none), Some(&outrun)),
    ];
    let (written, _) = store.write_group(&group).unwrap();
    assert_eq!(written, [false, true, true, false]);
    assert_eq!(data(&store, "late").unwrap(), b"0");
    assert_eq!(data(&store, "fresh").unwrap(), b"1");
    assert_eq!(data(&store, "outrun").unwrap(), b"0");
    assert!(!fresh.has_changed(), "a result outdates no computation");
}

#[test]
fn one_that_is_refused_fails_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let cache: Cache<u64> = Cache::open(settings(&path), Surroundings::default()).unwrap();
    // A stranger's rule, which the file brings along.
    stranger(&path)
        .execute_batch("CREATE UNIQUE INDEX one_of_a_kind ON cache(data)")
        .unwrap();
    let part = cache.begin_write(Some(Ttl::Never), None);
    let drafts: Vec<_> = [b"1", b"2", b"1", b"3"]
        .map(|data| cache.draft(data.to_vec(), "json", &part, 1, 0))
        .into();
    let keys = ["a", "b", "c", "d"];
    let group: Vec<_> = keys
        .iter()
        .zip(&drafts)
        .map(|(key, draft)| (*key, draft, None))
        .collect();
    let stored: Vec<bool> = cache
        .store_group(&group)
        .iter()
        .map(Result::is_ok)
        .collect();
    assert_eq!(stored, [true, true, false, true]);
    let mut stored = cache.store_keys().unwrap();
    stored.sort();
    assert_eq!(stored, ["a", "b", "d"]);
    assert_eq!(cache.stats().unwrap().sets, 3);
    drop(cache.close());
    assert!(matches!(
        cache.store_group(&group)[..],
        [Err(Error::Closed), ..]
    ));
}

#[test]
fn who_waits_for_a_lock_waits_for_all_of_a_group() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let settings = Settings {
        busy_timeout: std::time::Duration::from_millis(20),
        ..settings(&path)
    };
    let cache: Cache<u64> = Cache::open(settings, Surroundings::default()).unwrap();
    let holder = stranger(&path);
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let part = cache.begin_write(Some(Ttl::Never), None);
    let draft = cache.draft(b"1".to_vec(), "json", &part, 1, 0);
    let start = std::time::Instant::now();
    let group: Vec<_> = std::iter::repeat_n(("k", &draft, None), 200).collect();
    let stored = cache.store_group(&group);
    assert!(
        stored
            .iter()
            .all(|one| matches!(one, Err(Error::StoreBusy { .. })))
    );
    assert!(start.elapsed().as_millis() < 200 * 20, "not one by one");
}

#[test]
fn who_may_not_wait_reads_small_rows_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = open(&path);
    put(&store, "small", b"1", &[]);
    put(&store, "large", &vec![b'x'; 256 << 10], &[]);
    put(&store, "larger", &vec![b'x'; (256 << 10) + 1], &[]);
    let busy = |key: &str| matches!(store.read(key, false), Err(Error::StoreBusy { .. }));
    assert!(busy("small"), "a connection would have to be opened");
    assert_eq!(data(&store, "small").unwrap(), b"1");
    let read = |key: &str| {
        store
            .read(key, false)
            .unwrap()
            .row
            .map(|row| row.data.len())
    };
    assert_eq!(read("small"), Some(1));
    assert_eq!(read("large"), Some(256 << 10));
    assert!(busy("larger"));
    assert_eq!(read("none"), None);
    assert_eq!(data(&store, "larger").unwrap().len(), (256 << 10) + 1);
    // Readers wait for no writer.
    let holder = stranger(&path);
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(read("small"), Some(1));
    store.close().unwrap();
    assert_eq!(store.read("small", false).err(), Some(Error::Closed));
}

#[test]
fn who_may_not_wait_does_not_wait_for_the_writer_of_a_private_store() {
    let settings = Settings {
        location: Location::Memory,
        ..Settings::default()
    };
    let store = SqliteStore::open(&settings).unwrap();
    put(&store, "k", b"1", &[]);
    assert!(store.read("k", false).unwrap().row.is_some());
    let seen = std::thread::scope(|scope| {
        let mut seen = None;
        store
            .update("k", &mut |_| {
                let reader = scope.spawn(|| store.read("k", false).err());
                seen = reader.join().unwrap();
                Ok(cachetronomy::store::Change::Keep)
            })
            .unwrap();
        seen
    });
    assert!(matches!(seen, Some(Error::StoreBusy { .. })));
}
