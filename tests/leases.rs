//! The leases of computations: one holder on all of the store's caches, for as long as it lives.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::path::Path;

use cachetronomy::cache::{Cache, LEASE_LIFE, Surroundings};
use cachetronomy::settings::{Location, Settings};
use cachetronomy::time::{Clock, ManualClock, Timestamp};

const START: Timestamp = Timestamp(1_700_000_000_000_000);
const SECOND: i64 = 1_000_000;

struct World {
    folder: tempfile::TempDir,
    clock: ManualClock,
}

impl World {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            clock: ManualClock::new(START),
        }
    }

    fn open(&self) -> Cache<()> {
        let path: &Path = self.folder.path();
        let settings = Settings {
            location: Location::File(path.join("a.db")),
            ..Settings::default()
        };
        let surroundings = Surroundings {
            clock: Clock::Manual(self.clock.clone()),
            ..Surroundings::default()
        };
        Cache::open(settings, surroundings).unwrap()
    }
}

#[test]
fn a_lease_has_one_holder_until_it_is_released() {
    let world = World::new();
    let (one, other) = (world.open(), world.open());
    let owner = one.claim("k").unwrap().unwrap();
    assert_eq!(one.claim("k").unwrap(), None);
    assert_eq!(other.claim("k").unwrap(), None);
    assert!(other.is_claimed("k").unwrap());
    assert!(!other.is_claimed("another").unwrap());
    one.release(&owner).unwrap();
    assert!(!other.is_claimed("k").unwrap());
    assert!(other.claim("k").unwrap().is_some());
}

#[test]
fn a_holder_that_lives_keeps_its_lease_and_a_dead_one_loses_it() {
    let world = World::new();
    let (alive, dead, other) = (world.open(), world.open(), world.open());
    assert!(alive.claim("alive").unwrap().is_some());
    assert!(dead.claim("dead").unwrap().is_some());
    let life = i64::try_from(LEASE_LIFE.as_micros()).unwrap();
    for seconds in 1..=20 {
        world.clock.advance(SECOND);
        alive.maintain().unwrap();
        assert_eq!(other.claim("alive").unwrap(), None);
        let is_over = seconds * SECOND >= life;
        assert_eq!(other.is_claimed("dead").unwrap(), !is_over);
    }
    assert!(other.claim("dead").unwrap().is_some());
}

#[test]
fn who_lost_a_lease_ends_nobody_elses() {
    let world = World::new();
    let (late, other) = (world.open(), world.open());
    let owner = late.claim("k").unwrap().unwrap();
    world.clock.advance(10 * SECOND);
    assert!(other.claim("k").unwrap().is_some());
    late.maintain().unwrap();
    late.release(&owner).unwrap();
    assert!(late.is_claimed("k").unwrap());
    assert_eq!(late.claim("k").unwrap(), None);
}

#[test]
fn a_forsaken_lease_is_its_caches_again_or_ends_in_the_background() {
    let world = World::new();
    let (one, other) = (world.open(), world.open());
    let owner = one.claim("k").unwrap().unwrap();
    one.forsake(&owner);
    assert_eq!(other.claim("k").unwrap(), None, "not yet");
    assert_eq!(one.claim("k").unwrap().as_ref(), Some(&owner));
    one.maintain().unwrap();
    assert_eq!(other.claim("k").unwrap(), None, "it is in use again");
    one.forsake(&owner);
    one.maintain().unwrap();
    assert!(other.claim("k").unwrap().is_some());
}

#[test]
fn a_forsaken_lease_past_its_time_is_not_taken_for_granted() {
    let world = World::new();
    let (one, other) = (world.open(), world.open());
    let owner = one.claim("k").unwrap().unwrap();
    one.forsake(&owner);
    world.clock.advance(10 * SECOND);
    assert!(other.claim("k").unwrap().is_some());
    assert_eq!(one.claim("k").unwrap(), None);
}

#[test]
fn closing_ends_what_is_held() {
    let world = World::new();
    let (one, other) = (world.open(), world.open());
    assert!(one.claim("k").unwrap().is_some());
    let (_, closed) = one.close();
    closed.unwrap();
    assert!(other.claim("k").unwrap().is_some());
}

#[test]
fn a_forked_child_renews_and_ends_nothing_of_its_parent() {
    let world = World::new();
    let (child, other) = (world.open(), world.open());
    let owner = child.claim("k").unwrap().unwrap();
    child.forget_leases();
    child.release(&owner).unwrap();
    assert_eq!(other.claim("k").unwrap(), None, "the parent has it");
    world.clock.advance(4 * SECOND);
    child.maintain().unwrap();
    world.clock.advance(SECOND);
    assert!(other.claim("k").unwrap().is_some());
}

#[test]
fn no_two_takings_share_an_owner() {
    let mut owners: Vec<String> = (0..1_000)
        .map(|_| cachetronomy::cache::new_owner())
        .collect();
    owners.sort_unstable();
    owners.dedup();
    assert_eq!(owners.len(), 1_000);
}
