//! From the bytes of the store to a Python object. The bytes may be anything.

use std::cell::Cell;
use std::fmt;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString};
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as DeError, MapAccess, SeqAccess, Visitor};

use super::super::error::CorruptEntryError;
use super::super::halt;
use super::typed::{self, MAX_PARTS};
use super::{formats, is_about_value};
use crate::codec::{self, CodecError, Depth, ExtCode, Format};

/// No more items than this are made room for before they were seen: lengths in the file are
/// claims.
const MAX_RESERVED: usize = 1024;

/// Foreign JSON may nest deeper than ours; this deep Python's reader goes on every stack.
const FOREIGN_DEPTH: usize = 1000;

/// From here on a JSON number may be an integer that the reader rounded to a float: 2 ** 63.
const FIRST_UNSURE_FLOAT: f64 = 9_223_372_036_854_775_808.0;

/// Reads the value in `data`, which is in the format with the stored name `fmt`.
pub(crate) fn decode<'py>(py: Python<'py>, data: &[u8], fmt: &str) -> PyResult<Bound<'py, PyAny>> {
    let Some(format) = Format::parse(fmt) else {
        return read_added(py, data, fmt);
    };
    let read = Read {
        py,
        data,
        format,
        raised: Cell::new(None),
    };
    let walker = Walker {
        read: &read,
        depth: Depth::default(),
        slot: None,
    };
    match halt::within(|| codec::decode(data, format, walker)) {
        Ok(value) => Ok(value),
        Err(error) => match read.raised.take() {
            Some(cause) if is_about_value(&cause, py) => {
                Err(corrupt(py, fmt, &cause.to_string(), Some(cause)))
            }
            Some(process_error) => Err(process_error),
            None if format.is_json() => read_foreign_json(py, data, fmt),
            None => Err(corrupt(py, fmt, &error.to_string(), None)),
        },
    }
}

/// Reads a format that the program has added.
#[cold]
fn read_added<'py>(py: Python<'py>, data: &[u8], fmt: &str) -> PyResult<Bound<'py, PyAny>> {
    match formats::load(py, fmt, data) {
        Some(Err(cause)) if is_about_value(&cause, py) => {
            Err(corrupt(py, fmt, &cause.to_string(), Some(cause)))
        }
        Some(result) => result,
        None => {
            let reason =
                "no reader is known for this format; register it first, or delete the entry";
            Err(corrupt(py, fmt, reason, None))
        }
    }
}

#[cold]
fn corrupt(py: Python<'_>, fmt: &str, reason: &str, cause: Option<PyErr>) -> PyErr {
    let message = format!("cannot read an entry in the format {fmt:?}: {reason}");
    let error = CorruptEntryError::new_err(message);
    error.set_cause(py, cause);
    error
}

/// Reads what Python's own library writes and we do not: NaN, integers of any size, text with
/// lone surrogates, deeper nesting.
#[cold]
fn read_foreign_json<'py>(py: Python<'py>, data: &[u8], fmt: &str) -> PyResult<Bound<'py, PyAny>> {
    if json_depth(data) > FOREIGN_DEPTH {
        return Err(corrupt(py, fmt, &CodecError::TooDeep.to_string(), None));
    }
    let read = || {
        // Given bytes, the library would guess at UTF-16 and UTF-32 too.
        let text = PyBytes::new(py, data).call_method1(
            intern!(py, "decode"),
            (intern!(py, "utf-8"), intern!(py, "surrogatepass")),
        )?;
        py.import(intern!(py, "json"))?
            .call_method1(intern!(py, "loads"), (text,))
    };
    read().map_err(|error| {
        if is_about_value(&error, py) {
            corrupt(py, fmt, &error.to_string(), Some(error))
        } else {
            error
        }
    })
}

