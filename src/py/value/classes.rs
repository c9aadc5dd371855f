//! Classes whose instances have fields: dataclasses and pydantic models.
//!
//! They are written as plain maps, so their class has to be named by whoever reads them. What
//! would not come back from its map as it is, is refused.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyModule, PySet, PyString, PyTuple, PyType,
    PyWeakrefMethods, PyWeakrefReference,
};

use super::super::error::InvalidSettingError;
use super::super::halt;
use super::decode::decode;
use super::encode::{Around, write};
use super::same::difference;
use super::types;
use super::walk::{Failure, Stop};
use crate::codec::Format;

/// More classes than these are looked at anew when their turn comes.
const MAX_PLANS: usize = 256;

/// How instances of one class are written.
pub(super) struct Plan {
    /// The class itself is not kept alive: another may get its address.
    class: Py<PyWeakrefReference>,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    Dataclass(Dataclass),
    /// Of pydantic.
    Model,
}

pub(super) struct Dataclass {
    pub(super) names: Vec<Py<PyString>>,
    /// Whether it depends on the values if an instance can be made from them.
    has_post_init: bool,
    /// Whether one instance came back from its fields.
    proven: AtomicBool,
}

/// The plans, by the address of the class. Never locked while Python runs.
static PLANS: Mutex<BTreeMap<usize, Arc<Plan>>> = Mutex::new(BTreeMap::new());

/// The plan of a class that was looked at before: a quick answer for many of its instances.
pub(super) fn known(class: &Bound<'_, PyType>) -> Option<Arc<Plan>> {
    let plan = PLANS.lock().get(&class.as_ptr().addr()).cloned()?;
    let alive = plan.class.bind(class.py()).upgrade()?;
    alive.is(class).then_some(plan)
}

/// How instances of a class are written; `None` for classes without fields.
pub(super) fn plan(class: &Bound<'_, PyType>) -> PyResult<Option<Arc<Plan>>> {
    if let Some(plan) = known(class) {
        return Ok(Some(plan));
    }
    let Some(kind) = look_at(class)? else {
        return Ok(None);
    };
    let plan = Arc::new(Plan {
        class: PyWeakrefReference::new(class)?.unbind(),
        kind,
    });
    let mut plans = PLANS.lock();
    let full = plans.len() >= MAX_PLANS;
    let old = full.then(|| std::mem::take(&mut *plans));
    let replaced = plans.insert(class.as_ptr().addr(), plan.clone());
    drop(plans);
    drop((old, replaced));
    Ok(Some(plan))
}

fn look_at(class: &Bound<'_, PyType>) -> PyResult<Option<Kind>> {
    let py = class.py();
    let has = |name| class.hasattr(name);
    if has(intern!(py, "__pydantic_serializer__"))? && has(intern!(py, "model_fields"))? {
        return Ok(Some(Kind::Model));
    }
    let is_dataclass = class
        .getattr_opt(intern!(py, "__dataclass_fields__"))?
        .is_some_and(|fields| fields.is_instance_of::<PyDict>());
    // A list with fields is a list as well, and members of an enumeration are not made anew.
    let enumeration = py
        .import(intern!(py, "enum"))?
        .getattr(intern!(py, "Enum"))?;
    if !is_dataclass || types::carried_base(class)?.is_some() || class.is_subclass(&enumeration)? {
        return Ok(None);
    }
    let (names, has_post_init) = rebuild_module(py)?
        .call_method1(intern!(py, "describe"), (class,))?
        .extract()?;
    Ok(Some(Kind::Dataclass(Dataclass {
        names,
        has_post_init,
        proven: AtomicBool::new(false),
    })))
}

pub(super) fn rebuild_module(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import(intern!(py, "cachetronomy._rebuild"))
}

impl Dataclass {
    /// Makes sure that such an instance comes back: for the first of its class, and for each
    /// whose class looks at the values while it is made.
    pub(super) fn prove(&self, instance: &Outer<'_>) -> Result<(), Failure> {
        if self.has_post_init || !self.proven.load(Ordering::Relaxed) {
            instance.prove()?;
            self.proven.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A dataclass instance that is in no other one.
pub(super) struct Outer<'py> {
    value: Bound<'py, PyAny>,
    proven: Cell<bool>,
}

impl<'py> Outer<'py> {
    pub(super) fn new(value: &Bound<'py, PyAny>) -> Self {
        Self {
            value: value.clone(),
            proven: Cell::new(false),
        }
    }

    /// Makes sure that it comes back from its map, with all that is inside.
    pub(super) fn prove(&self) -> Result<(), Failure> {
        // At once, so that the walk below does not come back here.
        if self.proven.replace(true) {
            return Ok(());
        }
        let around = Around {
            outer: Some(self),
            ..Around::default()
        };
        match write(&self.value, Format::Cachetronomy, around) {
            Ok(data) => Ok(comes_back(
                &self.value,
                &data,
                Format::Cachetronomy,
                intern!(self.value.py(), "remake"),
                false,
            )?),
            // Something inside cannot be stored. The walk under way will come to it too, and
            // knows the whole way to it.
            Err(_) => Ok(()),
        }
    }
}

/// Whether what `data` holds is made into `value` again by this function of ours; `strictly` as
/// in [`difference`].
pub(super) fn comes_back(
    value: &Bound<'_, PyAny>,
    data: &[u8],
    format: Format,
    function: &Bound<'_, PyString>,
    strictly: bool,
) -> Result<(), Stop> {
    let py = value.py();
    let plain = decode(py, data, format.as_str())?;
    let made = halt::call_method(rebuild_module(py)?.as_any(), function, (value, plain))?;
    match difference(value, &made, strictly)? {
        None => Ok(()),
        Some(place) => Err(Stop::Refused(format!(
            "is of type {}, and `value{place}` would not come back from the plain map that is \
             written for it; annotate it with its exact class, or store plain values",
            value.get_type().fully_qualified_name()?
        ))),
    }
}

/// The version that the class of a value asks for with `__cache_version__`.
pub(crate) fn class_version(value: &Bound<'_, PyAny>) -> PyResult<Option<i64>> {
    if is_of_builtin_class(value) {
        return Ok(None);
    }
    let class = value.get_type();
    let Some(given) = class.getattr_opt(intern!(value.py(), "__cache_version__"))? else {
        return Ok(None);
    };
    match given.extract::<i64>() {
        Ok(version) if version >= 1 && !given.is_instance_of::<PyBool>() => Ok(Some(version)),
        _ => Err(InvalidSettingError::new_err(format!(
            "__cache_version__ of {}: {} is not a version; give an int >= 1",
            class.fully_qualified_name()?,
            given.repr()?
        ))),
    }
}

fn is_of_builtin_class(value: &Bound<'_, PyAny>) -> bool {
    value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyDict>()
        || value.is_exact_instance_of::<PyList>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_none()
        || value.is_exact_instance_of::<PyBytes>()
        || value.is_exact_instance_of::<PyTuple>()
        || value.is_exact_instance_of::<PySet>()
}
