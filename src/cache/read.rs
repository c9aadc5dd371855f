//! Reading: memory first, then the store.

use super::{Cache, add};
use crate::entry::{Damage, EntryMeta, Row};
use crate::error::{Error, Result};
use crate::freshness::Stamp;
use crate::memory::{Entry, Probe, Resident, Want};
use crate::store::Fetched;
use crate::time::Ttl;

/// What memory says of a key.
#[derive(Debug)]
pub enum Lookup<R, V> {
    /// The live value.
    Hit(R),
    /// Ask the store. A value that was past its deadline may have left: drop it.
    Miss(Option<V>),
}

/// A live row, not yet decoded.
#[derive(Debug)]
pub struct Arrival {
    /// The row.
    pub row: Row,
    stamp: Stamp,
}

/// What a reader of the store wants.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// Only this version, or any.
    pub version: Option<i64>,
    /// Also a row whose time came less than this ago.
    pub grace: Ttl,
    /// Whether finding nothing is a miss to be counted.
    pub counts: bool,
}

impl Ask {
    /// Any live row.
    pub const ANY: Self = Self {
        version: None,
        grace: Ttl::Micros(0),
        counts: true,
    };
}

impl<V> Cache<V> {
    /// The hash by which memory knows a key.
    pub fn hash(&self, key: &str) -> u64 {
        self.memory.hash(key)
    }

    pub(super) fn want(&self, version: Option<i64>, promote: bool) -> Want<'_> {
        Want {
            now: self.clock.coarse(),
            clock: &self.clock,
            freshness: &self.freshness,
            version,
            promote,
        }
    }

    /// Asks memory. `share` copies a reference to the value, and may look at what is known of it; it
    /// runs under a lock.
    #[inline]
    pub fn lookup<R>(
        &self,
        hash: u64,
        key: &str,
        version: Option<i64>,
        promote: bool,
        share: impl FnOnce(&V, &EntryMeta) -> R,
    ) -> Lookup<R, V> {
        match self
            .memory
            .get(hash, key, &self.want(version, promote), share)
        {
            Probe::Hit(value) => Lookup::Hit(value),
            Probe::Miss | Probe::OtherVersion => Lookup::Miss(None),
            Probe::Left(removed) => Lookup::Miss(self.book([removed]).pop()),
        }
    }

    /// Asks the store for a live row, of the given version if one is given. `wait`: whether to
    /// wait for a lock of somebody else.
    pub fn fetch(&self, key: &str, version: Option<i64>, wait: bool) -> Result<Option<Arrival>> {
        let ask = Ask {
            version,
            ..Ask::ANY
        };
        self.fetch_as(key, &ask, wait)
    }

    /// As [`Cache::fetch`], with a say in what is wanted.
    pub fn fetch_as(&self, key: &str, ask: &Ask, wait: bool) -> Result<Option<Arrival>> {
        self.judge(self.store.read(key, wait), ask)
    }

    /// As [`Cache::fetch`] for many keys, in one transaction.
    pub fn fetch_many(&self, keys: &[&str]) -> Result<Vec<Option<Arrival>>> {
        self.store
            .read_many(keys)?
            .into_iter()
            .map(|fetched| self.judge(fetched, &Ask::ANY))
            .collect()
    }

    /// How long ago the time of a row came, in microseconds; `None`: it has not.
    pub fn staleness(&self, row: &Row) -> Option<i64> {
        let (deadline, now) = (row.meta.expire_at, self.clock.now());
        (deadline <= now).then(|| now.0.saturating_sub(deadline.0))
    }

    fn judge(&self, fetched: Result<Fetched>, ask: &Ask) -> Result<Option<Arrival>> {
        let miss = || {
            if ask.counts {
                self.count_miss();
            }
        };
        let Fetched { row, stamp } = match fetched {
            // One damaged entry is a miss, and is reported; the caller's program goes on.
            Err(Error::CorruptEntry { key, reason }) => {
                miss();
                self.report(Damage {
                    table: "cache",
                    key,
                    reason,
                });
                return Ok(None);
            }
            fetched => fetched?,
        };
        let wanted = row.filter(|row| {
            let end = row.meta.expire_at.after(ask.grace);
            !self.clock.is_past(self.clock.coarse(), end)
                && ask
                    .version
                    .is_none_or(|version| version == row.meta.version)
        });
        if wanted.is_none() {
            miss();
        }
        Ok(wanted.map(|row| Arrival { row, stamp }))
    }

    /// A row that was found but is of no use to its reader: a miss after all.
    pub fn count_miss(&self) {
        add(&self.counters.misses, 1);
    }

    /// A row that is of use to its reader, but never enters memory: a hit in the store.
    pub fn count_hit(&self, key: &str, row: &Row) {
        add(&self.counters.store_hits, 1);
        self.counters
            .saved_us
            .fetch_add(row.meta.compute_us, std::sync::atomic::Ordering::Relaxed);
        self.hot.record(key, 1, self.clock.coarse());
    }

    /// Takes a decoded value into memory. Whatever happened to the key since the row was read
    /// shows in its stamp, so that the next lookup will not trust it. Returns what left.
    #[must_use = "drop what left where a destructor may run"]
    pub fn admit(&self, key: &str, value: V, arrival: Arrival, promote: bool) -> Vec<V> {
        let Arrival { row, stamp } = arrival;
        add(&self.counters.store_hits, 1);
        self.counters
            .saved_us
            .fetch_add(row.meta.compute_us, std::sync::atomic::Ordering::Relaxed);
        let weight = key.len() + row.data.len();
        let resident = Resident {
            value,
            meta: row.meta,
            stamp,
            weight,
        };
        let entry = Entry {
            now: self.clock.coarse(),
            hit: promote,
        };
        self.book(self.memory.insert(self.hash(key), key, resident, entry))
    }
}
