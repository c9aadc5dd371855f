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
    ), text_signature = "(db_path=None, *, max_items_in_memory=100, busy_timeout=5.0, _clock=None)")]
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

    /// Return the value of a key, or `default` on a miss.
    ///
    /// `model`: a pydantic model, or any type that pydantic can validate, to return the value as.
    /// `promote=False` leaves the access counts alone. `version`: another stored version is a
    /// miss; `None` takes any.
    ///
    /// Raises `InvalidKeyError`, `InvalidSettingError`, `StoreBusyError`,
    /// `StoreUnavailableError`, `CacheClosedError`.
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
        model.map_or(Ok(()), arguments::model)?;
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

    /// Store a value under a key, in both tiers; committed when it returns.
    ///
    /// `time_to_live` and `ttl` are two names of one parameter: seconds, a `timedelta`, or text
    /// such as `"1h30m"` (whole numbers of d, h, m, s). `None` is the default, one hour;
    /// `math.inf` is for ever; 0 keeps nothing and removes what is there. `version`: an int >= 1,
    /// default 1. `tags`: a list, or one string for one tag. `prefer`: the format to try first,
    /// `"json"`, `"orjson"`, `"msgpack"` or `"cachetronomy"`.
    ///
    /// Raises `SerializationError`, `InvalidKeyError`, `InvalidSettingError`, `StoreBusyError`,
    /// `StoreFullError`, `StoreUnavailableError`, `CacheClosedError`; nothing was changed then.
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

    /// Delete a key from both tiers; return whether it existed.
    fn delete(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let key = arguments::key(key)?;
        self.shared.begin()?;
        Ok(self.shared.remove(py, &[key])?.contains(&true))
    }

    /// Return the values of those keys that are there, read in one transaction.
    fn get_many<'py>(
        &self,
        py: Python<'py>,
        keys: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyDict>> {
        self.shared.get_many(py, &arguments::keys(keys)?)
    }

    /// Store every item of a mapping, in one transaction; the other parameters as in `set`.
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

    /// Delete keys from both tiers, in one transaction; return how many existed.
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

    /// Drop a key from memory; the store keeps it.
    fn evict(&self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let key = arguments::key(key)?;
        self.shared.begin()?;
        drop(self.shared.cache.evict(key));
        Ok(())
    }

    /// Drop everything from memory; the store keeps it.
    fn evict_all(&self) -> PyResult<()> {
        self.shared.begin()?;
        drop(self.shared.cache.evict_all());
        Ok(())
    }

    /// Empty both tiers.
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

    /// Remove entries that have any of the tags or, if `exact_match`, exactly these; return
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

    /// Return the keys of the live entries in the store.
    fn store_keys(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.shared.begin()?;
        Ok(self.shared.detached(py, Cache::store_keys)?)
    }

    /// Return the keys of the live entries in memory.
    fn memory_keys(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.shared.begin()?;
        Ok(self.shared.detached(py, Cache::memory_keys)?)
    }

    /// Return the keys of the live entries in either tier, each once.
    fn all_keys(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        // Memory holds nothing that the store does not.
        self.store_keys(py)
    }

    /// Return the hits of this process: `[(key, count)]`, hottest first.
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

    /// Return the hottest keys of all processes ever: `[(key, count)]`.
    #[pyo3(signature = (limit = Some(10)), text_signature = "($self, limit=10)")]
    fn get_hot_keys(&self, py: Python<'_>, limit: Option<i64>) -> PyResult<Vec<(String, i64)>> {
        let pair = |row: AccessRow| (row.key, row.count);
        Ok(self
            .shared
            .hottest(py, limit)?
            .into_iter()
            .map(pair)
            .collect())
    }

    /// Return a dict of counters of this process since it opened the cache - `memory_hits`,
    /// `store_hits`, `misses`, `hit_ratio` (0 to 1), `sets`, `evictions` (a dict by reason),
    /// `evictions_count`, `expired`, `seconds_saved`, `errors` - and of sizes as they are:
    /// `memory_keys`, `memory_bytes`, `store_keys`, `store_bytes` (of the file), `total_keys`,
    /// `hot_keys`, `profile`.
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

    /// Write pending counts and logs to the store.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.shared.begin()?;
        Ok(self.shared.detached(py, Cache::flush_logs)?)
    }

    /// Look for damage in both tiers, the file and every entry; return one line for each finding.
    fn check(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.shared.begin()?;
        Ok(self.shared.detached(py, Cache::check)?)
    }

    /// Write what is pending and close the cache. Calling it again does nothing; any other call
    /// raises `CacheClosedError` from then on.
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

    /// Cache a function's results: `@cache`, or `@cache(ttl=60, tags=["x"])`.
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
