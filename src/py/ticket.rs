//! What a call that missed has in hand until its result is stored.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::decorator::CachedFunction;
use super::flight::alive_loop;
use super::lease::Lease;
use super::refresh::Refreshing;
use crate::cache::{Alive, Arrival};
use crate::store::fence::Watch;

/// Where the result of a call that missed belongs. Made before the function is called, which may
/// change its arguments.
#[pyclass(name = "_Ticket", module = "cachetronomy._core", frozen)]
pub(crate) struct Ticket {
    pub(super) key: String,
    /// Whether the key was changed since.
    pub(super) watch: Arc<Watch>,
    /// `None`: the profile's.
    pub(super) tags: Option<Vec<String>>,
    /// The function, where the key does not tell it.
    pub(super) function: Option<Arc<str>>,
    /// A stale result that may take the place of an exception.
    pub(super) stale: Mutex<Option<Arrival>>,
    /// Of a refresh in the background.
    pub(super) refreshing: Option<Refreshing>,
    /// With `lock="process"`: of the one that computes.
    pub(super) lease: OnceLock<Lease>,
    /// Whoever had it has gone away.
    pub(super) is_forsaken: AtomicBool,
    /// Whether the event loop is open whose task computes.
    pub(super) alive: Mutex<Option<Alive>>,
}

impl Ticket {
    /// Takes over the lease.
    pub(super) fn hold(&self, lease: Lease) {
        let lease = self.lease.get_or_init(|| lease);
        if let Some(alive) = self.alive.lock().take() {
            lease.renew_while(alive);
        }
        // Its claim may have gone on in a thread when the task that waited for it was cancelled.
        if self.is_forsaken.load(Ordering::SeqCst) {
            lease.forsake();
        }
    }

    /// Gives the lease back, if there is one.
    pub(super) fn end_lease(&self, py: Python<'_>) {
        if let Some(lease) = self.lease.get() {
            lease.end(py);
        }
    }
}

#[pymethods]
impl Ticket {
    /// Has the lease that it will hold forsaken when the running event loop is closed.
    fn bind(&self) {
        *self.alive.lock() = alive_loop();
    }

    /// Lets go of the lease, if it is not given back yet, and ends the refresh. Of a task that was
    /// cancelled, whose traceback may keep the ticket for long.
    fn forsake(&self) {
        if let Some(refreshing) = &self.refreshing {
            refreshing.end(None);
        }
        self.is_forsaken.store(true, Ordering::SeqCst);
        if let Some(lease) = self.lease.get() {
            lease.forsake();
        }
    }
}

impl CachedFunction {
    /// What a call that missed has in hand. `stale`: a result that may take the place of an
    /// exception.
    pub(super) fn ticket_for<'py>(
        &self,
        key: String,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
        stale: Option<Arrival>,
    ) -> PyResult<Ticket> {
        let function = match self.options.key_builder {
            Some(_) => Some(self.name.text(args.py())?),
            None => None,
        };
        let tags = self.options.tags(args, kwargs)?;
        let cache = &self.shared()?.cache;
        Ok(Ticket {
            watch: Arc::new(cache.watch(&key, tags.as_deref(), function.clone())),
            key,
            tags,
            function,
            stale: Mutex::new(stale),
            refreshing: None,
            lease: OnceLock::new(),
            is_forsaken: AtomicBool::new(false),
            alive: Mutex::default(),
        })
    }

    /// The ticket of a call whatever is stored; `None` if nothing can be.
    pub(super) fn ticket<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Option<Ticket>> {
        if self.shared()?.has_exited() {
            return Ok(None);
        }
        self.shared()?.cache.check_open()?;
        match self.build_key(args, kwargs)? {
            Some(key) => self.ticket_for(key, args, kwargs, None).map(Some),
            None => Ok(None),
        }
    }
}
