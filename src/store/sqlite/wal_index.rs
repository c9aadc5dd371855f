//! The gate of a database file: SQLite's own header of its write-ahead log, in shared memory.
//!
//! Every commit by any process rewrites that header. SQLite maps it for us (`xShmMap`), so the
//! file is not opened a second time, which would drop SQLite's locks on it. Layout (SQLite file
//! `wal.c`, `WalIndexHdr`, unchanged since 2010): two copies of 48 bytes, each
//! `iVersion@0 iChange@8 mxFrame@16 aCksum@40`; a writer fills the second copy first.
#![expect(
    unsafe_code,
    reason = "the only way to SQLite's mapping is below its safe interface"
)]

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use rusqlite::{Connection, ffi};

use crate::freshness::{Gate, NEVER};

const LAYOUT_VERSION: u32 = 3_007_000;
const COPY_BYTES: usize = 48;
const MAPPED_BYTES: i32 = 32_768;
const VERSION: usize = 0;
const CHANGE: usize = 8;
const FRAMES: usize = 16;
const CHECKSUM: usize = 40;

/// The header as it stood at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// The checksum over all of it: the gate.
    pub(super) word: u64,
    /// Counts commits.
    pub(super) change: u32,
    /// Frames in the log.
    pub(super) frames: u32,
}

/// The mapped header of one database file.
///
/// The mapping lives as long as any connection of this process to the file. Whoever reads the
/// header therefore either uses a connection at that moment or holds the lock of a memory shard,
/// and [`WalIndex::forget`] is called, and every shard lock passed through, before the store
/// closes its last connection.
#[derive(Debug, Default)]
pub(super) struct WalIndex {
    start: AtomicPtr<u8>,
}

impl WalIndex {
    /// The header of this connection's file; `None` where there is none (a file system without
    /// shared memory), or none of the known layout. The connection must be in WAL mode, and must
    /// have read from the file.
    pub(super) fn of(connection: &Connection) -> Option<Self> {
        let index = Self::default();
        index.map(connection);
        (index.load_u32(VERSION) == Some(LAYOUT_VERSION)).then_some(index)
    }

    /// Maps the header of a new connection to the same file, after `forget`.
    pub(super) fn map(&self, connection: &Connection) {
        let start = Self::ask(connection).unwrap_or(ptr::null_mut());
        self.start.store(start, Ordering::SeqCst);
    }

    fn ask(connection: &Connection) -> Option<*mut u8> {
        let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
        // SAFETY: the handle is that of a live connection which only this thread uses now;
        // FILE_POINTER writes one pointer to where the last argument points.
        let code = unsafe {
            ffi::sqlite3_file_control(
                connection.handle(),
                c"main".as_ptr(),
                ffi::SQLITE_FCNTL_FILE_POINTER,
                ptr::from_mut(&mut file).cast(),
            )
        };
        if code != ffi::SQLITE_OK || file.is_null() {
            return None;
        }
        // SAFETY: SQLite returned the file of an open connection; `pMethods` is null, or points
        // to a table of methods that is constant.
        let methods = unsafe { (*file).pMethods.as_ref() }?;
        let map = methods.xShmMap.filter(|_| methods.iVersion >= 2)?;
        let mut start: *mut c_void = ptr::null_mut();
        // SAFETY: the method belongs to this very file; with the fourth argument 0 it extends
        // nothing and returns the mapping that the connection's own reads have made.
        let code = unsafe { map(file, 0, MAPPED_BYTES, 0, ptr::from_mut(&mut start).cast()) };
        if code != ffi::SQLITE_OK || start.is_null() {
            return None;
        }
        Some(start.cast())
    }

    /// Whether the header can be read now.
    pub(super) fn is_mapped(&self) -> bool {
        !self.start.load(Ordering::Acquire).is_null()
    }

    /// The mapping is about to go.
    pub(super) fn forget(&self) {
        self.start.store(ptr::null_mut(), Ordering::SeqCst);
    }

    /// Both copies of the header, if they agree: a writer that is busy with them, or died so,
    /// leaves them different.
    pub(super) fn header(&self) -> Option<Header> {
        let first = self.copy(0)?;
        // The second copy is written before the first. If it is still the same now, no writer had
        // begun when the first was read.
        std::sync::atomic::fence(Ordering::SeqCst);
        let second = self.copy(COPY_BYTES)?;
        (first == second).then_some(first)
    }

    fn copy(&self, at: usize) -> Option<Header> {
        Some(Header {
            word: self.load_u64(at + CHECKSUM)?,
            change: self.load_u32(at + CHANGE)?,
            frames: self.load_u32(at + FRAMES)?,
        })
    }

    fn load_u32(&self, offset: usize) -> Option<u32> {
        let start = self.start.load(Ordering::Acquire);
        if start.is_null() {
            return None;
        }
        // SAFETY: not null, so the mapping is there (see the type), its 32 KiB hold the offset;
        // it begins at a page, so a multiple of 4 is aligned; others write it, hence the atomic.
        Some(unsafe { AtomicU32::from_ptr(start.add(offset).cast()) }.load(Ordering::Acquire))
    }

    fn load_u64(&self, offset: usize) -> Option<u64> {
        let start = self.start.load(Ordering::Acquire);
        if start.is_null() {
            return None;
        }
        // SAFETY: as in `load_u32`; 40 and 88 are multiples of 8.
        Some(unsafe { AtomicU64::from_ptr(start.add(offset).cast()) }.load(Ordering::Acquire))
    }
}

/// The header as the gate of a [`crate::freshness::Freshness`].
pub(super) struct WalGate(pub(super) Arc<WalIndex>);

impl Gate for WalGate {
    fn word(&self) -> u64 {
        self.0.load_u64(CHECKSUM).unwrap_or(NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &std::path::Path) -> Connection {
        let connection = Connection::open(path).unwrap();
        connection
            .pragma_update(None, "journal_mode", "wal")
            .unwrap();
        connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
            .unwrap();
        connection
    }

    #[test]
    fn the_bundled_sqlite_has_the_known_layout_and_is_not_one_with_the_wal_reset_bug() {
        assert_eq!(
            rusqlite::version_number(),
            3_054_001,
            "prove the layout again, then adjust"
        );
    }

    #[test]
    fn a_commit_moves_the_word_and_counts_one_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let (ours, theirs) = (open(&path), open(&path));
        theirs.execute_batch("CREATE TABLE t(x)").unwrap();
        let index = WalIndex::of(&ours).unwrap();
        let before = index.header().unwrap();
        assert_eq!(before.word, index.load_u64(CHECKSUM).unwrap());
        theirs.execute_batch("INSERT INTO t VALUES(1)").unwrap();
        let after = index.header().unwrap();
        assert_ne!(after.word, before.word);
        assert_eq!(after.change, before.change + 1);
        assert!(after.frames > before.frames);
        theirs
            .execute_batch("BEGIN; INSERT INTO t VALUES(2); ROLLBACK")
            .unwrap();
        assert_eq!(index.header().unwrap(), after, "a rollback commits nothing");
        index.forget();
        assert_eq!(index.header(), None);
    }

    #[test]
    fn a_private_database_has_no_shared_header() {
        let connection = Connection::open_in_memory().unwrap();
        assert!(WalIndex::of(&connection).is_none());
    }
}
