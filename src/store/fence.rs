//! Computations under way: a result is not stored if somebody has changed its key meanwhile.
//!
//! It was computed from what was there before that change. Only changes by this process are known.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Weak};
use std::thread::ThreadId;

use parking_lot::Mutex;

use crate::freshness::{Touched, hash_of};

/// Of each file that is open: all stores on one file share one.
static FENCES: LazyLock<Mutex<HashMap<PathBuf, Weak<Fence>>>> = LazyLock::new(Mutex::default);

/// What is computed: the entry that it is to become.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    /// Its key.
    pub key: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// The decorated function whose entry it is, where the key does not tell.
    pub function: Option<Arc<str>>,
}

#[derive(Debug)]
struct Running {
    subject: Subject,
    thread: ThreadId,
    changed: Arc<AtomicBool>,
}

/// The computations for one store.
#[derive(Debug, Default)]
pub struct Fence {
    /// By the hashes of their keys; of one key, in the order in which they began.
    running: Mutex<HashMap<u64, Vec<Running>>>,
}

impl Fence {
    /// That of a file; of a private store a new one.
    pub(super) fn of(path: Option<&Path>) -> Arc<Self> {
        let Some(path) = path else {
            return Arc::default();
        };
        let mut fences = FENCES.lock();
        if let Some(fence) = fences.get(path).and_then(Weak::upgrade) {
            return fence;
        }
        fences.retain(|_, fence| fence.strong_count() > 0);
        let fence = Arc::default();
        fences.insert(path.to_owned(), Arc::downgrade(&fence));
        fence
    }

    /// From now on, until the watch is dropped, changes are noted.
    pub fn watch(self: &Arc<Self>, subject: Subject) -> Watch {
        let (hash, changed) = (hash_of(&subject.key), Arc::default());
        let mut running = self.running.lock();
        running.entry(hash).or_default().push(Running {
            subject,
            thread: std::thread::current().id(),
            changed: Arc::clone(&changed),
        });
        Watch {
            fence: Arc::clone(self),
            thread: std::thread::current().id(),
            hash,
            changed,
        }
    }

    /// Notes what a transaction is about to change. Called with the store's write lock held: who
    /// looks at a watch inside of a transaction sees all changes before it.
    pub(super) fn note(&self, touched: &Touched) {
        let running = self.running.lock();
        if running.is_empty() || touched.spares_computations() {
            return;
        }
        let note = |all: &Vec<Running>| {
            for one in all {
                one.changed.store(true, Ordering::Release);
            }
        };
        match touched.hashes() {
            Some(hashes) => hashes
                .iter()
                .filter_map(|hash| running.get(hash))
                .for_each(note),
            None => running.values().for_each(note),
        }
    }

    /// As [`Fence::note`], of a transaction that clears what it does not know by key: those that
    /// would be cleared if they had been stored.
    pub(super) fn note_where(&self, is_cleared: impl Fn(&Subject) -> bool) {
        let running = self.running.lock();
        for one in running.values().flatten() {
            if is_cleared(&one.subject) {
                one.changed.store(true, Ordering::Release);
            }
        }
    }
}

/// Whether a key was changed since a computation began.
#[derive(Debug)]
pub struct Watch {
    fence: Arc<Fence>,
    thread: ThreadId,
    hash: u64,
    changed: Arc<AtomicBool>,
}

impl Watch {
    /// Whether it was, by anybody in this process.
    pub fn has_changed(&self) -> bool {
        self.changed.load(Ordering::Acquire)
    }

    /// The result is about to be stored, under the write lock: those that began earlier are late -
    /// but for one that called it, whose own result comes of it.
    pub(super) fn outrun(&self) {
        let running = self.fence.running.lock();
        let all = running.get(&self.hash).into_iter().flatten();
        for one in all.take_while(|one| !Arc::ptr_eq(&one.changed, &self.changed)) {
            if one.thread != self.thread {
                one.changed.store(true, Ordering::Release);
            }
        }
    }

    /// The same for somebody else to ask.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.changed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut running = self.fence.running.lock();
        if let Some(all) = running.get_mut(&self.hash) {
            all.retain(|one| !Arc::ptr_eq(&one.changed, &self.changed));
            if all.is_empty() {
                running.remove(&self.hash);
            }
        }
    }
}
