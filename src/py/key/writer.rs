//! Values as keys show them.

use std::collections::HashMap;
use std::fmt::Write;

use pyo3::exceptions::{PyException, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyFrozenSet, PyInt, PyList, PySet, PyString, PyTuple, PyType};

use super::super::halt;
use super::digest;
use super::kinds::{
    Field, fields, has_telling_repr, holds_an_address, is_array, is_plain, type_name,
};

/// Containers inside containers inside an argument.
const MAX_DEPTH: usize = 64;

/// A longer text of something inside a container is hashed, and written once only however often
/// the container holds it: forty lists, each holding the one before twice, are a short argument.
const MAX_NESTED_BYTES: usize = 512;

/// Longer ints are written in hexadecimal: Python may be told to write no int of 640 digits or
/// more in decimals.
const MAX_DECIMAL_BITS: u64 = 2_000;

/// Writes the values of one argument.
pub(super) struct Writer<'a, 'py> {
    argument: &'a str,
    /// The fields that lead to where it is.
    path: Vec<String>,
    out: &'a mut String,
    /// What was hashed, by address: held, so that the address stays its own.
    hashed: HashMap<usize, (Bound<'py, PyAny>, String)>,
}

impl<'a, 'py> Writer<'a, 'py> {
    /// `argument`: its name, for errors.
    pub(super) fn new(argument: &'a str, out: &'a mut String) -> Self {
        Self {
            argument,
            path: Vec::new(),
            out,
            hashed: HashMap::new(),
        }
    }

    /// `depth`: how many containers it is in.
    pub(super) fn write(&mut self, value: &Bound<'py, PyAny>, depth: usize) -> PyResult<()> {
        if is_plain(value) {
            return self.write_plain(value);
        }
        if depth > MAX_DEPTH {
            return Err(self.refuse("is nested too deeply"));
        }
        let address = value.as_ptr() as usize;
        if let Some((_, hash)) = self.hashed.get(&address) {
            self.out.push_str(hash);
            return Ok(());
        }
        let start = self.out.len();
        self.write_whole(value, depth)?;
        if depth > 0 && self.out.len() - start > MAX_NESTED_BYTES {
            let hash = format!("#{}", digest(value.py(), &self.out.as_bytes()[start..])?);
            self.out.truncate(start);
            self.out.push_str(&hash);
            self.hashed.insert(address, (value.clone(), hash));
        }
        Ok(())
    }

