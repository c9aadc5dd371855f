//! The table `profiles`: named settings.

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, Row, params};

use super::entries::{name, text};
use super::tags::{format_tags, parse_tags};
use crate::entry::{Damage, Listing};
use crate::settings::{Profile, ProfileChanges};
use crate::store::Which;

/// Stored profiles, by name. A field that cannot be read, or is out of its range, has its default.
pub(super) fn read(
    connection: &Connection,
    which: Which<'_>,
) -> rusqlite::Result<Listing<Profile>> {
    let wanted = match which {
        Which::All => Value::Null,
        Which::Key(name) => Value::from(String::from(name)),
    };
    let mut statement = connection.prepare_cached(
        "SELECT name, time_to_live, ttl_cleanup_interval, memory_based_eviction,
                free_memory_target, memory_cleanup_interval, max_items_in_memory, tags, rowid
         FROM profiles WHERE ?1 IS NULL OR name = ?1 ORDER BY name",
    )?;
    let mut rows = statement.query([wanted])?;
    let (mut profiles, mut damaged) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let Some(found) = text(row.get_ref(0)?).filter(|name| !name.is_empty()) else {
            damaged.push(damage(&name(None, row.get(8)?), "its name is none"));
            continue;
        };
        let (changes, odd) = decode(row)?;
        if !odd.is_empty() {
            let reason = format!("{} out of range; the default is used", odd.join(" and "));
            damaged.push(damage(&found, &reason));
        }
        profiles.push(Profile::named(&found).with(&changes));
    }
    Ok(Listing {
        rows: profiles,
        damaged,
    })
}

fn damage(name: &str, reason: &str) -> Damage {
    Damage {
        table: "profiles",
        key: String::from(name),
        reason: String::from(reason),
    }
}

/// The readable fields, and the names of the others.
fn decode(row: &Row<'_>) -> rusqlite::Result<(ProfileChanges, Vec<&'static str>)> {
    let mut changes = ProfileChanges::default();
    let mut odd = Vec::new();
    for (index, field) in [
        (1, "time_to_live"),
        (2, "ttl_cleanup_interval"),
        (5, "memory_cleanup_interval"),
        (6, "max_items_in_memory"),
    ] {
        let number = row.get_ref(index)?.as_i64().ok();
        let set = number.map(|number| changes.set_number(field, number.into()));
        if !matches!(set, Some(Ok(()))) {
            odd.push(field);
        }
    }
    match row.get_ref(3)?.as_i64() {
        Ok(flag) => changes.memory_based_eviction = Some(flag != 0),
        Err(_) => odd.push("memory_based_eviction"),
    }
    #[expect(clippy::cast_precision_loss, reason = "megabytes")]
    let target = match row.get_ref(4)? {
        ValueRef::Real(target) => Some(target),
        ValueRef::Integer(target) => Some(target as f64),
        _ => None,
    };
    let set = target.map(|target| changes.set_free_memory_target(target));
    if !matches!(set, Some(Ok(()))) {
        odd.push("free_memory_target");
    }
    let set = parse_tags(row.get_ref(7)?).map(|tags| changes.set_tags(tags));
    if !matches!(set, Some(Ok(()))) {
        odd.push("tags");
    }
    Ok((changes, odd))
}

/// Writes a profile in the place of its predecessor.
pub(super) fn write(connection: &Connection, profile: &Profile) -> rusqlite::Result<()> {
    let column = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let tags = format_tags(&profile.tags);
    let items = profile.max_items_in_memory.unwrap_or(usize::MAX);
    connection
        .prepare_cached(
            "INSERT INTO profiles(name, time_to_live, ttl_cleanup_interval, memory_based_eviction,
                 free_memory_target, memory_cleanup_interval, max_items_in_memory, tags)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT(name) DO UPDATE SET
                 time_to_live = excluded.time_to_live,
                 ttl_cleanup_interval = excluded.ttl_cleanup_interval,
                 memory_based_eviction = excluded.memory_based_eviction,
                 free_memory_target = excluded.free_memory_target,
                 memory_cleanup_interval = excluded.memory_cleanup_interval,
                 max_items_in_memory = excluded.max_items_in_memory,
                 tags = excluded.tags",
        )?
        .execute(params![
            profile.name,
            column(profile.time_to_live),
            column(profile.ttl_cleanup_interval),
            profile.memory_based_eviction,
            profile.free_memory_target,
            column(profile.memory_cleanup_interval),
            column(items as u64),
            tags,
        ])?;
    Ok(())
}

/// Deletes a profile; says whether it was there.
pub(super) fn delete(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    let deleted = connection
        .prepare_cached("DELETE FROM profiles WHERE name = ?1")?
        .execute([name])?;
    Ok(deleted > 0)
}
