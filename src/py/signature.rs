//! A function's parameters, and how a call's arguments are bound to them.

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

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
    /// `**kwargs`, in the order of the names.
    Named(Vec<(String, Bound<'py, PyAny>)>),
}

impl Signature {
    /// Reads a function's signature, once.
    pub(super) fn of(function: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = function.py();
        let inspect = py.import("inspect")?;
        let empty = inspect.getattr("Parameter")?.getattr("empty")?;
        let signature = inspect.call_method1("signature", (function,))?;
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
            parameters.push(Parameter {
                name: parameter.getattr("name")?.extract()?,
                kind,
                default: (!default.is(&empty)).then(|| default.unbind()),
            });
        }
        Ok(Self { parameters })
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
        let mut named: Vec<(String, Bound<'py, PyAny>)> = Vec::new();
        for (name, value) in kwargs.into_iter().flatten() {
            named.push((name.cast::<PyString>()?.to_string(), value));
        }
        let mut bound = Vec::with_capacity(self.parameters.len());
        for parameter in &self.parameters {
            let by_position = match parameter.kind {
                Kind::PositionalOnly | Kind::PositionalOrKeyword => positional.next(),
                Kind::Args => {
                    let rest = PyTuple::new(py, positional.by_ref())?;
                    bound.push((parameter.name.as_str(), Given::Rest(rest)));
                    continue;
                }
                Kind::KeywordOnly => None,
                Kind::Kwargs => {
                    let mut rest = std::mem::take(&mut named);
                    rest.sort_unstable_by(|a, b| a.0.cmp(&b.0));
                    bound.push((parameter.name.as_str(), Given::Named(rest)));
                    continue;
                }
            };
            let by_name = if parameter.kind == Kind::PositionalOnly {
                None
            } else {
                let found = named.iter().position(|(name, _)| *name == parameter.name);
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
            bound.push((parameter.name.as_str(), Given::One(value)));
        }
        let fits = positional.next().is_none() && named.is_empty();
        Ok(fits.then_some(bound))
    }
}
