//! Fields of a profile: from Python values to checked settings, and back.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDelta, PyDict, PyFloat, PyInt, PyString};

use super::arguments;
use super::error::InvalidSettingError;
use crate::settings::{
    Profile, ProfileChanges, check_profile_name, parse_busy_timeout, unknown_field,
};
use crate::time::Ttl;

/// The name of a profile.
pub(super) fn name(name: &Bound<'_, PyAny>) -> PyResult<String> {
    let Ok(text) = name.extract::<String>() else {
        return Err(InvalidSettingError::new_err(format!(
            "profile: {} is not a profile; give its name, or a Profile",
            name.repr()?
        )));
    };
    check_profile_name(&text)?;
    Ok(text)
}

/// Fields by their names, each checked.
pub(super) fn changes(fields: &Bound<'_, PyDict>) -> PyResult<ProfileChanges> {
    let mut changes = ProfileChanges::default();
    for (field, value) in fields {
        set(&mut changes, &field.extract::<String>()?, &value)?;
    }
    Ok(changes)
}

fn set(changes: &mut ProfileChanges, field: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    match field {
        "memory_based_eviction" => {
            let flag = value.cast::<PyBool>();
            let flag = flag.map_err(|_| wrong(field, value, "give True or False"))?;
            changes.memory_based_eviction = Some(flag.is_true());
        }
        "free_memory_target" => {
            let advice = "give MB >= 0 or, up to 1, a fraction of all RAM";
            if !is_number(value) {
                return Err(wrong(field, value, advice));
            }
            let target = value.extract::<f64>();
            changes.set_free_memory_target(target.unwrap_or(f64::INFINITY))?;
        }
        "tags" => changes.set_tags(arguments::tags(value)?)?,
        "time_to_live" | "ttl_cleanup_interval" | "memory_cleanup_interval"
            if value.is_instance_of::<PyString>() || value.is_instance_of::<PyDelta>() =>
        {
            changes.set_number(field, whole_seconds(field, value)?)?;
        }
        "time_to_live"
        | "ttl_cleanup_interval"
        | "memory_cleanup_interval"
        | "max_items_in_memory" => changes.set_number(field, whole(field, value)?)?,
        _ => return Err(unknown_field(field).into()),
    }
    Ok(())
}

fn is_number(value: &Bound<'_, PyAny>) -> bool {
    (value.is_instance_of::<PyInt>() || value.is_instance_of::<PyFloat>())
        && !value.is_instance_of::<PyBool>()
}

/// A whole number: an int, or a float without a fraction.
fn whole(field: &str, value: &Bound<'_, PyAny>) -> PyResult<i128> {
    let advice = "give a whole number";
    if !is_number(value) {
        return Err(wrong(field, value, advice));
    }
    if value.is_instance_of::<PyFloat>() && !value.call_method0("is_integer")?.is_truthy()? {
        return Err(wrong(field, value, advice));
    }
    let number = value.call_method0("__int__");
    let number = number.map_err(|_| wrong(field, value, advice))?;
    // Beyond 128 bits it is out of any range, on its own side.
    number
        .extract::<i128>()
        .or_else(|_| Ok(if number.lt(0)? { i128::MIN } else { i128::MAX }))
}

/// A `timedelta`, or text like `"1h30m"`.
fn whole_seconds(field: &str, value: &Bound<'_, PyAny>) -> PyResult<i128> {
    match arguments::one_ttl(value)? {
        Ttl::Micros(micros) if micros % 1_000_000 == 0 => Ok(i128::from(micros / 1_000_000)),
        _ => Err(wrong(field, value, "a profile keeps whole seconds")),
    }
}

#[cold]
fn wrong(field: &str, value: &Bound<'_, PyAny>, advice: &str) -> PyErr {
    let shown = value
        .repr()
        .map_or_else(|_| String::from("?"), |repr| repr.to_string());
    InvalidSettingError::new_err(format!("{field}: {shown} does not fit; {advice}"))
}

/// A profile as a dict of its fields.
pub(super) fn to_dict<'py>(py: Python<'py>, profile: &Profile) -> PyResult<Bound<'py, PyDict>> {
    let fields = PyDict::new(py);
    fields.set_item("name", &profile.name)?;
    fields.set_item("time_to_live", profile.time_to_live)?;
    fields.set_item("ttl_cleanup_interval", profile.ttl_cleanup_interval)?;
    fields.set_item("memory_based_eviction", profile.memory_based_eviction)?;
    fields.set_item("free_memory_target", profile.free_memory_target)?;
    fields.set_item("memory_cleanup_interval", profile.memory_cleanup_interval)?;
    fields.set_item("max_items_in_memory", profile.max_items_in_memory)?;
    fields.set_item("tags", &profile.tags)?;
    Ok(fields)
}

/// Checks one field of a profile, or one setting, and returns its value as it will be used.
#[pyfunction]
#[pyo3(name = "_check_setting")]
pub(crate) fn check_setting<'py>(
    field: &str,
    value: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = value.py();
    match field {
        "name" => Ok(name(value)?.into_pyobject(py)?.into_any()),
        "busy_timeout" => {
            let seconds = value
                .extract::<f64>()
                .map_err(|_| PyTypeError::new_err("busy_timeout: give a number of seconds"))?;
            parse_busy_timeout(seconds)?;
            Ok(value.clone())
        }
        field => {
            let mut changes = ProfileChanges::default();
            set(&mut changes, field, value)?;
            let checked = to_dict(py, &Profile::named("checked").with(&changes))?;
            checked.as_any().get_item(field)
        }
    }
}

/// The fields of a profile that names none of them.
pub(super) fn defaults(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let fields = to_dict(py, &Profile::named("default"))?;
    fields.del_item("name")?;
    Ok(fields)
}
