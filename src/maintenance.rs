//! The one background thread of a cache: sweeps, log flushes, checkpoints.
//!
//! It knows nothing of Python and never waits for it, so that it can be joined at any moment.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::cache::Cache;
use crate::error::{Error, Result};

/// Logs are at most this far behind.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
struct Signal {
    stop: Mutex<bool>,
    changed: Condvar,
}

/// The thread of one cache, started when it is first needed.
#[derive(Debug, Default)]
pub struct Maintenance {
    signal: Arc<Signal>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Maintenance {
    /// Starts the thread, unless it runs or was stopped.
    pub fn start<V: Send + Sync + 'static>(&self, cache: &Arc<Cache<V>>) -> Result<()> {
        let mut thread = self.thread.lock();
        if thread.is_some() || *self.signal.stop.lock() {
            return Ok(());
        }
        let (signal, cache) = (Arc::clone(&self.signal), Arc::clone(cache));
        let started = std::thread::Builder::new()
            .name(String::from("cachetronomy"))
            .spawn(move || run(&signal, &cache))
            .map_err(|error| Error::StoreUnavailable {
                path: String::from("background thread"),
                reason: format!("cannot be started: {error}"),
            })?;
        *thread = Some(started);
        Ok(())
    }

    /// Stops the thread for good and waits for it: at most for the pass that it is in.
    pub fn stop(&self) {
        self.halt(true);
    }

    /// Stops the thread as [`Maintenance::stop`] does; `start` may start another.
    pub fn pause(&self) {
        self.halt(false);
    }

    fn halt(&self, for_good: bool) {
        *self.signal.stop.lock() = true;
        self.signal.changed.notify_all();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // It has no panics to report but bugs, and those it has printed.
            drop(thread.join());
        }
        *self.signal.stop.lock() = for_good;
    }
}

fn run<V>(signal: &Signal, cache: &Cache<V>) {
    let interval = cache.settings().ttl_cleanup_interval;
    let mut swept = Instant::now();
    let mut stop = signal.stop.lock();
    while !*stop {
        signal.changed.wait_for(&mut stop, FLUSH_INTERVAL);
        if *stop {
            return;
        }
        parking_lot::MutexGuard::unlocked(&mut stop, || {
            if !interval.is_zero() && swept.elapsed() >= interval {
                swept = Instant::now();
                count_failure(cache, &cache.sweep());
            }
            count_failure(cache, &cache.maintain());
        });
    }
}

/// Nobody waits for the result of a pass; the next one tries again.
fn count_failure<V>(cache: &Cache<V>, result: &Result<()>) {
    if !matches!(result, Ok(()) | Err(Error::Closed)) {
        cache.count_error();
    }
}
