//! The index of old tags, bounded logs, repair, copies, room given back.

use cachetronomy::entry::{AccessRecord, Answer, Cell};
use cachetronomy::error::Error;
use cachetronomy::store::{Store, Which};
use cachetronomy::time::Timestamp;

use super::{NOW, data, index, open, put, stranger, tags};

const FAR: &str = "2999-01-01T00:00:00.000000+00:00";

/// Many entries of the original, without any index of their tags.
fn originals(path: &std::path::Path, count: usize) {
    let file = stranger(path);
    file.execute_batch(
        "CREATE TABLE cache(key TEXT PRIMARY KEY, data BLOB NOT NULL,
             fmt TEXT NOT NULL DEFAULT 'json', expire_at DATETIME NOT NULL,
             tags TEXT NOT NULL CHECK(json_valid(tags)), version INTEGER NOT NULL DEFAULT 1,
             saved_by_profile TEXT NOT NULL)",
    )
    .unwrap();
    file.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
         INSERT INTO cache SELECT 'k' || i, '1', 'json', ?2,
             json_array('all', 'group ' || (i % 100)), 1, 'default' FROM n",
        (i64::try_from(count).unwrap(), FAR),
    )
    .unwrap();
}

#[test]
fn the_tags_of_a_large_old_file_are_found_before_while_and_after_they_are_indexed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    originals(&path, 50_000);
    let store = open(&path);
    assert!(
        index(&path).is_empty(),
        "opening does not wait for the index"
    );
    let mut rounds = 0;
    for group in 0.. {
        let tag = tags(&[&format!("group {group}")]);
        let found = store.tagged(&tag, false, NOW).unwrap();
        assert_eq!(found.len(), 500, "round {group}");
        assert_eq!(store.delete_by_tags(&tag, false, NOW).unwrap().len(), 500);
        put(&store, &format!("new {group}"), b"1", &["new"]);
        let new = store.tagged(&tags(&["new"]), true, NOW).unwrap();
        assert_eq!(new.len(), group + 1);
        let before = index(&path).len();
        store.maintain().unwrap();
        if index(&path).len() == before {
            rounds = group;
            break;
        }
    }
    assert!(rounds >= 2, "it takes more than one call: {rounds}");
    assert_eq!(store.check(false).unwrap(), [""; 0]);
    let left = 50_000 - 500 * (rounds + 1);
    let all = store.delete_by_tags(&tags(&["all"]), false, NOW).unwrap();
    assert_eq!(all.len(), left);
    store.close().unwrap();
    assert_eq!(index(&path).len(), rounds + 1);
}

#[test]
fn what_strangers_write_while_old_tags_are_indexed_is_found_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    originals(&path, 30_000);
    let store = open(&path);
    store.maintain().unwrap();
    let file = stranger(&path);
    file.execute_batch(
        "UPDATE cache SET tags = '[\"moved\"]' WHERE key IN ('k1', 'k29999');
         DELETE FROM cache WHERE key IN ('k2', 'k29998');
         INSERT OR REPLACE INTO cache(key, data, fmt, expire_at, tags, version, saved_by_profile)
             SELECT key, data, fmt, expire_at, '[\"moved\"]', 1, 'p' FROM cache
             WHERE key IN ('k3', 'k29997');",
    )
    .unwrap();
    for _ in 0..5 {
        let mut moved = store.tagged(&tags(&["moved"]), true, NOW).unwrap();
        moved.sort_unstable();
        assert_eq!(moved, ["k1", "k29997", "k29999", "k3"]);
        store.maintain().unwrap();
    }
    assert_eq!(store.check(false).unwrap(), [""; 0]);
    let all = store.tagged(&tags(&["all"]), false, NOW).unwrap();
    assert_eq!(all.len(), 30_000 - 6);
}

#[test]
fn the_access_log_keeps_its_hottest_keys() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("a.db"));
    let record = |number: u64| AccessRecord {
        key: number.to_string(),
        count: 1 + u64::from(number.is_multiple_of(1_000)),
        last_accessed: Timestamp(NOW.0 + i64::try_from(number).unwrap()),
    };
    let records: Vec<_> = (0..100_001).map(record).collect();
    store.append_logs(&records, "p", &[]).unwrap();
    let kept = store.accesses(Which::All, None).unwrap().rows;
    assert_eq!(kept.len(), 90_000);
    assert_eq!(kept.iter().filter(|row| row.count == 2).count(), 101);
    assert!(
        kept.iter()
            .all(|row| row.count == 2 || row.last_accessed.0 > NOW.0 + 9_000),
        "of equals the oldest left"
    );
}

#[test]
fn repair_removes_what_nobody_can_read_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = open(&path);
    put(&store, "good", b"1", &["t"]);
    put(&store, "bad", b"1", &["t"]);
    put(&store, "lost tag", b"1", &["t"]);
    store.close().unwrap();
    stranger(&path)
        .execute_batch(
            "PRAGMA ignore_check_constraints = ON;
             UPDATE cache SET expire_at = 'garbage' WHERE key = 'bad';
             DELETE FROM cache_tag WHERE key = 'lost tag';
             INSERT INTO cache_tag VALUES ('t', 'nobody')",
        )
        .unwrap();
    let store = open(&path);
    let found = store.check(false).unwrap();
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(store.check(true).unwrap(), found, "what was found");
    assert_eq!(store.check(false).unwrap(), [""; 0], "and mended");
    let tagged = store.tagged(&tags(&["t"]), false, NOW).unwrap();
    assert_eq!(tagged, ["good", "lost tag"]);
    assert_eq!(data(&store, "good"), Some(b"1".to_vec()));
}

