//! Keys by pattern and by tag.

use rusqlite::{Connection, params};

use super::entries::{self, text, time};
use super::tags;
use crate::store::glob::{Glob, after_prefix};
use crate::time::Timestamp;

/// The plus sign keeps the index on `expire_at` out of it: nearly all entries are live.
const BETWEEN: &str = "SELECT key, expire_at FROM cache
     WHERE key >= ?2 AND key < ?3 AND +expire_at > ?1 AND +expire_at < ':'";

/// The keys of live entries that match a pattern and have a tag, each where it is given.
pub(super) fn keys(
    connection: &Connection,
    pattern: Option<&Glob>,
    tag: Option<&str>,
    now: Timestamp,
) -> rusqlite::Result<Vec<String>> {
    let mut keys = match (tag, pattern) {
        (Some(tag), _) => tags::live(connection, &[String::from(tag)], false, now)?,
        (None, Some(pattern)) => beginning_with(connection, &pattern.prefix(), now)?,
        (None, None) => entries::keys(connection, now)?,
    };
    if let Some(pattern) = pattern {
        keys.retain(|key| pattern.matches(key));
    }
    Ok(keys)
}

/// The keys of live entries that begin with a text, found through the index on them.
fn beginning_with(
    connection: &Connection,
    prefix: &str,
    now: Timestamp,
) -> rusqlite::Result<Vec<String>> {
    // No text has this prefix and comes last, where there is no end: all of them, then.
    let Some(end) = after_prefix(prefix) else {
        return entries::keys(connection, now);
    };
    connection
        .prepare_cached(BETWEEN)?
        .query_map(params![now.to_string(), prefix, end], |row| {
            let live = time(row.get_ref(1)?).is_some_and(|deadline| deadline > now);
            Ok(text(row.get_ref(0)?).filter(|_| live))
        })?
        .filter_map(rusqlite::Result::transpose)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Location, Settings};
    use crate::store::sqlite::SqliteStore;

    #[test]
    fn keys_with_a_prefix_are_found_through_the_index_on_keys() {
        let settings = Settings {
            location: Location::Memory,
            ..Settings::default()
        };
        let store = SqliteStore::open(&settings).unwrap();
        let plan: String = store
            .read_patiently(|connection| {
                connection.query_row(
                    &format!("EXPLAIN QUERY PLAN {BETWEEN}"),
                    ["", "", ""],
                    |row| row.get(3),
                )
            })
            .unwrap();
        assert!(plan.contains("(key>? AND key<?)"), "{plan}");
    }
}
