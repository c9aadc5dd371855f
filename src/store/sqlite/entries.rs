//! The tables `cache` and `cache_tag`: entries and the index of their tags.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};
use xxhash_rust::xxh3::Xxh3;

use crate::entry::{EntryMeta, Expired, NewEntry, Row};
use crate::freshness::Touched;
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

/// Reads one row.
pub(super) fn read(connection: &Connection, key: &str) -> rusqlite::Result<Option<Found>> {
    connection
        .prepare_cached(
            "SELECT data, fmt, expire_at, version, compute_us, checksum FROM cache WHERE key = ?1",
        )?
        .query_row([key], |row| Ok(decode(key, row)))
        .optional()
}

/// Every column may hold anything: SQLite does not enforce types, and strangers write this table.
fn decode(key: &str, row: &rusqlite::Row<'_>) -> Found {
    let wrong = |what: &str| format!("its {what} is not what cachetronomy writes");
    let column = |index: usize| row.get_ref(index).map_err(|error| error.to_string());
    let format = column(1)?.as_str().map_err(|_| wrong("column fmt"))?;
    let data = match column(0)? {
        ValueRef::Blob(bytes) => bytes.to_vec(),
        // Old versions stored MessagePack as text, one character a byte.
        ValueRef::Text(text) if format == "msgpack" => std::str::from_utf8(text)
            .ok()
            .and_then(|text| {
                text.chars()
                    .map(|c| u8::try_from(u32::from(c)).ok())
                    .collect()
            })
            .ok_or_else(|| wrong("column data"))?,
        ValueRef::Text(text) => text.to_vec(),
        _ => return Err(wrong("column data")),
    };
    let expire_at = column(2)?.as_str().ok().and_then(Timestamp::parse);
    let expected = column(5)?.as_i64().ok();
    if expected.is_some_and(|expected| expected != checksum(key, format, &data)) {
        return Err(String::from("its payload does not match its checksum"));
    }
    Ok(Row {
        format: String::from(format),
        data,
        meta: EntryMeta {
            expire_at: expire_at.ok_or_else(|| wrong("column expire_at"))?,
            version: column(3)?.as_i64().map_err(|_| wrong("column version"))?,
            compute_us: column(4)?.as_i64().unwrap_or(0).max(0),
        },
    })
}

/// Writes one entry in the place of its predecessor.
pub(super) fn write(
    connection: &Connection,
    entry: &NewEntry<'_>,
    profile: &str,
    touched: &mut Touched,
) -> rusqlite::Result<()> {
    touched.add(entry.key);
    let tags = serde_json::to_string(entry.tags).unwrap_or_else(|_| String::from("[]"));
    let size = i64::try_from(entry.data.len()).unwrap_or(i64::MAX);
    let compute_us = (entry.meta.compute_us > 0).then_some(entry.meta.compute_us);
    connection
        .prepare_cached(
            "INSERT INTO cache(key, data, fmt, expire_at, tags, version, saved_by_profile,
                               compute_us, size, checksum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
             ON CONFLICT(key) DO UPDATE SET
                 data = excluded.data, fmt = excluded.fmt, expire_at = excluded.expire_at,
                 tags = excluded.tags, version = excluded.version,
                 saved_by_profile = excluded.saved_by_profile, compute_us = excluded.compute_us,
                 size = excluded.size, checksum = excluded.checksum",
        )?
        .execute(params![
            entry.key,
            entry.data,
            entry.format,
            entry.meta.expire_at.to_string(),
            tags,
            entry.meta.version,
            profile,
            compute_us,
            size,
            checksum(entry.key, entry.format, entry.data),
        ])?;
    forget_tags(connection, entry.key)?;
    for tag in entry.tags {
        connection
            .prepare_cached("INSERT OR IGNORE INTO cache_tag(tag, key) VALUES (?1, ?2)")?
            .execute([tag.as_str(), entry.key])?;
    }
    Ok(())
}

fn forget_tags(connection: &Connection, key: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM cache_tag WHERE key = ?1")?
        .execute([key])?;
    Ok(())
}

/// Deletes one key; says whether a live entry was there.
pub(super) fn delete(
    connection: &Connection,
    key: &str,
    now: Timestamp,
    touched: &mut Touched,
) -> rusqlite::Result<bool> {
    touched.add(key);
    let live = connection
        .prepare_cached("DELETE FROM cache WHERE key = ?1 RETURNING expire_at > ?2")?
        .query_row(params![key, now.to_string()], |row| {
            row.get::<_, Option<bool>>(0)
        })
        .optional()?;
    forget_tags(connection, key)?;
    Ok(live.flatten().unwrap_or(false))
}

