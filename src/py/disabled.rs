//! `disabled()`: a while in which a client finds nothing and stores nothing.

use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::attention;
use super::client::Client;
use super::error::CachetronomyError;
use super::shared::Shared;

/// How many `disabled()` a client is inside of.
#[derive(Debug, Default)]
pub(super) struct Switch(AtomicUsize);

impl Switch {
    #[inline]
    pub(super) fn is_off(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    fn off(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        attention::ask();
    }

    fn on(&self) {
        attention::release();
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What `disabled()` returns: the client is disabled while it is entered.
#[pyclass(name = "Disabled", module = "cachetronomy._core", frozen)]
pub(crate) struct Disabled {
    client: Py<Client>,
    /// How often it is entered.
    depth: AtomicUsize,
}

impl Disabled {
    pub(super) fn new(client: &Bound<'_, Client>) -> Self {
        Self {
            client: client.clone().unbind(),
            depth: AtomicUsize::new(0),
        }
    }
}

impl Drop for Disabled {
    fn drop(&mut self) {
        // A generator, say, that was never run to its end.
        for _ in 0..*self.depth.get_mut() {
            self.client.get().switch.on();
        }
    }
}

#[pymethods]
impl Disabled {
    fn __enter__(&self) -> PyResult<()> {
        let client = self.client.get();
        client.check_usable()?;
        self.depth.fetch_add(1, Ordering::Relaxed);
        client.switch.off();
        Ok(())
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        let less = |depth: usize| depth.checked_sub(1);
        let (order, depth) = (Ordering::Relaxed, &self.depth);
        if depth.try_update(order, order, less).is_err() {
            return Err(CachetronomyError::new_err("disabled() was not entered"));
        }
        self.client.get().switch.on();
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.client)
    }
}

impl Shared {
    /// Inside of `disabled()`; an error if it is closed.
    pub(super) fn is_disabled(&self) -> crate::error::Result<bool> {
        if !self.switch.is_off() {
            return Ok(false);
        }
        self.cache.check_open().map(|()| true)
    }
}
