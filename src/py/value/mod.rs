//! The bridge between Python objects and the bytes of the store.

mod classes;
mod decode;
mod encode;
mod formats;
mod models;
mod numpy;
mod same;
mod typed;
mod types;
mod walk;

use pyo3::exceptions::{PyException, PyMemoryError};
use pyo3::prelude::*;

pub(crate) use classes::class_version;
pub(crate) use decode::decode;
pub(crate) use encode::encode;
pub(crate) use formats::{Prefer, register_serializer};
pub(crate) use same::first_difference;

/// Whether an exception is about the value at hand, and not about the process (out of memory,
/// an interrupt), which the caller has to see as it is.
fn is_about_value(error: &PyErr, py: Python<'_>) -> bool {
    error.is_instance_of::<PyException>(py) && !error.is_instance_of::<PyMemoryError>(py)
}
