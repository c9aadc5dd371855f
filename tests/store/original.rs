//! Files of the original package, and programs that write the table behind our back.

use std::path::Path;

use cachetronomy::store::{Store, Which};
use cachetronomy::time::Timestamp;
use rusqlite::Connection;

use super::{NOW, PAST, data, index, open, pairs, put, stranger, tags};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS cache(key TEXT PRIMARY KEY, data BLOB NOT NULL,
    fmt TEXT NOT NULL DEFAULT 'json', expire_at DATETIME NOT NULL,
    tags TEXT NOT NULL CHECK(json_valid(tags)), version INTEGER NOT NULL DEFAULT 1,
    saved_by_profile TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS access_log(key TEXT PRIMARY KEY,
    access_count INTEGER NOT NULL DEFAULT 0, last_accessed DATETIME NOT NULL,
    last_accessed_by_profile TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS eviction_log(id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL,
    evicted_at DATETIME NOT NULL, reason TEXT NOT NULL,
    last_access_count INTEGER NOT NULL DEFAULT 1, evicted_by_profile TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS profiles(name TEXT PRIMARY KEY, time_to_live INTEGER NOT NULL,
    ttl_cleanup_interval INTEGER NOT NULL, memory_based_eviction INTEGER NOT NULL,
    free_memory_target REAL NOT NULL, memory_cleanup_interval INTEGER NOT NULL,
    max_items_in_memory INTEGER NOT NULL, tags TEXT NOT NULL CHECK(json_valid(tags)));
CREATE INDEX IF NOT EXISTS idx_cache_expire_at ON cache(expire_at);";

/// A row as the original writes it: text for JSON, a moment with or without a fraction.
const INSERT: &str = "
INSERT OR REPLACE INTO cache(key, data, fmt, expire_at, tags, version, saved_by_profile)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'default')";

const FAR: &str = "2999-01-01T00:00:00+00:00";

/// 500 entries, each tagged with its last digit; `past` is over; `packed` is MessagePack as text.
fn originals(path: &Path, mode: &str) -> Connection {
    let file = Connection::open(path).unwrap();
    file.pragma_update(None, "journal_mode", mode).unwrap();
    file.execute_batch(SCHEMA).unwrap();
    file.execute_batch("BEGIN").unwrap();
    for number in 0..500 {
        let tags = format!("[\"{}\", \"all\"]", number % 10);
        let key = format!("key {number}");
        file.execute(INSERT, (key, number.to_string(), "json", FAR, tags, 3))
            .unwrap();
    }
    let past = PAST.to_string();
    file.execute(INSERT, ("past", "1", "json", past, "[\"all\"]", 1))
        .unwrap();
    file.execute(
        INSERT,
        ("packed", "\u{93}\u{1}\u{2}\u{3}", "msgpack", FAR, "[]", 1),
    )
    .unwrap();
    let log = "INSERT INTO access_log VALUES('key 1', 4, '2020-01-01T00:00:00+00:00', 'default')";
    file.execute(log, []).unwrap();
    file.execute_batch("COMMIT").unwrap();
    file
}

#[test]
fn a_file_of_the_original_is_served_with_every_entry_and_tag() {
    for mode in ["DELETE", "TRUNCATE", "PERSIST", "WAL"] {
        for still_open in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.db");
            let file = originals(&path, mode);
            // The switch to WAL needs the file for itself.
            let file = (still_open && mode == "WAL").then_some(file);
            let store = open(&path);
            for number in 0..500 {
                let row = store
                    .read(&format!("key {number}"), true)
                    .unwrap()
                    .row
                    .unwrap();
                assert_eq!(
                    (row.data, row.meta.version),
                    (number.to_string().into_bytes(), 3)
                );
                assert_eq!(row.meta.expire_at, Timestamp::parse(FAR).unwrap());
            }
            assert_eq!(data(&store, "packed"), Some(vec![0x93, 1, 2, 3]));
            assert_eq!(store.keys(NOW).unwrap().len(), 501, "{mode}");
            assert_eq!(store.accesses(Which::All, None).unwrap().rows[0].count, 4);
            store.maintain().unwrap();
            assert_eq!(index(&path).len(), 1_001);
            assert_eq!(
                store
                    .delete_by_tags(&tags(&["7"]), false, NOW)
                    .unwrap()
                    .len(),
                50
            );
            let exact = store
                .delete_by_tags(&tags(&["all", "8"]), true, NOW)
                .unwrap();
            assert_eq!(exact.len(), 50);
            assert_eq!(store.delete_expired(NOW, 10).unwrap().rows.len(), 1);
            assert_eq!(store.check(false).unwrap(), [""; 0]);
            store.close().unwrap();
            drop(file);
            assert_eq!(
                open(&path).keys(NOW).unwrap().len(),
                401,
                "once more, {mode}"
            );
        }
    }
}

#[test]
fn the_original_goes_on_working_on_a_file_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = open(&path);
    put(&store, "ours", b"1", &["t"]);
    let original = stranger(&path);
    original.execute_batch(SCHEMA).unwrap();
    original
        .execute(INSERT, ("theirs", "2", "json", FAR, "[\"t\"]", 1))
        .unwrap();
    assert_eq!(data(&store, "theirs"), Some(b"2".to_vec()));
    let sql = "SELECT CAST(data AS TEXT) FROM cache WHERE key = 'ours' AND expire_at > ?1";
    let read: String = original
        .query_row(sql, [NOW.to_string()], |row| row.get(0))
        .unwrap();
    assert_eq!(read, "1");
    let mut removed = store.delete_by_tags(&tags(&["t"]), true, NOW).unwrap();
    removed.sort_unstable();
    assert_eq!(removed, ["ours", "theirs"]);
}

