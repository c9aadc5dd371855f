//! Proves for a nanosecond or two that nobody changed a key since it was read.
//!
//! The *gate* is one word that every commit to the store changes, whoever makes it. An entry in
//! memory carries the gate as it stood *before* its row was read; while the gate stands there, the
//! entry is what the store holds.
//!
//! Commits of this process need not cost more than the keys they touched. A writer *settles* each
//! of its commits: it counts up the slots of its keys, and then names, in `cleared`, the gate that
//! this commit left behind. Where the gate is the cleared one, entries whose slot (and epoch)
//! did not move are still good. The table can only clear a commit as harmless, never vouch for
//! freshness by itself: after a commit by a stranger the gate differs from `cleared`, and every
//! entry is read again until the next settled commit starts a new epoch.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use xxhash_rust::xxh3::xxh3_64;

/// Slots of the table. A key that shares its slot with a written key is read again for nothing:
/// with 10,000 keys in memory that happens to 0.15 entries per key written.
const SLOTS: usize = 65_536;

/// What a gate says that cannot be read now: nothing is fresh then. No readable gate has this
/// value (a header checksum of all ones is one chance in 2^64).
pub const NEVER: u64 = u64::MAX;

/// A word that changes with every commit, before the commit returns to whoever made it.
pub trait Gate: Send + Sync {
    /// The word as it is now. `acquire`: what was committed before it is seen after it.
    fn word(&self) -> u64;
}

/// Where the gate is.
enum Source {
    /// A word of our own, for a store that nobody else can reach.
    Private(AtomicU64),
    Shared(Box<dyn Gate>),
}

/// What an entry in memory remembers of the store, taken before its row was read.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    gate: u64,
    epoch: u64,
    tag: u64,
    slot: usize,
}

/// Above this many keys a commit starts a new epoch: counting up each slot would cost more than
/// reading the entries again.
const MAX_TOUCHED: usize = 1_000;

/// The keys that a transaction changes, as hashes.
#[derive(Debug, Default, Clone)]
pub struct Touched {
    hashes: Vec<u64>,
    all: bool,
    spares: bool,
}

impl Touched {
    /// One key.
    pub fn key(key: &str) -> Self {
        Self {
            hashes: vec![hash_of(key)],
            ..Self::default()
        }
    }

    /// Adds a key.
    pub fn add(&mut self, key: &str) {
        if self.hashes.len() < MAX_TOUCHED {
            self.hashes.push(hash_of(key));
        } else {
            self.all = true;
        }
    }

    /// Every key, or keys that are not known.
    pub fn add_all(&mut self) {
        self.all = true;
    }

    /// Computations under way stay valid: it is a sweep, or the result of one of them.
    pub fn spare_computations(&mut self) {
        self.spares = true;
    }

    /// Whether computations under way stay valid.
    pub fn spares_computations(&self) -> bool {
        self.spares
    }

    /// The hashes of the keys; `None`: of every key.
    pub fn hashes(&self) -> Option<&[u64]> {
        (!self.all).then_some(&self.hashes)
    }
}

/// What a settled commit left behind; stamps for its own entries are made from it.
#[derive(Debug, Clone, Copy)]
pub struct Commit {
    gate: u64,
    epoch: u64,
}

/// The gate of one store and the table that clears this process's own commits.
pub struct Freshness {
    source: Source,
    cleared: AtomicU64,
    epoch: AtomicU64,
    slots: Box<[AtomicU64]>,
}

impl std::fmt::Debug for Freshness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Freshness").finish_non_exhaustive()
    }
}

/// The hash by which changes of a key are known.
pub fn hash_of(key: &str) -> u64 {
    xxh3_64(key.as_bytes())
}

fn slot_of(hash: u64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "SLOTS is a power of two below 2^32"
    )]
    let slot = (hash as usize) & (SLOTS - 1);
    slot
}

