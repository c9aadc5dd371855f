//! The persistent tier in a SQLite file.
//!
//! One connection writes, under a blocking lock; a few read, each lent to one reader at a time.
//! A private database (`:memory:`) has the one connection only.

mod connection;
mod entries;
mod logs;
mod schema;
mod transaction;
mod wal_index;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::Connection;

use super::{Fetched, Store};
use crate::entry::{AccessRecord, AccessRow, EvictionRecord, Expired, NewEntry, Row, StoreSize};
use crate::error::{Error, Result};
use crate::freshness::{Commit, Freshness, Gate, Touched};
use crate::settings::Settings;
use crate::time::Timestamp;
use connection::Opener;
use transaction::begin;
use wal_index::{WalGate, WalIndex};

/// Readers kept open while nobody uses them.
const IDLE_READERS: usize = 8;

/// Frames in the log from which `maintain` moves them into the database: SQLite's own default.
const CHECKPOINT_FRAMES: u32 = 1_000;

/// Frames from which a writer does it itself, where `maintain` is not called or cannot keep up.
const FORCED_CHECKPOINT_FRAMES: u32 = 16_000;

/// Bytes to which the log's file is cut once its frames have been moved.
const LOG_BYTES: i64 = 16 << 20;

/// Free pages given back in one call of `maintain`: 4 MB of 4096-byte pages.
const VACUUM_PAGES: u32 = 1_000;

/// No commit of ours wrote a page since the mark was set.
const NO_FRAMES: u32 = u32::MAX;

/// A SQLite file, or a private database.
pub struct SqliteStore {
    opener: Opener,
    profile: String,
    writer: Mutex<Option<Connection>>,
    /// `None` once closed.
    readers: Mutex<Option<Vec<Connection>>>,
    freshness: Freshness,
    wal: Option<Arc<WalIndex>>,
    /// Frames in the log after our last commit that wrote pages; reset to `NO_FRAMES` before each.
    committed: Arc<AtomicU32>,
    log_frames: AtomicU32,
    stopped: Arc<AtomicBool>,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("opener", &self.opener).finish_non_exhaustive()
    }
}

/// `PRAGMA data_version` of a connection that only asks for it: the gate where SQLite's header
/// cannot be mapped. It costs microseconds, and every commit moves it, ours too.
struct PolledGate {
    connection: Mutex<Option<Connection>>,
    stopped: Arc<AtomicBool>,
    /// Where the version cannot be read, no two answers may be equal.
    failures: std::sync::atomic::AtomicU64,
}

impl Gate for PolledGate {
    fn word(&self) -> u64 {
        let mut connection = self.connection.lock();
        if self.stopped.load(Ordering::Acquire) {
            connection.take();
        }
        let version = connection.as_ref().and_then(|connection| {
            let mut statement = connection.prepare_cached("PRAGMA data_version").ok()?;
            statement.query_row([], |row| row.get::<_, u32>(0)).ok()
        });
        version.map_or_else(
            || u64::MAX - 1 - self.failures.fetch_add(1, Ordering::Relaxed),
            u64::from,
        )
    }
}

