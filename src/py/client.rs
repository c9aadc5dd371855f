//! The sync client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::arguments;
use super::clock::PyManualClock;
use super::decorator::decorate;
use super::error::{CorruptEntryError, InvalidSettingError, SerializationError};
use super::value;
use crate::cache::{Arrival, Cache, Draft, Lookup};
use crate::codec::Format;
use crate::entry::Expired;
use crate::error::{Error, Result};
use crate::maintenance::Maintenance;
use crate::settings::{Location, Settings, parse_busy_timeout, parse_location};
use crate::time::{Clock, Ttl};

/// A live Python object.
type Live = Py<PyAny>;

/// Open clients, for the interpreter's exit.
static OPEN: Mutex<Vec<std::sync::Weak<Shared>>> = Mutex::new(Vec::new());

/// What a client shares with the registry of open clients.
pub(super) struct Shared {
    pub(super) cache: Arc<Cache<Live>>,
    maintenance: Maintenance,
    started: AtomicBool,
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

impl Shared {
    /// Before each use of the store: the thread that serves it runs, and what it removed from
    /// memory is dropped here, where a destructor may run.
    fn begin(&self) -> Result<()> {
        self.cache.check_open()?;
        if !self.started.swap(true, Ordering::AcqRel) {
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
        match self.cache.lookup(hash, key, version, promote, |value| value.clone_ref(py)) {
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
            Err(Error::StoreBusy { .. }) => py.detach(|| self.cache.fetch(key, version, true)),
            found => found,
        };
        match found? {
            Some(arrival) => self.receive(py, key, arrival, promote),
            None => {
                // A stale copy is of no more use.
                drop(self.cache.forget([key]));
                Ok(None)
            }
        }
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
    pub(super) fn put(
        &self,
        key: &str,
        value: &Bound<'_, PyAny>,
        put: &Put,
    ) -> PyResult<()> {
        let py = value.py();
        self.begin()?;
        if put.ttl.is_some_and(Ttl::is_zero) {
            self.remove(py, &[key])?;
            return Ok(());
        }
        let draft = self.encode(key, value, put)?;
        let commit = py.detach(|| self.cache.store(&[(key, &draft)], &put.tags))?;
        drop(self.cache.keep(key, value.clone().unbind(), &draft, commit));
        Ok(())
    }

    fn encode(&self, key: &str, value: &Bound<'_, PyAny>, put: &Put) -> PyResult<Draft> {
        let (data, format) =
            value::encode(value, put.prefer).map_err(|error| name_key(key, error, value.py()))?;
        Ok(self.cache.draft(data, format.as_str(), put.ttl, put.version, put.compute_us))
    }

    fn remove(&self, py: Python<'_>, keys: &[&str]) -> PyResult<Vec<bool>> {
        let existed = py.detach(|| self.cache.delete(keys))?;
        drop(self.cache.forget(keys.iter().copied()));
        Ok(existed)
    }

    fn shutdown(&self, py: Python<'_>) -> Result<()> {
        let values = py.detach(|| {
            self.maintenance.stop();
            self.cache.close()
        })?;
        drop(values);
        Ok(())
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

/// A cache in two tiers: live objects in memory over a SQLite file.
#[pyclass(name = "Cachetronaut", module = "cachetronomy._core", frozen, subclass, weakref)]
pub(crate) struct Client {
    pub(super) shared: Arc<Shared>,
}

impl Drop for Client {
    fn drop(&mut self) {
        // Nobody is left to be told of an error.
        Python::try_attach(|py| drop(self.shared.shutdown(py)));
    }
}

/// The parameter `max_items_in_memory`, whose `None` means that there is no limit.
enum Items {
    NotGiven,
    Given(Option<usize>),
}

impl<'py> FromPyObject<'_, 'py> for Items {
    type Error = PyErr;

    fn extract(given: pyo3::Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if given.is(given.py().Ellipsis()) {
            return Ok(Self::NotGiven);
        }
        given.extract::<Option<usize>>().map(Self::Given).map_err(|_| {
            InvalidSettingError::new_err(format!(
                "max_items_in_memory: {:?} is not a number of items; give an int >= 0, or None \
                 for no limit",
                &*given
            ))
        })
    }
}

/// Opening: arguments to settings.
fn settings(
    py: Python<'_>,
    db_path: Option<&Bound<'_, PyAny>>,
    max_items_in_memory: Items,
    busy_timeout: f64,
) -> PyResult<Settings> {
    let mut settings = Settings::default();
    if let Some(path) = db_path {
        let path = py.import("os")?.call_method1("fspath", (path,))?;
        let text = path.extract::<String>().map_err(|_| {
            InvalidSettingError::new_err(format!("db_path: {path:?} is not text; give a str path"))
        })?;
        settings.location = parse_location(&text)?;
    } else if let Location::File(path) = &settings.location {
        settings.location = parse_location(&path.to_string_lossy())?;
    }
    if let Items::Given(limit) = max_items_in_memory {
        settings.max_items_in_memory = limit;
    }
    settings.busy_timeout = parse_busy_timeout(busy_timeout)?;
    Ok(settings)
}

/// Threads that can be inside the memory tier at once: one, under the interpreter's lock.
fn parallelism(py: Python<'_>) -> PyResult<usize> {
    let question = py.import("sys")?.getattr_opt("_is_gil_enabled")?;
    let locked = question.map_or(Ok(true), |question| question.call0()?.extract::<bool>())?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(if locked { 1 } else { cores })
}

/// The interpreter's exit closes what the program left open.
fn register(py: Python<'_>, shared: &Arc<Shared>) -> PyResult<()> {
    static AT_EXIT: pyo3::sync::PyOnceLock<()> = pyo3::sync::PyOnceLock::new();
    AT_EXIT.get_or_try_init(py, || {
        let close_all = py.import("cachetronomy._core")?.getattr("_close_all")?;
        py.import("atexit")?.call_method1("register", (close_all,)).map(drop)
    })?;
    let mut open = OPEN.lock();
    open.retain(|client| client.strong_count() > 0);
    open.push(Arc::downgrade(shared));
    Ok(())
}

/// Closes every open client of the process; called when the interpreter exits.
#[pyfunction]
#[pyo3(name = "_close_all")]
pub(crate) fn close_all(py: Python<'_>) -> PyResult<()> {
    let open = std::mem::take(&mut *OPEN.lock());
    let mut result = Ok(());
    for client in open.iter().filter_map(std::sync::Weak::upgrade) {
        client.exited.store(true, Ordering::Release);
        result = result.and(client.shutdown(py));
    }
    Ok(result?)
}

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (
        db_path = None, *, max_items_in_memory = Items::NotGiven, busy_timeout = 5.0, _clock = None
    ))]
    fn new(
        py: Python<'_>,
        db_path: Option<&Bound<'_, PyAny>>,
        max_items_in_memory: Items,
        busy_timeout: f64,
        _clock: Option<&Bound<'_, PyManualClock>>,
    ) -> PyResult<Self> {
        let settings = settings(py, db_path, max_items_in_memory, busy_timeout)?;
        let clock = _clock.map_or(Clock::System, |hands| Clock::Manual(hands.get().clock.clone()));
        let parallelism = parallelism(py)?;
        let cache = py.detach(|| Cache::open(settings, clock, parallelism))?;
        let shared = Arc::new(Shared {
            cache: Arc::new(cache),
            maintenance: Maintenance::default(),
            started: AtomicBool::new(false),
            exited: AtomicBool::new(false),
        });
        register(py, &shared)?;
        Ok(Self { shared })
    }

