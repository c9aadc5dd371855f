//! Random histories of two caches over one store, against a map that is plainly right.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::{BTreeMap, BTreeSet};

use cachetronomy::cache::{Arrival, Ask, Cache, Lookup, Step as By, Surroundings};
use cachetronomy::entry::Row;
use cachetronomy::settings::{Location, Settings};
use cachetronomy::store::glob::Glob;
use cachetronomy::time::{Clock, ManualClock, Timestamp, Ttl};
use proptest::prelude::*;

const START: i64 = 1_700_000_000_000_000;
const GRACE: Ttl = Ttl::Micros(20);
const KEYS: [&str; 5] = ["", "a", "a\0", "it's", "\u{e9}"];
/// Patterns with the keys they match, as bits.
const PATTERNS: [(&str, u8); 4] = [
    ("*", 0b11111),
    ("a*", 0b00110),
    ("?", 0b10010),
    ("[!a]*", 0b11000),
];
const TAGS: [&str; 3] = ["t", "\"u\"", "v\u{1f980}"];

/// One step; keys and tags by their index, tags as a set of bits.
#[derive(Debug, Clone)]
enum Step {
    Set {
        key: usize,
        ttl: Option<i64>,
        tags: u8,
        version: i64,
    },
    SetMany {
        keys: Vec<usize>,
    },
    Get {
        key: usize,
        version: Option<i64>,
    },
    GetMany {
        keys: Vec<usize>,
    },
    /// A fetch whose value enters memory only at the next `Admit`.
    Fetch {
        key: usize,
    },
    Admit,
    Add {
        key: usize,
        ttl: i64,
    },
    Increment {
        key: usize,
        ttl: Option<i64>,
    },
    Pop {
        key: usize,
    },
    Touch {
        key: usize,
        ttl: i64,
    },
    DeleteMatching {
        pattern: usize,
    },
    Stale {
        key: usize,
    },
    Delete {
        keys: Vec<usize>,
    },
    DeleteByTags {
        tags: u8,
        exact: bool,
    },
    Clear,
    Advance {
        micros: i64,
    },
    DeleteExpired,
    Evict {
        key: usize,
    },
    EvictAll,
    Maintain,
    Reopen,
}

fn steps() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS.len();
    let keys = || prop::collection::vec(key(), 0..4);
    let ttl = prop_oneof![Just(None), (0..60_i64).prop_map(Some)];
    prop_oneof![
        8 => (key(), ttl, 0..8_u8, 1..3_i64)
            .prop_map(|(key, ttl, tags, version)| Step::Set { key, ttl, tags, version }),
        2 => keys().prop_map(|keys| Step::SetMany { keys }),
        10 => (key(), prop::option::weighted(0.2, 1..3_i64))
            .prop_map(|(key, version)| Step::Get { key, version }),
        2 => keys().prop_map(|keys| Step::GetMany { keys }),
        2 => key().prop_map(|key| Step::Fetch { key }),
        2 => Just(Step::Admit),
        3 => (key(), 0..60_i64).prop_map(|(key, ttl)| Step::Add { key, ttl }),
        4 => (key(), prop::option::of(0..60_i64))
            .prop_map(|(key, ttl)| Step::Increment { key, ttl }),
        2 => key().prop_map(|key| Step::Pop { key }),
        3 => (key(), 0..60_i64).prop_map(|(key, ttl)| Step::Touch { key, ttl }),
        1 => (0..PATTERNS.len()).prop_map(|pattern| Step::DeleteMatching { pattern }),
        2 => key().prop_map(|key| Step::Stale { key }),
        3 => keys().prop_map(|keys| Step::Delete { keys }),
        2 => (0..8_u8, any::<bool>())
            .prop_map(|(tags, exact)| Step::DeleteByTags { tags, exact }),
        1 => Just(Step::Clear),
        4 => (0..30_i64).prop_map(|micros| Step::Advance { micros }),
        1 => Just(Step::DeleteExpired),
        2 => key().prop_map(|key| Step::Evict { key }),
        1 => Just(Step::EvictAll),
        1 => Just(Step::Maintain),
        1 => Just(Step::Reopen),
    ]
}

