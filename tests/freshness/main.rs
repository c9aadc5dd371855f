//! No process ever reads what another had replaced, deleted or cleared before the read began.
//!
//! Writers and readers are processes of their own, each with a cache over the same file; writers
//! are killed at random. All note what they did and when, by a clock that they share.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod history;

use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cachetronomy::cache::{Cache, Lookup, Surroundings};
use cachetronomy::settings::{Location, Settings};
use cachetronomy::time::Ttl;

use history::{ABSENT, EVERY_KEY, History, Kind, Reads, note, op_row};

const PART: &str = "CACHETRONOMY_TEST_PART";
const FOLDER: &str = "CACHETRONOMY_TEST_FOLDER";
const UNTIL: &str = "CACHETRONOMY_TEST_UNTIL";
/// How long the test runs; more for a soak.
const SECONDS: &str = "CACHETRONOMY_FRESHNESS_SECONDS";

const WRITERS: u64 = 2;
const READERS: u64 = 2;
/// Threads of a reader; a writer has one that reads beside the one that writes.
const THREADS: u64 = 2;
const KEYS: u64 = 6;
/// Numbers that one life of a writer may use: the next life goes on above them.
const NUMBERS_PER_LIFE: u64 = 1 << 32;

fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap()
}

struct Dice(u64);

