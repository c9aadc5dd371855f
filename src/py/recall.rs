//! `get` for an event loop: what takes microseconds is done at once, and the rest elsewhere.

use std::sync::Arc;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::arguments;
use super::client::Client;
use super::errand::Lane;
use super::fast_call::{self, FastCall, FastCalled};
use super::sentinel::{later, miss};
use super::shared::Glimpse;
use crate::cache::Ask;

/// `AsyncCachetronaut.get`: asks memory without a frame of Python's, where only a key is given.
#[pyclass(
    name = "_Get",
    module = "cachetronomy._core",
    frozen,
    dict,
    weakref,
    immutable_type
)]
pub(crate) struct Get {
    pub(super) fast_call: FastCall,
    /// The `async def` for everything else.
    pub(super) function: Py<PyAny>,
}

/// The value in memory, for an async client and a key.
pub(super) fn peek(args: &Bound<'_, PyTuple>) -> Option<Py<PyAny>> {
    let py = args.py();
    let [owner, key] = args.as_slice() else {
        return None;
    };
    // What is wrong with the key, or the client, the other half says.
    let key = key.cast_exact::<PyString>().ok()?.to_str().ok()?;
    let client = owner.getattr(intern!(py, "_client")).ok()?;
    let shared = client.cast::<Client>().ok()?.get().shared.get()?;
    shared.peek(py, shared.cache.hash(key), key, None, true)
}

#[pymethods]
impl Get {
    #[new]
    fn new(function: Py<PyAny>) -> Self {
        Self {
            fast_call: Self::FAST_CALL,
            function,
        }
    }

    /// Has it look like the function, and called fast.
    fn _dress(slf: &Bound<'_, Self>) -> PyResult<()> {
        fast_call::enable(slf)?;
        let functools = slf.py().import("functools")?;
        let function = slf.get().function.bind(slf.py());
        functools
            .call_method1("update_wrapper", (slf, function))
            .map(drop)
    }

    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.function.bind(args.py()).call(args, kwargs)
    }

    fn __get__<'py>(
        slf: Bound<'py, Self>,
        instance: Option<Bound<'py, PyAny>>,
        _owner: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let Some(instance) = instance else {
            return Ok(slf.into_any());
        };
        let kind = slf.py().import("types")?.getattr("MethodType")?;
        kind.call1((slf, instance))
    }

    /// It is taken for a coroutine function by what that has.
    fn __getattr__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        self.function.bind(py).getattr(name)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.function.bind(py).repr()?.to_string())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.function)
    }
}

#[pymethods]
impl Client {
    /// The value of a key from memory or, where that takes microseconds, from the store: `MISS` if
    /// there is none, `_LATER` if `_load` has to look.
    #[pyo3(signature = (key, model, promote, version))]
    fn _get_at_once<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        model: Option<&Bound<'py, PyAny>>,
        promote: bool,
        version: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let key = arguments::key(key)?;
        let version = arguments::version(version)?;
        model.map_or(Ok(()), arguments::model)?;
        let Ok(shared) = self.shared() else {
            self.check_usable()?;
            return later(py);
        };
        let hash = shared.cache.hash(key);
        if let Some(value) = shared.peek(py, hash, key, version, promote) {
            return Ok(value.into_bound(py));
        }
        if shared.offload_reads {
            shared.begin(py)?;
            return later(py);
        }
        let ask = Ask {
            version,
            ..Ask::ANY
        };
        let Glimpse::Found(found) = shared.fetch_at_once(py, key, &ask)? else {
            return later(py);
        };
        let value = match found {
            Some(arrival) => shared.receive(py, key, arrival, promote, None)?,
            None => None,
        };
        match value {
            Some(value) => Ok(value.into_bound(py)),
            None => Ok(miss(py)?.into_bound(py).into_any()),
        }
    }

    /// An awaitable of the value of a key in the store, `MISS` if there is none.
    fn _load(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        promote: bool,
        version: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let key: Arc<str> = arguments::key(key)?.into();
        let ask = Ask {
            version: arguments::version(version)?,
            ..Ask::ANY
        };
        let shared = self.begin(py)?;
        let missing = miss(py)?.into_any();
        if shared.switch.is_off() {
            return shared.answer(py, missing);
        }
        let wanted = Arc::clone(&key);
        shared.run(
            py,
            (Lane::Read, true),
            move |cache| cache.fetch_as(&wanted, &ask, true),
            move |py, shared, found| {
                let value = match shared.settle(py, &key, &ask, found) {
                    Some(arrival) => shared.receive(py, &key, arrival, promote, None)?,
                    None => None,
                };
                Ok(value.unwrap_or(missing))
            },
        )
    }
}
