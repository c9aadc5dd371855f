//! The tables `access_log` and `eviction_log`: what was read how often, what left and why.

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, params};

use super::entries::{name, text, time};
use crate::entry::{AccessRecord, AccessRow, Damage, EvictionRecord, EvictionRow, Listing};
use crate::store::Which;

/// Keys of the access log that are kept, the hottest, and lines of the eviction log, the newest.
const MAX_ROWS: i64 = 100_000;

/// Keys that leave a full access log at once, the coldest, so that it is not full again at once.
const SURPLUS: i64 = MAX_ROWS / 10;

/// Adds hits to the access log, and drops its coldest keys beyond the limit. What is no count or no
/// time in a stranger's row is mended.
pub(super) fn add_accesses(
    connection: &Connection,
    records: &[AccessRecord],
    profile: &str,
) -> rusqlite::Result<()> {
    let mut add = connection.prepare_cached(
        "INSERT INTO access_log(key, access_count, last_accessed, last_accessed_by_profile)
         VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT(key) DO UPDATE SET
             access_count = excluded.access_count +
                 CASE WHEN typeof(access_count) = 'integer'
                     THEN min(max(access_count, 0), 9223372036854775807 - excluded.access_count)
                     ELSE 0 END,
             last_accessed =
                 CASE WHEN typeof(last_accessed) = 'text' AND julianday(last_accessed) IS NOT NULL
                     THEN max(last_accessed, excluded.last_accessed)
                     ELSE excluded.last_accessed END,
             last_accessed_by_profile = excluded.last_accessed_by_profile",
    )?;
    for record in records {
        let count = i64::try_from(record.count).unwrap_or(i64::MAX);
        add.execute(params![
            record.key,
            count,
            record.last_accessed.to_string(),
            profile
        ])?;
    }
    if records.is_empty() {
        return Ok(());
    }
    // The span of the row numbers bounds the count, and is known without counting.
    let (first, last): (i64, i64) = connection
        .prepare_cached("SELECT min(rowid), max(rowid) FROM access_log")?
        .query_row([], |row| row.try_into())?;
    if last.saturating_sub(first) >= MAX_ROWS {
        drop_coldest(connection)?;
    }
    Ok(())
}

fn drop_coldest(connection: &Connection) -> rusqlite::Result<()> {
    let count: i64 = connection
        .prepare_cached("SELECT count(*) FROM access_log")?
        .query_row([], |row| row.get(0))?;
    if count > MAX_ROWS {
        connection
            .prepare_cached(
                "DELETE FROM access_log WHERE rowid IN
                     (SELECT rowid FROM access_log ORDER BY access_count, last_accessed LIMIT ?1)",
            )?
            .execute([count - MAX_ROWS + SURPLUS])?;
    }
    Ok(())
}

/// Adds lines to the eviction log, and drops its oldest beyond the limit.
pub(super) fn add_evictions(
    connection: &Connection,
    records: &[EvictionRecord],
) -> rusqlite::Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    restart_numbers(connection)?;
    let mut add = connection.prepare_cached(
        "INSERT INTO eviction_log(key, evicted_at, reason, last_access_count, evicted_by_profile)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for record in records {
        let count = i64::try_from(record.access_count).unwrap_or(i64::MAX);
        let evicted_at = record.evicted_at.to_string();
        add.execute(params![
            record.key,
            evicted_at,
            record.reason,
            count,
            record.profile
        ])?;
    }
    let oldest_kept = connection.last_insert_rowid() - MAX_ROWS;
    connection
        .prepare_cached("DELETE FROM eviction_log WHERE id <= ?1")?
        .execute([oldest_kept])?;
    Ok(())
}

/// Numbers grow for ever, and SQLite refuses a line after the last one. Nobody but a stranger comes
/// near it.
fn restart_numbers(connection: &Connection) -> rusqlite::Result<()> {
    const ENOUGH: i64 = i64::MAX / 2;
    let last: Option<i64> = connection
        .prepare_cached(
            "SELECT CAST(max(seq) AS INTEGER) FROM sqlite_sequence WHERE name = 'eviction_log'",
        )?
        .query_row([], |row| row.get(0))?;
    if last.is_some_and(|last| last > ENOUGH) {
        connection.execute("DELETE FROM eviction_log WHERE id > ?1", [ENOUGH])?;
        connection.execute(
            "UPDATE sqlite_sequence SET seq = (SELECT coalesce(max(id), 0) FROM eviction_log)
             WHERE name = 'eviction_log'",
            [],
        )?;
    }
    Ok(())
}

