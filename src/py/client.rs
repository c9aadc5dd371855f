//! The sync client.

use std::sync::Arc;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::arguments::{self, Items};
use super::clock::PyManualClock;
use super::decorator::decorate;
use super::fork::OPENING;
use super::registry::register;
use super::shared::{Put, Shared};
use crate::cache::Cache;
use crate::entry::{AccessRow, Expired};
use crate::settings::Location;
use crate::time::{Clock, Timestamp};

/// A cache in two tiers: live objects in memory over a SQLite file.
#[pyclass(
    name = "Cachetronaut",
    module = "cachetronomy._core",
    frozen,
    subclass,
    weakref
)]
pub(crate) struct Client {
    pub(super) shared: Arc<Shared>,
}

impl Drop for Client {
    fn drop(&mut self) {
        // Nobody is left to be told of an error.
        Python::try_attach(|py| drop(self.shared.shutdown(py)));
    }
}

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (
        db_path = None, *, max_items_in_memory = Items::NotGiven, busy_timeout = 5.0, _clock = None
    ))]
    #[expect(clippy::used_underscore_binding, reason = "private to our tests")]
    fn new(
        py: Python<'_>,
        db_path: Option<&Bound<'_, PyAny>>,
        max_items_in_memory: Items,
        busy_timeout: f64,
        _clock: Option<&Bound<'_, PyManualClock>>,
    ) -> PyResult<Self> {
        let settings = arguments::settings(py, db_path, max_items_in_memory, busy_timeout)?;
        let clock = _clock.map_or(Clock::System, |hands| {
            Clock::Manual(hands.get().clock.clone())
        });
        // Until it is registered, no fork would know of it.
        let _inside = OPENING.enter(py);
        let shared = Arc::new(Shared::open(py, settings, clock)?);
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
        let put = Put::parse(ttl, time_to_live, version, tags, prefer)?;
        self.shared.put(key, value, &put)
    }

    /// Deletes a key from both tiers; says whether it existed.
    fn delete(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let key = arguments::key(key)?;
        self.shared.begin()?;
        Ok(self.shared.remove(py, &[key])?.contains(&true))
    }

    /// The values of those keys that are there, read in one transaction.
    fn get_many<'py>(
        &self,
        py: Python<'py>,
        keys: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyDict>> {
        self.shared.get_many(py, &arguments::keys(keys)?)
    }

    /// Stores every item of a mapping, in one transaction.
    #[pyo3(signature = (
        items, time_to_live = None, version = None, tags = None, prefer = None, *, ttl = None
    ))]
    fn set_many(
        &self,
        items: &Bound<'_, PyAny>,
        time_to_live: Option<&Bound<'_, PyAny>>,
        version: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        prefer: Option<&str>,
        ttl: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let put = Put::parse(ttl, time_to_live, version, tags, prefer)?;
        // Our own copy: encoding runs Python code, which may change the caller's mapping.
        let items = items
            .py()
            .get_type::<PyDict>()
            .call1((items,))?
            .cast_into::<PyDict>()?;
        self.shared.put_many(&items, &put)
    }

    /// Deletes keys from both tiers, in one transaction; returns how many existed.
    fn delete_many(&self, py: Python<'_>, keys: &Bound<'_, PyAny>) -> PyResult<usize> {
        let keys = arguments::keys(keys)?;
        let keys: Vec<&str> = keys.iter().map(arguments::key).collect::<PyResult<_>>()?;
        self.shared.begin()?;
        Ok(self
            .shared
            .remove(py, &keys)?
            .into_iter()
            .filter(|existed| *existed)
            .count())
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
        self.shared.detached(py, Cache::clear)?;
        drop(self.shared.cache.evict_all());
        Ok(())
    }

    /// Removes what is past its deadline: `[(key, expire_at)]`.
    fn _clear_expired(&self, py: Python<'_>) -> PyResult<Vec<(String, Option<String>)>> {
        self.shared.begin()?;
        let expired = self.shared.detached(py, Cache::delete_expired)?;
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
        let removed = self
            .shared
            .detached(py, |cache| cache.delete_by_tags(&tags, exact_match))?;
        drop(self.shared.cache.forget(removed.iter().map(String::as_str)));
        Ok(removed)
    }

    /// Keys of the live entries in the store.
    fn store_keys(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.shared.begin()?;
        Ok(self.shared.detached(py, Cache::store_keys)?)
    }

    /// Keys of the live entries in memory.
    fn memory_keys(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.shared.begin()?;
        Ok(self.shared.detached(py, Cache::memory_keys)?)
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
        let tuple = |row: AccessRow| (row.key, row.count, row.last_accessed, row.profile);
        // A stranger's row with a time that is none hides no other.
        let readable = |row: &AccessRow| Timestamp::parse(&row.last_accessed).is_some();
        let rows = self.shared.hottest(py, limit)?.into_iter();
        Ok(rows.filter(readable).map(tuple).collect())
    }

    /// The hottest keys of all processes ever: `[(key, count)]`.
    #[pyo3(signature = (limit = Some(10)))]
    fn get_hot_keys(&self, py: Python<'_>, limit: Option<i64>) -> PyResult<Vec<(String, i64)>> {
        let pair = |row: AccessRow| (row.key, row.count);
        Ok(self
            .shared
            .hottest(py, limit)?
            .into_iter()
            .map(pair)
            .collect())
    }

    /// Counters of this process since it opened the cache, and sizes as they are.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.shared.begin()?;
        let stats = self.shared.detached(py, Cache::stats)?;
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
        report.set_item(
            "hot_keys",
            PyList::new(py, self.get_hot_keys(py, Some(10))?)?,
        )?;
        report.set_item("seconds_saved", stats.seconds_saved)?;
        report.set_item("errors", stats.errors)?;
        report.set_item("profile", &self.shared.cache.settings().profile)?;
        Ok(report)
    }

    /// Writes pending counts and logs to the store.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.shared.begin()?;
        Ok(self.shared.detached(py, Cache::flush_logs)?)
    }

    /// Looks for damage in both tiers and the file; one line for each finding.
    fn check(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.shared.begin()?;
        Ok(self.shared.detached(py, Cache::check)?)
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
        let put = Put::parse(ttl, time_to_live, version, tags, prefer)?;
        decorate(slf, function, put, key_builder)
    }

    fn __repr__(&self) -> String {
        let location = match &self.shared.cache.settings().location {
            Location::Memory => String::from(":memory:"),
            Location::File(path) => path.display().to_string(),
        };
        let state = if self.shared.cache.check_open().is_err() {
            " closed"
        } else {
            ""
        };
        format!("<Cachetronaut {location:?}{state}>")
    }

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
