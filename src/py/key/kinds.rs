//! What values of a class are known by in a key.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyString, PyType};

use super::super::naming::module_name;

/// Module and name of a class, quoted if a part of either could be taken for something else.
pub(super) fn type_name(kind: &Bound<'_, PyType>) -> PyResult<String> {
    let module = kind.module().map_or_else(
        |_| String::from("?"),
        |module| module.to_string_lossy().into_owned(),
    );
    let module = module_name(kind.py(), module)?;
    let mut name = format!("{module}.{}", kind.qualname()?.to_string_lossy());
    if name.contains("<locals>") {
        // Each call of the function around it makes another class of this name.
        let closures = kind.py().import("cachetronomy._closures")?;
        let token: String = closures.call_method1("class_token", (kind,))?.extract()?;
        name.push_str(&token);
    }
    let is_odd = |letter: char| letter.is_whitespace() || "\"'(".contains(letter);
    Ok(if name.contains(is_odd) {
        format!("{name:?}")
    } else {
        name
    })
}

/// A field of a dataclass, a model or the like.
pub(super) struct Field {
    pub(super) name: String,
    /// Left out of the repr: a secret, perhaps.
    pub(super) hidden: bool,
}

impl Field {
    fn shown(name: String) -> Self {
        Self {
            name,
            hidden: false,
        }
    }
}

/// All fields that tell instances apart, where a type declares them.
pub(super) fn fields(kind: &Bound<'_, PyType>) -> PyResult<Option<Vec<Field>>> {
    let py = kind.py();
    let is_off = |field: &Bound<'_, PyAny>, flag: &str| {
        Ok::<_, PyErr>(
            field
                .getattr_opt(flag)?
                .is_some_and(|it| it.is(PyBool::new(py, false))),
        )
    };
    if let Some(fields) = kind.getattr_opt(intern!(py, "__dataclass_fields__"))? {
        // Among them are class variables, and what is only passed to `__init__`.
        static FIELD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let real = FIELD.import(py, "dataclasses", "_FIELD")?;
        let mut found = Vec::new();
        for item in fields.cast::<PyDict>()?.items() {
            let (name, field) = item.extract::<(String, Bound<'_, PyAny>)>()?;
            // What two equal instances may differ in tells no calls apart.
            if field.getattr(intern!(py, "_field_type"))?.is(real) && !is_off(&field, "compare")? {
                let hidden = is_off(&field, "repr")?;
                found.push(Field { name, hidden });
            }
        }
        return Ok(Some(found));
    }
    let strings = |names: Bound<'_, PyAny>| -> PyResult<Vec<Field>> {
        let names = names.try_iter()?;
        names
            .map(|name| name?.extract().map(Field::shown))
            .collect()
    };
    // Of a class of classes: others need not be asked.
    if !kind.get_type().is(py.get_type::<PyType>()) {
        if let Some(names) = kind.getattr_opt("__pydantic_fields__")? {
            let mut found = Vec::new();
            for item in names.call_method0("items")?.try_iter()? {
                let (name, field) = item?.extract::<(String, Bound<'_, PyAny>)>()?;
                let hidden = is_off(&field, "repr")?;
                found.push(Field { name, hidden });
            }
            let inner = ["__pydantic_extra__", "__pydantic_private__"];
            found.extend(inner.map(String::from).map(Field::shown));
            return Ok(Some(found));
        }
        if let Some(names) = kind.getattr_opt("__struct_fields__")? {
            return strings(names).map(Some);
        }
    }
    let Some(attributes) = kind.getattr_opt(intern!(py, "__attrs_attrs__"))? else {
        return Ok(None);
    };
    let mut found = Vec::new();
    for attribute in attributes.try_iter()? {
        let attribute = attribute?;
        if !is_off(&attribute, "eq")? {
            found.push(Field {
                name: attribute.getattr("name")?.extract()?,
                hidden: is_off(&attribute, "repr")?,
            });
        }
    }
    Ok(Some(found))
}

/// Arrays and tables: whatever they print is an extract.
pub(super) fn is_array(kind: &Bound<'_, PyType>) -> PyResult<bool> {
    if kind.hasattr(intern!(kind.py(), "__array__"))? {
        return Ok(true);
    }
    let module = kind
        .module()
        .map_or_else(|_| String::new(), |it| it.to_string());
    Ok(matches!(
        module.split('.').next(),
        Some("polars" | "pyarrow" | "scipy")
    ) && (kind.hasattr("__arrow_c_stream__")?
        || kind.hasattr("toarray")?
        || kind.hasattr("collect_schema")?))
}

/// Common classes that need no closer look.
pub(super) fn has_telling_repr(kind: &Bound<'_, PyType>) -> PyResult<bool> {
    let (module, name) = (kind.module(), kind.qualname()?);
    let (Ok(module), Ok(name)) = (
        module.as_ref().map_or(Ok(""), |it| it.to_str()),
        name.to_str(),
    ) else {
        return Ok(false);
    };
    Ok(match module {
        "datetime" => matches!(name, "date" | "datetime" | "time" | "timedelta"),
        "decimal" => name == "Decimal",
        "uuid" => name == "UUID",
        "pathlib" | "pathlib._local" => matches!(name, "PosixPath" | "WindowsPath"),
        _ => false,
    })
}

/// Types whose repr alone tells value and type.
pub(super) fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    value.is_none()
        || value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyBytes>()
}

/// `<module.Class object at 0x7f...>` and its like, also inside a longer repr; and the address of
/// the value itself in any other form.
pub(super) fn holds_an_address(repr: &str, address: usize) -> bool {
    let named = repr.match_indices(" at 0x").any(|(at, found)| {
        let rest = &repr[at + found.len()..];
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        let next = rest.as_bytes().get(digits);
        digits > 0 && !next.is_some_and(u8::is_ascii_alphanumeric)
    });
    named
        || repr.contains(&address.to_string())
        || repr.to_ascii_lowercase().contains(&format!("{address:x}"))
}
