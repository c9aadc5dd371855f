//! What the nodes of one walk over a value share, and what is said when it ends early.

use std::cell::{Cell, RefCell};

use pyo3::prelude::*;
use serde::ser::Error as SerError;

use super::super::error::SerializationError;
use super::{is_about_value, types};
use crate::codec::{CodecError, Depth, Format, MAX_DEPTH};

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

/// A walk that ended early, and where.
pub(super) struct Failure {
    pub(super) stop: Stop,
    /// The steps from the value to the refused part, innermost first.
    way: Vec<String>,
}

impl<S: Into<Stop>> From<S> for Failure {
    fn from(stop: S) -> Self {
        Self {
            stop: stop.into(),
            way: Vec::new(),
        }
    }
}

impl Failure {
    #[cold]
    pub(super) fn into_error(self, py: Python<'_>) -> PyErr {
        let mut place = String::from("value");
        place.extend(self.way.iter().rev().take(SHOWN_STEPS).map(String::as_str));
        if self.way.len() > SHOWN_STEPS {
            place.push_str("...");
        }
        match self.stop {
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

/// What the nodes of one walk share.
pub(super) struct Walk {
    pub(super) format: Format,
    /// Serde errors carry only text, so the reason waits here.
    stop: Cell<Option<Stop>>,
    /// Filled after a refusal.
    way: RefCell<Vec<String>>,
}

impl Walk {
    pub(super) fn new(format: Format) -> Self {
        Self {
            format,
            stop: Cell::new(None),
            way: RefCell::default(),
        }
    }

    #[cold]
    pub(super) fn stop<E: SerError>(&self, stop: Stop) -> E {
        self.stop.set(Some(stop));
        E::custom("stopped")
    }

    #[cold]
    pub(super) fn refuse<E: SerError>(&self, reason: &str) -> E {
        self.stop(Stop::Refused(reason.to_owned()))
    }

    /// Ends as a walk over a part has ended.
    #[cold]
    pub(super) fn fail<E: SerError>(&self, failure: Failure) -> E {
        *self.way.borrow_mut() = failure.way;
        self.stop(failure.stop)
    }

    pub(super) fn deeper<E: SerError>(&self, depth: Depth) -> Result<Depth, E> {
        depth.deeper().map_err(|_| {
            self.refuse(&format!(
                "is nested deeper than {MAX_DEPTH} containers, or contains itself; flatten it or \
                 break the cycle"
            ))
        })
    }

    pub(super) fn changed<E: SerError>(&self) -> E {
        self.refuse("was changed while it was being stored; store a copy, or lock it meanwhile")
    }

    /// Notes one step of the way, when the walk ended for a reason that names a place.
    #[cold]
    pub(super) fn note(&self, step: impl FnOnce() -> String) {
        let reason = self.stop.take();
        if !matches!(reason, Some(Stop::Needs(_)) | None) {
            self.way.borrow_mut().push(step());
        }
        self.stop.set(reason);
    }

    /// Why the writer gave up.
    pub(super) fn into_failure(self, error: &CodecError) -> Failure {
        Failure {
            stop: self
                .stop
                .take()
                .unwrap_or_else(|| Stop::Refused(format!("is {error}"))),
            way: self.way.into_inner(),
        }
    }
}

/// What to say of a class that is not carried.
#[cold]
pub(super) fn refusal(value: &Bound<'_, PyAny>) -> Stop {
    let describe = || -> PyResult<String> {
        let class = value.get_type().fully_qualified_name()?;
        if value.get_type().hasattr("__await__")? {
            return Ok(format!(
                "is of type {class}; await it, and store what it returns"
            ));
        }
        let advice = match types::carried_base(&value.get_type())? {
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
pub(super) fn shown(key: &Bound<'_, PyAny>) -> String {
    let Ok(text) = key.repr() else {
        return "?".to_owned();
    };
    let text = text.to_string_lossy();
    match text.char_indices().nth(SHOWN_KEY_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into_owned(),
    }
}
