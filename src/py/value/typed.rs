//! The parts of typed values, and the values from their parts.

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{
    IntoPyDict, PyByteArray, PyBytes, PyComplex, PyFloat, PyFrozenSet, PyInt, PySet, PyString,
    PyTuple, PyType,
};
use pyo3::{PyTypeInfo, intern};

use super::numpy;
use super::types::Types;
use super::walk::Stop;
use crate::codec::ExtCode;

/// The parts of one typed value, in the order of the file.
pub(super) type Parts<'py> = Vec<Bound<'py, PyAny>>;

/// No type with a fixed number of parts has more.
pub(super) const MAX_PARTS: usize = 9;

/// Takes a value of the exact class that `code` stands for apart.
pub(super) fn take_apart<'py>(
    value: &Bound<'py, PyAny>,
    code: ExtCode,
) -> Result<Parts<'py>, Stop> {
    let py = value.py();
    let attributes = |names: &[&Bound<'py, PyString>]| -> PyResult<Parts<'py>> {
        names.iter().map(|name| value.getattr(*name)).collect()
    };
    let parts = match code {
        ExtCode::Tuple => value
            .cast::<PyTuple>()
            .map_err(PyErr::from)?
            .iter()
            .collect(),
        ExtCode::Set | ExtCode::FrozenSet => members(value)?,
        ExtCode::Complex => attributes(&[intern!(py, "real"), intern!(py, "imag")])?,
        ExtCode::ByteArray => {
            let bytes = value.cast::<PyByteArray>().map_err(PyErr::from)?.to_vec();
            vec![PyBytes::new(py, &bytes).into_any()]
        }
        ExtCode::BigInt => vec![big_int_bytes(value)?],
        ExtCode::Date => attributes(&[
            intern!(py, "year"),
            intern!(py, "month"),
            intern!(py, "day"),
        ])?,
        ExtCode::Time => attributes(&time_fields(py))?,
        ExtCode::DateTime => {
            let [hour, minute, second, microsecond, fold, zone] = time_fields(py);
            let (year, month, day) = (
                intern!(py, "year"),
                intern!(py, "month"),
                intern!(py, "day"),
            );
            attributes(&[
                year,
                month,
                day,
                hour,
                minute,
                second,
                microsecond,
                fold,
                zone,
            ])?
        }
        ExtCode::TimeDelta => {
            let (seconds, micros) = (intern!(py, "seconds"), intern!(py, "microseconds"));
            attributes(&[intern!(py, "days"), seconds, micros])?
        }
        // What pickle would pass to the constructor: the offset, and the name if there is one.
        ExtCode::TimeZone => value
            .call_method0(intern!(py, "__getinitargs__"))?
            .cast_into::<PyTuple>()
            .map_err(PyErr::from)?
            .iter()
            .collect(),
        ExtCode::ZoneInfo => vec![zone_key(value)?],
        ExtCode::Fraction => attributes(&[intern!(py, "numerator"), intern!(py, "denominator")])?,
        ExtCode::Uuid => attributes(&[intern!(py, "bytes")])?,
        ExtCode::Decimal => vec![value.str()?.into_any()],
        ExtCode::Path | ExtCode::PurePosixPath | ExtCode::PureWindowsPath => {
            vec![path_text(value)?]
        }
        ExtCode::SurrogateStr => {
            vec![value.call_method1(intern!(py, "encode"), surrogate_arguments(py))?]
        }
        ExtCode::NumpyArray | ExtCode::NumpyScalar => numpy::take_apart(value)?,
    };
    Ok(parts)
}