impl Dice {
    /// Seeded by the clock: how processes interleave cannot be repeated anyway.
    fn new() -> Self {
        Self(now() | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn open(folder: &Path) -> Cache<u64> {
    let location = Location::File(folder.join("a.db"));
    // One place less than there are keys: entries also come and go for lack of room.
    let max_items_in_memory = Some(Some(usize::try_from(KEYS - 1).unwrap()));
    let settings = Settings {
        location,
        max_items_in_memory,
        ..Settings::default()
    };
    let surroundings = Surroundings {
        parallelism: 4,
        ..Surroundings::default()
    };
    Cache::open(settings, surroundings).unwrap()
}

fn append(path: PathBuf) -> std::fs::File {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap()
}

#[test]
fn plays_its_part_as_a_child() {
    let Ok(part) = std::env::var(PART) else {
        return;
    };
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let until: u64 = std::env::var(UNTIL).unwrap().parse().unwrap();
    let words: Vec<&str> = part.split(' ').collect();
    let number = |index: usize| words[index].parse::<u64>().unwrap();
    let cache = open(&folder);
    let notes = |thread: u64| append(folder.join(format!("{}.{thread}", part.replace(' ', "."))));
    match words[0] {
        "writer" => std::thread::scope(|scope| {
            scope.spawn(|| read(&cache, notes(1), until));
            Writer {
                cache: &cache,
                own: number(1),
                notes: notes(0),
            }
            .run(number(2), until);
        }),
        "reader" => std::thread::scope(|scope| {
            for thread in 1..=THREADS {
                let (cache, notes) = (&cache, notes(thread));
                scope.spawn(move || read(cache, notes, until));
            }
        }),
        _ => read_blindly(&cache, notes(1), until),
    }
    cache.close().1.unwrap();
}

struct Writer<'a> {
    cache: &'a Cache<u64>,
    own: u64,
    notes: std::fs::File,
}

impl Writer<'_> {
    fn run(&mut self, life: u64, until: u64) {
        let mut dice = Dice::new();
        let own: Vec<u64> = (0..KEYS).filter(|key| key % WRITERS == self.own).collect();
        let mut count = life * NUMBERS_PER_LIFE;
        // Those whose value certainly has its tag: one written together with others has none.
        let mut tagged = HashSet::new();
        while now() < until {
            count += 1;
            let key = own[usize::try_from(dice.below(own.len() as u64)).unwrap()];
            let name = key.to_string();
            match dice.below(100) {
                0..75 => {
                    self.perform(Kind::Set, &[key], count, |it| it.set(&[key], count));
                    tagged.insert(key);
                }
                75..82 => {
                    self.perform(Kind::Set, &own, count, |it| it.set(&own, count));
                    tagged.clear();
                }
                82..98 => self.perform(Kind::Delete, &[key], count, |it| {
                    let tag = format!("tag {key}");
                    if tagged.contains(&key) && count.is_multiple_of(2) {
                        it.cache
                            .delete_by_tags(&[tag], count.is_multiple_of(4))
                            .unwrap();
                    } else {
                        it.cache.delete(&[&name]).unwrap();
                    }
                }),
                98 => self.perform(Kind::Delete, &[EVERY_KEY], count, |it| {
                    it.cache.clear().unwrap();
                }),
                _ => self.cache.maintain().unwrap(),
            }
            // Readers get some time in which memory is fresh: there it has to prove itself.
            std::thread::sleep(Duration::from_micros(dice.below(1_000)));
        }
    }

    fn perform(&mut self, kind: Kind, keys: &[u64], number: u64, action: impl FnOnce(&Self)) {
        self.note(kind, keys, number, 0);
        action(self);
        self.note(kind, keys, number, 1);
    }

    fn note(&mut self, kind: Kind, keys: &[u64], number: u64, ended: u64) {
        let time = now();
        let row = |key: &u64| op_row(kind, *key, number, ended, time);
        note(&mut self.notes, &keys.iter().map(row).collect::<Vec<_>>());
    }

    fn set(&self, keys: &[u64], value: u64) {
        let names: Vec<String> = keys.iter().map(u64::to_string).collect();
        let bytes = value.to_string().into_bytes();
        // All entries of one call have the same tags, and a tag here is to mean one key.
        let tags = if keys.len() == 1 {
            vec![format!("tag {}", keys[0])]
        } else {
            Vec::new()
        };
        let part = self.cache.begin_write(Some(Ttl::Never), Some(&tags));
        let draft = self.cache.draft(bytes, "json", &part, 1, 0);
        let entries: Vec<_> = names.iter().map(|name| (&**name, &draft)).collect();
        let commit = self.cache.store(&entries).unwrap();
        for name in &names {
            drop(self.cache.keep(name, value, &draft, commit));
        }
    }
}

/// The value, or `ABSENT`, and whether memory had it.
fn get(cache: &Cache<u64>, key: &str) -> (u64, bool) {
    if let Lookup::Hit(value) = cache.lookup(cache.hash(key), key, None, true, |value, _| *value) {
        return (value, true);
    }
    let Some(arrival) = cache.fetch(key, None, true).unwrap() else {
        return (ABSENT, false);
    };
    let value = std::str::from_utf8(&arrival.row.data)
        .unwrap()
        .parse()
        .unwrap();
    drop(cache.admit(key, value, arrival, true));
    (value, false)
}

/// Reads until the time is over.
fn read(cache: &Cache<u64>, notes: std::fs::File, until: u64) {
    read_with(notes, until, |key| get(cache, key));
}

/// As a cache would that never asks whether what it has is still right.
fn read_blindly(cache: &Cache<u64>, notes: std::fs::File, until: u64) {
    let mut known: HashMap<String, u64> = HashMap::new();
    read_with(notes, until, |key| {
        if let Some(value) = known.get(key) {
            return (*value, true);
        }
        let (value, _) = get(cache, key);
        if value != ABSENT {
            known.insert(key.to_owned(), value);
        }
        (value, false)
    });
}

fn read_with(mut notes: std::fs::File, until: u64, mut get: impl FnMut(&str) -> (u64, bool)) {
    const FLUSH: u64 = 50_000_000;
    let names: Vec<String> = (0..KEYS).map(|key| key.to_string()).collect();
    let mut dice = Dice::new();
    let mut runs: Vec<Reads> = Vec::new();
    // Where the run of each key is: reads of the same value need one line only.
    let mut open_runs: HashMap<u64, usize> = HashMap::new();
    let mut flush_at = now() + FLUSH;
    loop {
        let key = dice.below(KEYS);
        let start = now();
        let (value, hit) = get(&names[usize::try_from(key).unwrap()]);
        let end = now();
        let run = open_runs.get(&key).map(|index| &mut runs[*index]);
        if let Some(run) = run.filter(|run| run.value == value && value != ABSENT) {
            run.last_start = start;
            run.count += 1;
            run.from_memory += u64::from(hit);
        } else {
            open_runs.insert(key, runs.len());
            let (first_end, last_start, count) = (end, start, 1);
            let from_memory = u64::from(hit);
            runs.push(Reads {
                key,
                value,
                first_end,
                last_start,
                count,
                from_memory,
            });
        }
        if end >= flush_at || end >= until {
            note(
                &mut notes,
                &runs.iter().map(|run| run.row()).collect::<Vec<_>>(),
            );
            runs.clear();
            open_runs.clear();
            flush_at = end + FLUSH;
        }
        if end >= until {
            return;
        }
    }
}

fn start(part: &str, folder: &Path, until: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "plays_its_part_as_a_child", "--nocapture"])
        .envs([(PART, part), (UNTIL, &until.to_string())])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Runs everybody until the time is over; returns, for each life of a writer, when it was over.
