//! All DDL: the tables of a new file, and what a file of the original package lacks.
//!
//! `docs/format.md` describes the result.

use rusqlite::{Connection, OptionalExtension};

use super::connection::Opener;
use super::transaction::begin;
use crate::error::{Error, Result};

/// The number of the layout below; a file with a higher one is not opened.
pub(super) const SCHEMA: i64 = 1;

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
CREATE INDEX IF NOT EXISTS idx_cache_expire_at ON cache(expire_at);
CREATE INDEX IF NOT EXISTS idx_access_log_count ON access_log(access_count);
";

/// Columns that the original neither writes nor reads. All may be NULL: its rows leave them so.
const COLUMNS: [&str; 3] = ["compute_us INTEGER", "size INTEGER", "checksum INTEGER"];

/// What is ours alone. The triggers are for strangers - the original, the `sqlite3` shell - and
/// keep the side table right when they write; our own connections run no triggers. The one on
/// INSERT clears first, because `INSERT OR REPLACE` fires no DELETE trigger.
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
CREATE TRIGGER IF NOT EXISTS cache_tag_insert AFTER INSERT ON cache BEGIN
    DELETE FROM cache_tag WHERE key = NEW.key;
    INSERT OR IGNORE INTO cache_tag(tag, key)
        SELECT value, NEW.key FROM json_each(NEW.tags) WHERE type = 'text';
END;
CREATE TRIGGER IF NOT EXISTS cache_tag_update AFTER UPDATE OF key, tags ON cache BEGIN
    DELETE FROM cache_tag WHERE key IN (OLD.key, NEW.key);
    INSERT OR IGNORE INTO cache_tag(tag, key)
        SELECT value, NEW.key FROM json_each(NEW.tags) WHERE type = 'text';
END;
CREATE TRIGGER IF NOT EXISTS cache_tag_delete AFTER DELETE ON cache BEGIN
    DELETE FROM cache_tag WHERE key = OLD.key;
END;
CREATE TRIGGER IF NOT EXISTS cache_measures_update AFTER UPDATE OF key, data, fmt ON cache BEGIN
    UPDATE cache SET compute_us = NULL, size = NULL, checksum = NULL WHERE key = NEW.key;
END;
";

/// For a file of the original: its entries' tags, once.
const INDEX_OLD_TAGS: &str = "
INSERT OR IGNORE INTO cache_tag(tag, key)
    SELECT json_each.value, cache.key FROM cache, json_each(cache.tags)
    WHERE json_valid(cache.tags) AND json_each.type = 'text';
";

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

/// Makes the file one of ours: creates what is missing, in one transaction, and changes nothing in
/// a file that is complete, of another program, or of a later version.
pub(super) fn prepare(opener: &Opener, connection: &Connection) -> Result<()> {
    let found = opener.retry_while_busy(|| inspect(connection))?;
    refuse(opener, &found)?;
    if found.schema == Some(SCHEMA) {
        return Ok(());
    }
    opener.retry_while_busy(|| {
        let transaction = begin(connection)?;
        // Another process may have done it while we waited for the lock.
        let found = inspect(connection)?;
        if found.schema.is_none() && is_ours_or_empty(&found) {
            create(connection, &found)?;
        }
        transaction.commit()
    })?;
    let found = opener.retry_while_busy(|| inspect(connection))?;
    refuse(opener, &found)
}

struct Found {
    tables: Vec<String>,
    columns: Vec<String>,
    schema: Option<i64>,
}

fn inspect(connection: &Connection) -> rusqlite::Result<Found> {
    let strings = |sql: &str| -> rusqlite::Result<Vec<String>> {
        connection
            .prepare(sql)?
            .query_map([], |row| row.get(0))?
            .collect()
    };
    let tables = strings("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    let columns = strings("SELECT name FROM pragma_table_info('cache')")?;
    let schema = if tables.iter().any(|table| table == "cachetronomy_meta") {
        connection
            .query_row(
                "SELECT CAST(value AS INTEGER) FROM cachetronomy_meta WHERE name = 'schema'",
                [],
                |row| row.get(0),
            )
            .optional()?
    } else {
        None
    };
    Ok(Found {
        tables,
        columns,
        schema,
    })
}

fn is_ours_or_empty(found: &Found) -> bool {
    let complete = REQUIRED
        .iter()
        .all(|name| found.columns.iter().any(|column| column == name));
    found.tables.is_empty() || complete
}

fn refuse(opener: &Opener, found: &Found) -> Result<()> {
    if let Some(schema) = found.schema
        && schema > SCHEMA
    {
        return Err(Error::StoreUnavailable {
            path: opener.name.clone(),
            reason: format!(
                "the file has layout {schema}, this version knows up to {SCHEMA}; \
                 upgrade cachetronomy or give another db_path"
            ),
        });
    }
    if is_ours_or_empty(found) {
        return Ok(());
    }
    Err(Error::CorruptStore {
        path: opener.name.clone(),
        reason: String::from("it is a SQLite database of another program"),
    })
}

fn create(connection: &Connection, found: &Found) -> rusqlite::Result<()> {
    connection.execute_batch(ORIGINAL)?;
    for column in COLUMNS {
        let name = column.split(' ').next().unwrap_or(column);
        if !found.columns.iter().any(|existing| existing == name) {
            connection.execute_batch(&format!("ALTER TABLE cache ADD COLUMN {column}"))?;
        }
    }
    connection.execute_batch(OURS)?;
    if !found.columns.is_empty() {
        connection.execute_batch(INDEX_OLD_TAGS)?;
    }
    connection.execute(
        "INSERT OR REPLACE INTO cachetronomy_meta(name, value)
         VALUES ('schema', ?1), ('features', '')",
        [SCHEMA.to_string()],
    )?;
    Ok(())
}