/// Puts a value together from parts that may be anything.
pub(super) fn build<'py>(
    py: Python<'py>,
    code: ExtCode,
    parts: Parts<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    match code {
        ExtCode::Tuple => Ok(PyTuple::new(py, parts)?.into_any()),
        ExtCode::Set => Ok(PySet::new(py, parts)?.into_any()),
        ExtCode::FrozenSet => Ok(PyFrozenSet::new(py, parts)?.into_any()),
        ExtCode::Complex => {
            let [real, imag] = exactly(parts)?;
            let (real, imag) = (a::<PyFloat>(&real)?.value(), a::<PyFloat>(&imag)?.value());
            Ok(PyComplex::from_doubles(py, real, imag).into_any())
        }
        ExtCode::ByteArray => {
            let [bytes] = exactly(parts)?;
            Ok(PyByteArray::new(py, a::<PyBytes>(&bytes)?.as_bytes()).into_any())
        }
        ExtCode::BigInt => {
            let [bytes] = exactly(parts)?;
            let signed = [(intern!(py, "signed"), true)].into_py_dict(py)?;
            let arguments = (a::<PyBytes>(&bytes)?, intern!(py, "little"));
            py.get_type::<PyInt>()
                .call_method(intern!(py, "from_bytes"), arguments, Some(&signed))
        }
        ExtCode::SurrogateStr => {
            let [bytes] = exactly(parts)?;
            a::<PyBytes>(&bytes)?.call_method1(intern!(py, "decode"), surrogate_arguments(py))
        }
        ExtCode::NumpyArray => numpy::build(py, exactly(parts)?, false),
        ExtCode::NumpyScalar => numpy::build(py, exactly(parts)?, true),
        _ => build_imported(Types::get(py)?, py, code, parts),
    }
}

/// Puts together a value whose class lives in a module of the standard library.
fn build_imported<'py>(
    types: &Types,
    py: Python<'py>,
    code: ExtCode,
    parts: Parts<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    match code {
        ExtCode::Date => {
            let [year, month, day] = all_ints(exactly(parts)?)?;
            types.date.bind(py).call1((year, month, day))
        }
        ExtCode::Time => moment::<6>(&types.time, py, parts),
        ExtCode::DateTime => moment::<9>(&types.datetime, py, parts),
        ExtCode::TimeDelta => {
            let [days, seconds, micros] = all_ints(exactly(parts)?)?;
            types.timedelta.bind(py).call1((days, seconds, micros))
        }
        ExtCode::TimeZone => time_zone(types, py, parts),
        ExtCode::ZoneInfo => {
            let [key] = exactly(parts)?;
            if !is_zone_key(&a::<PyString>(&key)?.to_cow()?) {
                return Err(PyValueError::new_err("not the key of a time zone"));
            }
            types.zone_info.bind(py).call1((key,))
        }
        ExtCode::Decimal => from_text(&types.decimal, py, parts),
        ExtCode::Fraction => {
            let [numerator, denominator] = all_ints(exactly(parts)?)?;
            types.fraction.bind(py).call1((numerator, denominator))
        }
        ExtCode::Uuid => {
            let [bytes] = exactly(parts)?;
            let arguments = [(intern!(py, "bytes"), a::<PyBytes>(&bytes)?)].into_py_dict(py)?;
            types.uuid.bind(py).call((), Some(&arguments))
        }
        ExtCode::Path => from_text(&types.path, py, parts),
        ExtCode::PurePosixPath => from_text(&types.pure_posix_path, py, parts),
        ExtCode::PureWindowsPath => from_text(&types.pure_windows_path, py, parts),
        other => Err(PyTypeError::new_err(format!(
            "{other:?} is not of a module"
        ))),
    }
}

/// The types whose number of parts depends on the value.
pub(super) fn is_collection(code: ExtCode) -> bool {
    matches!(code, ExtCode::Tuple | ExtCode::Set | ExtCode::FrozenSet)
}

fn time_fields(py: Python<'_>) -> [&Bound<'_, PyString>; 6] {
    [
        intern!(py, "hour"),
        intern!(py, "minute"),
        intern!(py, "second"),
        intern!(py, "microsecond"),
        intern!(py, "fold"),
        intern!(py, "tzinfo"),
    ]
}

fn surrogate_arguments(py: Python<'_>) -> (&Bound<'_, PyString>, &Bound<'_, PyString>) {
    (intern!(py, "utf-8"), intern!(py, "surrogatepass"))
}

fn members<'py>(set: &Bound<'py, PyAny>) -> Result<Parts<'py>, Stop> {
    let collected: PyResult<Parts<'py>> = set.try_iter()?.collect();
    collected.map_err(|error| {
        // How a set says that its size is not what it was when the iteration began.
        if error.is_instance_of::<PyRuntimeError>(set.py()) {
            let advice = "store a copy, or lock it meanwhile";
            Stop::Refused(format!("was changed while it was being stored; {advice}"))
        } else {
            Stop::Raised(error)
        }
    })
}

