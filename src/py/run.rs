//! How a method of a client is carried out: by the caller's thread, without the interpreter - or,
//! on the async client, by a thread that may wait, for an event loop that must not.

use std::sync::Arc;

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;

use super::errand::{self, Answer, Lane, Task};
use super::fork;
use super::put::PutWork;
use super::shared::{Live, Shared};
use crate::cache::Cache;
use crate::error::Result;

/// A value as any Python object.
pub(super) fn object<'py>(
    py: Python<'py>,
    value: impl IntoPyObjectExt<'py>,
) -> PyResult<Py<PyAny>> {
    value.into_py_any(py)
}

impl Shared {
    /// Whether calls on this thread return awaitables: those of the async client, on any thread but
    /// the ones that serve it.
    fn awaits(&self) -> bool {
        self.is_asynchronous && !fork::is_background()
    }

    /// What a call returns that has its answer at once.
    pub(super) fn answer(&self, py: Python<'_>, answer: Py<PyAny>) -> PyResult<Py<PyAny>> {
        if self.awaits() {
            errand::ready(py, answer)
        } else {
            Ok(answer)
        }
    }

    /// Carries out `work`, which may wait for a lock or the disk, and returns what `finish` makes of
    /// what it found: or, on the async client, an awaitable of that. `decodes`: `finish` may run
    /// code of the program.
    pub(super) fn run<T: Send + 'static>(
        self: &Arc<Self>,
        py: Python<'_>,
        (lane, decodes): (Lane, bool),
        work: impl FnOnce(&Cache<Live>) -> Result<T> + Send + 'static,
        finish: impl FnOnce(Python<'_>, &Arc<Self>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> PyResult<Py<PyAny>> {
        if self.awaits() {
            return self.send(py, (lane, decodes), work, finish);
        }
        let found = self.reading(py, work)?;
        finish(py, self, found)
    }

    /// As [`Shared::run`] for a coroutine function, with either client: an awaitable of the answer
    /// where an event loop runs, otherwise the answer.
    pub(super) fn run_aside<T: Send + 'static>(
        self: &Arc<Self>,
        py: Python<'_>,
        how: (Lane, bool),
        work: impl FnOnce(&Cache<Live>) -> Result<T> + Send + 'static,
        finish: impl FnOnce(Python<'_>, &Arc<Self>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> PyResult<Py<PyAny>> {
        if errand::running_loop(py)?.is_some() {
            return self.send(py, how, work, finish);
        }
        let found = self.reading(py, work)?;
        finish(py, self, found)
    }

    fn send<T: Send + 'static>(
        self: &Arc<Self>,
        py: Python<'_>,
        (lane, decodes): (Lane, bool),
        work: impl FnOnce(&Cache<Live>) -> Result<T> + Send + 'static,
        finish: impl FnOnce(Python<'_>, &Arc<Self>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> PyResult<Py<PyAny>> {
        let shared = Arc::clone(self);
        let work = move || -> Answer {
            let found = work(&shared.cache);
            Box::new(move |py| {
                shared.tell(py);
                finish(py, &shared, found?)
            })
        };
        self.lanes
            .send(py, lane, Task::Work(Box::new(work)), decodes)
    }

    /// As [`Shared::run`] of a write that may share a transaction with others.
    pub(super) fn run_put(self: &Arc<Self>, py: Python<'_>, put: PutWork) -> PyResult<Py<PyAny>> {
        if self.awaits() {
            return self.send_put(py, put);
        }
        put.store_now(py)
    }

    /// As [`Shared::run_aside`] of a write that may share a transaction with others.
    pub(super) fn put_aside(self: &Arc<Self>, py: Python<'_>, put: PutWork) -> PyResult<Py<PyAny>> {
        if errand::running_loop(py)?.is_some() {
            return self.send_put(py, put);
        }
        put.store_now(py)
    }

    fn send_put(&self, py: Python<'_>, put: PutWork) -> PyResult<Py<PyAny>> {
        let task = Task::Put(Box::new(put));
        self.lanes.send(py, Lane::Write, task, false)
    }
}
