//! Writing: encoded first, stored second, kept in memory third.

use std::sync::Arc;

use super::{Cache, add};
use crate::entry::{EntryMeta, FullRow, NewEntry};
use crate::error::{Error, Result};
use crate::freshness::Commit;
use crate::memory::{Entry, Resident};
use crate::store::fence::{Subject, Watch};
use crate::time::{Timestamp, Ttl};

/// How an entry is to be written, with what its writer left open filled in from the profile that
/// was active when the write began.
#[derive(Debug, Clone)]
pub struct Part {
    expire_at: Timestamp,
    tags: Vec<String>,
    profile: Arc<str>,
    function: Option<Arc<str>>,
    stale_until: Option<Timestamp>,
}

impl Part {
    /// The same of a decorated function. `function`: its name, where the key does not tell it;
    /// `grace`: how long a stale value is of use.
    #[must_use]
    pub fn of_function(self, function: Option<Arc<str>>, grace: Option<Ttl>) -> Self {
        let stale_until = grace.map(|grace| self.expire_at.after(grace));
        Self {
            function,
            stale_until,
            ..self
        }
    }
}

/// An encoded value with everything that is stored beside it.
#[derive(Debug)]
pub struct Draft {
    /// The encoded value.
    pub data: Vec<u8>,
    /// The name of its format.
    pub format: String,
    pub(super) meta: EntryMeta,
    part: Part,
}

impl Draft {
    /// The entry of a key that it makes.
    pub(super) fn entry<'a>(&'a self, key: &'a str) -> NewEntry<'a> {
        NewEntry {
            key,
            data: &self.data,
            format: &self.format,
            meta: self.meta,
            tags: &self.part.tags,
            profile: &self.part.profile,
            function: self.part.function.as_deref(),
            stale_until: self.part.stale_until,
        }
    }
}

impl<V> Cache<V> {
    /// What a write that begins now does not say itself. `None`: the active profile's.
    pub fn begin_write(&self, ttl: Option<Ttl>, tags: Option<&[String]>) -> Part {
        let active = self.active();
        Part {
            expire_at: self.clock.now().after(ttl.unwrap_or(active.ttl)),
            tags: tags.unwrap_or(&active.profile.tags).to_vec(),
            profile: Arc::clone(&active.name),
            function: None,
            stale_until: None,
        }
    }

    /// Completes a value that was just encoded.
    pub fn draft(
        &self,
        data: Vec<u8>,
        format: &str,
        part: &Part,
        version: i64,
        compute_us: i64,
    ) -> Draft {
        Draft {
            data,
            format: String::from(format),
            meta: EntryMeta {
                expire_at: part.expire_at,
                version,
                compute_us,
            },
            part: part.clone(),
        }
    }

    /// Commits entries to the store, in one transaction.
    pub fn store(&self, drafts: &[(&str, &Draft)]) -> Result<Commit> {
        self.check_open()?;
        let entries: Vec<NewEntry<'_>> =
            drafts.iter().map(|(key, draft)| draft.entry(key)).collect();
        let commit = self.store.write(&entries)?;
        add(&self.counters.sets, entries.len() as u64);
        Ok(commit)
    }

    /// Begins to watch for changes of an entry that is about to be computed. `tags`: `None` for
    /// the active profile's.
    pub fn watch(&self, key: &str, tags: Option<&[String]>, function: Option<Arc<str>>) -> Watch {
        let tags = match tags {
            Some(tags) => tags.to_vec(),
            None => self.active().profile.tags.clone(),
        };
        self.store.fence().watch(Subject {
            key: String::from(key),
            tags,
            function,
        })
    }

    /// As [`Cache::store`] of a value that was computed, unless its key was changed meanwhile: then
    /// `None`.
    pub fn store_computed(
        &self,
        key: &str,
        draft: &Draft,
        watch: &Watch,
    ) -> Result<Option<Commit>> {
        self.check_open()?;
        if watch.has_changed() {
            return Ok(None);
        }
        let (written, commit) = self.store.write_group(&[(draft.entry(key), Some(watch))])?;
        let written = written.contains(&true);
        add(&self.counters.sets, u64::from(written));
        Ok(written.then_some(commit))
    }

    /// Commits entries of several writers to the store, in one transaction if none is refused; says
    /// of each how it went. One that was computed comes with its watch; `None`: its key was changed
    /// meanwhile.
    pub fn store_group(
        &self,
        group: &[(&str, &Draft, Option<&Watch>)],
    ) -> Vec<Result<Option<Commit>>> {
        let together = self.check_open().and_then(|()| {
            let members = group
                .iter()
                .map(|(key, draft, watch)| (draft.entry(key), *watch));
            self.store.write_group(&members.collect::<Vec<_>>())
        });
        match together {
            Ok((written, commit)) => {
                let count = written.iter().filter(|written| **written).count();
                add(&self.counters.sets, count as u64);
                let each = written.into_iter().map(|it| Ok(it.then_some(commit)));
                each.collect()
            }
            // It may be about one of them alone. Who waited for a lock has waited for all.
            Err(error) if group.len() > 1 && !matches!(error, Error::StoreBusy { .. }) => group
                .iter()
                .flat_map(|member| self.store_group(std::slice::from_ref(member)))
                .collect(),
            Err(error) => group.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    /// Commits a row as it is to the store, in the place of its predecessor.
    pub fn store_row(&self, row: &FullRow) -> Result<()> {
        self.check_open()?;
        self.store.write(&[NewEntry {
            key: &row.key,
            data: &row.row.data,
            format: &row.row.format,
            meta: row.row.meta,
            tags: &row.tags,
            profile: &row.profile,
            function: None,
            stale_until: None,
        }])?;
        add(&self.counters.sets, 1);
        Ok(())
    }

    /// Keeps a value in memory that `commit` has stored. Returns what left.
    #[must_use = "drop what left where a destructor may run"]
    pub fn keep(&self, key: &str, value: V, draft: &Draft, commit: Commit) -> Vec<V> {
        self.keep_as(key, value, draft.meta, key.len() + draft.data.len(), commit)
    }

    /// As [`Cache::keep`] of an entry of which only this is known; `weight`: its bytes, as encoded,
    /// with its key.
    #[must_use = "drop what left where a destructor may run"]
    pub fn keep_as(
        &self,
        key: &str,
        value: V,
        meta: EntryMeta,
        weight: usize,
        commit: Commit,
    ) -> Vec<V> {
        let Some(stamp) = self.freshness.after_write(commit, key) else {
            // Somebody committed since: whether this is still the newest value, only a read of
            // the store can tell. What memory had is older still.
            let mut left = self.book(self.memory.remove(key));
            left.push(value);
            return left;
        };
        let resident = Resident {
            value,
            meta,
            stamp,
            weight,
        };
        let entry = Entry {
            now: self.clock.coarse(),
            hit: false,
        };
        self.book(self.memory.insert(self.hash(key), key, resident, entry))
    }
}
