//! One test, or a few, for each invariant that `src/lib.rs` states.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed step fails the test"
)]

mod locks;
mod logs;
mod tiers;
mod trust;

use std::path::Path;

use cachetronomy::cache::{Cache, Lookup, Surroundings};
use cachetronomy::settings::{Location, Settings};
use cachetronomy::time::{Clock, ManualClock, Timestamp, Ttl};

/// 2001-09-09: early enough for entries of a manual clock to be past any deadline of a real one.
const START: Timestamp = Timestamp(1_000_000_000_000_000);
const HOUR: Ttl = Ttl::Micros(3_600_000_000);
const SECOND: i64 = 1_000_000;

fn settings(path: &Path) -> Settings {
    Settings {
        location: Location::File(path.to_owned()),
        ..Settings::default()
    }
}

/// Surroundings with a clock that is turned by hand.
fn by<V: 'static>(hands: &ManualClock) -> Surroundings<V> {
    Surroundings {
        clock: Clock::Manual(hands.clone()),
        parallelism: 2,
        ..Surroundings::default()
    }
}

fn open<V: 'static>(path: &Path, hands: &ManualClock) -> Cache<V> {
    Cache::open(settings(path), by(hands)).unwrap()
}

/// Encodes, stores, keeps: the order of a client.
fn put(cache: &Cache<u64>, key: &str, value: u64, ttl: Ttl, tags: &[&str]) {
    let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
    let part = cache.begin_write(Some(ttl), Some(&tags));
    let draft = cache.draft(value.to_string().into_bytes(), "json", &part, 1, 0);
    let commit = cache.store(&[(key, &draft)]).unwrap();
    drop(cache.keep(key, value, &draft, commit));
}

fn in_memory(cache: &Cache<u64>, key: &str) -> Option<u64> {
    match cache.lookup(cache.hash(key), key, None, true, |value, _| *value) {
        Lookup::Hit(value) => Some(value),
        Lookup::Miss(_) => None,
    }
}

fn in_store(cache: &Cache<u64>, key: &str) -> Option<u64> {
    let arrival = cache.fetch(key, None, true).unwrap()?;
    Some(
        std::str::from_utf8(&arrival.row.data)
            .unwrap()
            .parse()
            .unwrap(),
    )
}

/// Memory, then the store, whose answer is taken into memory.
fn get(cache: &Cache<u64>, key: &str) -> Option<u64> {
    if let Some(value) = in_memory(cache, key) {
        return Some(value);
    }
    let arrival = cache.fetch(key, None, true).unwrap()?;
    let value = std::str::from_utf8(&arrival.row.data)
        .unwrap()
        .parse()
        .unwrap();
    drop(cache.admit(key, value, arrival, true));
    Some(value)
}
