//! `MISS`: the one value that no cache can hold.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// The type of `MISS`.
#[pyclass(name = "_Missing", module = "cachetronomy._core", frozen)]
pub(crate) struct Missing;

#[pymethods]
impl Missing {
    #[expect(clippy::unused_self, reason = "the shape of the protocol")]
    fn __repr__(&self) -> &'static str {
        "MISS"
    }

    #[expect(clippy::unused_self, reason = "the shape of the protocol")]
    fn __bool__(&self) -> bool {
        false
    }

    /// Pickled and copied by name, so that it stays the one object.
    #[expect(clippy::unused_self, reason = "the shape of the protocol")]
    fn __reduce__(&self) -> &'static str {
        "MISS"
    }
}

/// The sentinel.
pub(super) fn miss(py: Python<'_>) -> PyResult<Py<Missing>> {
    static MISS: PyOnceLock<Py<Missing>> = PyOnceLock::new();
    MISS.get_or_try_init(py, || Py::new(py, Missing))
        .map(|miss| miss.clone_ref(py))
}

/// What a look in a hurry returns when only a longer one can tell.
pub(super) fn later(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static LATER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let made = LATER.get_or_try_init(py, || {
        let object = py.import("builtins")?.getattr("object")?;
        object.call0().map(Bound::unbind)
    });
    Ok(made?.bind(py).clone())
}
