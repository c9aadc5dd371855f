//! What a decorated function offers beside the call.

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use super::decorator::CachedFunction;
use super::errand::Lane;
use super::wrap::misfit;
use crate::store::glob::Glob;

impl CachedFunction {
    /// What every key of this function begins with; `None`: only the key builder knows.
    fn prefix(&self, py: Python<'_>) -> PyResult<Option<Glob>> {
        if self.options.key_builder.is_some() {
            return Ok(None);
        }
        let prefix = format!("{}(", self.name.text(py)?);
        Ok(Some(Glob::prefixed(&prefix)))
    }

    /// The keys of this function's live entries.
    pub(super) fn keys(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let shared = self.open(py)?;
        shared.begin(py)?;
        let (prefix, name) = (self.prefix(py)?, self.name.text(py)?);
        let keys = shared.detached(py, |cache| match &prefix {
            Some(prefix) => cache.matching(Some(prefix), None),
            None => cache.of_function(&name),
        });
        Ok(keys?)
    }

    /// Deletes all entries of this function.
    pub(super) fn clear(&self, py: Python<'_>) -> PyResult<()> {
        let shared = self.open(py)?;
        shared.begin(py)?;
        let (prefix, name) = (self.prefix(py)?, self.name.text(py)?);
        let removed = shared.detached(py, |cache| match &prefix {
            Some(prefix) => cache.delete_matching(prefix),
            None => cache.delete_by_function(&name),
        })?;
        drop(shared.cache.forget(removed.iter().map(String::as_str)));
        Ok(())
    }

    /// Runs work on the store: at once or, for a coroutine function, in the awaitable that is
    /// returned, where no event loop waits for it.
    fn deliver<'py>(
        slf: &Bound<'py, Self>,
        lane: Lane,
        work: impl Fn(Python<'_>, &Self) -> PyResult<Py<PyAny>> + Send + Sync + 'static,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        if !slf.get().is_coroutine() {
            return Ok(work(py, slf.get())?.into_bound(py));
        }
        let function = slf.clone().unbind();
        let call = PyCFunction::new_closure(
            py,
            None,
            None,
            move |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
                work(args.py(), function.get())
            },
        )?;
        py.import("cachetronomy._coroutines")?
            .call_method1("off_the_loop", (slf, call, lane == Lane::Write))
    }
}

#[pymethods]
impl CachedFunction {
    /// The key of a call with these arguments.
    #[pyo3(signature = (*args, **kwargs))]
    pub(super) fn key_for<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<String> {
        self.build_key(args, kwargs)?
            .ok_or_else(|| misfit(self.name(), self.function.bind(args.py()), args, kwargs))
    }

    /// Forget the result of a call with these arguments; return whether there was one. Of a
    /// coroutine function it is awaited.
    #[pyo3(signature = (*args, **kwargs))]
    pub(super) fn invalidate<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let key = slf.get().key_for(args, kwargs)?;
        Self::deliver(slf, Lane::Write, move |py, this| {
            let shared = this.open(py)?;
            shared.begin(py)?;
            let existed = shared.remove(py, &[&key])?;
            existed.contains(&true).into_py_any(py)
        })
    }

    /// Call the function whatever is stored, store what it returns, and return it. Of a coroutine
    /// function it is awaited.
    #[pyo3(signature = (*args, **kwargs))]
    pub(super) fn refresh<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        if this.is_coroutine() {
            let kwargs = kwargs.map_or_else(|| PyDict::new(py), Clone::clone);
            return py
                .import("cachetronomy._coroutines")?
                .call_method1("refresh", (slf, args, kwargs));
        }
        match this.ticket(args, kwargs)? {
            Some(ticket) => this.compute(&ticket, args, kwargs),
            None => this.call_function(args, kwargs),
        }
    }

    /// Return `CacheInfo(hits, misses, maxsize, currsize)`: calls of this process that were and
    /// were not answered from the cache, entries of all functions that memory holds at most
    /// (`None`: no limit), live entries of this function in the store. Of a coroutine function it
    /// is awaited.
    pub(super) fn cache_info<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::deliver(slf, Lane::Read, |py, this| {
            let currsize = this.keys(py)?.len();
            let maxsize = this.shared()?.cache.active().profile.max_items_in_memory;
            let (hits, misses) = this.counts();
            py.import("cachetronomy.info")?
                .getattr("CacheInfo")?
                .call1((hits, misses, maxsize, currsize))
                .map(Bound::unbind)
        })
    }

    /// Forget all results of this function, in both tiers, whoever stored them. Of a coroutine
    /// function it is awaited.
    pub(super) fn cache_clear<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::deliver(slf, Lane::Write, |py, this| {
            this.clear(py)?;
            Ok(py.None())
        })
    }

    /// The client that keeps the results.
    #[getter]
    pub(super) fn cache(&self, py: Python<'_>) -> Py<PyAny> {
        self.owner(py)
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
}
