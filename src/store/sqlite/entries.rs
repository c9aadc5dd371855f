//! The table `cache`: entries, whatever strangers may have left in them.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};
use xxhash_rust::xxh3::Xxh3;

use super::tags::{forget_tags, format_tags, parse_tags, remember_tags};
use crate::entry::{Damage, EntryMeta, FullRow, Listing, NewEntry, Row};
use crate::freshness::Touched;
use crate::store::Which;
use crate::time::Timestamp;

/// A row as it was found: readable or not.
pub(super) type Found = Result<Row, String>;

/// What makes a row's payload provable: its key, format and bytes. Deadline and version are left
/// out, so that they can be changed without reading the payload.
fn checksum(key: &str, format: &str, data: &[u8]) -> i64 {
    let mut hash = Xxh3::new();
    hash.update(&(key.len() as u64).to_le_bytes());
    hash.update(key.as_bytes());
    hash.update(&(format.len() as u64).to_le_bytes());
    hash.update(format.as_bytes());
    hash.update(data);
    hash.digest().cast_signed()
}

/// The columns that make a row, in the order in which they are decoded. What stands in the place
/// of the key, the payload and its checksum depends on the reader.
macro_rules! select {
    ($key:literal, $data:literal, $checksum:literal) => {
        concat!(
            "SELECT ",
            $key,
            ", ",
            $data,
            ", fmt, expire_at, tags, version, saved_by_profile, \
             compute_us, ",
            $checksum,
            " FROM cache "
        )
    };
}

/// Text times begin with a digit, and `:` is what follows the digits: what a stranger left in the
/// column that is no time at all is out of this range.
pub(super) const LIVE: &str = "expire_at > ?1 AND expire_at < ':'";

/// Reads one row.
pub(super) fn read(connection: &Connection, key: &str) -> rusqlite::Result<Option<Found>> {
    connection
        .prepare_cached(concat!(
            select!("NULL", "data", "checksum"),
            "WHERE key = ?1"
        ))?
        .query_row([key], |row| Ok(decode(key, row)))
        .optional()
}

/// A row that was looked for in a hurry.
pub(super) enum Small {
    /// There is none, or one that is small enough.
    Found(Option<Found>),
    /// It would take too long.
    Large,
}

/// Reads one row of at most 256 KiB.
pub(super) fn read_small(connection: &Connection, key: &str) -> rusqlite::Result<Small> {
    // The length of a payload is known without reading it.
    let found = connection
        .prepare_cached(concat!(
            select!("NULL", "data", "checksum"),
            "WHERE key = ?1 AND length(data) <= 262144"
        ))?
        .query_row([key], |row| Ok(decode(key, row)))
        .optional()?;
    if found.is_none()
        && connection
            .prepare_cached("SELECT 1 FROM cache WHERE key = ?1")?
            .exists([key])?
    {
        return Ok(Small::Large);
    }
    Ok(Small::Found(found))
}

/// Reads live rows whole: all, or the one with a key. Payloads are read in any case, for only with
/// them is a row known to be sound; without `with_data` they are not kept.
pub(super) fn read_whole(
    connection: &Connection,
    which: Which<'_>,
    now: Timestamp,
    limit: Option<usize>,
    with_data: bool,
) -> rusqlite::Result<Listing<FullRow>> {
    let columns = select!("key", "data", "checksum, rowid");
    // Here also what is no time is met, to be told of: text sorts after the times, and so do blobs.
    let (condition, value) = match which {
        Which::All => ("expire_at > ?1 ORDER BY rowid", now.to_string()),
        Which::Key(key) => ("key = ?1", String::from(key)),
    };
    let mut statement = connection.prepare_cached(&format!("{columns} WHERE {condition}"))?;
    let mut rows = statement.query([value])?;
    let mut found = Listing::default();
    while limit.is_none_or(|limit| found.rows.len() < limit) {
        let Some(row) = rows.next()? else { break };
        let key = text(row.get_ref(0)?);
        let whole = key.clone().ok_or_else(|| wrong("key"));
        match whole.and_then(|key| decode_whole(key, row)) {
            Ok(mut row) if row.row.meta.expire_at > now => {
                if !with_data {
                    row.row.data = Vec::new();
                }
                found.rows.push(row);
            }
            Ok(_) => {}
            Err(reason) => found.damaged.push(damage(key, row.get(9)?, reason)),
        }
    }
    Ok(found)
}

pub(super) fn wrong(column: &str) -> String {
    format!("its column {column} is not what cachetronomy writes")
}

