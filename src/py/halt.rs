//! Daemon threads that the interpreter takes down when the program ends, while they are inside of
//! the program's own code.
//!
//! Up to Python 3.13 a thread that asks for the interpreter when it ends is unwound by force, which
//! Rust's frames cannot stand: it stops here instead, until the process has gone. PyO3 declares the
//! interpreter's functions as ones that never unwind, so that nothing would be cleaned up after
//! them; here they are called as what they are.
#![expect(
    unsafe_code,
    reason = "PyO3 declares the interpreter's functions as ones that never unwind"
)]

use std::hint::black_box;

use pyo3::IntoPyObjectExt;
use pyo3::ffi::{PyIter_Send, PyObject, PyObject_Call, PyObject_Repr, PySendResult};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::awaitable::Step;

type Call =
    unsafe extern "C-unwind" fn(*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject;
type Repr = unsafe extern "C-unwind" fn(*mut PyObject) -> *mut PyObject;
type Send =
    unsafe extern "C-unwind" fn(*mut PyObject, *mut PyObject, *mut *mut PyObject) -> PySendResult;

/// Parks the thread when it is unwound by no panic.
struct Halt;

impl Drop for Halt {
    fn drop(&mut self) {
        while !std::thread::panicking() {
            std::thread::park();
        }
    }
}

/// Does what may call the program's code at many places. It cannot stop where such a call is made
/// by a frame of PyO3 that has something to clean up: [`call`] is better where there is one call.
pub(super) fn within<T>(work: impl FnOnce() -> T) -> T {
    let halt = Halt;
    let result = work();
    std::mem::forget(halt);
    result
}

/// Calls code of the program.
pub(super) fn call<'py, A>(
    callable: &Bound<'py, PyAny>,
    args: A,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>>
where
    A: IntoPyObject<'py, Target = PyTuple>,
{
    let py = callable.py();
    let args = args.into_bound_py_any(py)?;
    let kwargs = kwargs.map_or(std::ptr::null_mut(), Bound::as_ptr);
    let halt = Halt;
    // SAFETY: the same function, which may unwind. The optimizer is not to know it again.
    let call =
        black_box(unsafe { std::mem::transmute::<*const (), Call>(PyObject_Call as *const ()) });
    // SAFETY: the thread is attached; a callable or not, a tuple, and a dict or null, all of which
    // live until it returns. It returns a new reference or, with an exception set, null.
    let result = unsafe {
        let result = call(callable.as_ptr(), args.as_ptr(), kwargs);
        Bound::from_owned_ptr_or_err(py, result)
    };
    std::mem::forget(halt);
    result
}

/// Calls a method of an object of the program.
pub(super) fn call_method<'py, A>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    args: A,
) -> PyResult<Bound<'py, PyAny>>
where
    A: IntoPyObject<'py, Target = PyTuple>,
{
    call(&object.getattr(name)?, args, None)
}

/// The `repr()` of an object of the program.
pub(super) fn repr<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyString>> {
    let halt = Halt;
    // SAFETY: as for `call`.
    let repr =
        black_box(unsafe { std::mem::transmute::<*const (), Repr>(PyObject_Repr as *const ()) });
    // SAFETY: the thread is attached, and the object lives until it returns. It returns a new
    // reference to a string or, with an exception set, null.
    let result = unsafe {
        let result = repr(object.as_ptr());
        Bound::from_owned_ptr_or_err(object.py(), result).map(|text| text.cast_into_unchecked())
    };
    std::mem::forget(halt);
    result
}

/// Goes on with a coroutine of the program.
pub(super) fn send<'py>(
    coroutine: &Bound<'py, PyAny>,
    sent: &Bound<'py, PyAny>,
) -> PyResult<Step<'py>> {
    let py = sent.py();
    let mut result = std::ptr::null_mut();
    let halt = Halt;
    // SAFETY: as for `call`.
    let go_on =
        black_box(unsafe { std::mem::transmute::<*const (), Send>(PyIter_Send as *const ()) });
    // SAFETY: the thread is attached, and both objects live until it returns. It stores a new
    // reference or, with an exception set, null.
    let (outcome, result) = unsafe {
        let outcome = go_on(coroutine.as_ptr(), sent.as_ptr(), &raw mut result);
        (outcome, Bound::from_owned_ptr_or_err(py, result))
    };
    std::mem::forget(halt);
    Ok(match outcome {
        PySendResult::PYGEN_NEXT => Step::Waits(result?),
        PySendResult::PYGEN_RETURN | PySendResult::PYGEN_ERROR => Step::Returns(result?),
    })
}