/// Deletes everything; returns how many entries there were.
pub(super) fn clear(connection: &Connection, touched: &mut Touched) -> rusqlite::Result<u64> {
    touched.add_all();
    let count = connection.execute("DELETE FROM cache", [])?;
    connection.execute("DELETE FROM cache_tag", [])?;
    Ok(count as u64)
}

/// Keys with any of the tags or, if `exact`, with exactly these in any order.
pub(super) fn tagged(
    connection: &Connection,
    tags: &[String],
    exact: bool,
) -> rusqlite::Result<Vec<String>> {
    let with_tag = |tag: &str| -> rusqlite::Result<Vec<(String, String)>> {
        connection
            .prepare_cached(
                "SELECT cache.key, cache.tags FROM cache_tag JOIN cache ON cache.key = cache_tag.key
                 WHERE cache_tag.tag = ?1",
            )?
            .query_map([tag], |row| Ok(text(row.get_ref(0)?).zip(text(row.get_ref(1)?))))?
            .filter_map(rusqlite::Result::transpose)
            .collect()
    };
    if exact {
        let candidates = match tags.first() {
            Some(tag) => with_tag(tag)?,
            None => connection
                .prepare_cached("SELECT key, tags FROM cache WHERE tags = '[]'")?
                .query_map([], |row| {
                    Ok(text(row.get_ref(0)?).zip(text(row.get_ref(1)?)))
                })?
                .filter_map(rusqlite::Result::transpose)
                .collect::<rusqlite::Result<_>>()?,
        };
        let mut wanted = tags.to_vec();
        wanted.sort_unstable();
        let same = |stored: &str| {
            let mut stored: Vec<String> = serde_json::from_str(stored).unwrap_or_default();
            stored.sort_unstable();
            stored.dedup();
            stored == wanted
        };
        return Ok(candidates
            .into_iter()
            .filter(|row| same(&row.1))
            .map(|row| row.0)
            .collect());
    }
    let mut keys = std::collections::BTreeSet::new();
    for tag in tags {
        keys.extend(with_tag(tag)?.into_iter().map(|row| row.0));
    }
    Ok(keys.into_iter().collect())
}

/// Deletes up to `limit` entries whose time has come, found through the index on `expire_at`.
/// By row, not by key: a stranger's key may be no text, or NULL, which equals nothing.
pub(super) fn delete_expired(
    connection: &Connection,
    now: Timestamp,
    limit: usize,
    touched: &mut Touched,
) -> rusqlite::Result<Vec<Expired>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let expired: Vec<(i64, Expired)> = connection
        .prepare_cached("SELECT rowid, key, expire_at FROM cache WHERE expire_at <= ?1 LIMIT ?2")?
        .query_map(params![now.to_string(), limit], |row| {
            let key = text(row.get_ref(1)?).unwrap_or_default();
            let expire_at = row.get_ref(2)?.as_str().ok().and_then(Timestamp::parse);
            Ok((row.get(0)?, Expired { key, expire_at }))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (row, entry) in &expired {
        touched.add(&entry.key);
        connection
            .prepare_cached("DELETE FROM cache WHERE rowid = ?1")?
            .execute([row])?;
        forget_tags(connection, &entry.key)?;
    }
    Ok(expired.into_iter().map(|(_, entry)| entry).collect())
}

/// Text that a stranger may have written as something else.
fn text(value: ValueRef<'_>) -> Option<String> {
    value.as_str().ok().map(String::from)
}

/// The keys of all live entries. What is no text is no key that anybody can ask for.
pub(super) fn keys(connection: &Connection, now: Timestamp) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached("SELECT key FROM cache WHERE expire_at > ?1")?
        .query_map([now.to_string()], |row| Ok(text(row.get_ref(0)?)))?
        .filter_map(rusqlite::Result::transpose)
        .collect()
}

/// What is wrong with entries, one line for each that nobody can read.
pub(super) fn check(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached(
            "SELECT data, fmt, expire_at, version, compute_us, checksum, key FROM cache",
        )?
        .query_map([], |row| {
            let Some(key) = text(row.get_ref(6)?) else {
                return Ok(Some(String::from("an entry has a key that is no text")));
            };
            let finding = |reason| format!("the entry {key:?} cannot be read: {reason}");
            Ok(decode(&key, row).err().map(finding))
        })?
        .filter_map(rusqlite::Result::transpose)
        .collect()
}

/// How many live entries there are.
pub(super) fn count(connection: &Connection, now: Timestamp) -> rusqlite::Result<u64> {
    connection
        .prepare_cached("SELECT count(*) FROM cache WHERE expire_at > ?1")?
        .query_row([now.to_string()], |row| row.get::<_, i64>(0))
        .map(i64::cast_unsigned)
}
