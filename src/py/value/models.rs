//! Instances of pydantic models: which of their plain forms is written.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::super::halt;
use super::classes::comes_back;
use super::encode::{Around, write};
use super::is_about_value;
use super::walk::{Failure, Stop};
use crate::codec::{Depth, Format};

/// What became of one way to dump a model.
enum Outcome<'py> {
    /// It fits the format, and the model comes back from it.
    Good(Bound<'py, PyAny>),
    /// It does not fit the format.
    Unfit(Failure),
    /// It could not be made, or the model does not come back from it.
    Lossy(Failure),
}

/// The plain form of a model in this format: what `model_dump()` gives, or for values that only
/// our own format carries (dates, say) what `model_dump(mode="json")` does.
pub(super) fn plain_form<'py>(
    model: &Bound<'py, PyAny>,
    format: Format,
    depth: Depth,
) -> Result<Bound<'py, PyAny>, Failure> {
    match try_mode(model, format, depth, false) {
        Outcome::Good(plain) => Ok(plain),
        Outcome::Lossy(failure) => Err(failure),
        Outcome::Unfit(failure) => {
            if matches!(failure.stop, Stop::Needs(Format::MsgPack)) {
                return Err(failure);
            }
            match try_mode(model, format, depth, true) {
                Outcome::Good(plain) => Ok(plain),
                Outcome::Lossy(other) if !about_value(&other, model.py()) => Err(other),
                Outcome::Unfit(_) | Outcome::Lossy(_) => Err(failure),
            }
        }
    }
}

fn about_value(failure: &Failure, py: Python<'_>) -> bool {
    !matches!(&failure.stop, Stop::Raised(error) if !is_about_value(error, py))
}

/// Dumps a model as every reader expects it. Only if it would not come back - for its computed
/// fields, say, which are no input - as pydantic itself dumps what is to be read again.
fn try_mode<'py>(
    model: &Bound<'py, PyAny>,
    format: Format,
    depth: Depth,
    json: bool,
) -> Outcome<'py> {
    let mut first = None;
    for round_trip in [false, true] {
        let result = try_dump(model, format, depth, json, round_trip);
        match (result, first.take()) {
            (Outcome::Lossy(failure), None) if about_value(&failure, model.py()) => {
                first = Some(failure);
            }
            (Outcome::Lossy(failure), Some(earlier)) if about_value(&failure, model.py()) => {
                return Outcome::Lossy(earlier);
            }
            (outcome, _) => return outcome,
        }
    }
    // Not reached: the second round always returns.
    Outcome::Lossy(first.unwrap_or_else(|| Stop::Refused("cannot be dumped".to_owned()).into()))
}

fn try_dump<'py>(
    model: &Bound<'py, PyAny>,
    format: Format,
    depth: Depth,
    json: bool,
    round_trip: bool,
) -> Outcome<'py> {
    let plain = match dump(model, json, round_trip) {
        Ok(plain) => plain,
        Err(error) => return Outcome::Lossy(error.into()),
    };
    let around = Around {
        depth,
        ..Around::default()
    };
    let data = match write(&plain, format, around) {
        Ok(data) => data,
        Err(failure) => return Outcome::Unfit(failure),
    };
    // The other form will do where this one turns a time zone, say, into another that is equal.
    let strictly = json;
    let function = intern!(model.py(), "remake_model");
    match comes_back(model, &data, format, function, strictly) {
        Ok(()) => Outcome::Good(plain),
        Err(stop) => Outcome::Lossy(stop.into()),
    }
}

fn dump<'py>(
    model: &Bound<'py, PyAny>,
    json: bool,
    round_trip: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let py = model.py();
    let arguments = PyDict::new(py);
    if json {
        arguments.set_item(intern!(py, "mode"), intern!(py, "json"))?;
    }
    if round_trip {
        arguments.set_item(intern!(py, "round_trip"), true)?;
    }
    halt::call(
        &model.getattr(intern!(py, "model_dump"))?,
        (),
        Some(&arguments),
    )
}