fn tags_of(bits: u8) -> Vec<String> {
    let chosen = TAGS
        .iter()
        .enumerate()
        .filter(|(bit, _)| bits >> bit & 1 == 1);
    chosen.map(|(_, tag)| (*tag).to_owned()).collect()
}

fn number(row: &Row) -> u64 {
    std::str::from_utf8(&row.data).unwrap().parse().unwrap()
}

/// What the model knows of a key; it stays until it is removed, live or not.
#[derive(Debug, Clone)]
struct Known {
    value: u64,
    version: i64,
    expire_at: Timestamp,
    /// Until when it stays beyond its time.
    stale_until: Option<Timestamp>,
    tags: BTreeSet<String>,
}

struct World {
    settings: Settings,
    hands: ManualClock,
    caches: Vec<Cache<u64>>,
    model: BTreeMap<&'static str, Known>,
    now: i64,
    written: u64,
    /// A fetch under way: whose, of which key, with what value.
    pending: Option<(usize, &'static str, u64, Arrival)>,
}

impl World {
    fn new(location: Location, capacity: Option<usize>, caches: usize) -> Self {
        let settings = Settings {
            location,
            max_items_in_memory: Some(capacity),
            ..Settings::default()
        };
        let hands = ManualClock::new(Timestamp(START));
        let mut world = Self {
            settings,
            hands,
            caches: Vec::new(),
            model: BTreeMap::new(),
            now: START,
            written: 0,
            pending: None,
        };
        for _ in 0..caches {
            let cache = world.open();
            world.caches.push(cache);
        }
        world
    }

    fn open(&self) -> Cache<u64> {
        let surroundings = Surroundings {
            clock: Clock::Manual(self.hands.clone()),
            parallelism: 2,
            ..Surroundings::default()
        };
        Cache::open(self.settings.clone(), surroundings).unwrap()
    }

    fn live(&self, key: &str) -> Option<&Known> {
        self.model
            .get(key)
            .filter(|known| known.expire_at.0 > self.now)
    }

    fn live_keys(&self) -> Vec<String> {
        let live = self
            .model
            .iter()
            .filter(|(_, known)| known.expire_at.0 > self.now);
        live.map(|(key, _)| (*key).to_owned()).collect()
    }

    fn set(&mut self, who: usize, keys: &[usize], ttl: Option<i64>, bits: u8, version: i64) {
        let (ttl, tags) = (ttl.map_or(Ttl::Never, Ttl::Micros), tags_of(bits));
        // Some entries are kept beyond their time.
        let grace = (bits & 1 == 1).then_some(GRACE);
        let cache = &self.caches[who];
        let part = cache
            .begin_write(Some(ttl), Some(&tags))
            .of_function(None, grace);
        let mut drafts = Vec::new();
        for key in keys {
            self.written += 1;
            let bytes = self.written.to_string().into_bytes();
            let draft = cache.draft(bytes, "json", &part, version, 1);
            drafts.push((KEYS[*key], self.written, draft));
        }
        let borrowed: Vec<_> = drafts.iter().map(|(key, _, draft)| (*key, draft)).collect();
        let commit = cache.store(&borrowed).unwrap();
        for (key, value, draft) in &drafts {
            drop(cache.keep(key, *value, draft, commit));
            let expire_at = Timestamp(self.now).after(ttl);
            let stale_until = grace.map(|grace| expire_at.after(grace));
            let tags = tags.iter().cloned().collect();
            self.model.insert(
                key,
                Known {
                    value: *value,
                    version,
                    expire_at,
                    stale_until,
                    tags,
                },
            );
        }
    }

    fn fetched(arrival: &Arrival) -> u64 {
        number(&arrival.row)
    }

