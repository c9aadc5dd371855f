//! `lock(name)`: a lease in the store, and threads that wait for it.
//!
//! A lease belongs to one entry into a `with` block, not to a thread or a process: so it excludes
//! threads of one process from each other as it does processes. Waiting goes on outside of the
//! core, where it holds neither the interpreter nor the door that a fork closes.

use std::sync::Arc;
use std::thread::{Thread, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::client::Client;
use super::error::{CachetronomyError, StoreBusyError};
use super::log;
use super::patience::Patience;
use super::shared::Shared;
use crate::cache::new_owner;
use crate::error::Error;
use crate::settings::Location;
use crate::time::Ttl;

/// Leases that user code takes, apart from others in the table.
const PREFIX: &str = "lock:";

/// Threads that wait, the longest first. The lock is only taken with the interpreter held, so
/// that no fork happens meanwhile.
static WAITING: Mutex<Vec<Waiter>> = Mutex::new(Vec::new());

struct Waiter {
    lease: Lease,
    thread: Thread,
    /// A forked child inherits the list, but not the threads.
    process: u32,
}

/// A lease of one store.
#[derive(Clone, PartialEq, Eq)]
struct Lease {
    place: Arc<str>,
    name: Arc<str>,
}

/// A thread's place among those that wait, until it is dropped.
struct Place<'a> {
    lease: &'a Lease,
    has_lease: bool,
}

impl<'a> Place<'a> {
    fn take(lease: &'a Lease) -> Self {
        let process = std::process::id();
        let mut waiting = WAITING.lock();
        waiting.retain(|waiter| waiter.process == process);
        waiting.push(Waiter {
            lease: lease.clone(),
            thread: std::thread::current(),
            process,
        });
        Self {
            lease,
            has_lease: false,
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let me = std::thread::current().id();
        let is_mine = |waiter: &Waiter| waiter.thread.id() == me && waiter.lease == *self.lease;
        let mut waiting = WAITING.lock();
        if let Some(at) = waiting.iter().rposition(is_mine) {
            waiting.remove(at);
        }
        drop(waiting);
        if !self.has_lease {
            // It may have been woken for nothing.
            wake(self.lease);
        }
    }
}

/// Wakes who has waited longest for a lease.
fn wake(lease: &Lease) {
    let waiting = WAITING.lock();
    if let Some(waiter) = waiting.iter().find(|waiter| waiter.lease == *lease) {
        waiter.thread.unpark();
    }
}

/// An entry into a `with` block.
struct Held {
    thread: ThreadId,
    process: u32,
    owner: String,
}

/// What `lock(name)` returns: holds the lock while it is entered. It can be entered again and
/// again, also by several threads, one after the other.
#[pyclass(name = "Lock", module = "cachetronomy._core", frozen, weakref)]
pub(crate) struct Lock {
    client: Py<Client>,
    lease: Lease,
    ttl: Ttl,
    /// `None`: for ever.
    timeout: Option<Duration>,
    held: Mutex<Vec<Held>>,
}

impl Lock {
    pub(super) fn new(
        client: &Bound<'_, Client>,
        name: &str,
        ttl: Ttl,
        timeout: Option<Duration>,
    ) -> PyResult<Self> {
        let shared = client.get().shared()?;
        let place = match shared.cache.location() {
            // Nobody else's, though all are called the same.
            Location::Memory => format!("{:p}", Arc::as_ptr(shared)),
            Location::File(path) => path.display().to_string(),
        };
        Ok(Self {
            client: client.clone().unbind(),
            lease: Lease {
                place: place.into(),
                name: format!("{PREFIX}{name}").into(),
            },
            ttl,
            timeout,
            held: Mutex::default(),
        })
    }

    fn name(&self) -> &str {
        &self.lease.name[PREFIX.len()..]
    }

    /// Tries once.
    fn try_take(&self, py: Python<'_>, shared: &Shared, owner: &str) -> PyResult<bool> {
        let lease = &self.lease;
        let taken = shared.detached(py, |cache| cache.take_lease(&lease.name, owner, self.ttl));
        match taken {
            // Who writes is not who has the lease, but whoever waits for it waits for them too.
            Err(Error::StoreBusy { .. }) => Ok(false),
            taken => Ok(taken?),
        }
    }

    fn wait(&self, py: Python<'_>, shared: &Shared, owner: &str) -> PyResult<()> {
        let start = Instant::now();
        // Before the look that it waits for the end of: what is released in between wakes it.
        let mut place = Place::take(&self.lease);
        let mut patience = Patience::default();
        loop {
            if self.try_take(py, shared, owner)? {
                place.has_lease = true;
                return Ok(());
            }
            let left = self
                .timeout
                .map(|timeout| timeout.saturating_sub(start.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(self.busy(shared));
            }
            let pause = patience.pause().min(left.unwrap_or(Duration::MAX));
            py.detach(|| std::thread::park_timeout(pause));
            py.check_signals()?;
        }
    }

    #[cold]
    fn busy(&self, shared: &Shared) -> PyErr {
        StoreBusyError::new_err(format!(
            "the lock {:?} in {} stayed taken for {:?}; try again, or give a longer timeout",
            self.name(),
            shared.name(),
            self.timeout.unwrap_or_default(),
        ))
    }
}

#[pymethods]
impl Lock {
    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        let (py, this) = (slf.py(), slf.get());
        let shared = this.client.get().begin(py)?;
        let process = std::process::id();
        let owner = new_owner();
        if !this.try_take(py, shared, &owner)? {
            if this.timeout.is_some_and(|timeout| timeout.is_zero()) {
                return Err(this.busy(shared));
            }
            this.wait(py, shared, &owner)?;
        }
        this.held.lock().push(Held {
            thread: std::thread::current().id(),
            process,
            owner,
        });
        Ok(slf)
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        let me = std::thread::current().id();
        let held = {
            let mut all = self.held.lock();
            let at = all.iter().rposition(|held| held.thread == me);
            at.map(|at| all.remove(at))
        };
        let Some(held) = held else {
            let message = format!("the lock {:?} is not held by this thread", self.name());
            return Err(CachetronomyError::new_err(message));
        };
        if held.process != std::process::id() {
            // The parent of this forked process holds it.
            return Ok(());
        }
        let (shared, lease) = (self.client.get().shared()?, &self.lease);
        let kept = shared.detached(py, |cache| cache.end_lease(&lease.name, &held.owner))?;
        wake(lease);
        if !kept {
            let message = format!(
                "the lock {:?} in {} was held for longer than its ttl, so that others may have had \
                 it at the same time; give lock() a longer ttl",
                self.name(),
                shared.name(),
            );
            log::warn(py, &message);
        }
        Ok(())
    }

    fn __repr__(&self) -> String {
        format!("<Lock {:?}>", self.name())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.client)
    }
}
