//! Arrays and scalars of numpy: raw bytes, a data type and a shape, never pickled objects.

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyBytes, PyModule, PyString, PyTuple, PyType};

use super::typed::{Parts, a};
use super::walk::Stop;
use crate::codec::ExtCode;

/// The kinds of data whose bytes are the whole value: no objects, no records.
const KINDS: &[u8] = b"biufcSUMm";

/// Whether `value` is of numpy. When numpy was not imported there can be no such value.
pub(super) fn classify(value: &Bound<'_, PyAny>) -> PyResult<Option<ExtCode>> {
    let py = value.py();
    let modules = py
        .import(intern!(py, "sys"))?
        .getattr(intern!(py, "modules"))?;
    let Ok(numpy) = modules.get_item(intern!(py, "numpy")) else {
        return Ok(None);
    };
    let class_of = |name| numpy.getattr(name).ok()?.cast_into::<PyType>().ok();
    let (Some(array), Some(scalar)) = (
        class_of(intern!(py, "ndarray")),
        class_of(intern!(py, "generic")),
    ) else {
        // Another module of that name, or one that is only half imported.
        return Ok(None);
    };
    let class = value.get_type();
    if class.is(&array) {
        return Ok(Some(ExtCode::NumpyArray));
    }
    if !class.is_subclass(&scalar)? {
        return Ok(None);
    }
    let own_class = value
        .getattr(intern!(py, "dtype"))?
        .getattr(intern!(py, "type"))?;
    Ok(class.is(&own_class).then_some(ExtCode::NumpyScalar))
}

pub(super) fn take_apart<'py>(value: &Bound<'py, PyAny>) -> Result<Parts<'py>, Stop> {
    let py = value.py();
    let dtype = value.getattr(intern!(py, "dtype"))?;
    let name = dtype.getattr(intern!(py, "str"))?;
    // The name of a foreign data type may be that of another one, so it has to lead back.
    let same = is_plain_dtype(name.cast::<PyString>().map_err(PyErr::from)?)
        && make_dtype(&py.import("numpy")?, &name)
            .is_ok_and(|made| made.eq(&dtype).unwrap_or(false));
    if !same {
        return Err(Stop::Refused(format!(
            "has the numpy data type {dtype}, which cannot be stored exactly; convert it with \
             .tolist() or .astype() first"
        )));
    }
    let shape = value.getattr(intern!(py, "shape"))?;
    // numpy pads an empty text to one character; its data type says better.
    let is_empty_text = dtype.getattr(intern!(py, "itemsize"))?.extract::<usize>()? == 0;
    let data = if is_empty_text {
        PyBytes::new(py, b"").into_any()
    } else {
        value.call_method0(intern!(py, "tobytes"))?
    };
    Ok(vec![name, shape, data])
}

pub(super) fn build<'py>(
    py: Python<'py>,
    [name, shape, data]: [Bound<'py, PyAny>; 3],
    scalar: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let text = a::<PyString>(&name)?;
    if !is_plain_dtype(text) {
        return Err(PyValueError::new_err(
            "not a numpy data type that is stored",
        ));
    }
    let shape = a::<PyTuple>(&shape)?;
    let bytes = a::<PyBytes>(&data)?;
    let numpy = py.import("numpy")?;
    let dtype = make_dtype(&numpy, &name)?;
    let item_size: usize = dtype.getattr(intern!(py, "itemsize"))?.extract()?;
    if !fills(shape, item_size, bytes.as_bytes().len())? {
        return Err(PyValueError::new_err("the bytes do not fill the shape"));
    }
    let text = text.to_cow()?;
    let kind = text.as_bytes().get(1);
    let big_endian = text.starts_with('>');
    if kind == Some(&b'U') && !all_code_points(bytes.as_bytes(), big_endian) {
        return Err(PyValueError::new_err("not code points of Unicode"));
    }
    if scalar && !shape.is_empty() {
        return Err(PyValueError::new_err("a scalar with a shape"));
    }
    match kind {
        // An array would cut off the zeros at the end of a text, and has no items of size zero.
        Some(b'U') if scalar => {
            let codec = if big_endian { "utf-32-be" } else { "utf-32-le" };
            let text = bytes.call_method1(intern!(py, "decode"), (codec, "surrogatepass"))?;
            numpy.getattr(intern!(py, "str_"))?.call1((text,))
        }
        Some(b'S') if scalar => numpy.getattr(intern!(py, "bytes_"))?.call1((bytes,)),
        _ if item_size == 0 => Err(PyValueError::new_err("items of size zero")),
        _ => {
            let array = view(&numpy, shape, &dtype, bytes)?;
            if scalar {
                return array.get_item(PyTuple::empty(py));
            }
            // Its own memory: the view of the bytes is read-only.
            array.call_method0(intern!(py, "copy"))
        }
    }
}

/// An array over the bytes themselves.
fn view<'py>(
    numpy: &Bound<'py, PyModule>,
    shape: &Bound<'py, PyTuple>,
    dtype: &Bound<'py, PyAny>,
    bytes: &Bound<'py, PyBytes>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = numpy.py();
    let keywords = [
        (intern!(py, "shape"), shape.as_any()),
        (intern!(py, "dtype"), dtype),
        (intern!(py, "buffer"), bytes.as_any()),
    ];
    let keywords = keywords.into_py_dict(py)?;
    numpy
        .getattr(intern!(py, "ndarray"))?
        .call((), Some(&keywords))
}

fn make_dtype<'py>(
    numpy: &Bound<'py, PyModule>,
    name: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    numpy.getattr(intern!(numpy.py(), "dtype"))?.call1((name,))
}

/// A byte order, a kind, a size and, for dates, a unit: `<i4`, `|S10`, `<M8[ns]`. Nothing else
/// from a file reaches the constructor, which understands a whole language.
fn is_plain_dtype(name: &Bound<'_, PyString>) -> bool {
    let Ok(name) = name.to_cow() else {
        return false;
    };
    let [order, kind, rest @ ..] = name.as_bytes() else {
        return false;
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let unit_is_plain = match &rest[digits..] {
        [] => true,
        [b'[', unit @ .., b']'] => {
            matches!(kind, b'M' | b'm') && unit.iter().all(u8::is_ascii_alphanumeric)
        }
        _ => false,
    };
    b"<>|=".contains(order)
        && KINDS.contains(kind)
        && (1..=9).contains(&digits)
        && rest.len() <= 24
        && unit_is_plain
}

/// Whether `length` bytes are exactly an array of this shape.
fn fills(shape: &Bound<'_, PyTuple>, item_size: usize, length: usize) -> PyResult<bool> {
    let mut total = Some(item_size);
    for side in shape.iter() {
        let side: usize = side.extract()?;
        total = total.and_then(|total| total.checked_mul(side));
    }
    Ok(total == Some(length))
}

fn all_code_points(bytes: &[u8], big_endian: bool) -> bool {
    let (units, rest) = bytes.as_chunks::<4>();
    let value = |unit: &[u8; 4]| {
        if big_endian {
            u32::from_be_bytes(*unit)
        } else {
            u32::from_le_bytes(*unit)
        }
    };
    rest.is_empty() && units.iter().all(|unit| value(unit) <= u32::from(char::MAX))
}