#[test]
fn strangers_writes_keep_the_index_of_tags_right() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = open(&path);
    put(&store, "k", b"1", &["a", "b"]);
    put(&store, "n", b"1", &["a"]);
    let file = stranger(&path);
    let steps: [(&str, &[(&str, &str)]); 8] = [
        (
            "INSERT OR REPLACE INTO cache(key, data, expire_at, tags, saved_by_profile)
             VALUES ('k', '2', '2999-01-01T00:00:00+00:00', '[\"b\", \"c\"]', 'p')",
            &[("a", "n"), ("b", "k"), ("c", "k")],
        ),
        (
            "UPDATE cache SET tags = '[\"it''s\", 1, null, \"\u{e9}\"]' WHERE key = 'k'",
            &[("a", "n"), ("it's", "k"), ("\u{e9}", "k")],
        ),
        (
            "UPDATE cache SET key = 'moved' WHERE key = 'k'",
            &[("a", "n"), ("it's", "moved"), ("\u{e9}", "moved")],
        ),
        (
            "UPDATE OR REPLACE cache SET key = 'n' WHERE key = 'moved'",
            &[("it's", "n"), ("\u{e9}", "n")],
        ),
        (
            "INSERT INTO cache(key, data, expire_at, tags, saved_by_profile)
             VALUES ('n', '3', '2999-01-01T00:00:00', '[\"z\"]', 'p')
             ON CONFLICT(key) DO UPDATE SET data = excluded.data, tags = excluded.tags",
            &[("z", "n")],
        ),
        ("UPDATE cache SET version = 2", &[("z", "n")]),
        ("DELETE FROM cache WHERE key = 'n'", &[]),
        (
            "INSERT INTO cache(key, data, expire_at, tags, saved_by_profile)
             VALUES ('x', '3', '2999-01-01T00:00:00', '[\"t\", \"t\"]', 'p')",
            &[("t", "x")],
        ),
    ];
    for (sql, expected) in steps {
        file.execute(sql, []).unwrap();
        assert_eq!(index(&path), pairs(expected), "{sql}");
        assert_eq!(store.check(false).unwrap(), [""; 0], "{sql}");
    }
}

#[test]
fn a_strangers_update_clears_what_was_measured_of_the_old_value() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = open(&path);
    let file = stranger(&path);
    let measures = || -> (Option<i64>, Option<i64>, Option<i64>) {
        file.query_row("SELECT compute_us, size, checksum FROM cache", [], |row| {
            row.try_into()
        })
        .unwrap()
    };
    for (change, cleared) in [
        ("UPDATE cache SET data = '22'", true),
        ("UPDATE cache SET fmt = 'orjson'", true),
        ("UPDATE cache SET key = 'k', data = '22'", true),
        (
            "INSERT OR REPLACE INTO cache(key, data, expire_at, tags, saved_by_profile)
             VALUES ('k', '22', '2999-01-01T00:00:00+00:00', '[]', 'p')",
            true,
        ),
        (
            "UPDATE cache SET expire_at = '2999-01-01T00:00:00+00:00'",
            false,
        ),
        ("UPDATE cache SET version = 9, tags = '[\"t\"]'", false),
    ] {
        let mut meta = super::meta(Timestamp::NEVER);
        meta.compute_us = 5;
        let (data, format) = (b"1".as_slice(), "json");
        let entry = cachetronomy::entry::NewEntry {
            key: "k",
            data,
            format,
            meta,
            tags: &[],
            profile: "p",
            function: None,
            stale_until: None,
        };
        store.write(&[entry]).unwrap();
        assert!(matches!(measures(), (Some(5), Some(1), Some(_))));
        file.execute(change, []).unwrap();
        if cleared {
            assert_eq!(measures(), (None, None, None), "{change}");
        } else {
            assert!(
                matches!(measures(), (Some(5), Some(1), Some(_))),
                "{change}"
            );
        }
        assert!(
            store.read("k", true).unwrap().row.is_some(),
            "{change}: it is not damage"
        );
    }
}

#[test]
fn a_file_that_the_original_is_reading_is_upgraded_as_soon_as_it_lets_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let file = originals(&path, "DELETE");
    file.execute_batch("BEGIN; SELECT count(*) FROM cache")
        .unwrap();
    let count = "SELECT count(*) FROM cache";
    let _: i64 = file.query_row(count, [], |row| row.get(0)).unwrap();
    let opened = std::thread::scope(|scope| {
        let opener = scope.spawn(|| open(&path));
        // Time for it to meet the reader, who stands in the way of the switch to WAL.
        std::thread::sleep(std::time::Duration::from_millis(200));
        file.execute_batch("COMMIT").unwrap();
        opener.join().unwrap()
    });
    assert_eq!(opened.keys(NOW).unwrap().len(), 501);
}
