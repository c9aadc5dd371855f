//! The persistent tier in a SQLite file.
//!
//! One connection writes, under a blocking lock; a few read, each lent to one reader at a time.
//! A private database (`:memory:`) has the one connection only.

mod connection;
mod entries;
mod expiry;
mod leases;
mod logs;
mod matching;
mod operations;
mod polled;
mod profiles;
mod query;
mod schema;
mod tags;
mod transaction;
mod update;
mod upkeep;
mod wal_index;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use rusqlite::Connection;

use crate::error::{Error, Result};
use crate::freshness::{Commit, Freshness, Touched};
use crate::settings::Settings;
use crate::store::fence::Fence;
use connection::{NO_FRAMES, Opener, open_reader, open_writer};
pub use connection::{hurry, waiting_for, waiting_since};
use polled::PolledGate;
use transaction::begin;
use wal_index::{WalGate, WalIndex};

/// Readers kept open while nobody uses them.
const IDLE_READERS: usize = 8;

/// Frames in the log from which `maintain` moves them into the database: SQLite's own default.
const CHECKPOINT_FRAMES: u32 = 1_000;

/// Frames from which a writer does it itself, where `maintain` is not called or cannot keep up.
const FORCED_CHECKPOINT_FRAMES: u32 = 16_000;

/// A SQLite file, or a private database.
pub struct SqliteStore {
    opener: Opener,
    writer: Mutex<Option<Connection>>,
    readers: Mutex<Vec<Connection>>,
    freshness: Arc<Freshness>,
    fence: Arc<Fence>,
    wal: Option<Arc<WalIndex>>,
    closed: AtomicBool,
    /// Frames in the log after our last commit that wrote pages; reset to `NO_FRAMES` before each.
    committed: Arc<AtomicU32>,
    log_frames: AtomicU32,
    /// No connection may be used: suspended or closed.
    offline: Arc<AtomicBool>,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore")
            .field("opener", &self.opener)
            .finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens the file, makes it where it is missing, and adds what a file of the original lacks.
    pub fn open(settings: &Settings) -> Result<Self> {
        let opener = Opener::new(&settings.location, settings.busy_timeout);
        opener.create()?;
        // Looked at before anything is changed, the journal mode included.
        schema::examine(&opener, &opener.open()?)?;
        let committed = Arc::new(AtomicU32::new(NO_FRAMES));
        let writer = open_writer(&opener, &committed)?;
        schema::prepare(&opener, &writer)?;
        let offline = Arc::new(AtomicBool::new(false));
        let wal = wal_index(&opener, &writer);
        let fence = Fence::of(opener.path.as_deref());
        let freshness = match (&wal, &opener.path) {
            (_, None) => Freshness::private(),
            (Some(wal), _) => Freshness::shared(Box::new(WalGate(Arc::clone(wal)))),
            (None, _) => {
                let gate = PolledGate::new(opener.clone(), Arc::clone(&offline));
                Freshness::shared(Box::new(gate))
            }
        };
        if let Some(header) = wal.as_ref().and_then(|wal| wal.header()) {
            freshness.start(header.word);
        }
        Ok(Self {
            opener,
            writer: Mutex::new(Some(writer)),
            readers: Mutex::new(Vec::new()),
            freshness: Arc::new(freshness),
            fence,
            wal,
            closed: AtomicBool::new(false),
            committed,
            log_frames: AtomicU32::new(0),
            offline,
        })
    }

