//! How a file is made, and which files are refused and left as they are.

use std::path::Path;

use cachetronomy::error::Error;
use cachetronomy::store::Store;
use cachetronomy::store::sqlite::SqliteStore;
use rusqlite::Connection;

use super::{NOW, data, open, put, settings, stranger};

#[test]
fn a_missing_file_is_made_with_its_folders() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b/c \u{e9} %41?mode=ro#x/file:a.db");
    let store = open(&path);
    put(&store, "k", b"1", &[]);
    assert!(path.is_file(), "the name is a path and no URL");
    store.close().unwrap();
    let pragma = |sql: &str| stranger(&path).query_row(sql, [], |row| row.get::<_, String>(0));
    assert_eq!(pragma("PRAGMA journal_mode").unwrap(), "wal");
    assert_eq!(
        pragma("SELECT auto_vacuum || '' FROM pragma_auto_vacuum").unwrap(),
        "2"
    );
    assert_eq!(data(&open(&path), "k"), Some(b"1".to_vec()));
}

#[test]
fn an_empty_file_becomes_a_cache() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    std::fs::write(&path, b"").unwrap();
    let store = open(&path);
    put(&store, "k", b"1", &[]);
    assert_eq!(data(&store, "k"), Some(b"1".to_vec()));
    let vacuum: i64 = stranger(&path)
        .query_row("PRAGMA auto_vacuum", [], |row| row.get(0))
        .unwrap();
    assert_eq!(vacuum, 2);
}

