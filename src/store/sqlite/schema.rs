//! All DDL: the tables of a new file, and what a file of the original package lacks.
//!
//! `docs/format.md` describes the result.

use rusqlite::{Connection, OptionalExtension};

use super::connection::Opener;
use super::tags;
use super::transaction::begin;
use crate::error::{Error, Result};

/// The number of the layout below; a file with a higher one is not opened.
pub(super) const SCHEMA: i64 = 1;

/// Bytes of the smallest page, which every database has.
const SMALLEST_DATABASE: u64 = 512;

/// The tables of the original package, column by column as it makes them.
const ORIGINAL: &str = "
CREATE TABLE IF NOT EXISTS cache (
    key TEXT PRIMARY KEY,
    data BLOB NOT NULL,
    fmt TEXT NOT NULL DEFAULT 'json',
    expire_at DATETIME NOT NULL,
    tags TEXT NOT NULL CHECK(json_valid(tags)),
    version INTEGER NOT NULL DEFAULT 1,
    saved_by_profile TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS access_log (
    key TEXT PRIMARY KEY,
    access_count INTEGER NOT NULL DEFAULT 0,
    last_accessed DATETIME NOT NULL,
    last_accessed_by_profile TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS eviction_log (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL,
    evicted_at DATETIME NOT NULL,
    reason TEXT NOT NULL,
    last_access_count INTEGER NOT NULL DEFAULT 1,
    evicted_by_profile TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS profiles (
    name TEXT PRIMARY KEY,
    time_to_live INTEGER NOT NULL,
    ttl_cleanup_interval INTEGER NOT NULL,
    memory_based_eviction INTEGER NOT NULL,
    free_memory_target REAL NOT NULL,
    memory_cleanup_interval INTEGER NOT NULL,
    max_items_in_memory INTEGER NOT NULL,
    tags TEXT NOT NULL CHECK(json_valid(tags))
);
CREATE TABLE IF NOT EXISTS cli_config (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    db_path TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_cache_expire_at ON cache(expire_at);
CREATE INDEX IF NOT EXISTS idx_access_log_count ON access_log(access_count);
";

/// Columns that the original neither writes nor reads. All may be NULL: its rows leave them so.
const COLUMNS: [&str; 5] = [
    "compute_us INTEGER",
    "size INTEGER",
    "checksum INTEGER",
    "function TEXT",
    "stale_until DATETIME",
];

/// What is ours alone.
const OURS: &str = "
CREATE TABLE IF NOT EXISTS cachetronomy_meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cache_tag (
    tag TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (tag, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lease (
    name TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    expire_at DATETIME NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS cache_tag_by_key ON cache_tag(key);
CREATE INDEX IF NOT EXISTS cache_by_function ON cache(function) WHERE function IS NOT NULL;
";

/// The triggers are for strangers - the original, the `sqlite3` shell - and keep the side table
/// right when they write; our own connections run no triggers. The one on INSERT clears first,
/// because `INSERT OR REPLACE` fires no DELETE trigger.
const TRIGGERS: [&str; 4] = [
    "CREATE TRIGGER cache_tag_insert AFTER INSERT ON cache BEGIN
    DELETE FROM cache_tag WHERE key = NEW.key;
    INSERT OR IGNORE INTO cache_tag(tag, key)
        SELECT value, NEW.key FROM json_each(NEW.tags) WHERE type = 'text';
END",
    "CREATE TRIGGER cache_tag_update AFTER UPDATE OF key, tags ON cache BEGIN
    DELETE FROM cache_tag WHERE key IN (OLD.key, NEW.key);
    INSERT OR IGNORE INTO cache_tag(tag, key)
        SELECT value, NEW.key FROM json_each(NEW.tags) WHERE type = 'text';
END",
    "CREATE TRIGGER cache_tag_delete AFTER DELETE ON cache BEGIN
    DELETE FROM cache_tag WHERE key = OLD.key;
END",
    "CREATE TRIGGER cache_measures_update AFTER UPDATE OF key, data, fmt ON cache BEGIN
    UPDATE cache SET compute_us = NULL, size = NULL, checksum = NULL, function = NULL,
                     stale_until = NULL
        WHERE key = NEW.key;
END",
];

/// Columns without which a table `cache` is not the original's.
const REQUIRED: [&str; 7] = [
    "key",
    "data",
    "fmt",
    "expire_at",
    "tags",
    "version",
    "saved_by_profile",
];

/// Refuses a file that is of another program, or of a later version, before anything in it is
/// changed.
pub(super) fn examine(opener: &Opener, connection: &Connection) -> Result<()> {
    if opener
        .size()
        .is_some_and(|bytes| (1..SMALLEST_DATABASE).contains(&bytes))
    {
        return Err(corrupt(opener, "it is too short to be a database"));
    }
    let found = opener.retry_while_busy(|| inspect(connection))?;
    refuse(opener, &found)
}

/// Makes the file one of ours: creates what is missing, in one transaction.
pub(super) fn prepare(opener: &Opener, connection: &Connection) -> Result<()> {
    let found = opener.retry_while_busy(|| inspect(connection))?;
    refuse(opener, &found)?;
    if found.is_complete() {
        return Ok(());
    }
    opener.retry_while_busy(|| {
        let transaction = begin(connection)?;
        // Another process may have done it while we waited for the lock.
        let found = inspect(connection)?;
        if found.can_be_used() && !found.is_complete() {
            create(connection, &found)?;
        }
        transaction.commit()
    })?;
    let found = opener.retry_while_busy(|| inspect(connection))?;
    refuse(opener, &found)
}

#[derive(Debug, PartialEq, Eq)]
enum Layout {
    /// The file has none: it is empty, or of the original.
    None,
    Number(i64),
    Unreadable,
}

struct Found {
    /// Tables, indexes, views and triggers.
    objects: i64,
    /// Of the table `cache`.
    columns: Vec<String>,
    layout: Layout,
    /// Names of what a reader must know beyond the layout.
    features: String,
}

impl Found {
    fn is_complete(&self) -> bool {
        let has = |column: &str| {
            self.columns
                .iter()
                .any(|existing| existing == name_of(column))
        };
        self.layout == Layout::Number(SCHEMA) && COLUMNS.into_iter().all(has)
    }

    fn can_be_used(&self) -> bool {
        let known = matches!(self.layout, Layout::None | Layout::Number(..=SCHEMA));
        known && self.features.is_empty() && self.is_ours_or_empty()
    }

    fn is_ours_or_empty(&self) -> bool {
        let has = |name: &str| self.columns.iter().any(|column| column == name);
        self.objects == 0 || REQUIRED.into_iter().all(has)
    }
}

fn inspect(connection: &Connection) -> rusqlite::Result<Found> {
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let objects = count("SELECT count(*) FROM sqlite_schema")?;
    let columns = connection
        .prepare("SELECT name FROM pragma_table_info('cache')")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let meta = count(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'cachetronomy_meta'",
    )?;
    let (layout, features) = if meta == 0 {
        (Layout::None, String::new())
    } else {
        read_meta(connection)?
    };
    Ok(Found {
        objects,
        columns,
        layout,
        features,
    })
}

fn read_meta(connection: &Connection) -> rusqlite::Result<(Layout, String)> {
    let read = |name: &str| {
        connection
            .query_row(
                "SELECT value FROM cachetronomy_meta WHERE name = ?1",
                [name],
                |row| {
                    Ok(row
                        .get_ref(0)?
                        .as_str()
                        .map_or_else(|_| String::from("?"), String::from))
                },
            )
            .optional()
    };
    let layout = match read("schema")? {
        None => Layout::None,
        Some(text) => text.parse().map_or(Layout::Unreadable, Layout::Number),
    };
    Ok((layout, read("features")?.unwrap_or_default()))
}

/// The name in a column's definition.
fn name_of(definition: &str) -> &str {
    definition.split(' ').next().unwrap_or(definition)
}

fn corrupt(opener: &Opener, reason: &str) -> Error {
    Error::CorruptStore {
        path: opener.name.clone(),
        reason: String::from(reason),
    }
}

fn refuse(opener: &Opener, found: &Found) -> Result<()> {
    match found.layout {
        Layout::Number(layout) if layout > SCHEMA => Err(Error::StoreUnavailable {
            path: opener.name.clone(),
            reason: format!(
                "the file has layout {layout}, this version knows up to {SCHEMA}; \
                 upgrade cachetronomy or give another db_path"
            ),
        }),
        _ if !found.features.is_empty() => Err(Error::StoreUnavailable {
            path: opener.name.clone(),
            reason: format!(
                "the file needs {:?}, which this version does not know; upgrade cachetronomy or \
                 give another db_path",
                found.features
            ),
        }),
        Layout::Unreadable => Err(corrupt(opener, "the number of its layout is not a number")),
        _ if found.is_ours_or_empty() => Ok(()),
        _ => Err(corrupt(
            opener,
            "it is a SQLite database of another program",
        )),
    }
}

/// The triggers of a file, as they were made.
fn triggers(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare("SELECT sql FROM sqlite_schema WHERE type = 'trigger'")?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// Whether nobody but us made triggers in the file.
pub(super) fn has_only_our_triggers(connection: &Connection) -> rusqlite::Result<bool> {
    let ours = |trigger: &String| TRIGGERS.contains(&trigger.as_str());
    Ok(triggers(connection)?.iter().all(ours))
}

fn create(connection: &Connection, found: &Found) -> rusqlite::Result<()> {
    connection.execute_batch(ORIGINAL)?;
    for column in COLUMNS {
        let name = name_of(column);
        if !found.columns.iter().any(|existing| existing == name) {
            connection.execute_batch(&format!("ALTER TABLE cache ADD COLUMN {column}"))?;
        }
    }
    connection.execute_batch(OURS)?;
    for trigger in TRIGGERS {
        let name = trigger.split(' ').nth(2).unwrap_or_default();
        connection.execute_batch(&format!("DROP TRIGGER IF EXISTS {name}; {trigger}"))?;
    }
    if !found.columns.is_empty() {
        tags::index_anew(connection)?;
    }
    connection.execute(
        "INSERT OR REPLACE INTO cachetronomy_meta(name, value)
         VALUES ('schema', ?1), ('features', '')",
        [SCHEMA.to_string()],
    )?;
    Ok(())
}
