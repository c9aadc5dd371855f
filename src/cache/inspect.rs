//! Looking without touching: keys, counts, statistics, health.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;

use super::Cache;
use crate::entry::{AccessRow, EvictionReason};
use crate::error::Result;

/// Counters of this process since the cache was opened, and sizes as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Stats {
    /// Hits in memory.
    pub memory_hits: u64,
    /// Hits in the store.
    pub store_hits: u64,
    /// Reads that found nothing.
    pub misses: u64,
    /// Hits of all reads, 0 to 1; 0 before the first read.
    pub hit_ratio: f64,
    /// Entries written.
    pub sets: u64,
    /// Entries that left a tier, by reason; reasons that did not occur are left out.
    pub evictions: BTreeMap<&'static str, u64>,
    /// Their sum.
    pub evictions_count: u64,
    /// Entries that a sweep of ours removed from the store.
    pub expired: u64,
    /// Entries in memory.
    pub memory_keys: usize,
    /// Their bytes, as encoded, with their keys.
    pub memory_bytes: usize,
    /// Live entries in the store.
    pub store_keys: u64,
    /// Bytes of its file.
    pub store_bytes: u64,
    /// Computing time that hits saved, in seconds.
    pub seconds_saved: f64,
    /// Entries that could not be read, and failures of background work.
    pub errors: u64,
}

impl<V> Cache<V> {
    /// Keys of the live entries in memory, in no order. After a stranger's commit the store is
    /// asked which of them it still holds.
    pub fn memory_keys(&self) -> Result<Vec<String>> {
        self.check_open()?;
        let mut keys = Vec::new();
        self.memory
            .for_each(self.clock.now(), |key, _| keys.push(String::from(key)));
        let want = self.want(None, false);
        if keys.iter().all(|key| self.memory.contains(key, &want)) {
            return Ok(keys);
        }
        let stored: HashSet<String> = self.store_keys()?.into_iter().collect();
        keys.retain(|key| stored.contains(key));
        Ok(keys)
    }

    /// Keys of the live entries in the store.
    pub fn store_keys(&self) -> Result<Vec<String>> {
        self.check_open()?;
        self.store.keys(self.clock.now())
    }

    /// Hits of this process, hottest first.
    pub fn memory_stats(&self, limit: Option<usize>) -> Result<Vec<(String, u64)>> {
        self.check_open()?;
        self.memory
            .harvest(|key, hits, last| self.hot.record(key, hits, last));
        Ok(self.hot.hottest(limit))
    }

    /// Hits of all processes ever, hottest first.
    pub fn store_stats(&self, limit: Option<usize>) -> Result<Vec<AccessRow>> {
        self.check_open()?;
        // What cannot be written now - the disk is full - is missing from the answer, no more.
        if self.flush_logs().is_err() {
            self.count_error();
        }
        self.store.access_log(limit)
    }

    /// Everything that is counted.
    pub fn stats(&self) -> Result<Stats> {
        self.check_open()?;
        let meter = self.memory.meter();
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let (store_hits, misses) = (load(&counters.store_hits), load(&counters.misses));
        let hits = meter.hits + store_hits;
        let size = self.store.size(self.clock.now())?;
        let evictions: BTreeMap<_, _> = EvictionReason::ALL
            .into_iter()
            .map(|reason| (reason.as_str(), load(&counters.evictions[reason as usize])))
            .filter(|(_, count)| *count > 0)
            .collect();
        let saved_us = meter.saved_us + counters.saved_us.load(Ordering::Relaxed);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a ratio and a sum for people to read"
        )]
        let (hit_ratio, seconds_saved) = (
            hits as f64 / (hits + misses).max(1) as f64,
            saved_us as f64 / 1e6,
        );
        Ok(Stats {
            memory_hits: meter.hits,
            store_hits,
            misses,
            hit_ratio,
            sets: load(&counters.sets),
            evictions_count: evictions.values().sum(),
            evictions,
            expired: load(&counters.expired),
            memory_keys: self.memory.len(),
            memory_bytes: self.memory.bytes(),
            store_keys: size.entries,
            store_bytes: size.bytes,
            seconds_saved,
            errors: load(&counters.errors),
        })
    }

    /// Looks for damage in both tiers; one line for each finding.
    pub fn check(&self) -> Result<Vec<String>> {
        self.check_open()?;
        let mut findings = self.store.check()?;
        findings.extend(self.memory.validate().err());
        Ok(findings)
    }
}
