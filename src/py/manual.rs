//! What tests turn by hand: a clock, and a gauge of the free RAM.

use pyo3::prelude::*;

use crate::pressure::{ManualGauge, Memory};
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

/// A reading of the RAM that stays as it is: pass it as `_gauge=` to a client, and `set` it.
#[pyclass(name = "ManualGauge", module = "cachetronomy._core", frozen)]
pub(crate) struct PyManualGauge {
    pub(super) gauge: ManualGauge,
}

#[pymethods]
impl PyManualGauge {
    /// Bytes of all RAM, and of what is available.
    #[new]
    fn new(total: u64, available: u64) -> Self {
        Self {
            gauge: ManualGauge::new(Memory { total, available }),
        }
    }

    /// So many bytes are available from now on.
    fn set(&self, available: u64) {
        self.gauge.set_available(available);
    }
}