    /// Every write goes through here: one transaction, and the record of the keys it touched.
    fn transact<T>(
        &self,
        write: impl FnOnce(&Connection, &mut Touched) -> rusqlite::Result<T>,
    ) -> Result<(T, Commit)> {
        let arrival = Instant::now();
        let guard = self.writer()?;
        let connection = guard.as_ref().ok_or(Error::Closed)?;
        let mut touched = Touched::default();
        self.committed.store(NO_FRAMES, Ordering::Relaxed);
        let transaction = self.opener.retry_since(arrival, || begin(connection))?;
        // The write lock is ours: from here to the commit the header stands still.
        let before = self.wal.as_ref().and_then(|wal| wal.header());
        let written = write(connection, &mut touched).and_then(|result| {
            self.fence.note(&touched);
            transaction.commit().map(|()| result)
        });
        let result = written.map_err(|error| self.opener.error(&error))?;
        let frames = self.committed.load(Ordering::Relaxed);
        let commit = self.settle(before, frames, &touched);
        if frames != NO_FRAMES {
            self.log_frames.store(frames, Ordering::Relaxed);
            if frames >= FORCED_CHECKPOINT_FRAMES {
                // The write is committed, whatever becomes of this; `maintain` tries it again.
                drop(checkpoint(connection));
            }
        }
        Ok((result, commit))
    }

    /// Tells our own commit from a stranger's that came in after we let go of the write lock:
    /// the header must have moved by exactly what our commit did, and end at its last frame.
    fn settle(&self, before: Option<wal_index::Header>, frames: u32, touched: &Touched) -> Commit {
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
            return read(self.writer()?.as_ref().ok_or(Error::Closed)?);
        }
        self.check_online()?;
        if self.wal.as_ref().is_some_and(|wal| !wal.is_mapped()) {
            // After a suspension: the writer's connection is the one that maps the header.
            drop(self.writer()?);
        }
        let idle = self.readers.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open_reader(&self.opener)?,
        };
        let result = read(&connection);
        self.take_back(connection);
        result
    }

    /// As [`SqliteStore::read_with`] where that takes no more than the reading: no lock to wait for,
    /// no connection to open. Otherwise busy.
    fn read_at_once<T>(&self, read: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.check_online()?;
        if self.opener.path.is_none() {
            let writer = self.writer.try_lock().ok_or_else(|| self.busy())?;
            return read(writer.as_ref().ok_or(Error::Closed)?);
        }
        if self.wal.as_ref().is_some_and(|wal| !wal.is_mapped()) {
            return Err(self.busy());
        }
        let idle = self.readers.lock().pop();
        let connection = idle.ok_or_else(|| self.busy())?;
        let result = read(&connection);
        self.take_back(connection);
        result
    }

    /// Keeps a reader for the next one who reads.
    fn take_back(&self, reader: Connection) {
        let mut idle = self.readers.lock();
        if idle.len() < IDLE_READERS && !self.offline.load(Ordering::Acquire) {
            idle.push(reader);
        }
    }

    /// Reads, waiting for locks of others.
    fn read_patiently<T>(
        &self,
        mut read: impl FnMut(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.read_with(|connection| self.opener.retry_while_busy(|| read(connection)))
    }

    /// The writing connection, opened again after a suspension.
    fn writer(&self) -> Result<MutexGuard<'_, Option<Connection>>> {
        let mut writer = self.writer.lock();
        self.check_online()?;
        if writer.is_none() {
            let connection = open_writer(&self.opener, &self.committed)?;
            if let Some(wal) = &self.wal {
                wal.map(&connection);
            }
            *writer = Some(connection);
        }
        Ok(writer)
    }

    /// No connection may be used any more, and nothing proves itself fresh.
    fn go_offline(&self) {
        self.offline.store(true, Ordering::Release);
        if let Some(wal) = &self.wal {
            wal.forget();
        }
        // A polled gate lets go of its connection when it is asked.
        self.freshness.gate();
    }

    fn check_online(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        if self.offline.load(Ordering::Acquire) {
            return Err(self.busy());
        }
        Ok(())
    }

    #[cold]
    fn busy(&self) -> Error {
        Error::StoreBusy {
            path: self.opener.name.clone(),
            waited_ms: 0,
        }
    }
}

/// The header of the file's log. Proved on Linux only: elsewhere the slower gate serves.
fn wal_index(opener: &Opener, writer: &Connection) -> Option<Arc<WalIndex>> {
    let usable = cfg!(target_os = "linux") && opener.path.is_some();
    usable.then(|| WalIndex::of(writer))?.map(Arc::new)
}

/// Moves what can be moved without waiting for anybody.
fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
}
