//! One word that a hit looks at: whether it may take the short way, as nearly always.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How many reasons there are not to: somebody listens to hits, a client is disabled.
static REASONS: AtomicUsize = AtomicUsize::new(0);

/// Whether there is any reason, with any client of the process, to look closer.
#[inline]
pub(super) fn is_needed() -> bool {
    REASONS.load(Ordering::Relaxed) != 0
}

/// One reason more.
pub(super) fn ask() {
    REASONS.fetch_add(1, Ordering::Relaxed);
}

/// One reason less.
pub(super) fn release() {
    REASONS.fetch_sub(1, Ordering::Relaxed);
}