/// The access log, hottest first.
pub(super) fn accesses(
    connection: &Connection,
    which: Which<'_>,
    limit: Option<usize>,
) -> rusqlite::Result<Listing<AccessRow>> {
    let select = match which {
        Which::All => {
            "SELECT key, access_count, last_accessed, last_accessed_by_profile, rowid AS number
             FROM access_log WHERE ?1 IS NULL ORDER BY access_count DESC, key"
        }
        Which::Key(_) => {
            "SELECT key, access_count, last_accessed, last_accessed_by_profile, rowid AS number
             FROM access_log WHERE key = ?1"
        }
    };
    list(connection, "access_log", select, which, limit, |row| {
        Some(AccessRow {
            key: text(row.get_ref(0).ok()?)?,
            count: count(row.get_ref(1).ok()?)?,
            last_accessed: time(row.get_ref(2).ok()?)?,
            profile: text(row.get_ref(3).ok()?)?,
        })
    })
}

/// The eviction log, newest first.
pub(super) fn evictions(
    connection: &Connection,
    limit: Option<usize>,
) -> rusqlite::Result<Listing<EvictionRow>> {
    let select = "SELECT key, id AS number, evicted_at, reason, last_access_count,
             evicted_by_profile FROM eviction_log WHERE ?1 IS NULL ORDER BY evicted_at DESC, id DESC";
    list(
        connection,
        "eviction_log",
        select,
        Which::All,
        limit,
        |row| {
            Some(EvictionRow {
                key: text(row.get_ref(0).ok()?)?,
                id: row.get(1).ok()?,
                evicted_at: time(row.get_ref(2).ok()?)?,
                reason: text(row.get_ref(3).ok()?)?,
                access_count: count(row.get_ref(4).ok()?)?,
                profile: text(row.get_ref(5).ok()?)?,
            })
        },
    )
}

fn count(value: ValueRef<'_>) -> Option<i64> {
    value.as_i64().ok().filter(|count| *count >= 0)
}

/// Up to `limit` readable rows; a stranger's odd one hides no other, and takes nobody's place.
fn list<T>(
    connection: &Connection,
    table: &'static str,
    select: &str,
    which: Which<'_>,
    limit: Option<usize>,
    decode: impl Fn(&rusqlite::Row<'_>) -> Option<T>,
) -> rusqlite::Result<Listing<T>> {
    let wanted = match which {
        Which::All => Value::Null,
        Which::Key(key) => Value::from(String::from(key)),
    };
    let mut statement = connection.prepare_cached(select)?;
    let mut found = statement.query([wanted])?;
    let (mut rows, mut damaged) = (Vec::new(), Vec::new());
    while limit.is_none_or(|limit| rows.len() < limit) {
        let Some(row) = found.next()? else { break };
        match decode(row) {
            Some(row) => rows.push(row),
            None => damaged.push(Damage {
                table,
                key: name(text(row.get_ref(0)?), row.get("number")?),
                reason: String::from("one of its columns is not what cachetronomy writes"),
            }),
        }
    }
    Ok(Listing { rows, damaged })
}

/// Deletes from the access log.
pub(super) fn delete_accesses(connection: &Connection, which: Which<'_>) -> rusqlite::Result<()> {
    match which {
        Which::All => connection.execute("DELETE FROM access_log", []),
        Which::Key(key) => connection.execute("DELETE FROM access_log WHERE key = ?1", [key]),
    }
    .map(drop)
}

/// Lines of the eviction log.
pub(super) fn count_evictions(connection: &Connection) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT count(*) FROM eviction_log")?
        .query_row([], |row| row.get::<_, i64>(0))
        .map(i64::cast_unsigned)
}

/// Empties the eviction log.
pub(super) fn delete_evictions(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM eviction_log", []).map(drop)
}
