//! The decorator: a callable in the place of the function, that asks the cache first.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::attention;
use super::client::Client;
use super::error::{CacheClosedError, CachetronomyError, InvalidKeyError};
use super::flight::Flight;
use super::key;
use super::memo::{Key, Memo};
use super::promise::Promise;
use super::put::Put;
use super::sentinel::miss;
use super::shared::Shared;
use super::signature::Signature;
use super::value;
use super::wrap::misfit;
use crate::cache::Lookup;

/// What `@cache` makes of a plain function, and what serves the wrapper of a coroutine function.
#[pyclass(module = "cachetronomy._core", frozen, dict, weakref)]
pub(crate) struct CachedFunction {
    client: Py<Client>,
    /// The client's, here for the sake of the hot path.
    shared: Arc<Shared>,
    /// The version of results that are hits: the one given or, without one, that of the class that
    /// the function promises, or that of the latest result.
    version: AtomicI64,
    function: Py<PyAny>,
    key_builder: Option<Py<PyAny>>,
    name: String,
    signature: Signature,
    memo: Memo,
    put: Put,
    promise: Promise,
}

impl CachedFunction {
    /// `name`: what its keys begin with.
    pub(super) fn new(
        client: &Bound<'_, Client>,
        function: &Bound<'_, PyAny>,
        name: String,
        put: Put,
        key_builder: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        Ok(Self {
            client: client.clone().unbind(),
            shared: Arc::clone(client.get().shared()?),
            version: AtomicI64::new(put.version.unwrap_or(1)),
            function: function.clone().unbind(),
            key_builder,
            name,
            signature: Signature::of(function)?,
            memo: Memo::default(),
            put,
            promise: Promise::default(),
        })
    }

    fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The value in memory, for positional arguments that are remembered: the hot path.
    #[inline]
    fn recall(&self, args: &Bound<'_, PyTuple>) -> Option<Py<PyAny>> {
        let (py, version) = (args.py(), Some(self.version.load(Ordering::Relaxed)));
        if attention::is_needed() {
            // The slow way looks closer.
            return None;
        }
        let cache = &self.shared().cache;
        // What left memory comes out with the answer, and is dropped after both locks are free.
        let lookup = self.memo.find(args, |key| {
            cache.lookup(key.hash, &key.text, version, true, |value| {
                value.clone_ref(py)
            })
        });
        match lookup {
            Some(Lookup::Hit(value)) => Some(value),
            Some(Lookup::Miss(_)) | None => None,
        }
    }

    /// The key of a call; `None` if the arguments do not fit the function.
    fn build_key<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Option<String>> {
        let py = args.py();
        let Some(builder) = &self.key_builder else {
            return key::build(&self.name, &self.signature, args, kwargs);
        };
        let kwargs = kwargs.map_or_else(|| PyDict::new(py), Clone::clone);
        let built = builder.bind(py).call1((&self.function, args, kwargs))?;
        match built.extract::<String>() {
            Ok(key) => Ok(Some(key)),
            Err(_) => Err(InvalidKeyError::new_err(format!(
                "the key_builder of {} returned {}; it must return a str",
                self.name,
                built.repr()?
            ))),
        }
    }

    /// Everything but a hit of remembered arguments.
    #[cold]
    fn call_slowly<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = args.py();
        let function = self.function.bind(py);
        if self.shared().has_exited() || self.shared().is_disabled()? {
            return function.call(args, kwargs);
        }
        let Some(key) = self.build_key(args, kwargs)? else {
            // The function itself says best what does not fit.
            return function.call(args, kwargs);
        };
        if let Some(value) = self.look(args, kwargs, &key) {
            return Ok(value);
        }
        loop {
            let flight = self.board(&key, None);
            if let Some(flight) = flight.as_ref().filter(|flight| !flight.is_leader()) {
                self.shared().cache.count_miss();
                match flight.follow(py)? {
                    Some(value) => return Ok(value),
                    None => continue,
                }
            }
            let result = match self.read(&key, py) {
                Ok(Some(value)) => Ok(value),
                Ok(None) => self.compute(args, kwargs, &key),
                Err(error) => Err(error),
            };
            if let Some(flight) = &flight {
                flight.land(py, &result);
            }
            return result;
        }
    }

    /// `None`: this call computes for itself.
    fn board(&self, key: &str, task: Option<u64>) -> Option<Flight> {
        let version = self.version.load(Ordering::Relaxed);
        Flight::board(self.shared().id(), version, key, task)
    }

    fn compute<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
        key: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        let start = Instant::now();
        let value = self.function.bind(args.py()).call(args, kwargs)?;
        let compute_us = i64::try_from(start.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.store(key, &value, compute_us)?;
        Ok(value)
    }

    /// The value in memory; remembers the key of the arguments.
    fn look<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
        key: &str,
    ) -> Option<Bound<'py, PyAny>> {
        let py = args.py();
        let hash = self.shared().cache.hash(key);
        if kwargs.is_none() && self.key_builder.is_none() {
            self.memo.insert(
                args,
                Key {
                    text: key.into(),
                    hash,
                },
            );
        }
        let version = Some(self.version.load(Ordering::Relaxed));
        let found = self.shared().peek(py, hash, key, version, true);
        found.map(|value| value.into_bound(py))
    }

    /// The value in memory or in the store.
    fn read<'py>(&self, key: &str, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let function = self.function.bind(py);
        let rebuild = self.promise.rebuild(function)?;
        if self.put.version.is_none()
            && let Some(version) = self.promise.version(function)?
        {
            self.version.store(version, Ordering::Relaxed);
        }
        let version = Some(self.version.load(Ordering::Relaxed));
        let hash = self.shared().cache.hash(key);
        let mut found = self.shared().peek(py, hash, key, version, true);
        if found.is_none() {
            found = self.shared().load(py, key, version, true, rebuild)?;
        }
        Ok(found.map(|value| value.into_bound(py)))
    }

    /// Stores a result. One that cannot be stored is not lost: the error carries it.
    fn store(&self, key: &str, value: &Bound<'_, PyAny>, compute_us: i64) -> PyResult<()> {
        let py = value.py();
        let mut put = Put {
            compute_us,
            ..self.put.clone()
        };
        if put.version.is_none() {
            put.version = value::class_version(value)?;
            let version = put.version.unwrap_or(1);
            self.version.store(version, Ordering::Relaxed);
        }
        let stored = self
            .promise
            .check(self.function.bind(py), value)
            .and_then(|()| self.shared().put(key, value, &put));
        let Err(error) = stored else {
            return Ok(());
        };
        if error.is_instance_of::<CacheClosedError>(py) && self.shared().has_exited() {
            return Ok(());
        }
        if error.is_instance_of::<CachetronomyError>(py) {
            error.value(py).setattr("value", value)?;
        }
        Err(error)
    }
}

