//! Connections: how one is opened, what it may do, and what SQLite's errors mean to us.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::query;
use crate::error::{Error, Result};
use crate::settings::Location;

/// Statements kept prepared by each connection: all that this crate has.
const STATEMENTS: usize = 64;

/// Bytes to which the log's file is cut once its frames have been moved.
const LOG_BYTES: i64 = 16 << 20;

/// No commit of ours wrote a page since the mark was set.
pub(super) const NO_FRAMES: u32 = u32::MAX;

/// Pauses between two attempts to get a lock that somebody holds.
const SHORTEST_PAUSE: Duration = Duration::from_micros(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

/// How long to wait for one while the process ends.
const HURRIED_PATIENCE: Duration = Duration::from_millis(100);

/// What anybody waits at least, also who has waited in a queue before: others hold a lock for less.
const LEAST_PATIENCE: Duration = Duration::from_millis(50);

static HURRY: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Since when whoever this thread works for has waited, and for how long they will.
    static WAITING: Cell<(Option<Instant>, Duration)> = const { Cell::new((None, Duration::MAX)) };
}

/// Files are created, and so closed again, one at a time: closing any descriptor of a file drops
/// the locks that SQLite holds on it elsewhere in this process.
static CREATING: Mutex<()> = Mutex::new(());

/// What SQLite's error means to a user of `path`.
pub(super) fn translate(path: &str, busy: Duration, error: &rusqlite::Error) -> Error {
    let path = path.to_owned();
    let reason = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::StoreBusy {
            path,
            waited_ms: busy.as_millis(),
        },
        Some(ErrorCode::DiskFull) => Error::StoreFull { path },
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            Error::CorruptStore { path, reason }
        }
        Some(ErrorCode::TooBig) => Error::Serialization {
            reason: String::from("the encoded value is larger than SQLite's limit of 10^9 bytes"),
        },
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            let reason = format!("{reason}; check that the file and its folder may be written");
            Error::StoreUnavailable { path, reason }
        }
        _ => Error::StoreUnavailable { path, reason },
    }
}

/// Opens connections to one location.
#[derive(Debug, Clone)]
pub(super) struct Opener {
    pub(super) path: Option<PathBuf>,
    pub(super) name: String,
    pub(super) busy: Duration,
}

impl Opener {
    pub(super) fn new(location: &Location, busy: Duration) -> Self {
        match location {
            Location::Memory => Self {
                path: None,
                name: String::from(":memory:"),
                busy,
            },
            Location::File(path) => Self {
                path: Some(path.clone()),
                name: path.display().to_string(),
                busy,
            },
        }
    }

    pub(super) fn error(&self, error: &rusqlite::Error) -> Error {
        translate(&self.name, self.busy, error)
    }

