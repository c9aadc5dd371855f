//! Values through both tiers: encoded on their way in, decoded on their way out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments;
use super::error::{CorruptEntryError, SerializationError};
use super::fork::Door;
use super::value;
use crate::cache::{Arrival, Cache, Draft, Lookup};
use crate::codec::Format;
use crate::entry::AccessRow;
use crate::error::{Error, Result};
use crate::maintenance::Maintenance;
use crate::settings::Settings;
use crate::time::{Clock, Ttl};

/// A live Python object.
type Live = Py<PyAny>;

/// What a client shares with the registry of open clients.
pub(super) struct Shared {
    pub(super) cache: Arc<Cache<Live>>,
    pub(super) door: Door,
    pub(super) maintenance: Maintenance,
    pub(super) started: AtomicBool,
    /// Closed by the interpreter's exit, not by the program.
    exited: AtomicBool,
}

/// How an entry is to be written.
#[derive(Clone)]
pub(super) struct Put {
    pub(super) ttl: Option<Ttl>,
    pub(super) version: i64,
    pub(super) tags: Vec<String>,
    pub(super) prefer: Option<Format>,
    pub(super) compute_us: i64,
}

impl Put {
    /// The parameters of `set`, `set_many` and the decorator, checked.
    pub(super) fn parse(
        ttl: Option<&Bound<'_, PyAny>>,
        time_to_live: Option<&Bound<'_, PyAny>>,
        version: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        prefer: Option<&str>,
    ) -> PyResult<Self> {
        Ok(Self {
            ttl: arguments::ttl(ttl, time_to_live)?,
            version: arguments::version(version)?.unwrap_or(1),
            tags: arguments::tags(tags)?,
            prefer: arguments::format(prefer)?,
            compute_us: 0,
        })
    }

    /// Whether nothing is to be kept.
    fn is_void(&self) -> bool {
        self.ttl.is_some_and(Ttl::is_zero)
    }
}

/// Threads that can be inside the memory tier at once: one, under the interpreter's lock.
fn parallelism(py: Python<'_>) -> PyResult<usize> {
    let question = py.import("sys")?.getattr_opt("_is_gil_enabled")?;
    let locked = question.map_or(Ok(true), |question| question.call0()?.extract::<bool>())?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(if locked { 1 } else { cores })
}