    /// The value of a key, or `default`.
    #[pyo3(signature = (key, model = None, promote = true, default = None, version = None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        model: Option<&Bound<'py, PyAny>>,
        promote: bool,
        default: Option<Bound<'py, PyAny>>,
        version: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let key = arguments::key(key)?;
        let version = arguments::version(version)?;
        let hash = self.shared.cache.hash(key);
        let found = match self.shared.peek(py, hash, key, version, promote) {
            Some(value) => Some(value),
            None => self.shared.load(py, key, version, promote)?,
        };
        match (found, model) {
            (Some(value), None) => Ok(value.into_bound(py)),
            (Some(value), Some(model)) => {
                let models = py.import(pyo3::intern!(py, "cachetronomy.models"))?;
                models.call_method1(pyo3::intern!(py, "validate"), (value, model))
            }
            (None, _) => Ok(default.unwrap_or_else(|| py.None().into_bound(py))),
        }
    }

    /// Stores a value under a key.
    #[pyo3(signature = (
        key, value, time_to_live = None, version = None, tags = None, prefer = None, *, ttl = None
    ))]
    #[expect(clippy::too_many_arguments, reason = "the public signature")]
    fn set(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        time_to_live: Option<&Bound<'_, PyAny>>,
        version: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        prefer: Option<&str>,
        ttl: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let key = arguments::key(key)?;
        let put = Put {
            ttl: arguments::ttl(ttl, time_to_live)?,
            version: arguments::version(version)?.unwrap_or(1),
            tags: arguments::tags(tags)?,
            prefer: arguments::format(prefer)?,
            compute_us: 0,
        };
        self.shared.put(key, value, &put)
    }

    /// Deletes a key from both tiers; says whether it existed.
    fn delete(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let key = arguments::key(key)?;
        self.shared.begin()?;
        Ok(self.shared.remove(py, &[key])?.contains(&true))
    }

    /// The values of those keys that are there, read in one transaction.
    fn get_many<'py>(&self, py: Python<'py>, keys: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
        let keys = arguments::keys(keys)?;
        self.shared.begin()?;
        let found = PyDict::new(py);
        let mut missing: Vec<(&Bound<'py, PyAny>, &str)> = Vec::new();
        for key in &keys {
            let text = arguments::key(key)?;
            match self.shared.peek(py, self.shared.cache.hash(text), text, None, true) {
                Some(value) => found.set_item(key, value)?,
                None => missing.push((key, text)),
            }
        }
        let texts: Vec<&str> = missing.iter().map(|(_, text)| *text).collect();
        let arrivals = py.detach(|| self.shared.cache.fetch_many(&texts))?;
        for ((key, text), arrival) in missing.into_iter().zip(arrivals) {
            if let Some(arrival) = arrival
                && let Some(value) = self.shared.receive(py, text, arrival, true)?
            {
                found.set_item(key, value)?;
            }
        }
        Ok(found)
    }

    /// Stores every item of a mapping, in one transaction.
    #[pyo3(signature = (
        items, time_to_live = None, version = None, tags = None, prefer = None, *, ttl = None
    ))]
    #[expect(clippy::too_many_arguments, reason = "the public signature")]
    fn set_many(
        &self,
        py: Python<'_>,
        items: &Bound<'_, PyAny>,
        time_to_live: Option<&Bound<'_, PyAny>>,
        version: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        prefer: Option<&str>,
        ttl: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let put = Put {
            ttl: arguments::ttl(ttl, time_to_live)?,
            version: arguments::version(version)?.unwrap_or(1),
            tags: arguments::tags(tags)?,
            prefer: arguments::format(prefer)?,
            compute_us: 0,
        };
        // Our own copy: encoding runs Python code, which may change the caller's mapping.
        let items = PyDict::from_sequence(&items.call_method0("items")?)?;
        let pairs: Vec<_> = items.iter().collect();
        let keys: Vec<&str> =
            pairs.iter().map(|(key, _)| arguments::key(key)).collect::<PyResult<_>>()?;
        self.shared.begin()?;
        if put.ttl.is_some_and(Ttl::is_zero) {
            self.shared.remove(py, &keys)?;
            return Ok(());
        }
        let mut drafts = Vec::with_capacity(pairs.len());
        for (key, (_, value)) in keys.iter().zip(&pairs) {
            drafts.push((*key, self.shared.encode(key, value, &put)?));
        }
        let named: Vec<(&str, &Draft)> = drafts.iter().map(|(key, draft)| (*key, draft)).collect();
        let commit = py.detach(|| self.shared.cache.store(&named, &put.tags))?;
        for ((key, draft), (_, value)) in drafts.iter().zip(&pairs) {
            drop(self.shared.cache.keep(key, value.clone().unbind(), draft, commit));
        }
        Ok(())
    }

    /// Deletes keys from both tiers, in one transaction; returns how many existed.
    fn delete_many(&self, py: Python<'_>, keys: &Bound<'_, PyAny>) -> PyResult<usize> {
        let keys = arguments::keys(keys)?;
        let keys: Vec<&str> = keys.iter().map(arguments::key).collect::<PyResult<_>>()?;
        self.shared.begin()?;
        Ok(self.shared.remove(py, &keys)?.into_iter().filter(|existed| *existed).count())
    }

    /// Drops a key from memory; the store keeps it.
    fn evict(&self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let key = arguments::key(key)?;
        self.shared.begin()?;
        drop(self.shared.cache.evict(key));
        Ok(())
    }

    /// Drops everything from memory; the store keeps it.
    fn evict_all(&self) -> PyResult<()> {
        self.shared.begin()?;
        drop(self.shared.cache.evict_all());
        Ok(())
    }

    /// Empties both tiers.
    fn clear_all(&self, py: Python<'_>) -> PyResult<()> {
        self.shared.begin()?;
        py.detach(|| self.shared.cache.clear())?;
        drop(self.shared.cache.evict_all());
        Ok(())
    }

    /// Removes what is past its deadline: `[(key, expire_at)]`.
    fn _clear_expired(&self, py: Python<'_>) -> PyResult<Vec<(String, Option<String>)>> {
        self.shared.begin()?;
        let expired = py.detach(|| self.shared.cache.delete_expired())?;
        drop(self.shared.cache.forget_expired(&expired));
        let text = |entry: Expired| (entry.key, entry.expire_at.map(|time| time.to_string()));
        Ok(expired.into_iter().map(text).collect())
    }

    /// Removes entries that have any of the tags or, if `exact_match`, exactly these; returns
    /// their keys.
    #[pyo3(signature = (tags, exact_match = false))]
    fn clear_by_tags(
        &self,
        py: Python<'_>,
        tags: &Bound<'_, PyAny>,
        exact_match: bool,
    ) -> PyResult<Vec<String>> {
        let tags = arguments::tags(Some(tags))?;
        self.shared.begin()?;
        let removed = py.detach(|| self.shared.cache.delete_by_tags(&tags, exact_match))?;
        drop(self.shared.cache.forget(removed.iter().map(String::as_str)));
        Ok(removed)
    }

    /// Keys of the live entries in the store.
    fn store_keys(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.shared.begin()?;
        Ok(py.detach(|| self.shared.cache.store_keys())?)
    }

    /// Keys of the live entries in memory.
    fn memory_keys(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.shared.begin()?;
        Ok(py.detach(|| self.shared.cache.memory_keys())?)
    }

    /// Keys of the live entries in either tier, each once.
    fn all_keys(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        // Memory holds nothing that the store does not.
        self.store_keys(py)
    }

    /// Hits of this process: `[(key, count)]`, hottest first.
    #[pyo3(signature = (limit = None))]
    fn memory_stats(&self, limit: Option<i64>) -> PyResult<Vec<(String, u64)>> {
        let limit = arguments::limit(limit)?;
        self.shared.begin()?;
        Ok(self.shared.cache.memory_stats(limit)?)
    }

    /// Hits of all processes ever: `[(key, count, last_accessed, profile)]`, hottest first.
    #[pyo3(signature = (limit = None))]
    fn _store_stats(
        &self,
        py: Python<'_>,
        limit: Option<i64>,
    ) -> PyResult<Vec<(String, i64, String, String)>> {
        let limit = arguments::limit(limit)?;
        self.shared.begin()?;
        let rows = py.detach(|| self.shared.cache.store_stats(limit))?;
        let tuple = |row: crate::entry::AccessRow| {
            (row.key, row.count, row.last_accessed, row.profile)
        };
        Ok(rows.into_iter().map(tuple).collect())
    }

    /// The hottest keys of all processes ever: `[(key, count)]`.
    #[pyo3(signature = (limit = Some(10)))]
    fn get_hot_keys(&self, py: Python<'_>, limit: Option<i64>) -> PyResult<Vec<(String, i64)>> {
        let rows = self._store_stats(py, limit)?;
        Ok(rows.into_iter().map(|row| (row.0, row.1)).collect())
    }

    /// Counters of this process since it opened the cache, and sizes as they are.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.shared.begin()?;
        let stats = py.detach(|| self.shared.cache.stats())?;
        let report = PyDict::new(py);
        report.set_item("memory_hits", stats.memory_hits)?;
        report.set_item("store_hits", stats.store_hits)?;
        report.set_item("misses", stats.misses)?;
        report.set_item("hit_ratio", stats.hit_ratio)?;
        report.set_item("sets", stats.sets)?;
        report.set_item("evictions", stats.evictions)?;
        report.set_item("evictions_count", stats.evictions_count)?;
        report.set_item("expired", stats.expired)?;
        report.set_item("memory_keys", stats.memory_keys)?;
        report.set_item("memory_bytes", stats.memory_bytes)?;
        report.set_item("store_keys", stats.store_keys)?;
        report.set_item("store_bytes", stats.store_bytes)?;
        report.set_item("total_keys", stats.store_keys)?;
        report.set_item("hot_keys", PyList::new(py, self.get_hot_keys(py, Some(10))?)?)?;
        report.set_item("seconds_saved", stats.seconds_saved)?;
        report.set_item("errors", stats.errors)?;
        report.set_item("profile", &self.shared.cache.settings().profile)?;
        Ok(report)
    }

    /// Writes pending counts and logs to the store.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.shared.begin()?;
        Ok(py.detach(|| self.shared.cache.flush_logs())?)
    }

    /// Looks for damage in both tiers and the file; one line for each finding.
    fn check(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.shared.begin()?;
        Ok(py.detach(|| self.shared.cache.check())?)
    }

    /// Writes what is pending and closes the cache. Calling it again does nothing.
    fn shutdown(&self, py: Python<'_>) -> PyResult<()> {
        Ok(self.shared.shutdown(py)?)
    }

    /// Another name of `shutdown`.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.shutdown(py)
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().shared.cache.check_open()?;
        Ok(slf)
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.shutdown(py)
    }

    /// Makes a function's results cached: `@cache`, or `@cache(ttl=60, tags=["x"])`.
    #[pyo3(signature = (
        function = None, *, ttl = None, time_to_live = None, tags = None, version = None,
        prefer = None, key_builder = None
    ))]
    #[expect(clippy::too_many_arguments, reason = "the public signature")]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        function: Option<Bound<'py, PyAny>>,
        ttl: Option<&Bound<'py, PyAny>>,
        time_to_live: Option<&Bound<'py, PyAny>>,
        tags: Option<&Bound<'py, PyAny>>,
        version: Option<&Bound<'py, PyAny>>,
        prefer: Option<&str>,
        key_builder: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        slf.get().shared.cache.check_open()?;
        let put = Put {
            ttl: arguments::ttl(ttl, time_to_live)?,
            version: arguments::version(version)?.unwrap_or(1),
            tags: arguments::tags(tags)?,
            prefer: arguments::format(prefer)?,
            compute_us: 0,
        };
        decorate(slf, function, put, key_builder)
    }

    fn __repr__(&self) -> String {
        let location = match &self.shared.cache.settings().location {
            Location::Memory => String::from(":memory:"),
            Location::File(path) => path.display().to_string(),
        };
        let state = if self.shared.cache.check_open().is_err() { " closed" } else { "" };
        format!("<Cachetronaut {location:?}{state}>")
    }

    #[expect(clippy::needless_pass_by_value, reason = "the shape of the protocol")]
    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        let mut result = Ok(());
        self.shared.cache.try_visit(|value| {
            if result.is_ok() {
                result = visit.call(value);
            }
        });
        result
    }

    fn __clear__(&self) {
        drop(self.shared.cache.abandon());
    }
}
