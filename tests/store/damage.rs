//! Damaged rows and hostile schemas: the row is lost, its neighbours are served, nothing runs.

use std::path::Path;

use cachetronomy::cache::{Cache, Surroundings};
use cachetronomy::error::Error;
use cachetronomy::store::{Store, Which};
use cachetronomy::time::{Clock, ManualClock, Timestamp};
use rusqlite::config::DbConfig;

use super::{NOW, data, open, put, settings, stranger, tags};

/// Surroundings whose clock stands at `now`.
fn at(now: Timestamp) -> Surroundings<()> {
    Surroundings {
        clock: Clock::Manual(ManualClock::new(now)),
        ..Surroundings::default()
    }
}

/// Changes rows as damage would: no trigger notices, no constraint objects.
fn damage(path: &Path, sql: &str) {
    let connection = stranger(path);
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)
        .unwrap();
    connection
        .execute_batch(&format!("PRAGMA ignore_check_constraints=ON; {sql}"))
        .unwrap();
    connection.close().unwrap();
}

/// Three neighbours around the row `bad`, all tagged alike.
fn filled(path: &Path) {
    let store = open(path);
    for key in ["a", "bad", "c", "d"] {
        put(
            &store,
            key,
            b"\"some payload of a certain length\"",
            &["t", key],
        );
    }
    store.close().unwrap();
}

/// Whatever is wrong with one row, every entry point serves the others.
fn neighbours_are_served(path: &Path, what: &str) {
    let store = open(path);
    for key in ["a", "c", "d"] {
        assert!(data(&store, key).is_some(), "{what}: {key}");
    }
    let many = store.read_many(&["a", "bad", "c"]).unwrap();
    let served = |index: usize| {
        many[index]
            .as_ref()
            .is_ok_and(|fetched| fetched.row.is_some())
    };
    assert!(served(0) && served(2), "{what}");
    for (with_data, limit) in [(true, None), (false, None), (true, Some(4))] {
        let listing = store.rows(Which::All, NOW, limit, with_data).unwrap();
        let found = |key| listing.rows.iter().any(|row| row.key == key);
        assert!(
            ["a", "c", "d"].into_iter().all(found),
            "{what}: {listing:?}"
        );
    }
    let tagged = store.tagged(&tags(&["t"]), false, NOW).unwrap();
    let found = |key: &str| tagged.iter().any(|other| other == key);
    assert!(["a", "c", "d"].into_iter().all(found), "{what}: {tagged:?}");
    let keys = store
        .keys(NOW)
        .unwrap_or_else(|error| panic!("{what}: keys: {error}"));
    assert!(
        ["a", "c", "d"]
            .iter()
            .all(|key| keys.contains(&(*key).to_owned())),
        "{what}"
    );
    assert!(store.size(NOW).unwrap().entries >= 3, "{what}");
    store
        .check(false)
        .unwrap_or_else(|error| panic!("{what}: check: {error}"));
    let cache: Cache<()> = Cache::open(settings(path), at(NOW)).unwrap();
    cache
        .delete_expired()
        .unwrap_or_else(|error| panic!("{what}: sweep: {error}"));
    for (tag, exact) in [("a", false), ("absent", true)] {
        let removed = store.delete_by_tags(&tags(&[tag]), exact, NOW);
        removed.unwrap_or_else(|error| panic!("{what}: tags: {error}"));
    }
    let removed = store.delete_by_tags(&tags(&["c", "t"]), true, NOW);
    assert_eq!(
        removed.unwrap_or_else(|error| panic!("{what}: {error}")),
        ["c"],
        "{what}"
    );
    assert_eq!(store.delete(&["d"], NOW).unwrap(), [true], "{what}");
    put(&store, "bad", b"2", &[]);
    assert_eq!(
        data(&store, "bad"),
        Some(b"2".to_vec()),
        "{what}: it can be written anew"
    );
}

