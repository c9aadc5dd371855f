//! The only place that knows both tiers, and owns the rules of their order.
//!
//! A method either touches the store or the memory tier, so that a caller who must not hold the
//! interpreter while it waits can do the one without it and the other with it. What leaves memory
//! is returned, to be dropped by the caller, who knows where a value's destructor may run.

mod atomic;
mod flight;
mod inspect;
mod invalidate;
mod lease;
mod logs;
mod pressure;
mod profile;
mod read;
mod report;
mod write;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

pub use atomic::{Counted, Step};
pub use flight::{Agent, Alive, Boarding, Flight, Flights, Lead, Outcome, Waiter};
pub use inspect::{Health, Stats};
use lease::Leases;
pub use lease::{LEASE_LIFE, new_owner};
pub use profile::Active;
pub use read::{Arrival, Ask, Lookup};
use report::Reports;
pub use write::{Draft, Part};

use crate::entry::{EvictionReason, EvictionRecord};
use crate::error::{Error, Result};
use crate::freshness::Freshness;
use crate::hotkeys::HotKeys;
use crate::memory::{MemoryTier, Removed};
use crate::pressure::Gauge;
use crate::settings::{Location, Settings};
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

/// What a cache takes from its surroundings.
pub struct Surroundings<V> {
    /// Where the time comes from.
    pub clock: Clock,
    /// Where readings of the free RAM come from.
    pub gauge: Gauge,
    /// Threads that may be inside the memory tier at once.
    pub parallelism: usize,
    /// Drops values that background work removed from memory; called with no lock held.
    pub dispose: Box<dyn Fn(Vec<V>) + Send + Sync>,
}

impl<V: 'static> Default for Surroundings<V> {
    fn default() -> Self {
        Self {
            clock: Clock::System,
            gauge: Gauge::System,
            parallelism: 1,
            dispose: Box::new(drop),
        }
    }
}

impl<V> std::fmt::Debug for Surroundings<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}

/// A cache over one store. `V` is a live value.
pub struct Cache<V> {
    location: Location,
    /// A write lock is held for no longer than it takes to replace a pointer.
    active: RwLock<Arc<Active>>,
    /// Held while one profile takes the place of another, store and memory included.
    switching: Mutex<()>,
    clock: Clock,
    gauge: Gauge,
    dispose: Box<dyn Fn(Vec<V>) + Send + Sync>,
    reports: Reports,
    store: Box<dyn Store>,
    /// The store's, here for the sake of the hot path.
    freshness: Arc<Freshness>,
    memory: MemoryTier<V>,
    hot: HotKeys,
    evictions: Mutex<VecDeque<EvictionRecord>>,
    counters: Counters,
    leases: Leases,
    closed: AtomicBool,
    /// Whether closing has come to its end, once nobody holds it.
    through: Mutex<bool>,
}

impl<V> std::fmt::Debug for Cache<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

impl<V> Cache<V> {
    /// Opens the store, and the profile to begin with.
    pub fn open(settings: Settings, surroundings: Surroundings<V>) -> Result<Self> {
        let store = Box::new(SqliteStore::open(&settings)?);
        let (active, damaged) = Active::first(&*store, &settings)?;
        let cap = active.profile.max_items_in_memory;
        let cache = Self {
            memory: MemoryTier::new(cap, surroundings.parallelism),
            location: settings.location,
            active: RwLock::new(active),
            switching: Mutex::default(),
            clock: surroundings.clock,
            gauge: surroundings.gauge,
            dispose: surroundings.dispose,
            reports: Reports::default(),
            freshness: Arc::clone(store.freshness()),
            store,
            hot: HotKeys::default(),
            evictions: Mutex::default(),
            counters: Counters::default(),
            leases: Leases::default(),
            closed: AtomicBool::new(false),
            through: Mutex::new(false),
        };
        cache.report_all(damaged);
        Ok(cache)
    }

    /// Where the store is.
    pub fn location(&self) -> &Location {
        &self.location
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
    /// are not worth an error. Returns the values that memory held; a second call does nothing, but
    /// wait until the first one is through.
    pub fn close(&self) -> (Vec<V>, Result<()>) {
        let mut through = self.through.lock();
        if std::mem::replace(&mut *through, true) {
            return (Vec::new(), Ok(()));
        }
        self.closed.store(true, Ordering::Release);
        drop(self.flush_logs());
        self.end_leases();
        // In this order: see `store::sqlite::wal_index`.
        self.store.stop_proving();
        self.memory.close();
        let removed = self.memory.remove_all();
        let closed = self.store.close();
        let values = removed.into_iter().map(|removed| removed.value).collect();
        (values, closed)
    }

    /// Whether [`Cache::close`] has nothing left to do or to wait for.
    pub fn is_through(&self) -> bool {
        self.through.try_lock().is_some_and(|through| *through)
    }

    /// One pass of the background work that is due about once a second.
    pub fn maintain(&self) -> Result<()> {
        let kept = self.keep_leases();
        self.flush_logs()?;
        self.store.maintain().and(kept)
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

    /// Visits every value in memory without waiting: for a garbage collector.
    pub fn try_visit(&self, visit: impl FnMut(&V)) {
        self.memory.try_for_each(visit);
    }

    /// Drops values that background work removed, where the surroundings want it.
    fn dispose(&self, values: Vec<V>) {
        if !values.is_empty() {
            (self.dispose)(values);
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
}
