//! `lock="process"`: of all processes that share a file, one computes; the others find its result
//! in the store.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;
use std::time::Instant;

use parking_lot::Mutex;
use pyo3::prelude::*;

use super::errand::Lane;
use super::flight::alive_loop;
use super::patience::Patience;
use super::shared::Shared;
use crate::cache::{Alive, LEASE_LIFE};
use crate::error::Error;

/// Leases of computations, apart from others in the table.
const PREFIX: &str = "once:";

thread_local! {
    /// Leases of computations further up on this thread's stack.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// The right to compute the value of a key; dropped, it is given back by the background thread.
#[pyclass(name = "_Lease", module = "cachetronomy._core", frozen)]
pub(crate) struct Lease {
    shared: Arc<Shared>,
    /// Taken when it is given back.
    owner: Mutex<Option<String>>,
    process: u32,
    /// The thread that computes, where it does nothing else meanwhile.
    thread: OnceLock<ThreadId>,
}

/// What an attempt to compute comes to.
pub(super) enum Claim<T> {
    /// Somebody else has computed it.
    Value(T),
    /// Nobody else computes it now.
    Lease(Lease),
    /// Somebody else computes it.
    Wait,
    /// Nobody can tell, or it would be too long to wait: compute without.
    Alone,
}

impl Lease {
    fn take(shared: &Arc<Shared>, owner: String) -> Self {
        Self {
            shared: Arc::clone(shared),
            owner: Mutex::new(Some(owner)),
            process: std::process::id(),
            thread: OnceLock::new(),
        }
    }

    /// It is for what this thread does next.
    fn count_here(&self) {
        self.thread.get_or_init(|| std::thread::current().id());
        HELD.set(HELD.get() + 1);
    }

    /// Its owner, if it is not given back yet and of this process.
    fn give_up(&self) -> Option<String> {
        let owner = self.owner.lock().take()?;
        if self.thread.get() == Some(&std::thread::current().id()) {
            HELD.set(HELD.get().saturating_sub(1));
        }
        (self.process == std::process::id()).then_some(owner)
    }
}

#[pymethods]
impl Lease {
    /// Has it forsaken when the running event loop is closed, whose tasks go on no more.
    fn bind(&self) {
        if let Some(alive) = alive_loop() {
            self.renew_while(alive);
        }
    }

    /// Leaves it to the background thread to give it back, if it is not given back yet.
    pub(super) fn forsake(&self) {
        if let Some(owner) = self.give_up() {
            self.shared.cache.forsake(&owner);
        }
    }

    /// Gives it back. If that fails, it ends by itself.
    pub(super) fn end(&self, py: Python<'_>) {
        if let Some(owner) = self.give_up()
            && let Err(error) = self.shared.detached(py, |cache| cache.release(&owner))
            && !matches!(error, Error::Closed)
        {
            self.shared.cache.count_error();
        }
    }
}

impl Lease {
    /// As [`Cache::renew_while`](crate::cache::Cache::renew_while).
    pub(super) fn renew_while(&self, alive: Alive) {
        if let Some(owner) = &*self.owner.lock() {
            self.shared.cache.renew_while(owner, alive);
        }
    }

    /// As [`Lease::end`], where no event loop waits for it: an awaitable where one runs.
    pub(super) fn end_aside(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let Some(owner) = self.give_up() else {
            return Ok(py.None());
        };
        self.shared.run_aside(
            py,
            (Lane::Write, false),
            move |cache| {
                if cache
                    .release(&owner)
                    .is_err_and(|error| error != Error::Closed)
                {
                    cache.count_error();
                }
                Ok(())
            },
            |py, _, ()| Ok(py.None()),
        )
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.forsake();
    }
}

/// Tries once. `look`: asks for what somebody else has computed meanwhile.
pub(super) fn try_claim<T>(
    py: Python<'_>,
    shared: &Arc<Shared>,
    key: &str,
    mut look: impl FnMut() -> PyResult<Option<T>>,
) -> PyResult<Claim<T>> {
    let name = format!("{PREFIX}{key}");
    if shared.detached(py, |cache| cache.is_claimed(&name))? {
        return Ok(Claim::Wait);
    }
    // Most of those who waited need no lease any more.
    if let Some(value) = look()? {
        return Ok(Claim::Value(value));
    }
    let lease = match shared.detached(py, |cache| cache.claim(&name)) {
        // The file is locked for longer than anybody is to wait; the result, once there is one,
        // cannot be stored either, and says so.
        Err(Error::StoreBusy { .. }) => return Ok(Claim::Alone),
        claimed => match claimed? {
            Some(owner) => Lease::take(shared, owner),
            None => return Ok(Claim::Wait),
        },
    };
    // Somebody may have had it between the look and this.
    match look()? {
        Some(value) => {
            lease.end(py);
            Ok(Claim::Value(value))
        }
        None => Ok(Claim::Lease(lease)),
    }
}

/// Tries until there is something to go on with, blocking the thread.
pub(super) fn claim<T>(
    py: Python<'_>,
    shared: &Arc<Shared>,
    key: &str,
    mut look: impl FnMut() -> PyResult<Option<T>>,
) -> PyResult<Claim<T>> {
    let mut patience = Patience::default();
    // Whoever holds a lease may wait for one whose holder waits for theirs. So they do not wait for
    // longer than a dead holder's would last.
    let limit = (HELD.get() > 0).then(|| Instant::now() + LEASE_LIFE);
    loop {
        match try_claim(py, shared, key, &mut look)? {
            Claim::Wait if limit.is_some_and(|limit| Instant::now() >= limit) => {
                return Ok(Claim::Alone);
            }
            Claim::Wait => {}
            Claim::Lease(lease) => {
                lease.count_here();
                return Ok(Claim::Lease(lease));
            }
            done => return Ok(done),
        }
        py.detach(|| std::thread::sleep(patience.pause()));
        py.check_signals()?;
    }
}
