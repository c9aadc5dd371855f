//! The active profile of a cache: where it comes from, what a switch changes, who leaves memory
//! under pressure.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cachetronomy::cache::{Cache, Lookup, Surroundings};
use cachetronomy::entry::EvictionReason;
use cachetronomy::pressure::{Gauge, ManualGauge, Memory};
use cachetronomy::settings::{Location, Profile, ProfileChanges, Settings};
use cachetronomy::store::Which;
use cachetronomy::time::{Clock, ManualClock, Timestamp};

const START: Timestamp = Timestamp(1_700_000_000_000_000);

fn settings(path: &Path) -> Settings {
    Settings {
        location: Location::File(path.to_owned()),
        ..Settings::default()
    }
}

fn surroundings() -> Surroundings<u64> {
    Surroundings {
        clock: Clock::Manual(ManualClock::new(START)),
        ..Surroundings::default()
    }
}

fn put(cache: &Cache<u64>, key: &str, value: u64) {
    let part = cache.begin_write(None, None);
    let draft = cache.draft(value.to_string().into_bytes(), "json", &part, 1, 0);
    let commit = cache.store(&[(key, &draft)]).unwrap();
    drop(cache.keep(key, value, &draft, commit));
}

fn hit(cache: &Cache<u64>, key: &str, times: usize) {
    for _ in 0..times {
        let found = cache.lookup(cache.hash(key), key, None, true, |value, _| *value);
        assert!(matches!(found, Lookup::Hit(_)), "{key}");
    }
}

fn ttl(seconds: u64) -> ProfileChanges {
    ProfileChanges {
        time_to_live: Some(seconds),
        ..ProfileChanges::default()
    }
}

#[test]
fn the_caller_beats_the_environment_which_beats_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let first = Cache::<u64>::open(settings(&path), surroundings()).unwrap();
    let mut stored = ttl(10);
    stored.max_items_in_memory = Some(10);
    stored.ttl_cleanup_interval = Some(10);
    first.save_profile("p", &stored).unwrap();
    let mut environment = ttl(20);
    environment.max_items_in_memory = Some(20);
    let second = Settings {
        profile: String::from("p"),
        given: ttl(30),
        environment,
        ..settings(&path)
    };
    let cache = Cache::<u64>::open(second.clone(), surroundings()).unwrap();
    let active = cache.active().profile.clone();
    assert_eq!(
        (
            active.time_to_live,
            active.max_items_in_memory,
            active.ttl_cleanup_interval
        ),
        (30, Some(20), 10)
    );
    let in_file = first.profiles(Which::Key("p")).unwrap();
    assert_eq!(in_file[0].time_to_live, 30, "what the caller named");
    assert_eq!(in_file[0].max_items_in_memory, Some(10), "and nothing else");

    // A change of one field leaves the environment's others in effect and out of the file.
    drop(cache.update_profile(None, &ttl(40)).unwrap());
    assert_eq!(cache.active().profile.max_items_in_memory, Some(20));
    let in_file = first.profiles(Which::Key("p")).unwrap();
    assert_eq!(in_file[0].max_items_in_memory, Some(10));
    // A switch ends them, also one to the same name.
    drop(cache.use_profile("p", &ProfileChanges::default()).unwrap());
    assert_eq!(cache.active().profile.max_items_in_memory, Some(10));
    assert_eq!(cache.active().profile.time_to_live, 40);

    let capless = Settings {
        max_items_in_memory: Some(None),
        ..second
    };
    let cache = Cache::<u64>::open(capless, surroundings()).unwrap();
    assert_eq!(cache.active().profile.max_items_in_memory, None);
}

#[test]
fn a_switch_holds_for_every_write_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let cache = Cache::open(settings(&path), surroundings()).unwrap();
    for number in 0..50 {
        put(&cache, &number.to_string(), number);
    }
    hit(&cache, "7", 1);
    let changes = ProfileChanges {
        max_items_in_memory: Some(5),
        tags: Some(vec![String::from("t")]),
        ..ttl(60)
    };
    assert_eq!(cache.use_profile("p", &changes).unwrap().len(), 45);
    put(&cache, "new", 1);
    assert_eq!(cache.memory_keys().unwrap().len(), 5);
    let row = cache.rows(Which::Key("new"), None, true).unwrap().remove(0);
    assert_eq!((&*row.profile, &*row.tags), ("p", &[String::from("t")][..]));
    assert_eq!(row.row.meta.expire_at.0, START.0 + 60_000_000);
    let old = cache.rows(Which::Key("7"), None, true).unwrap().remove(0);
    assert_eq!(old.profile, "default");
    assert_eq!(cache.delete_by_profile("p").unwrap(), ["new"]);
    assert_eq!(cache.count().unwrap(), 50);
    let hits = cache.accesses(Which::Key("7"), None).unwrap();
    assert_eq!(hits[0].profile, "default", "it was hit before the switch");
    let reasons: Vec<_> = cache.evictions(None).unwrap();
    let count = |reason: EvictionReason| {
        let of = reasons.iter().filter(|row| row.reason == reason.as_str());
        of.count()
    };
    assert_eq!(count(EvictionReason::Capacity), 46);
    assert_eq!(count(EvictionReason::Profile), 1);
}

