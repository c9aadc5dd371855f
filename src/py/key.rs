//! The default key of a call: `module.qualname(argument=value, ...)`.
//!
//! Two different calls never share a key: every value is written so that its type shows, and
//! text is quoted.

use std::fmt::Write;

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple,
};

use super::signature::{Given, Signature};

/// Longer keys keep a readable head and end in a hash.
const MAX_KEY_BYTES: usize = 512;

/// Containers inside containers inside an argument.
const MAX_DEPTH: usize = 64;

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
        let mut writer = Writer {
            argument,
            out: &mut key,
        };
        match given {
            Given::One(value) => writer.write(&value, 0)?,
            Given::Rest(rest) => writer.write(rest.as_any(), 0)?,
            Given::Named(named) => writer.write_named(&named)?,
        }
    }
    key.push(')');
    shorten(args.py(), key).map(Some)
}

/// The module of a function, as a key names it. A script's is `__main__` in every program, so
/// that its file is named too: as in workers that import it under another name.
pub(super) fn module_of(function: &Bound<'_, PyAny>) -> PyResult<String> {
    let module: String = function.getattr("__module__")?.extract()?;
    if module != "__main__" && module != "__mp_main__" {
        return Ok(module);
    }
    let py = function.py();
    let main = py.import("sys")?.getattr("modules")?.get_item(&module)?;
    let attribute = |name: &str| Ok::<_, PyErr>(main.getattr_opt(name)?.filter(|it| !it.is_none()));
    if let Some(spec) = attribute("__spec__")? {
        return spec.getattr("name")?.extract();
    }
    match attribute("__file__")? {
        Some(file) => {
            let path = py.import("os.path")?.call_method1("realpath", (file,))?;
            Ok(format!("__main__[{path}]"))
        }
        None => Ok(module),
    }
}

/// What tells a lambda from others, as its name does not: its code.
pub(super) fn code_of(function: &Bound<'_, PyAny>) -> PyResult<String> {
    let py = function.py();
    let code = py
        .import("marshal")?
        .call_method1("dumps", (function.getattr("__code__")?,))?;
    Ok(format!(
        "#{}",
        digest(py, code.cast_into::<PyBytes>()?.as_bytes())?
    ))
}

/// One value as a key shows it, in brackets; `argument` names it where that cannot be.
pub(super) fn text_of(argument: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    let mut text = String::from("[");
    Writer {
        argument,
        out: &mut text,
    }
    .write(value, 0)?;
    text.push(']');
    Ok(text)
}

/// Writes the values of one argument.
struct Writer<'a> {
    argument: &'a str,
    out: &'a mut String,
}

