//! Pauses between looks at a lease that somebody holds. They matter when that is another process:
//! a thread of this one wakes who waits.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// How long the next pause is: each twice as long as the one before.
pub(super) struct Patience(Duration);

impl Default for Patience {
    fn default() -> Self {
        Self(SHORTEST_PAUSE)
    }
}

impl Patience {
    /// The next pause.
    pub(super) fn pause(&mut self) -> Duration {
        // From half of it to all of it, so that processes do not keep step. Each state has keys of
        // its own.
        let half = self.0 / 2;
        let random = RandomState::new().hash_one(0) % u64::from(half.subsec_nanos());
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
        half + Duration::from_nanos(random)
    }
}