/// The deepest nesting of brackets outside of strings.
fn json_depth(data: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in data {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// What the walkers of one reading share.
struct Read<'a, 'py> {
    py: Python<'py>,
    data: &'a [u8],
    format: Format,
    /// Serde errors carry only text, so the exception waits here.
    raised: Cell<Option<PyErr>>,
}

impl Read<'_, '_> {
    #[cold]
    fn raise<E: DeError>(&self, error: PyErr) -> E {
        self.raised.set(Some(error));
        E::custom("an exception was raised")
    }
}

/// Reads one value.
#[derive(Clone, Copy)]
struct Walker<'a, 'py> {
    read: &'a Read<'a, 'py>,
    depth: Depth,
    /// Where a marker goes that is read instead of a value. Only the first element of an array
    /// in our own format has one.
    slot: Option<&'a Cell<Option<ExtCode>>>,
}

impl<'de, 'py> DeserializeSeed<'de> for Walker<'_, 'py> {
    type Value = Bound<'py, PyAny>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'py> Walker<'_, 'py> {
    fn inside<E: DeError>(self) -> Result<Self, E> {
        let depth = self.depth.deeper().map_err(E::custom)?;
        Ok(Self {
            depth,
            slot: None,
            ..self
        })
    }

    /// The rest of a typed array.
    #[inline(never)]
    fn typed<'de, A: SeqAccess<'de>>(
        self,
        code: ExtCode,
        mut seq: A,
    ) -> Result<Bound<'py, PyAny>, A::Error> {
        let mut parts = Vec::new();
        while let Some(part) = seq.next_element_seed(self)? {
            if parts.len() == MAX_PARTS && !typed::is_collection(code) {
                return Err(A::Error::custom(format_args!(
                    "a {code:?} with too many parts"
                )));
            }
            parts.push(part);
        }
        typed::build(self.read.py, code, parts).map_err(|error| self.read.raise(error))
    }
}

impl<'de, 'py> Visitor<'de> for Walker<'_, 'py> {
    type Value = Bound<'py, PyAny>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(self.read.py.None().into_bound(self.read.py))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(PyBool::new(self.read.py, value).to_owned().into_any())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(PyInt::new(self.read.py, value).into_any())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(PyInt::new(self.read.py, value).into_any())
    }

    fn visit_f64<E: DeError>(self, value: f64) -> Result<Self::Value, E> {
        // JSON's `-0` is an integer, but is read as the float; longer integers are rounded.
        let unsure =
            value.abs() >= FIRST_UNSURE_FLOAT || (value == 0.0 && value.is_sign_negative());
        if unsure && self.read.format.is_json() {
            return Err(E::custom("a number that may have been changed"));
        }
        Ok(PyFloat::new(self.read.py, value).into_any())
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(PyString::new(self.read.py, value).into_any())
    }

    fn visit_borrowed_bytes<E: DeError>(self, value: &'de [u8]) -> Result<Self::Value, E> {
        if codec::is_binary(self.read.data, value) {
            Ok(PyBytes::new(self.read.py, value).into_any())
        } else {
            Err(E::custom("text that is not valid UTF-8"))
        }
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        extension: D,
    ) -> Result<Self::Value, D::Error> {
        let code = codec::read_marker(extension)?;
        let Some(slot) = self.slot else {
            return Err(D::Error::custom(format_args!(
                "a marker of {code:?} out of place"
            )));
        };
        slot.set(Some(code));
        self.visit_unit()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let inside = self.inside()?;
        let py = self.read.py;
        let marker = Cell::new(None);
        let slot = (self.read.format == Format::Cachetronomy).then_some(&marker);
        let Some(first) = seq.next_element_seed(Walker { slot, ..inside })? else {
            return Ok(PyList::empty(py).into_any());
        };
        if let Some(code) = marker.get() {
            return inside.typed(code, seq);
        }
        let claimed = seq.size_hint().map_or(4, |left| left.min(MAX_RESERVED) + 1);
        let mut items = Vec::with_capacity(claimed);
        items.push(first);
        while let Some(item) = seq.next_element_seed(inside)? {
            items.push(item);
        }
        let list = PyList::new(py, items).map_err(|error| self.read.raise(error))?;
        Ok(list.into_any())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let inside = self.inside()?;
        let dict = PyDict::new(self.read.py);
        while let Some(key) = map.next_key_seed(inside)? {
            let value = map.next_value_seed(inside)?;
            dict.set_item(key, value)
                .map_err(|error| self.read.raise(error))?;
        }
        Ok(dict.into_any())
    }
}