    /// What was given to `**kwargs`, by names that are quoted already.
    pub(super) fn write_named(&mut self, named: &[(String, Bound<'py, PyAny>)]) -> PyResult<()> {
        self.out.push('{');
        for (index, (name, value)) in named.iter().enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            let _ = write!(self.out, "{separator}{name}: ");
            self.write(value, 1)?;
        }
        self.out.push('}');
        Ok(())
    }

    fn write_whole(&mut self, value: &Bound<'py, PyAny>, depth: usize) -> PyResult<()> {
        static PARTS_OF: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

        let py = value.py();
        if let Ok(list) = value.cast_exact::<PyList>() {
            return self.write_items("[", list.iter(), "]", depth);
        }
        if let Ok(tuple) = value.cast_exact::<PyTuple>() {
            return self.write_items("(", tuple.iter(), ",)", depth);
        }
        if let Ok(dict) = value.cast_exact::<PyDict>() {
            let texts = dict.items().iter().map(|item| {
                let (key, value) = item.extract()?;
                let key = self.text(&key, depth)?;
                Ok(format!("{key}: {}", self.text(&value, depth)?))
            });
            let texts = texts.collect::<PyResult<Vec<_>>>()?;
            self.write_sorted("{", texts, "}");
            return Ok(());
        }
        let is_set = value.is_exact_instance_of::<PySet>();
        if is_set || value.is_exact_instance_of::<PyFrozenSet>() {
            let members = value.try_iter()?.collect::<PyResult<Vec<_>>>();
            let members = self.told(value, members)?;
            let texts = members.iter().map(|member| self.text(member, depth));
            let texts = texts.collect::<PyResult<Vec<_>>>()?;
            self.write_sorted(if is_set { "set{" } else { "frozenset{" }, texts, "}");
            return Ok(());
        }
        let kind = value.get_type();
        if has_telling_repr(&kind)? {
            return self.write_scalar(value);
        }
        let own = kind.getattr_opt(intern!(py, "__cache_key__"))?;
        if own.is_some_and(|own| !own.is_none()) {
            return self.write_own(value);
        }
        if let Ok(class) = value.cast::<PyType>() {
            let _ = write!(self.out, "<class {}>", type_name(class)?);
            return Ok(());
        }
        if let Some(fields) = self.told(value, fields(&kind))? {
            return self.write_fields(value, &fields, depth);
        }
        if is_array(&kind)? {
            return self.write_array(value, depth);
        }
        let parts = PARTS_OF
            .import(py, "cachetronomy._parts", "parts_of")?
            .call1((value,));
        let parts = self.told(value, parts)?;
        if parts.is_none() {
            return self.write_scalar(value);
        }
        let _ = write!(self.out, "<{} ", type_name(&kind)?);
        self.write_items("(", parts.cast::<PyTuple>()?.iter(), ",)>", depth)
    }

    /// The class itself says what tells its instances apart.
    fn write_own(&mut self, value: &Bound<'py, PyAny>) -> PyResult<()> {
        let kind = value.get_type();
        let made = halt::call_method(value, intern!(value.py(), "__cache_key__"), ())?;
        let text = made.cast::<PyString>().ok().and_then(|it| it.to_str().ok());
        let Some(text) = text else {
            return Err(PyTypeError::new_err(format!(
                "the argument {:?}: {}.__cache_key__() returned {}; it must return a str without \
                 lone surrogates",
                self.argument,
                kind.name()?,
                made.repr()?
            )));
        };
        let _ = write!(self.out, "<{} {text:?}>", type_name(&kind)?);
        Ok(())
    }

    /// A dataclass, a pydantic model or the like: its repr may leave fields out.
    fn write_fields(
        &mut self,
        value: &Bound<'py, PyAny>,
        fields: &[Field],
        depth: usize,
    ) -> PyResult<()> {
        let _ = write!(self.out, "<{}", type_name(&value.get_type())?);
        for Field { name, hidden } in fields {
            let content = value.getattr_opt(name.as_str());
            let content = self.told(value, content)?;
            if name.starts_with("__pydantic_") && content.as_ref().is_none_or(PyAnyMethods::is_none)
            {
                continue; // a pydantic model has none of these
            }
            let _ = write!(self.out, " {name}=");
            let Some(content) = content else {
                self.out.push_str("<unset>");
                continue;
            };
            let start = self.out.len();
            self.path.push(name.clone());
            self.write(&content, depth + 1)?;
            self.path.pop();
            if *hidden {
                // A key is written to the file and to logs.
                let hash = digest(value.py(), &self.out.as_bytes()[start..])?;
                self.out.truncate(start);
                let _ = write!(self.out, "#{hash}");
            }
        }
        self.out.push('>');
        Ok(())
    }

    /// The repr of an array is shortened and rounded, so a numpy array is told by its bytes. What
    /// others that can be made into one hold, nobody here can tell.
    fn write_array(&mut self, value: &Bound<'py, PyAny>, depth: usize) -> PyResult<()> {
        let (py, kind) = (value.py(), value.get_type());
        let name = type_name(&kind)?;
        if !name.starts_with("numpy.") {
            let reason = format!("is of type {name}, whose repr may be shortened");
            return Err(self.refuse(&reason));
        }
        let dtype = value.getattr("dtype");
        let dtype = self.told(value, dtype)?;
        let letter: String = dtype.getattr("kind")?.extract()?;
        if !"biufcSUMmV".contains(&letter) || dtype.getattr("hasobject")?.is_truthy()? {
            return Err(self.refuse("is a numpy array of objects"));
        }
        let char: String = dtype.getattr("char")?.extract()?;
        let bytes = if char == "g" || char == "G" {
            // A long double has bytes that mean nothing; its text tells it exactly.
            let text = value.call_method1("astype", ("U",))?;
            text.call_method0("tobytes")?
        } else {
            value.call_method0("tobytes")?
        };
        let bytes = bytes.cast_into::<PyBytes>()?;
        // Only the repr names the fields of a record.
        let dtype = if letter == "V" {
            dtype.repr()?.into_any()
        } else {
            dtype.getattr("str")?
        };
        let _ = write!(
            self.out,
            "<{name} {dtype} {} {}",
            value.getattr("shape")?.repr()?,
            digest(py, bytes.as_bytes())?
        );
        if kind.hasattr("mask")? {
            let numpy = py.import("numpy.ma")?;
            let mask = numpy.call_method1("getmaskarray", (value,))?;
            self.out.push_str(" mask=");
            self.write(&mask, depth + 1)?;
        }
        self.out.push('>');
        Ok(())
    }

    fn write_items(
        &mut self,
        open: &str,
        items: impl Iterator<Item = Bound<'py, PyAny>>,
        close: &str,
        depth: usize,
    ) -> PyResult<()> {
        self.out.push_str(open);
        for (index, item) in items.enumerate() {
            if index > 0 {
                self.out.push_str(", ");
            }
            self.write(&item, depth + 1)?;
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

    fn text(&mut self, value: &Bound<'py, PyAny>, depth: usize) -> PyResult<String> {
        let start = self.out.len();
        self.write(value, depth + 1)?;
        Ok(self.out.split_off(start))
    }

    /// A value of a type whose repr alone tells value and type.
    fn write_plain(&mut self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let is_long = value.is_exact_instance_of::<PyInt>()
            && value.extract::<i64>().is_err()
            && value.call_method0("bit_length")?.extract::<u64>()? > MAX_DECIMAL_BITS;
        let repr = if is_long {
            let hex = value.call_method1(intern!(value.py(), "__format__"), ("#x",))?;
            hex.cast_into::<PyString>()?
        } else {
            value.repr()?
        };
        self.out.push_str(repr.to_str()?);
        Ok(())
    }

    fn write_scalar(&mut self, value: &Bound<'py, PyAny>) -> PyResult<()> {
        let name = type_name(&value.get_type())?;
        let repr = halt::repr(value);
        let repr = self.told(value, repr)?;
        let repr = repr
            .to_str()
            .map_err(|_| self.refuse("has a repr with lone surrogates"))?;
        if holds_an_address(repr, value.as_ptr() as usize) {
            if value.get_type().hasattr("__await__")? {
                return Err(PyTypeError::new_err(format!(
                    "the argument {:?} is of type {name}: await it, and give what it returns",
                    self.argument
                )));
            }
            let reason = format!("is of type {name}, whose repr is only an address");
            return Err(self.refuse(&reason));
        }
        // The type in front: two types may print alike. What could be taken for the end is quoted.
        let _ = if repr.contains('>') || repr.starts_with('"') {
            write!(self.out, "<{name} {repr:?}>")
        } else {
            write!(self.out, "<{name} {repr}>")
        };
        Ok(())
    }

    /// What the value itself was asked, in code of anybody's.
    fn told<T>(&self, value: &Bound<'_, PyAny>, answer: PyResult<T>) -> PyResult<T> {
        answer.map_err(|error| {
            let py = value.py();
            if !error.is_instance_of::<PyException>(py) {
                return error;
            }
            let kind = type_name(&value.get_type()).unwrap_or_default();
            let reason = format!("is of type {kind}, whose value cannot be read ({error})");
            let refusal = self.refuse(&reason);
            refusal.set_cause(py, Some(error));
            refusal
        })
    }

    fn refuse(&self, reason: &str) -> PyErr {
        let whole = self
            .path
            .iter()
            .fold(String::from(self.argument), |place, field| {
                format!("{place}.{field}")
            });
        PyTypeError::new_err(format!(
            "the argument {whole:?} {reason}, so that no key can be made of it; leave {:?} \
             out with ignore=..., pass key_builder=... to the decorator, or give its class a \
             __cache_key__() or a __repr__ of its value",
            self.argument
        ))
    }
}
