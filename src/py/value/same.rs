//! Whether two values are the same in every part, types and all.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple,
};

use super::classes::{self, Dataclass, Kind};
use super::{typed, types};
use crate::codec::{Depth, ExtCode};

/// Where `made` differs from `value`, as a way from it; `None` if it does not. Models of pydantic
/// may have to be the same like everything else, or, if not `strictly`, equal.
pub(super) fn difference(
    value: &Bound<'_, PyAny>,
    made: &Bound<'_, PyAny>,
    strictly: bool,
) -> PyResult<Option<String>> {
    let mut way = Vec::new();
    let at = At {
        depth: Depth::default(),
        strictly,
    };
    if same(value, made, at, &mut way)? {
        return Ok(None);
    }
    way.reverse();
    Ok(Some(way.concat()))
}

/// As [`difference`], not strictly, for the Python layer.
#[pyfunction]
#[pyo3(name = "_difference")]
pub(crate) fn first_difference(
    value: &Bound<'_, PyAny>,
    made: &Bound<'_, PyAny>,
) -> PyResult<Option<String>> {
    difference(value, made, false)
}

#[derive(Clone, Copy)]
struct At {
    depth: Depth,
    strictly: bool,
}

/// On a difference `way` gets the steps to it, innermost first.
fn same(
    value: &Bound<'_, PyAny>,
    made: &Bound<'_, PyAny>,
    at: At,
    way: &mut Vec<String>,
) -> PyResult<bool> {
    if value.is(made) {
        return Ok(true);
    }
    let Ok(depth) = at.depth.deeper() else {
        return Ok(false);
    };
    let at = At { depth, ..at };
    let class = value.get_type();
    if !made.get_type().is(&class) {
        return Ok(false);
    }
    if value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyBytes>()
    {
        return value.eq(made);
    }
    if let (Ok(value), Ok(made)) = (value.cast_exact::<PyFloat>(), made.cast_exact::<PyFloat>()) {
        let (value, made) = (value.value(), made.value());
        return Ok(value.to_bits() == made.to_bits() || (value.is_nan() && made.is_nan()));
    }
    if let (Ok(value), Ok(made)) = (value.cast_exact::<PyList>(), made.cast_exact::<PyList>()) {
        return same_items(value.iter(), made.iter(), at, way);
    }
    if let (Ok(value), Ok(made)) = (value.cast_exact::<PyDict>(), made.cast_exact::<PyDict>()) {
        return same_dicts(value, made, at, way);
    }
    if value.is_exact_instance_of::<PySet>() || value.is_exact_instance_of::<PyFrozenSet>() {
        // Equal members may be of two types: `1` and `True`.
        return Ok(value.eq(made)? && classes_of_members(value)? == classes_of_members(made)?);
    }
    // Before the rest: a plan that is there is found fast.
    let mut plan = classes::known(&class);
    if plan.is_none() {
        match types::classify(value)? {
            Some(ExtCode::Tuple) => {
                let (value, made) = (value.cast::<PyTuple>()?, made.cast::<PyTuple>()?);
                return same_items(value.iter(), made.iter(), at, way);
            }
            // Equal ones may differ: `Decimal("1.0")`, a time's fold, an array of numpy.
            Some(code) => {
                if let (Ok(value), Ok(made)) = (
                    typed::take_apart(value, code),
                    typed::take_apart(made, code),
                ) {
                    let mut inner = Vec::new();
                    return same_items(value.into_iter(), made.into_iter(), at, &mut inner);
                }
            }
            None => {}
        }
        plan = classes::plan(&class)?;
    }
    match plan.as_deref().map(|plan| &plan.kind) {
        Some(Kind::Dataclass(dataclass)) => same_fields(value, made, dataclass, at, way),
        Some(Kind::Model) => {
            let steps = way.len();
            let equal = same_models(value, made, at, way)? || (!at.strictly && value.eq(made)?);
            if equal {
                way.truncate(steps);
            }
            Ok(equal)
        }
        None => value.eq(made),
    }
}

