//! What callers pass, checked and converted before anything changes.

use std::path::PathBuf;
use std::time::Duration;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDelta, PyString};

use super::error::{InvalidKeyError, InvalidSettingError};
use super::value::Prefer;
use crate::settings::{
    Location, Settings, check_tags, check_version, parse_busy_timeout, parse_location,
};
use crate::time::Ttl;

/// A key as text.
#[inline]
pub(super) fn key<'a>(key: &'a Bound<'_, PyAny>) -> PyResult<&'a str> {
    let Ok(text) = key.cast::<PyString>() else {
        return Err(not_a_key(key));
    };
    text.to_str().map_err(|_| {
        InvalidKeyError::new_err(format!(
            "the key {} holds a lone surrogate, which no file can keep; use another key",
            text.repr()
                .map_or_else(|_| String::from("?"), |repr| repr.to_string()),
        ))
    })
}

#[cold]
fn not_a_key(key: &Bound<'_, PyAny>) -> PyErr {
    let kind = key
        .get_type()
        .name()
        .map_or_else(|_| String::from("?"), |name| name.to_string());
    let shown = key
        .repr()
        .map_or_else(|_| String::from("?"), |repr| repr.to_string());
    InvalidKeyError::new_err(format!(
        "a key must be a str, not {kind}: {shown}; use str(...)"
    ))
}

/// Keys, all checked.
pub(super) fn keys<'py>(keys: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    if keys.is_instance_of::<PyString>() {
        return Err(InvalidKeyError::new_err(format!(
            "keys must be a list of str, not one str: {}; use [{0}]",
            keys.repr()?
        )));
    }
    let keys: Vec<_> = keys.try_iter()?.collect::<PyResult<_>>()?;
    for candidate in &keys {
        key(candidate)?;
    }
    Ok(keys)
}

/// The two names of one parameter. `None`: the default.
pub(super) fn ttl(
    ttl: Option<&Bound<'_, PyAny>>,
    time_to_live: Option<&Bound<'_, PyAny>>,
) -> PyResult<Option<Ttl>> {
    match (ttl, time_to_live) {
        (Some(_), Some(_)) => Err(PyTypeError::new_err(
            "ttl and time_to_live are two names of one parameter; give one of them",
        )),
        (None, None) => Ok(None),
        (Some(given), None) | (None, Some(given)) => one_ttl(given).map(Some),
    }
}

pub(super) fn one_ttl(given: &Bound<'_, PyAny>) -> PyResult<Ttl> {
    if let Ok(text) = given.cast::<PyString>() {
        return Ok(Ttl::from_text(&text.to_string_lossy())?);
    }
    let seconds = if given.is_instance_of::<PyDelta>() {
        given.call_method0("total_seconds")?.extract::<f64>()
    } else if given.is_instance_of::<PyBool>() {
        Err(PyTypeError::new_err("bool"))
    } else {
        given.extract::<f64>()
    };
    match seconds {
        Ok(seconds) => Ok(Ttl::from_seconds(seconds)?),
        // An int beyond a float's range is for ever; below, it is as negative as can be.
        Err(error) if error.is_instance_of::<pyo3::exceptions::PyOverflowError>(given.py()) => {
            Ok(Ttl::from_seconds(if given.lt(0)? {
                -1.0
            } else {
                f64::INFINITY
            })?)
        }
        Err(_) => Err(InvalidSettingError::new_err(format!(
            "time_to_live: {} is not a time to live; give seconds, a timedelta, text like \
             \"1h30m\", math.inf for ever, or None for the default",
            given.repr()?
        ))),
    }
}

