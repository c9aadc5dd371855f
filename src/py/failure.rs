//! Exceptions that are kept: rows of a format of their own, which no reader takes for values.

use std::sync::atomic::Ordering;

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use super::decorator::CachedFunction;
use super::log;
use super::put::Put;
use super::shared::Shared;
use super::ticket::Ticket;
use crate::cache::Draft;
use crate::entry::EXCEPTION;
use crate::store::fence::Watch;

impl Shared {
    /// Stores an exception in the place of a value, now. Memory never holds one.
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
        let draft = self.draft_failure(data.to_vec(), put);
        let stored = self.detached(py, |cache| cache.store_computed(key, &draft, watch))?;
        if stored.is_some() {
            drop(self.cache.forget([key]));
        }
        Ok(())
    }

    pub(super) fn draft_failure(&self, data: Vec<u8>, put: &Put) -> Draft {
        let part = put.begin(&self.cache);
        let version = put.version.unwrap_or(1);
        self.cache
            .draft(data, EXCEPTION, &part, version, put.compute_us)
    }
}

impl CachedFunction {
    /// The bytes of an exception, and how they are to be stored; `None`: not at all.
    pub(super) fn judge_failure(
        &self,
        py: Python<'_>,
        ticket: &Ticket,
        error: &PyErr,
        compute_us: i64,
    ) -> PyResult<Option<(Vec<u8>, Put)>> {
        let Some((classes, ttl)) = &self.options.exceptions else {
            return Ok(None);
        };
        if ticket.refreshing.is_some() {
            // It would take the place of a result that is of use still.
            return Ok(None);
        }
        let data = match write(error, classes.bind(py)) {
            Ok(data) => data,
            Err(reason) if reason.is_instance_of::<PyException>(py) => {
                self.warn(py, &ticket.key, &reason);
                None
            }
            Err(reason) => return Err(reason),
        };
        let put = Put {
            ttl: self.options.spread(Some(*ttl), || *ttl),
            version: Some(self.version.load(Ordering::Relaxed)),
            tags: ticket.tags.clone(),
            prefer: None,
            compute_us,
            function: ticket.function.clone(),
            grace: None,
        };
        Ok(data.map(|data| (data, put)))
    }

    /// Stores an exception. That it cannot be stored must not take its place.
    pub(super) fn store_failure(&self, py: Python<'_>, ticket: &Ticket, data: &[u8], put: &Put) {
        let (key, watch) = (&ticket.key, &ticket.watch);
        let Ok(shared) = self.shared() else { return };
        if let Err(reason) = shared.put_failure(py, key, data, put, watch)
            && !shared.has_exited()
        {
            self.warn(py, key, &reason);
        }
    }

    /// Tells the program's log, once, that an exception was not kept.
    #[cold]
    pub(super) fn warn(&self, py: Python<'_>, key: &str, reason: &PyErr) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            let reason = reason.value(py);
            log::warn(
                py,
                &format!("key {key:?}: its exception was not kept: {reason}"),
            );
        }
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
