//! From `@cache` to a decorated function: what may be decorated.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use super::client::Client;
use super::decorator::CachedFunction;
use super::fast_call;
use super::options::Options;

/// `@cache` on a function, or `@cache(...)`, which waits for one. `owner`: the client as the program
/// knows it.
pub(super) fn decorate<'py>(
    client: &Bound<'py, Client>,
    owner: &Bound<'py, PyAny>,
    function: Option<Bound<'py, PyAny>>,
    options: Options,
) -> PyResult<Bound<'py, PyAny>> {
    let py = client.py();
    if let Some(function) = function {
        return wrap(client, owner, &function, options);
    }
    let (client, owner) = (client.clone().unbind(), owner.clone().unbind());
    let decorator = PyCFunction::new_closure(
        py,
        Some(c"cached"),
        None,
        move |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
            let py = args.py();
            let (client, owner) = (client.bind(py), owner.bind(py));
            wrap(client, owner, &args.get_item(0)?, options.clone_ref(py)).map(Bound::unbind)
        },
    )?;
    Ok(decorator.into_any())
}

fn wrap<'py>(
    client: &Bound<'py, Client>,
    owner: &Bound<'py, PyAny>,
    function: &Bound<'py, PyAny>,
    options: Options,
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
    let is_coroutine = is("iscoroutinefunction")?;
    // Every first call needs it. Here no collector's callback comes upon half of it, and no daemon
    // thread is still at it when the program ends.
    py.import("cachetronomy._rebuild")?;
    let cached = CachedFunction::new(client, owner, function, is_coroutine, options)?;
    let cached = Bound::new(py, cached)?;
    fast_call::enable(&cached)?;
    py.import("functools")?
        .call_method1("update_wrapper", (&cached, function))?;
    if is_coroutine {
        let coroutines = py.import("cachetronomy._coroutines")?;
        let wrapper = coroutines.call_method1("wrap", (&cached,))?;
        cached.get().set_wrapper(wrapper.unbind());
    }
    Ok(cached.into_any())
}

/// The error of arguments that a function cannot be called with.
#[cold]
pub(super) fn misfit(
    name: &str,
    function: &Bound<'_, PyAny>,
    args: &Bound<'_, PyTuple>,
    kwargs: Option<&Bound<'_, PyDict>>,
) -> PyErr {
    let bind = || {
        let inspect = function.py().import("inspect")?;
        let signature = inspect.call_method1("signature", (function,))?;
        signature.call_method("bind", args, kwargs)
    };
    let reason = match bind() {
        Err(error) => format!(": {}", error.value(function.py())),
        Ok(_) => String::new(),
    };
    PyTypeError::new_err(format!(
        "these arguments do not fit the signature of {name}{reason}"
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
    let has = |name: &str| Ok::<_, PyErr>(function.getattr_opt(name)?.is_some());
    if !function.is_callable() || !has("__qualname__")? || !has("__module__")? {
        return Err(PyTypeError::new_err(format!(
            "@cache needs a function, not {}; options go by name, as in @cache(ttl=60)",
            function.repr()?
        )));
    }
    Ok(())
}