fn big_int_bytes<'py>(int: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = int.py();
    let bits: usize = int.call_method0(intern!(py, "bit_length"))?.extract()?;
    let signed = [(intern!(py, "signed"), true)].into_py_dict(py)?;
    // One bit more than its magnitude has, for the sign.
    let arguments = (bits / 8 + 1, intern!(py, "little"));
    int.call_method(intern!(py, "to_bytes"), arguments, Some(&signed))
}

fn path_text<'py>(path: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>, Stop> {
    let text = path.str()?.into_any();
    // Up to Python 3.11 the text of `PureWindowsPath("./c:x")` is that of another path.
    if path.get_type().call1((&text,))?.eq(path)? {
        Ok(text)
    } else {
        Err(Stop::Refused(
            "is a path that differs from the path of its text; store str()".to_owned(),
        ))
    }
}

fn zone_key<'py>(zone: &Bound<'py, PyAny>) -> Result<Bound<'py, PyAny>, Stop> {
    let key = zone.getattr(intern!(zone.py(), "key"))?;
    match key.extract::<String>() {
        Ok(text) if is_zone_key(&text) => Ok(key),
        _ => Err(Stop::Refused(
            "is a ZoneInfo without a key of the time zone database; use ZoneInfo(key)".to_owned(),
        )),
    }
}

/// A key makes `zoneinfo` open files and, in the `tzdata` package, import modules. Names of plain
/// parts cannot lead it anywhere else.
fn is_zone_key(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-".contains(&byte);
    key.len() <= 255
        && key
            .split('/')
            .all(|part| !part.is_empty() && part.bytes().all(plain))
}

/// A date with a time, or a time: integers, then the fold, then the zone.
fn moment<'py, const N: usize>(
    class: &Py<PyType>,
    py: Python<'py>,
    parts: Parts<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let mut arguments: Parts<'py> = exactly::<N>(parts)?.into();
    // The constructors take the zone in the place of the fold, and the fold by name only.
    let fold = arguments.remove(N - 2);
    for field in arguments.iter().take(N - 2).chain([&fold]) {
        a::<PyInt>(field)?;
    }
    let arguments = PyTuple::new(py, arguments)?;
    if fold.is_truthy()? {
        let keyword = [(intern!(py, "fold"), fold)].into_py_dict(py)?;
        class.bind(py).call(arguments, Some(&keyword))
    } else {
        class.bind(py).call1(arguments)
    }
}

fn time_zone<'py>(
    types: &Types,
    py: Python<'py>,
    parts: Parts<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let name_is_text = parts.get(1).is_none_or(PyString::is_exact_type_of);
    if !(1..=2).contains(&parts.len()) || !name_is_text {
        return Err(PyTypeError::new_err("not the parts of a time zone"));
    }
    types.timezone.bind(py).call1(PyTuple::new(py, parts)?)
}

fn from_text<'py>(
    class: &Py<PyType>,
    py: Python<'py>,
    parts: Parts<'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let [text] = exactly(parts)?;
    class.bind(py).call1((a::<PyString>(&text)?,))
}

fn exactly<const N: usize>(parts: Parts<'_>) -> PyResult<[Bound<'_, PyAny>; N]> {
    parts.try_into().map_err(|parts: Parts<'_>| {
        PyTypeError::new_err(format!("{} parts where there should be {N}", parts.len()))
    })
}

/// A part as a `T` and nothing else: constructors take more than that, also pickled state.
pub(super) fn a<'a, 'py, T: PyTypeInfo>(
    part: &'a Bound<'py, PyAny>,
) -> PyResult<&'a Bound<'py, T>> {
    part.cast_exact().map_err(PyErr::from)
}

fn all_ints<const N: usize>(parts: [Bound<'_, PyAny>; N]) -> PyResult<[Bound<'_, PyAny>; N]> {
    for part in &parts {
        a::<PyInt>(part)?;
    }
    Ok(parts)
}
