//! What a store does, in terms of transactions, readers and the tables.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::config::DbConfig;

use super::{SqliteStore, entries, expiry, leases, logs, matching, profiles, query, tags};
use crate::entry::{
    AccessRecord, AccessRow, Answer, Cell, EvictionRecord, EvictionRow, Expired, FullRow, Listing,
    NewEntry, Row, StoreSize,
};
use crate::error::{Error, Result};
use crate::freshness::{Commit, Freshness, Stamp, Touched};
use crate::settings::{Profile, ProfileChanges};
use crate::store::fence::Fence;
use crate::store::glob::Glob;
use crate::store::{Change, Fetched, Member, Store, Which};
use crate::time::{Clock, Timestamp, Ttl};

/// A row with its stamp; one that cannot be read is an error of its own.
fn fetched(key: &str, found: Option<entries::Found>, stamp: Stamp) -> Result<Fetched> {
    match found.transpose() {
        Ok(row) => Ok(Fetched { row, stamp }),
        Err(reason) => Err(Error::CorruptEntry {
            key: String::from(key),
            reason,
        }),
    }
}

/// Deletes keys; returns those that were live.
fn delete_all(
    connection: &rusqlite::Connection,
    keys: Vec<String>,
    now: Timestamp,
    touched: &mut Touched,
) -> rusqlite::Result<Vec<String>> {
    let mut live = Vec::new();
    for key in keys {
        if entries::delete(connection, &key, now, touched)? {
            live.push(key);
        }
    }
    Ok(live)
}

impl Store for SqliteStore {
    fn freshness(&self) -> &Arc<Freshness> {
        &self.freshness
    }

    fn read(&self, key: &str, wait: bool) -> Result<Fetched> {
        // The stamp only with a connection in hand: it keeps the header mapped.
        if wait {
            self.read_with(|connection| {
                let stamp = self.freshness.before_read(key);
                let read = || entries::read(connection, key);
                fetched(key, self.opener.retry_while_busy(read)?, stamp)
            })
        } else {
            self.read_at_once(|connection| {
                let stamp = self.freshness.before_read(key);
                match entries::read_small(connection, key) {
                    Ok(entries::Small::Found(found)) => fetched(key, found, stamp),
                    Ok(entries::Small::Large) => Err(self.busy()),
                    Err(error) => Err(self.opener.error(&error)),
                }
            })
        }
    }

    fn read_many(&self, keys: &[&str]) -> Result<Vec<Result<Fetched>>> {
        self.read_with(|connection| {
            let stamps: Vec<_> = keys
                .iter()
                .map(|key| self.freshness.before_read(key))
                .collect();
            let found = self.opener.retry_while_busy(|| {
                let transaction = connection.unchecked_transaction()?;
                let rows: rusqlite::Result<Vec<_>> = keys
                    .iter()
                    .map(|key| entries::read(connection, key))
                    .collect();
                transaction.commit()?;
                rows
            })?;
            let rows = keys.iter().zip(found).zip(stamps);
            Ok(rows
                .map(|((key, found), stamp)| fetched(key, found, stamp))
                .collect())
        })
    }

    fn rows(
        &self,
        which: Which<'_>,
        now: Timestamp,
        limit: Option<usize>,
        with_data: bool,
    ) -> Result<Listing<FullRow>> {
        self.read_patiently(|connection| {
            entries::read_whole(connection, which, now, limit, with_data)
        })
    }