    fn get(&self, who: usize, key: &'static str, version: Option<i64>) -> Option<u64> {
        let cache = &self.caches[who];
        let found = cache.lookup(cache.hash(key), key, version, true, |value, _| *value);
        if let Lookup::Hit(value) = found {
            return Some(value);
        }
        let arrival = cache.fetch(key, version, true).unwrap()?;
        let value = Self::fetched(&arrival);
        drop(cache.admit(key, value, arrival, true));
        Some(value)
    }

    fn step(&mut self, who: usize, step: &Step) {
        let who = who % self.caches.len();
        match step {
            Step::Set {
                key,
                ttl,
                tags,
                version,
            } => self.set(who, &[*key], *ttl, *tags, *version),
            Step::SetMany { keys } => {
                let unique: BTreeSet<usize> = keys.iter().copied().collect();
                self.set(who, &unique.into_iter().collect::<Vec<_>>(), None, 0, 1);
            }
            Step::Get { key, version } => {
                let expected = self.live(KEYS[*key]);
                let expected = expected.filter(|known| version.is_none_or(|v| v == known.version));
                let expected = expected.map(|known| known.value);
                assert_eq!(self.get(who, KEYS[*key], *version), expected);
            }
            Step::GetMany { keys } => {
                let keys: Vec<_> = keys.iter().map(|key| KEYS[*key]).collect();
                let arrivals = self.caches[who].fetch_many(&keys).unwrap();
                for (key, arrival) in keys.iter().zip(arrivals) {
                    let expected = self.live(key).map(|known| known.value);
                    assert_eq!(arrival.as_ref().map(Self::fetched), expected);
                    if let (Some(arrival), Some(value)) = (arrival, expected) {
                        drop(self.caches[who].admit(key, value, arrival, false));
                    }
                }
            }
            Step::Fetch { key } => {
                let arrival = self.caches[who].fetch(KEYS[*key], None, true).unwrap();
                self.pending =
                    arrival.map(|arrival| (who, KEYS[*key], Self::fetched(&arrival), arrival));
            }
            Step::Admit => {
                if let Some((who, key, value, arrival)) = self.pending.take() {
                    drop(self.caches[who].admit(key, value, arrival, true));
                }
            }
            Step::Add { key, ttl } => self.add(who, KEYS[*key], Ttl::Micros(*ttl)),
            Step::Increment { key, ttl } => {
                self.increment(who, KEYS[*key], ttl.map(Ttl::Micros));
            }
            Step::Pop { key } => {
                let expected = self.live(KEYS[*key]).map(|known| known.value);
                let popped = self.caches[who].pop(KEYS[*key]).unwrap();
                assert_eq!(popped.map(|row| number(&row)), expected);
                if expected.is_some() {
                    self.model.remove(KEYS[*key]);
                }
            }
            Step::Touch { key, ttl } => {
                let (key, ttl) = (KEYS[*key], Ttl::Micros(*ttl));
                let live = self.live(key).is_some();
                assert_eq!(self.caches[who].touch(key, Some(ttl)).unwrap(), live);
                if live && ttl.is_zero() {
                    self.model.remove(key);
                } else if live && let Some(known) = self.model.get_mut(key) {
                    known.expire_at = Timestamp(self.now).after(ttl);
                }
            }
            Step::DeleteMatching { pattern } => self.delete_matching(who, *pattern),
            Step::Stale { key } => self.fetch_stale(who, KEYS[*key]),
            Step::Delete { keys } => self.delete(who, keys),
            Step::DeleteByTags { tags, exact } => self.delete_by_tags(who, *tags, *exact),
            Step::Clear => {
                self.caches[who].clear().unwrap();
                self.model.clear();
            }
            Step::Advance { micros } => {
                self.hands.advance(*micros);
                self.now += micros;
            }
            Step::DeleteExpired => {
                let swept = self.caches[who].delete_expired().unwrap();
                let keys: BTreeSet<_> = swept.iter().map(|entry| &*entry.key).collect();
                let now = self.now;
                let due = |known: &Known| {
                    known.expire_at.0 <= now && known.stale_until.is_none_or(|until| until.0 <= now)
                };
                let expected: BTreeSet<_> = self
                    .model
                    .iter()
                    .filter(|(_, known)| due(known))
                    .map(|(key, _)| *key)
                    .collect();
                assert_eq!(keys, expected);
                self.model.retain(|_, known| !due(known));
                drop(self.caches[who].forget_expired(&swept));
            }
            Step::Evict { key } => drop(self.caches[who].evict(KEYS[*key])),
            Step::EvictAll => drop(self.caches[who].evict_all()),
            Step::Maintain => self.caches[who].maintain().unwrap(),
            Step::Reopen => self.reopen(who),
        }
        self.agree();
    }

