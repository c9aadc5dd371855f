//! One lock's worth of the memory tier: single-threaded state, no locks inside.

use hashbrown::HashTable;

use super::policy::{Policy, S3Fifo};
use super::{Entry, Meter, Probe, Removed, Resident, Usage, Want};
use crate::entry::{EntryMeta, EvictionReason};
use crate::time::Timestamp;

struct Slot<V> {
    hash: u64,
    key: Box<str>,
    resident: Resident<V>,
    hits: u32,
    /// The latest hit or, before the first, the moment it came in.
    last_used: Timestamp,
}

/// Entries, the index that finds them, and the policy that chooses who leaves.
///
/// Everything that leaves is handed to the caller, who drops it after unlocking: dropping a value
/// may run arbitrary Python.
pub(super) struct Shard<V, P = S3Fifo> {
    slots: Vec<Option<Slot<V>>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    policy: P,
    capacity: Option<usize>,
    /// Slots hit since the last harvest; a slot is listed when its first hit is counted.
    touched: Vec<u32>,
    pub(super) meter: Meter,
    bytes: usize,
    closed: bool,
}

/// Hits of one key that the shard had counted.
pub(super) struct Harvest {
    pub(super) key: Box<str>,
    pub(super) hits: u32,
    pub(super) last_hit: Timestamp,
}

impl<V, P: Policy> Shard<V, P> {
    pub(super) fn new(capacity: Option<usize>, policy: P) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            policy,
            capacity,
            touched: Vec::new(),
            meter: Meter::default(),
            bytes: 0,
            closed: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    #[inline]
    fn find(&self, hash: u64, key: &str) -> Option<u32> {
        let slots = &self.slots;
        self.index
            .find(hash, |id| is_key(slots, *id, hash, key))
            .copied()
    }

    /// The hot path: one probe, a check of deadline and freshness, two counters.
    #[inline]
    pub(super) fn get<R>(
        &mut self,
        hash: u64,
        key: &str,
        want: &Want<'_>,
        share: impl FnOnce(&V, &EntryMeta) -> R,
    ) -> Probe<R, V> {
        let Some(id) = self.find(hash, key) else {
            return Probe::Miss;
        };
        let Some(slot) = self.slots[id as usize].as_mut() else {
            return Probe::Miss;
        };
        let resident = &mut slot.resident;
        if want.clock.is_past(want.now, resident.meta.expire_at) {
            return self.take(id).map_or(Probe::Miss, Probe::Left);
        }
        // A stale entry stays: the read that follows replaces or removes it.
        if !want
            .freshness
            .is_fresh(want.freshness.gate(), &mut resident.stamp)
        {
            return Probe::Miss;
        }
        if want
            .version
            .is_some_and(|version| version != resident.meta.version)
        {
            return Probe::OtherVersion;
        }
        if want.promote {
            slot.hits += 1;
            slot.last_used = want.now;
            if slot.hits == 1 {
                self.touched.push(id);
            }
            self.policy.hit(id);
        }
        self.meter.hits += 1;
        self.meter.saved_us += resident.meta.compute_us;
        Probe::Hit(share(&resident.value, &resident.meta))
    }

    /// Whether a live and fresh entry is here, without counting a hit.
    pub(super) fn contains(&mut self, hash: u64, key: &str, want: &Want<'_>) -> bool {
        let Some(id) = self.find(hash, key) else {
            return false;
        };
        self.slots[id as usize].as_mut().is_some_and(|slot| {
            !want.clock.is_past(want.now, slot.resident.meta.expire_at)
                && want
                    .freshness
                    .is_fresh(want.freshness.gate(), &mut slot.resident.stamp)
        })
    }

    /// Puts an entry in, in the place of its predecessor; what had to leave is returned.
    pub(super) fn insert(
        &mut self,
        hash: u64,
        key: &str,
        resident: Resident<V>,
        entry: Entry,
        left: &mut Vec<Removed<V>>,
    ) {
        if self.closed || self.capacity == Some(0) {
            left.push(Removed::replaced(key, resident.value, entry));
            return;
        }
        self.bytes += resident.weight;
        if let Some(id) = self.find(hash, key)
            && let Some(slot) = self.slots[id as usize].as_mut()
        {
            let old = std::mem::replace(&mut slot.resident, resident);
            self.bytes -= old.weight;
            slot.last_used = entry.now;
            let now = entry.now;
            left.push(Removed::replaced(key, old.value, Entry { now, hit: false }));
            if entry.hit {
                slot.hits += 1;
                if slot.hits == 1 {
                    self.touched.push(id);
                }
                self.policy.hit(id);
            }
            return;
        }
        while self.capacity.is_some_and(|capacity| self.len() >= capacity) {
            let Some(removed) = self.evict(EvictionReason::Capacity) else {
                break;
            };
            left.push(removed);
        }
        self.push(hash, key, resident, entry);
    }

