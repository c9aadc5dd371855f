//! From a Python object to the bytes of the plainest format that carries it exactly.

use std::cell::{Cell, RefCell};

use pyo3::PyTypeCheck;
use pyo3::exceptions::PyUnicodeEncodeError;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::super::error::SerializationError;
use super::{is_about_value, typed, types};
use crate::codec::{self, Depth, ExtCode, Format, MAX_DEPTH, Marker};

/// Longer ways to the refused part are cut off after this many steps.
const SHOWN_STEPS: usize = 8;
/// Longer keys are cut off after this many characters, in messages only.
const SHOWN_KEY_CHARS: usize = 60;

/// Why a walk ended early.
pub(super) enum Stop {
    /// The value fits into this larger format.
    Needs(Format),
    /// No format carries the value; the text goes after the place.
    Refused(String),
    /// Python raised.
    Raised(PyErr),
}

impl From<PyErr> for Stop {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

/// Writes `value` in `prefer` if that format carries it exactly, else in the first of JSON,
/// `MessagePack` and our own format that does.
pub(crate) fn encode(
    value: &Bound<'_, PyAny>,
    prefer: Option<Format>,
) -> PyResult<(Vec<u8>, Format)> {
    let mut format = prefer.unwrap_or(Format::Json);
    loop {
        let walk = Walk {
            format,
            stop: Cell::new(None),
            way: RefCell::default(),
        };
        let node = Node {
            value,
            walk: &walk,
            depth: Depth::default(),
        };
        let failure = match codec::encode(&node, format) {
            Ok(bytes) => return Ok((bytes, format)),
            Err(error) => walk
                .stop
                .take()
                .unwrap_or_else(|| Stop::Refused(format!("is {error}"))),
        };
        match failure {
            // Always a larger format than the one before, so this comes to an end.
            Stop::Needs(larger) => format = larger,
            failure => return Err(walk.into_error(value.py(), failure)),
        }
    }
}

/// What the nodes of one walk share.
struct Walk {
    format: Format,
    /// Serde errors carry only text, so the reason waits here.
    stop: Cell<Option<Stop>>,
    /// The steps from the value to the refused part, innermost first. Filled after a refusal.
    way: RefCell<Vec<String>>,
}

impl Walk {
    #[cold]
    fn stop<E: serde::ser::Error>(&self, stop: Stop) -> E {
        self.stop.set(Some(stop));
        E::custom("stopped")
    }

    #[cold]
    fn refuse<E: serde::ser::Error>(&self, reason: &str) -> E {
        self.stop(Stop::Refused(reason.to_owned()))
    }

    fn deeper<E: serde::ser::Error>(&self, depth: Depth) -> Result<Depth, E> {
        depth.deeper().map_err(|_| {
            self.refuse(&format!(
                "is nested deeper than {MAX_DEPTH} containers, or contains itself; flatten it or \
                 break the cycle"
            ))
        })
    }

    fn changed<E: serde::ser::Error>(&self) -> E {
        self.refuse("was changed while it was being stored; store a copy, or lock it meanwhile")
    }

    /// Notes one step of the way, when the walk ended for a reason that names a place.
    #[cold]
    fn note(&self, step: impl FnOnce() -> String) {
        let reason = self.stop.take();
        if !matches!(reason, Some(Stop::Needs(_)) | None) {
            self.way.borrow_mut().push(step());
        }
        self.stop.set(reason);
    }