impl Writer<'_> {
    fn write(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> PyResult<()> {
        if depth > MAX_DEPTH {
            return Err(self.refuse("is nested too deeply"));
        }
        if let Ok(list) = value.cast_exact::<PyList>() {
            return self.write_items("[", &list.iter().collect::<Vec<_>>(), "]", depth);
        }
        if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            return self.write_items("(", &tuple.iter().collect::<Vec<_>>(), ",)", depth);
        }
        if let Ok(dict) = value.cast_exact::<PyDict>() {
            let items: Vec<_> = dict.iter().collect();
            let texts = items.into_iter().map(|(key, value)| {
                Ok(format!(
                    "{}: {}",
                    self.text(&key, depth)?,
                    self.text(&value, depth)?
                ))
            });
            let texts = texts.collect::<PyResult<Vec<_>>>()?;
            self.write_sorted("{", texts, "}");
            return Ok(());
        }
        let members: Option<(&str, Vec<_>)> = if let Ok(set) = value.cast_exact::<PySet>() {
            Some(("set{", set.iter().collect()))
        } else if let Ok(set) = value.cast_exact::<PyFrozenSet>() {
            Some(("frozenset{", set.iter().collect()))
        } else {
            None
        };
        if let Some((open, members)) = members {
            let texts = members.iter().map(|member| self.text(member, depth));
            let texts = texts.collect::<PyResult<Vec<_>>>()?;
            self.write_sorted(open, texts, "}");
            return Ok(());
        }
        if let Some(fields) = fields(value)? {
            return self.write_fields(value, &fields, depth);
        }
        if value.hasattr(intern!(value.py(), "__array__"))? {
            return self.write_array(value);
        }
        self.write_scalar(value)
    }

    /// A dataclass, pydantic model or named tuple: its repr may leave fields out.
    fn write_fields(
        &mut self,
        value: &Bound<'_, PyAny>,
        fields: &[String],
        depth: usize,
    ) -> PyResult<()> {
        let kind = value.get_type();
        let _ = write!(self.out, "<{}.{}", kind.module()?, kind.qualname()?);
        for field in fields {
            let _ = write!(self.out, " {field}=");
            self.write(&value.getattr(field.as_str())?, depth + 1)?;
        }
        self.out.push('>');
        Ok(())
    }

    /// The repr of an array is shortened and rounded, so a numpy array is told by its bytes. What
    /// others that can be made into one hold, nobody here can tell.
    fn write_array(&mut self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let kind = value.get_type();
        if kind.module()?.to_str()?.split('.').next() != Some("numpy") {
            let reason = format!("is of type {}, whose repr may be shortened", kind.name()?);
            return Err(self.refuse(&reason));
        }
        let numeric: String = value.getattr("dtype")?.getattr("kind")?.extract()?;
        if !"biufcSUMm".contains(&numeric) {
            return Err(self.refuse("is a numpy array of objects"));
        }
        let bytes = value.call_method0("tobytes")?.cast_into::<PyBytes>()?;
        let _ = write!(
            self.out,
            "<{}.{} {} {} {}>",
            kind.module()?,
            kind.qualname()?,
            value.getattr("dtype")?.getattr("str")?,
            value.getattr("shape")?.repr()?,
            digest(value.py(), bytes.as_bytes())?
        );
        Ok(())
    }

    fn write_named(&mut self, named: &[(String, Bound<'_, PyAny>)]) -> PyResult<()> {
        self.out.push('{');
        for (index, (name, value)) in named.iter().enumerate() {
            // Names are identifiers nearly always, but `f(**{"a=1, b": 2})` is a call too.
            let separator = if index > 0 { ", " } else { "" };
            let _ = write!(self.out, "{separator}{name:?}: ");
            self.write(value, 1)?;
        }
        self.out.push('}');
        Ok(())
    }

    fn write_items(
        &mut self,
        open: &str,
        items: &[Bound<'_, PyAny>],
        close: &str,
        depth: usize,
    ) -> PyResult<()> {
        self.out.push_str(open);
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.out.push_str(", ");
            }
            self.write(item, depth + 1)?;
        }
        self.out.push_str(close);
        Ok(())
    }

    /// Equal dicts and sets may be ordered differently; their keys must not be.
    fn write_sorted(&mut self, open: &str, mut texts: Vec<String>, close: &str) {
        texts.sort_unstable();
        self.out.push_str(open);
        self.out.push_str(&texts.join(", "));
        self.out.push_str(close);
    }

    fn text(&mut self, value: &Bound<'_, PyAny>, depth: usize) -> PyResult<String> {
        let mut text = String::new();
        Writer {
            argument: self.argument,
            out: &mut text,
        }
        .write(value, depth + 1)?;
        Ok(text)
    }

    fn write_scalar(&mut self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let repr = value.repr()?;
        let repr = repr
            .to_str()
            .map_err(|_| self.refuse("has a repr with lone surrogates"))?;
        if is_plain(value) {
            self.out.push_str(repr);
            return Ok(());
        }
        let kind = value.get_type();
        if is_an_address(repr) {
            let reason = format!("is of type {}, whose repr is only an address", kind.name()?);
            return Err(self.refuse(&reason));
        }
        // The type in front: two types may print alike.
        let (module, name) = (kind.module()?, kind.qualname()?);
        let _ = write!(self.out, "<{module}.{name} {repr}>");
        Ok(())
    }

    fn refuse(&self, reason: &str) -> PyErr {
        PyTypeError::new_err(format!(
            "the argument {:?} {reason}, so that no key can be made of it; pass \
             key_builder=... to the decorator, or give the argument's class a __repr__ of its value",
            self.argument
        ))
    }
}

/// The names of all fields, where a type declares them.
fn fields(value: &Bound<'_, PyAny>) -> PyResult<Option<Vec<String>>> {
    let (py, kind) = (value.py(), value.get_type());
    for declaration in [
        intern!(py, "__dataclass_fields__"),
        intern!(py, "__pydantic_fields__"),
    ] {
        if let Some(fields) = kind.getattr_opt(declaration)? {
            return fields
                .try_iter()?
                .map(|name| name?.extract())
                .collect::<PyResult<_>>()
                .map(Some);
        }
    }
    if value.is_instance_of::<PyTuple>()
        && let Some(fields) = kind.getattr_opt(intern!(py, "_fields"))?
    {
        return fields.extract().map(Some);
    }
    Ok(None)
}

/// Types whose repr alone tells value and type.
fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    value.is_none()
        || value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyBytes>()
}

/// `<module.Class object at 0x7f...>` and its like, also inside a longer repr.
fn is_an_address(repr: &str) -> bool {
    repr.match_indices(" at 0x").any(|(at, found)| {
        let rest = &repr[at + found.len()..];
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        digits > 0 && matches!(rest.as_bytes().get(digits), Some(b'>' | b' ' | b',' | b')'))
    })
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

/// A key of any length as one of at most 512 bytes.
pub(super) fn shorten(py: Python<'_>, key: String) -> PyResult<String> {
    if key.len() <= MAX_KEY_BYTES {
        return Ok(key);
    }
    let digest = digest(py, key.as_bytes())?;
    let mut end = MAX_KEY_BYTES - digest.len() - 1;
    while !key.is_char_boundary(end) {
        end -= 1;
    }
    Ok(format!("{}#{digest}", &key[..end]))
}