impl Shared {
    /// Opens the store.
    pub(super) fn open(py: Python<'_>, settings: Settings, clock: Clock) -> PyResult<Self> {
        let parallelism = parallelism(py)?;
        Ok(Self {
            cache: Arc::new(py.detach(|| Cache::open(settings, clock, parallelism))?),
            door: Door::default(),
            maintenance: Maintenance::default(),
            started: AtomicBool::new(false),
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

    /// Before each use of the store: the thread that serves it runs, and what it removed from
    /// memory is dropped here, where a destructor may run.
    pub(super) fn begin(&self) -> Result<()> {
        self.cache.check_open()?;
        // Not while a fork is under way: the child would have the handle without the thread.
        if !self.door.is_closed() && !self.started.swap(true, Ordering::AcqRel) {
            self.maintenance.start(&self.cache)?;
        }
        drop(self.cache.take_graveyard());
        Ok(())
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
        match self
            .cache
            .lookup(hash, key, version, promote, |value| value.clone_ref(py))
        {
            Lookup::Hit(value) => Some(value),
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
        self.begin()?;
        // Microseconds, without a lock to wait for: letting go of the interpreter and getting it
        // back can cost far more. Only when somebody holds the file do we step aside.
        let found = match self.cache.fetch(key, version, false) {
            Err(Error::StoreBusy { .. }) => {
                self.detached(py, |cache| cache.fetch(key, version, true))
            }
            found => found,
        };
        if let Some(arrival) = found? {
            return self.receive(py, key, arrival, promote);
        }
        // A stale copy is of no more use - unless the row is only of another version.
        if version.is_none() {
            drop(self.cache.forget([key]));
        }
        Ok(None)
    }

    fn receive(
        &self,
        py: Python<'_>,
        key: &str,
        arrival: Arrival,
        promote: bool,
    ) -> PyResult<Option<Live>> {
        match value::decode(py, &arrival.row.data, &arrival.row.format) {
            Ok(value) => {
                let value = value.unbind();
                drop(self.cache.admit(key, value.clone_ref(py), arrival, promote));
                Ok(Some(value))
            }
            Err(error) if error.is_instance_of::<CorruptEntryError>(py) => {
                self.cache.reject();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Stores one value, then keeps it in memory.
    pub(super) fn put(&self, key: &str, value: &Bound<'_, PyAny>, put: &Put) -> PyResult<()> {
        let py = value.py();
        self.begin()?;
        if put.is_void() {
            self.remove(py, &[key])?;
            return Ok(());
        }
        let draft = self.encode(key, value, put)?;
        let commit = self.detached(py, |cache| cache.store(&[(key, &draft)], &put.tags))?;
        drop(self.cache.keep(key, value.clone().unbind(), &draft, commit));
        Ok(())
    }

    fn encode(&self, key: &str, value: &Bound<'_, PyAny>, put: &Put) -> PyResult<Draft> {
        let (data, format) =
            value::encode(value, put.prefer).map_err(|error| name_key(key, error, value.py()))?;
        Ok(self
            .cache
            .draft(data, format.as_str(), put.ttl, put.version, put.compute_us))
    }

    pub(super) fn remove(&self, py: Python<'_>, keys: &[&str]) -> PyResult<Vec<bool>> {
        let existed = self.detached(py, |cache| cache.delete(keys))?;
        drop(self.cache.forget(keys.iter().copied()));
        Ok(existed)
    }

    pub(super) fn shutdown(&self, py: Python<'_>) -> Result<()> {
        let _inside = self.door.enter(py);
        let (values, closed) = py.detach(|| {
            self.maintenance.stop();
            self.cache.close()
        });
        drop(values);
        closed
    }

    /// The values of those keys that are there.
    pub(super) fn get_many<'py>(
        &self,
        py: Python<'py>,
        keys: &[Bound<'py, PyAny>],
    ) -> PyResult<Bound<'py, PyDict>> {
        self.begin()?;
        let found = PyDict::new(py);
        let mut missing: Vec<(&Bound<'py, PyAny>, &str)> = Vec::new();
        for key in keys {
            let text = arguments::key(key)?;
            match self.peek(py, self.cache.hash(text), text, None, true) {
                Some(value) => found.set_item(key, value)?,
                None => missing.push((key, text)),
            }
        }
        let texts: Vec<&str> = missing.iter().map(|(_, text)| *text).collect();
        let arrivals = self.detached(py, |cache| cache.fetch_many(&texts))?;
        for ((key, text), arrival) in missing.into_iter().zip(arrivals) {
            if let Some(arrival) = arrival
                && let Some(value) = self.receive(py, text, arrival, true)?
            {
                found.set_item(key, value)?;
            }
        }
        Ok(found)
    }

    /// Stores every item of a dict that nobody else changes.
    pub(super) fn put_many(&self, items: &Bound<'_, PyDict>, put: &Put) -> PyResult<()> {
        let py = items.py();
        let pairs: Vec<_> = items.iter().collect();
        let keys: Vec<&str> = pairs
            .iter()
            .map(|(key, _)| arguments::key(key))
            .collect::<PyResult<_>>()?;
        self.begin()?;
        if put.is_void() {
            return self.remove(py, &keys).map(drop);
        }
        let mut drafts = Vec::with_capacity(pairs.len());
        for (key, (_, value)) in keys.iter().zip(&pairs) {
            drafts.push((*key, self.encode(key, value, put)?));
        }
        let named: Vec<(&str, &Draft)> = drafts.iter().map(|(key, draft)| (*key, draft)).collect();
        let commit = self.detached(py, |cache| cache.store(&named, &put.tags))?;
        for ((key, draft), (_, value)) in drafts.iter().zip(&pairs) {
            drop(self.cache.keep(key, value.clone().unbind(), draft, commit));
        }
        Ok(())
    }

    /// The access log, hottest first.
    pub(super) fn hottest(&self, py: Python<'_>, limit: Option<i64>) -> PyResult<Vec<AccessRow>> {
        let limit = arguments::limit(limit)?;
        self.begin()?;
        Ok(self.detached(py, |cache| cache.store_stats(limit))?)
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

/// Says which key a value was refused for.
#[cold]
fn name_key(key: &str, error: PyErr, py: Python<'_>) -> PyErr {
    if !error.is_instance_of::<SerializationError>(py) {
        return error;
    }
    let named = SerializationError::new_err(format!("key {key:?}: {}", error.value(py)));
    named.set_cause(py, Some(error));
    named
}