    fn write(&self, entries: &[NewEntry<'_>]) -> Result<Commit> {
        let ((), commit) = self.transact(|connection, touched| {
            entries
                .iter()
                .try_for_each(|entry| entries::write(connection, entry, touched))
        })?;
        Ok(commit)
    }

    fn fence(&self) -> &Arc<Fence> {
        &self.fence
    }

    fn write_group(&self, group: &[Member<'_>]) -> Result<(Vec<bool>, Commit)> {
        self.do_write_group(group)
    }

    fn update<'a>(
        &self,
        key: &str,
        change: &mut dyn FnMut(Option<Row>) -> Result<Change<'a>>,
    ) -> Result<Commit> {
        self.do_update(key, change)
    }

    fn delete(&self, keys: &[&str], now: Timestamp) -> Result<Vec<bool>> {
        let (existed, _) = self.transact(|connection, touched| {
            keys.iter()
                .map(|key| entries::delete(connection, key, now, touched))
                .collect()
        })?;
        Ok(existed)
    }

    fn clear(&self) -> Result<u64> {
        Ok(self.transact(entries::clear)?.0)
    }

    fn tagged(&self, tags: &[String], exact: bool, now: Timestamp) -> Result<Vec<String>> {
        self.read_patiently(|connection| tags::live(connection, tags, exact, now))
    }

    fn delete_by_tags(&self, tags: &[String], exact: bool, now: Timestamp) -> Result<Vec<String>> {
        let (removed, _) = self.transact(|connection, touched| {
            self.fence.note_where(|it| {
                let known = it.tags.iter().filter(|tag| tags.contains(tag)).count();
                if exact {
                    known == it.tags.len() && known == tags.len()
                } else {
                    known > 0
                }
            });
            let keys = tags::tagged(connection, tags, exact)?;
            delete_all(connection, keys, now, touched)
        })?;
        Ok(removed)
    }

    fn delete_by_profile(&self, profile: &str, now: Timestamp) -> Result<Vec<String>> {
        let (removed, _) = self.transact(|connection, touched| {
            // Which profile theirs is shows when they are stored.
            self.fence.note_where(|_| true);
            let keys = entries::of_profile(connection, profile)?;
            delete_all(connection, keys, now, touched)
        })?;
        Ok(removed)
    }

    fn delete_expired(&self, now: Timestamp, limit: usize) -> Result<Listing<Expired>> {
        // A look that takes no lock from anybody: most sweeps find nothing.
        let any = self.read_patiently(|connection| expiry::is_any(connection, now))?;
        if !any {
            return Ok(Listing::default());
        }
        let (expired, _) = self.transact(|connection, touched| {
            touched.spare_computations();
            leases::delete_expired(connection, now)?;
            expiry::delete(connection, now, limit, touched)
        })?;
        Ok(expired)
    }

    fn keys(&self, now: Timestamp) -> Result<Vec<String>> {
        self.read_patiently(|connection| entries::keys(connection, now))
    }

    fn matching(
        &self,
        pattern: Option<&Glob>,
        tag: Option<&str>,
        now: Timestamp,
    ) -> Result<Vec<String>> {
        self.read_patiently(|connection| matching::keys(connection, pattern, tag, now))
    }

    fn delete_matching(&self, pattern: &Glob, now: Timestamp) -> Result<Vec<String>> {
        let (removed, _) = self.transact(|connection, touched| {
            self.fence.note_where(|it| pattern.matches(&it.key));
            // Stale copies too.
            let keys = matching::keys(connection, Some(pattern), None, Timestamp(0))?;
            delete_all(connection, keys, now, touched)
        })?;
        Ok(removed)
    }

    fn take_lease(&self, name: &str, owner: &str, ttl: Ttl, clock: &Clock) -> Result<bool> {
        self.do_take_lease(name, owner, ttl, clock)
    }

    fn is_leased(&self, name: &str, clock: &Clock) -> Result<bool> {
        self.do_is_leased(name, clock)
    }

    fn renew_leases(&self, leases: &[(&str, &str)], ttl: Ttl, clock: &Clock) -> Result<()> {
        self.do_renew_leases(leases, ttl, clock)
    }

    fn end_lease(&self, name: &str, owner: &str, clock: &Clock) -> Result<bool> {
        self.do_end_lease(name, owner, clock)
    }

    fn of_function(&self, function: &str, now: Timestamp) -> Result<Vec<String>> {
        self.read_patiently(|connection| entries::of_function(connection, function, now))
    }

    fn delete_by_function(&self, function: &str, now: Timestamp) -> Result<Vec<String>> {
        let (removed, _) = self.transact(|connection, touched| {
            self.fence
                .note_where(|it| it.function.as_deref() == Some(function));
            let keys = entries::of_function(connection, function, Timestamp(0))?;
            delete_all(connection, keys, now, touched)
        })?;
        Ok(removed)
    }

    fn size(&self, now: Timestamp) -> Result<StoreSize> {
        self.read_patiently(|connection| {
            let pragma = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
            let bytes = pragma("PRAGMA page_count")? * pragma("PRAGMA page_size")?;
            Ok(StoreSize {
                entries: entries::count(connection, now)?,
                bytes: bytes.cast_unsigned(),
            })
        })
    }

    fn append_logs(
        &self,
        accesses: &[AccessRecord],
        profile: &str,
        evictions: &[EvictionRecord],
    ) -> Result<()> {
        self.transact(|connection, _| {
            logs::add_accesses(connection, accesses, profile)?;
            logs::add_evictions(connection, evictions)
        })?;
        Ok(())
    }

    fn accesses(&self, which: Which<'_>, limit: Option<usize>) -> Result<Listing<AccessRow>> {
        self.read_patiently(|connection| logs::accesses(connection, which, limit))
    }

    fn delete_accesses(&self, which: Which<'_>) -> Result<()> {
        self.transact(|connection, _| logs::delete_accesses(connection, which))?;
        Ok(())
    }

    fn evictions(&self, limit: Option<usize>) -> Result<Listing<EvictionRow>> {
        self.read_patiently(|connection| logs::evictions(connection, limit))
    }

    fn count_evictions(&self) -> Result<u64> {
        self.read_patiently(logs::count_evictions)
    }

    fn delete_evictions(&self) -> Result<()> {
        self.transact(|connection, _| logs::delete_evictions(connection))?;
        Ok(())
    }

    fn profiles(&self, which: Which<'_>) -> Result<Listing<Profile>> {
        self.read_patiently(|connection| profiles::read(connection, which))
    }

    fn save_profile(&self, name: &str, changes: &ProfileChanges) -> Result<Profile> {
        let mut stored = self.profiles(Which::Key(name))?.rows.pop();
        if let Some(stored) = stored.take_if(|stored| stored.with(changes) == *stored) {
            return Ok(stored);
        }
        let (saved, _) = self.transact(|connection, _| {
            // Another process may have changed it meanwhile: its other fields stay.
            let stored = profiles::read(connection, Which::Key(name))?.rows.pop();
            let saved = stored.unwrap_or_else(|| Profile::named(name)).with(changes);
            profiles::write(connection, &saved)?;
            Ok(saved)
        })?;
        Ok(saved)
    }

    fn delete_profile(&self, name: &str) -> Result<bool> {
        Ok(self
            .transact(|connection, _| profiles::delete(connection, name))?
            .0)
    }

    fn query(&self, statement: &str, parameters: &[Cell], write: bool) -> Result<Answer> {
        let only_reads = self
            .read_with(|connection| {
                query::only_reads(connection, statement)
                    .map_err(|error| self.opener.error(&error))?
            })
            .map_err(query::explain)?;
        if only_reads {
            return self
                .read_patiently(|connection| query::run(connection, statement, parameters))
                .map_err(query::explain);
        }
        if !write {
            return Err(query::refused(
                "the statement writes; set autocommit=True to let it",
            ));
        }
        let (answer, _) = self
            .transact(|connection, touched| {
                touched.add_all();
                query::run_with_triggers(connection, statement, parameters)
            })
            .map_err(query::explain)?;
        answer.ok_or_else(|| {
            query::refused(
                "the file has triggers of its own, which are never run; a statement may only read",
            )
        })
    }

    fn maintain(&self) -> Result<()> {
        self.do_maintenance()
    }

    fn vacuum(&self) -> Result<()> {
        self.do_vacuum()
    }

    fn backup(&self, path: &Path) -> Result<()> {
        self.do_backup(path)
    }

    fn check(&self, fix: bool) -> Result<Vec<String>> {
        self.do_check(fix)
    }

    fn suspend(&self) -> Result<()> {
        if self.opener.path.is_none() || self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.go_offline();
        let mut writer = self.writer.lock();
        self.readers.lock().clear();
        let Some(connection) = writer.take() else {
            return Ok(());
        };
        // Whoever opens the file next finds the log as it is; to empty it now would only delay
        // the fork.
        let kept = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        let closed = kept.and_then(|_| connection.close().map_err(|(_, error)| error));
        closed.map_err(|error| self.opener.error(&error))
    }

    fn resume(&self) {
        if !self.closed.load(Ordering::Acquire) {
            self.offline.store(false, Ordering::Release);
        }
    }

    fn stop_proving(&self) {
        // First: who finds the store offline asks whether it is so for good.
        self.closed.store(true, Ordering::Release);
        self.go_offline();
    }

    fn close(&self) -> Result<()> {
        self.stop_proving();
        self.readers.lock().clear();
        match self.writer.lock().take() {
            Some(writer) => writer
                .close()
                .map_err(|(_, error)| self.opener.error(&error)),
            None => Ok(()),
        }
    }
}
