//! Reading and writing in one step: nobody else changes the key in between.
//!
//! What these store, their caller keeps in memory as after any other write.

use serde::de::{DeserializeSeed, Deserializer, Visitor};

use super::{Cache, Draft, Part, add};
use crate::codec::{self, Format};
use crate::entry::{EntryMeta, EvictionReason, Row};
use crate::error::{Error, Result};
use crate::freshness::Commit;
use crate::store::{Change, Which};
use crate::time::{Timestamp, Ttl};

/// What a counter may hold: the whole numbers that every reader of JSON knows exactly.
const COUNTS: std::ops::RangeInclusive<i128> = i64::MIN as i128..=u64::MAX as i128;

/// The format of counters, which everybody reads.
const JSON: &str = "json";

/// A counter after it was changed.
#[derive(Debug)]
pub struct Counted {
    /// Its value.
    pub number: i128,
    /// What was stored; nothing if it is not to be kept.
    pub stored: Option<(EntryMeta, usize, Commit)>,
}

/// How a counter is changed.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// What is added.
    pub delta: i128,
    /// What it is added to where there is no live entry.
    pub default: i128,
    /// The life of the entry from now on; `None`: an entry that is there keeps its deadline.
    pub ttl: Option<Ttl>,
}

impl Step {
    /// The sum, if it is one that a counter may hold.
    pub fn from(&self, key: &str, number: i128) -> Result<i128> {
        let sum = number.checked_add(self.delta);
        sum.filter(|sum| COUNTS.contains(sum))
            .ok_or_else(|| refused(key, "the result would be an int beyond 64 bits"))
    }
}

fn refused(key: &str, reason: &str) -> Error {
    Error::Serialization {
        reason: format!("key {key:?}: {reason}; nothing was changed"),
    }
}

impl<V> Cache<V> {
    fn live(&self, row: Option<Row>) -> Option<Row> {
        let now = self.clock.now();
        row.filter(|row| row.meta.expire_at > now && row.is_value())
    }

    /// Stores an entry if there is no live one. `None`: there is one.
    pub fn add(&self, key: &str, draft: &Draft) -> Result<Option<Commit>> {
        self.check_open()?;
        // A look that takes no lock from anybody.
        if let Ok(found) = self.store.read(key, true)
            && self.live(found.row).is_some()
        {
            return Ok(None);
        }
        let mut added = false;
        let commit = self.store.update(key, &mut |row| {
            added = self.live(row).is_none();
            Ok(if added {
                Change::Write(draft.entry(key))
            } else {
                Change::Keep
            })
        })?;
        if added {
            add(&self.counters.sets, 1);
        }
        Ok(added.then_some(commit))
    }

    /// Adds to a number. `part`: how the entry is written where there is none.
    pub fn increment(&self, key: &str, step: Step, part: &Part) -> Result<Counted> {
        self.check_open()?;
        let fresh = step.from(key, step.default).map(|number| {
            let data = number.to_string().into_bytes();
            (number, self.draft(data, JSON, part, 1, 0))
        });
        let (mut number, mut meta, mut weight) = (0, None, 0);
        let commit = self.store.update(key, &mut |row| {
            let Some(row) = self.live(row) else {
                let (sum, draft) = fresh.as_ref().map_err(Clone::clone)?;
                number = *sum;
                if step.ttl.is_some_and(Ttl::is_zero) {
                    return Ok(Change::Delete);
                }
                (meta, weight) = (Some(draft.meta), key.len() + draft.data.len());
                return Ok(Change::Write(draft.entry(key)));
            };
            let stored = number_of(&row)
                .ok_or_else(|| refused(key, "what is stored there is not an int of 64 bits"))?;
            number = step.from(key, stored)?;
            if step.ttl.is_some_and(Ttl::is_zero) {
                return Ok(Change::Delete);
            }
            let data = number.to_string().into_bytes();
            let deadline = step.ttl.map(|ttl| self.clock.now().after(ttl));
            let expire_at = deadline.unwrap_or(row.meta.expire_at);
            (meta, weight) = (
                Some(EntryMeta {
                    expire_at,
                    compute_us: 0,
                    ..row.meta
                }),
                key.len() + data.len(),
            );
            Ok(Change::Value {
                data,
                format: JSON,
                expire_at,
            })
        })?;
        if meta.is_some() {
            add(&self.counters.sets, 1);
        }
        Ok(Counted {
            number,
            stored: meta.map(|meta| (meta, weight, commit)),
        })
    }

    /// Deletes a live entry, and returns its row: to one caller only.
    pub fn pop(&self, key: &str) -> Result<Option<Row>> {
        self.check_open()?;
        // A look that takes no lock from anybody, and reports a row that cannot be read.
        if self.fetch(key, None, true)?.is_none() {
            return Ok(None);
        }
        let mut popped = None;
        self.store.update(key, &mut |row| {
            popped = self.live(row);
            Ok(match popped {
                Some(_) => Change::Delete,
                None => Change::Keep,
            })
        })?;
        if popped.is_some() {
            add(&self.counters.store_hits, 1);
            self.log_eviction(key, EvictionReason::User);
        } else {
            self.count_miss();
        }
        Ok(popped)
    }

    /// Gives a live entry a new deadline, so long from now; says whether there is one. `None`: the
    /// active profile's time to live.
    pub fn touch(&self, key: &str, ttl: Option<Ttl>) -> Result<bool> {
        self.check_open()?;
        let ttl = ttl.unwrap_or_else(|| self.active().ttl);
        let mut touched = false;
        self.store.update(key, &mut |row| {
            touched = self.live(row).is_some();
            Ok(if !touched {
                Change::Keep
            } else if ttl.is_zero() {
                Change::Delete
            } else {
                Change::Deadline(self.clock.now().after(ttl))
            })
        })?;
        if touched && ttl.is_zero() {
            self.log_eviction(key, EvictionReason::User);
        }
        Ok(touched)
    }

    /// The deadline of a live entry; counts nothing.
    pub fn deadline(&self, key: &str) -> Result<Option<Timestamp>> {
        let row = self.rows(Which::Key(key), None, true)?.pop();
        Ok(row.map(|row| row.row.meta.expire_at))
    }

    /// The present, by the clock that deadlines are judged by.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Makes `owner` the owner of the lease of a name for so long, unless somebody has it.
    pub fn take_lease(&self, name: &str, owner: &str, ttl: Ttl) -> Result<bool> {
        self.check_open()?;
        self.store.take_lease(name, owner, ttl, &self.clock)
    }

    /// Ends a lease; says whether it was still this owner's until now.
    pub fn end_lease(&self, name: &str, owner: &str) -> Result<bool> {
        self.check_open()?;
        self.store.end_lease(name, owner, &self.clock)
    }
}

/// The whole number that a row holds, if it is one of 64 bits.
fn number_of(row: &Row) -> Option<i128> {
    let format = Format::parse(&row.format)?;
    codec::decode(&row.data, format, Number).ok()
}

/// Reads a whole number and nothing else: no float that happens to be whole, no bool.
struct Number;

impl<'de> DeserializeSeed<'de> for Number {
    type Value = i128;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<i128, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Number {
    type Value = i128;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an int")
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<i128, E> {
        Ok(number.into())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<i128, E> {
        Ok(number.into())
    }
}
