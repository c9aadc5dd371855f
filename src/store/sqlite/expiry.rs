//! Entries whose time has come.

use rusqlite::{Connection, params};

use super::entries::{damage, text, time, wrong};
use super::tags::forget_tags;
use crate::entry::{Expired, Listing};
use crate::freshness::Touched;
use crate::time::Timestamp;

/// Past its deadline, and no stale copy of use to anybody. What a stranger left in `stale_until`
/// that is no time keeps nothing.
const GONE: &str =
    "expire_at <= ?1 AND NOT coalesce(stale_until > ?1 AND stale_until < ':', FALSE)";

/// Whether there are any, or leases whose time has come.
pub(super) fn is_any(connection: &Connection, now: Timestamp) -> rusqlite::Result<bool> {
    connection
        .prepare_cached(&format!(
            "SELECT EXISTS(SELECT 1 FROM cache WHERE {GONE})
                 OR EXISTS(SELECT 1 FROM lease WHERE expire_at <= ?1)"
        ))?
        .query_row([now.to_string()], |row| row.get(0))
}

/// Deletes up to `limit` of them, found through the index on `expire_at`.
/// By row, not by key: a stranger's key may be no text, or NULL, which equals nothing.
pub(super) fn delete(
    connection: &Connection,
    now: Timestamp,
    limit: usize,
    touched: &mut Touched,
) -> rusqlite::Result<Listing<Expired>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let found: Vec<(i64, Option<String>, Option<Timestamp>)> = connection
        .prepare_cached(&format!(
            "SELECT rowid, key, expire_at FROM cache WHERE {GONE} LIMIT ?2"
        ))?
        .query_map(params![now.to_string(), limit], |row| {
            Ok((row.get(0)?, text(row.get_ref(1)?), time(row.get_ref(2)?)))
        })?
        .collect::<rusqlite::Result<_>>()?;
    // Texts with another offset than UTC do not sort as the times they stand for.
    let past = |deadline: &Option<Timestamp>| deadline.is_none_or(|deadline| deadline <= now);
    let mut found: Vec<_> = found.into_iter().filter(|row| past(&row.2)).collect();
    // Neighbours in the indexes are neighbours here: each page is changed once.
    found.sort_unstable_by(|a, b| a.1.cmp(&b.1));
    let mut expired = Listing::default();
    for (row, key, expire_at) in found {
        connection
            .prepare_cached("DELETE FROM cache WHERE rowid = ?1")?
            .execute([row])?;
        if let Some(key) = &key {
            touched.add(key);
            forget_tags(connection, key)?;
        }
        match (key, expire_at) {
            (Some(key), Some(expire_at)) => expired.rows.push(Expired { key, expire_at }),
            (key, _) => {
                let column = if key.is_none() { "key" } else { "expire_at" };
                let reason = format!("{}, and a sweep removed it", wrong(column));
                expired.damaged.push(damage(key, row, reason));
            }
        }
    }
    Ok(expired)
}
