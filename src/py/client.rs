//! The sync client.

use std::sync::{Arc, OnceLock};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::arguments::{self, Items};
use super::error::{CacheClosedError, CachetronomyError};
use super::fields;
use super::fork::OPENING;
use super::manual::{PyManualClock, PyManualGauge};
use super::options::{Options, Raw, Together};
use super::put::Put;
use super::registry::register;
use super::shared::Shared;
use super::wrap::decorate;
use crate::cache::Cache;
use crate::pressure::Gauge;
use crate::time::Clock;

/// A cache in two tiers: live objects in memory over a SQLite file.
#[pyclass(
    name = "Cachetronaut",
    module = "cachetronomy._core",
    frozen,
    subclass,
    weakref
)]
pub(crate) struct Client {
    shared: OnceLock<Arc<Shared>>,
}

impl Drop for Client {
    fn drop(&mut self) {
        // Nobody is left to be told of an error.
        if let Some(shared) = self.shared.get() {
            Python::try_attach(|py| drop(shared.shutdown(py)));
        }
    }
}

impl Client {
    /// What `__init__` has opened.
    #[inline]
    pub(super) fn shared(&self) -> PyResult<&Arc<Shared>> {
        self.shared.get().ok_or_else(not_open)
    }

    /// The cache, if it is open, ready for a call that may use the store.
    pub(super) fn begin(&self, py: Python<'_>) -> PyResult<&Arc<Shared>> {
        let shared = self.shared()?;
        shared.begin(py)?;
        Ok(shared)
    }
}

#[cold]
fn not_open() -> PyErr {
    CacheClosedError::new_err("this cache was never opened; call super().__init__() first")
}

