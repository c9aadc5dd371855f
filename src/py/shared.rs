//! Values through both tiers: encoded on their way in, decoded on their way out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pyo3::exceptions::PyException;
use pyo3::prelude::*;

use super::attention;
use super::disabled::Switch;
use super::errand::{Lane, Lanes};
use super::error::CorruptEntryError;
use super::fork::{self, Door};
use super::halt;
use super::hot_keys;
use super::log;
use super::opening::Plan;
use super::value::{self, Prefer};
use crate::cache::{Arrival, Ask, Cache, Lookup, Surroundings};
use crate::entry::{Damage, EntryMeta, Row};
use crate::error::{Error, Result};
use crate::maintenance::Maintenance;
use crate::settings::Location;

/// A live Python object.
pub(super) type Live = Py<PyAny>;

/// What a client shares with the registry of open clients.
pub(super) struct Shared {
    pub(super) cache: Arc<Cache<Live>>,
    pub(super) door: Door,
    pub(super) maintenance: Maintenance,
    pub(super) started: AtomicBool,
    /// Whether it finds and stores anything at all.
    pub(super) switch: Arc<Switch>,
    /// The threads that serve callers on an event loop.
    pub(super) lanes: Arc<Lanes>,
    /// Of the async client, whose methods return awaitables.
    pub(super) is_asynchronous: bool,
    /// Whether an event loop reads no file, however short that would take.
    pub(super) offload_reads: bool,
    /// What tells its store from others: the clients of one file have one.
    id: String,
    /// The format to try first for values whose writer names none.
    pub(super) serializer: Option<Prefer>,
    /// Closed by the interpreter's exit, not by the program.
    exited: AtomicBool,
}

/// What a look at the store finds that must not take long.
pub(super) enum Glimpse {
    /// What there is.
    Found(Option<Arrival>),
    /// Only a longer look can tell.
    Unknown,
}

/// Private stores so far.
static NUMBER: AtomicU64 = AtomicU64::new(1);

/// Threads that can be inside the memory tier at once: one, under the interpreter's lock.
fn parallelism(py: Python<'_>) -> PyResult<usize> {
    let question = py.import("sys")?.getattr_opt("_is_gil_enabled")?;
    let locked = question.map_or(Ok(true), |question| question.call0()?.extract::<bool>())?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(if locked { 1 } else { cores })
}

impl Shared {
    /// Opens the store.
    pub(super) fn open(
        py: Python<'_>,
        plan: &Plan,
        switch: &Arc<Switch>,
        lanes: &Arc<Lanes>,
    ) -> PyResult<Self> {
        let surroundings = Surroundings {
            clock: plan.clock.clone(),
            gauge: plan.gauge.clone(),
            parallelism: parallelism(py)?,
            dispose: Box::new(fork::drop_in_background),
        };
        let id = match &plan.settings.location {
            Location::File(path) => path.display().to_string(),
            // Nobody else has it.
            Location::Memory => format!(":memory: {}", NUMBER.fetch_add(1, Ordering::Relaxed)),
        };
        let settings = plan.settings.clone();
        Ok(Self {
            id,
            cache: Arc::new(py.detach(|| Cache::open(settings, surroundings))?),
            door: Door::default(),
            maintenance: Maintenance::default(),
            started: AtomicBool::new(false),
            switch: Arc::clone(switch),
            lanes: Arc::clone(lanes),
            is_asynchronous: plan.owner.is_some(),
            offload_reads: plan.offload_reads,
            serializer: plan.serializer.clone(),
            exited: AtomicBool::new(false),
        })
    }

