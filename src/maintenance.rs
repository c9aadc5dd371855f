//! The one background thread of a cache: sweeps, eviction under memory pressure, log flushes,
//! checkpoints.
//!
//! A pass may run the destructors of values that it removes, so whoever joins the thread must hold
//! nothing that they could wait for - the interpreter, above all.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::cache::Cache;
use crate::error::{Error, Result};

/// Logs are at most this far behind, and no interval of a profile is shorter.
const TICK: Duration = Duration::from_secs(1);

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
        // A destructor that this very thread runs may close the cache; the loop then ends after it.
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            // It has no panics to report but bugs, and those it has printed.
            drop(thread.join());
        }
        *self.signal.stop.lock() = for_good;
    }
}

fn run<V>(signal: &Signal, cache: &Cache<V>) {
    let (mut swept, mut relieved) = (Instant::now(), Instant::now());
    let mut stop = signal.stop.lock();
    while !*stop {
        signal.changed.wait_for(&mut stop, TICK);
        if *stop {
            return;
        }
        parking_lot::MutexGuard::unlocked(&mut stop, || {
            // Asked for anew in each pass: another profile may have been switched to.
            let active = cache.active();
            let profile = &active.profile;
            if profile.ttl_cleanup_interval > 0 && is_due(&mut swept, profile.ttl_cleanup_interval)
            {
                count_failure(cache, &cache.sweep());
            }
            if profile.memory_based_eviction
                && is_due(&mut relieved, profile.memory_cleanup_interval)
            {
                cache.relieve(profile.free_memory_target);
            }
            count_failure(cache, &cache.maintain());
        });
    }
}

/// Whether so many seconds have passed since `last`, which then is now.
fn is_due(last: &mut Instant, seconds: u64) -> bool {
    let due = last.elapsed() >= Duration::from_secs(seconds);
    if due {
        *last = Instant::now();
    }
    due
}

/// Nobody waits for the result of a pass; the next one tries again.
fn count_failure<V>(cache: &Cache<V>, result: &Result<()>) {
    if !matches!(result, Ok(()) | Err(Error::Closed)) {
        cache.count_error();
    }
}
