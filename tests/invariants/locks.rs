//! Invariants 5 and 7: no lock while a value's code runs; closing twice is closing once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;

use cachetronomy::cache::{Cache, Lookup, Surroundings};
use cachetronomy::error::Error;
use cachetronomy::settings::{Location, Settings};
use cachetronomy::store::sqlite::SqliteStore;
use cachetronomy::store::{Store, Which};
use cachetronomy::time::ManualClock;

use super::{HOUR, SECOND, START, by, in_memory, put, settings};

/// A deadlock would hang the whole suite: the body runs in a thread that may be given up.
fn within_a_minute(body: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        body();
        done.send(()).unwrap();
    });
    match finished.recv_timeout(Duration::from_mins(1)) {
        Ok(()) => thread.join().unwrap(),
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("{:?}", thread.join().err()),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("a lock is held that nobody gives back"),
    }
}

/// A value whose destructor uses the cache that held it.
struct Nosy {
    cache: Weak<Cache<Nosy>>,
    /// Destructors that ran; and whether one runs now, which must not start the next.
    drops: Arc<AtomicUsize>,
    inside: Arc<AtomicBool>,
}

impl Drop for Nosy {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::SeqCst);
        if self.inside.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Some(cache) = self.cache.upgrade() {
            // After a close these say so, which is fine: they return.
            let _ = cache.lookup(cache.hash("k"), "k", None, true, |_, _| ());
            drop((cache.fetch("k", None, true), cache.fetch_many(&["k"])));
            drop((
                cache.memory_keys(),
                cache.memory_stats(None),
                cache.stats(),
                cache.check(false),
            ));
            drop((
                cache.delete(&["k"]),
                cache.flush_logs(),
                cache.maintain(),
                cache.sweep(),
            ));
            drop((
                cache.forget(["k"]),
                cache.evict("j"),
                cache.evict_all(),
                cache.relieve(f64::MAX),
            ));
            cache.try_visit(|_| ());
        }
        self.inside.store(false, Ordering::SeqCst);
    }
}

#[test]
fn no_lock_is_held_while_the_code_of_a_value_runs() {
    within_a_minute(|| {
        let folder = tempfile::tempdir().unwrap();
        let hands = ManualClock::new(START);
        let settings = Settings {
            max_items_in_memory: Some(Some(2)),
            ..settings(&folder.path().join("a.db"))
        };
        // One shard, so that any lock that is held is the one the destructor asks for.
        let surroundings = Surroundings {
            parallelism: 1,
            ..by(&hands)
        };
        let cache: Arc<Cache<Nosy>> = Arc::new(Cache::open(settings, surroundings).unwrap());
        let (drops, inside) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let value = || Nosy {
            cache: Arc::downgrade(&cache),
            drops: Arc::clone(&drops),
            inside: Arc::clone(&inside),
        };
        let put = |key: &str, ttl| {
            let part = cache.begin_write(Some(ttl), None);
            let draft = cache.draft(b"1".to_vec(), "json", &part, 1, 0);
            let commit = cache.store(&[(key, &draft)]).unwrap();
            drop(cache.keep(key, value(), &draft, commit));
        };
        let lookup = |key: &str| {
            let missed = cache.lookup(cache.hash(key), key, None, true, |_, _| ());
            assert!(
                matches!(missed, Lookup::Miss(Some(_))),
                "its value is handed out"
            );
        };
        let steps: [(&str, &dyn Fn()); 9] = [
            ("replaced", &|| put("k", HOUR)),
            ("no room", &|| {
                for key in ["x", "y", "z"] {
                    put(key, HOUR);
                }
            }),
            ("expired", &|| {
                hands.advance(3_600 * SECOND);
                lookup("k");
            }),
            ("forgotten", &|| drop(cache.forget(["k"]))),
            ("expired and forgotten", &|| {
                hands.advance(3_600 * SECOND);
                drop(cache.forget_expired(&[]));
            }),
            ("swept", &|| {
                hands.advance(3_600 * SECOND);
                cache.sweep().unwrap();
            }),
            ("evicted", &|| drop(cache.evict("k"))),
            ("all evicted", &|| drop(cache.evict_all())),
            ("fetched and admitted", &|| {
                let arrival = cache.fetch("k", None, true).unwrap().unwrap();
                drop(cache.admit("k", value(), arrival, true));
            }),
        ];
        for (name, step) in steps {
            put("k", HOUR);
            let before = drops.load(Ordering::SeqCst);
            step();
            assert!(
                drops.load(Ordering::SeqCst) > before,
                "{name}: no destructor ran"
            );
        }
        put("k", HOUR);
        let (values, closed) = cache.close();
        closed.unwrap();
        assert_eq!(values.len(), 1);
        drop(values);
    });
}

