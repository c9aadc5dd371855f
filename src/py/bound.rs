//! A decorated function bound to an object, as a method is: `obj.method`, with its attributes.

use std::hash::{DefaultHasher, Hash, Hasher};

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::decorator::CachedFunction;
use super::memo::Arguments;

/// What `obj.method` is: calls and attributes put `obj` in front of the arguments.
#[pyclass(
    name = "BoundCachedFunction",
    module = "cachetronomy._core",
    frozen,
    weakref
)]
pub(crate) struct BoundFunction {
    function: Py<CachedFunction>,
    object: Py<PyAny>,
}

impl BoundFunction {
    fn arguments<'py>(&self, args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyTuple>> {
        let object = Some(self.object.bind(args.py()));
        let rest = args.as_slice();
        Arguments { object, rest }.whole(args.py())
    }
}

/// Has each bound method show the docstring of its function: that of the class would hide it.
pub(super) fn show_docstrings(py: Python<'_>) -> PyResult<()> {
    let docstring = py
        .import("operator")?
        .call_method1("attrgetter", ("__func__.__doc__",))?;
    let property = py
        .import("builtins")?
        .call_method1("property", (docstring,))?;
    py.get_type::<BoundFunction>().setattr("__doc__", property)
}

#[pymethods]
impl BoundFunction {
    #[new]
    pub(super) fn new(function: Py<CachedFunction>, object: Py<PyAny>) -> Self {
        Self { function, object }
    }

    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = args.py();
        let arguments = Arguments {
            object: Some(self.object.bind(py)),
            rest: args.as_slice(),
        };
        CachedFunction::call(self.function.bind(py), arguments, kwargs)
    }

    /// The key of a call with these arguments.
    #[pyo3(signature = (*args, **kwargs))]
    fn key_for<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<String> {
        let function = self.function.get();
        function.key_for(&self.arguments(args)?, kwargs)
    }

    /// Forget the result of a call with these arguments; return whether there was one.
    #[pyo3(signature = (*args, **kwargs))]
    fn invalidate<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let args = self.arguments(args)?;
        CachedFunction::invalidate(self.function.bind(args.py()), &args, kwargs)
    }

    /// Call the function whatever is stored, store what it returns, and return it.
    #[pyo3(signature = (*args, **kwargs))]
    fn refresh<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let args = self.arguments(args)?;
        CachedFunction::refresh(self.function.bind(args.py()), &args, kwargs)
    }

    /// The counts of the function, of all objects.
    fn cache_info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        CachedFunction::cache_info(self.function.bind(py))
    }

    /// Forget all results of the function, of all objects.
    fn cache_clear<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        CachedFunction::cache_clear(self.function.bind(py))
    }

    /// The client that keeps the results.
    #[getter]
    fn cache(&self, py: Python<'_>) -> Py<PyAny> {
        self.function.get().cache(py)
    }

    #[getter]
    fn __self__(&self, py: Python<'_>) -> Py<PyAny> {
        self.object.clone_ref(py)
    }

    #[getter]
    fn __func__(&self, py: Python<'_>) -> Py<CachedFunction> {
        self.function.clone_ref(py)
    }

    /// Without the parameter that the object is given to.
    #[getter]
    fn __signature__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let method = py
            .import("types")?
            .call_method1("MethodType", (&self.function, &self.object))?;
        py.import("inspect")?.call_method1("signature", (method,))
    }

    /// Everything else is the function's.
    fn __getattr__<'py>(&self, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        self.function.bind(name.py()).getattr(name)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| {
            let other = other.get();
            self.function.is(&other.function) && self.object.is(&other.object)
        })
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (
            self.function.as_ptr() as usize,
            self.object.as_ptr() as usize,
        )
            .hash(&mut hasher);
        hasher.finish()
    }

    /// Pickled as a bound method is: by the object and the name.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let name = self.function.bind(py).getattr(intern!(py, "__name__"))?;
        let found = (&self.object, name).into_pyobject(py)?;
        let getattr = py.import("builtins")?.getattr("getattr")?;
        (getattr, found).into_pyobject(py)
    }

    fn __copy__(&self, py: Python<'_>) -> Self {
        Self::new(self.function.clone_ref(py), self.object.clone_ref(py))
    }

    /// The method of a copy of the object, as of a bound method.
    fn __deepcopy__(&self, memo: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = memo.py();
        let copy = py.import("copy")?;
        let object = copy.call_method1("deepcopy", (&self.object, memo))?;
        Ok(Self::new(self.function.clone_ref(py), object.unbind()))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "<bound cached function {} of {}>",
            self.function.get().name(),
            self.object.bind(py).repr()?
        ))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.function)?;
        visit.call(&self.object)
    }
}