#[test]
fn the_last_store_to_close_leaves_one_file_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    for _ in 0..3 {
        let stores = [open(&path), open(&path)];
        put(&stores[0], "k", b"1", &[]);
        assert!(data(&stores[1], "k").is_some());
        for store in stores {
            store.close().unwrap();
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[cfg(unix)]
#[test]
fn a_new_file_belongs_to_its_owner_alone_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt;
    const FOLDER: &str = "CACHETRONOMY_TEST_FOLDER";
    const NAME: &str = "files::a_new_file_belongs_to_its_owner_alone_whatever_the_umask";
    // The umask belongs to the process: a child of our own may set it, threads of tests may not.
    if let Some(folder) = std::env::var_os(FOLDER) {
        let store = open(&Path::new(&folder).join("a.db"));
        put(&store, "k", b"1", &[]);
        let mode = |name: &str| {
            let metadata = std::fs::metadata(Path::new(&folder).join(name)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        for name in ["a.db", "a.db-wal", "a.db-shm"] {
            assert_eq!(mode(name), 0o600, "{name}");
        }
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("sh")
        .args(["-c", "umask 0 && exec \"$0\" --exact \"$1\""])
        .arg(std::env::current_exe().unwrap())
        .arg(NAME)
        .env(FOLDER, folder.path())
        .status()
        .unwrap();
    assert!(
        status.success() && folder.path().join("a.db").exists(),
        "the child did its part"
    );
}

/// Opens a file that must be refused, and returns the error.
fn refused(path: &Path) -> Error {
    let folder = path.parent().unwrap();
    let listing = || {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let (bytes, names) = (std::fs::read(path).ok(), listing());
    let opened = SqliteStore::open(&settings(path)).map(|_| ());
    let error = opened.expect_err("the file was taken for a cache");
    assert!(
        std::fs::read(path).ok() == bytes,
        "the file was changed (journal of kind {:?}): {error}",
        bytes.as_ref().and_then(|bytes| bytes.get(18))
    );
    assert_eq!(
        listing(),
        names,
        "something was left beside the file: {error}"
    );
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
    error
}

#[test]
fn what_is_no_database_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let garbage: Vec<u8> = (0..5_000_u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let cut = [b"SQLite format 3\0".as_slice(), &garbage[..84]].concat();
    let text = [b'x'; 5_000];
    // Not a single byte: to SQLite that is an empty file, by a convention of its own.
    let cases = [
        &text[..2],
        &text[..9],
        &text[..511],
        &text[..512],
        &text,
        &[0; 2],
        &[0; 4_096],
    ];
    let failures: Vec<_> = cases
        .into_iter()
        .chain([garbage.as_slice(), &cut])
        .filter_map(|bytes| {
            std::fs::write(&path, bytes).unwrap();
            let attempt = std::panic::catch_unwind(|| refused(&path));
            let fine = matches!(attempt, Ok(Error::CorruptStore { .. }));
            (!fine).then(|| (bytes.len(), bytes[0], attempt.ok()))
        })
        .collect();
    assert!(
        failures.is_empty(),
        "length, first byte, error: {failures:?}"
    );
}

#[test]
fn another_programs_database_is_refused_and_left_as_it_is() {
    for mode in ["WAL", "DELETE"] {
        for schema in [
            "CREATE TABLE users(name TEXT); INSERT INTO users VALUES('u')",
            "CREATE TABLE cache(key TEXT, value TEXT)",
            "CREATE TABLE Cache(rowid INTEGER PRIMARY KEY, key BLOB, raw INTEGER, tag BLOB)",
        ] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.db");
            let other = Connection::open(&path).unwrap();
            other.pragma_update(None, "journal_mode", mode).unwrap();
            other.execute_batch(schema).unwrap();
            other.close().unwrap();
            let error = refused(&path);
            assert!(
                matches!(error, Error::CorruptStore { .. }),
                "{mode}: {error}"
            );
        }
    }
}

#[test]
fn a_file_of_a_later_layout_is_refused_and_left_as_it_is() {
    for mode in ["WAL", "DELETE"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        put(&open(&path), "k", b"1", &[]);
        let later = stranger(&path);
        later
            .execute(
                "UPDATE cachetronomy_meta SET value = '2' WHERE name = 'schema'",
                [],
            )
            .unwrap();
        later.pragma_update(None, "journal_mode", mode).unwrap();
        later.close().unwrap();
        let error = refused(&path);
        let said =
            matches!(&error, Error::StoreUnavailable { reason, .. } if reason.contains("layout 2"));
        assert!(said, "{error}");
    }
}

#[test]
fn a_folder_or_an_unreachable_place_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("folder");
    std::fs::create_dir(&inside).unwrap();
    let error = refused(&inside);
    assert!(matches!(error, Error::StoreUnavailable { .. }), "{error}");
    let file = folder.path().join("file");
    std::fs::write(&file, b"text").unwrap();
    let error = SqliteStore::open(&settings(&file.join("a.db"))).unwrap_err();
    assert!(matches!(error, Error::StoreUnavailable { .. }), "{error}");
    assert_eq!(std::fs::read(&file).unwrap(), b"text");
}

#[test]
fn any_busy_timeout_that_the_settings_take_can_be_opened_with() {
    let folder = tempfile::tempdir().unwrap();
    for seconds in [0.0, 1e-9, 0.5, 86_400.0, 1e7, 1e15] {
        let busy_timeout = cachetronomy::settings::parse_busy_timeout(seconds);
        let Ok(busy_timeout) = busy_timeout else {
            continue;
        };
        let settings = cachetronomy::settings::Settings {
            busy_timeout,
            ..settings(&folder.path().join("a.db"))
        };
        let opened = std::panic::catch_unwind(|| SqliteStore::open(&settings).map(|_| ()));
        assert!(matches!(opened, Ok(Ok(()))), "{seconds} s");
    }
}

#[test]
fn a_layout_number_that_is_none_does_not_pass_for_a_complete_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    // A table of ours, a number that was never written, and nothing else that was made by us.
    let other = Connection::open(&path).unwrap();
    other
        .execute_batch(
            "CREATE TABLE cache(key TEXT PRIMARY KEY, data BLOB NOT NULL, fmt TEXT, expire_at DATETIME,
                                tags TEXT, version INTEGER, saved_by_profile TEXT);
             CREATE TABLE cachetronomy_meta(name TEXT PRIMARY KEY, value TEXT NOT NULL);
             INSERT INTO cachetronomy_meta VALUES('schema', 'garbage')",
        )
        .unwrap();
    other.close().unwrap();
    match SqliteStore::open(&settings(&path)) {
        Err(error) => assert!(matches!(error, Error::CorruptStore { .. }), "{error}"),
        Ok(store) => {
            put(&store, "k", b"1", &["t"]);
            assert_eq!(store.keys(NOW).unwrap(), ["k"]);
        }
    }
}

#[test]
fn a_file_that_needs_a_feature_unknown_here_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    open(&path).close().unwrap();
    let change = |sql: &str| Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    change("UPDATE cachetronomy_meta SET value = 'zstd' WHERE name = 'features'");
    let before = std::fs::read(&path).unwrap();
    let refused = SqliteStore::open(&settings(&path)).unwrap_err();
    assert!(
        matches!(refused, Error::StoreUnavailable { .. }),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("zstd"));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    change("UPDATE cachetronomy_meta SET value = '' WHERE name = 'features'");
    open(&path).close().unwrap();
}
