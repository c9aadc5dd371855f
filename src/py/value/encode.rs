//! From a Python object to the bytes of the plainest format that carries it exactly.

use pyo3::PyTypeCheck;
use pyo3::exceptions::PyUnicodeEncodeError;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::super::halt;
use super::classes::{self, Dataclass, Kind, Outer, Plan};
use super::formats::{self, Label, Prefer};
use super::walk::{Failure, Stop, Walk, refusal, shown};
use super::{models, typed, types};
use crate::codec::{self, Depth, ExtCode, Format, Marker};

/// Writes `value` in `prefer` if that format carries it exactly, else in the first of JSON,
/// `MessagePack` and our own format that does.
pub(crate) fn encode(
    value: &Bound<'_, PyAny>,
    prefer: Option<&Prefer>,
) -> PyResult<(Vec<u8>, Label)> {
    let mut format = match prefer {
        None => Format::Json,
        Some(Prefer::BuiltIn(format)) => *format,
        Some(Prefer::Custom(name)) => match formats::dump(name, value)? {
            Some(bytes) => return Ok((bytes, Label::Custom(name.clone()))),
            None => Format::Json,
        },
    };
    loop {
        match halt::within(|| write(value, format, Around::default())) {
            Ok(bytes) => return Ok((bytes, Label::BuiltIn(format))),
            // Always a larger format than the one before, so this comes to an end.
            Err(Failure {
                stop: Stop::Needs(larger),
                ..
            }) => format = larger,
            Err(failure) => return Err(failure.into_error(value.py())),
        }
    }
}

/// Writes `value`, or a part of it, in this format and no other.
pub(super) fn write(
    value: &Bound<'_, PyAny>,
    format: Format,
    around: Around<'_, '_>,
) -> Result<Vec<u8>, Failure> {
    let walk = Walk::new(format);
    let node = Node {
        value,
        walk: &walk,
        around,
    };
    codec::encode(&node, format).map_err(|error| walk.into_failure(&error))
}

/// What is around a node.
#[derive(Clone, Copy, Default)]
pub(super) struct Around<'a, 'py> {
    pub(super) depth: Depth,
    /// The outermost dataclass instance.
    pub(super) outer: Option<&'a Outer<'py>>,
    /// A key, or a set: what is read back has to be hashable, which no map is.
    pub(super) hashed: bool,
}

/// One object on the walk.
struct Node<'a, 'py> {
    value: &'a Bound<'py, PyAny>,
    walk: &'a Walk,
    around: Around<'a, 'py>,
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
            around: Around {
                depth,
                ..self.around
            },
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
        let depth = self.walk.deeper(self.around.depth)?;
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
        let depth = self.walk.deeper(self.around.depth)?;
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
        let mut node = self.child(key, depth);
        node.around.hashed = true;
        match self.walk.format {
            Format::Json | Format::Orjson if key.is_exact_instance_of::<PyBytes>() => {
                Err(self.walk.stop(Stop::Needs(Format::MsgPack)))
            }
            Format::MsgPack if key.is_exact_instance_of::<PyBytes>() => map.serialize_key(&node),
            Format::Cachetronomy => map.serialize_key(&node),
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
        let class = self.value.get_type();
        if let Some(plan) = classes::known(&class) {
            return self.instance(&plan, serializer);
        }
        match types::classify(self.value) {
            Ok(Some(code)) => return self.parts(code, serializer),
            Ok(None) => {}
            Err(error) => return Err(self.walk.stop(error.into())),
        }
        match classes::plan(&class) {
            Ok(Some(plan)) => self.instance(&plan, serializer),
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
        let depth = self.walk.deeper(self.around.depth)?;
        let parts = match typed::take_apart(self.value, code) {
            Ok(parts) => parts,
            Err(stop) => return Err(self.walk.stop(stop)),
        };
        let mut seq = serializer.serialize_seq(Some(parts.len() + 1))?;
        seq.serialize_element(&Marker(code))?;
        for (index, part) in parts.iter().enumerate() {
            let mut node = self.child(part, depth);
            node.around.hashed |= matches!(code, ExtCode::Set | ExtCode::FrozenSet);
            if let Err(error) = seq.serialize_element(&node) {
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

    /// Writes an instance of a class with fields.
    #[inline(never)]
    fn instance<S: Serializer>(&self, plan: &Plan, serializer: S) -> Result<S::Ok, S::Error> {
        if self.around.hashed {
            return Err(self.walk.refuse(
                "has fields, and the map of them is no key and no member of a set; use a tuple",
            ));
        }
        // Its class is not written down, so the dataclass around it has to name it.
        if let Some(Err(failure)) = self.around.outer.map(Outer::prove) {
            return Err(self.walk.fail(failure));
        }
        match &plan.kind {
            Kind::Dataclass(dataclass) => self.fields(dataclass, serializer),
            Kind::Model => {
                match models::plain_form(self.value, self.walk.format, self.around.depth) {
                    Ok(dumped) => self.child(&dumped, self.around.depth).serialize(serializer),
                    Err(failure) => Err(self.walk.fail(failure)),
                }
            }
        }
    }

    /// Writes a dataclass instance as a map.
    fn fields<S: Serializer>(
        &self,
        dataclass: &Dataclass,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let depth = self.walk.deeper(self.around.depth)?;
        let itself = Outer::new(self.value);
        if self.around.outer.is_none()
            && let Err(failure) = dataclass.prove(&itself)
        {
            return Err(self.walk.fail(failure));
        }
        let mut map = serializer.serialize_map(Some(dataclass.names.len()))?;
        for name in &dataclass.names {
            let name = name.bind(self.value.py());
            let written = match self.value.getattr(name) {
                Ok(value) => {
                    let mut node = self.child(&value, depth);
                    node.around.outer = self.around.outer.or(Some(&itself));
                    map.serialize_entry(&*name.to_string_lossy(), &node)
                }
                Err(error) => Err(self.walk.stop(error.into())),
            };
            if let Err(error) = written {
                self.walk.note(|| format!(".{name}"));
                return Err(error);
            }
        }
        map.end()
    }
}

/// Whether our own format may carry a key that the plain ones do not.
fn classify_key(key: &Bound<'_, PyAny>) -> Result<(), Stop> {
    let scalar = key.is_none()
        || key.is_exact_instance_of::<PyString>()
        || key.is_exact_instance_of::<PyInt>()
        || key.is_exact_instance_of::<PyFloat>()
        || key.is_exact_instance_of::<PyBool>();
    // An instance with fields goes on, to be refused there for what it is.
    if scalar || types::classify(key)?.is_some() || classes::plan(&key.get_type())?.is_some() {
        Ok(())
    } else {
        Err(refusal(key))
    }
}
