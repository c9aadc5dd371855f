//! What a store does, in terms of transactions, readers and the tables.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::config::DbConfig;

use super::{CHECKPOINT_FRAMES, SqliteStore, VACUUM_PAGES, checkpoint, entries, logs};
use crate::entry::{AccessRecord, AccessRow, EvictionRecord, Expired, NewEntry, StoreSize};
use crate::error::{Error, Result};
use crate::freshness::{Commit, Freshness, Stamp};
use crate::store::{Fetched, Store};
use crate::time::Timestamp;

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

impl Store for SqliteStore {
    fn freshness(&self) -> &Arc<Freshness> {
        &self.freshness
    }

    fn read(&self, key: &str, wait: bool) -> Result<Fetched> {
        self.read_with(|connection| {
            // Only now, with a connection in hand: it keeps the header mapped.
            let stamp = self.freshness.before_read(key);
            let found = if wait {
                self.opener
                    .retry_while_busy(|| entries::read(connection, key))?
            } else {
                entries::read(connection, key).map_err(|error| self.opener.error(&error))?
            };
            fetched(key, found, stamp)
        })
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

    fn write(&self, entries: &[NewEntry<'_>]) -> Result<Commit> {
        let ((), commit) = self.transact(|connection, touched| {
            entries
                .iter()
                .try_for_each(|entry| entries::write(connection, entry, &self.profile, touched))
        })?;
        Ok(commit)
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

    fn delete_by_tags(&self, tags: &[String], exact: bool, now: Timestamp) -> Result<Vec<String>> {
        let (removed, _) = self.transact(|connection, touched| {
            let mut live = Vec::new();
            for key in entries::tagged(connection, tags, exact)? {
                if entries::delete(connection, &key, now, touched)? {
                    live.push(key);
                }
            }
            Ok(live)
        })?;
        Ok(removed)
    }

    fn delete_expired(&self, now: Timestamp, limit: usize) -> Result<Vec<Expired>> {
        // A look that takes no lock from anybody: most sweeps find nothing.
        let any = self.read_patiently(|connection| {
            connection
                .prepare_cached("SELECT EXISTS(SELECT 1 FROM cache WHERE expire_at <= ?1)")?
                .query_row([now.to_string()], |row| row.get::<_, bool>(0))
        })?;
        if !any {
            return Ok(Vec::new());
        }
        let (expired, _) = self.transact(|connection, touched| {
            entries::delete_expired(connection, now, limit, touched)
        })?;
        Ok(expired)
    }

    fn keys(&self, now: Timestamp) -> Result<Vec<String>> {
        self.read_patiently(|connection| entries::keys(connection, now))
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

    fn append_logs(&self, accesses: &[AccessRecord], evictions: &[EvictionRecord]) -> Result<()> {
        self.transact(|connection, _| {
            logs::add_accesses(connection, accesses, &self.profile)?;
            logs::add_evictions(connection, evictions, &self.profile)
        })?;
        Ok(())
    }

    fn access_log(&self, limit: Option<usize>) -> Result<Vec<AccessRow>> {
        self.read_patiently(|connection| logs::accesses(connection, limit))
    }

    fn maintain(&self) -> Result<()> {
        self.check_online()?;
        if self.log_frames.load(Ordering::Relaxed) < CHECKPOINT_FRAMES {
            return Ok(());
        }
        let guard = self.writer()?;
        let Some(connection) = guard.as_ref() else {
            return Err(Error::Closed);
        };
        checkpoint(connection).map_err(|error| self.opener.error(&error))?;
        self.log_frames.store(0, Ordering::Relaxed);
        drop(guard);
        self.transact(|connection, _| {
            let free: u32 = connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
            if free >= VACUUM_PAGES {
                connection.execute_batch(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
            }
            Ok(())
        })?;
        Ok(())
    }

    fn check(&self) -> Result<Vec<String>> {
        let findings: Vec<String> = self.read_patiently(|connection| {
            connection
                .prepare("PRAGMA integrity_check")?
                .query_map([], |row| row.get(0))?
                .collect()
        })?;
        let entries = self.read_patiently(entries::check)?;
        let orphans: i64 = self.read_patiently(|connection| {
            connection.query_row(
                "SELECT count(*) FROM cache_tag WHERE key NOT IN (SELECT key FROM cache)",
                [],
                |row| row.get(0),
            )
        })?;
        let orphans = (orphans > 0).then(|| format!("{orphans} tags belong to no entry"));
        let findings = findings.into_iter().filter(|line| line != "ok");
        Ok(findings.chain(entries).chain(orphans).collect())
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
