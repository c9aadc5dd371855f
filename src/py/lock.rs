//! `lock(name)`: a lease in the store, and threads that wait for it.
//!
//! A lease belongs to one entry into a `with` block, not to a thread or a process: so it excludes
//! threads of one process from each other as it does processes. Waiting goes on outside of the
//! core, where it holds neither the interpreter nor the door that a fork closes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Thread, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use super::client::Client;
use super::error::{CachetronomyError, StoreBusyError};
use super::halt;
use super::log;
use super::patience::Patience;
use super::run::object;
use super::shared::Shared;
use crate::cache::new_owner;
use crate::error::Error;
use crate::settings::Location;
use crate::store::sqlite::waiting_for;
use crate::time::Ttl;

/// Leases that user code takes, apart from others in the table.
const PREFIX: &str = "lock:";

/// Threads that wait, the longest first. The lock is only taken with the interpreter held, so
/// that no fork happens meanwhile.
static WAITING: Mutex<Vec<Waiter>> = Mutex::new(Vec::new());

struct Waiter {
    number: u64,
    lease: Lease,
    sleeper: Sleeper,
    /// A forked child inherits the list, but not the threads.
    process: u32,
}

/// Who is to be woken, and how.
#[derive(Clone)]
enum Sleeper {
    Thread(Thread),
    /// By a call, on any thread.
    Task(Arc<Py<PyAny>>),
}

/// A lease of one store.
#[derive(Clone, PartialEq, Eq)]
struct Lease {
    place: Arc<str>,
    name: Arc<str>,
}

/// A place among those that wait, until it is dropped.
struct Place {
    lease: Lease,
    number: u64,
    has_lease: AtomicBool,
}

impl Place {
    fn take(lease: &Lease, sleeper: Sleeper) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (number, process) = (NEXT.fetch_add(1, Ordering::Relaxed), std::process::id());
        let mut waiting = WAITING.lock();
        let (own, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut *waiting)
            .into_iter()
            .partition(|waiter| waiter.process == process);
        *waiting = own;
        waiting.push(Waiter {
            number,
            lease: lease.clone(),
            sleeper,
            process,
        });
        drop(waiting);
        drop(gone);
        Self {
            lease: lease.clone(),
            number,
            has_lease: AtomicBool::new(false),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = WAITING.lock();
        let at = waiting
            .iter()
            .position(|waiter| waiter.number == self.number);
        let left = at.map(|at| waiting.remove(at));
        drop(waiting);
        drop(left);
        if !self.has_lease.load(Ordering::Relaxed) {
            // It may have been woken for nothing.
            wake(&self.lease);
        }
    }
}

/// Wakes who has waited longest for a lease.
fn wake(lease: &Lease) {
    let waiting = WAITING.lock();
    let first = waiting.iter().find(|waiter| waiter.lease == *lease);
    let sleeper = first.map(|waiter| waiter.sleeper.clone());
    drop(waiting);
    match sleeper {
        Some(Sleeper::Thread(thread)) => thread.unpark(),
        Some(Sleeper::Task(tell)) => {
            Python::try_attach(|py| {
                if let Err(error) = halt::call(tell.bind(py), (), None) {
                    error.write_unraisable(py, None);
                }
            });
        }
        None => {}
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
        let place = match client.get().location()? {
            // Nobody else's, though all are called the same.
            Location::Memory => format!("{:p}", client.as_ptr()),
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

    /// Tries once, for so long where somebody writes.
    fn try_take(
        &self,
        py: Python<'_>,
        shared: &Shared,
        owner: &str,
        left: Option<Duration>,
    ) -> PyResult<bool> {
        let lease = &self.lease;
        let taken = shared.detached(py, |cache| {
            waiting_for(left, || cache.take_lease(&lease.name, owner, self.ttl))
        });
        match taken {
            // Who writes is not who has the lease, but whoever waits for it waits for them too.
            Err(Error::StoreBusy { .. }) => Ok(false),
            taken => Ok(taken?),
        }
    }

    fn wait(&self, py: Python<'_>, shared: &Shared, owner: &str) -> PyResult<()> {
        let start = Instant::now();
        // Before the look that it waits for the end of: what is released in between wakes it.
        let place = Place::take(&self.lease, Sleeper::Thread(std::thread::current()));
        let mut patience = Patience::default();
        loop {
            let left = self
                .timeout
                .map(|timeout| timeout.saturating_sub(start.elapsed()));
            if self.try_take(py, shared, owner, left)? {
                place.has_lease.store(true, Ordering::Relaxed);
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
            "the lock {:?} in {} could not be had within {:?}: somebody has it, or writes to the file \
             all the time; try again, or give a longer timeout",
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
        if !this.try_take(py, shared, &owner, this.timeout)? {
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
        self.give_back(py, &held.owner)
    }

    fn __repr__(&self) -> String {
        format!("<Lock {:?}>", self.name())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.client)
    }

    /// A name under which it can be taken once.
    #[staticmethod]
    fn _new_owner() -> String {
        new_owner()
    }

    /// Tries once to take it; may wait for the disk. `left`: seconds.
    fn _take(&self, py: Python<'_>, owner: &str, left: Option<f64>) -> PyResult<bool> {
        let left = left.and_then(|left| Duration::try_from_secs_f64(left.max(0.0)).ok());
        self.try_take(py, self.client.get().begin(py)?, owner, left)
    }

    /// Gives it back; may wait for the disk.
    #[pyo3(name = "_give_back")]
    fn give_back(&self, py: Python<'_>, owner: &str) -> PyResult<()> {
        let (shared, lease) = (self.client.get().shared()?, &self.lease);
        let kept = shared.detached(py, |cache| cache.end_lease(&lease.name, owner))?;
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

    /// As `_give_back` where it is not known whether it was taken; may wait for the disk.
    fn _forgo(&self, py: Python<'_>, owner: &str) -> PyResult<()> {
        let (shared, lease) = (self.client.get().shared()?, &self.lease);
        shared.detached(py, |cache| cache.end_lease(&lease.name, owner))?;
        wake(lease);
        Ok(())
    }

    /// A place among those that wait; `tell()` is called when it is worth another try.
    fn _wait(&self, tell: Py<PyAny>) -> LockPlace {
        let place = Place::take(&self.lease, Sleeper::Task(Arc::new(tell)));
        LockPlace(Mutex::new(Some(place)))
    }

    /// Seconds to wait at most; `None`: for ever.
    #[getter]
    fn _timeout(&self) -> Option<f64> {
        self.timeout.map(|timeout| timeout.as_secs_f64())
    }

    /// The error of a wait that was too long.
    fn _busy(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let error = self.busy(self.client.get().shared()?);
        object(py, error.into_value(py))
    }
}

/// A task's place among those that wait for a lock, until it is freed.
#[pyclass(name = "_LockPlace", module = "cachetronomy._core", frozen)]
pub(crate) struct LockPlace(Mutex<Option<Place>>);

#[pymethods]
impl LockPlace {
    /// It waits no longer; `won`: because it has the lock. Otherwise another one is woken.
    fn leave(&self, won: bool) {
        let place = self.0.lock().take();
        if let Some(place) = &place {
            place.has_lease.store(won, Ordering::Relaxed);
        }
        drop(place);
    }
}