#[test]
fn a_row_that_cannot_be_read_is_an_error_of_its_own_and_its_neighbours_are_served() {
    let damages = [
        "data = CAST(replace(CAST(data AS TEXT), 'payload', 'pAyload') AS BLOB)",
        "data = substr(data, 2)",
        "data = x''",
        "data = 17",
        "data = 1.5",
        "fmt = 'msgpack'",
        "fmt = x'00ff'",
        "fmt = CAST(x'ff' AS TEXT)",
        "checksum = checksum + 1",
        "expire_at = 'garbage'",
        "expire_at = '9999-99-99T00:00:00'",
        "expire_at = 32503680000",
        "expire_at = x'00'",
        "expire_at = ''",
        "version = 'one'",
        "version = 1.5",
        "version = x'01'",
        "version = 0",
        "tags = 'no json'",
        "tags = '{\"a\": 1}'",
        "tags = x'00'",
        "tags = 5",
        "saved_by_profile = x'00'",
    ];
    let mut spared = Vec::new();
    for change in damages {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        filled(&path);
        damage(
            &path,
            &format!("UPDATE cache SET {change} WHERE key = 'bad'"),
        );
        let store = open(&path);
        for wait in [true, false] {
            match store.read("bad", wait) {
                Err(Error::CorruptEntry { key, .. }) => assert_eq!(key, "bad"),
                other => spared.push(format!("{change}: {other:?}")),
            }
        }
        assert!(
            matches!(
                store.read_many(&["bad"]).unwrap()[0],
                Err(Error::CorruptEntry { .. })
            ),
            "{change}"
        );
        store.close().unwrap();
        neighbours_are_served(&path, change);
    }
    assert_eq!(spared, [""; 0], "each of these is damage");
}

#[test]
fn a_row_with_odd_tags_or_an_odd_key_disturbs_no_other() {
    let oddities = [
        "UPDATE cache SET tags = 'no json' WHERE key = 'bad'",
        "UPDATE cache SET tags = '{\"a\": 1}' WHERE key = 'bad'",
        "UPDATE cache SET tags = '[1, null, \"t\"]' WHERE key = 'bad'",
        "UPDATE cache SET tags = x'00' WHERE key = 'bad'",
        "UPDATE cache SET tags = 5 WHERE key = 'bad'",
        "UPDATE cache SET compute_us = 'x', size = 'y', checksum = NULL WHERE key = 'bad'",
        "UPDATE cache SET key = x'626164' WHERE key = 'bad'",
        "UPDATE cache SET key = CAST(x'ff' AS TEXT) WHERE key = 'bad'",
        "UPDATE cache SET key = NULL WHERE key = 'bad'",
        "UPDATE cache SET key = NULL, expire_at = '' WHERE key = 'bad'",
        "INSERT INTO cache_tag(tag, key) VALUES ('t', 'ghost'), (x'00', x'00'), (1, 2)",
    ];
    let failures: Vec<String> = oddities
        .into_iter()
        .filter_map(|change| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.db");
            filled(&path);
            damage(&path, change);
            let served = std::panic::catch_unwind(|| neighbours_are_served(&path, change));
            served.err().map(|_| change.to_owned())
        })
        .collect();
    assert_eq!(failures, [""; 0], "the panics above say what failed");
}

#[test]
fn a_row_with_odd_log_entries_does_not_hide_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    filled(&path);
    damage(
        &path,
        "INSERT INTO access_log VALUES
             ('good', 3, '2020-01-01T00:00:00', 'p'), (x'ff', 'many', 7, x'00');
         INSERT INTO eviction_log(key, evicted_at, reason, last_access_count, evicted_by_profile)
             VALUES ('good', '2020-01-01T00:00:00', 'r', 3, 'p'), ('bad', 'long ago', 1, -1, x'00')",
    );
    let store = open(&path);
    let log = store.accesses(Which::All, None).unwrap().rows;
    assert!(
        log.iter().any(|row| row.key == "good" && row.count == 3),
        "{log:?}"
    );
    let log = store.evictions(Some(1)).unwrap();
    assert_eq!((&*log.rows[0].key, log.damaged.len()), ("good", 1));
}

#[test]
fn a_cache_counts_a_damaged_entry_as_a_miss_and_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    filled(&path);
    damage(
        &path,
        "UPDATE cache SET data = substr(data, 2) WHERE key = 'bad'",
    );
    let cache: Cache<()> = Cache::open(settings(&path), at(NOW)).unwrap();
    assert!(cache.fetch("bad", None, true).unwrap().is_none());
    let stats = cache.stats().unwrap();
    assert_eq!((stats.misses, stats.errors), (1, 1));
    assert!(cache.fetch_many(&["bad", "a"]).unwrap()[1].is_some());
    let stats = cache.stats().unwrap();
    assert_eq!(
        (stats.misses, stats.errors),
        (2, 1),
        "each damaged entry is an error once, and a miss each time"
    );
}

