//! Taking away: by key, by tag, by time, all.
//!
//! The store first. From its commit on no lookup trusts what memory still holds of the key, so
//! that removing it there is only a matter of room.

use std::collections::HashSet;

use super::{Cache, add};
use crate::entry::{EvictionReason, Expired, Listing};
use crate::error::Result;
use crate::store::glob::Glob;

/// Entries that a sweep removes in one transaction, so that writers need not wait long.
const SWEEP_CHUNK: usize = 1_000;

impl<V> Cache<V> {
    /// Deletes keys from the store; says of each whether a live entry was there.
    pub fn delete(&self, keys: &[&str]) -> Result<Vec<bool>> {
        self.check_open()?;
        let existed = self.store.delete(keys, self.clock.now())?;
        for (key, _) in keys.iter().zip(&existed).filter(|(_, existed)| **existed) {
            self.log_eviction(key, EvictionReason::User);
        }
        Ok(existed)
    }

    /// Deletes everything from the store.
    pub fn clear(&self) -> Result<()> {
        self.check_open()?;
        self.store.clear()?;
        Ok(())
    }

    /// Deletes by tag from the store; returns the keys.
    pub fn delete_by_tags(&self, tags: &[String], exact: bool) -> Result<Vec<String>> {
        self.check_open()?;
        let removed = self.store.delete_by_tags(tags, exact, self.clock.now())?;
        for key in &removed {
            self.log_eviction(key, EvictionReason::Tag);
        }
        Ok(removed)
    }

    /// Deletes entries whose keys match a pattern from the store; returns the keys of those that were
    /// live.
    pub fn delete_matching(&self, pattern: &Glob) -> Result<Vec<String>> {
        self.check_open()?;
        let removed = self.store.delete_matching(pattern, self.clock.now())?;
        for key in &removed {
            self.log_eviction(key, EvictionReason::User);
        }
        Ok(removed)
    }

    /// Deletes what was written as a decorated function's from the store; returns the keys.
    pub fn delete_by_function(&self, function: &str) -> Result<Vec<String>> {
        self.check_open()?;
        let removed = self.store.delete_by_function(function, self.clock.now())?;
        for key in &removed {
            self.log_eviction(key, EvictionReason::User);
        }
        Ok(removed)
    }

    /// Deletes what was written under a profile from the store; returns the keys.
    pub fn delete_by_profile(&self, profile: &str) -> Result<Vec<String>> {
        self.check_open()?;
        let removed = self.store.delete_by_profile(profile, self.clock.now())?;
        for key in &removed {
            self.log_eviction(key, EvictionReason::Profile);
        }
        Ok(removed)
    }

    /// Deletes what is past its deadline from the store.
    pub fn delete_expired(&self) -> Result<Vec<Expired>> {
        self.check_open()?;
        let now = self.clock.now();
        let mut all = Vec::new();
        loop {
            let Listing { rows, damaged } = self.store.delete_expired(now, SWEEP_CHUNK)?;
            let last = rows.len() + damaged.len() < SWEEP_CHUNK;
            self.report_all(damaged);
            // Many of these can take longer than a lease lives.
            self.keep_leases()?;
            for entry in &rows {
                self.log_eviction(&entry.key, EvictionReason::Time);
            }
            all.extend(rows);
            if last {
                add(&self.counters.expired, all.len() as u64);
                return Ok(all);
            }
        }
    }

    /// Drops keys that were deleted from the store.
    #[must_use = "drop what left where a destructor may run"]
    pub fn forget<'k>(&self, keys: impl IntoIterator<Item = &'k str>) -> Vec<V> {
        self.book(keys.into_iter().filter_map(|key| self.memory.remove(key)))
    }

    /// Drops what is past its deadline; `swept`: what the store has logged already.
    #[must_use = "drop what left where a destructor may run"]
    pub fn forget_expired(&self, swept: &[Expired]) -> Vec<V> {
        let swept: HashSet<&str> = swept.iter().map(|entry| entry.key.as_str()).collect();
        let removed = self.memory.remove_expired(self.clock.now());
        self.book(removed.into_iter().map(|mut entry| {
            if swept.contains(&*entry.key) {
                entry.reason = None;
            }
            entry
        }))
    }

    /// Drops one key from memory; the store keeps it.
    #[must_use = "drop what left where a destructor may run"]
    pub fn evict(&self, key: &str) -> Vec<V> {
        self.book(self.memory.remove(key).map(|mut entry| {
            entry.reason = Some(EvictionReason::ManualKey);
            entry
        }))
    }

    /// Drops everything from memory; the store keeps it.
    #[must_use = "drop what left where a destructor may run"]
    pub fn evict_all(&self) -> Vec<V> {
        self.book(self.memory.remove_all().into_iter().map(|mut entry| {
            entry.reason = Some(EvictionReason::ManualAll);
            entry
        }))
    }

    /// Drops everything from memory without a word in the log: for a garbage collector that takes
    /// the cache apart.
    #[must_use = "drop what left where a destructor may run"]
    pub fn abandon(&self) -> Vec<V> {
        self.book(self.memory.remove_all())
    }

    /// One background sweep of both tiers.
    pub fn sweep(&self) -> Result<()> {
        let swept = self.delete_expired()?;
        self.dispose(self.forget_expired(&swept));
        Ok(())
    }
}
