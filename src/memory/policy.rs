//! Which entry leaves a full memory tier.

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// Chooses the entries that leave. One policy serves one shard, under that shard's lock.
///
/// Entries are named by small numbers, `id`, that the caller assigns and uses again after
/// `remove` or `evict`; a policy may index a vector by them.
pub trait Policy: Send {
    /// A new entry. The caller guarantees that `id` is not resident.
    fn insert(&mut self, id: u32, hash: u64);

    /// A resident entry was read. MUST be O(1): it runs inside every hit.
    fn hit(&mut self, id: u32);

    /// A resident entry leaves for another reason: deleted, expired, replaced. MUST be O(1).
    fn remove(&mut self, id: u32);

    /// There is room for so many entries from now on; `None`: no limit on their number.
    fn resize(&mut self, capacity: Option<usize>);

    /// Chooses a resident entry and forgets it; `None` when nothing is resident. MUST be O(1)
    /// amortised.
    fn evict(&mut self) -> Option<u32>;

    /// Checks the policy's own bookkeeping against the number of resident entries.
    fn validate(&self, resident: usize) -> Result<(), String>;
}

const NONE: u32 = u32::MAX;
/// A count of two bits is enough to tell warm from hot, and forgets in three rounds.
const MAX_COUNT: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    Free,
    Small,
    Main,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    hash: u64,
    older: u32,
    younger: u32,
    count: u8,
    queue: Queue,
}

/// A queue of nodes, linked through the vector that holds them.
#[derive(Debug, Clone, Copy)]
struct List {
    oldest: u32,
    youngest: u32,
    len: usize,
}

impl List {
    const EMPTY: Self = Self {
        oldest: NONE,
        youngest: NONE,
        len: 0,
    };

    fn push(&mut self, nodes: &mut [Node], id: u32) {
        nodes[id as usize].older = self.youngest;
        nodes[id as usize].younger = NONE;
        match self.youngest {
            NONE => self.oldest = id,
            youngest => nodes[youngest as usize].younger = id,
        }
        self.youngest = id;
        self.len += 1;
    }

    fn unlink(&mut self, nodes: &mut [Node], id: u32) {
        let Node { older, younger, .. } = nodes[id as usize];
        match older {
            NONE => self.oldest = younger,
            older => nodes[older as usize].younger = younger,
        }
        match younger {
            NONE => self.youngest = older,
            younger => nodes[younger as usize].older = older,
        }
        self.len -= 1;
    }
}

/// S3-FIFO: a small queue for newcomers, a main queue with a second chance, and a memory of the
/// hashes that lately left the small one.
///
/// A scan passes through the small queue and never touches the main one; a hit sets two bits.
/// Source: Yang, Zhang, Qiu, Yue, Rashmi: FIFO queues are all you need for cache eviction,
/// SOSP 2023.
#[derive(Debug)]
pub struct S3Fifo {
    nodes: Vec<Node>,
    small: List,
    main: List,
    ghosts: Ghosts,
    small_target: usize,
}

impl S3Fifo {
    /// A policy for `capacity` entries; `None` when there is no limit on their number.
    pub fn new(capacity: Option<usize>) -> Self {
        let mut policy = Self {
            nodes: Vec::new(),
            small: List::EMPTY,
            main: List::EMPTY,
            ghosts: Ghosts::new(),
            small_target: 1,
        };
        policy.resize(capacity);
        policy
    }

    fn push(&mut self, id: u32, queue: Queue) {
        self.nodes[id as usize].queue = queue;
        match queue {
            Queue::Small => self.small.push(&mut self.nodes, id),
            Queue::Main => self.main.push(&mut self.nodes, id),
            Queue::Free => {}
        }
    }

    fn unlink(&mut self, id: u32) {
        match self.nodes[id as usize].queue {
            Queue::Small => self.small.unlink(&mut self.nodes, id),
            Queue::Main => self.main.unlink(&mut self.nodes, id),
            Queue::Free => {}
        }
        self.nodes[id as usize].queue = Queue::Free;
    }

    /// Newcomers that were read go to the main queue; the first that was not leaves.
    fn evict_from_small(&mut self) -> Option<u32> {
        while self.small.len > 0 {
            let id = self.small.oldest;
            self.unlink(id);
            let node = &mut self.nodes[id as usize];
            if node.count == 0 {
                self.ghosts.insert(node.hash);
                return Some(id);
            }
            node.count = 0;
            self.push(id, Queue::Main);
        }
        None
    }

    /// Each read gives one more round; the first without one leaves.
    fn evict_from_main(&mut self) -> Option<u32> {
        while self.main.len > 0 {
            let id = self.main.oldest;
            self.unlink(id);
            let node = &mut self.nodes[id as usize];
            if node.count == 0 {
                return Some(id);
            }
            node.count -= 1;
            self.push(id, Queue::Main);
        }
        None
    }
}

impl Policy for S3Fifo {
    fn insert(&mut self, id: u32, hash: u64) {
        let node = Node {
            hash,
            older: NONE,
            younger: NONE,
            count: 0,
            queue: Queue::Free,
        };
        let index = id as usize;
        if index >= self.nodes.len() {
            self.nodes.resize(index + 1, node);
        }
        self.nodes[index] = node;
        let queue = if self.ghosts.take(hash) {
            Queue::Main
        } else {
            Queue::Small
        };
        self.push(id, queue);
    }