#[pymethods]
impl CachedFunction {
    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        if kwargs.is_none()
            && let Some(value) = self.recall(args)
        {
            return Ok(value.into_bound(args.py()));
        }
        self.call_slowly(args, kwargs)
    }

    fn __get__<'py>(
        slf: Bound<'py, Self>,
        instance: Option<Bound<'py, PyAny>>,
        _owner: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match instance {
            None => Ok(slf.into_any()),
            Some(instance) => slf
                .py()
                .import("types")?
                .call_method1("MethodType", (slf, instance)),
        }
    }

    /// The key of a call with these arguments.
    #[pyo3(signature = (*args, **kwargs))]
    fn key_for<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<String> {
        self.build_key(args, kwargs)?
            .ok_or_else(|| misfit(&self.name))
    }

    /// The client that keeps the results.
    #[getter]
    fn cache(&self, py: Python<'_>) -> Py<Client> {
        self.client.clone_ref(py)
    }

    /// For coroutine functions: `(value or MISS, key or None, flight or None)`. `task`: a number of
    /// the task that can wait for another one; `None`: it cannot.
    #[pyo3(signature = (args, kwargs, task))]
    fn _lookup<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: &Bound<'py, PyDict>,
        task: Option<u64>,
    ) -> PyResult<(Bound<'py, PyAny>, Option<String>, Option<Flight>)> {
        let py = args.py();
        let kwargs = (!kwargs.is_empty()).then_some(kwargs);
        let missing = miss(py)?.into_bound(py).into_any();
        if self.shared().has_exited() || self.shared().is_disabled()? {
            return Ok((missing, None, None));
        }
        let Some(key) = self.build_key(args, kwargs)? else {
            return Ok((missing, None, None));
        };
        if let Some(value) = self.look(args, kwargs, &key) {
            return Ok((value, Some(key), None));
        }
        let flight = task.and_then(|task| self.board(&key, Some(task)));
        if flight.as_ref().is_some_and(|flight| !flight.is_leader()) {
            self.shared().cache.count_miss();
            return Ok((missing, Some(key), flight));
        }
        let result = self.read(&key, py);
        if let Some(flight) = &flight
            && let Some(ended) = result
                .as_ref()
                .map(Option::clone)
                .map_err(|error| error.clone_ref(py))
                .transpose()
        {
            flight.land(py, &ended);
        }
        Ok(match result? {
            Some(value) => (value, Some(key), None),
            None => (missing, Some(key), flight),
        })
    }

    /// For coroutine functions: the value in memory, or MISS.
    fn _peek<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = args.py();
        let value = if kwargs.is_empty() {
            self.recall(args)
        } else {
            None
        };
        Ok(match value {
            Some(value) => value.into_bound(py),
            None => miss(py)?.into_bound(py).into_any(),
        })
    }

    /// For coroutine functions: stores a result that took so many microseconds.
    fn _store(&self, key: &str, value: &Bound<'_, PyAny>, compute_us: i64) -> PyResult<()> {
        self.store(key, value, compute_us)
    }

    /// Pickled by name, as a function is.
    fn __reduce__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        Ok(slf.getattr("__qualname__")?.unbind())
    }

    fn __copy__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf
    }

    fn __repr__(&self) -> String {
        format!("<cached function {}>", self.name)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.client)?;
        visit.call(&self.function)?;
        self.signature.traverse(&visit)?;
        visit.call(&self.key_builder)?;
        self.promise.traverse(&visit)
    }
}