/// How long to wait, in seconds or as a `timedelta`; `None`: for ever.
pub(super) fn timeout(given: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Duration>> {
    let Some(given) = given else { return Ok(None) };
    let seconds = if given.is_instance_of::<PyDelta>() {
        given.call_method0("total_seconds")?.extract::<f64>()
    } else {
        given.extract::<f64>()
    };
    match seconds {
        Ok(seconds) if seconds >= 0.0 && !given.is_instance_of::<PyBool>() => {
            // More than the clock can count is for ever.
            Ok(Duration::try_from_secs_f64(seconds).ok())
        }
        _ => Err(InvalidSettingError::new_err(format!(
            "timeout: {} is not a time to wait; give seconds >= 0, a timedelta, or None for ever",
            given.repr()?
        ))),
    }
}

/// Tags: a list, or one string for one tag.
pub(super) fn tags(tags: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    let wrong = || -> PyResult<PyErr> {
        Ok(InvalidSettingError::new_err(format!(
            "tags: {} is neither a tag nor a list of tags; a tag is a str without lone surrogates",
            tags.repr()?
        )))
    };
    let list = if tags.is_instance_of::<PyString>() {
        tags.extract::<String>().map(|tag| vec![tag])
    } else {
        tags.try_iter()
            .and_then(|tags| tags.map(|tag| tag?.extract::<String>()).collect())
    };
    match list {
        Ok(list) => Ok(check_tags(list)?),
        Err(_) => Err(wrong()?),
    }
}

/// A version number; `None`: not given.
pub(super) fn version(version: Option<&Bound<'_, PyAny>>) -> PyResult<Option<i64>> {
    let Some(given) = version else {
        return Ok(None);
    };
    match given.extract::<i64>() {
        Ok(number) if !given.is_instance_of::<PyBool>() => Ok(Some(check_version(number)?)),
        _ => Err(InvalidSettingError::new_err(format!(
            "version: {} is not a version; give an int >= 1",
            given.repr()?
        ))),
    }
}

/// The name of a format.
pub(super) fn format(name: Option<&str>) -> PyResult<Option<Prefer>> {
    let Some(name) = name else { return Ok(None) };
    match Prefer::parse(name) {
        Some(prefer) => Ok(Some(prefer)),
        None => Err(InvalidSettingError::new_err(format!(
            "prefer: {name:?} is not a format; give \"json\", \"orjson\", \"msgpack\", \
             \"cachetronomy\", or register it first"
        ))),
    }
}

/// The parameter `model`: who passes a default in its place, as `dict.get` takes it, is told so.
pub(super) fn model(model: &Bound<'_, PyAny>) -> PyResult<()> {
    let is_value = model.is_instance_of::<PyString>()
        || model.is_instance_of::<pyo3::types::PyInt>()
        || model.is_instance_of::<pyo3::types::PyFloat>()
        || model.is_instance_of::<pyo3::types::PyDict>()
        || model.is_instance_of::<pyo3::types::PyList>();
    if !is_value {
        return Ok(());
    }
    Err(InvalidSettingError::new_err(format!(
        "model: {} is not a type; for a default give default={0}",
        model.repr()?
    )))
}

/// A limit on the number of rows; `None`: all.
#[derive(Clone, Copy)]
pub(super) struct Limit(pub(super) Option<usize>);

impl<'py> FromPyObject<'_, 'py> for Limit {
    type Error = PyErr;

    fn extract(given: pyo3::Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match given.extract::<Option<usize>>() {
            Ok(limit) if !given.is_instance_of::<PyBool>() => Ok(Self(limit)),
            _ => Err(InvalidSettingError::new_err(format!(
                "limit: {:?} is not a number of rows; give an int >= 0, or None for all",
                &*given
            ))),
        }
    }
}

/// The parameter `max_items_in_memory`, whose `None` means that there is no limit.
#[derive(Clone, Copy)]
pub(super) enum Items {
    NotGiven,
    Given(Option<usize>),
}

impl<'py> FromPyObject<'_, 'py> for Items {
    type Error = PyErr;

    fn extract(given: pyo3::Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if given.is(given.py().Ellipsis()) {
            return Ok(Self::NotGiven);
        }
        given
            .extract::<Option<usize>>()
            .map(Self::Given)
            .map_err(|_| {
                InvalidSettingError::new_err(format!(
                    "max_items_in_memory: {:?} is not a number of items; give an int >= 0, or None \
                 for no limit",
                    &*given
                ))
            })
    }
}

/// Opening: arguments to settings.
pub(super) fn settings(
    db_path: Option<&Bound<'_, PyAny>>,
    max_items_in_memory: Items,
    busy_timeout: Option<&Bound<'_, PyAny>>,
) -> PyResult<Settings> {
    let mut settings = Settings::default();
    if let Some(given) = db_path {
        let wrong = |_| {
            InvalidSettingError::new_err(format!(
                "db_path: {given:?} is not a path; give a str, a pathlib.Path, or \":memory:\""
            ))
        };
        settings.location = parse_location(&fspath(given).map_err(wrong)?)?;
    } else if let Location::File(path) = &settings.location {
        settings.location = parse_location(&path.to_string_lossy())?;
    }
    if let Items::Given(limit) = max_items_in_memory {
        settings.max_items_in_memory = Some(limit);
    }
    if let Some(given) = busy_timeout {
        settings.busy_timeout = parse_busy_timeout(seconds(given)?)?;
    }
    Ok(settings)
}

fn seconds(busy_timeout: &Bound<'_, PyAny>) -> PyResult<f64> {
    match busy_timeout.extract::<f64>() {
        Ok(seconds) if !busy_timeout.is_instance_of::<PyBool>() => Ok(seconds),
        _ => Err(InvalidSettingError::new_err(format!(
            "busy_timeout: {} is not a time-out; give seconds, such as 5 or 0.5",
            busy_timeout.repr()?
        ))),
    }
}

fn fspath(path: &Bound<'_, PyAny>) -> PyResult<String> {
    let os = path.py().import("os")?;
    os.call_method1("fspath", (path,))?.extract()
}

/// The path of a file that is not a database in use.
pub(super) fn path(given: &Bound<'_, PyAny>, name: &str) -> PyResult<PathBuf> {
    let text = fspath(given).ok().filter(|text| !text.is_empty());
    text.map(PathBuf::from).ok_or_else(|| {
        InvalidSettingError::new_err(format!(
            "{name}: {given:?} is not a path; give a str or a pathlib.Path"
        ))
    })
}
