//! The memory tier: live values, a limit on their number, and a policy for who leaves.
//!
//! Generic over the value, so that it is built and tested without Python. Its locks are leaf
//! locks: no code of the value's type runs under them but the `share` closure of [`MemoryTier::get`],
//! which must only copy a reference.

mod policy;
mod shard;

use foldhash::quality::RandomState;
use parking_lot::Mutex;
use std::hash::BuildHasher;

pub use policy::{Policy, S3Fifo};
use shard::Shard;

use crate::entry::{EntryMeta, EvictionReason};
use crate::freshness::{Freshness, Stamp};
use crate::time::{Clock, Timestamp};

/// A shard of fewer entries than this would evict what the others have room for.
const MIN_SHARD_CAPACITY: usize = 64;

/// A value in memory with what is needed to judge it.
#[derive(Debug, Clone)]
pub struct Resident<V> {
    /// The live value.
    pub value: V,
    /// Deadline, version, cost.
    pub meta: EntryMeta,
    /// Where the store stood before the value was read from it.
    pub stamp: Stamp,
    /// Its size in bytes, as encoded, with its key.
    pub weight: usize,
}

/// What a reader asks for.
#[derive(Debug, Clone, Copy)]
pub struct Want<'a> {
    /// A coarse reading of the clock.
    pub now: Timestamp,
    /// The clock, for a closer look near a deadline.
    pub clock: &'a Clock,
    /// What proves that an entry is still what the store holds.
    pub freshness: &'a Freshness,
    /// Only this version, or any.
    pub version: Option<i64>,
    /// Whether the hit counts.
    pub promote: bool,
}

/// The answer to a reader.
#[derive(Debug)]
pub enum Probe<R, V> {
    /// The value.
    Hit(R),
    /// A live entry of another version.
    OtherVersion,
    /// Nothing that may be returned; ask the store.
    Miss,
    /// An entry was past its deadline and left. Drop it outside all locks; ask the store.
    Left(Removed<V>),
}

/// A value that left the tier, to be dropped outside all locks.
#[derive(Debug)]
pub struct Removed<V> {
    /// Its key.
    pub key: Box<str>,
    /// The value.
    pub value: V,
    /// Hits that no harvest has taken yet.
    pub hits: u32,
    /// The latest of them.
    pub last_hit: Timestamp,
    /// Why it left, where that is for the eviction log.
    pub reason: Option<EvictionReason>,
}

impl<V> Removed<V> {
    fn replaced(key: &str, value: V, entry: Entry) -> Self {
        Self {
            key: key.into(),
            value,
            hits: entry.hit.into(),
            last_hit: entry.now,
            reason: None,
        }
    }
}

/// How an entry comes in.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// When.
    pub now: Timestamp,
    /// By a read, which counts as its first hit.
    pub hit: bool,
}

/// What is known of an entry's use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Its key.
    pub key: Box<str>,
    /// Its latest hit or, before the first, the moment it came in.
    pub last_used: Timestamp,
    /// Its size in bytes, as encoded, with its key.
    pub weight: usize,
}

/// Counters of hits, kept under the lock that a hit holds anyway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Meter {
    /// Hits.
    pub hits: u64,
    /// Microseconds of computing that they saved.
    pub saved_us: i64,
}

/// The sharded tier.
pub struct MemoryTier<V> {
    shards: Box<[Mutex<Shard<V>>]>,
    hasher: RandomState,
}

impl<V> std::fmt::Debug for MemoryTier<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryTier")
            .field("shards", &self.shards.len())
            .finish_non_exhaustive()
    }
}

impl<V> MemoryTier<V> {
    /// A tier for `capacity` entries (`None`: no limit), over at most `parallelism` locks.
    pub fn new(capacity: Option<usize>, parallelism: usize) -> Self {
        let useful = capacity.map_or(parallelism, |capacity| capacity / MIN_SHARD_CAPACITY);
        let count = useful.min(parallelism).max(1);
        let shards = (0..count)
            .map(|index| share(capacity, index, count))
            .map(|share| Mutex::new(Shard::new(share, S3Fifo::new(share))))
            .collect();
        Self {
            shards,
            hasher: RandomState::default(),
        }
    }