impl SqliteStore {
    /// Opens the file, makes it where it is missing, and adds what a file of the original lacks.
    pub fn open(settings: &Settings) -> Result<Self> {
        let opener = Opener::new(&settings.location, settings.busy_timeout);
        opener.create()?;
        let mut writer = opener.open()?;
        opener.enter_wal(&writer)?;
        schema::prepare(&opener, &writer)?;
        let configure = |sql: &str| writer.execute_batch(sql).map_err(|error| opener.error(&error));
        configure(&format!("PRAGMA journal_size_limit={LOG_BYTES}; PRAGMA cache_size=-8000"))?;
        let committed = Arc::new(AtomicU32::new(NO_FRAMES));
        let noted = Arc::clone(&committed);
        // Also takes the place of SQLite's own checkpoint, which would run inside a commit.
        writer
            .wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, frames: i32| {
                noted.store(u32::try_from(frames).unwrap_or(0), Ordering::Relaxed);
                Ok(())
            }))
            .map_err(|error| opener.error(&error))?;
        let stopped = Arc::new(AtomicBool::new(false));
        let wal = wal_index(&opener, &writer);
        let freshness = match (&wal, &opener.path) {
            (_, None) => Freshness::private(),
            (Some(wal), _) => Freshness::shared(Box::new(WalGate(Arc::clone(wal)))),
            (None, _) => Freshness::shared(Box::new(PolledGate {
                connection: Mutex::new(Some(opener.open()?)),
                stopped: Arc::clone(&stopped),
                failures: std::sync::atomic::AtomicU64::new(0),
            })),
        };
        Ok(Self {
            opener,
            profile: settings.profile.clone(),
            writer: Mutex::new(Some(writer)),
            readers: Mutex::new(Some(Vec::new())),
            freshness,
            wal,
            committed,
            log_frames: AtomicU32::new(0),
            stopped,
        })
    }

    /// Every write goes through here: one transaction, and the record of the keys it touched.
    fn transact<T>(
        &self,
        write: impl FnOnce(&Connection, &mut Touched) -> rusqlite::Result<T>,
    ) -> Result<(T, Commit)> {
        let guard = self.writer.lock();
        let connection = guard.as_ref().ok_or(Error::Closed)?;
        let mut touched = Touched::default();
        self.committed.store(NO_FRAMES, Ordering::Relaxed);
        let attempt = || -> rusqlite::Result<_> {
            let transaction = begin(connection)?;
            // The write lock is ours: from here to the commit the header stands still.
            let before = self.wal.as_ref().and_then(|wal| wal.header());
            let result = write(connection, &mut touched)?;
            transaction.commit()?;
            Ok((result, before))
        };
        let (result, before) = attempt().map_err(|error| self.opener.error(&error))?;
        let frames = self.committed.load(Ordering::Relaxed);
        let commit = self.settle(before, frames, &touched);
        if frames != NO_FRAMES {
            self.log_frames.store(frames, Ordering::Relaxed);
            if frames >= FORCED_CHECKPOINT_FRAMES {
                checkpoint(connection).map_err(|error| self.opener.error(&error))?;
            }
        }
        Ok((result, commit))
    }

    /// Tells our own commit from a stranger's that came in after we let go of the write lock:
    /// the header must have moved by exactly what our commit did, and end at its last frame.
    fn settle(
        &self,
        before: Option<wal_index::Header>,
        frames: u32,
        touched: &Touched,
    ) -> Commit {
        let Some(wal) = &self.wal else {
            return match self.opener.path {
                None => self.freshness.settle_private(touched),
                Some(_) => Freshness::unsettled(),
            };
        };
        let (Some(before), Some(after)) = (before, wal.header()) else {
            return Freshness::unsettled();
        };
        let ours = if frames == NO_FRAMES {
            after == before
        } else {
            after.change == before.change.wrapping_add(1) && after.frames == frames
        };
        if ours {
            self.freshness.settle(before.word, after.word, touched)
        } else {
            Freshness::unsettled()
        }
    }

    /// Lends a connection for reading.
    fn read_with<T>(&self, read: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        if self.opener.path.is_none() {
            return read(self.writer.lock().as_ref().ok_or(Error::Closed)?);
        }
        let idle = self.readers.lock().as_mut().ok_or(Error::Closed)?.pop();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let connection = self.opener.open()?;
                connection
                    .execute_batch("PRAGMA query_only=ON; PRAGMA cache_size=-4000")
                    .map_err(|error| self.opener.error(&error))?;
                connection
                    .busy_timeout(std::time::Duration::ZERO)
                    .map_err(|error| self.opener.error(&error))?;
                connection
            }
        };
        let result = read(&connection);
        if let Some(idle) = self.readers.lock().as_mut()
            && idle.len() < IDLE_READERS
        {
            idle.push(connection);
        }
        result
    }

    /// Reads, waiting for locks of others.
    fn read_patiently<T>(
        &self,
        mut read: impl FnMut(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.read_with(|connection| self.opener.retry_while_busy(|| read(connection)))
    }

    fn readable(&self, key: &str, found: Option<entries::Found>) -> Result<Option<Row>> {
        found
            .transpose()
            .map_err(|reason| Error::CorruptEntry { key: String::from(key), reason })
    }

    fn writer(&self) -> Result<MutexGuard<'_, Option<Connection>>> {
        let guard = self.writer.lock();
        if guard.is_none() { Err(Error::Closed) } else { Ok(guard) }
    }
}

