//! The open clients of the process: what a fork has to know, and the interpreter's exit to close.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use pyo3::prelude::*;

use super::errand::Lanes;
use super::fork;
use super::shared::Shared;
use crate::store::sqlite;
use crate::worker;

/// Open clients, for the interpreter's exit.
static OPEN: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// The interpreter's exit closes what the program left open; a fork passes it by.
pub(super) fn register(shared: &Arc<Shared>) {
    let mut open = OPEN.lock();
    open.retain(|client| client.strong_count() > 0);
    open.push(Arc::downgrade(shared));
}

/// Called before any client is opened: what a program registers later for its exit runs while its
/// clients are open.
pub(super) fn hook(py: Python<'_>) -> PyResult<()> {
    static HOOKS: pyo3::sync::PyOnceLock<()> = pyo3::sync::PyOnceLock::new();
    HOOKS
        .get_or_try_init(py, || {
            let core = py.import("cachetronomy._core")?;
            fork::register(&core)?;
            let close_all = core.getattr("_close_all")?;
            py.import("atexit")?
                .call_method1("register", (close_all,))
                .map(drop)
        })
        .copied()
}

/// Queues that may have threads, which no child inherits.
static LANES: Mutex<Vec<Weak<Lanes>>> = Mutex::new(Vec::new());

/// A fork passes these by.
pub(super) fn register_lanes(lanes: &Arc<Lanes>) {
    let mut all = LANES.lock();
    all.retain(|lanes| lanes.strong_count() > 0);
    all.push(Arc::downgrade(lanes));
}

/// Every queue that was not freed yet.
pub(super) fn open_lanes() -> Vec<Arc<Lanes>> {
    LANES.lock().iter().filter_map(Weak::upgrade).collect()
}

/// Every client that was not freed yet.
pub(super) fn open_clients() -> Vec<Arc<Shared>> {
    OPEN.lock().iter().filter_map(Weak::upgrade).collect()
}

/// Closes every open client of the process; called when the interpreter exits.
#[pyfunction]
#[pyo3(name = "_close_all")]
pub(crate) fn close_all(py: Python<'_>) -> PyResult<()> {
    sqlite::hurry();
    let mut result = Ok(());
    for client in open_clients() {
        result = result.and(client.exit(py));
    }
    // None of their threads may ask for an interpreter that is gone.
    py.detach(|| {
        for lanes in open_lanes() {
            lanes.close();
        }
        worker::join_orphans();
    });
    Ok(result?)
}
