//! Damaged rows: each is counted and reported once, however often it is met.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::{Cache, add};
use crate::entry::Damage;

/// Rows that are remembered; more of them are a miss like the others, and silent.
const MAX_KNOWN: usize = 10_000;

/// What was found, and what of it was not fetched yet.
#[derive(Debug, Default)]
pub(super) struct Reports {
    lists: Mutex<Lists>,
    /// A look without the lock: nearly always there is nothing.
    pending: AtomicBool,
}

#[derive(Debug, Default)]
struct Lists {
    known: HashSet<(&'static str, String)>,
    pending: Vec<Damage>,
}

impl<V> Cache<V> {
    /// Notes a damaged row.
    pub fn report(&self, damage: Damage) {
        let mut lists = self.reports.lists.lock();
        let name = (damage.table, damage.key.clone());
        if lists.known.len() < MAX_KNOWN && lists.known.insert(name) {
            add(&self.counters.errors, 1);
            lists.pending.push(damage);
            self.reports.pending.store(true, Ordering::Release);
        }
    }

    pub(super) fn report_all(&self, damaged: Vec<Damage>) {
        for damage in damaged {
            self.report(damage);
        }
    }

    /// Takes what was noted since the last call, to be told to whoever reads the program's log.
    pub fn take_reports(&self) -> Vec<Damage> {
        if !self.reports.pending.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut self.reports.lists.lock().pending)
    }
}
