//! The sync client.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::arguments;
use super::breath;
use super::disabled::Switch;
use super::errand::Lanes;
use super::halt;
use super::opening::Plan;
use super::options::{Options, Raw, Together};
use super::put::Put;
use super::registry::register_lanes;
use super::run::object;
use super::shared::Shared;
use super::wrap::decorate;
use crate::cache::Cache;

/// A cache in two tiers: live objects in memory over a SQLite file.
#[pyclass(
    name = "Cachetronaut",
    module = "cachetronomy._core",
    frozen,
    subclass,
    weakref
)]
pub(crate) struct Client {
    pub(super) plan: OnceLock<Plan>,
    pub(super) shared: OnceLock<Arc<Shared>>,
    pub(super) switch: Arc<Switch>,
    pub(super) lanes: Arc<Lanes>,
    /// Closed before it was ever open.
    pub(super) is_over: AtomicBool,
}

impl Drop for Client {
    fn drop(&mut self) {
        Python::try_attach(|py| self.leave(py));
    }
}

#[pymethods]
impl Client {
    /// Takes anything: subclasses have an `__init__` of their own, and `_open` does the work.
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        let lanes = Lanes::new();
        register_lanes(&lanes);
        Self {
            plan: OnceLock::new(),
            shared: OnceLock::new(),
            switch: Arc::default(),
            lanes,
            is_over: AtomicBool::new(false),
        }
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
        let shared = self.opened(py)?;
        let hash = shared.cache.hash(key);
        let found = match shared.peek(py, hash, key, version, promote) {
            Some(value) => Some(value),
            None => shared.load(py, key, version, promote)?,
        };
        match (found, model) {
            (Some(value), None) => Ok(value.into_bound(py)),
            (Some(value), Some(model)) => {
                let module = py.import(pyo3::intern!(py, "cachetronomy._rebuild"))?;
                let validate = pyo3::intern!(py, "validate");
                halt::call_method(module.as_any(), validate, (value, model))
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
    ) -> PyResult<Py<PyAny>> {
        let key = arguments::key(key)?;
        let put = Put::parse(ttl, time_to_live, version, tags, prefer)?;
        let shared = self.begin(value.py())?;
        let planned = shared.plan_put(key, value, &put, None)?;
        shared.carry_out(value.py(), planned)
    }

    /// Delete a key from both tiers; return whether it existed.
    fn delete(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let key = String::from(arguments::key(key)?);
        self.begin(py)?.remove_all(py, vec![key], |py, existed| {
            object(py, existed.contains(&true))
        })
    }

    /// Return the values of those keys that are there, read in one transaction.
    fn get_many<'py>(&self, py: Python<'py>, keys: &Bound<'py, PyAny>) -> PyResult<Py<PyAny>> {
        let keys = arguments::keys(keys)?;
        self.begin(py)?.get_many(py, &keys)
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
    ) -> PyResult<Py<PyAny>> {
        let put = Put::parse(ttl, time_to_live, version, tags, prefer)?;
        // Our own copy: encoding runs Python code, which may change the caller's mapping.
        let items = items
            .py()
            .get_type::<PyDict>()
            .call1((items,))?
            .cast_into::<PyDict>()?;
        self.begin(items.py())?.put_many(&items, &put)
    }

    /// Delete keys from both tiers, in one transaction; return how many existed.
    fn delete_many(&self, py: Python<'_>, keys: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let keys = arguments::keys(keys)?;
        let keys = keys.iter().map(|key| arguments::key(key).map(String::from));
        let keys = keys.collect::<PyResult<_>>()?;
        self.begin(py)?.remove_all(py, keys, |py, existed| {
            object(py, existed.into_iter().filter(|existed| *existed).count())
        })
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
        breath::drop_all(py, self.begin(py)?.cache.evict_all());
        Ok(())
    }

    /// Empty both tiers.
    fn clear_all(&self, py: Python<'_>) -> PyResult<()> {
        let shared = self.begin(py)?;
        shared.detached(py, Cache::clear)?;
        breath::drop_all(py, shared.cache.evict_all());
        Ok(())
    }

    /// Write what is pending and close the cache. Calling it again does nothing; any other call
    /// raises `CacheClosedError` from then on.
    fn shutdown(&self, py: Python<'_>) -> PyResult<()> {
        Ok(self.end(py)?)
    }

    /// Another name of `shutdown`.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.shutdown(py)
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().check_usable()?;
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
        slf.get().check_usable()?;
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
        let owner = match slf.get().plan.get().and_then(|plan| plan.owner.as_ref()) {
            Some(owner) => owner.bind(slf.py()).call0()?,
            None => slf.clone().into_any(),
        };
        decorate(slf, &owner, function, options)
    }

    /// The file, or `":memory:"`.
    #[getter]
    fn db_path(&self) -> PyResult<String> {
        self.location().map(ToString::to_string)
    }

    /// Whether the cache was closed.
    #[getter]
    fn is_closed(&self) -> bool {
        self.check_usable().is_err()
    }

    fn __repr__(&self) -> PyResult<String> {
        let state = if self.is_closed() { " closed" } else { "" };
        Ok(match self.plan.get() {
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
