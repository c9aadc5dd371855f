//! Care of the file: checkpoints, free pages, the index of old tags, copies, repair.

use std::path::Path;
use std::sync::atomic::Ordering;

use rusqlite::Connection;

use super::connection::Opener;
use super::{CHECKPOINT_FRAMES, SqliteStore, checkpoint, entries, tags};
use crate::error::{Error, Result};

/// Free pages given back in one call of `maintain`: 4 MB of 4096-byte pages.
const VACUUM_PAGES: u32 = 1_000;

/// Entries of a file of the original whose tags are indexed in one transaction, so that writers
/// need not wait long, and transactions in one call of `maintain`.
const INDEX_CHUNK: i64 = 2_000;
const INDEX_CHUNKS: usize = 10;

impl SqliteStore {
    /// See [`crate::store::Store::maintain`].
    pub(super) fn do_maintenance(&self) -> Result<()> {
        self.check_online()?;
        self.index_old_tags(INDEX_CHUNKS)?;
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
        self.give_back(VACUUM_PAGES, VACUUM_PAGES).map(drop)
    }

    /// Builds the index of tags further; says whether it is complete.
    fn index_old_tags(&self, chunks: usize) -> Result<bool> {
        for _ in 0..chunks {
            // A look that takes no lock from anybody: nearly always there is nothing to do.
            if self.read_patiently(tags::indexed_to)?.is_none() {
                return Ok(true);
            }
            self.transact(|connection, _| tags::index_some(connection, INDEX_CHUNK))?;
        }
        Ok(false)
    }

    /// Gives back up to `pages` free pages if there are at least `enough`; says how many are left.
    fn give_back(&self, pages: u32, enough: u32) -> Result<u32> {
        let free = |connection: &Connection| -> rusqlite::Result<u32> {
            connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))
        };
        let (left, _) = self.transact(|connection, _| {
            if free(connection)? >= enough {
                connection.execute_batch(&format!("PRAGMA incremental_vacuum({pages})"))?;
            }
            free(connection)
        })?;
        Ok(left)
    }

    /// See [`crate::store::Store::vacuum`].
    pub(super) fn do_vacuum(&self) -> Result<()> {
        // Rows are numbered anew by a VACUUM, and the index of old tags counts by those numbers.
        while !self.index_old_tags(INDEX_CHUNKS)? {}
        let incremental = self.read_patiently(|connection| {
            let mode: i64 = connection.query_row("PRAGMA auto_vacuum", [], |row| row.get(0))?;
            Ok(mode == 2)
        })?;
        if incremental {
            let mut left = u32::MAX;
            loop {
                let now = self.give_back(VACUUM_PAGES, 1)?;
                if now == 0 || now >= left {
                    break;
                }
                left = now;
            }
        } else {
            let guard = self.writer()?;
            let connection = guard.as_ref().ok_or(Error::Closed)?;
            self.opener.retry_while_busy(|| {
                connection.execute_batch("PRAGMA auto_vacuum=INCREMENTAL; VACUUM")
            })?;
        }
        let guard = self.writer()?;
        let connection = guard.as_ref().ok_or(Error::Closed)?;
        // Frames that a reader still needs stay in the log; `maintain` moves them later.
        connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(|error| self.opener.error(&error))
    }

    /// See [`crate::store::Store::backup`].
    pub(super) fn do_backup(&self, path: &Path) -> Result<()> {
        let target = path.display().to_string();
        let refused = |reason: String| Error::InvalidSetting {
            name: "path",
            reason,
        };
        if path.try_exists().unwrap_or(true) {
            return Err(refused(format!(
                "{target} is there already; give the name of a new file"
            )));
        }
        let Some(text) = path.to_str() else {
            return Err(refused(format!("{target} is not valid Unicode")));
        };
        // For its owner alone, which SQLite would not do; it accepts an empty file.
        Opener::create_file(path).map_err(|error| Error::StoreUnavailable {
            path: target.clone(),
            reason: format!("cannot be created: {error}"),
        })?;
        let copied = self.copy_to(text);
        if copied.is_err() {
            // Ours, and no copy of anything.
            drop(std::fs::remove_file(path));
        }
        copied
    }

    fn copy_to(&self, path: &str) -> Result<()> {
        if self.opener.path.is_none() {
            let guard = self.writer()?;
            let connection = guard.as_ref().ok_or(Error::Closed)?;
            let copied = connection.execute("VACUUM INTO ?1", [path]);
            return copied.map(drop).map_err(|error| self.opener.error(&error));
        }
        self.check_online()?;
        let connection = self.opener.open()?;
        self.opener
            .retry_while_busy(|| connection.execute("VACUUM INTO ?1", [path]))
            .map(drop)
    }

    /// See [`crate::store::Store::check`].
    pub(super) fn do_check(&self, fix: bool) -> Result<Vec<String>> {
        let mut findings = match self.find_damage() {
            Ok(findings) => findings,
            // A page is damaged: that is a finding, and nothing here can mend it.
            Err(Error::CorruptStore { reason, .. }) => {
                return Ok(vec![format!(
                    "the file is damaged: {reason}; save what can be read with backup(), then \
                     start a new file"
                )]);
            }
            Err(error) => return Err(error),
        };
        let (lacking, orphans) = self.read_patiently(tags::compare)?;
        if orphans > 0 {
            findings.push(format!("{orphans} tags in the index belong to no entry"));
        }
        if lacking > 0 {
            findings.push(format!("{lacking} tags of entries are not in the index"));
        }
        if fix && !findings.is_empty() {
            self.repair()?;
        }
        Ok(findings)
    }

    fn find_damage(&self) -> Result<Vec<String>> {
        let pages: Vec<String> = self.read_patiently(|connection| {
            connection
                .prepare("PRAGMA integrity_check")?
                .query_map([], |row| row.get(0))?
                .collect()
        })?;
        let entries = self.read_patiently(entries::damaged)?;
        let entries = entries.into_iter().map(|(_, finding)| finding);
        let pages = pages.into_iter().filter(|line| line != "ok");
        Ok(pages.chain(entries).collect())
    }

    /// Removes entries that nobody can read, and makes all indexes anew.
    fn repair(&self) -> Result<()> {
        self.transact(|connection, touched| {
            // Their keys may be anything.
            touched.add_all();
            for (row, _) in entries::damaged(connection)? {
                connection.execute("DELETE FROM cache WHERE rowid = ?1", [row])?;
            }
            connection.execute_batch("REINDEX")?;
            tags::index_anew(connection)
        })?;
        while !self.index_old_tags(INDEX_CHUNKS)? {}
        Ok(())
    }
}
