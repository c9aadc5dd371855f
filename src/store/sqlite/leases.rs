//! The table `lease`: who may go on alone, and until when.

use rusqlite::{Connection, OptionalExtension, params};

use super::SqliteStore;
use super::entries::{text, time};
use crate::error::Result;
use crate::time::{Clock, Timestamp, Ttl};

/// A lease as it stands in the table; what no owner of ours can have written is `None`.
type Found = (Option<String>, Option<Timestamp>);

fn find(connection: &Connection, name: &str) -> rusqlite::Result<Option<Found>> {
    connection
        .prepare_cached("SELECT owner, expire_at FROM lease WHERE name = ?1")?
        .query_row([name], |row| {
            Ok((text(row.get_ref(0)?), time(row.get_ref(1)?)))
        })
        .optional()
}

/// Whether somebody has it. One whose deadline cannot be read is nobody's: it would never end.
fn is_held(found: Option<Found>, now: Timestamp) -> bool {
    let deadline = found.and_then(|(_, expire_at)| expire_at);
    deadline.is_some_and(|deadline| deadline > now)
}

/// Deletes those whose time has come: their owners have died, or will notice.
pub(super) fn delete_expired(connection: &Connection, now: Timestamp) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM lease WHERE expire_at <= ?1")?
        .execute([now.to_string()])
        .map(drop)
}

impl SqliteStore {
    /// See [`crate::store::Store::take_lease`].
    pub(super) fn do_take_lease(
        &self,
        name: &str,
        owner: &str,
        ttl: Ttl,
        clock: &Clock,
    ) -> Result<bool> {
        // A look that takes no lock from anybody: who waits for a lease comes again and again.
        if self.do_is_leased(name, clock)? {
            return Ok(false);
        }
        let (taken, _) = self.transact(|connection, _| {
            let now = clock.now();
            if is_held(find(connection, name)?, now) {
                return Ok(false);
            }
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO lease(name, owner, expire_at) VALUES (?1, ?2, ?3)",
                )?
                .execute(params![name, owner, now.after(ttl).to_string()])?;
            Ok(true)
        })?;
        Ok(taken)
    }

    /// See [`crate::store::Store::is_leased`].
    pub(super) fn do_is_leased(&self, name: &str, clock: &Clock) -> Result<bool> {
        let found = self.read_patiently(|connection| find(connection, name))?;
        Ok(is_held(found, clock.now()))
    }

    /// See [`crate::store::Store::renew_leases`].
    pub(super) fn do_renew_leases(
        &self,
        leases: &[(&str, &str)],
        ttl: Ttl,
        clock: &Clock,
    ) -> Result<()> {
        self.transact(|connection, _| {
            let deadline = clock.now().after(ttl).to_string();
            let mut renewal = connection
                .prepare_cached("UPDATE lease SET expire_at = ?3 WHERE name = ?1 AND owner = ?2")?;
            for (name, owner) in leases {
                renewal.execute([*name, *owner, &deadline])?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// See [`crate::store::Store::end_lease`].
    pub(super) fn do_end_lease(&self, name: &str, owner: &str, clock: &Clock) -> Result<bool> {
        let (ended, _) = self.transact(|connection, _| {
            let found = find(connection, name)?;
            let Some((Some(holder), expire_at)) = found else {
                return Ok(false);
            };
            if holder != owner {
                return Ok(false);
            }
            connection
                .prepare_cached("DELETE FROM lease WHERE name = ?1")?
                .execute([name])?;
            Ok(expire_at.is_some_and(|deadline| deadline > clock.now()))
        })?;
        Ok(ended)
    }
}