    fn add(&mut self, who: usize, key: &'static str, ttl: Ttl) {
        let live = self.live(key).is_some();
        let cache = &self.caches[who];
        self.written += 1;
        let part = cache.begin_write(Some(ttl), Some(&[]));
        let bytes = self.written.to_string().into_bytes();
        let draft = cache.draft(bytes, "json", &part, 1, 1);
        let added = cache.add(key, &draft).unwrap();
        assert_eq!(added.is_none(), live);
        if let Some(commit) = added {
            drop(cache.keep(key, self.written, &draft, commit));
            self.know(key, self.written, Timestamp(self.now).after(ttl));
        }
    }

    /// A new entry without tags.
    fn know(&mut self, key: &'static str, value: u64, expire_at: Timestamp) {
        let known = Known {
            value,
            version: 1,
            expire_at,
            stale_until: None,
            tags: BTreeSet::new(),
        };
        self.model.insert(key, known);
    }

    fn increment(&mut self, who: usize, key: &'static str, ttl: Option<Ttl>) {
        let expected = self.live(key).map_or(500, |known| known.value) + 3;
        let cache = &self.caches[who];
        let part = cache.begin_write(Some(ttl.unwrap_or(Ttl::Never)), Some(&[]));
        let step = By {
            delta: 3,
            default: 500,
            ttl,
        };
        let counted = cache.increment(key, step, &part).unwrap();
        assert_eq!(counted.number, i128::from(expected));
        let deadline = Timestamp(self.now).after(ttl.unwrap_or(Ttl::Never));
        let Some((meta, weight, commit)) = counted.stored else {
            assert_eq!(ttl, Some(Ttl::Micros(0)));
            self.model.remove(key);
            return;
        };
        drop(cache.keep_as(key, expected, meta, weight, commit));
        if self.live(key).is_none() {
            self.know(key, expected, deadline);
        } else if let Some(known) = self.model.get_mut(key) {
            known.value = expected;
            if ttl.is_some() {
                known.expire_at = deadline;
            }
        }
    }

    fn fetch_stale(&self, who: usize, key: &str) {
        let ask = Ask {
            grace: GRACE,
            ..Ask::ANY
        };
        let found = self.caches[who].fetch_as(key, &ask, true).unwrap();
        let expected = self.model.get(key).filter(|known| {
            let end = known.expire_at.after(GRACE);
            end.0 > self.now
        });
        let found = found.map(|arrival| number(&arrival.row));
        assert_eq!(found, expected.map(|known| known.value), "{key:?}");
    }

    fn delete_matching(&mut self, who: usize, pattern: usize) {
        let (pattern, bits) = PATTERNS[pattern];
        let matches = |key: &str| {
            let index = KEYS.iter().position(|known| *known == key).unwrap();
            bits >> index & 1 == 1
        };
        let mut expected = self.live_keys();
        expected.retain(|key| matches(key));
        let glob = Glob::parse(pattern);
        let cache = &self.caches[who];
        let mut found = cache.matching(Some(&glob), None).unwrap();
        let mut removed = cache.delete_matching(&glob).unwrap();
        found.sort_unstable();
        removed.sort_unstable();
        assert_eq!((&found, &removed), (&expected, &expected), "{pattern:?}");
        // Those whose time has come, too: nobody gets a stale copy of them any more.
        self.model.retain(|key, _| !matches(key));
    }