impl Freshness {
    /// Freshness for a store that other connections can change.
    pub fn shared(gate: Box<dyn Gate>) -> Self {
        Self::new(Source::Shared(gate), NEVER)
    }

    /// Freshness for a store that only this client can change.
    pub fn private() -> Self {
        Self::new(Source::Private(AtomicU64::new(0)), 0)
    }

    fn new(source: Source, cleared: u64) -> Self {
        let slots = std::iter::repeat_with(|| AtomicU64::new(0))
            .take(SLOTS)
            .collect();
        Self {
            source,
            cleared: AtomicU64::new(cleared),
            epoch: AtomicU64::new(0),
            slots,
        }
    }

    /// The gate as it is now.
    #[inline]
    pub fn gate(&self) -> u64 {
        match &self.source {
            Source::Private(word) => word.load(Ordering::Acquire),
            Source::Shared(gate) => gate.word(),
        }
    }

    /// A stamp for an entry that is about to be read. It must be taken before the read begins.
    pub fn before_read(&self, key: &str) -> Stamp {
        let gate = self.gate();
        let epoch = self.epoch.load(Ordering::Acquire);
        let slot = slot_of(hash_of(key));
        let tag = self.slots[slot].load(Ordering::Acquire);
        fence(Ordering::SeqCst);
        Stamp {
            gate,
            epoch,
            tag,
            slot,
        }
    }

    /// A stamp for an entry that this commit wrote; `None` when something else was committed
    /// since, so that nobody can say whether the entry is still the newest.
    pub fn after_write(&self, commit: Commit, key: &str) -> Option<Stamp> {
        let slot = slot_of(hash_of(key));
        let tag = self.slots[slot].load(Ordering::Acquire);
        let unmoved = commit.gate != NEVER && self.gate() == commit.gate;
        unmoved.then_some(Stamp {
            gate: commit.gate,
            epoch: commit.epoch,
            tag,
            slot,
        })
    }

    /// Whether the entry that carries `stamp` is what the store holds at a moment after `gate`
    /// was read. Renews the stamp, so the caller must hold the lock of that very entry.
    #[inline]
    pub fn is_fresh(&self, gate: u64, stamp: &mut Stamp) -> bool {
        if stamp.gate == gate {
            return gate != NEVER;
        }
        let cleared = self.cleared.load(Ordering::Acquire) == gate
            && self.slots[stamp.slot].load(Ordering::Acquire) == stamp.tag
            && self.epoch.load(Ordering::Acquire) == stamp.epoch;
        if cleared {
            stamp.gate = gate;
        }
        cleared
    }

    /// Records a commit of ours. `before` is the gate inside the transaction, when nobody else
    /// could commit; `after` the one that this very commit left. The caller holds the lock of the
    /// store's only writer of this process.
    pub fn settle(&self, before: u64, after: u64, touched: &Touched) -> Commit {
        let strangers = before != self.cleared.load(Ordering::Acquire);
        for hash in &touched.hashes {
            self.slots[slot_of(*hash)].fetch_add(1, Ordering::Release);
        }
        if strangers || touched.all {
            self.epoch.fetch_add(1, Ordering::Release);
        }
        let epoch = self.epoch.load(Ordering::Acquire);
        // Last: who sees this gate cleared sees every count above.
        self.cleared.store(after, Ordering::Release);
        Commit { gate: after, epoch }
    }

    /// Records a commit of a private store: moves the gate, as a commit to a file does by itself,
    /// and settles it. The caller holds the lock of the store's only connection.
    pub fn settle_private(&self, touched: &Touched) -> Commit {
        let Source::Private(word) = &self.source else {
            return Self::unsettled();
        };
        // Before the slots: who sees a slot counted up sees that the gate has moved.
        let before = word.fetch_add(1, Ordering::AcqRel);
        self.settle(before, before.wrapping_add(1), touched)
    }