    /// Runs a call of the core without the interpreter.
    pub(super) fn detached<T: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&Cache<Live>) -> Result<T> + Send,
    ) -> Result<T> {
        let _inside = self.door.enter(py);
        py.detach(|| call(&self.cache))
    }

    /// As [`Shared::detached`] for a call that may come upon damaged rows, which the program's log
    /// is told of.
    pub(super) fn reading<T: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&Cache<Live>) -> Result<T> + Send,
    ) -> PyResult<T> {
        let result = self.detached(py, call);
        self.tell(py);
        Ok(result?)
    }

    /// Before each use of the store: the thread that serves it runs, and what that one found is
    /// told.
    pub(super) fn begin(&self, py: Python<'_>) -> Result<()> {
        self.cache.check_open()?;
        // Not while a fork is under way: the child would have the handle without the thread.
        if !self.door.is_closed() && !self.started.swap(true, Ordering::AcqRel) {
            self.maintenance.start(&self.cache)?;
        }
        self.tell(py);
        Ok(())
    }

    /// Tells the program's log of damaged rows, of each once.
    pub(super) fn tell(&self, py: Python<'_>) {
        for damage in self.cache.take_reports() {
            let Damage { table, key, reason } = damage;
            let message = format!("{}, table {table}, key {key:?}: {reason}", self.name());
            log::warn(py, &message);
        }
    }

    /// What tells its store from others.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Where the store is.
    pub(super) fn name(&self) -> String {
        self.cache.location().to_string()
    }

    /// The live value in memory, if it is what the store holds.
    #[inline]
    pub(super) fn peek(
        &self,
        py: Python<'_>,
        hash: u64,
        key: &str,
        version: Option<i64>,
        promote: bool,
    ) -> Option<Live> {
        let share = |value: &Live, _: &EntryMeta| value.clone_ref(py);
        self.peek_as(py, hash, key, version, promote, share)
    }

    /// As [`Shared::peek`], with a look at what is known of it.
    #[inline]
    pub(super) fn peek_as<R>(
        &self,
        py: Python<'_>,
        hash: u64,
        key: &str,
        version: Option<i64>,
        promote: bool,
        share: impl FnOnce(&Live, &EntryMeta) -> R,
    ) -> Option<R> {
        let closer = attention::is_needed();
        if closer && self.switch.is_off() {
            return None;
        }
        match self.cache.lookup(hash, key, version, promote, share) {
            Lookup::Hit(value) => {
                if closer && promote && hot_keys::is_watched() {
                    hot_keys::tell(py, key);
                }
                Some(value)
            }
            Lookup::Miss(left) => {
                drop(left);
                None
            }
        }
    }

    /// The value in the store, which then is in memory too.
    #[cold]
    pub(super) fn load(
        &self,
        py: Python<'_>,
        key: &str,
        version: Option<i64>,
        promote: bool,
    ) -> PyResult<Option<Live>> {
        let ask = Ask {
            version,
            ..Ask::ANY
        };
        match self.fetch(py, key, &ask)? {
            Some(arrival) => self.receive(py, key, arrival, promote, None),
            None => Ok(None),
        }
    }

    /// The row in the store, if it is what is asked for.
    pub(super) fn fetch(&self, py: Python<'_>, key: &str, ask: &Ask) -> PyResult<Option<Arrival>> {
        if let Glimpse::Found(found) = self.fetch_at_once(py, key, ask)? {
            return Ok(found);
        }
        // Letting go of the interpreter and getting it back can cost far more than the reading; only
        // when that takes long do we step aside.
        let found = self.detached(py, |cache| cache.fetch_as(key, ask, true))?;
        Ok(self.settle(py, key, ask, found))
    }

    /// As [`Shared::fetch`] where that takes microseconds, without a lock to wait for.
    pub(super) fn fetch_at_once(&self, py: Python<'_>, key: &str, ask: &Ask) -> PyResult<Glimpse> {
        self.begin(py)?;
        if self.switch.is_off() {
            return Ok(Glimpse::Found(None));
        }
        match self.cache.fetch_as(key, ask, false) {
            Err(Error::StoreBusy { .. }) => Ok(Glimpse::Unknown),
            found => Ok(Glimpse::Found(self.settle(py, key, ask, found?))),
        }
    }

    /// What follows from what was found in the store.
    pub(super) fn settle(
        &self,
        py: Python<'_>,
        key: &str,
        ask: &Ask,
        found: Option<Arrival>,
    ) -> Option<Arrival> {
        if found.is_none() {
            self.tell(py);
            // A stale copy is of no more use - unless the row is only of another version.
            if ask.version.is_none() {
                drop(self.cache.forget([key]));
            }
        }
        found
    }

    /// The value of a row, which then is in memory too. `rebuild`: makes of plain data what it was,
    /// before it enters memory; what it refuses is a miss.
    pub(super) fn receive(
        &self,
        py: Python<'_>,
        key: &str,
        arrival: Arrival,
        promote: bool,
        rebuild: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Option<Live>> {
        let Some(value) = self.make(py, key, &arrival.row, rebuild)? else {
            self.cache.count_miss();
            return Ok(None);
        };
        let value = value.unbind();
        drop(self.cache.admit(key, value.clone_ref(py), arrival, promote));
        if promote && hot_keys::is_watched() {
            hot_keys::tell(py, key);
        }
        Ok(Some(value))
    }

    /// The value of a row as its reader wants it; `None` if nothing can be made of it.
    pub(super) fn make<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        row: &Row,
        rebuild: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(value) = self.decode(py, key, row)? else {
            return Ok(None);
        };
        let Some(rebuild) = rebuild else {
            return Ok(Some(value));
        };
        match halt::call(rebuild, (value,), None) {
            Ok(instance) => Ok(Some(instance)),
            // It does not fit the class any more, which has changed since.
            Err(error) if error.is_instance_of::<PyException>(py) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The value of a row; `None` if it is an exception's, and, with a word in the program's log, if
    /// it cannot be decoded.
    pub(super) fn decode<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        row: &Row,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        if !row.is_value() {
            return Ok(None);
        }
        match value::decode(py, &row.data, &row.format) {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_instance_of::<CorruptEntryError>(py) => {
                self.cache.report(Damage {
                    table: "cache",
                    key: String::from(key),
                    reason: error.value(py).to_string(),
                });
                self.tell(py);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes keys from both tiers, now; says of each whether it existed.
    pub(super) fn remove(&self, py: Python<'_>, keys: &[&str]) -> PyResult<Vec<bool>> {
        let existed = self.detached(py, |cache| cache.delete(keys))?;
        drop(self.cache.forget(keys.iter().copied()));
        Ok(existed)
    }

    /// Deletes keys from both tiers; `answer` makes of whether each existed what is returned.
    pub(super) fn remove_all(
        self: &Arc<Self>,
        py: Python<'_>,
        keys: Vec<String>,
        answer: impl FnOnce(Python<'_>, Vec<bool>) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> PyResult<Py<PyAny>> {
        let keys = Arc::new(keys);
        let deleted = Arc::clone(&keys);
        self.run(
            py,
            (Lane::Write, false),
            move |cache| {
                let keys: Vec<&str> = deleted.iter().map(String::as_str).collect();
                cache.delete(&keys)
            },
            move |py, shared, existed| {
                drop(shared.cache.forget(keys.iter().map(String::as_str)));
                answer(py, existed)
            },
        )
    }

    pub(super) fn shutdown(&self, py: Python<'_>) -> Result<()> {
        // First: what is queued there is still done.
        py.detach(|| self.lanes.close());
        self.shutdown_alone(py)
    }

    /// As [`Shared::shutdown`], without the queues, which another has too.
    pub(super) fn shutdown_alone(&self, py: Python<'_>) -> Result<()> {
        if self.cache.check_open().is_ok() {
            hot_keys::keep(self.cache.hits(None));
        }
        let inside = self.door.enter(py);
        let (values, closed) = py.detach(|| {
            self.maintenance.stop();
            self.cache.close()
        });
        // Destructors may wait for a fork, which waits for whoever is inside.
        drop(inside);
        drop(values);
        closed
    }

    /// Closes what the program left open when the interpreter exits.
    pub(super) fn exit(&self, py: Python<'_>) -> Result<()> {
        if self.cache.check_open().is_err() {
            return Ok(());
        }
        self.exited.store(true, Ordering::Release);
        match self.shutdown(py) {
            // Somebody holds the file. What the program wrote is in it; the counts of its last
            // second are not worth the wait.
            Err(Error::StoreBusy { .. }) => Ok(()),
            result => result,
        }
    }

    /// Closed by the interpreter's exit: decorated functions then compute without caching.
    pub(super) fn has_exited(&self) -> bool {
        self.exited.load(Ordering::Acquire)
    }
}
