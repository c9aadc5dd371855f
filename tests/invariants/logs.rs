//! Invariant 6: logs make no read wait, and are complete after a flush or a close.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cachetronomy::cache::{Cache, Surroundings};
use cachetronomy::error::Error;
use cachetronomy::maintenance::Maintenance;
use cachetronomy::settings::Settings;
use cachetronomy::store::Which;
use cachetronomy::time::ManualClock;

use super::{HOUR, START, get, in_memory, in_store, open, put, settings};

#[test]
fn logs_are_complete_after_a_flush_and_after_a_close() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let hands = ManualClock::new(START);
    let cache = open::<u64>(&path, &hands);
    let other = open::<u64>(&path, &hands);
    let count = |cache: &Cache<u64>, key: &str| {
        let rows = cache.accesses(Which::All, None).unwrap();
        rows.into_iter()
            .find(|row| row.key == key)
            .map_or(0, |row| row.count)
    };
    put(&cache, "k", 1, HOUR, &["t"]);
    for _ in 0..5 {
        assert_eq!(get(&cache, "k"), Some(1));
    }
    assert_eq!(count(&other, "k"), 0, "a hit writes nothing");
    cache.flush_logs().unwrap();
    assert_eq!(count(&other, "k"), 5);
    // A hit in the store counts as well, and what leaves memory takes its hits along.
    assert_eq!(get(&other, "k"), Some(1));
    drop((cache.evict("k"), other.evict_all()));
    assert_eq!(get(&cache, "k"), Some(1));
    cache.delete_by_tags(&["t".to_owned()], false).unwrap();
    cache.close().1.unwrap();
    other.close().1.unwrap();
    assert_eq!(count(&open(&path, &hands), "k"), 7, "all hits of both");
    let file = rusqlite::Connection::open(&path).unwrap();
    let mut reasons = file
        .prepare("SELECT reason FROM eviction_log ORDER BY reason")
        .unwrap();
    let reasons: Vec<String> = reasons
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        reasons,
        [
            "manual_eviction_clear_full_cache",
            "manual_eviction_clear_key",
            "tag_invalidation"
        ]
    );
}

#[test]
fn an_eviction_record_counts_the_hits_until_then() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let cache = open::<u64>(&path, &ManualClock::new(START));
    for key in ["evicted", "deleted", "tagged"] {
        put(&cache, key, 1, HOUR, &[key]);
        for _ in 0..3 {
            assert_eq!(in_memory(&cache, key), Some(1));
        }
    }
    drop(cache.evict("evicted"));
    cache.delete(&["deleted"]).unwrap();
    cache.delete_by_tags(&["tagged".to_owned()], false).unwrap();
    cache.close().1.unwrap();
    let file = rusqlite::Connection::open(&path).unwrap();
    let mut rows = file
        .prepare("SELECT key, last_access_count FROM eviction_log")
        .unwrap();
    let rows: Vec<(String, i64)> = rows
        .query_map([], |row| row.try_into())
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for (key, count) in &rows {
        assert_eq!(*count, 3, "{key}");
    }
    assert_eq!(rows.len(), 3);
}

#[test]
fn logs_never_make_a_read_wait_and_survive_a_flush_that_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let busy_timeout = Duration::from_millis(50);
    let settings = Settings {
        busy_timeout,
        ..settings(&path)
    };
    let cache: Cache<u64> = Cache::open(settings, Surroundings::default()).unwrap();
    put(&cache, "k", 1, HOUR, &[]);
    let stranger = rusqlite::Connection::open(&path).unwrap();
    stranger.execute_batch("BEGIN IMMEDIATE").unwrap();
    for _ in 0..100 {
        assert_eq!(
            (in_memory(&cache, "k"), in_store(&cache, "k")),
            (Some(1), Some(1))
        );
    }
    drop(cache.evict("k"));
    assert!(matches!(cache.flush_logs(), Err(Error::StoreBusy { .. })));
    stranger.execute_batch("ROLLBACK").unwrap();
    assert_eq!(cache.accesses(Which::All, Some(1)).unwrap()[0].count, 100);
    cache.flush_logs().unwrap();
    assert_eq!(
        cache.accesses(Which::All, Some(1)).unwrap()[0].count,
        100,
        "once, not twice"
    );
}

#[test]
fn the_background_thread_flushes_and_stops_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let cache: Cache<u64> = Cache::open(settings(&path), Surroundings::default()).unwrap();
    let cache = Arc::new(cache);
    let other: Cache<u64> = Cache::open(settings(&path), Surroundings::default()).unwrap();
    put(&cache, "k", 1, HOUR, &[]);
    assert_eq!(in_memory(&cache, "k"), Some(1));
    let thread = Maintenance::default();
    thread.start(&cache).unwrap();
    thread.start(&cache).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while other.accesses(Which::All, None).unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the hit was never written");
        std::thread::sleep(Duration::from_millis(20));
    }
    let start = Instant::now();
    thread.stop();
    thread.stop();
    assert!(
        start.elapsed() < Duration::from_millis(900),
        "it does not sleep to the end"
    );
    thread.start(&cache).unwrap();
    assert_eq!(
        Arc::strong_count(&cache),
        1,
        "a stopped thread is not started again"
    );
}
