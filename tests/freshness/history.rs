//! What writers and readers noted, and whether any read contradicts it.
//!
//! Each key has one writer, whose operations on it follow one another; clears may come from any
//! writer. Values are the numbers of their operations, so that later ones are larger. All times
//! are those of one clock: an operation took place somewhere between its start and its end.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// No value: what a read returns of a key that is not there.
pub(crate) const ABSENT: u64 = 0;
/// The key of an operation on all of them.
pub(crate) const EVERY_KEY: u64 = u64::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Set,
    Delete,
}

/// An operation of a writer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Op {
    pub(crate) kind: Kind,
    pub(crate) number: u64,
    pub(crate) start: u64,
    /// `u64::MAX` where its writer was killed before it could say so.
    pub(crate) end: u64,
    /// The latest moment at which it can have happened, if it happened.
    pub(crate) over: u64,
}

/// Reads of one key in a row, by one thread, that returned the same; absences stand alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reads {
    pub(crate) key: u64,
    pub(crate) value: u64,
    /// The end of the first.
    pub(crate) first_end: u64,
    /// The start of the last.
    pub(crate) last_start: u64,
    pub(crate) count: u64,
    /// How many of them were answered by memory.
    pub(crate) from_memory: u64,
}

/// Appends numbers to a file, in one system call: what is noted survives the death of the process.
pub(crate) fn note<const N: usize>(file: &mut std::fs::File, rows: &[[u64; N]]) {
    let bytes: Vec<u8> = rows
        .iter()
        .flatten()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    file.write_all(&bytes).unwrap();
}

fn noted<const N: usize>(path: &Path) -> Vec<[u64; N]> {
    let bytes = std::fs::read(path).unwrap_or_default();
    let mut numbers = bytes
        .chunks_exact(8)
        .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
    let mut row = || -> Option<[u64; N]> {
        let mut row = [0; N];
        for cell in &mut row {
            *cell = numbers.next()?;
        }
        Some(row)
    };
    std::iter::from_fn(&mut row).collect()
}

/// What a writer notes before (`ended` 0) and after (1) an operation.
pub(crate) fn op_row(kind: Kind, key: u64, number: u64, ended: u64, time: u64) -> [u64; 5] {
    [kind as u64, key, number, ended, time]
}

impl Reads {
    pub(crate) fn row(self) -> [u64; 6] {
        let Self {
            key,
            value,
            first_end,
            last_start,
            count,
            from_memory,
        } = self;
        [key, value, first_end, last_start, count, from_memory]
    }
}

/// All runs of reads that one thread noted, in their order.
pub(crate) fn reads(path: &Path) -> Vec<Reads> {
    noted(path)
        .into_iter()
        .map(
            |[key, value, first_end, last_start, count, from_memory]| Reads {
                key,
                value,
                first_end,
                last_start,
                count,
                from_memory,
            },
        )
        .collect()
}

/// The operations of all writers.
#[derive(Debug, Default)]
pub(crate) struct History {
    keys: BTreeMap<u64, Vec<Op>>,
    clears: Vec<Op>,
    /// By key: the earliest end of this operation and all later ones.
    earliest_end: BTreeMap<u64, Vec<u64>>,
}

impl History {
    /// Adds the notes of one process. Those of one writer come in the order of their lives;
    /// `over`: when it was certainly dead.
    pub(crate) fn add(&mut self, path: &Path, over: u64) {
        for [kind, key, number, ended, time] in noted(path) {
            let kind = if kind == Kind::Set as u64 {
                Kind::Set
            } else {
                Kind::Delete
            };
            let ops = if key == EVERY_KEY {
                &mut self.clears
            } else {
                self.keys.entry(key).or_default()
            };
            if ended == 0 {
                ops.push(Op {
                    kind,
                    number,
                    start: time,
                    end: u64::MAX,
                    over,
                });
            } else if let Some(op) = ops.iter_mut().rev().find(|op| op.number == number) {
                (op.end, op.over) = (time, time);
            }
        }
    }

    /// To be called when all is added.
    pub(crate) fn seal(&mut self) {
        for (key, ops) in &self.keys {
            assert!(
                ops.is_sorted_by_key(|op| op.number),
                "a writer counts upwards"
            );
            let mut earliest = vec![u64::MAX; ops.len() + 1];
            for (index, op) in ops.iter().enumerate().rev() {
                earliest[index] = earliest[index + 1].min(op.end);
            }
            self.earliest_end.insert(*key, earliest);
        }
    }