fn run(folder: &Path, until: u64, kills: &AtomicU64) -> Vec<(String, u64)> {
    let mut dice = Dice::new();
    let parts = (0..READERS).map(|reader| format!("reader {reader}"));
    let readers: Vec<Child> = parts
        .chain(["blind".to_owned()])
        .map(|part| start(&part, folder, until))
        .collect();
    let begin = |writer: u64, life: u64| start(&format!("writer {writer} {life}"), folder, until);
    let mut writers: Vec<(u64, Child)> = (0..WRITERS).map(|writer| (1, begin(writer, 1))).collect();
    let mut lives = Vec::new();
    while now() + 600_000_000 < until {
        std::thread::sleep(Duration::from_millis(150 + dice.below(250)));
        let victim = dice.below(WRITERS);
        let (life, child) = &mut writers[usize::try_from(victim).unwrap()];
        child.kill().unwrap();
        child.wait().unwrap();
        kills.fetch_add(1, Ordering::Relaxed);
        lives.push((format!("writer.{victim}.{life}"), now()));
        *life += 1;
        *child = begin(victim, *life);
    }
    for (writer, (life, child)) in writers.iter_mut().enumerate() {
        assert!(child.wait().unwrap().success(), "writer {writer} failed");
        lives.push((format!("writer.{writer}.{life}"), now()));
    }
    for mut reader in readers {
        assert!(reader.wait().unwrap().success(), "a reader failed");
    }
    lives
}

#[test]
fn a_read_never_returns_what_another_process_had_changed_before_it_began() {
    let seconds = std::env::var(SECONDS).map_or(5, |text| text.parse::<u64>().unwrap());
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).close().1.unwrap();
    let kills = AtomicU64::new(0);
    let lives = run(folder.path(), now() + seconds * 1_000_000_000, &kills);

    let mut history = History::default();
    for (life, over) in &lives {
        history.add(&folder.path().join(format!("{life}.0")), *over);
    }
    history.seal();
    let notes = |name: &str| history::reads(&folder.path().join(name));
    let (mut reads, mut from_memory, mut violations) = (0, 0, Vec::new());
    let readers = (0..READERS)
        .flat_map(|reader| (1..=THREADS).map(move |thread| format!("reader.{reader}.{thread}")))
        .chain(lives.iter().map(|(life, _)| format!("{life}.1")));
    for reader in readers {
        let runs = notes(&reader);
        reads += runs.iter().map(|run| run.count).sum::<u64>();
        from_memory += runs.iter().map(|run| run.from_memory).sum::<u64>();
        violations.extend(history.violations(&runs));
    }
    let blind = history.violations(&notes("blind.1")).len();
    let (writes, kills) = (history.completed(), kills.into_inner());
    let summary = format!(
        "{seconds} s: {writes} writes, {kills} kills, {reads} reads, {from_memory} of them from \
         memory, {} wrong; {blind} wrong without a proof of freshness",
        violations.len()
    );
    assert!(
        violations.is_empty(),
        "{summary}; the first: {:#?}",
        &violations[..violations.len().min(5)]
    );
    assert!(blind > 0, "the checker sees nothing: {summary}");
    let planned = seconds * 2_000;
    let enough = reads >= planned
        && from_memory >= planned / 2
        && kills >= seconds
        && writes as u64 >= seconds * 50;
    assert!(enough, "too little was checked: {summary}");
    eprintln!("{summary}");

    let cache = open(folder.path());
    assert_eq!(cache.check(false).unwrap(), [""; 0], "{summary}");
    assert_eq!(cache.stats().unwrap().errors, 0);
    cache.close().1.unwrap();
}