#[test]
fn under_pressure_the_coldest_leave_and_no_more_than_are_needed() {
    let folder = tempfile::tempdir().unwrap();
    let hands = ManualClock::new(START);
    let gauge = ManualGauge::new(Memory {
        total: 1_000 << 20,
        available: 500 << 20,
    });
    let dropped = Arc::new(Mutex::new(Vec::new()));
    let bin = Arc::clone(&dropped);
    let surroundings = Surroundings {
        clock: Clock::Manual(hands.clone()),
        gauge: Gauge::Manual(gauge.clone()),
        parallelism: 1,
        dispose: Box::new(move |mut values: Vec<u64>| bin.lock().unwrap().append(&mut values)),
    };
    let cache = Cache::open(settings(&folder.path().join("a.db")), surroundings).unwrap();
    // Each entry is 12 bytes: "key 1" to "key 9" and a value of as many digits.
    for number in 1..10 {
        put(&cache, &format!("key {number}"), 1_000_000 + number);
        hands.advance(1);
    }
    hit(&cache, "key 1", 3);
    hit(&cache, "key 2", 1);
    hands.advance(1);
    hit(&cache, "key 3", 1);
    assert_eq!(cache.relieve(400.0), 0, "enough is free");
    gauge.set_available((400 << 20) - 24);
    assert_eq!(cache.relieve(400.0), 2);
    assert_eq!(*dropped.lock().unwrap(), [1_000_004, 1_000_005]);
    assert_eq!(cache.relieve(0.4), 2, "a fraction of all RAM");
    gauge.set_available((400 << 20) - 12 * 4);
    assert_eq!(cache.relieve(400.0), 4);
    let mut left = cache.memory_keys().unwrap();
    left.sort_unstable();
    assert_eq!(left, ["key 1"], "the hottest; of equals, the one used last");
    gauge.set_available(0);
    assert_eq!(cache.relieve(400.0), 1);
    assert_eq!(cache.relieve(400.0), 0, "nothing is left");
    assert_eq!(cache.count().unwrap(), 9, "the store keeps them all");
    let log = cache.evictions(None).unwrap();
    assert_eq!(log.len(), 9);
    assert!(log.iter().all(|row| row.reason == "memory_eviction"));
    let hottest = log.iter().find(|row| row.key == "key 1").unwrap();
    assert_eq!(hottest.access_count, 3);
}

#[test]
fn many_threads_switch_and_write_and_each_write_has_one_profile_whole() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(settings(&folder.path().join("a.db")), surroundings()).unwrap();
    for number in 1..=4 {
        let changes = ProfileChanges {
            tags: Some(vec![format!("tag {number}")]),
            max_items_in_memory: Some(number),
            ..ttl(number as u64)
        };
        cache.save_profile(&format!("p{number}"), &changes).unwrap();
    }
    let rounds = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 1..=4 {
            let (cache, rounds) = (&cache, &rounds);
            scope.spawn(move || {
                for round in 0..100 {
                    let name = format!("p{}", 1 + (thread + round) % 4);
                    drop(
                        cache
                            .use_profile(&name, &ProfileChanges::default())
                            .unwrap(),
                    );
                    put(cache, &format!("{thread} {round}"), 1);
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(rounds.into_inner(), 400);
    for row in cache.rows(Which::All, None, true).unwrap() {
        let number = row.profile.trim_start_matches('p').parse::<i64>().unwrap();
        assert_eq!(row.tags, [format!("tag {number}")]);
        assert_eq!(row.row.meta.expire_at.0, START.0 + number * 1_000_000);
    }
    let cap = cache.active().profile.max_items_in_memory.unwrap();
    assert!(cache.memory_keys().unwrap().len() <= cap);
}

#[test]
fn the_active_profile_can_be_deleted_and_stays_in_effect() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::<u64>::open(settings(&folder.path().join("a.db")), surroundings()).unwrap();
    drop(cache.use_profile("p", &ttl(60)).unwrap());
    assert!(cache.delete_profile("p").unwrap());
    assert_eq!(cache.active().profile, Profile::named("p").with(&ttl(60)));
    assert!(cache.profiles(Which::Key("p")).unwrap().is_empty());
}
