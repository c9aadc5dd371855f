//! Processes that are killed while they write, and processes that all make the same file at once.
//!
//! A child is this very program, told by the environment which part to play.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use cachetronomy::cache::{Cache, Surroundings};
use cachetronomy::settings::{Location, Settings};
use cachetronomy::time::Ttl;

const PART: &str = "CACHETRONOMY_TEST_PART";
const FILE: &str = "CACHETRONOMY_TEST_FILE";
const NAME: &str = "CACHETRONOMY_TEST_NAME";
const BEGIN: &str = "CACHETRONOMY_TEST_BEGIN";

/// Writers that are killed together in one round.
const WRITERS: usize = 2;
/// Threads of each.
const THREADS: usize = 2;
/// Entries that the dishonest writer acknowledges ahead.
const AHEAD: u64 = 50;

fn open(path: &Path) -> Cache<()> {
    let location = Location::File(path.to_owned());
    let settings = Settings {
        location,
        ..Settings::default()
    };
    Cache::open(settings, Surroundings::default()).unwrap()
}

fn write(cache: &Cache<()>, key: &str, value: u64) {
    // Long enough for a value to spill over the end of a page now and then.
    let data = value.to_string().repeat(40).into_bytes();
    let part = cache.begin_write(Some(Ttl::Never), Some(&["t".to_owned()]));
    let draft = cache.draft(data, "json", &part, 1, 0);
    let commit = cache.store(&[(key, &draft)]).unwrap();
    drop(cache.keep(key, (), &draft, commit));
}

fn is_written(cache: &Cache<()>, key: &str, value: u64) -> bool {
    let found = cache.fetch(key, None, true).unwrap();
    found.is_some_and(|arrival| arrival.row.data == value.to_string().repeat(40).into_bytes())
}

/// Nanoseconds of the clock that all processes share.
fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap()
}

/// xorshift: the moments of the kills, printed when something fails.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn rounds(default: u64) -> u64 {
    std::env::var("CACHETRONOMY_CRASH_ROUNDS").map_or(default, |text| text.parse().unwrap())
}

fn start(part: &str, path: &Path, name: &str, begin: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "plays_its_part_as_a_child", "--nocapture"])
        .envs([(PART, part), (NAME, name), (BEGIN, &begin.to_string())])
        .env(FILE, path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn plays_its_part_as_a_child() {
    let Ok(part) = std::env::var(PART) else {
        return;
    };
    let path = PathBuf::from(std::env::var_os(FILE).unwrap());
    let name = std::env::var(NAME).unwrap();
    match part.as_str() {
        "opener" => race_to_open(&path, &name),
        _ => write_until_killed(&path, &name, part == "honest writer"),
    }
}

/// Each line on the pipe is a promise: this key has this value, even if I die now.
fn write_until_killed(path: &Path, name: &str, honest: bool) {
    let cache = open(path);
    let acknowledge = |thread: usize, number: u64| {
        let line = format!("{name}.{thread} {number}\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    };
    let work = |thread: usize| {
        for batch in 0.. {
            let numbers = batch * AHEAD..(batch + 1) * AHEAD;
            if !honest {
                numbers
                    .clone()
                    .for_each(|number| acknowledge(thread, number));
            }
            for number in numbers {
                write(&cache, &format!("{name}.{thread}.{number}"), number);
                // One key that is written over and over, too.
                write(&cache, &format!("{name}.{thread}"), number);
                if honest {
                    acknowledge(thread, number);
                }
            }
            cache.maintain().unwrap();
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || work(thread));
        }
    });
}

/// What a killed writer had said, in the order of its saying; `first`: what was read already.
fn promises(first: u8, pipe: &mut ChildStderr) -> Vec<(String, u64)> {
    let mut text = String::from(char::from(first));
    pipe.read_to_string(&mut text).unwrap();
    // The kill may have cut the last line.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line: &str| {
        let (thread, number) = line.split_once(' ').unwrap();
        (thread.to_owned(), number.parse().unwrap())
    };
    whole.lines().map(parse).collect()
}

