//! The access log and the eviction log: what is pending, and what the store has.

use std::sync::Arc;

use super::{Cache, MAX_PENDING_EVICTIONS, add};
use crate::entry::{AccessRecord, AccessRow, EvictionReason, EvictionRecord, EvictionRow, Listing};
use crate::error::Result;
use crate::store::Which;

impl<V> Cache<V> {
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
        let profile = Arc::clone(&self.active().name);
        let written = self.store.append_logs(&accesses, &profile, &evictions);
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

    /// Before the logs are read: what cannot be written now - the disk is full - is missing from
    /// the answer, no more.
    fn flush_for_reader(&self) -> Result<()> {
        self.check_open()?;
        if self.flush_logs().is_err() {
            self.count_error();
        }
        Ok(())
    }

    pub(super) fn log_eviction(&self, key: &str, reason: EvictionReason) {
        add(&self.counters.evictions[reason as usize], 1);
        if let Some((hits, last)) = self.memory.take_hits(key) {
            self.hot.record(key, hits, last);
        }
        let record = EvictionRecord {
            key: String::from(key),
            evicted_at: self.clock.coarse(),
            reason: reason.as_str().into(),
            access_count: self.hot.total(key),
            profile: Arc::clone(&self.active().name),
        };
        let mut pending = self.evictions.lock();
        if pending.len() == MAX_PENDING_EVICTIONS {
            pending.pop_front();
        }
        pending.push_back(record);
    }

    /// Hits of this process, hottest first.
    pub fn memory_stats(&self, limit: Option<usize>) -> Result<Vec<(String, u64)>> {
        self.check_open()?;
        Ok(self.hits(limit))
    }

    /// As [`Cache::memory_stats`], also of a cache that is closed.
    pub fn hits(&self, limit: Option<usize>) -> Vec<(String, u64)> {
        self.memory
            .harvest(|key, hits, last| self.hot.record(key, hits, last));
        self.hot.hottest(limit)
    }

    /// Hits of one key in this process.
    pub fn hits_of(&self, key: &str) -> u64 {
        if let Some((hits, last)) = self.memory.take_hits(key) {
            self.hot.record(key, hits, last);
        }
        self.hot.total(key)
    }

    /// Forgets the hits of one key in this process; the store keeps those of all processes.
    pub fn forget_hits_of(&self, key: &str) {
        if let Some((hits, last)) = self.memory.take_hits(key) {
            self.hot.record(key, hits, last);
        }
        self.hot.forget(key);
    }

    /// Hits of all processes ever, hottest first.
    pub fn accesses(&self, which: Which<'_>, limit: Option<usize>) -> Result<Vec<AccessRow>> {
        self.flush_for_reader()?;
        let Listing { rows, damaged } = self.store.accesses(which, limit)?;
        self.report_all(damaged);
        Ok(rows)
    }

    /// Deletes from the access log of the store, hits that wait for a flush included.
    pub fn delete_accesses(&self, which: Which<'_>) -> Result<()> {
        self.flush_for_reader()?;
        self.store.delete_accesses(which)
    }

    /// The eviction log, newest first.
    pub fn evictions(&self, limit: Option<usize>) -> Result<Vec<EvictionRow>> {
        self.flush_for_reader()?;
        let Listing { rows, damaged } = self.store.evictions(limit)?;
        self.report_all(damaged);
        Ok(rows)
    }

    /// How many lines the eviction log has.
    pub fn count_evictions(&self) -> Result<u64> {
        self.flush_for_reader()?;
        self.store.count_evictions()
    }

    /// Empties the eviction log.
    pub fn delete_evictions(&self) -> Result<()> {
        self.flush_for_reader()?;
        self.store.delete_evictions()
    }

    /// Adds to the logs of the store at once what a caller saw.
    pub fn append_logs(
        &self,
        accesses: &[AccessRecord],
        profile: &str,
        evictions: &[EvictionRecord],
    ) -> Result<()> {
        self.check_open()?;
        self.store.append_logs(accesses, profile, evictions)
    }
}
