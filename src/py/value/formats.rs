//! The formats that a program adds, and how a format is asked for and named.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView, PyString};

use super::super::error::{InvalidSettingError, SerializationError};
use super::super::halt;
use super::is_about_value;
use crate::codec::Format;
use crate::entry::EXCEPTION;

/// The pair of functions of one added format.
struct Functions {
    dumps: Py<PyAny>,
    loads: Py<PyAny>,
}

/// The added formats of the process. The lock is held for looking and replacing alone.
static ADDED: Mutex<BTreeMap<Arc<str>, Arc<Functions>>> = Mutex::new(BTreeMap::new());

fn find(name: &str) -> Option<Arc<Functions>> {
    ADDED.lock().get(name).cloned()
}

/// The format that a caller asked for.
#[derive(Clone, Debug)]
pub(crate) enum Prefer {
    BuiltIn(Format),
    /// Looked up again at each use: it may have been replaced meanwhile.
    Custom(Arc<str>),
}

impl Prefer {
    /// The format with this name, built in or added.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        if let Some(format) = Format::parse(name) {
            return Some(Self::BuiltIn(format));
        }
        let added = ADDED.lock();
        let (name, _) = added.get_key_value(name)?;
        Some(Self::Custom(name.clone()))
    }
}

/// The format in which a value was written.
#[derive(Clone, Debug)]
pub(crate) enum Label {
    BuiltIn(Format),
    Custom(Arc<str>),
}

impl Label {
    /// The name under which the format is stored.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::BuiltIn(format) => format.as_str(),
            Self::Custom(name) => name,
        }
    }
}

/// Add a format to those of the process: `prefer=name` writes with `dumps(value) -> bytes`, and
/// entries with that name are read with `loads(bytes)`. Adding a name again replaces its
/// functions; the names of the built-in formats are taken.
///
/// A value that `dumps` raises for is written in a built-in format. An entry that `loads` raises
/// for is a miss. A program that reads the entries has to add the format too.
///
/// Raises `InvalidSettingError`.
#[pyfunction]
pub(crate) fn register_serializer(
    name: &Bound<'_, PyAny>,
    dumps: &Bound<'_, PyAny>,
    loads: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let text = name
        .cast::<PyString>()
        .ok()
        .and_then(|text| text.to_str().ok());
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Err(InvalidSettingError::new_err(format!(
            "name: {} is not a name for a format; give a non-empty str",
            name.repr()?
        )));
    };
    if Format::parse(text).is_some() || text == EXCEPTION {
        return Err(InvalidSettingError::new_err(format!(
            "name: {text:?} is a built-in format; give your own another name"
        )));
    }
    for (parameter, function) in [("dumps", dumps), ("loads", loads)] {
        if !function.is_callable() {
            return Err(InvalidSettingError::new_err(format!(
                "{parameter}: {} cannot be called; give a function",
                function.repr()?
            )));
        }
    }
    let functions = Arc::new(Functions {
        dumps: dumps.clone().unbind(),
        loads: loads.clone().unbind(),
    });
    let replaced = ADDED.lock().insert(text.into(), functions);
    // A destructor may run, so the lock is free by now.
    drop(replaced);
    Ok(())
}

/// Writes a value in an added format; `None` if that does not carry it.
pub(super) fn dump(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Option<Vec<u8>>> {
    let py = value.py();
    let Some(functions) = find(name) else {
        return Ok(None);
    };
    let made = match halt::call(functions.dumps.bind(py), (value,), None) {
        Ok(made) => made,
        Err(error) if is_about_value(&error, py) => return Ok(None),
        Err(error) => return Err(error),
    };
    if let Ok(bytes) = made.cast::<PyBytes>() {
        Ok(Some(bytes.as_bytes().to_vec()))
    } else if let Ok(bytes) = made.cast::<PyByteArray>() {
        Ok(Some(bytes.to_vec()))
    } else if made.is_instance_of::<PyMemoryView>() {
        let bytes = made.call_method0(intern!(py, "tobytes"))?;
        Ok(Some(bytes.cast::<PyBytes>()?.as_bytes().to_vec()))
    } else {
        Err(SerializationError::new_err(format!(
            "the dumps of the format {name:?} returned {}; it must return bytes, a bytearray or \
             a memoryview",
            made.get_type().fully_qualified_name()?
        )))
    }
}

/// Reads a value in an added format; `None` if there is none of that name.
pub(super) fn load<'py>(
    py: Python<'py>,
    name: &str,
    data: &[u8],
) -> Option<PyResult<Bound<'py, PyAny>>> {
    let functions = find(name)?;
    let data = PyBytes::new(py, data);
    Some(halt::call(functions.loads.bind(py), (data,), None))
}