    /// The hash of a key: seeded anew in each process, so that crafted keys cannot collide.
    pub fn hash(&self, key: &str) -> u64 {
        self.hasher.hash_one(key)
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard<V>> {
        // The low bits choose the bucket inside a shard, the high ones its tag.
        #[expect(clippy::cast_possible_truncation, reason = "16 bits")]
        let index = (hash >> 32) as u16 as usize;
        &self.shards[index % self.shards.len()]
    }

    /// Looks a key up. `share` runs under the lock: it must only copy a reference.
    #[inline]
    pub fn get<R>(
        &self,
        hash: u64,
        key: &str,
        want: &Want<'_>,
        share: impl FnOnce(&V, &EntryMeta) -> R,
    ) -> Probe<R, V> {
        self.shard(hash).lock().get(hash, key, want, share)
    }

    /// Whether a live and fresh entry is here; counts nothing.
    pub fn contains(&self, key: &str, want: &Want<'_>) -> bool {
        let hash = self.hash(key);
        self.shard(hash).lock().contains(hash, key, want)
    }

    /// Makes room for `capacity` entries, or for any number of them. Returns what left.
    #[must_use = "drop what left outside all locks"]
    pub fn resize(&self, capacity: Option<usize>) -> Vec<Removed<V>> {
        let mut left = Vec::new();
        for (index, shard) in self.shards.iter().enumerate() {
            let share = share(capacity, index, self.shards.len());
            shard.lock().resize(share, &mut left);
        }
        left
    }

    /// What is known of the use of each entry, in no order.
    pub fn usage(&self) -> Vec<Usage> {
        let mut all = Vec::new();
        for shard in &self.shards {
            shard.lock().usage(&mut all);
        }
        all
    }

    /// Puts an entry in. Returns what left: the predecessor, or others for lack of room.
    #[must_use = "drop what left outside all locks"]
    pub fn insert(
        &self,
        hash: u64,
        key: &str,
        resident: Resident<V>,
        entry: Entry,
    ) -> Vec<Removed<V>> {
        let mut left = Vec::new();
        self.shard(hash)
            .lock()
            .insert(hash, key, resident, entry, &mut left);
        left
    }

    /// Removes one key.
    #[must_use = "drop what left outside all locks"]
    pub fn remove(&self, key: &str) -> Option<Removed<V>> {
        let hash = self.hash(key);
        self.shard(hash).lock().remove(hash, key)
    }

    /// Removes everything past its deadline.
    #[must_use = "drop what left outside all locks"]
    pub fn remove_expired(&self, now: Timestamp) -> Vec<Removed<V>> {
        let mut left = Vec::new();
        for shard in &self.shards {
            shard.lock().remove_expired(now, &mut left);
        }
        left
    }

    /// Removes everything.
    #[must_use = "drop what left outside all locks"]
    pub fn remove_all(&self) -> Vec<Removed<V>> {
        let mut left = Vec::new();
        for shard in &self.shards {
            shard.lock().remove_all(&mut left);
        }
        left
    }

    /// Lets nothing enter any more. When it returns, no reader is inside the tier with anything
    /// it learned before the call.
    pub fn close(&self) {
        for shard in &self.shards {
            shard.lock().close();
        }
    }

    /// Calls `visit` with each live entry, a shard's lock held.
    pub fn for_each(&self, now: Timestamp, mut visit: impl FnMut(&str, &V)) {
        for shard in &self.shards {
            shard.lock().for_each(now, &mut visit);
        }
    }

    /// As [`MemoryTier::for_each`] with every value, but shards whose lock is taken are left out:
    /// for the garbage collector, which must not wait.
    pub fn try_for_each(&self, mut visit: impl FnMut(&V)) {
        for shard in &self.shards {
            if let Some(shard) = shard.try_lock() {
                shard.for_each(Timestamp(i64::MIN), |_, value| visit(value));
            }
        }
    }

    /// Hands over the hits counted since the last call: key, hits, time of the latest.
    pub fn harvest(&self, mut take: impl FnMut(&str, u64, Timestamp)) {
        for shard in &self.shards {
            let harvest = shard.lock().harvest();
            for counted in harvest {
                take(&counted.key, u64::from(counted.hits), counted.last_hit);
            }
        }
    }

    /// As [`MemoryTier::harvest`] for one key: its hits, and the time of the latest.
    pub fn take_hits(&self, key: &str) -> Option<(u64, Timestamp)> {
        let hash = self.hash(key);
        let (hits, last) = self.shard(hash).lock().take_hits(hash, key)?;
        Some((hits.into(), last))
    }

    /// Entries, live or not yet swept.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all entries, as encoded, with their keys.
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().bytes()).sum()
    }

    /// The counters of all shards.
    pub fn meter(&self) -> Meter {
        let mut sum = Meter::default();
        for shard in &self.shards {
            let meter = shard.lock().meter;
            sum.hits += meter.hits;
            sum.saved_us += meter.saved_us;
        }
        sum
    }

    /// Recounts everything from scratch and says what does not add up.
    pub fn validate(&self) -> Result<(), String> {
        self.shards
            .iter()
            .try_for_each(|shard| shard.lock().validate())
    }
}