#[test]
fn nothing_that_the_file_brings_along_runs_on_our_connections() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    filled(&path);
    stranger(&path)
        .execute_batch(
            "CREATE TABLE ran(what TEXT);
             CREATE TRIGGER h1 AFTER INSERT ON cache BEGIN INSERT INTO ran VALUES('insert'); END;
             CREATE TRIGGER h2 AFTER UPDATE ON cache BEGIN INSERT INTO ran VALUES('update'); END;
             CREATE TRIGGER h3 BEFORE DELETE ON cache BEGIN
                 INSERT INTO ran VALUES('delete'); SELECT RAISE(ABORT, 'hostile'); END;
             CREATE TRIGGER h4 AFTER INSERT ON access_log BEGIN INSERT INTO ran VALUES('log'); END;
             CREATE TRIGGER h5 AFTER DELETE ON cache_tag BEGIN INSERT INTO ran VALUES('tag'); END;",
        )
        .unwrap();
    let store = open(&path);
    put(&store, "a", b"2", &["x"]);
    put(&store, "new", b"2", &["x"]);
    let hit = cachetronomy::entry::AccessRecord {
        key: "a".to_owned(),
        count: 1,
        last_accessed: NOW,
    };
    store.append_logs(&[hit], "p", &[]).unwrap();
    assert_eq!(store.delete(&["a"], NOW).unwrap(), [true]);
    assert_eq!(
        store.delete_by_tags(&tags(&["x"]), false, NOW).unwrap(),
        ["new"]
    );
    assert_eq!(store.clear().unwrap(), 3);
    store.close().unwrap();
    let ran: i64 = stranger(&path)
        .query_row("SELECT count(*) FROM ran", [], |row| row.get(0))
        .unwrap();
    assert_eq!(ran, 0);
}

#[test]
fn a_view_in_the_place_of_a_table_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    filled(&path);
    // Endless, were it ever evaluated.
    damage(
        &path,
        "ALTER TABLE cache RENAME TO hidden;
         CREATE VIEW cache AS
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
             SELECT i AS key, '' AS data, '' AS fmt, '' AS expire_at, '[]' AS tags, 1 AS version,
                    '' AS saved_by_profile, 0 AS compute_us, 0 AS size, 0 AS checksum FROM n",
    );
    if let Ok(store) = cachetronomy::store::sqlite::SqliteStore::open(&settings(&path)) {
        assert!(store.read("a", true).is_err() && store.keys(NOW).is_err());
    }
}

#[test]
fn a_changed_page_of_the_file_never_yields_a_wrong_value() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let value = |number: u64| format!("\"{}\"", number.to_string().repeat(150)).into_bytes();
    let store = open(&path);
    for number in 0..100 {
        put(&store, &number.to_string(), &value(number), &["t"]);
    }
    store.close().unwrap();
    let sound = std::fs::read(&path).unwrap();
    let (mut wrong, mut refused, mut served) = (0, 0, 0_u32);
    let mut seed = 42_u64;
    for _ in 0..60 {
        let mut bytes = sound.clone();
        for _ in 0..20 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = usize::try_from(seed >> 33).unwrap() % bytes.len();
            bytes[at] ^= 1 << (seed % 8);
        }
        let copy = folder.path().join("copy.db");
        std::fs::write(&copy, bytes).unwrap();
        let Ok(store) = cachetronomy::store::sqlite::SqliteStore::open(&settings(&copy)) else {
            refused += 1;
            continue;
        };
        for number in 0..100 {
            let read = store.read(&number.to_string(), true);
            match read.map(|fetched| fetched.row.map(|row| row.data)) {
                Ok(Some(found)) if found == value(number) => served += 1,
                Ok(Some(_)) => wrong += 1,
                Ok(None) | Err(_) => {}
            }
        }
        drop(store.close());
    }
    assert_eq!(wrong, 0, "of {served} served; {refused} files refused");
    assert!(served > 1_000, "{served} served; {refused} files refused");
}
