//! Writes that depend on what is there: one row looked at and changed in one transaction.

use rusqlite::{Connection, params};

use super::{SqliteStore, entries};
use crate::entry::{NewEntry, Row};
use crate::error::Result;
use crate::freshness::{Commit, Touched};
use crate::store::Change;
use crate::store::fence::Watch;
use crate::time::Timestamp;

impl SqliteStore {
    /// See [`crate::store::Store::write_computed`].
    pub(super) fn do_write_computed(
        &self,
        entry: &NewEntry<'_>,
        watch: &Watch,
    ) -> Result<Option<Commit>> {
        if watch.has_changed() {
            return Ok(None);
        }
        let (is_written, commit) = self.transact(|connection, touched| {
            // Again, with the write lock: nobody changes it from here to the commit.
            if watch.has_changed() {
                return Ok(false);
            }
            touched.spare_computations();
            watch.outrun();
            entries::write(connection, entry, touched).map(|()| true)
        })?;
        Ok(is_written.then_some(commit))
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