    fn into_error(self, py: Python<'_>, failure: Stop) -> PyErr {
        let way = self.way.into_inner();
        let mut place = String::from("value");
        place.extend(way.iter().rev().take(SHOWN_STEPS).map(String::as_str));
        if way.len() > SHOWN_STEPS {
            place.push_str("...");
        }
        match failure {
            Stop::Raised(cause) if is_about_value(&cause, py) => {
                let message = format!("{place} cannot be stored: {cause}");
                let error = SerializationError::new_err(message);
                error.set_cause(py, Some(cause));
                error
            }
            Stop::Raised(error) => error,
            Stop::Refused(reason) => SerializationError::new_err(format!("{place} {reason}")),
            Stop::Needs(format) => {
                SerializationError::new_err(format!("{place} needs {}", format.as_str()))
            }
        }
    }
}

/// One object on the walk.
struct Node<'a, 'py> {
    value: &'a Bound<'py, PyAny>,
    walk: &'a Walk,
    depth: Depth,
}

/// `value` as a `T`, if that is its exact class.
fn exact<'a, 'py, T: PyTypeCheck + pyo3::PyTypeInfo>(
    value: &'a Bound<'py, PyAny>,
) -> Option<&'a Bound<'py, T>> {
    // The error of a failed cast holds references; asking first keeps a miss to one comparison.
    if value.is_exact_instance_of::<T>() {
        value.cast_exact().ok()
    } else {
        None
    }
}

impl Serialize for Node<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The most common first.
        if let Some(text) = exact::<PyString>(self.value) {
            self.text(text, serializer)
        } else if let Some(int) = exact::<PyInt>(self.value) {
            self.int(int, serializer)
        } else if let Some(dict) = exact::<PyDict>(self.value) {
            self.dict(dict, serializer)
        } else if let Some(list) = exact::<PyList>(self.value) {
            self.list(list, serializer)
        } else if let Some(float) = exact::<PyFloat>(self.value) {
            let float = float.value();
            if !float.is_finite() && self.walk.format.is_json() {
                return Err(self.walk.stop(Stop::Needs(Format::MsgPack)));
            }
            serializer.serialize_f64(float)
        } else if let Some(flag) = exact::<PyBool>(self.value) {
            serializer.serialize_bool(flag.is_true())
        } else if self.value.is_none() {
            serializer.serialize_unit()
        } else if let Some(bytes) = exact::<PyBytes>(self.value) {
            if self.walk.format.is_json() {
                return Err(self.walk.stop(Stop::Needs(Format::MsgPack)));
            }
            serializer.serialize_bytes(bytes.as_bytes())
        } else {
            self.typed(serializer)
        }
    }
}

