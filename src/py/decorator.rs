//! The decorator: a callable in the place of the function, that asks the cache first.

use std::time::Instant;

use pyo3::exceptions::PyTypeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use super::client::Client;
use super::error::{CacheClosedError, CachetronomyError, InvalidKeyError};
use super::key;
use super::memo::{Key, Memo};
use super::sentinel::miss;
use super::shared::{Put, Shared};
use super::signature::Signature;
use crate::cache::Lookup;

/// What `@cache` makes of a plain function, and what serves the wrapper of a coroutine function.
#[pyclass(module = "cachetronomy._core", frozen, dict, weakref)]
pub(crate) struct CachedFunction {
    client: Py<Client>,
    function: Py<PyAny>,
    key_builder: Option<Py<PyAny>>,
    name: String,
    signature: Signature,
    memo: Memo,
    put: Put,
}

/// `@cache` on a function, or `@cache(...)`, which waits for one.
pub(super) fn decorate<'py>(
    client: &Bound<'py, Client>,
    function: Option<Bound<'py, PyAny>>,
    put: Put,
    key_builder: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = client.py();
    let key_builder = key_builder.map(Bound::unbind);
    if let Some(function) = function {
        return wrap(client, &function, put, key_builder);
    }
    let client = client.clone().unbind();
    let decorator = PyCFunction::new_closure(
        py,
        Some(c"cached"),
        None,
        move |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
            let py = args.py();
            let key_builder = key_builder.as_ref().map(|builder| builder.clone_ref(py));
            wrap(
                client.bind(py),
                &args.get_item(0)?,
                put.clone(),
                key_builder,
            )
            .map(Bound::unbind)
        },
    )?;
    Ok(decorator.into_any())
}

fn wrap<'py>(
    client: &Bound<'py, Client>,
    function: &Bound<'py, PyAny>,
    put: Put,
    key_builder: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = client.py();
    let inspect = py.import("inspect")?;
    let is = |question: &str| {
        inspect
            .call_method1(question, (function,))?
            .extract::<bool>()
    };
    refuse(
        function,
        is("isgeneratorfunction")? || is("isasyncgenfunction")?,
    )?;
    let text = |name: &str| {
        function
            .getattr(name)
            .and_then(|text| text.extract::<String>())
    };
    let mut name = format!("{}.{}", key::module_of(function)?, text("__qualname__")?);
    if name.ends_with("<lambda>") {
        name.push_str(&key::code_of(function)?);
    }
    if is("ismethod")? {
        // Bound before it was decorated: the object is no argument any more, but tells its
        // results from those of others.
        name.push_str(&key::text_of("self", &function.getattr("__self__")?)?);
    }
    let cached = Bound::new(
        py,
        CachedFunction {
            client: client.clone().unbind(),
            function: function.clone().unbind(),
            key_builder,
            name,
            signature: Signature::of(function)?,
            memo: Memo::default(),
            put,
        },
    )?;
    py.import("functools")?
        .call_method1("update_wrapper", (&cached, function))?;
    if is("iscoroutinefunction")? {
        return py
            .import("cachetronomy._coroutines")?
            .call_method1("wrap", (&cached,));
    }
    Ok(cached.into_any())
}

fn refuse(function: &Bound<'_, PyAny>, is_generator: bool) -> PyResult<()> {
    if is_generator {
        return Err(PyTypeError::new_err(format!(
            "{} is a generator function: what it yields exists only once, so there is nothing to \
             keep; return a list instead",
            function.getattr("__qualname__")?
        )));
    }
    let kind = function.get_type().name()?;
    if kind == "staticmethod" || kind == "classmethod" || kind == "property" {
        return Err(PyTypeError::new_err(format!(
            "@cache got a {kind} object; put @{kind} above @cache"
        )));
    }
    if !function.is_callable() || function.getattr_opt("__qualname__")?.is_none() {
        return Err(PyTypeError::new_err(format!(
            "@cache needs a function, not {}",
            function.repr()?
        )));
    }
    Ok(())
}

impl CachedFunction {
    fn shared(&self) -> &Shared {
        &self.client.get().shared
    }

    /// The value in memory, for positional arguments that are remembered: the hot path.
    #[inline]
    fn recall(&self, args: &Bound<'_, PyTuple>) -> Option<Py<PyAny>> {
        let (py, version) = (args.py(), Some(self.put.version));
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
        if self.shared().has_exited() {
            return function.call(args, kwargs);
        }
        let Some(key) = self.build_key(args, kwargs)? else {
            // The function itself says best what does not fit.
            return function.call(args, kwargs);
        };
        if let Some(value) = self.read(args, kwargs, &key)? {
            return Ok(value);
        }
        let start = Instant::now();
        let value = function.call(args, kwargs)?;
        let compute_us = i64::try_from(start.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.store(&key, &value, compute_us)?;
        Ok(value)
    }

    fn read<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
        key: &str,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (py, version) = (args.py(), Some(self.put.version));
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
        let found = match self.shared().peek(py, hash, key, version, true) {
            Some(value) => Some(value),
            None => self.shared().load(py, key, version, true)?,
        };
        Ok(found.map(|value| value.into_bound(py)))
    }

    /// Stores a result. One that cannot be stored is not lost: the error carries it.
    fn store(&self, key: &str, value: &Bound<'_, PyAny>, compute_us: i64) -> PyResult<()> {
        let py = value.py();
        let put = Put {
            compute_us,
            ..self.put.clone()
        };
        let Err(error) = self.shared().put(key, value, &put) else {
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
        match self.build_key(args, kwargs)? {
            Some(key) => Ok(key),
            None => Err(PyTypeError::new_err(format!(
                "these arguments do not fit the signature of {}",
                self.name
            ))),
        }
    }

    /// The client that keeps the results.
    #[getter]
    fn cache(&self, py: Python<'_>) -> Py<Client> {
        self.client.clone_ref(py)
    }

    /// For coroutine functions: `(value or MISS, key or None)`.
    fn _lookup<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: &Bound<'py, PyDict>,
    ) -> PyResult<(Bound<'py, PyAny>, Option<String>)> {
        let py = args.py();
        let kwargs = (!kwargs.is_empty()).then_some(kwargs);
        let missing = || Ok::<_, PyErr>(miss(py)?.into_bound(py).into_any());
        if self.shared().has_exited() {
            return Ok((missing()?, None));
        }
        let Some(key) = self.build_key(args, kwargs)? else {
            return Ok((missing()?, None));
        };
        match self.read(args, kwargs, &key)? {
            Some(value) => Ok((value, Some(key))),
            None => Ok((missing()?, Some(key))),
        }
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
        visit.call(&self.key_builder)
    }
}
