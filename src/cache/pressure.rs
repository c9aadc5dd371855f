//! Eviction under memory pressure: the coldest leave until enough RAM is free.

use super::Cache;
use crate::entry::EvictionReason;
use crate::memory::Usage;
use crate::pressure::Memory;

impl<V> Cache<V> {
    /// RAM of the machine or the container, if it can be read.
    pub fn ram(&self) -> Option<Memory> {
        self.gauge.read()
    }

    /// One pass: if less RAM is available than `free_memory_target` asks for, entries of as many
    /// bytes as are missing leave memory, those with the fewest hits in this process first, of
    /// equals the one that was not used for longest. Returns how many left.
    ///
    /// The RAM is not read again to see whether they were enough: an allocator keeps what it gets
    /// back from small values, so that a pass which waited for the reading to rise would empty
    /// memory for nothing. What is still missing is the next pass's.
    pub fn relieve(&self, free_memory_target: f64) -> usize {
        let shortage = |ram: Memory| ram.shortage(free_memory_target);
        if self.memory.is_empty() {
            return 0;
        }
        let missing = self.ram().map_or(0, shortage);
        let mut freed = 0;
        let mut left = Vec::new();
        if missing > 0 {
            for entry in self.coldest() {
                left.extend(self.memory.remove(&entry.key).map(|mut removed| {
                    removed.reason = Some(EvictionReason::Pressure);
                    removed
                }));
                freed += entry.weight as u64;
                if freed >= missing {
                    break;
                }
            }
        }
        let evicted = left.len();
        self.dispose(self.book(left));
        evicted
    }

    /// What is in memory, coldest first.
    fn coldest(&self) -> Vec<Usage> {
        self.memory
            .harvest(|key, hits, last| self.hot.record(key, hits, last));
        let entries = self.memory.usage();
        let totals = self.hot.totals(entries.iter().map(|entry| &*entry.key));
        let mut ranked: Vec<_> = totals.into_iter().zip(entries).collect();
        ranked.sort_unstable_by_key(|(total, entry)| (*total, entry.last_used));
        ranked.into_iter().map(|(_, entry)| entry).collect()
    }
}
