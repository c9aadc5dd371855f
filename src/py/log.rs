//! The program's log: the logger `cachetronomy` of Python's `logging`.

use pyo3::prelude::*;
use pyo3::types::PyDict;

fn logger(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    py.import("logging")?
        .call_method1("getLogger", ("cachetronomy",))
}

/// A log that fails must not fail what it tells of.
fn unless_it_fails(py: Python<'_>, logged: PyResult<Bound<'_, PyAny>>) {
    if let Err(error) = logged {
        error.write_unraisable(py, None);
    }
}

/// Logs a warning.
#[cold]
pub(super) fn warn(py: Python<'_>, message: &str) {
    let log = || logger(py)?.call_method1("warning", ("%s", message));
    unless_it_fails(py, log());
}

/// Logs an error that nobody gets to catch, with its traceback.
#[cold]
pub(super) fn error(py: Python<'_>, message: &str, error: PyErr) {
    let log = || {
        let keywords = PyDict::new(py);
        keywords.set_item("exc_info", error.into_value(py))?;
        logger(py)?.call_method("error", ("%s", message), Some(&keywords))
    };
    unless_it_fails(py, log());
}
