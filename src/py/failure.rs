//! Exceptions that are kept: rows of a format of their own, which no reader takes for values.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::put::Put;
use super::shared::Shared;
use crate::entry::EXCEPTION;
use crate::store::fence::Watch;

impl Shared {
    /// Stores an exception in the place of a value. Memory never holds one.
    pub(super) fn put_failure(
        &self,
        py: Python<'_>,
        key: &str,
        data: &[u8],
        put: &Put,
        watch: &Watch,
    ) -> PyResult<()> {
        self.begin(py)?;
        if put.is_void() {
            self.remove(py, &[key])?;
            return Ok(());
        }
        let part = put.begin(&self.cache);
        let version = put.version.unwrap_or(1);
        let draft = self
            .cache
            .draft(data.to_vec(), EXCEPTION, &part, version, put.compute_us);
        let stored = self.detached(py, |cache| cache.store_computed(key, &draft, watch))?;
        if stored.is_some() {
            drop(self.cache.forget([key]));
        }
        Ok(())
    }
}

/// The bytes of an exception, if it is of one of the classes and can be made again.
pub(super) fn write(error: &PyErr, classes: &Bound<'_, PyTuple>) -> PyResult<Option<Vec<u8>>> {
    let py = classes.py();
    let written = py
        .import("cachetronomy._failures")?
        .call_method1("dump", (error.value(py), classes))?;
    let bytes = written.extract::<Option<Bound<'_, PyBytes>>>()?;
    Ok(bytes.map(|bytes| bytes.as_bytes().to_vec()))
}

/// A new instance of what was kept; `None` if it is of none of the classes, or fits no more.
pub(super) fn read(data: &[u8], classes: &Bound<'_, PyTuple>) -> PyResult<Option<PyErr>> {
    let py = classes.py();
    let made = py
        .import("cachetronomy._failures")?
        .call_method1("load", (PyBytes::new(py, data), classes))?;
    Ok((!made.is_none()).then(|| PyErr::from_value(made)))
}