#[pymethods]
impl Client {
    /// Takes anything: subclasses have an `__init__` of their own, and `_open` does the work.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            shared: OnceLock::new(),
        }
    }

    /// Opens the cache: the one thing that `__init__` has to do.
    #[pyo3(signature = (
        db_path, profile, given, environment, *, max_items_in_memory = Items::NotGiven,
        busy_timeout = 5.0, serializer = None, clock = None, gauge = None
    ), text_signature = "($self, db_path, profile, given, environment, *, max_items_in_memory=..., \
                         busy_timeout=5.0, serializer=None, clock=None, gauge=None)")]
    #[expect(clippy::too_many_arguments, reason = "everything that can be set")]
    fn _open(
        &self,
        py: Python<'_>,
        db_path: Option<&Bound<'_, PyAny>>,
        profile: &Bound<'_, PyAny>,
        given: &Bound<'_, PyDict>,
        environment: &Bound<'_, PyDict>,
        max_items_in_memory: Items,
        busy_timeout: f64,
        serializer: Option<&str>,
        clock: Option<&Bound<'_, PyManualClock>>,
        gauge: Option<&Bound<'_, PyManualGauge>>,
    ) -> PyResult<()> {
        if self.shared.get().is_some() {
            return Err(CachetronomyError::new_err("this cache is open already"));
        }
        let mut settings = arguments::settings(db_path, max_items_in_memory, busy_timeout)?;
        settings.profile = fields::name(profile)?;
        settings.given = fields::changes(given)?;
        settings.environment = fields::changes(environment)?;
        let serializer = arguments::format(serializer)?;
        let clock = clock.map_or(Clock::System, |hands| {
            Clock::Manual(hands.get().clock.clone())
        });
        let gauge = gauge.map_or(Gauge::System, |hand| {
            Gauge::Manual(hand.get().gauge.clone())
        });
        // Until it is registered, no fork would know of it.
        let _inside = OPENING.enter(py);
        let shared = Arc::new(Shared::open(py, settings, clock, gauge, serializer)?);
        register(py, &shared)?;
        shared.tell(py);
        self.shared
            .set(shared)
            .map_err(|_| CachetronomyError::new_err("this cache is open already"))
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
        let shared = self.shared()?;
        let hash = shared.cache.hash(key);
        let found = match shared.peek(py, hash, key, version, promote) {
            Some(value) => Some(value),
            None => shared.load(py, key, version, promote)?,
        };
        match (found, model) {
            (Some(value), None) => Ok(value.into_bound(py)),
            (Some(value), Some(model)) => {
                let module = py.import(pyo3::intern!(py, "cachetronomy._rebuild"))?;
                module.call_method1(pyo3::intern!(py, "validate"), (value, model))
            }
            (None, _) => Ok(default.unwrap_or_else(|| py.None().into_bound(py))),
        }
    }

    /// Store a value under a key, in both tiers; committed when it returns.
    ///
    /// `time_to_live` and `ttl` are two names of one parameter: seconds, a `timedelta`, or text
    /// such as `"1h30m"` (whole numbers of d, h, m, s). `None` is the active profile's;
    /// `math.inf` is for ever; 0 keeps nothing and removes what is there. `version`: an int >= 1,
    /// default 1. `tags`: a list, or one string for one tag. `prefer`: the format to try first,
    /// `"json"`, `"orjson"`, `"msgpack"`, `"cachetronomy"` or a registered one. Tags that are not
    /// given are the active profile's.
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
        self.shared()?.put(key, value, &put)
    }

    /// Delete a key from both tiers; return whether it existed.
    fn delete(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let key = arguments::key(key)?;
        Ok(self.begin(py)?.remove(py, &[key])?.contains(&true))
    }

    /// Return the values of those keys that are there, read in one transaction.
    fn get_many<'py>(
        &self,
        py: Python<'py>,
        keys: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyDict>> {
        self.shared()?.get_many(py, &arguments::keys(keys)?)
    }

    /// Store every item of a mapping, in one transaction; the other parameters as in `set`.
    #[pyo3(signature = (
        items, time_to_live = None, tags = None, version = None, prefer = None, *, ttl = None
    ))]
    fn set_many(
        &self,
        items: &Bound<'_, PyAny>,
        time_to_live: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        version: Option<&Bound<'_, PyAny>>,
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
        self.shared()?.put_many(&items, &put)
    }

    /// Delete keys from both tiers, in one transaction; return how many existed.
    fn delete_many(&self, py: Python<'_>, keys: &Bound<'_, PyAny>) -> PyResult<usize> {
        let keys = arguments::keys(keys)?;
        let keys: Vec<&str> = keys.iter().map(arguments::key).collect::<PyResult<_>>()?;
        let existed = self.begin(py)?.remove(py, &keys)?;
        Ok(existed.into_iter().filter(|existed| *existed).count())
    }

    /// Drop a key from memory; the store keeps it.
    fn evict(&self, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = key.py();
        let key = arguments::key(key)?;
        drop(self.begin(py)?.cache.evict(key));
        Ok(())
    }

    /// Drop everything from memory; the store keeps it.
    fn evict_all(&self, py: Python<'_>) -> PyResult<()> {
        drop(self.begin(py)?.cache.evict_all());
        Ok(())
    }

    /// Empty both tiers.
    fn clear_all(&self, py: Python<'_>) -> PyResult<()> {
        let shared = self.begin(py)?;
        shared.detached(py, Cache::clear)?;
        drop(shared.cache.evict_all());
        Ok(())
    }

    /// Write what is pending and close the cache. Calling it again does nothing; any other call
    /// raises `CacheClosedError` from then on.
    fn shutdown(&self, py: Python<'_>) -> PyResult<()> {
        // What was never opened has nothing to close.
        match self.shared.get() {
            Some(shared) => Ok(shared.shutdown(py)?),
            None => Ok(()),
        }
    }

    /// Another name of `shutdown`.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.shutdown(py)
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().shared()?.cache.check_open()?;
        Ok(slf)
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) -> PyResult<()> {
        self.shutdown(py)
    }

    /// Cache a function's results: `@cache`, or `@cache(ttl=60, tags=["x"])`.
    #[pyo3(signature = (
        function = None, *, ttl = None, time_to_live = None, tags = None, version = None,
        prefer = None, key_builder = None, ignore = None, jitter = None, condition = None,
        cache_exceptions = None, negative_ttl = None, stale_while_revalidate = None,
        stale_if_error = None, early = None, lock = Together::Process
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
        key_builder: Option<&Bound<'py, PyAny>>,
        ignore: Option<&Bound<'py, PyAny>>,
        jitter: Option<&Bound<'py, PyAny>>,
        condition: Option<&Bound<'py, PyAny>>,
        cache_exceptions: Option<&Bound<'py, PyAny>>,
        negative_ttl: Option<&Bound<'py, PyAny>>,
        stale_while_revalidate: Option<&Bound<'py, PyAny>>,
        stale_if_error: Option<&Bound<'py, PyAny>>,
        early: Option<&Bound<'py, PyAny>>,
        lock: Together,
    ) -> PyResult<Bound<'py, PyAny>> {
        slf.get().shared()?.cache.check_open()?;
        let options = Options::parse(&Raw {
            ttl,
            time_to_live,
            tags,
            version,
            prefer,
            key_builder,
            ignore,
            jitter,
            condition,
            cache_exceptions,
            negative_ttl,
            stale_while_revalidate,
            stale_if_error,
            early,
            lock,
        })?;
        decorate(slf, function, options)
    }

    /// The file, or `":memory:"`.
    #[getter]
    fn db_path(&self) -> PyResult<String> {
        Ok(self.shared()?.name())
    }

    /// Whether the cache was closed.
    #[getter]
    fn is_closed(&self) -> bool {
        self.shared
            .get()
            .is_none_or(|shared| shared.cache.check_open().is_err())
    }

    fn __repr__(&self) -> PyResult<String> {
        let state = if self.is_closed() { " closed" } else { "" };
        Ok(match self.shared.get() {
            Some(_) => format!("<Cachetronaut {:?}{state}>", self.db_path()?),
            None => String::from("<Cachetronaut, not open>"),
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        let mut result = Ok(());
        if let Some(shared) = self.shared.get() {
            shared.cache.try_visit(|value| {
                if result.is_ok() {
                    result = visit.call(value);
                }
            });
        }
        result
    }

    fn __clear__(&self) {
        if let Some(shared) = self.shared.get() {
            drop(shared.cache.abandon());
        }
    }
}
