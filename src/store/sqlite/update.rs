//! Writes that depend on what is there: one row looked at and changed in one transaction.

use rusqlite::{Connection, params};

use super::{SqliteStore, entries};
use crate::entry::Row;
use crate::error::Result;
use crate::freshness::{Commit, Touched};
use crate::store::{Change, Member};
use crate::time::Timestamp;

impl SqliteStore {
    /// See [`crate::store::Store::write_group`].
    pub(super) fn do_write_group(&self, group: &[Member<'_>]) -> Result<(Vec<bool>, Commit)> {
        self.transact(|connection, touched| {
            // What outdates computations is noted entry by entry: a result does not.
            touched.spare_computations();
            let mut written = Vec::with_capacity(group.len());
            for (entry, watch) in group {
                match watch {
                    // With the write lock: nobody changes it from here to the commit.
                    Some(watch) if watch.has_changed() => {
                        written.push(false);
                        continue;
                    }
                    Some(watch) => watch.outrun(),
                    None => self.fence.note(&Touched::key(entry.key)),
                }
                entries::write(connection, entry, touched)?;
                written.push(true);
            }
            Ok(written)
        })
    }

    /// See [`crate::store::Store::update`].
    pub(super) fn do_update<'a>(
        &self,
        key: &str,
        change: &mut dyn FnMut(Option<Row>) -> Result<Change<'a>>,
    ) -> Result<Commit> {
        let (outcome, commit) = self.transact(|connection, touched| {
            let found = entries::read(connection, key)?;
            match change(found.and_then(std::result::Result::ok)) {
                Ok(change) => apply(connection, key, &change, touched).map(Ok),
                // Nothing was written: what is committed is nothing.
                Err(error) => Ok(Err(error)),
            }
        })?;
        outcome.map(|()| commit)
    }
}

fn apply(
    connection: &Connection,
    key: &str,
    change: &Change<'_>,
    touched: &mut Touched,
) -> rusqlite::Result<()> {
    match change {
        Change::Keep => Ok(()),
        // Whether it was live is known to who decided.
        Change::Delete => entries::delete(connection, key, Timestamp::NEVER, touched).map(drop),
        Change::Write(entry) => entries::write(connection, entry, touched),
        Change::Value {
            data,
            format,
            expire_at,
        } => {
            touched.add(key);
            entries::replace_value(connection, key, data, format, *expire_at)
        }
        Change::Deadline(expire_at) => {
            touched.add(key);
            connection
                .prepare_cached("UPDATE cache SET expire_at = ?2 WHERE key = ?1")?
                .execute(params![key, expire_at.to_string()])
                .map(drop)
        }
    }
}