#[cfg(target_os = "linux")]
fn wal_index(opener: &Opener, writer: &Connection) -> Option<Arc<WalIndex>> {
    opener.path.as_ref()?;
    WalIndex::of(writer).map(Arc::new)
}

/// Proved on Linux only: elsewhere the slower gate serves.
#[cfg(not(target_os = "linux"))]
fn wal_index(_: &Opener, _: &Connection) -> Option<Arc<WalIndex>> {
    None
}

/// Moves what can be moved without waiting for anybody.
fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}

impl Store for SqliteStore {
    fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    fn read(&self, key: &str, wait: bool) -> Result<Fetched> {
        self.read_with(|connection| {
            // Only now, with a connection in hand: it keeps the header mapped.
            let stamp = self.freshness.before_read(key);
            let found = if wait {
                self.opener.retry_while_busy(|| entries::read(connection, key))?
            } else {
                entries::read(connection, key).map_err(|error| self.opener.error(&error))?
            };
            Ok(Fetched { row: self.readable(key, found)?, stamp })
        })
    }

    fn read_many(&self, keys: &[&str]) -> Result<Vec<Fetched>> {
        self.read_with(|connection| {
            let stamps: Vec<_> = keys.iter().map(|key| self.freshness.before_read(key)).collect();
            let found = self.opener.retry_while_busy(|| {
                let transaction = connection.unchecked_transaction()?;
                let rows: rusqlite::Result<Vec<_>> =
                    keys.iter().map(|key| entries::read(connection, key)).collect();
                transaction.commit()?;
                rows
            })?;
            // One damaged row is a miss; its neighbours are served.
            let rows = found.into_iter().map(|found| found.and_then(std::result::Result::ok));
            Ok(rows.zip(stamps).map(|(row, stamp)| Fetched { row, stamp }).collect())
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
            keys.iter().map(|key| entries::delete(connection, key, now, touched)).collect()
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
            Ok(StoreSize { entries: entries::count(connection, now)?, bytes: bytes.cast_unsigned() })
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
        if self.log_frames.load(Ordering::Relaxed) < CHECKPOINT_FRAMES {
            return Ok(());
        }
        let guard = self.writer()?;
        let Some(connection) = guard.as_ref() else { return Err(Error::Closed) };
        checkpoint(connection).map_err(|error| self.opener.error(&error))?;
        self.log_frames.store(0, Ordering::Relaxed);
        drop(guard);
        self.transact(|connection, _| {
            let free: u32 =
                connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))?;
            if free >= VACUUM_PAGES {
                connection.execute_batch(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
            }
            Ok(())
        })?;
        Ok(())
    }

    fn check(&self) -> Result<Vec<String>> {
        let findings: Vec<String> = self.read_patiently(|connection| {
            connection.prepare("PRAGMA integrity_check")?.query_map([], |row| row.get(0))?.collect()
        })?;
        let orphans: i64 = self.read_patiently(|connection| {
            connection.query_row(
                "SELECT count(*) FROM cache_tag WHERE key NOT IN (SELECT key FROM cache)",
                [],
                |row| row.get(0),
            )
        })?;
        let orphans = (orphans > 0).then(|| format!("{orphans} tags belong to no entry"));
        Ok(findings.into_iter().filter(|line| line != "ok").chain(orphans).collect())
    }

    fn stop_proving(&self) {
        self.stopped.store(true, Ordering::Release);
        if let Some(wal) = &self.wal {
            wal.forget();
        }
    }

    fn close(&self) -> Result<()> {
        self.stop_proving();
        self.readers.lock().take();
        // A polled gate closes its connection when it is next asked.
        self.freshness.gate();
        match self.writer.lock().take() {
            Some(writer) => writer.close().map_err(|(_, error)| self.opener.error(&error)),
            None => Ok(()),
        }
    }
}
