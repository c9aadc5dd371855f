//! Writing: encoded first, stored second, kept in memory third.

use super::{Cache, add};
use crate::entry::{EntryMeta, NewEntry};
use crate::error::Result;
use crate::freshness::Commit;
use crate::memory::Resident;
use crate::time::Ttl;

/// An encoded value with everything that is stored beside it.
#[derive(Debug)]
pub struct Draft {
    /// The encoded value.
    pub data: Vec<u8>,
    /// The name of its format.
    pub format: String,
    meta: EntryMeta,
}

impl<V> Cache<V> {
    /// Fixes the deadline of a value that was just encoded. `ttl`: `None` for the default.
    pub fn draft(
        &self,
        data: Vec<u8>,
        format: &str,
        ttl: Option<Ttl>,
        version: i64,
        compute_us: i64,
    ) -> Draft {
        let ttl = ttl.unwrap_or(self.settings.time_to_live);
        let meta = EntryMeta {
            expire_at: self.clock.now().after(ttl),
            version,
            compute_us,
        };
        Draft {
            data,
            format: String::from(format),
            meta,
        }
    }

    /// Commits entries to the store, in one transaction.
    pub fn store(&self, drafts: &[(&str, &Draft)], tags: &[String]) -> Result<Commit> {
        self.check_open()?;
        let entries: Vec<NewEntry<'_>> = drafts
            .iter()
            .map(|(key, draft)| NewEntry {
                key,
                data: &draft.data,
                format: &draft.format,
                meta: draft.meta,
                tags,
            })
            .collect();
        let commit = self.store.write(&entries)?;
        add(&self.counters.sets, entries.len() as u64);
        Ok(commit)
    }

    /// Keeps a value in memory that `commit` has stored. Returns what left.
    #[must_use = "drop what left where a destructor may run"]
    pub fn keep(&self, key: &str, value: V, draft: &Draft, commit: Commit) -> Vec<V> {
        let Some(stamp) = self.freshness.after_write(commit, key) else {
            // Somebody committed since: whether this is still the newest value, only a read of
            // the store can tell. What memory had is older still.
            let mut left = self.book(self.memory.remove(key));
            left.push(value);
            return left;
        };
        let weight = key.len() + draft.data.len();
        let resident = Resident {
            value,
            meta: draft.meta,
            stamp,
            weight,
        };
        self.book(self.memory.insert(self.hash(key), key, resident, None))
    }
}