    #[inline]
    fn hit(&mut self, id: u32) {
        let count = &mut self.nodes[id as usize].count;
        *count = MAX_COUNT.min(*count + 1);
    }

    fn remove(&mut self, id: u32) {
        self.unlink(id);
    }

    fn resize(&mut self, capacity: Option<usize>) {
        // Without a limit nobody calls `evict`, but the number of ghosts needs some bound.
        let capacity = capacity.unwrap_or(65_536);
        self.small_target = (capacity / 10).max(1);
        self.ghosts.resize(capacity);
    }

    fn evict(&mut self) -> Option<u32> {
        if self.small.len >= self.small_target || self.main.len == 0 {
            self.evict_from_small().or_else(|| self.evict_from_main())
        } else {
            self.evict_from_main()
        }
    }

    fn validate(&self, resident: usize) -> Result<(), String> {
        let linked = self.small.len + self.main.len;
        let queued = self
            .nodes
            .iter()
            .filter(|node| node.queue != Queue::Free)
            .count();
        if linked == resident && queued == resident {
            return Ok(());
        }
        Err(format!(
            "policy: {linked} linked, {queued} queued, {resident} resident"
        ))
    }
}

/// The hashes of entries that left lately, oldest first out.
#[derive(Debug)]
struct Ghosts {
    order: VecDeque<(u64, u32)>,
    /// How often each hash was inserted: an older mention of it must not end a newer one.
    newest: HashMap<u64, u32, FixedState>,
    capacity: usize,
    inserted: u32,
}

impl Ghosts {
    fn new() -> Self {
        Self {
            order: VecDeque::new(),
            newest: HashMap::with_hasher(FixedState::default()),
            capacity: 0,
            inserted: 0,
        }
    }

    fn resize(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.shrink();
    }

    fn insert(&mut self, hash: u64) {
        self.inserted = self.inserted.wrapping_add(1);
        self.order.push_back((hash, self.inserted));
        self.newest.insert(hash, self.inserted);
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.order.len() > self.capacity {
            if let Some((hash, number)) = self.order.pop_front()
                && self.newest.get(&hash) == Some(&number)
            {
                self.newest.remove(&hash);
            }
        }
    }

    fn take(&mut self, hash: u64) -> bool {
        self.newest.remove(&hash).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: u64) -> u64 {
        key.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    /// A cache of keys only, as the shard drives the policy.
    struct Keys {
        policy: S3Fifo,
        ids: HashMap<u64, u32, FixedState>,
        names: Vec<u64>,
        free: Vec<u32>,
        capacity: usize,
    }

    impl Keys {
        fn new(capacity: usize) -> Self {
            Self {
                policy: S3Fifo::new(Some(capacity)),
                ids: HashMap::default(),
                names: vec![0; capacity],
                free: (0..u32::try_from(capacity).unwrap()).collect(),
                capacity,
            }
        }

        fn access(&mut self, key: u64) -> bool {
            if let Some(id) = self.ids.get(&key) {
                self.policy.hit(*id);
                return true;
            }
            while self.ids.len() >= self.capacity {
                let id = self.policy.evict().unwrap();
                self.ids.remove(&self.names[id as usize]);
                self.free.push(id);
            }
            let id = self.free.pop().unwrap();
            self.names[id as usize] = key;
            self.ids.insert(key, id);
            self.policy.insert(id, hash(key));
            self.policy.validate(self.ids.len()).unwrap();
            false
        }
    }

    #[test]
    fn a_scan_does_not_push_out_what_is_read_again_and_again() {
        let mut cache = Keys::new(100);
        for _ in 0..4 {
            for key in 0..50 {
                cache.access(key);
            }
        }
        for key in 1_000..3_000 {
            cache.access(key);
        }
        let kept = (0..50).filter(|key| cache.ids.contains_key(key)).count();
        assert!(kept >= 45, "{kept} of 50 hot keys outlived the scan");
    }

    #[test]
    fn a_key_that_returns_soon_after_it_left_goes_to_the_main_queue() {
        let mut cache = Keys::new(10);
        for key in 0..20 {
            cache.access(key);
        }
        assert!(!cache.ids.contains_key(&5));
        cache.access(5);
        for key in 100..200 {
            cache.access(key);
        }
        assert!(
            cache.ids.contains_key(&5),
            "a returning key should outlive a scan"
        );
    }

    #[test]
    fn removed_entries_leave_the_books_balanced() {
        let mut policy = S3Fifo::new(Some(8));
        for id in 0..8 {
            policy.insert(id, hash(u64::from(id)));
        }
        for id in [3, 0, 7] {
            policy.remove(id);
        }
        policy.validate(5).unwrap();
        let mut left: Vec<u32> = std::iter::from_fn(|| policy.evict()).collect();
        left.sort_unstable();
        assert_eq!(left, [1, 2, 4, 5, 6]);
        policy.validate(0).unwrap();
    }
}
