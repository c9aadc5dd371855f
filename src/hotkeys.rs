//! How often each key was hit: in this process, and since the last flush to the store.

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::entry::AccessRecord;
use crate::time::Timestamp;

/// Keys whose counts are remembered; beyond it the coldest half is forgotten.
const MAX_KEYS: usize = 65_536;

#[derive(Debug, Clone, Copy)]
struct Count {
    total: u64,
    pending: u64,
    last: Timestamp,
}

/// A bounded table of access counts. It does no input or output.
#[derive(Debug, Default)]
pub struct HotKeys {
    counts: Mutex<HashMap<Box<str>, Count>>,
}

impl HotKeys {
    /// Adds `hits` to a key.
    pub fn record(&self, key: &str, hits: u64, last: Timestamp) {
        if hits == 0 {
            return;
        }
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(key) {
            count.total += hits;
            count.pending += hits;
            count.last = count.last.max(last);
            return;
        }
        if counts.len() >= MAX_KEYS {
            forget_coldest(&mut counts);
        }
        counts.insert(
            key.into(),
            Count {
                total: hits,
                pending: hits,
                last,
            },
        );
    }

    /// Hits of one key in this process.
    pub fn total(&self, key: &str) -> u64 {
        self.counts.lock().get(key).map_or(0, |count| count.total)
    }

    /// Hits of many keys in this process, in the order of the keys.
    pub fn totals<'k>(&self, keys: impl Iterator<Item = &'k str>) -> Vec<u64> {
        let counts = self.counts.lock();
        keys.map(|key| counts.get(key).map_or(0, |count| count.total))
            .collect()
    }

    /// Forgets the hits of a key in this process; what waits for a flush is still flushed.
    pub fn forget(&self, key: &str) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(key) {
            count.total = 0;
            if count.pending == 0 {
                counts.remove(key);
            }
        }
    }

    /// The hottest keys of this process, hottest first, equal counts in the order of the keys.
    pub fn hottest(&self, limit: Option<usize>) -> Vec<(String, u64)> {
        let counts = self.counts.lock();
        let mut all: Vec<_> = counts
            .iter()
            .map(|(key, count)| (String::from(&**key), count.total))
            .filter(|(_, total)| *total > 0)
            .collect();
        drop(counts);
        all.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(limit.unwrap_or(usize::MAX));
        all
    }

    /// Takes what was counted since the last call.
    pub fn take_pending(&self) -> Vec<AccessRecord> {
        let mut records = Vec::new();
        for (key, count) in self.counts.lock().iter_mut() {
            if count.pending > 0 {
                records.push(AccessRecord {
                    key: String::from(&**key),
                    count: std::mem::take(&mut count.pending),
                    last_accessed: count.last,
                });
            }
        }
        records
    }

    /// Gives back records that could not be written, for the next flush.
    pub fn put_back(&self, records: Vec<AccessRecord>) {
        let mut counts = self.counts.lock();
        for record in records {
            let known = Count {
                total: record.count,
                pending: 0,
                last: record.last_accessed,
            };
            counts
                .entry(record.key.into_boxed_str())
                .or_insert(known)
                .pending += record.count;
        }
    }
}

/// Drops the colder half of the keys that wait for no flush.
fn forget_coldest(counts: &mut HashMap<Box<str>, Count>) {
    let mut totals: Vec<u64> = counts.values().map(|count| count.total).collect();
    let middle = totals.len() / 2;
    let (_, median, _) = totals.select_nth_unstable(middle);
    let median = *median;
    // Most counts are often equal (a scan): of those, as many go as half the table asks for.
    let mut excess = middle;
    counts.retain(|_, count| {
        let cold = excess > 0 && count.pending == 0 && count.total <= median;
        excess -= usize::from(cold);
        !cold
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(7);

    #[test]
    fn counts_add_up_and_the_hottest_come_first() {
        let hot = HotKeys::default();
        hot.record("a", 1, NOW);
        hot.record("b", 3, NOW);
        hot.record("a", 4, NOW);
        assert_eq!(
            hot.hottest(None),
            [("a".to_owned(), 5), ("b".to_owned(), 3)]
        );
        assert_eq!(hot.hottest(Some(1)).len(), 1);
        assert_eq!(hot.total("a"), 5);
    }

    #[test]
    fn each_hit_is_handed_to_the_store_once() {
        let hot = HotKeys::default();
        hot.record("a", 2, NOW);
        let records = hot.take_pending();
        assert_eq!(records.len(), 1);
        assert!(hot.take_pending().is_empty());
        hot.put_back(records);
        assert_eq!(
            hot.take_pending()[0].count,
            2,
            "a failed flush loses nothing"
        );
        assert_eq!(hot.total("a"), 2);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_coldest() {
        let hot = HotKeys::default();
        hot.record("hot", 1_000, NOW);
        for number in 0..3 * MAX_KEYS {
            hot.record(&number.to_string(), 1, NOW);
            if number % 1_000 == 0 {
                hot.take_pending();
            }
        }
        assert!(hot.hottest(None).len() <= MAX_KEYS);
        assert_eq!(hot.total("hot"), 1_000);
    }
}
