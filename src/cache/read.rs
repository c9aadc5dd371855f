//! Reading: memory first, then the store.

use super::{Cache, add};
use crate::entry::{Damage, Row};
use crate::error::{Error, Result};
use crate::freshness::Stamp;
use crate::memory::{Entry, Probe, Resident, Want};
use crate::store::Fetched;

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

    /// Asks memory. `share` copies a reference to the value; it runs under a lock.
    #[inline]
    pub fn lookup<R>(
        &self,
        hash: u64,
        key: &str,
        version: Option<i64>,
        promote: bool,
        share: impl FnOnce(&V) -> R,
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
        self.judge(self.store.read(key, wait), version)
    }

    /// As [`Cache::fetch`] for many keys, in one transaction.
    pub fn fetch_many(&self, keys: &[&str]) -> Result<Vec<Option<Arrival>>> {
        self.store
            .read_many(keys)?
            .into_iter()
            .map(|fetched| self.judge(fetched, None))
            .collect()
    }

    fn judge(&self, fetched: Result<Fetched>, version: Option<i64>) -> Result<Option<Arrival>> {
        let Fetched { row, stamp } = match fetched {
            // One damaged entry is a miss, and is reported; the caller's program goes on.
            Err(Error::CorruptEntry { key, reason }) => {
                self.count_miss();
                self.report(Damage {
                    table: "cache",
                    key,
                    reason,
                });
                return Ok(None);
            }
            fetched => fetched?,
        };
        let live = row.filter(|row| {
            !self.clock.is_past(self.clock.coarse(), row.meta.expire_at)
                && version.is_none_or(|version| version == row.meta.version)
        });
        if live.is_none() {
            add(&self.counters.misses, 1);
        }
        Ok(live.map(|row| Arrival { row, stamp }))
    }

    /// A row that was found but is of no use to its reader: a miss after all.
    pub fn count_miss(&self) {
        add(&self.counters.misses, 1);
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
