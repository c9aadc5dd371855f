//! Opening a client and closing it: at once or, for an async one, when it is needed first.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments::{self, Items};
use super::client::Client;
use super::errand;
use super::error::{CacheClosedError, CachetronomyError};
use super::fields;
use super::fork::{self, OPENING};
use super::manual::{PyManualClock, PyManualGauge};
use super::registry::{hook, register};
use super::shared::Shared;
use super::value::Prefer;
use crate::error::{Error, Result};
use crate::pressure::Gauge;
use crate::settings::{Location, Settings};
use crate::time::Clock;
use crate::worker;

/// How a client is to be opened.
pub(super) struct Plan {
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    pub(super) gauge: Gauge,
    pub(super) serializer: Option<Prefer>,
    /// Of the async client, whose methods return awaitables: a weak reference to it.
    pub(super) owner: Option<Py<PyAny>>,
    pub(super) offload_reads: bool,
}

impl Client {
    /// What was opened.
    #[inline]
    pub(super) fn shared(&self) -> PyResult<&Arc<Shared>> {
        self.shared.get().ok_or_else(|| self.not_open())
    }

    /// What is opened now if it was not yet, which may wait for a lock or the disk.
    pub(super) fn opened(&self, py: Python<'_>) -> PyResult<&Arc<Shared>> {
        if let Some(shared) = self.shared.get() {
            return Ok(shared);
        }
        let plan = self.plan.get().ok_or_else(|| self.not_open())?;
        self.check_usable()?;
        // Until it is registered, no fork would know of it.
        let _inside = OPENING.enter(py);
        let shared = Arc::new(Shared::open(py, plan, &self.switch, &self.lanes)?);
        register(&shared);
        shared.tell(py);
        if let Err(shared) = self.shared.set(shared) {
            // Another thread was faster.
            shared.shutdown_alone(py)?;
        }
        self.shared()
    }

    /// Where its store is, or will be.
    pub(super) fn location(&self) -> PyResult<&Location> {
        let plan = self.plan.get().ok_or_else(|| self.not_open())?;
        Ok(&plan.settings.location)
    }

    /// The cache, if it is open, ready for a call that may use the store.
    pub(super) fn begin(&self, py: Python<'_>) -> PyResult<&Arc<Shared>> {
        let shared = self.opened(py)?;
        shared.begin(py)?;
        Ok(shared)
    }

    /// An error if it is closed, or was made without `__init__`.
    pub(super) fn check_usable(&self) -> PyResult<()> {
        match self.shared.get() {
            Some(shared) => Ok(shared.cache.check_open()?),
            None if self.is_over.load(Ordering::Acquire) => Err(Error::Closed.into()),
            None if self.plan.get().is_some() => Ok(()),
            None => Err(self.not_open()),
        }
    }

    #[cold]
    pub(super) fn not_open(&self) -> PyErr {
        if self.is_over.load(Ordering::Acquire) {
            return Error::Closed.into();
        }
        CacheClosedError::new_err(if self.plan.get().is_some() {
            "this cache is not open yet; await init_async() first"
        } else {
            "this cache was never opened; call super().__init__() first"
        })
    }

    pub(super) fn end(&self, py: Python<'_>) -> Result<()> {
        self.is_over.store(true, Ordering::Release);
        if self.shared.get().is_none() {
            py.detach(|| self.lanes.close());
        }
        // An opening that was under way has come to its end.
        self.shared
            .get()
            .map_or(Ok(()), |shared| shared.shutdown(py))
    }

    /// Closes what its last user let go of. Where an event loop runs, another thread does.
    pub(super) fn leave(&self, py: Python<'_>) {
        if self.is_through() {
            return;
        }
        self.is_over.store(true, Ordering::Release);
        let (shared, lanes) = (self.shared.get().cloned(), Arc::clone(&self.lanes));
        let close = move |py: Python<'_>| match shared {
            // Nobody is left to be told of an error.
            Some(shared) => drop(shared.shutdown(py)),
            None => py.detach(|| lanes.close()),
        };
        if errand::is_on_loop(py) {
            worker::spawn_orphan(move || {
                fork::mark_background();
                Python::try_attach(close);
            });
        } else {
            close(py);
        }
    }

    /// Whether there is nothing left to close.
    fn is_through(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
            && self
                .shared
                .get()
                .is_none_or(|shared| shared.cache.is_through())
    }
}

#[pymethods]
impl Client {
    /// Checks and remembers how the cache is to be opened: the first thing that `__init__` has to
    /// do. `owner`: a weak reference to the async client that it serves, for which whatever may
    /// wait returns an awaitable.
    #[pyo3(signature = (
        db_path, profile, given, environment, *, max_items_in_memory = Items::NotGiven,
        busy_timeout = None, serializer = None, clock = None, gauge = None, owner = None,
        offload_reads = None
    ), text_signature = "($self, db_path, profile, given, environment, *, max_items_in_memory=..., \
                         busy_timeout=None, serializer=None, clock=None, gauge=None, \
                         owner=None, offload_reads=None)")]
    #[expect(clippy::too_many_arguments, reason = "everything that can be set")]
    fn _prepare(
        &self,
        db_path: Option<&Bound<'_, PyAny>>,
        profile: &Bound<'_, PyAny>,
        given: &Bound<'_, PyDict>,
        environment: &Bound<'_, PyDict>,
        max_items_in_memory: Items,
        busy_timeout: Option<&Bound<'_, PyAny>>,
        serializer: Option<&str>,
        clock: Option<&Bound<'_, PyManualClock>>,
        gauge: Option<&Bound<'_, PyManualGauge>>,
        owner: Option<Py<PyAny>>,
        offload_reads: Option<bool>,
    ) -> PyResult<()> {
        hook(profile.py())?;
        let mut settings = arguments::settings(db_path, max_items_in_memory, busy_timeout)?;
        settings.profile = fields::name(profile)?;
        settings.given = fields::changes(given)?;
        settings.environment = fields::changes(environment)?;
        let clock = clock.map_or(Clock::System, |hands| {
            Clock::Manual(hands.get().clock.clone())
        });
        let gauge = gauge.map_or(Gauge::System, |hand| {
            Gauge::Manual(hand.get().gauge.clone())
        });
        let plan = Plan {
            settings,
            clock,
            gauge,
            serializer: arguments::format(serializer)?,
            owner,
            offload_reads: offload_reads.unwrap_or(false),
        };
        self.plan
            .set(plan)
            .map_err(|_| CachetronomyError::new_err("this cache is open already"))
    }

    /// Whether nobody has to wait for its closing.
    #[getter]
    fn _is_through(&self) -> bool {
        self.is_through()
    }

    /// Opens the cache, if it is not open yet.
    fn _open(&self, py: Python<'_>) -> PyResult<()> {
        self.opened(py)?;
        self.check_usable()
    }
}
