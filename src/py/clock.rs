//! A clock that tests turn by hand.

use pyo3::prelude::*;

use crate::time::{Clock, ManualClock};

/// A clock that stands still: pass it as `_clock=` to a client, and `advance` it.
#[pyclass(name = "ManualClock", module = "cachetronomy._core", frozen)]
pub(crate) struct PyManualClock {
    pub(super) clock: ManualClock,
}

#[pymethods]
impl PyManualClock {
    /// Starts at the present.
    #[new]
    fn new() -> Self {
        Self {
            clock: ManualClock::new(Clock::System.now()),
        }
    }

    /// Moves the clock by `seconds`; backwards if negative.
    fn advance(&self, seconds: f64) {
        #[expect(clippy::cast_possible_truncation, reason = "a test's few seconds")]
        self.clock.advance((seconds * 1e6) as i64);
    }
}
