//! The tables `access_log` and `eviction_log`: what was read how often, what left and why.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, params};

use crate::entry::{AccessRecord, AccessRow, EvictionRecord};

/// Lines of the eviction log that are kept, the newest.
const MAX_EVICTIONS: i64 = 100_000;

/// Adds hits to the access log.
pub(super) fn add_accesses(
    connection: &Connection,
    records: &[AccessRecord],
    profile: &str,
) -> rusqlite::Result<()> {
    let mut add = connection.prepare_cached(
        "INSERT INTO access_log(key, access_count, last_accessed, last_accessed_by_profile)
         VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT(key) DO UPDATE SET
             access_count = access_count + excluded.access_count,
             last_accessed = max(last_accessed, excluded.last_accessed),
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
    Ok(())
}

/// Adds lines to the eviction log, and drops its oldest beyond the limit.
pub(super) fn add_evictions(
    connection: &Connection,
    records: &[EvictionRecord],
    profile: &str,
) -> rusqlite::Result<()> {
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
            record.reason.as_str(),
            count,
            profile
        ])?;
    }
    if !records.is_empty() {
        let oldest_kept = connection.last_insert_rowid() - MAX_EVICTIONS;
        connection
            .prepare_cached("DELETE FROM eviction_log WHERE id <= ?1")?
            .execute([oldest_kept])?;
    }
    Ok(())
}

/// The access log, hottest first.
pub(super) fn accesses(
    connection: &Connection,
    limit: Option<usize>,
) -> rusqlite::Result<Vec<AccessRow>> {
    // A negative limit is no limit.
    let limit = limit.map_or(-1, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
    connection
        .prepare_cached(
            "SELECT key, access_count, last_accessed, last_accessed_by_profile FROM access_log
             ORDER BY access_count DESC, key LIMIT ?1",
        )?
        .query_map([limit], |row| Ok(decode(row).ok()))?
        .filter_map(rusqlite::Result::transpose)
        .collect()
}

/// A row with a key and a count; a stranger's odd one hides no other.
fn decode(row: &rusqlite::Row<'_>) -> rusqlite::Result<AccessRow> {
    Ok(AccessRow {
        key: row.get(0)?,
        count: row.get(1)?,
        last_accessed: text(row.get_ref(2)?),
        profile: text(row.get_ref(3)?),
    })
}

/// A column of type `DATETIME` turns text that looks like a number into one.
fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Null | ValueRef::Blob(_) => String::new(),
    }
}
