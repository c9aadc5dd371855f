//! From `@cache` to a decorated function: what may be decorated, and what its keys begin with.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use super::client::Client;
use super::decorator::CachedFunction;
use super::key;
use super::put::Put;
use super::signature::Signature;

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
    let name = name_of(function)?;
    let cached = CachedFunction::new(client, function, name, put, key_builder)?;
    let cached = Bound::new(py, cached)?;
    py.import("functools")?
        .call_method1("update_wrapper", (&cached, function))?;
    if is("iscoroutinefunction")? {
        return py
            .import("cachetronomy._coroutines")?
            .call_method1("wrap", (&cached,));
    }
    Ok(cached.into_any())
}

/// What the keys of a function's calls begin with.
fn name_of(function: &Bound<'_, PyAny>) -> PyResult<String> {
    let qualname = function.getattr("__qualname__")?.extract::<String>()?;
    let mut name = format!("{}.{qualname}", key::module_of(function)?);
    if name.ends_with("<lambda>") {
        name.push_str(&key::code_of(function)?);
    }
    let inspect = function.py().import("inspect")?;
    if inspect.call_method1("ismethod", (function,))?.is_truthy()? {
        // Bound before it was decorated: the object is no argument any more, but tells its
        // results from those of others.
        name.push_str(&key::text_of("self", &function.getattr("__self__")?)?);
    }
    Ok(name)
}

/// The key of the call `function(*args, **kwargs)`, as `@cache` makes it.
#[pyfunction]
#[pyo3(name = "_default_key")]
pub(crate) fn default_key<'py>(
    function: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: &Bound<'py, PyDict>,
) -> PyResult<String> {
    let name = name_of(function)?;
    let kwargs = (!kwargs.is_empty()).then_some(kwargs);
    key::build(&name, &Signature::of(function)?, args, kwargs)?.ok_or_else(|| misfit(&name))
}

/// The error of arguments that a function cannot be called with.
#[cold]
pub(super) fn misfit(name: &str) -> PyErr {
    PyTypeError::new_err(format!(
        "these arguments do not fit the signature of {name}"
    ))
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
