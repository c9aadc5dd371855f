//! Long work with the interpreter in hand, on a thread that serves an event loop: in between the loop
//! gets its turn.

use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyList;

use super::fork;

/// How long a loop may have to wait for its turn.
const TURN: Duration = Duration::from_millis(1);

/// How long whoever waits needs to wake up. To let go without a pause would be to get hold of it
/// again at once.
const PAUSE: Duration = Duration::from_micros(50);

/// Lets others have the interpreter now and then.
pub(super) struct Breath {
    since: Instant,
    is_background: bool,
}

impl Breath {
    pub(super) fn new() -> Self {
        Self {
            since: Instant::now(),
            is_background: fork::is_background(),
        }
    }

    /// Called after each piece of work.
    pub(super) fn take(&mut self, py: Python<'_>) {
        if self.is_background && self.since.elapsed() >= TURN {
            py.detach(|| std::thread::sleep(PAUSE));
            self.since = Instant::now();
        }
    }
}

/// A list of what may be many.
pub(super) fn list<'py, T: IntoPyObject<'py>>(
    py: Python<'py>,
    items: impl IntoIterator<Item = T>,
) -> PyResult<Bound<'py, PyList>> {
    let mut breath = Breath::new();
    let list = PyList::empty(py);
    for item in items {
        list.append(item)?;
        breath.take(py);
    }
    Ok(list)
}

/// Drops values, whose destructors may take their time.
pub(super) fn drop_all(py: Python<'_>, values: Vec<Py<PyAny>>) {
    let mut breath = Breath::new();
    for value in values {
        drop(value);
        breath.take(py);
    }
}
