//! Hot keys of the whole process: counts over all its clients, and a callback for each hit.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pyo3::exceptions::{PyKeyboardInterrupt, PyTypeError};
use pyo3::prelude::*;

use super::arguments::{self, Limit};
use super::attention;
use super::log;
use super::registry::open_clients;
use crate::hotkeys::HotKeys;
use crate::time::Clock;

/// Hits of clients that are closed, and those that nobody's client counted.
static OTHERS: LazyLock<HotKeys> = LazyLock::new(HotKeys::default);

static CALLBACK: Mutex<Option<Py<PyAny>>> = Mutex::new(None);

/// Whether there is a callback: what is asked before the lock is taken.
static WATCHED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// A callback that reads a cache is not called for what it reads itself.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Whether somebody wants to hear of each hit.
#[inline]
pub(super) fn is_watched() -> bool {
    WATCHED.load(Ordering::Relaxed)
}

/// Tells the callback of a hit. What it raises is for the program's log, not for the reader.
#[cold]
pub(super) fn tell(py: Python<'_>, key: &str) {
    let callback = CALLBACK
        .lock()
        .as_ref()
        .map(|callback| callback.clone_ref(py));
    let Some(callback) = callback else { return };
    if INSIDE.replace(true) {
        return;
    }
    let told = callback.call1(py, (key,));
    INSIDE.set(false);
    if let Err(error) = told {
        if error.is_instance_of::<PyKeyboardInterrupt>(py) {
            // It is not the callback's: the main thread gets it as soon as it runs Python again.
            let again = py
                .import("_thread")
                .and_then(|thread| thread.call_method0("interrupt_main"));
            if again.is_ok() {
                return;
            }
        }
        log::error(
            py,
            &format!("the callback for hot keys raised on {key:?}"),
            error,
        );
    }
}

/// Keeps the hits of a client that is about to close.
pub(super) fn keep(hits: Vec<(String, u64)>) {
    let now = Clock::System.now();
    for (key, count) in hits {
        OTHERS.record(&key, count, now);
    }
    // They wait for no flush: their client has written them.
    drop(OTHERS.take_pending());
}

/// The hottest keys of all clients of the process, hottest first.
#[pyfunction]
#[pyo3(name = "_hot_keys", signature = (limit))]
pub(crate) fn hot_keys(limit: Limit) -> Vec<(String, u64)> {
    let mut sums: HashMap<String, u64> = OTHERS.hottest(None).into_iter().collect();
    for client in open_clients() {
        if client.cache.check_open().is_ok() {
            for (key, count) in client.cache.hits(None) {
                *sums.entry(key).or_default() += count;
            }
        }
    }
    let mut hottest: Vec<_> = sums.into_iter().collect();
    hottest.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    hottest.truncate(limit.0.unwrap_or(usize::MAX));
    hottest
}

/// Counts a hit that no client saw.
#[pyfunction]
#[pyo3(name = "_promote_key")]
pub(crate) fn promote_key(key: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = key.py();
    let key = arguments::key(key)?;
    keep(vec![(String::from(key), 1)]);
    if is_watched() {
        tell(py, key);
    }
    Ok(())
}

/// Forgets the hits of a key in this process.
#[pyfunction]
#[pyo3(name = "_deregister_key")]
pub(crate) fn deregister_key(key: &Bound<'_, PyAny>) -> PyResult<()> {
    let key = arguments::key(key)?;
    OTHERS.forget(key);
    for client in open_clients() {
        client.cache.forget_hits_of(key);
    }
    Ok(())
}

/// Hits of a key in this process.
#[pyfunction]
#[pyo3(name = "_memory_key_count")]
pub(crate) fn memory_key_count(key: &Bound<'_, PyAny>) -> PyResult<u64> {
    let key = arguments::key(key)?;
    let open = open_clients().into_iter();
    let open = open.filter(|client| client.cache.check_open().is_ok());
    let counted: u64 = open.map(|client| client.cache.hits_of(key)).sum();
    Ok(OTHERS.total(key) + counted)
}

/// Has `callback(key)` called after each hit of any client; `None`: nothing any more.
#[pyfunction]
#[pyo3(name = "_register_callback", signature = (callback))]
pub(crate) fn register_callback(callback: Option<Bound<'_, PyAny>>) -> PyResult<()> {
    if let Some(callback) = &callback
        && !callback.is_callable()
    {
        return Err(PyTypeError::new_err(format!(
            "callback: {} cannot be called; give a function of a key, or None",
            callback.repr()?
        )));
    }
    let (watched, callback) = (callback.is_some(), callback.map(Bound::unbind));
    let mut current = CALLBACK.lock();
    // Under the lock: of two threads that register, the second one counts from the first one's.
    match (WATCHED.swap(watched, Ordering::Relaxed), watched) {
        (false, true) => attention::ask(),
        (true, false) => attention::release(),
        _ => {}
    }
    let previous = std::mem::replace(&mut *current, callback);
    // Dropped after the lock is free.
    drop(current);
    drop(previous);
    Ok(())
}
