//! What a decorated coroutine function and `AsyncCachetronaut.get` return: a coroutine that takes no
//! frame of Python's for what memory answers, and goes on as one of Python's own for anything else.

use std::ffi::CString;

use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyRuntimeWarning, PyStopIteration};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use pyo3::{IntoPyObjectExt, intern};

use super::decorator::CachedFunction;
use super::halt;
use super::recall::{self, Get};

/// What is called.
pub(super) enum Callee {
    Function(Py<CachedFunction>),
    Get(Py<Get>),
}

enum State {
    /// Not awaited yet: as any coroutine, it does nothing before that. The arguments.
    Fresh(Py<PyTuple>),
    /// The coroutine of Python's.
    Going(Py<PyAny>),
    Over,
}

/// The coroutine of a call by positional arguments.
#[pyclass(
    name = "_Coroutine",
    module = "cachetronomy._core",
    frozen,
    weakref,
    immutable_type
)]
pub(crate) struct Coroutine {
    callee: Callee,
    state: Mutex<State>,
}

/// How far a coroutine got.
pub(super) enum Step<'py> {
    /// It waits for something that it says.
    Waits(Bound<'py, PyAny>),
    Returns(Bound<'py, PyAny>),
}

impl Callee {
    fn object(&self) -> &Py<PyAny> {
        match self {
            Self::Function(function) => function.as_any(),
            Self::Get(get) => get.as_any(),
        }
    }

    /// The value in memory.
    fn peek<'py>(&self, args: &Bound<'py, PyTuple>) -> Option<Bound<'py, PyAny>> {
        let value = match self {
            Self::Function(function) => {
                function.get().recall_at_once(args.py(), args.as_slice())?
            }
            Self::Get(_) => recall::peek(args)?,
        };
        Some(value.into_bound(args.py()))
    }

    /// A coroutine of Python's.
    fn call<'py>(&self, args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Function(function) => function.get().coroutine(args, None),
            Self::Get(get) => get.get().function.bind(args.py()).call1(args),
        }
    }
}

impl Coroutine {
    pub(super) fn of(callee: Callee, args: Bound<'_, PyTuple>) -> PyResult<Bound<'_, PyAny>> {
        let py = args.py();
        let state = Mutex::new(State::Fresh(args.unbind()));
        Bound::new(py, Self { callee, state }).map(Bound::into_any)
    }

    /// Goes on until it waits or is at its end.
    pub(super) fn step<'py>(&self, sent: &Bound<'py, PyAny>) -> PyResult<Step<'py>> {
        let py = sent.py();
        if sent.is_none()
            && let Some(args) = self.take_args(py)
        {
            if let Some(value) = self.callee.peek(&args) {
                return Ok(Step::Returns(value));
            }
            return halt::send(&self.begin(&args)?, sent);
        }
        halt::send(&self.inner(py)?.ok_or_else(over)?, sent)
    }

    /// The arguments of a call that was not awaited yet, and now is. Bound: where the interpreter
    /// has called without PyO3, what is not bound would be released later.
    fn take_args<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyTuple>> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Over) {
            State::Fresh(args) => Some(args.into_bound(py)),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Makes the coroutine of Python's.
    fn begin<'py>(&self, args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.callee.call(args)?;
        *self.state.lock() = State::Going(inner.clone().unbind());
        Ok(inner)
    }

    /// The coroutine of Python's, made now if there is none yet; `None` after the end.
    fn inner<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if let Some(args) = self.take_args(py) {
            return self.begin(&args).map(Some);
        }
        Ok(match &*self.state.lock() {
            State::Going(inner) => Some(inner.bind(py).clone()),
            State::Fresh(_) | State::Over => None,
        })
    }

    /// What inspectors and debuggers ask of a coroutine; `end` after its end.
    fn ask<'py, T: IntoPyObjectExt<'py>>(
        &self,
        name: &Bound<'py, PyString>,
        end: T,
    ) -> PyResult<Bound<'py, PyAny>> {
        match self.inner(name.py())? {
            Some(inner) => inner.getattr(name),
            None => end.into_bound_py_any(name.py()),
        }
    }

    fn attribute<'py>(&self, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        self.callee.object().bind(name.py()).getattr(name)
    }

    /// Says that nobody has awaited it, as Python does.
    #[cold]
    fn warn(&self, py: Python<'_>) {
        // It may be on its way out because of an exception.
        let raised = PyErr::take(py);
        let warn = || {
            // The collector may have taken the function's attributes before.
            let name = self
                .__qualname__(py)
                .map_or_else(|_| String::from("?"), |name| name.to_string());
            let text = CString::new(format!("coroutine '{name}' was never awaited"))?;
            PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, 1)
        };
        if let Err(error) = warn() {
            error.write_unraisable(py, Some(self.callee.object().bind(py)));
        }
        if let Some(raised) = raised {
            raised.restore(py);
        }
    }
}

