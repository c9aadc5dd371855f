//! The only place that knows both tiers, and owns the rules of their order.
//!
//! A method either touches the store or the memory tier, so that a caller who must not hold the
//! interpreter while it waits can do the one without it and the other with it. What leaves memory
//! is returned, to be dropped by the caller, who knows where a value's destructor may run.

mod inspect;
mod invalidate;
mod read;
mod write;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

pub use inspect::Stats;
pub use read::{Arrival, Lookup};
pub use write::Draft;

use crate::entry::{EvictionReason, EvictionRecord};
use crate::error::{Error, Result};
use crate::freshness::Freshness;
use crate::hotkeys::HotKeys;
use crate::memory::{MemoryTier, Removed};
use crate::settings::Settings;
use crate::store::Store;
use crate::store::sqlite::SqliteStore;
use crate::time::Clock;

/// Eviction records that wait for a flush, the newest; the log itself keeps no more.
const MAX_PENDING_EVICTIONS: usize = 100_000;

#[derive(Debug, Default)]
struct Counters {
    store_hits: AtomicU64,
    misses: AtomicU64,
    sets: AtomicU64,
    expired: AtomicU64,
    errors: AtomicU64,
    saved_us: AtomicI64,
    evictions: [AtomicU64; EvictionReason::ALL.len()],
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// A cache over one store. `V` is a live value.
pub struct Cache<V> {
    settings: Settings,
    clock: Clock,
    store: Box<dyn Store>,
    /// The store's, here for the sake of the hot path.
    freshness: Arc<Freshness>,
    memory: MemoryTier<V>,
    hot: HotKeys,
    evictions: Mutex<VecDeque<EvictionRecord>>,
    counters: Counters,
    graveyard: Mutex<Vec<V>>,
    closed: AtomicBool,
}

impl<V> std::fmt::Debug for Cache<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<V> Cache<V> {
    /// Opens the store. `parallelism`: threads that may be inside the memory tier at once.
    pub fn open(settings: Settings, clock: Clock, parallelism: usize) -> Result<Self> {
        let store = Box::new(SqliteStore::open(&settings)?);
        Ok(Self {
            memory: MemoryTier::new(settings.max_items_in_memory, parallelism),
            settings,
            clock,
            freshness: Arc::clone(store.freshness()),
            store,
            hot: HotKeys::default(),
            evictions: Mutex::default(),
            counters: Counters::default(),
            graveyard: Mutex::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// The settings it was opened with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// An error once `close` was called.
    pub fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }

    /// Writes what is pending and closes the store; counts of hits that cannot be written any more
    /// are not worth an error. Returns the values that memory held; a second call does nothing.
    pub fn close(&self) -> (Vec<V>, Result<()>) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return (Vec::new(), Ok(()));
        }
        drop(self.flush_logs());
        // In this order: see `store::sqlite::wal_index`.
        self.store.stop_proving();
        self.memory.close();
        let removed = self.memory.remove_all();
        let closed = self.store.close();
        let mut values: Vec<V> = removed.into_iter().map(|removed| removed.value).collect();
        values.append(&mut self.graveyard.lock());
        (values, closed)
    }

    /// Writes the counts of hits and the record of evictions to the store. What cannot be written
    /// is kept for the next time.
    pub fn flush_logs(&self) -> Result<()> {
        self.memory
            .harvest(|key, hits, last| self.hot.record(key, hits, last));
        let accesses = self.hot.take_pending();
        let evictions = std::mem::take(&mut *self.evictions.lock());
        if accesses.is_empty() && evictions.is_empty() {
            return Ok(());
        }
        let evictions = Vec::from(evictions);
        let written = self.store.append_logs(&accesses, &evictions);
        if written.is_err() {
            self.hot.put_back(accesses);
            let mut pending = self.evictions.lock();
            for record in evictions.into_iter().rev() {
                if pending.len() < MAX_PENDING_EVICTIONS {
                    pending.push_front(record);
                }
            }
        }
        written
    }

    /// One pass of the background work that is due about once a second.
    pub fn maintain(&self) -> Result<()> {
        self.flush_logs()?;
        self.store.maintain()
    }

    /// Writes what is pending and lets go of everything that a forked child must not inherit. The
    /// caller keeps every other method but [`Cache::lookup`] and a [`Cache::fetch`] that does not
    /// wait out until [`Cache::resume`].
    pub fn suspend(&self) -> Result<()> {
        if self.check_open().is_err() {
            return Ok(());
        }
        // What cannot be written now stays pending - in both, the parent and the child.
        let flushed = self.flush_logs();
        self.store.suspend().and(flushed)
    }

    /// Goes on after [`Cache::suspend`], in the parent as in the child.
    pub fn resume(&self) {
        self.store.resume();
    }

    /// Counts a failure that no caller was there to see.
    pub fn count_error(&self) {
        add(&self.counters.errors, 1);
    }

    /// Takes values that the background thread removed, to be dropped where that is safe.
    pub fn take_graveyard(&self) -> Vec<V> {
        // Nearly always empty: a look, not a wait.
        self.graveyard
            .try_lock()
            .map_or_else(Vec::new, |mut dead| std::mem::take(&mut *dead))
    }

    /// Visits every value in memory without waiting: for a garbage collector.
    pub fn try_visit(&self, mut visit: impl FnMut(&V)) {
        self.memory.try_for_each(&mut visit);
        if let Some(dead) = self.graveyard.try_lock() {
            dead.iter().for_each(visit);
        }
    }

    /// Books what left memory - its hits, the reason - and returns the values alone.
    fn book(&self, removed: impl IntoIterator<Item = Removed<V>>) -> Vec<V> {
        removed
            .into_iter()
            .map(|removed| {
                self.hot
                    .record(&removed.key, removed.hits.into(), removed.last_hit);
                if let Some(reason) = removed.reason {
                    self.log_eviction(&removed.key, reason);
                }
                removed.value
            })
            .collect()
    }

    fn log_eviction(&self, key: &str, reason: EvictionReason) {
        add(&self.counters.evictions[reason as usize], 1);
        if let Some((hits, last)) = self.memory.take_hits(key) {
            self.hot.record(key, hits, last);
        }
        let record = EvictionRecord {
            key: String::from(key),
            evicted_at: self.clock.coarse(),
            reason,
            access_count: self.hot.total(key),
        };
        let mut pending = self.evictions.lock();
        if pending.len() == MAX_PENDING_EVICTIONS {
            pending.pop_front();
        }
        pending.push_back(record);
    }
}