/// Kills writers at random moments; returns the promises checked and those that were broken.
fn kill_writers(path: &Path, part: &str, round: u64, dice: &mut Dice) -> (usize, Vec<String>) {
    let names: Vec<String> = (0..WRITERS)
        .map(|writer| format!("{round}.{writer}"))
        .collect();
    let mut children: Vec<Child> = names
        .iter()
        .map(|name| start(part, path, name, 0))
        .collect();
    let mut promised = Vec::new();
    for child in &mut children {
        // The first promise shows that the writer is at work; from there on any moment will do.
        let mut pipe = child.stderr.take().unwrap();
        let mut first = [0];
        pipe.read_exact(&mut first).unwrap();
        std::thread::sleep(Duration::from_micros(dice.below(60_000)));
        child.kill().unwrap();
        promised.append(&mut promises(first[0], &mut pipe));
        child.wait().unwrap();
    }
    let start = Instant::now();
    let cache = open(path);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "a dead writer's lock was waited for"
    );
    let mut broken = Vec::new();
    let mut latest = std::collections::BTreeMap::new();
    for (thread, number) in &promised {
        if !is_written(&cache, &format!("{thread}.{number}"), *number) {
            broken.push(format!("{thread}.{number}"));
        }
        latest.insert(thread, *number);
    }
    for (thread, number) in latest {
        // It may be one ahead: stored, and killed before it could say so.
        let stored = (number..=number + 1).any(|number| is_written(&cache, thread, number));
        if !stored {
            broken.push(format!("{thread} at {number}"));
        }
    }
    assert_eq!(cache.check(false).unwrap(), [""; 0], "after round {round}");
    write(&cache, "afterwards", round);
    cache.close().1.unwrap();
    (promised.len(), broken)
}

#[test]
fn an_acknowledged_write_survives_the_death_of_its_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let seed = now() | 1;
    let mut dice = Dice(seed);
    let (rounds, mut checked) = (rounds(20), 0);
    for round in 0..rounds {
        let (promised, broken) = kill_writers(&path, "honest writer", round, &mut dice);
        assert_eq!(broken, [""; 0], "lost, with seed {seed}, in round {round}");
        checked += promised;
    }
    let planned = usize::try_from(rounds * 40).unwrap();
    assert!(
        checked >= planned,
        "{checked} promises of {rounds} rounds, {planned} were planned"
    );
}

#[test]
fn a_writer_that_acknowledges_before_it_stores_is_caught() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let mut dice = Dice(now() | 1);
    let caught = (0..20).any(|round| {
        let (_, broken) = kill_writers(&path, "dishonest writer", round, &mut dice);
        !broken.is_empty()
    });
    assert!(caught, "the test above would not notice a loss");
}

/// Opens the file at the given moment, writes, reads, and closes.
fn race_to_open(path: &Path, name: &str) {
    let begin: u64 = std::env::var(BEGIN).unwrap().parse().unwrap();
    while now() < begin {
        std::hint::spin_loop();
    }
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let cache = open(path);
                let key = format!("{name}.{thread}");
                write(&cache, &key, 7);
                assert!(is_written(&cache, &key, 7));
                cache.close().1.unwrap();
            });
        }
    });
}

#[test]
fn many_processes_can_make_the_same_file_at_once() {
    const PROCESSES: usize = 8;
    let mut failures = Vec::new();
    for round in 0..rounds(5) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/folder/a.db");
        let begin = now() + 150_000_000;
        let children: Vec<Child> = (0..PROCESSES)
            .map(|process| start("opener", &path, &process.to_string(), begin))
            .collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            if !output.status.success() {
                failures.push((round, String::from_utf8_lossy(&output.stderr).into_owned()));
            }
        }
        let cache = open(&path);
        assert_eq!(
            cache.store_keys().unwrap().len(),
            PROCESSES * THREADS,
            "{failures:?}"
        );
        assert_eq!(cache.check(false).unwrap(), [""; 0]);
        cache.close().1.unwrap();
        let file = rusqlite::Connection::open(&path).unwrap();
        let made: (i64, String) = file
            .query_row(
                "SELECT * FROM pragma_auto_vacuum, pragma_journal_mode",
                [],
                |row| row.try_into(),
            )
            .unwrap();
        assert_eq!(
            made,
            (2, String::from("wal")),
            "made whole by whoever came first"
        );
    }
    assert!(failures.is_empty(), "{failures:#?}");
}
