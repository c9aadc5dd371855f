//! Has the interpreter call decorated functions, and `AsyncCachetronaut.get`, as it calls its own:
//! with the arguments where they lie, without a tuple around them, and without a bound method for
//! `obj.method(...)`.
#![expect(
    unsafe_code,
    reason = "PyO3 has no vectorcall and no way to set flags of a type"
)]

use std::ffi::c_ulong;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::PyClass;
use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi::{self, PyObject};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

use super::awaitable::{Callee, Coroutine};
use super::decorator::CachedFunction;
use super::recall::Get;

/// What the interpreter finds in each object of such a type, and calls.
pub(super) struct FastCall(#[expect(dead_code, reason = "read by C")] ffi::vectorcallfunc);

/// A type whose objects are called so. Nothing may inherit from it, and what its `__get__` returns
/// for an object has to call it with that object in front, and do nothing else.
pub(super) trait FastCalled:
    PyClass<Frozen = pyo3::pyclass::boolean_struct::True> + Sync
{
    /// What the interpreter is to call.
    const FAST_CALL: FastCall;

    /// Where that lies.
    fn fast_call(&self) -> &FastCall;

    /// Whether the interpreter was told.
    fn enabled() -> &'static PyOnceLock<()>;
}

impl FastCalled for CachedFunction {
    const FAST_CALL: FastCall = FastCall(call_function);

    fn fast_call(&self) -> &FastCall {
        &self.fast_call
    }

    fn enabled() -> &'static PyOnceLock<()> {
        static ENABLED: PyOnceLock<()> = PyOnceLock::new();
        &ENABLED
    }
}

impl FastCalled for Get {
    const FAST_CALL: FastCall = FastCall(call_get);

    fn fast_call(&self) -> &FastCall {
        &self.fast_call
    }

    fn enabled() -> &'static PyOnceLock<()> {
        static ENABLED: PyOnceLock<()> = PyOnceLock::new();
        &ENABLED
    }
}

/// Tells the interpreter of all this, once there is an object of the type: only then is it known
/// where in it the pointer lies. Only where the interpreter has its lock.
pub(super) fn enable<T: FastCalled>(object: &Bound<'_, T>) -> PyResult<()> {
    let py = object.py();
    T::enabled()
        .get_or_try_init(py, || {
            let question = py.import("sys")?.getattr_opt("_is_gil_enabled")?;
            if question.map_or(Ok(true), |question| question.call0()?.extract::<bool>())? {
                mark(object);
            }
            Ok(())
        })
        .copied()
}

fn mark<T: FastCalled>(object: &Bound<'_, T>) {
    let field = std::ptr::from_ref(object.get().fast_call()).addr();
    let offset = (field - object.as_ptr().addr()).cast_signed();
    let kind = object.as_any().get_type().as_type_ptr();
    // SAFETY: `kind` is a complete type that outlives its instance, and nothing inherits from it.
    // Its fields are read and written under the interpreter's lock alone, which `object` shows is
    // held; where the field of the flags is an atomic it has the size and alignment of the plain
    // one. At `offset` each instance has the address of a function for this type from its making
    // on, because all instances have one layout. The type keeps the promise of the second flag (see
    // `FastCalled`). What was cached of the type is forgotten.
    unsafe {
        (*kind).tp_vectorcall_offset = offset;
        let flags = (&raw mut (*kind).tp_flags).cast::<c_ulong>();
        *flags |= ffi::Py_TPFLAGS_HAVE_VECTORCALL | ffi::Py_TPFLAGS_METHOD_DESCRIPTOR;
        ffi::PyType_Modified(kind);
    }
}

/// A call of `AsyncCachetronaut.get`.
unsafe extern "C" fn call_get(
    callable: *mut PyObject,
    args: *const *mut PyObject,
    nargsf: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the interpreter calls this, so the thread is attached to it until this returns.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the interpreter lends `callable`, which is of the type that has this pointer.
    let get = unsafe { Borrowed::from_ptr(py, callable).cast_unchecked::<Get>() };
    // SAFETY: a mask.
    let positional = unsafe { ffi::PyVectorcall_NARGS(nargsf) };
    if positional != 2 || !names.is_null() {
        let function = get.get().function.as_ptr();
        // SAFETY: the arguments as they were lent, in the same shape, for the time of this call;
        // what is called lives as long as `callable`, which is lent too.
        return unsafe { ffi::PyObject_Vectorcall(function, args, nargsf, names) };
    }
    // SAFETY: at `args` lie two objects, lent until this returns. `Bound` is a transparent pointer to
    // an object; as none of these is dropped here, none is released.
    let args: &[Bound<'_, PyAny>] = unsafe { std::slice::from_raw_parts(args.cast(), 2) };
    ending(py, || {
        let args = PyTuple::new(py, args)?;
        Coroutine::of(Callee::Get(get.to_owned().unbind()), args).map(Bound::into_ptr)
    })
}

/// The end of a call: what `work` made or, with an exception set, null.
fn ending(py: Python<'_>, work: impl FnOnce() -> PyResult<*mut PyObject>) -> *mut PyObject {
    let error = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(result)) => return result,
        Ok(Err(error)) => error,
        Err(_) => PyRuntimeError::new_err("a bug in cachetronomy: the call panicked"),
    };
    error.restore(py);
    std::ptr::null_mut()
}

/// A call of a decorated function.
unsafe extern "C" fn call_function(
    callable: *mut PyObject,
    args: *const *mut PyObject,
    nargsf: usize,
    names: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: the interpreter calls this, so the thread is attached to it until this returns.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the interpreter lends `callable`, which is of the type that has this pointer.
    let function = unsafe { Borrowed::from_ptr(py, callable).cast_unchecked::<CachedFunction>() };
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
    ending(py, || {
        let (positional, by_name) = args.split_at(positional);
        if by_name.is_empty() && function.get().is_coroutine() {
            let callee = Callee::Function(function.to_owned().unbind());
            return Coroutine::of(callee, PyTuple::new(py, positional)?).map(Bound::into_ptr);
        }
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
    })
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