#[test]
fn a_copy_is_made_of_one_moment_and_never_over_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = open(&path);
    for number in 0..1_000 {
        put(&store, &number.to_string(), b"1", &["t"]);
    }
    let copy = folder.path().join("copy.db");
    store.backup(&copy).unwrap();
    put(&store, "later", b"1", &[]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = copy.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let bytes = std::fs::read(&copy).unwrap();
    for taken in [&copy, &path] {
        let refused = store.backup(taken).unwrap_err();
        assert!(matches!(refused, Error::InvalidSetting { .. }), "{refused}");
    }
    assert_eq!(std::fs::read(&copy).unwrap(), bytes);
    let absent = folder.path().join("no/such/folder.db");
    assert!(store.backup(&absent).is_err());
    let copied = open(&copy);
    assert_eq!(copied.keys(NOW).unwrap().len(), 1_000);
    assert_eq!(copied.check(false).unwrap(), [""; 0]);
    let tagged = copied.tagged(&tags(&["t"]), true, NOW).unwrap();
    assert_eq!(tagged.len(), 1_000);
}

#[test]
fn room_is_given_back_also_of_a_file_of_the_original() {
    for old in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        if old {
            originals(&path, 20_000);
        }
        let store = open(&path);
        let block = vec![b'1'; 10_000];
        for number in 0..500 {
            put(&store, &number.to_string(), &block, &["t"]);
        }
        store.delete_by_tags(&tags(&["t"]), false, NOW).unwrap();
        store.vacuum().unwrap();
        let bytes = path.metadata().unwrap().len();
        let kept = if old { 5_000_000 } else { 200_000 };
        assert!(bytes < kept, "{bytes} bytes, old: {old}");
        assert_eq!(store.check(false).unwrap(), [""; 0]);
        assert_eq!(store.keys(NOW).unwrap().len(), if old { 20_000 } else { 0 });
        let mode = store.query("PRAGMA auto_vacuum", &[], false).unwrap();
        let names = vec![String::from("auto_vacuum")];
        assert_eq!(mode, Answer::Rows(names, vec![vec![Cell::Integer(2)]]));
    }
}

#[test]
fn a_statement_of_the_callers_own_reads_writes_or_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = open(&path);
    put(&store, "a", b"1", &["t"]);
    put(&store, "b", b"2", &["t"]);
    let select = "SELECT key, 1.5 AS half, NULL AS none FROM cache WHERE key = ?1";
    let answer = store
        .query(select, &[Cell::Text(String::from("b"))], false)
        .unwrap();
    let names = ["key", "half", "none"].map(String::from).to_vec();
    let row = vec![Cell::Text(String::from("b")), Cell::Real(1.5), Cell::Null];
    assert_eq!(answer, Answer::Rows(names, vec![row]));

    let delete = "DELETE FROM cache WHERE key = 'a'";
    for (statement, write) in [
        (delete, false),
        ("SELEKT", false),
        ("", true),
        ("SELECT 1; SELECT 2", true),
        ("BEGIN", true),
        ("COMMIT", true),
        ("DROP TABLE absent", true),
        ("SELECT ?1, ?2, ?3", false),
        ("VACUUM", true),
        ("PRAGMA query_only = OFF", true),
        ("ATTACH ':memory:' AS other", true),
        ("CREATE TEMP TABLE cache(key, data)", true),
        (
            "CREATE TEMP TRIGGER t AFTER INSERT ON cache BEGIN SELECT 1; END",
            true,
        ),
        ("PRAGMA hard_heap_limit = 1", true),
        ("PRAGMA journal_mode = DELETE", true),
        ("PRAGMA wal_checkpoint(TRUNCATE)", true),
    ] {
        let refused = store.query(statement, &[], write).unwrap_err();
        let about_it = matches!(refused, Error::InvalidSetting { name: "query", .. });
        assert!(about_it, "{statement}: {refused}");
    }
    assert_eq!(store.keys(NOW).unwrap().len(), 2);
    assert_eq!(store.query(delete, &[], true).unwrap(), Answer::Changed(1));
    let create = "CREATE TABLE theirs(a)";
    assert_eq!(store.query(create, &[], true).unwrap(), Answer::Changed(0));
    let told = store
        .query("PRAGMA table_info(theirs)", &[], false)
        .unwrap();
    assert!(matches!(told, Answer::Rows(_, rows) if rows.len() == 1));
    let update = "UPDATE cache SET data = '3', tags = '[\"u\"]' WHERE key = 'b'";
    assert_eq!(store.query(update, &[], true).unwrap(), Answer::Changed(1));
    assert_eq!(
        data(&store, "b"),
        Some(b"3".to_vec()),
        "its checksum is right"
    );
    assert_eq!(store.tagged(&tags(&["u"]), true, NOW).unwrap(), ["b"]);
    assert!(store.tagged(&tags(&["t"]), false, NOW).unwrap().is_empty());

    let trap = "CREATE TRIGGER trap AFTER INSERT ON cache BEGIN DELETE FROM profiles; END";
    stranger(&path).execute_batch(trap).unwrap();
    let refused = store.query("DELETE FROM cache", &[], true).unwrap_err();
    assert!(refused.to_string().contains("triggers"), "{refused}");
    assert_eq!(store.keys(NOW).unwrap(), ["b"]);
}