/// Every column may hold anything: SQLite does not enforce types, and strangers write this table.
/// A row is readable as a whole or not at all: a value whose tags are lost is one that no clearing
/// by tag would ever reach.
fn decode(key: &str, row: &rusqlite::Row<'_>) -> Found {
    let column = |index: usize| row.get_ref(index).map_err(|error| error.to_string());
    let format = column(2)?.as_str().map_err(|_| wrong("fmt"))?;
    let data = match column(1)? {
        ValueRef::Blob(bytes) => bytes.to_vec(),
        // Old versions stored MessagePack as text, one character a byte.
        ValueRef::Text(text) if format == "msgpack" => std::str::from_utf8(text)
            .ok()
            .and_then(|text| {
                text.chars()
                    .map(|c| u8::try_from(u32::from(c)).ok())
                    .collect()
            })
            .ok_or_else(|| wrong("data"))?,
        ValueRef::Text(text) => text.to_vec(),
        _ => return Err(wrong("data")),
    };
    match column(8)? {
        // The original writes none.
        ValueRef::Null => {}
        ValueRef::Integer(expected) if expected == checksum(key, format, &data) => {}
        _ => return Err(String::from("its payload does not match its checksum")),
    }
    let expire_at = column(3)?.as_str().ok().and_then(Timestamp::parse);
    let expire_at = expire_at.ok_or_else(|| wrong("expire_at"))?;
    parse_tags(column(4)?).ok_or_else(|| wrong("tags"))?;
    let version = column(5)?.as_i64().ok().filter(|version| *version >= 1);
    column(6)?.as_str().map_err(|_| wrong("saved_by_profile"))?;
    Ok(Row {
        format: String::from(format),
        data,
        meta: EntryMeta {
            expire_at,
            version: version.ok_or_else(|| wrong("version"))?,
            compute_us: column(7)?.as_i64().unwrap_or(0).max(0),
        },
    })
}

fn decode_whole(key: String, row: &rusqlite::Row<'_>) -> Result<FullRow, String> {
    let column = |index: usize| row.get_ref(index).map_err(|error| error.to_string());
    Ok(FullRow {
        row: decode(&key, row)?,
        tags: parse_tags(column(4)?).unwrap_or_default(),
        profile: text(column(6)?).unwrap_or_default(),
        key,
    })
}

/// Writes one entry in the place of its predecessor.
pub(super) fn write(
    connection: &Connection,
    entry: &NewEntry<'_>,
    touched: &mut Touched,
) -> rusqlite::Result<()> {
    touched.add(entry.key);
    let tags = format_tags(entry.tags);
    let size = i64::try_from(entry.data.len()).unwrap_or(i64::MAX);
    let compute_us = (entry.meta.compute_us > 0).then_some(entry.meta.compute_us);
    connection
        .prepare_cached(
            "INSERT INTO cache(key, data, fmt, expire_at, tags, version, saved_by_profile,
                               compute_us, size, checksum, function, stale_until)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT(key) DO UPDATE SET
                 data = excluded.data, fmt = excluded.fmt, expire_at = excluded.expire_at,
                 tags = excluded.tags, version = excluded.version,
                 saved_by_profile = excluded.saved_by_profile, compute_us = excluded.compute_us,
                 size = excluded.size, checksum = excluded.checksum,
                 function = excluded.function, stale_until = excluded.stale_until",
        )?
        .execute(params![
            entry.key,
            entry.data,
            entry.format,
            entry.meta.expire_at.to_string(),
            tags,
            entry.meta.version,
            entry.profile,
            compute_us,
            size,
            checksum(entry.key, entry.format, entry.data),
            entry.function,
            entry.stale_until.map(|until| until.to_string()),
        ])?;
    remember_tags(connection, entry.key, entry.tags)
}

/// Puts another value, which nobody had to compute, in the place of an entry's own.
pub(super) fn replace_value(
    connection: &Connection,
    key: &str,
    data: &[u8],
    format: &str,
    expire_at: Timestamp,
) -> rusqlite::Result<()> {
    let size = i64::try_from(data.len()).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "UPDATE cache SET data = ?2, fmt = ?3, expire_at = ?4, compute_us = NULL, size = ?5,
                              checksum = ?6
             WHERE key = ?1",
        )?
        .execute(params![
            key,
            data,
            format,
            expire_at.to_string(),
            size,
            checksum(key, format, data),
        ])
        .map(drop)
}

