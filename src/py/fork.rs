//! Forking: nobody is inside the core when the process forks, and the child inherits nothing that
//! belongs to its parent.
//!
//! SQLite's connections must not be used, nor even closed, in a child that inherited them, and a
//! lock that another thread holds at that moment would stay locked there for ever. So a fork waits
//! until no thread is in a call that runs without the interpreter, and closes the connections;
//! parent and child then open their own.

use parking_lot::{Condvar, Mutex};
use pyo3::prelude::*;

use super::registry::open_clients;

#[derive(Debug, Default)]
struct Calls {
    active: usize,
    suspended: bool,
}

/// The door to the calls of one client that run without the interpreter.
#[derive(Debug, Default)]
pub(super) struct Door {
    calls: Mutex<Calls>,
    changed: Condvar,
}

/// A call that is inside.
pub(super) struct Visit<'a>(&'a Door);

impl Door {
    /// Enters, after a fork that is under way.
    pub(super) fn enter(&self) -> Visit<'_> {
        let mut calls = self.calls.lock();
        while calls.suspended {
            self.changed.wait(&mut calls);
        }
        calls.active += 1;
        Visit(self)
    }

    /// Lets nobody in, and waits until everybody is out.
    fn suspend(&self) {
        let mut calls = self.calls.lock();
        calls.suspended = true;
        while calls.active > 0 {
            self.changed.wait(&mut calls);
        }
    }

    fn resume(&self) {
        self.calls.lock().suspended = false;
        self.changed.notify_all();
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let mut calls = self.0.calls.lock();
        calls.active -= 1;
        if calls.suspended && calls.active == 0 {
            self.0.changed.notify_all();
        }
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
    for client in open_clients() {
        py.detach(|| {
            client.door.suspend();
            client.maintenance.pause();
            // A fork cannot be refused; what could not be written or closed is counted.
            if client.cache.suspend().is_err() {
                client.cache.count_error();
            }
        });
    }
}

/// Called after the process forked, in parent and child.
#[pyfunction]
#[pyo3(name = "_after_fork")]
pub(crate) fn after_fork() {
    for client in open_clients() {
        client.cache.resume();
        client
            .started
            .store(false, std::sync::atomic::Ordering::Release);
        client.door.resume();
    }
}