    fn push(&mut self, hash: u64, key: &str, resident: Resident<V>, entry: Entry) {
        let slot = Slot {
            hash,
            key: key.into(),
            resident,
            hits: entry.hit.into(),
            last_used: entry.now,
        };
        let id = if let Some(id) = self.free.pop() {
            self.slots[id as usize] = Some(slot);
            id
        } else {
            self.slots.push(Some(slot));
            // 2^32 slots would take more memory than a machine of today has.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        };
        if entry.hit {
            self.touched.push(id);
        }
        let slots = &self.slots;
        self.index.insert_unique(hash, id, |id| hash_of(slots, *id));
        self.policy.insert(id, hash);
    }

    /// The policy's choice leaves.
    pub(super) fn evict(&mut self, reason: EvictionReason) -> Option<Removed<V>> {
        let id = self.policy.evict()?;
        let mut removed = self.vacate(id)?;
        removed.reason = Some(reason);
        Some(removed)
    }

    pub(super) fn remove(&mut self, hash: u64, key: &str) -> Option<Removed<V>> {
        let id = self.find(hash, key)?;
        self.take(id)
    }

    fn take(&mut self, id: u32) -> Option<Removed<V>> {
        self.policy.remove(id);
        self.vacate(id)
    }

    /// Frees a slot that the policy has already forgotten.
    fn vacate(&mut self, id: u32) -> Option<Removed<V>> {
        let slot = self.slots[id as usize].take()?;
        if let Ok(entry) = self.index.find_entry(slot.hash, |other| *other == id) {
            entry.remove();
        }
        self.free.push(id);
        self.bytes -= slot.resident.weight;
        Some(Removed {
            key: slot.key,
            value: slot.resident.value,
            hits: slot.hits,
            last_hit: slot.last_used,
            reason: None,
        })
    }

    /// Removes everything that is past its deadline.
    pub(super) fn remove_expired(&mut self, now: Timestamp, left: &mut Vec<Removed<V>>) {
        let expired = |slot: &Option<Slot<V>>| {
            slot.as_ref()
                .is_some_and(|slot| slot.resident.meta.expire_at <= now)
        };
        for index in 0..self.slots.len() {
            if expired(&self.slots[index])
                && let Some(mut removed) = self.take(u32::try_from(index).unwrap_or(u32::MAX))
            {
                removed.reason = Some(EvictionReason::Time);
                left.push(removed);
            }
        }
    }

    pub(super) fn remove_all(&mut self, left: &mut Vec<Removed<V>>) {
        for index in 0..self.slots.len() {
            left.extend(self.take(u32::try_from(index).unwrap_or(u32::MAX)));
        }
    }

    /// There is room for so many entries from now on; those beyond it leave.
    pub(super) fn resize(&mut self, capacity: Option<usize>, left: &mut Vec<Removed<V>>) {
        self.capacity = capacity;
        self.policy.resize(capacity);
        while capacity.is_some_and(|capacity| self.len() > capacity) {
            let Some(removed) = self.evict(EvictionReason::Capacity) else {
                break;
            };
            left.push(removed);
        }
    }

    /// What is known of each entry's use.
    pub(super) fn usage(&self, all: &mut Vec<Usage>) {
        all.extend(self.slots.iter().flatten().map(|slot| Usage {
            key: slot.key.clone(),
            last_used: slot.last_used,
            weight: slot.resident.weight,
        }));
    }

    /// Nothing enters any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Calls `visit` with each entry that is not past its deadline.
    pub(super) fn for_each(&self, now: Timestamp, mut visit: impl FnMut(&str, &V)) {
        for slot in self.slots.iter().flatten() {
            if slot.resident.meta.expire_at > now {
                visit(&slot.key, &slot.resident.value);
            }
        }
    }

    /// Takes the hits counted since the last harvest.
    pub(super) fn harvest(&mut self) -> Vec<Harvest> {
        let touched = std::mem::take(&mut self.touched);
        let mut harvest = Vec::with_capacity(touched.len());
        for id in touched {
            // A slot that was vacated took its hits along, and may already be used again.
            if let Some(slot) = self.slots[id as usize].as_mut()
                && slot.hits > 0
            {
                harvest.push(Harvest {
                    key: slot.key.clone(),
                    hits: std::mem::take(&mut slot.hits),
                    last_hit: slot.last_used,
                });
            }
        }
        harvest
    }

    /// Takes the hits of one key counted since the last harvest.
    pub(super) fn take_hits(&mut self, hash: u64, key: &str) -> Option<(u32, Timestamp)> {
        let id = self.find(hash, key)?;
        let slot = self.slots[id as usize].as_mut()?;
        Some((std::mem::take(&mut slot.hits), slot.last_used))
    }

    /// Recounts everything from scratch.
    pub(super) fn validate(&self) -> Result<(), String> {
        let resident = self.slots.iter().flatten().count();
        if resident != self.index.len() || resident + self.free.len() != self.slots.len() {
            return Err(format!(
                "shard: {resident} resident, {} indexed, {} free of {}",
                self.index.len(),
                self.free.len(),
                self.slots.len()
            ));
        }
        let bytes: usize = self
            .slots
            .iter()
            .flatten()
            .map(|slot| slot.resident.weight)
            .sum();
        if bytes != self.bytes {
            return Err(format!(
                "shard: {bytes} bytes counted, {} recorded",
                self.bytes
            ));
        }
        for slot in self.slots.iter().flatten() {
            if self.find(slot.hash, &slot.key).is_none() {
                return Err(format!("shard: {:?} is not indexed", slot.key));
            }
        }
        self.policy.validate(resident)
    }
}

fn is_key<V>(slots: &[Option<Slot<V>>], id: u32, hash: u64, key: &str) -> bool {
    slots[id as usize]
        .as_ref()
        .is_some_and(|slot| slot.hash == hash && *slot.key == *key)
}

fn hash_of<V>(slots: &[Option<Slot<V>>], id: u32) -> u64 {
    slots[id as usize].as_ref().map_or(0, |slot| slot.hash)
}