/// Deletes one key; says whether a live entry was there.
pub(super) fn delete(
    connection: &Connection,
    key: &str,
    now: Timestamp,
    touched: &mut Touched,
) -> rusqlite::Result<bool> {
    touched.add(key);
    let deadline = connection
        .prepare_cached("DELETE FROM cache WHERE key = ?1 RETURNING expire_at")?
        .query_row([key], |row| Ok(time(row.get_ref(0)?)))
        .optional()?;
    forget_tags(connection, key)?;
    Ok(deadline.flatten().is_some_and(|deadline| deadline > now))
}

/// Whether a live entry is there.
pub(super) fn is_live(
    connection: &Connection,
    key: &str,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let deadline = connection
        .prepare_cached("SELECT expire_at FROM cache WHERE key = ?1")?
        .query_row([key], |row| Ok(time(row.get_ref(0)?)))
        .optional()?;
    Ok(deadline.flatten().is_some_and(|deadline| deadline > now))
}

/// Deletes everything; returns how many entries there were.
pub(super) fn clear(connection: &Connection, touched: &mut Touched) -> rusqlite::Result<u64> {
    touched.add_all();
    let count = connection.execute("DELETE FROM cache", [])?;
    connection.execute("DELETE FROM cache_tag", [])?;
    Ok(count as u64)
}

pub(super) fn damage(key: Option<String>, row: i64, reason: String) -> Damage {
    Damage {
        table: "cache",
        key: name(key, row),
        reason,
    }
}

/// What a damaged row is called: by its key or, where that is none, by its number.
pub(super) fn name(key: Option<String>, row: i64) -> String {
    key.unwrap_or_else(|| format!("(row {row})"))
}

/// Text that a stranger may have written as something else.
pub(super) fn text(value: ValueRef<'_>) -> Option<String> {
    value.as_str().ok().map(String::from)
}

/// A time that a stranger may have written as something else.
pub(super) fn time(value: ValueRef<'_>) -> Option<Timestamp> {
    value.as_str().ok().and_then(Timestamp::parse)
}

/// The keys of all live entries. What is no text is no key that anybody can ask for, and what has
/// no readable deadline is never served.
pub(super) fn keys(connection: &Connection, now: Timestamp) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached(&format!("SELECT key, expire_at FROM cache WHERE {LIVE}"))?
        .query_map([now.to_string()], |row| {
            let live = time(row.get_ref(1)?).is_some_and(|deadline| deadline > now);
            Ok(text(row.get_ref(0)?).filter(|_| live))
        })?
        .filter_map(rusqlite::Result::transpose)
        .collect()
}

/// The keys of all entries that were written under a profile.
pub(super) fn of_profile(connection: &Connection, profile: &str) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached("SELECT key FROM cache WHERE saved_by_profile = ?1")?
        .query_map([profile], |row| Ok(text(row.get_ref(0)?)))?
        .filter_map(rusqlite::Result::transpose)
        .collect()
}

/// The keys of a decorated function's entries, where they do not tell, that live longer than this.
pub(super) fn of_function(
    connection: &Connection,
    function: &str,
    now: Timestamp,
) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached("SELECT key, expire_at FROM cache WHERE function = ?1")?
        .query_map([function], |row| {
            let live = time(row.get_ref(1)?).is_some_and(|deadline| deadline > now);
            Ok(text(row.get_ref(0)?).filter(|_| live))
        })?
        .filter_map(rusqlite::Result::transpose)
        .collect()
}

/// Entries that nobody can read: the row, and what is wrong with it.
pub(super) fn damaged(connection: &Connection) -> rusqlite::Result<Vec<(i64, String)>> {
    connection
        .prepare_cached(select!("key", "data", "checksum, rowid"))?
        .query_map([], |row| {
            let finding = match text(row.get_ref(0)?) {
                None => Some(String::from("an entry has a key that is no text")),
                Some(key) => decode(&key, row)
                    .err()
                    .map(|reason| format!("the entry {key:?} cannot be read: {reason}")),
            };
            Ok(finding.map(|finding| (row.get(9), finding)))
        })?
        .filter_map(rusqlite::Result::transpose)
        .map(|found| found.and_then(|(rowid, finding)| Ok((rowid?, finding))))
        .collect()
}

/// How many live entries there are.
pub(super) fn count(connection: &Connection, now: Timestamp) -> rusqlite::Result<u64> {
    connection
        .prepare_cached(&format!("SELECT count(*) FROM cache WHERE {LIVE}"))?
        .query_row([now.to_string()], |row| row.get::<_, i64>(0))
        .map(i64::cast_unsigned)
}
