//! Looking without touching: keys, counts, statistics, health.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::atomic::Ordering;

use super::Cache;
use crate::entry::{Answer, Cell, EvictionReason, FullRow, Listing};
use crate::error::Result;
use crate::store::Which;
use crate::store::glob::Glob;

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
    /// Entries that cannot be read, each once, and failures of background work.
    pub errors: u64,
}

/// Whether both tiers do their work.
#[derive(Debug)]
pub struct Health {
    /// Live entries in the store, or why it does not answer.
    pub store_keys: Result<u64>,
    /// Entries in memory.
    pub memory_keys: usize,
    /// Whether as much RAM is free as the profile asks for.
    pub memory_ok: bool,
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

    /// Keys of the live entries in the store that were written as a decorated function's.
    pub fn of_function(&self, function: &str) -> Result<Vec<String>> {
        self.check_open()?;
        self.store.of_function(function, self.clock.now())
    }

    /// Live rows whole, in the order in which they were first written. `with_data`: their payloads
    /// too.
    pub fn rows(
        &self,
        which: Which<'_>,
        limit: Option<usize>,
        with_data: bool,
    ) -> Result<Vec<FullRow>> {
        self.check_open()?;
        let now = self.clock.now();
        let Listing { rows, damaged } = self.store.rows(which, now, limit, with_data)?;
        self.report_all(damaged);
        Ok(rows)
    }

    /// Keys of live entries in the store that have one of the tags or, if `exact`, exactly these.
    pub fn tagged(&self, tags: &[String], exact: bool) -> Result<Vec<String>> {
        self.check_open()?;
        self.store.tagged(tags, exact, self.clock.now())
    }

    /// Keys of live entries in the store that match a pattern and have a tag, each where it is
    /// given.
    pub fn matching(&self, pattern: Option<&Glob>, tag: Option<&str>) -> Result<Vec<String>> {
        self.check_open()?;
        self.store.matching(pattern, tag, self.clock.now())
    }

    /// Live entries in the store.
    pub fn count(&self) -> Result<u64> {
        self.check_open()?;
        Ok(self.store.size(self.clock.now())?.entries)
    }

    /// Runs a statement of the caller's own on the store.
    pub fn query(&self, statement: &str, parameters: &[Cell], write: bool) -> Result<Answer> {
        self.check_open()?;
        self.store.query(statement, parameters, write)
    }

    /// Whether the store answers, and whether enough RAM is free.
    pub fn health(&self) -> Result<Health> {
        self.check_open()?;
        let target = self.active().profile.free_memory_target;
        let memory_ok = self.ram().is_none_or(|ram| ram.shortage(target) == 0);
        Ok(Health {
            store_keys: self.store.size(self.clock.now()).map(|size| size.entries),
            memory_keys: self.memory.len(),
            memory_ok,
        })
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

    /// Looks for damage in both tiers; one line for each finding. `fix`: see [`Store::check`].
    ///
    /// [`Store::check`]: crate::store::Store::check
    pub fn check(&self, fix: bool) -> Result<Vec<String>> {
        self.check_open()?;
        let mut findings = self.store.check(fix)?;
        findings.extend(self.memory.validate().err());
        Ok(findings)
    }

    /// Gives the store's free room back.
    pub fn vacuum(&self) -> Result<()> {
        self.check_open()?;
        self.flush_logs()?;
        self.store.vacuum()
    }

    /// Copies the store, as it is at one moment, to a new file.
    pub fn backup(&self, path: &Path) -> Result<()> {
        self.check_open()?;
        self.flush_logs()?;
        self.store.backup(path)
    }
}
