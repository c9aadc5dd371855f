//! Has the interpreter await our coroutines as it awaits its own: without an exception for what
//! they return.
#![expect(unsafe_code, reason = "PyO3 has no slot for it")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi::{self, PyObject, PySendResult};
use pyo3::prelude::*;
use pyo3::type_object::PyTypeInfo;

use super::awaitable::{Coroutine, Step};

/// Tells the interpreter, before there is any of them.
pub(super) fn enable(py: Python<'_>) {
    let kind = Coroutine::type_object(py).as_type_ptr();
    // SAFETY: `kind` is a complete type that has no instances yet and from which nothing inherits;
    // its table of slots is its own, as it is no static type, or null.
    unsafe {
        if let Some(slots) = (*kind).tp_as_async.as_mut() {
            slots.am_send = Some(send);
            ffi::PyType_Modified(kind);
        }
    }
}

unsafe extern "C" fn send(
    coroutine: *mut PyObject,
    sent: *mut PyObject,
    result: *mut *mut PyObject,
) -> PySendResult {
    // SAFETY: the interpreter calls this, so the thread is attached to it until this returns.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: the interpreter lends both, and `coroutine` is of the type that has this slot.
    let (coroutine, sent) = unsafe {
        let coroutine = Borrowed::from_ptr(py, coroutine).cast_unchecked::<Coroutine>();
        (coroutine, Borrowed::from_ptr(py, sent))
    };
    let (outcome, value) = match catch_unwind(AssertUnwindSafe(|| coroutine.get().step(&sent))) {
        Ok(Ok(Step::Returns(value))) => (PySendResult::PYGEN_RETURN, value.into_ptr()),
        Ok(Ok(Step::Waits(value))) => (PySendResult::PYGEN_NEXT, value.into_ptr()),
        Ok(Err(error)) => {
            error.restore(py);
            (PySendResult::PYGEN_ERROR, std::ptr::null_mut())
        }
        Err(_) => {
            PyRuntimeError::new_err("a bug in cachetronomy: the coroutine panicked").restore(py);
            (PySendResult::PYGEN_ERROR, std::ptr::null_mut())
        }
    };
    // SAFETY: the interpreter has made room for it.
    unsafe { *result = value };
    outcome
}
