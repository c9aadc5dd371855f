//! The gate of a database file whose shared header cannot be mapped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rusqlite::Connection;

use super::connection::Opener;
use crate::freshness::{Gate, NEVER};

/// `PRAGMA data_version` of a connection that only asks for it: the gate where SQLite's header
/// cannot be mapped. It costs microseconds, and every commit moves it, ours too.
pub(super) struct PolledGate {
    opener: Opener,
    connection: Mutex<Option<Connection>>,
    offline: Arc<AtomicBool>,
}

impl PolledGate {
    /// A gate that is out of order while `offline` says so.
    pub(super) fn new(opener: Opener, offline: Arc<AtomicBool>) -> Self {
        Self {
            opener,
            connection: Mutex::new(None),
            offline,
        }
    }
}

impl Gate for PolledGate {
    fn word(&self) -> u64 {
        let mut connection = self.connection.lock();
        if self.offline.load(Ordering::Acquire) {
            connection.take();
            return NEVER;
        }
        if connection.is_none() {
            *connection = self.opener.open().ok();
        }
        let version = connection.as_ref().and_then(|connection| {
            let mut statement = connection.prepare_cached("PRAGMA data_version").ok()?;
            statement.query_row([], |row| row.get::<_, u32>(0)).ok()
        });
        version.map_or(NEVER, u64::from)
    }
}
