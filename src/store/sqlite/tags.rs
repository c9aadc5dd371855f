//! The table `cache_tag`: the index of the tags that entries carry.
//!
//! A file of the original has entries but no index. It is built a chunk at a time, by rows of
//! `cache`; how far it is stands in `cachetronomy_meta`, and until it is complete who looks for a
//! tag reads every entry.

use std::collections::BTreeSet;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

use super::entries::{is_live, text};
use crate::time::Timestamp;

/// The name in `cachetronomy_meta` of the last row of `cache` that is indexed; no such name there:
/// all are.
pub(super) const INDEXED_TO: &str = "tags_indexed_to";

/// Tags as a column holds them: to the letter as Python's `json.dumps` writes them, because the
/// original compares that text.
pub(super) fn format_tags(tags: &[String]) -> String {
    use std::fmt::Write as _;

    let mut text = String::from("[");
    for (index, tag) in tags.iter().enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        let json = serde_json::to_string(tag).unwrap_or_default();
        let mut units = [0; 2];
        for character in json.chars() {
            // Python escapes this one too.
            if character.is_ascii() && character != '\u{7f}' {
                text.push(character);
                continue;
            }
            for unit in character.encode_utf16(&mut units) {
                // Writing to a string does not fail.
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text.push(']');
    text
}

/// A column of tags: a JSON array. What in it is no text is no tag.
pub(super) fn parse_tags(value: ValueRef<'_>) -> Option<Vec<String>> {
    let json = match value.as_str().ok()? {
        "[]" => return Some(Vec::new()),
        json => serde_json::from_str::<Vec<serde_json::Value>>(json).ok()?,
    };
    let text = |value| match value {
        serde_json::Value::String(text) => Some(text),
        _ => None,
    };
    Some(json.into_iter().filter_map(text).collect())
}

pub(super) fn forget_tags(connection: &Connection, key: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM cache_tag WHERE key = ?1")?
        .execute([key])?;
    Ok(())
}

/// Puts the tags of an entry in the place of those of its predecessor.
pub(super) fn remember_tags(
    connection: &Connection,
    key: &str,
    tags: &[String],
) -> rusqlite::Result<()> {
    forget_tags(connection, key)?;
    for tag in tags {
        connection
            .prepare_cached("INSERT OR IGNORE INTO cache_tag(tag, key) VALUES (?1, ?2)")?
            .execute([tag.as_str(), key])?;
    }
    Ok(())
}

/// How far the index is; `None` when it is complete.
pub(super) fn indexed_to(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let row = connection
        .prepare_cached("SELECT CAST(value AS INTEGER) FROM cachetronomy_meta WHERE name = ?1")?
        .query_row([INDEXED_TO], |row| row.get(0))
        .optional()?;
    Ok(row)
}

/// Starts to build the index from the first entry on.
pub(super) fn index_anew(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM cache_tag", [])?;
    connection.execute(
        "INSERT OR REPLACE INTO cachetronomy_meta(name, value) VALUES (?1, ?2)",
        [INDEXED_TO, &i64::MIN.to_string()],
    )?;
    Ok(())
}

/// Indexes up to `rows` more entries; says whether the index is complete.
pub(super) fn index_some(connection: &Connection, rows: i64) -> rusqlite::Result<bool> {
    let Some(from) = indexed_to(connection)? else {
        return Ok(true);
    };
    let to: Option<i64> = connection
        .prepare_cached(
            "SELECT max(row) FROM
                 (SELECT rowid AS row FROM cache WHERE rowid > ?1 ORDER BY rowid LIMIT ?2)",
        )?
        .query_row(params![from, rows], |row| row.get(0))?;
    let Some(to) = to else {
        connection.execute(
            "DELETE FROM cachetronomy_meta WHERE name = ?1",
            [INDEXED_TO],
        )?;
        return Ok(true);
    };
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO cache_tag(tag, key)
                 SELECT value, cache.key
                 FROM cache, json_each(CASE WHEN json_valid(tags) THEN tags ELSE '[]' END)
                 WHERE cache.rowid > ?1 AND cache.rowid <= ?2
                     AND json_each.type = 'text' AND typeof(cache.key) = 'text'",
        )?
        .execute([from, to])?;
    connection
        .prepare_cached("UPDATE cachetronomy_meta SET value = ?2 WHERE name = ?1")?
        .execute(params![INDEXED_TO, to.to_string()])?;
    Ok(false)
}

/// Holds the index against the entries: tags that it lacks, and tags that it has too many.
pub(super) fn compare(connection: &Connection) -> rusqlite::Result<(i64, i64)> {
    let count = |sql| connection.query_row(sql, [], |row| row.get(0));
    let lacking = match indexed_to(connection)? {
        Some(_) => 0,
        None => count(
            "SELECT count(*)
             FROM cache, json_each(CASE WHEN json_valid(tags) THEN tags ELSE '[]' END) AS one
             WHERE one.type = 'text' AND typeof(cache.key) = 'text' AND NOT EXISTS
                 (SELECT 1 FROM cache_tag WHERE tag = one.value AND cache_tag.key = cache.key)",
        )?,
    };
    let orphans = count(
        "SELECT count(*) FROM cache_tag WHERE NOT EXISTS
             (SELECT 1
              FROM cache, json_each(CASE WHEN json_valid(tags) THEN tags ELSE '[]' END) AS one
              WHERE cache.key = cache_tag.key AND one.value = cache_tag.tag)",
    )?;
    Ok((lacking, orphans))
}

/// Keys with any of the tags or, if `exact`, with exactly these in any order; of live and of
/// expired entries.
pub(super) fn tagged(
    connection: &Connection,
    tags: &[String],
    exact: bool,
) -> rusqlite::Result<Vec<String>> {
    let wanted: BTreeSet<&str> = tags.iter().map(String::as_str).collect();
    let matches = |stored: &[String]| {
        if exact {
            stored.iter().map(String::as_str).collect::<BTreeSet<_>>() == wanted
        } else {
            stored.iter().any(|tag| wanted.contains(tag.as_str()))
        }
    };
    let mut keys = BTreeSet::new();
    if indexed_to(connection)?.is_some() {
        keys.extend(scan(
            connection,
            "SELECT key, tags FROM cache",
            [],
            matches,
        )?);
    } else if tags.is_empty() {
        if exact {
            let untagged = "SELECT key, tags FROM cache WHERE tags = '[]'";
            keys.extend(scan(connection, untagged, [], matches)?);
        }
    } else {
        // All of the wanted tags are on an exact match: any one of them leads to it.
        let leads = if exact { &tags[..1] } else { tags };
        let with_tag = "SELECT cache.key, cache.tags
             FROM cache_tag JOIN cache ON cache.key = cache_tag.key WHERE cache_tag.tag = ?1";
        for tag in leads {
            keys.extend(scan(connection, with_tag, [tag], matches)?);
        }
    }
    Ok(keys.into_iter().collect())
}

/// As [`tagged`], of live entries alone.
pub(super) fn live(
    connection: &Connection,
    tags: &[String],
    exact: bool,
    now: Timestamp,
) -> rusqlite::Result<Vec<String>> {
    let keys = tagged(connection, tags, exact)?.into_iter();
    keys.filter_map(|key| {
        is_live(connection, &key, now)
            .map(|live| live.then_some(key))
            .transpose()
    })
    .collect()
}

fn scan(
    connection: &Connection,
    select: &str,
    parameters: impl rusqlite::Params,
    matches: impl Fn(&[String]) -> bool,
) -> rusqlite::Result<Vec<String>> {
    connection
        .prepare_cached(select)?
        .query_map(parameters, |row| {
            let tags = parse_tags(row.get_ref(1)?);
            Ok(text(row.get_ref(0)?).filter(|_| tags.is_some_and(|tags| matches(&tags))))
        })?
        .filter_map(rusqlite::Result::transpose)
        .collect()
}
