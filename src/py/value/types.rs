//! The Python classes that the `cachetronomy` format carries, looked up once.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyComplex, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet,
    PyString, PyTuple, PyType,
};

use crate::codec::ExtCode;

/// Classes that live in Python modules.
pub(super) struct Types {
    pub(super) datetime: Py<PyType>,
    pub(super) date: Py<PyType>,
    pub(super) time: Py<PyType>,
    pub(super) timedelta: Py<PyType>,
    pub(super) timezone: Py<PyType>,
    pub(super) zone_info: Py<PyType>,
    pub(super) decimal: Py<PyType>,
    pub(super) fraction: Py<PyType>,
    pub(super) uuid: Py<PyType>,
    /// `pathlib.Path`, which makes the concrete path of this system.
    pub(super) path: Py<PyType>,
    pub(super) posix_path: Py<PyType>,
    pub(super) windows_path: Py<PyType>,
    pub(super) pure_posix_path: Py<PyType>,
    pub(super) pure_windows_path: Py<PyType>,
}

impl Types {
    pub(super) fn get(py: Python<'_>) -> PyResult<&Self> {
        static TYPES: PyOnceLock<Types> = PyOnceLock::new();
        TYPES.get_or_try_init(py, || Self::import(py))
    }

    fn import(py: Python<'_>) -> PyResult<Self> {
        let class = |module: &str, name: &str| -> PyResult<Py<PyType>> {
            Ok(py
                .import(module)?
                .getattr(name)?
                .cast_into::<PyType>()?
                .unbind())
        };
        Ok(Self {
            datetime: class("datetime", "datetime")?,
            date: class("datetime", "date")?,
            time: class("datetime", "time")?,
            timedelta: class("datetime", "timedelta")?,
            timezone: class("datetime", "timezone")?,
            zone_info: class("zoneinfo", "ZoneInfo")?,
            decimal: class("decimal", "Decimal")?,
            fraction: class("fractions", "Fraction")?,
            uuid: class("uuid", "UUID")?,
            path: class("pathlib", "Path")?,
            posix_path: class("pathlib", "PosixPath")?,
            windows_path: class("pathlib", "WindowsPath")?,
            pure_posix_path: class("pathlib", "PurePosixPath")?,
            pure_windows_path: class("pathlib", "PureWindowsPath")?,
        })
    }

    fn codes(&self) -> [(&Py<PyType>, ExtCode); 13] {
        [
            (&self.datetime, ExtCode::DateTime),
            (&self.date, ExtCode::Date),
            (&self.time, ExtCode::Time),
            (&self.timedelta, ExtCode::TimeDelta),
            (&self.timezone, ExtCode::TimeZone),
            (&self.zone_info, ExtCode::ZoneInfo),
            (&self.decimal, ExtCode::Decimal),
            (&self.fraction, ExtCode::Fraction),
            (&self.uuid, ExtCode::Uuid),
            (&self.posix_path, ExtCode::Path),
            (&self.windows_path, ExtCode::Path),
            (&self.pure_posix_path, ExtCode::PurePosixPath),
            (&self.pure_windows_path, ExtCode::PureWindowsPath),
        ]
    }
}

/// The typed array that carries `value`, by its exact class. Strings and integers are not looked
/// at: most of them need none.
pub(super) fn classify(value: &Bound<'_, PyAny>) -> PyResult<Option<ExtCode>> {
    let code = if value.is_exact_instance_of::<PyTuple>() {
        ExtCode::Tuple
    } else if value.is_exact_instance_of::<PySet>() {
        ExtCode::Set
    } else if value.is_exact_instance_of::<PyFrozenSet>() {
        ExtCode::FrozenSet
    } else if value.is_exact_instance_of::<PyByteArray>() {
        ExtCode::ByteArray
    } else if value.is_exact_instance_of::<PyComplex>() {
        ExtCode::Complex
    } else {
        let class = value.get_type();
        let codes = Types::get(value.py())?.codes();
        let known = codes.into_iter().find(|(candidate, _)| class.is(candidate));
        return match known {
            Some((_, code)) => Ok(Some(code)),
            None => super::numpy::classify(value),
        };
    };
    Ok(Some(code))
}

/// The name of the class we carry from which `class` derives.
pub(super) fn carried_base(class: &Bound<'_, PyType>) -> PyResult<Option<String>> {
    let py = class.py();
    let builtins = [
        py.get_type::<PyBool>(),
        py.get_type::<PyInt>(),
        py.get_type::<PyFloat>(),
        py.get_type::<PyString>(),
        py.get_type::<PyBytes>(),
        py.get_type::<PyByteArray>(),
        py.get_type::<PyDict>(),
        py.get_type::<PyList>(),
        py.get_type::<PyTuple>(),
        py.get_type::<PySet>(),
        py.get_type::<PyFrozenSet>(),
    ];
    let imported = Types::get(py)?
        .codes()
        .map(|(class, _)| class.bind(py).clone());
    for base in builtins.iter().chain(&imported) {
        if class.is_subclass(base)? {
            return Ok(Some(base.fully_qualified_name()?.to_string()));
        }
    }
    Ok(None)
}