    /// Clears the gate as it stands at the beginning: no entry is older than it.
    pub fn start(&self, gate: u64) {
        self.cleared.store(gate, Ordering::Release);
    }

    /// For a commit whose own gate could not be told from a stranger's: nothing is cleared, and
    /// entries are read again until the next settled commit.
    pub fn unsettled() -> Commit {
        Commit {
            gate: NEVER,
            epoch: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[derive(Default)]
    struct Word(Arc<AtomicU64>);

    impl Gate for Word {
        fn word(&self) -> u64 {
            self.0.load(Ordering::Acquire)
        }
    }

    fn shared() -> (Freshness, Arc<AtomicU64>) {
        let word = Arc::new(AtomicU64::new(1));
        (Freshness::shared(Box::new(Word(Arc::clone(&word)))), word)
    }

    #[test]
    fn an_entry_is_fresh_until_the_gate_moves() {
        let (freshness, word) = shared();
        let mut stamp = freshness.before_read("a");
        assert!(freshness.is_fresh(freshness.gate(), &mut stamp));
        word.store(2, Ordering::Release);
        assert!(!freshness.is_fresh(freshness.gate(), &mut stamp));
    }

    #[test]
    fn a_settled_commit_spares_the_keys_it_did_not_touch() {
        let (freshness, word) = shared();
        freshness.settle(1, 1, &Touched::default());
        let (mut a, mut b) = (freshness.before_read("a"), freshness.before_read("b"));
        word.store(2, Ordering::Release);
        let commit = freshness.settle(1, 2, &Touched::key("a"));
        assert!(!freshness.is_fresh(2, &mut a));
        assert!(freshness.is_fresh(2, &mut b));
        assert!(freshness.after_write(commit, "a").is_some());
        word.store(3, Ordering::Release);
        assert!(
            freshness.after_write(commit, "a").is_none(),
            "a stranger committed since"
        );
    }

    #[test]
    fn a_strangers_commit_is_never_cleared() {
        let (freshness, word) = shared();
        freshness.settle(1, 1, &Touched::default());
        let mut stamp = freshness.before_read("a");
        word.store(2, Ordering::Release);
        assert!(!freshness.is_fresh(2, &mut stamp));
        word.store(3, Ordering::Release);
        freshness.settle(2, 3, &Touched::key("b"));
        assert!(
            !freshness.is_fresh(3, &mut stamp),
            "the stranger may have written the key"
        );
    }

    #[test]
    fn the_first_commit_spares_what_was_read_since_the_start() {
        let (freshness, word) = shared();
        freshness.start(1);
        let mut stamp = freshness.before_read("a");
        word.store(2, Ordering::Release);
        freshness.settle(1, 2, &Touched::key("b"));
        assert!(freshness.is_fresh(2, &mut stamp));
    }

    #[test]
    fn a_commit_of_unknown_keys_clears_nothing() {
        let freshness = Freshness::private();
        freshness.settle_private(&Touched::default());
        let mut stamp = freshness.before_read("a");
        let mut all = Touched::default();
        all.add_all();
        freshness.settle_private(&all);
        assert!(!freshness.is_fresh(freshness.gate(), &mut stamp));
    }

    #[test]
    fn nothing_is_fresh_while_the_gate_cannot_be_read() {
        let (freshness, word) = shared();
        word.store(NEVER, Ordering::Release);
        let mut stamp = freshness.before_read("a");
        assert!(!freshness.is_fresh(freshness.gate(), &mut stamp));
        assert!(freshness.after_write(Freshness::unsettled(), "a").is_none());
    }

    #[test]
    fn a_private_store_moves_its_gate_with_every_commit() {
        let freshness = Freshness::private();
        let (mut a, mut b) = (freshness.before_read("a"), freshness.before_read("b"));
        freshness.settle_private(&Touched::key("a"));
        assert!(!freshness.is_fresh(freshness.gate(), &mut a));
        assert!(freshness.is_fresh(freshness.gate(), &mut b));
    }
}
