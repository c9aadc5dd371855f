//! The bridge between Python objects and the bytes of the store.

mod decode;
mod encode;
mod numpy;
mod typed;
mod types;

use pyo3::exceptions::{PyException, PyMemoryError};
use pyo3::prelude::*;

pub(crate) use decode::decode;
pub(crate) use encode::encode;

/// Whether an exception is about the value at hand, and not about the process (out of memory,
/// an interrupt), which the caller has to see as it is.
fn is_about_value(error: &PyErr, py: Python<'_>) -> bool {
    error.is_instance_of::<PyException>(py) && !error.is_instance_of::<PyMemoryError>(py)
}
