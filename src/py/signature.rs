//! A function's parameters, and how a call's arguments are bound to them.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::error::InvalidSettingError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    PositionalOnly,
    PositionalOrKeyword,
    Args,
    KeywordOnly,
    Kwargs,
}

struct Parameter {
    name: String,
    kind: Kind,
    default: Option<Py<PyAny>>,
    /// Left out of keys.
    ignored: bool,
}

/// The error of a callable that does not say what it takes, as many built-in ones.
fn unreadable(function: &Bound<'_, PyAny>, error: PyErr) -> PyErr {
    let py = function.py();
    if !error.is_instance_of::<PyValueError>(py) {
        return error;
    }
    PyTypeError::new_err(format!(
        "@cache cannot tell the parameters of {function}: {}; decorate a function of your own that \
         calls it",
        error.value(py)
    ))
}

/// The parameters of one function, in order.
pub(super) struct Signature {
    parameters: Vec<Parameter>,
}

/// What one parameter got.
pub(super) enum Given<'py> {
    One(Bound<'py, PyAny>),
    /// `*args`
    Rest(Bound<'py, PyTuple>),
    /// `**kwargs`: names as a key shows them, in their order.
    Named(Vec<(String, Bound<'py, PyAny>)>),
}

impl Signature {
    /// Reads a function's signature, once. `ignore`: names of parameters to leave out.
    pub(super) fn of(function: &Bound<'_, PyAny>, ignore: &[String]) -> PyResult<Self> {
        let py = function.py();
        let inspect = py.import("inspect")?;
        let empty = inspect.getattr("Parameter")?.getattr("empty")?;
        let signature = py
            .import("cachetronomy._closures")?
            .call_method1("signature_of", (function,))
            .map_err(|error| unreadable(function, error))?;
        let mut parameters = Vec::new();
        for parameter in signature
            .getattr("parameters")?
            .call_method0("values")?
            .try_iter()?
        {
            let parameter = parameter?;
            let default = parameter.getattr("default")?;
            // The values of `inspect._ParameterKind`, in the order in which they may stand.
            let kind = match parameter.getattr("kind")?.extract::<u8>()? {
                0 => Kind::PositionalOnly,
                1 => Kind::PositionalOrKeyword,
                2 => Kind::Args,
                3 => Kind::KeywordOnly,
                _ => Kind::Kwargs,
            };
            let name: String = parameter.getattr("name")?.extract()?;
            parameters.push(Parameter {
                ignored: ignore.contains(&name),
                name,
                kind,
                default: (!default.is(&empty)).then(|| default.unbind()),
            });
        }
        let names: Vec<&str> = parameters.iter().map(|one| one.name.as_str()).collect();
        if let Some(unknown) = ignore.iter().find(|name| !names.contains(&name.as_str())) {
            return Err(InvalidSettingError::new_err(format!(
                "ignore: {unknown:?} is not a parameter of {}; these are: {}",
                function.getattr("__qualname__")?,
                names.join(", ")
            )));
        }
        Ok(Self { parameters })
    }

    /// The places of positional arguments that are left out, a bit for each; the highest bit is for
    /// all places from there on.
    pub(super) fn ignored_places(&self) -> u64 {
        let by_place =
            |one: &&Parameter| !matches!(one.kind, Kind::Args | Kind::KeywordOnly | Kind::Kwargs);
        let places = self.parameters.iter().filter(by_place).count();
        let rest = self
            .parameters
            .iter()
            .any(|one| one.kind == Kind::Args && one.ignored);
        let named = self.parameters.iter().filter(by_place).enumerate();
        let mut bits = 0;
        for (place, _) in named.filter(|(place, one)| *place < 63 && one.ignored) {
            bits |= 1 << place;
        }
        if rest && places <= 63 {
            bits |= u64::MAX << places;
        }
        bits
    }

    /// Shows the defaults to the garbage collector.
    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.parameters
            .iter()
            .try_for_each(|parameter| visit.call(&parameter.default))
    }

    /// Binds a call's arguments as Python would, defaults filled in; `None` if they do not fit.
    pub(super) fn bind<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Option<Vec<(&str, Given<'py>)>>> {
        let py = args.py();
        let mut positional = args.iter();
        let mut named: Vec<(Bound<'py, PyString>, Bound<'py, PyAny>)> = Vec::new();
        for (name, value) in kwargs.into_iter().flatten() {
            named.push((name.cast_into::<PyString>()?, value));
        }
        let mut bound = Vec::with_capacity(self.parameters.len());
        for parameter in &self.parameters {
            let by_position = match parameter.kind {
                Kind::PositionalOnly | Kind::PositionalOrKeyword => positional.next(),
                Kind::Args => {
                    let rest = PyTuple::new(py, positional.by_ref())?;
                    if !parameter.ignored {
                        bound.push((parameter.name.as_str(), Given::Rest(rest)));
                    }
                    continue;
                }
                Kind::KeywordOnly => None,
                Kind::Kwargs => {
                    let rest = std::mem::take(&mut named);
                    if !parameter.ignored {
                        let named = Given::Named(quoted(rest)?);
                        bound.push((parameter.name.as_str(), named));
                    }
                    continue;
                }
            };
            let by_name = if parameter.kind == Kind::PositionalOnly {
                None
            } else {
                let is_this = |name: &Bound<'_, PyString>| {
                    name.to_str().is_ok_and(|name| name == parameter.name)
                };
                let found = named.iter().position(|(name, _)| is_this(name));
                found.map(|index| named.swap_remove(index).1)
            };
            let default = || {
                parameter
                    .default
                    .as_ref()
                    .map(|value| value.bind(py).clone())
            };
            let value = match (by_position, by_name) {
                (Some(_), Some(_)) => return Ok(None),
                (Some(value), None) | (None, Some(value)) => value,
                (None, None) => match default() {
                    Some(value) => value,
                    None => return Ok(None),
                },
            };
            if !parameter.ignored {
                bound.push((parameter.name.as_str(), Given::One(value)));
            }
        }
        let fits = positional.next().is_none() && named.is_empty();
        Ok(fits.then_some(bound))
    }
}

/// Names are identifiers nearly always, but `f(**{"a=1, b": 2})` is a call too.
fn quoted<'py>(
    named: Vec<(Bound<'py, PyString>, Bound<'py, PyAny>)>,
) -> PyResult<Vec<(String, Bound<'py, PyAny>)>> {
    let mut quoted = Vec::with_capacity(named.len());
    for (name, value) in named {
        let text = match name.to_str() {
            Ok(name) => format!("{name:?}"),
            // Lone surrogates. In other quotation marks, so that it is like no other name.
            Err(_) => name.repr()?.extract()?,
        };
        quoted.push((text, value));
    }
    quoted.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    Ok(quoted)
}