impl Drop for Coroutine {
    fn drop(&mut self) {
        if let State::Fresh(_) = self.state.get_mut() {
            Python::try_attach(|py| self.warn(py));
        }
    }
}

#[cold]
fn over() -> PyErr {
    PyRuntimeError::new_err("cannot reuse already awaited coroutine")
}

/// What comes of a step, as the iterator protocol has it.
fn yielded(step: Step<'_>) -> PyResult<Bound<'_, PyAny>> {
    match step {
        Step::Waits(value) => Ok(value),
        Step::Returns(value) => Err(PyStopIteration::new_err((value.unbind(),))),
    }
}

#[pymethods]
impl Coroutine {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        yielded(self.step(&py.None().into_bound(py))?)
    }

    /// Goes on with a value, or begins with `None`.
    #[pyo3(signature = (value, /))]
    fn send<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        yielded(self.step(value)?)
    }

    /// Goes on with an exception.
    #[pyo3(signature = (typ, val = None, tb = None, /))]
    fn throw<'py>(
        &self,
        typ: &Bound<'py, PyAny>,
        val: Option<&Bound<'py, PyAny>>,
        tb: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = typ.py();
        let inner = self.inner(py)?.ok_or_else(over)?;
        let throw = intern!(py, "throw");
        match (val, tb) {
            (None, None) => halt::call_method(&inner, throw, (typ,)),
            _ => halt::call_method(&inner, throw, (typ, val, tb)),
        }
    }

    /// Ends it.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if self.take_args(py).is_some() {
            return Ok(());
        }
        match self.inner(py)? {
            Some(inner) => halt::call_method(&inner, intern!(py, "close"), ()).map(drop),
            None => Ok(()),
        }
    }

    #[getter]
    fn cr_frame<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.ask(intern!(py, "cr_frame"), py.None())
    }

    #[getter]
    fn cr_running<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.ask(intern!(py, "cr_running"), false)
    }

    #[getter]
    fn cr_suspended<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.ask(intern!(py, "cr_suspended"), false)
    }

    #[getter]
    fn cr_await<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.ask(intern!(py, "cr_await"), py.None())
    }

    #[getter]
    fn cr_origin<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if matches!(*self.state.lock(), State::Fresh(_)) {
            // It is not known: to ask costs more than a hit.
            return Ok(py.None().into_bound(py));
        }
        self.ask(intern!(py, "cr_origin"), py.None())
    }

    #[getter]
    fn cr_code<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.attribute(intern!(py, "__code__"))
    }

    #[getter]
    fn __name__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.attribute(intern!(py, "__name__"))
    }

    #[getter]
    fn __qualname__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.attribute(intern!(py, "__qualname__"))
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let name = slf.get().__qualname__(slf.py())?;
        Ok(format!("<coroutine object {name} at {:p}>", slf.as_ptr()))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(self.callee.object())?;
        match self.state.try_lock().as_deref() {
            Some(State::Fresh(args)) => visit.call(args),
            Some(State::Going(inner)) => visit.call(inner),
            Some(State::Over) | None => Ok(()),
        }
    }

    fn __clear__(&self) {
        let state = std::mem::replace(&mut *self.state.lock(), State::Over);
        if matches!(state, State::Fresh(_)) {
            Python::try_attach(|py| self.warn(py));
        }
        drop(state);
    }
}
