//! Parameters and columns of a query, from and to Python objects.

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyFloat, PyInt, PyString};

use super::error::InvalidSettingError;
use crate::entry::Cell;

pub(super) fn to_cell(value: &Bound<'_, PyAny>) -> PyResult<Cell> {
    if value.is_none() {
        Ok(Cell::Null)
    } else if value.is_instance_of::<PyInt>() {
        value.extract().map(Cell::Integer).map_err(|_| {
            InvalidSettingError::new_err(
                "query: an int parameter is beyond the 64 bits of a column",
            )
        })
    } else if value.is_instance_of::<PyFloat>() {
        Ok(Cell::Real(value.extract()?))
    } else if value.is_instance_of::<PyString>() {
        Ok(Cell::Text(value.extract()?))
    } else if let Ok(bytes) = value.extract::<Vec<u8>>() {
        Ok(Cell::Blob(bytes))
    } else {
        Err(PyTypeError::new_err(format!(
            "a parameter of a query is None, bool, int, float, str or bytes, not {}",
            value.repr()?
        )))
    }
}

pub(super) fn from_cell(py: Python<'_>, cell: Cell) -> PyResult<Bound<'_, PyAny>> {
    match cell {
        Cell::Null => Ok(py.None().into_bound(py)),
        Cell::Integer(number) => number.into_bound_py_any(py),
        Cell::Real(number) => number.into_bound_py_any(py),
        Cell::Text(text) => text.into_bound_py_any(py),
        Cell::Blob(bytes) => Ok(PyBytes::new(py, &bytes).into_any()),
    }
}
