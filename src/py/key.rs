//! The default key of a call: `module.qualname(argument=value, ...)`.
//!
//! Two different calls never share a key: every value is written so that its type shows, and
//! text is quoted.

mod kinds;
mod writer;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use self::writer::Writer;
use super::signature::{Given, Signature};

/// Longer keys keep a readable head and end in a hash.
const MAX_KEY_BYTES: usize = 512;

/// The part of it that the name of the function may take up.
const MAX_NAME_BYTES: usize = 400;

/// The part of that for what a closure took along.
const MAX_TAKEN_BYTES: usize = 128;

/// The key of a call; `None` if the arguments do not fit the signature.
pub(super) fn build<'py>(
    name: &str,
    signature: &Signature,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Option<String>> {
    let Some(bound) = signature.bind(args, kwargs)? else {
        return Ok(None);
    };
    let mut key = String::with_capacity(name.len() + 16 * bound.len() + 2);
    key.push_str(name);
    key.push('(');
    for (index, (argument, given)) in bound.into_iter().enumerate() {
        if index > 0 {
            key.push_str(", ");
        }
        key.push_str(argument);
        key.push('=');
        let mut writer = Writer::new(argument, &mut key);
        match given {
            Given::One(value) => writer.write(&value, 0)?,
            Given::Rest(rest) => writer.write(rest.as_any(), 0)?,
            Given::Named(named) => writer.write_named(&named)?,
        }
    }
    key.push(')');
    shorten_to(args.py(), key, MAX_KEY_BYTES).map(Some)
}

/// The value as a key shows it.
#[pyfunction]
#[pyo3(name = "_key_text")]
pub(crate) fn key_text(value: &Bound<'_, PyAny>) -> PyResult<String> {
    text_of("value", value)
}

/// One value as a key shows it; `argument` names it where that cannot be.
pub(super) fn text_of(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    let mut text = String::new();
    Writer::new(argument, &mut text).write(value, 0)?;
    Ok(text)
}

/// 128 bits, in hexadecimal. Not one of our fast hashes: whoever chooses arguments must not be
/// able to choose a collision with somebody else's key.
fn digest(py: Python<'_>, bytes: &[u8]) -> PyResult<String> {
    let options = PyDict::new(py);
    options.set_item("digest_size", 16)?;
    py.import("hashlib")?
        .call_method("blake2b", (PyBytes::new(py, bytes),), Some(&options))?
        .call_method0("hexdigest")?
        .extract()
}

/// The name of a function, short enough to stand whole in front of any key.
pub(super) fn shorten_name(py: Python<'_>, name: String) -> PyResult<String> {
    shorten_to(py, name, MAX_NAME_BYTES)
}

/// What a closure took along, short enough to leave room for the function's own name.
pub(super) fn shorten_taken(py: Python<'_>, taken: String) -> PyResult<String> {
    shorten_to(py, taken, MAX_TAKEN_BYTES)
}

/// A text of any length as one of at most `limit` bytes.
fn shorten_to(py: Python<'_>, text: String, limit: usize) -> PyResult<String> {
    if text.len() <= limit {
        return Ok(text);
    }
    let digest = digest(py, text.as_bytes())?;
    let mut end = limit - digest.len() - 1;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Ok(format!("{}#{digest}", &text[..end]))
}