/// For instances of one dataclass.
fn same_fields(
    value: &Bound<'_, PyAny>,
    made: &Bound<'_, PyAny>,
    dataclass: &Dataclass,
    at: At,
    way: &mut Vec<String>,
) -> PyResult<bool> {
    for name in &dataclass.names {
        let name = name.bind(value.py());
        let (ours, theirs) = (value.getattr(name)?, made.getattr(name)?);
        if !same(&ours, &theirs, at, way)? {
            way.push(format!(".{name}"));
            return Ok(false);
        }
    }
    Ok(true)
}

fn same_items<'py>(
    value: impl ExactSizeIterator<Item = Bound<'py, PyAny>>,
    made: impl ExactSizeIterator<Item = Bound<'py, PyAny>>,
    at: At,
    way: &mut Vec<String>,
) -> PyResult<bool> {
    if value.len() != made.len() {
        return Ok(false);
    }
    for (index, (ours, theirs)) in value.zip(made).enumerate() {
        if !same(&ours, &theirs, at, way)? {
            way.push(format!("[{index}]"));
            return Ok(false);
        }
    }
    Ok(true)
}

fn same_dicts(
    value: &Bound<'_, PyDict>,
    made: &Bound<'_, PyDict>,
    at: At,
    way: &mut Vec<String>,
) -> PyResult<bool> {
    // Lists of what is in them: comparing runs Python code, which may change them.
    let (value, made) = (value.items(), made.items());
    if value.len() != made.len() {
        return Ok(false);
    }
    for (ours, theirs) in value.iter().zip(made.iter()) {
        let (our_key, ours) = ours.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
        let (their_key, theirs) = theirs.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
        if !same(&our_key, &their_key, at, &mut Vec::new())? {
            return Ok(false);
        }
        if !same(&ours, &theirs, at, way)? {
            way.push(format!("[{}]", super::walk::shown(&our_key)));
            return Ok(false);
        }
    }
    Ok(true)
}

fn classes_of_members(set: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    let mut classes = Vec::new();
    for member in set.try_iter()? {
        classes.push(member?.get_type().as_ptr().addr());
    }
    classes.sort_unstable();
    Ok(classes)
}

/// As pydantic compares models, but all the way down: fields, extra fields, private attributes.
fn same_models(
    value: &Bound<'_, PyAny>,
    made: &Bound<'_, PyAny>,
    at: At,
    way: &mut Vec<String>,
) -> PyResult<bool> {
    let py = value.py();
    let content = |model: &Bound<'_, PyAny>| -> PyResult<_> {
        Ok(model
            .getattr(intern!(py, "__dict__"))?
            .cast_into::<PyDict>()?
            .unbind())
    };
    let (ours, theirs) = (content(value)?, content(made)?);
    // Other things in `__dict__` are results of cached properties.
    let fields = value.get_type().getattr(intern!(py, "model_fields"))?;
    for name in fields.try_iter()? {
        let name = name?;
        let is_same = match (
            ours.bind(py).get_item(&name)?,
            theirs.bind(py).get_item(&name)?,
        ) {
            (Some(ours), Some(theirs)) => same(&ours, &theirs, at, way)?,
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            way.push(format!(".{name}"));
            return Ok(false);
        }
    }
    for state in [
        intern!(py, "__pydantic_extra__"),
        intern!(py, "__pydantic_private__"),
    ] {
        let of = |model: &Bound<'_, PyAny>| -> PyResult<Py<PyDict>> {
            let state = model.getattr_opt(state)?.filter(|state| !state.is_none());
            // There is none before the first, and none and nothing are the same.
            Ok(match state {
                Some(state) => state.cast_into::<PyDict>()?.unbind(),
                None => PyDict::new(py).unbind(),
            })
        };
        if !same_dicts(of(value)?.bind(py), of(made)?.bind(py), at, way)? {
            way.push(format!(".{state}"));
            return Ok(false);
        }
    }
    Ok(true)
}