/// A shard's part of a capacity: the parts add up to the whole, to the entry.
fn share(capacity: Option<usize>, index: usize, count: usize) -> Option<usize> {
    capacity.map(|capacity| capacity / count + usize::from(index < capacity % count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::ManualClock;

    struct Fixture {
        tier: MemoryTier<u64>,
        freshness: Freshness,
        clock: Clock,
        hands: ManualClock,
    }

    impl Fixture {
        fn new(capacity: Option<usize>, parallelism: usize) -> Self {
            let hands = ManualClock::new(Timestamp(1_000_000));
            Self {
                tier: MemoryTier::new(capacity, parallelism),
                freshness: Freshness::private(),
                clock: Clock::Manual(hands.clone()),
                hands,
            }
        }

        fn put(&self, key: &str, value: u64, expire_at: Timestamp) -> Vec<Removed<u64>> {
            let meta = EntryMeta {
                expire_at,
                version: 1,
                compute_us: 5,
            };
            let stamp = self.freshness.before_read(key);
            let resident = Resident {
                value,
                meta,
                stamp,
                weight: 10,
            };
            let now = self.clock.now();
            let entry = Entry { now, hit: false };
            self.tier.insert(self.tier.hash(key), key, resident, entry)
        }

        fn get(&self, key: &str, version: Option<i64>) -> Option<u64> {
            let (clock, freshness) = (&self.clock, &self.freshness);
            let want = Want {
                now: clock.coarse(),
                clock,
                freshness,
                version,
                promote: true,
            };
            match self
                .tier
                .get(self.tier.hash(key), key, &want, |value, _| *value)
            {
                Probe::Hit(value) => Some(value),
                _ => None,
            }
        }
    }

    #[test]
    fn an_entry_is_returned_until_its_deadline_and_not_at_it() {
        let it = Fixture::new(None, 1);
        assert!(it.put("a", 1, Timestamp(1_000_010)).is_empty());
        assert_eq!(it.get("a", None), Some(1));
        it.hands.advance(9);
        assert_eq!(it.get("a", None), Some(1));
        it.hands.advance(1);
        assert_eq!(it.get("a", None), None);
        assert!(it.tier.is_empty(), "an expired entry leaves when it is met");
        it.tier.validate().unwrap();
    }

    #[test]
    fn another_version_is_not_returned() {
        let it = Fixture::new(None, 1);
        let _ = it.put("a", 1, Timestamp::NEVER);
        assert_eq!(it.get("a", Some(2)), None);
        assert_eq!(it.get("a", Some(1)), Some(1));
    }

    #[test]
    fn the_cap_holds_to_the_entry_over_any_number_of_shards() {
        for parallelism in [1, 3, 16] {
            let it = Fixture::new(Some(500), parallelism);
            for number in 0..5_000 {
                let _ = it.put(&number.to_string(), number, Timestamp::NEVER);
            }
            assert!(it.tier.len() <= 500);
            assert_eq!(it.tier.bytes(), 10 * it.tier.len());
            it.tier.validate().unwrap();
        }
        let it = Fixture::new(Some(0), 4);
        assert_eq!(
            it.put("a", 1, Timestamp::NEVER).len(),
            1,
            "a cap of 0 keeps nothing"
        );
        assert!(it.tier.is_empty());
    }

    #[test]
    fn a_smaller_cap_evicts_at_once_and_a_larger_one_makes_room() {
        for parallelism in [1, 4] {
            let it = Fixture::new(Some(500), parallelism);
            let fill = || {
                for number in 0..1_000 {
                    let _ = it.put(&number.to_string(), number, Timestamp::NEVER);
                }
                it.tier.validate().unwrap();
                it.tier.len()
            };
            fill();
            let left = it.tier.resize(Some(20));
            assert!(it.tier.len() <= 20);
            let reason = Some(EvictionReason::Capacity);
            assert!(left.iter().all(|removed| removed.reason == reason));
            it.tier.validate().unwrap();
            assert!(fill() <= 20);
            assert!(it.tier.resize(None).is_empty());
            assert_eq!(fill(), 1_000);
            assert!(!it.tier.resize(Some(0)).is_empty());
            assert_eq!(fill(), 0);
        }
    }

    #[test]
    fn what_leaves_is_handed_back_with_its_hits() {
        let it = Fixture::new(Some(1), 1);
        let _ = it.put("a", 1, Timestamp::NEVER);
        it.get("a", None);
        it.get("a", None);
        let left = it.put("b", 2, Timestamp::NEVER);
        assert_eq!(left.len(), 1);
        assert_eq!((&*left[0].key, left[0].hits), ("a", 2));
        assert_eq!(left[0].reason, Some(EvictionReason::Capacity));
        let mut harvest = Vec::new();
        it.tier
            .harvest(|key, hits, _| harvest.push((key.to_owned(), hits)));
        assert!(
            harvest.is_empty(),
            "the evicted key took its hits along: {harvest:?}"
        );
    }

    #[test]
    fn hits_are_harvested_once() {
        let it = Fixture::new(None, 4);
        let _ = it.put("a", 1, Timestamp::NEVER);
        it.get("a", None);
        let count = || {
            let mut total = 0;
            it.tier.harvest(|_, hits, _| total += hits);
            total
        };
        assert_eq!(count(), 1);
        assert_eq!(count(), 0);
        it.get("a", None);
        assert_eq!(count(), 1);
        assert_eq!(
            it.tier.meter(),
            Meter {
                hits: 2,
                saved_us: 10
            }
        );
    }

    #[test]
    fn a_stale_entry_is_a_miss() {
        let it = Fixture::new(None, 1);
        let _ = it.put("a", 1, Timestamp::NEVER);
        it.freshness
            .settle_private(&crate::freshness::Touched::key("a"));
        assert_eq!(it.get("a", None), None);
    }
}