    /// Makes missing folders, and the file itself where it is missing, for its owner alone.
    pub(super) fn create(&self) -> Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let unavailable = |what: &Path, error: &std::io::Error| Error::StoreUnavailable {
            path: self.name.clone(),
            reason: format!("cannot create {}: {error}", what.display()),
        };
        let _one_at_a_time = CREATING.lock();
        if path
            .try_exists()
            .map_err(|error| unavailable(path, &error))?
        {
            return Ok(());
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| unavailable(folder, &error))?;
        }
        match Self::create_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(unavailable(path, &error))
            }
            _ => Ok(()),
        }
    }

    /// Makes an empty file, which must not be there yet, for its owner alone.
    pub(super) fn create_file(path: &Path) -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path).map(drop)
    }

    /// Bytes of the file, without opening it.
    pub(super) fn size(&self) -> Option<u64> {
        Some(std::fs::metadata(self.path.as_ref()?).ok()?.len())
    }

    /// A connection that runs nothing which the file brings along: no triggers, no views, no
    /// functions or virtual tables that a schema could abuse. It waits for nobody by itself: see
    /// [`Opener::retry_while_busy`].
    pub(super) fn open(&self) -> Result<Connection> {
        // Without NO_MUTEX each call would take a lock that our own locks make superfluous.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = match &self.path {
            Some(path) => Connection::open_with_flags(path, flags),
            None => Connection::open_in_memory_with_flags(flags | OpenFlags::SQLITE_OPEN_CREATE),
        };
        let restricted = opened.and_then(|mut connection| {
            connection.busy_timeout(Duration::ZERO)?;
            connection.authorizer(Some(query::authorize))?;
            connection.set_prepared_statement_cache_capacity(STATEMENTS);
            for (option, on) in [
                (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
                (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
                (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
                (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
            ] {
                connection.set_db_config(option, on)?;
            }
            Ok(connection)
        });
        let connection = restricted.map_err(|error| self.error(&error))?;
        self.retry_while_busy(|| {
            connection.execute_batch(
                "PRAGMA cell_size_check=ON; PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY;
                 PRAGMA synchronous=NORMAL;",
            )
        })?;
        Ok(connection)
    }

    /// Switches the file to WAL. The switch does not honour the busy time-out, and processes
    /// that open a new file at once all try it; so it is repeated until one of them has done it.
    pub(super) fn enter_wal(&self, connection: &Connection) -> Result<()> {
        if self.path.is_none() {
            return Ok(());
        }
        self.retry_while_busy(|| {
            let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
            if mode == "wal" {
                return Ok(());
            }
            // Before the first page is written: later it would need a VACUUM.
            connection.execute_batch("PRAGMA auto_vacuum=INCREMENTAL")?;
            connection.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(()))
        })
    }

    /// Repeats what is refused because of somebody's lock, up to the busy time-out. SQLite's own
    /// wait is not used: its pauses grow to 100 ms, during which others take the lock over and
    /// over, and nothing can cut it short.
    pub(super) fn retry_while_busy<T>(
        &self,
        attempt: impl FnMut() -> rusqlite::Result<T>,
    ) -> Result<T> {
        self.retry_since(Instant::now(), attempt)
    }

    /// As [`Opener::retry_while_busy`], for somebody who has waited in a queue since then.
    pub(super) fn retry_since<T>(
        &self,
        arrival: Instant,
        mut attempt: impl FnMut() -> rusqlite::Result<T>,
    ) -> Result<T> {
        let (since, limit) = WAITING.get();
        let start = Instant::now();
        let queued = start.saturating_duration_since(since.map_or(arrival, |it| it.min(arrival)));
        let longest = self.busy.min(limit);
        let usual = longest
            .saturating_sub(queued)
            .max(longest.min(LEAST_PATIENCE));
        let mut pause = SHORTEST_PAUSE;
        loop {
            let result = attempt();
            let patience = if HURRY.load(Ordering::Relaxed) {
                usual.min(HURRIED_PATIENCE)
            } else {
                usual
            };
            let waited = start.elapsed();
            if !matches!(&result, Err(error) if is_busy(error)) || waited >= patience {
                return result.map_err(|error| self.error(&error));
            }
            // Those who wait for the same lock must not all come back at the same moment.
            let jitter = pause * (waited.subsec_nanos() % 8) / 8;
            std::thread::sleep((pause + jitter).min(patience.saturating_sub(waited)));
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Does `work` for somebody who has waited for it since then, which counts.
pub fn waiting_since<T>(since: Instant, work: impl FnOnce() -> T) -> T {
    let (before, limit) = WAITING.get();
    WAITING.set((Some(since), limit));
    let result = work();
    WAITING.set((before, limit));
    result
}

/// Does `work` for somebody who waits for a lock no longer than that.
pub fn waiting_for<T>(limit: Option<Duration>, work: impl FnOnce() -> T) -> T {
    let (since, before) = WAITING.get();
    let limit = limit.map_or(before, |limit| limit.max(LEAST_PATIENCE));
    WAITING.set((since, limit.min(before)));
    let result = work();
    WAITING.set((since, before));
    result
}

/// From now on nobody in this process waits long for a lock: the process is about to end.
pub fn hurry() {
    HURRY.store(true, Ordering::Relaxed);
}

fn is_busy(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(
        code,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// A connection for writing, which notes in `committed` how many frames the log has after each
/// commit that wrote a page.
pub(super) fn open_writer(opener: &Opener, committed: &Arc<AtomicU32>) -> Result<Connection> {
    let mut writer = opener.open()?;
    opener.enter_wal(&writer)?;
    let noted = Arc::clone(committed);
    // Also takes the place of SQLite's own checkpoint, which would run inside a commit.
    let hooked = writer.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, frames: i32| {
        noted.store(u32::try_from(frames).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }));
    hooked.map_err(|error| opener.error(&error))?;
    let pragmas = format!("PRAGMA journal_size_limit={LOG_BYTES}; PRAGMA cache_size=-32000");
    opener.retry_while_busy(|| {
        writer.execute_batch(&pragmas)?;
        // The first read maps the log's header.
        writer.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
    })?;
    Ok(writer)
}

/// A connection for reading.
pub(super) fn open_reader(opener: &Opener) -> Result<Connection> {
    let reader = opener.open()?;
    opener.retry_while_busy(|| {
        reader.execute_batch("PRAGMA query_only=ON; PRAGMA cache_size=-4000")
    })?;
    Ok(reader)
}