    fn delete(&mut self, who: usize, keys: &[usize]) {
        let keys: Vec<_> = keys.iter().map(|key| KEYS[*key]).collect();
        let existed = self.caches[who].delete(&keys).unwrap();
        for (key, existed) in keys.iter().zip(existed) {
            assert_eq!(existed, self.live(key).is_some(), "{key:?}");
            self.model.remove(key);
        }
        // Not always: that the store has deleted a key has to be enough.
        if self.written.is_multiple_of(2) {
            drop(self.caches[who].forget(keys));
        }
    }

    fn delete_by_tags(&mut self, who: usize, bits: u8, exact: bool) {
        let tags = tags_of(bits);
        let wanted: BTreeSet<String> = tags.iter().cloned().collect();
        let mut removed = self.caches[who].delete_by_tags(&tags, exact).unwrap();
        removed.sort_unstable();
        let hit = |known: &Known| {
            if exact {
                known.tags == wanted
            } else {
                !known.tags.is_disjoint(&wanted)
            }
        };
        let live = self.live_keys();
        let expected: Vec<_> = live
            .into_iter()
            .filter(|key| hit(&self.model[&**key]))
            .collect();
        assert_eq!(removed, expected, "{wanted:?}, exact: {exact}");
        self.model.retain(|_, known| !hit(known));
    }

    fn reopen(&mut self, who: usize) {
        if self
            .pending
            .as_ref()
            .is_some_and(|(fetcher, ..)| *fetcher == who)
        {
            self.pending = None;
        }
        self.caches[who].close().1.unwrap();
        if self.settings.location == Location::Memory {
            self.model.clear();
        }
        self.caches[who] = self.open();
    }

    /// What can be seen without touching anything.
    fn agree(&self) {
        let live = self.live_keys();
        for cache in &self.caches {
            let mut stored = cache.store_keys().unwrap();
            stored.sort_unstable();
            assert_eq!(stored, live);
            for key in cache.memory_keys().unwrap() {
                assert!(live.contains(&key), "{key:?} is in memory alone");
            }
            let stats = cache.stats().unwrap();
            let capacity = self
                .settings
                .max_items_in_memory
                .flatten()
                .unwrap_or(KEYS.len());
            assert!(stats.memory_keys <= capacity, "{stats:?}");
        }
    }

    /// At the end: both tiers are sound, and every value can be read from both caches.
    fn end(mut self) {
        self.pending = None;
        for who in 0..self.caches.len() {
            for key in KEYS {
                let expected = self.live(key).map(|known| known.value);
                // Twice: from the store, and from memory, where it is now.
                assert_eq!(
                    [self.get(who, key, None), self.get(who, key, None)],
                    [expected; 2]
                );
            }
            assert_eq!(self.caches[who].check(false).unwrap(), [""; 0]);
            assert_eq!(self.caches[who].stats().unwrap().errors, 0);
        }
        for cache in &self.caches {
            cache.close().1.unwrap();
        }
    }
}

fn capacities() -> impl Strategy<Value = Option<usize>> {
    prop_oneof![Just(Some(0)), Just(Some(3)), Just(None)]
}

fn histories() -> impl Strategy<Value = Vec<(usize, Step)>> {
    prop::collection::vec((0..2_usize, steps()), 1..60)
}

fn run(mut world: World, history: &[(usize, Step)]) {
    for (who, step) in history {
        world.step(*who, step);
    }
    world.end();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("CACHETRONOMY_MODEL_CASES").map_or(200, |cases| cases.parse().unwrap()),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn two_caches_on_one_file_behave_like_one_map(
        capacity in capacities(),
        history in histories(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        run(World::new(Location::File(path), capacity, 2), &history);
    }

    #[test]
    fn a_cache_without_a_file_behaves_like_a_map(
        capacity in capacities(),
        history in histories(),
    ) {
        run(World::new(Location::Memory, capacity, 1), &history);
    }
}
