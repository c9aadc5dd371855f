//! Forking: nobody is inside the core when the process forks, and the child inherits nothing that
//! belongs to its parent.
//!
//! SQLite's connections must not be used, nor even closed, in a child that inherited them, and a
//! lock that another thread holds at that moment would stay locked there for ever. So a fork waits
//! until no thread is in a call that runs without the interpreter, and closes the connections;
//! parent and child then open their own.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use pyo3::prelude::*;

use super::registry::{open_clients, open_lanes};
use super::{breath, flight, refresh};
use crate::worker;

/// Between two looks at a door. Only a fork makes anybody wait here.
const PAUSE: Duration = Duration::from_micros(200);

/// The door to the calls that run without the interpreter.
///
/// Made of atomics alone: a lock that another thread holds at the fork stays locked in the child.
#[derive(Debug, Default)]
pub(super) struct Door {
    inside: AtomicUsize,
    closed: AtomicBool,
}

/// A call that is inside, until this is dropped.
pub(super) struct Visit<'a>(&'a Door);

thread_local! {
    /// This is a background thread of ours: while it runs a destructor, or one that serves an event
    /// loop.
    static BACKGROUND: Cell<bool> = const { Cell::new(false) };
    /// This thread forks the process. Hooks of others, and in the child the destructors of what
    /// other threads had, run on it before our own hook ends the fork.
    static FORKING: Cell<bool> = const { Cell::new(false) };
}

/// This thread is one of ours from now on: it passes doors that a fork has closed, because the fork
/// waits for it.
pub(super) fn mark_background() {
    BACKGROUND.set(true);
}

/// Whether this thread is one of ours.
pub(super) fn is_background() -> bool {
    BACKGROUND.get()
}

/// Drops values that a background thread removed from memory. When the interpreter is about to end
/// they are left where they are.
pub(super) fn drop_in_background(values: Vec<Py<PyAny>>) {
    Python::try_attach(|py| {
        let before = BACKGROUND.replace(true);
        breath::drop_all(py, values);
        BACKGROUND.set(before);
    });
}

/// The process that forks.
static PARENT: AtomicU32 = AtomicU32::new(0);

/// The door to opening a client, which no client can have yet.
pub(super) static OPENING: Door = Door {
    inside: AtomicUsize::new(0),
    closed: AtomicBool::new(false),
};

impl Door {
    /// Enters; during a fork, after it.
    pub(super) fn enter(&self, py: Python<'_>) -> Visit<'_> {
        if FORKING.get() && std::process::id() != PARENT.load(Ordering::SeqCst) {
            // The child, in which somebody is served before our own hook.
            after_fork();
        }
        loop {
            // In this order, as `close` looks in the other one: one of the two sees the other.
            self.inside.fetch_add(1, Ordering::SeqCst);
            // Background threads are waited for before the process forks, and the forking thread is
            // waited for by all: they must not wait too. What they ask of a store that is suspended
            // meanwhile is an error.
            if !self.closed.load(Ordering::SeqCst) || BACKGROUND.get() || FORKING.get() {
                return Visit(self);
            }
            self.inside.fetch_sub(1, Ordering::SeqCst);
            py.detach(|| std::thread::sleep(PAUSE));
        }
    }

    /// Whether a fork is under way.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Lets nobody in, and waits until everybody is out.
    fn close(&self, py: Python<'_>) {
        self.closed.store(true, Ordering::SeqCst);
        while self.inside.load(Ordering::SeqCst) > 0 {
            py.detach(|| std::thread::sleep(PAUSE));
        }
    }

    fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Registers the hooks of `os.fork`, where there is one.
pub(super) fn register(core: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = core.py();
    let Some(at_fork) = py.import("os")?.getattr_opt("register_at_fork")? else {
        return Ok(());
    };
    let hooks = pyo3::types::PyDict::new(py);
    hooks.set_item("before", core.getattr("_before_fork")?)?;
    hooks.set_item("after_in_parent", core.getattr("_after_fork")?)?;
    hooks.set_item("after_in_child", core.getattr("_after_fork")?)?;
    at_fork.call((), Some(&hooks)).map(drop)
}

/// Called before the process forks.
#[pyfunction]
#[pyo3(name = "_before_fork")]
pub(crate) fn before_fork(py: Python<'_>) {
    FORKING.set(true);
    PARENT.store(std::process::id(), Ordering::SeqCst);
    OPENING.close(py);
    let clients = open_clients();
    for client in &clients {
        client.door.close(py);
    }
    // Only then: a destructor that a background thread runs may use another client.
    for client in &clients {
        py.detach(|| client.maintenance.pause());
    }
    let lanes = open_lanes();
    py.detach(|| {
        for lanes in &lanes {
            lanes.pause();
        }
        worker::join_orphans();
    });
    for client in &clients {
        // A fork cannot be refused; what could not be written or closed is counted.
        if py.detach(|| client.cache.suspend()).is_err() {
            client.cache.count_error();
        }
    }
}

/// Called after the process forked, in parent and child.
#[pyfunction]
#[pyo3(name = "_after_fork")]
pub(crate) fn after_fork() {
    if !FORKING.replace(false) {
        return;
    }
    let is_child = std::process::id() != PARENT.load(Ordering::SeqCst);
    if is_child {
        flight::forget();
        refresh::forget();
    }
    for client in open_clients() {
        if is_child {
            client.cache.forget_leases();
        }
        client.cache.resume();
        client
            .started
            .store(false, std::sync::atomic::Ordering::Release);
        client.door.open();
    }
    OPENING.open();
    for lanes in open_lanes() {
        if is_child {
            lanes.forget();
        }
        lanes.resume();
    }
}