    /// Operations that returned.
    pub(crate) fn completed(&self) -> usize {
        let all = self.keys.values().flatten().chain(&self.clears);
        all.filter(|op| op.end != u64::MAX).count()
    }

    /// The reads of one thread that cannot have been right.
    pub(crate) fn violations(&self, reads: &[Reads]) -> Vec<String> {
        let mut newest = BTreeMap::new();
        let mut found = Vec::new();
        for read in reads {
            let wrong = if read.value == ABSENT {
                self.absence(read)
            } else {
                let before = newest.insert(read.key, read.value);
                let backwards = before.is_some_and(|before| before > read.value);
                self.presence(read)
                    .or(backwards.then_some("older than what it read before"))
            };
            found.extend(wrong.map(|wrong| format!("{wrong}: {read:?}")));
        }
        found
    }

    fn presence(&self, read: &Reads) -> Option<&'static str> {
        let ops = self.keys.get(&read.key)?;
        let Ok(index) = ops.binary_search_by_key(&read.value, |op| op.number) else {
            return Some("never written");
        };
        let op = ops[index];
        let cleared = || {
            self.clears
                .iter()
                .any(|clear| clear.start > op.end && clear.end < read.last_start)
        };
        if op.kind == Kind::Delete || read.first_end < op.start {
            Some("not written yet")
        } else if self.earliest_end[&read.key][index + 1] < read.last_start {
            Some("replaced or deleted before the read began")
        } else if op.end != u64::MAX && cleared() {
            Some("cleared before the read began")
        } else {
            None
        }
    }

    fn absence(&self, read: &Reads) -> Option<&'static str> {
        let ops = self.keys.get(&read.key)?;
        let index = ops.iter().rposition(|op| op.end < read.last_start)?;
        let op = ops[index];
        let deleted = || {
            let later = ops[index..]
                .iter()
                .take_while(|later| later.start < read.first_end);
            later.into_iter().any(|later| later.kind == Kind::Delete)
        };
        let cleared = || {
            let mut clears = self.clears.iter();
            clears.any(|clear| clear.over > op.start && clear.start < read.first_end)
        };
        (!deleted() && !cleared()).then_some("lost")
    }
}

#[test]
fn the_checker_knows_right_from_wrong() {
    let op = |kind, number, start, end| Op {
        kind,
        number,
        start,
        end,
        over: end,
    };
    let mut history = History::default();
    let ops = vec![
        op(Kind::Set, 1, 10, 20),
        op(Kind::Set, 2, 30, 40),
        op(Kind::Delete, 3, 50, 60),
        op(Kind::Set, 4, 70, 80),
        op(Kind::Set, 5, 110, u64::MAX),
    ];
    history.keys.insert(0, ops);
    history.clears.push(op(Kind::Delete, 9, 90, 100));
    history.seal();
    let judge = |value, start, end| {
        let read = Reads {
            key: 0,
            value,
            first_end: end,
            last_start: start,
            count: 1,
            from_memory: 0,
        };
        history.violations(&[read]).is_empty()
    };
    for (value, start, end) in [
        (ABSENT, 0, 5),
        (ABSENT, 15, 16),
        (1, 15, 16),
        (1, 39, 45),
        (2, 35, 36),
        (2, 59, 61),
        (ABSENT, 55, 56),
        (ABSENT, 65, 66),
        (ABSENT, 75, 76),
        (4, 99, 101),
        (ABSENT, 95, 96),
        (ABSENT, 105, 106),
        (5, 115, 116),
        (ABSENT, 115, 116),
    ] {
        assert!(
            judge(value, start, end),
            "{value} from {start} to {end} is right"
        );
    }
    for (value, start, end) in [
        (1, 5, 9),
        (ABSENT, 25, 26),
        (1, 41, 42),
        (ABSENT, 45, 46),
        (2, 61, 62),
        (3, 65, 66),
        (ABSENT, 85, 86),
        (2, 85, 86),
        (4, 101, 102),
        (6, 120, 121),
        (5, 100, 105),
    ] {
        assert!(
            !judge(value, start, end),
            "{value} from {start} to {end} is wrong"
        );
    }
}