impl<'py> Node<'_, 'py> {
    fn child<'b>(&'b self, value: &'b Bound<'py, PyAny>, depth: Depth) -> Node<'b, 'py> {
        Node {
            value,
            walk: self.walk,
            depth,
        }
    }

    fn text<S: Serializer>(
        &self,
        text: &Bound<'py, PyString>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match text.to_str() {
            Ok(text) => serializer.serialize_str(text),
            Err(error) if error.is_instance_of::<PyUnicodeEncodeError>(self.value.py()) => {
                self.parts(ExtCode::SurrogateStr, serializer)
            }
            Err(error) => Err(self.walk.stop(error.into())),
        }
    }

    fn int<S: Serializer>(
        &self,
        int: &Bound<'py, PyInt>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        if let Ok(small) = int.extract::<i64>() {
            serializer.serialize_i64(small)
        } else if let Ok(large) = int.extract::<u64>() {
            serializer.serialize_u64(large)
        } else {
            self.parts(ExtCode::BigInt, serializer)
        }
    }

    fn list<S: Serializer>(
        &self,
        list: &Bound<'py, PyList>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let depth = self.walk.deeper(self.depth)?;
        let length = list.len();
        let mut seq = serializer.serialize_seq(Some(length))?;
        let mut items = list.iter();
        for index in 0..length {
            let Some(item) = items.next() else {
                return Err(self.walk.changed());
            };
            if let Err(error) = seq.serialize_element(&self.child(&item, depth)) {
                self.walk.note(|| format!("[{index}]"));
                return Err(error);
            }
        }
        seq.end()
    }

    fn dict<S: Serializer>(
        &self,
        dict: &Bound<'py, PyDict>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let depth = self.walk.deeper(self.depth)?;
        let length = dict.len();
        let mut map = serializer.serialize_map(Some(length))?;
        let mut entries = dict.iter();
        for _ in 0..length {
            // The iterator panics when the size has changed, so that is looked at first, under
            // the same lock where there is one.
            let next = with_critical_section(dict, || {
                if dict.len() == length {
                    entries.next()
                } else {
                    None
                }
            });
            let Some((key, value)) = next else {
                return Err(self.walk.changed());
            };
            if let Err(error) = self.key(&key, depth, &mut map) {
                self.walk.note(|| " (a key)".to_owned());
                return Err(error);
            }
            if let Err(error) = map.serialize_value(&self.child(&value, depth)) {
                self.walk.note(|| format!("[{}]", shown(&key)));
                return Err(error);
            }
        }
        map.end()
    }

    fn key<M: SerializeMap>(
        &self,
        key: &Bound<'py, PyAny>,
        depth: Depth,
        map: &mut M,
    ) -> Result<(), M::Error> {
        if let Some(Ok(text)) = exact::<PyString>(key).map(|text| text.to_str()) {
            return map.serialize_key(text);
        }
        match self.walk.format {
            Format::Json | Format::Orjson if key.is_exact_instance_of::<PyBytes>() => {
                Err(self.walk.stop(Stop::Needs(Format::MsgPack)))
            }
            Format::MsgPack if key.is_exact_instance_of::<PyBytes>() => {
                map.serialize_key(&self.child(key, depth))
            }
            Format::Cachetronomy => map.serialize_key(&self.child(key, depth)),
            // The reason is that of the key itself, or else that it is no text.
            Format::Json | Format::Orjson | Format::MsgPack => {
                Err(self.walk.stop(match classify_key(key) {
                    Ok(()) => Stop::Needs(Format::Cachetronomy),
                    Err(stop) => stop,
                }))
            }
        }
    }

    #[inline(never)]
    fn typed<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match types::classify(self.value) {
            Ok(Some(code)) => self.parts(code, serializer),
            Ok(None) => Err(self.walk.stop(refusal(self.value))),
            Err(error) => Err(self.walk.stop(error.into())),
        }
    }

    /// Writes a typed array.
    #[inline(never)]
    fn parts<S: Serializer>(&self, code: ExtCode, serializer: S) -> Result<S::Ok, S::Error> {
        if self.walk.format != Format::Cachetronomy {
            return Err(self.walk.stop(Stop::Needs(Format::Cachetronomy)));
        }
        let depth = self.walk.deeper(self.depth)?;
        let parts = match typed::take_apart(self.value, code) {
            Ok(parts) => parts,
            Err(stop) => return Err(self.walk.stop(stop)),
        };
        let mut seq = serializer.serialize_seq(Some(parts.len() + 1))?;
        seq.serialize_element(&Marker(code))?;
        for (index, part) in parts.iter().enumerate() {
            if let Err(error) = seq.serialize_element(&self.child(part, depth)) {
                self.walk.note(|| match code {
                    ExtCode::Tuple => format!("[{index}]"),
                    ExtCode::Set | ExtCode::FrozenSet => " (a member)".to_owned(),
                    _ => format!(" (a part of a {code:?})"),
                });
                return Err(error);
            }
        }
        seq.end()
    }
}

/// Whether our own format may carry a key that the plain ones do not.
fn classify_key(key: &Bound<'_, PyAny>) -> Result<(), Stop> {
    let scalar = key.is_none()
        || key.is_exact_instance_of::<PyString>()
        || key.is_exact_instance_of::<PyInt>()
        || key.is_exact_instance_of::<PyFloat>()
        || key.is_exact_instance_of::<PyBool>();
    if scalar || types::classify(key)?.is_some() {
        Ok(())
    } else {
        Err(refusal(key))
    }
}

/// What to say of a class that is not carried.
#[cold]
fn refusal(value: &Bound<'_, PyAny>) -> Stop {
    let describe = || -> PyResult<String> {
        let class = value.get_type().fully_qualified_name()?;
        let advice = match types::carried_base(value)? {
            Some(base) => format!("convert it to a plain {base} first"),
            None => "convert it to a plain value (dict, list, str, int, ...) first".to_owned(),
        };
        Ok(format!(
            "is of type {class}, which cannot be stored exactly; {advice}"
        ))
    };
    describe().map_or_else(Stop::Raised, Stop::Refused)
}

/// A key as it stands in a message. All keys that get here are of classes we carry.
fn shown(key: &Bound<'_, PyAny>) -> String {
    let Ok(text) = key.repr() else {
        return "?".to_owned();
    };
    let text = text.to_string_lossy();
    match text.char_indices().nth(SHOWN_KEY_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into_owned(),
    }
}