#[test]
fn closing_twice_is_closing_once_and_every_later_call_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let hands = ManualClock::new(START);
    for location in [Location::Memory, Location::File(folder.path().join("a.db"))] {
        let settings = Settings {
            location,
            ..Settings::default()
        };
        let cache: Cache<u64> = Cache::open(settings, by(&hands)).unwrap();
        put(&cache, "k", 1, HOUR, &[]);
        let draft = cache.draft(b"2".to_vec(), "json", &cache.begin_write(None, None), 1, 0);
        let handed: usize = std::thread::scope(|scope| {
            let closers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let (values, closed) = cache.close();
                        closed.unwrap();
                        values.len()
                    })
                })
                .collect();
            closers
                .into_iter()
                .map(|closer| closer.join().unwrap())
                .sum()
        });
        assert_eq!(handed, 1, "the value is handed to one of them");
        assert_eq!(cache.close(), (vec![], Ok(())));
        assert_eq!(in_memory(&cache, "k"), None);
        let later = [
            ("check_open", cache.check_open().err()),
            ("fetch", cache.fetch("k", None, true).err()),
            ("fetch_many", cache.fetch_many(&["k"]).err()),
            ("store", cache.store(&[("k", &draft)]).err()),
            ("delete", cache.delete(&["k"]).err()),
            ("clear", cache.clear().err()),
            (
                "delete_by_tags",
                cache.delete_by_tags(&["t".to_owned()], false).err(),
            ),
            ("delete_expired", cache.delete_expired().err()),
            ("memory_keys", cache.memory_keys().err()),
            ("store_keys", cache.store_keys().err()),
            ("memory_stats", cache.memory_stats(None).err()),
            ("accesses", cache.accesses(Which::All, None).err()),
            ("stats", cache.stats().err()),
            ("check", cache.check(false).err()),
            ("sweep", cache.sweep().err()),
        ];
        for (name, error) in later {
            assert_eq!(error, Some(Error::Closed), "{name}");
        }
    }
}

#[test]
fn every_method_of_a_closed_store_says_so() {
    let folder = tempfile::tempdir().unwrap();
    for location in [Location::Memory, Location::File(folder.path().join("a.db"))] {
        let settings = Settings {
            location,
            ..Settings::default()
        };
        let store = SqliteStore::open(&settings).unwrap();
        store.close().unwrap();
        store.close().unwrap();
        let calls = [
            ("read", store.read("k", true).err()),
            ("read, not waiting", store.read("k", false).err()),
            ("read_many", store.read_many(&["k"]).err()),
            ("write", store.write(&[]).err()),
            ("delete", store.delete(&["k"], START).err()),
            ("clear", store.clear().err()),
            (
                "delete_by_tags",
                store.delete_by_tags(&[], true, START).err(),
            ),
            ("delete_expired", store.delete_expired(START, 1).err()),
            ("keys", store.keys(START).err()),
            ("size", store.size(START).err()),
            ("append_logs", store.append_logs(&[], "p", &[]).err()),
            ("accesses", store.accesses(Which::All, None).err()),
            ("maintain", store.maintain().err()),
            ("check", store.check(false).err()),
        ];
        for (name, error) in calls {
            assert_eq!(error, Some(Error::Closed), "{name}");
        }
    }
}
