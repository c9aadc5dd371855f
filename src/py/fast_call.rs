//! Has the interpreter call decorated functions as it calls its own: with the arguments where they
//! lie, without a tuple around them, and without a bound method for `obj.method(...)`.
#![expect(
    unsafe_code,
    reason = "PyO3 has no vectorcall and no way to set flags of a type"
)]

use std::ffi::c_ulong;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

use super::decorator::CachedFunction;

/// What the interpreter finds in each decorated function and calls.
pub(super) struct FastCall(#[expect(dead_code, reason = "read by C")] ffi::vectorcallfunc);

impl FastCall {
    pub(super) const fn new() -> Self {
        Self(vectorcall)
    }
}

/// Tells the interpreter of all this, once there is a decorated function: only then is it known
/// where in it the pointer lies. Only where the interpreter has its lock.
pub(super) fn enable(function: &Bound<'_, CachedFunction>) -> PyResult<()> {
    static ENABLED: PyOnceLock<()> = PyOnceLock::new();
    let py = function.py();
    ENABLED
        .get_or_try_init(py, || {
            let question = py.import("sys")?.getattr_opt("_is_gil_enabled")?;
            if question.map_or(Ok(true), |question| question.call0()?.extract::<bool>())? {
                mark(function);
            }
            Ok(())
        })
        .copied()
}

fn mark(function: &Bound<'_, CachedFunction>) {
    let field = (&raw const function.get().fast_call).addr();
    let offset = (field - function.as_ptr().addr()).cast_signed();
    let kind = function.get_type().as_type_ptr();
    // SAFETY: `kind` is a complete type that outlives its instance, and nothing inherits from it.
    // Its fields are read and written under the interpreter's lock alone, which `function` shows is
    // held; where the field of the flags is an atomic it has the size and alignment of the plain
    // one. At `offset` each instance has the address of `vectorcall` from its making on, because
    // all instances have one layout. The type keeps the promise of the second flag (see
    // `CachedFunction::__get__`). What was cached of the type is forgotten.
    unsafe {
        (*kind).tp_vectorcall_offset = offset;
        let flags = (&raw mut (*kind).tp_flags).cast::<c_ulong>();
        *flags |= ffi::Py_TPFLAGS_HAVE_VECTORCALL | ffi::Py_TPFLAGS_METHOD_DESCRIPTOR;
        ffi::PyType_Modified(kind);
    }
}

unsafe extern "C" fn vectorcall(
    callable: *mut PyObject,
    args: *const *mut PyObject,
    nargsf: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the interpreter calls this, so the thread is attached to it until this returns.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the interpreter lends `callable`, which is of the type that has this pointer.
    let function = unsafe { Borrowed::from_ptr(py, callable).cast_unchecked::<CachedFunction>() };
    if let Some(coroutine) = function.get().coroutine_for(names.is_null()) {
        // SAFETY: the arguments as they were lent, in the same shape, for the time of this call; what
        // is called lives as long as `callable`, which is lent too.
        return unsafe { ffi::PyObject_Vectorcall(coroutine.as_ptr(), args, nargsf, names) };
    }
    // SAFETY: the interpreter lends `names`, which is null or a tuple.
    let names = unsafe {
        Borrowed::from_ptr_or_opt(py, names).map(|names| names.cast_unchecked::<PyTuple>())
    };
    // SAFETY: a mask.
    let positional = unsafe { ffi::PyVectorcall_NARGS(nargsf) }.cast_unsigned();
    let count = positional + names.map_or(0, |names| names.len());
    let args: &[Bound<'_, PyAny>] = if count == 0 {
        &[]
    } else {
        // SAFETY: at `args` lie so many objects, lent until this returns. `Bound` is a transparent
        // pointer to an object; as none of these is dropped here, none is released.
        unsafe { std::slice::from_raw_parts(args.cast(), count) }
    };
    let called = catch_unwind(AssertUnwindSafe(|| {
        let (positional, by_name) = args.split_at(positional);
        if by_name.is_empty()
            && let Some(value) = function.get().recall_at_once(py, positional)
        {
            return Ok(value.into_ptr());
        }
        let kwargs = names.map(|names| pair(names, by_name)).transpose()?;
        let args = PyTuple::new(py, positional)?;
        let dict = kwargs.as_ref().map_or(std::ptr::null_mut(), Bound::as_ptr);
        // SAFETY: every callable type has this slot, which takes a callable of its type, a tuple,
        // and a dict or null, all of which live until it returns.
        Ok(
            unsafe { (*ffi::Py_TYPE(callable)).tp_call }.map_or(std::ptr::null_mut(), |call| {
                // SAFETY: as above.
                unsafe { call(callable, args.as_ptr(), dict) }
            }),
        )
    }));
    let error = match called {
        Ok(Ok(result)) => return result,
        Ok(Err(error)) => error,
        Err(_) => PyRuntimeError::new_err("a bug in cachetronomy: the call panicked"),
    };
    error.restore(py);
    std::ptr::null_mut()
}

/// The named arguments of a call.
fn pair<'py>(
    names: Borrowed<'_, 'py, PyTuple>,
    values: &[Bound<'py, PyAny>],
) -> PyResult<Bound<'py, PyDict>> {
    let kwargs = PyDict::new(names.py());
    for (name, value) in names.iter_borrowed().zip(values) {
        kwargs.set_item(name, value)?;
    }
    Ok(kwargs)
}
