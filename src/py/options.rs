//! The decorator's options: checked when a function is decorated, asked when it was computed.

use std::hash::{BuildHasher, RandomState};
use std::time::SystemTime;

use pyo3::Borrowed;
use pyo3::exceptions::PyException;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyString, PyTuple, PyType};

use super::arguments;
use super::error::InvalidSettingError;
use super::halt;
use super::put::Put;
use crate::entry::EntryMeta;
use crate::time::{Timestamp, Ttl};

/// How long an exception is kept whose decorator does not say: 60 seconds.
const NEGATIVE_TTL: Ttl = Ttl::Micros(60_000_000);

/// The options as they were given.
pub(super) struct Raw<'a, 'py> {
    pub(super) ttl: Option<&'a Bound<'py, PyAny>>,
    pub(super) time_to_live: Option<&'a Bound<'py, PyAny>>,
    pub(super) tags: Option<&'a Bound<'py, PyAny>>,
    pub(super) version: Option<&'a Bound<'py, PyAny>>,
    pub(super) prefer: Option<&'a str>,
    pub(super) key_builder: Option<&'a Bound<'py, PyAny>>,
    pub(super) ignore: Option<&'a Bound<'py, PyAny>>,
    pub(super) jitter: Option<&'a Bound<'py, PyAny>>,
    pub(super) condition: Option<&'a Bound<'py, PyAny>>,
    pub(super) cache_exceptions: Option<&'a Bound<'py, PyAny>>,
    pub(super) negative_ttl: Option<&'a Bound<'py, PyAny>>,
    pub(super) stale_while_revalidate: Option<&'a Bound<'py, PyAny>>,
    pub(super) stale_if_error: Option<&'a Bound<'py, PyAny>>,
    pub(super) early: Option<&'a Bound<'py, PyAny>>,
    pub(super) lock: Together,
}

/// Who computes only once together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Together {
    /// Nobody: each call that misses computes.
    Nobody,
    /// All threads and tasks of the process.
    Process,
    /// All processes that share the file.
    Machine,
}

impl FromPyObject<'_, '_> for Together {
    type Error = PyErr;

    /// `lock=`: `"thread"`, `"process"` or `None`.
    fn extract(given: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        if given.is_none() {
            return Ok(Self::Nobody);
        }
        match given.extract::<&str>() {
            Ok("thread") => Ok(Self::Process),
            Ok("process") => Ok(Self::Machine),
            _ => Err(InvalidSettingError::new_err(format!(
                "lock: {} is none of \"thread\", \"process\" and None",
                given.repr()?
            ))),
        }
    }
}

/// The options, checked.
pub(super) struct Options {
    pub(super) put: Put,
    pub(super) key_builder: Option<Py<PyAny>>,
    /// Parameters that are left out of keys.
    pub(super) ignore: Vec<String>,
    /// `cache_exceptions`: classes that are kept, and how long.
    pub(super) exceptions: Option<(Py<PyTuple>, Ttl)>,
    ttl_of: Option<Py<PyAny>>,
    tags_of: Option<Py<PyAny>>,
    condition: Option<Py<PyAny>>,
    jitter: f64,
    /// How long a stale result is served while it is computed anew.
    pub(super) stale_while_revalidate: Option<Ttl>,
    /// How long a stale result takes the place of an exception.
    pub(super) stale_if_error: Option<Ttl>,
    /// Whether a result is computed anew before its time comes.
    pub(super) early: bool,
    pub(super) together: Together,
}

impl Options {
    pub(super) fn parse(raw: &Raw<'_, '_>) -> PyResult<Self> {
        let either = raw.ttl.xor(raw.time_to_live);
        let ttl_of = either.filter(|given| given.is_callable());
        let tags_of = raw.tags.filter(|given| given.is_callable());
        let put = Put::parse(
            raw.ttl.filter(|_| ttl_of.is_none()),
            raw.time_to_live.filter(|_| ttl_of.is_none()),
            raw.version,
            raw.tags.filter(|_| tags_of.is_none()),
            raw.prefer,
        )?;
        let key_builder = function(raw.key_builder, "key_builder", "(function, args, kwargs)")?;
        let ignore = raw.ignore.map_or_else(|| Ok(Vec::new()), names)?;
        if key_builder.is_some() && !ignore.is_empty() {
            return Err(InvalidSettingError::new_err(
                "ignore: the key_builder alone makes the key; leave one of the two out",
            ));
        }
        let negative_ttl = span(raw.negative_ttl, "negative_ttl")?;
        let classes = raw.cache_exceptions.map(exceptions).transpose()?;
        Ok(Self {
            put,
            key_builder,
            ignore,
            exceptions: classes.map(|classes| (classes, negative_ttl.unwrap_or(NEGATIVE_TTL))),
            ttl_of: plain(ttl_of, "time_to_live")?,
            tags_of: plain(tags_of, "tags")?,
            condition: function(raw.condition, "condition", "the result")?,
            jitter: raw.jitter.map_or(Ok(0.0), jitter)?,
            stale_while_revalidate: span(raw.stale_while_revalidate, "stale_while_revalidate")?,
            stale_if_error: span(raw.stale_if_error, "stale_if_error")?,
            early: raw.early.map_or(Ok(false), flag)?,
            together: raw.lock,
        })
    }

    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        let copy = |one: &Option<Py<PyAny>>| one.as_ref().map(|one| one.clone_ref(py));
        Self {
            put: self.put.clone(),
            key_builder: copy(&self.key_builder),
            ignore: self.ignore.clone(),
            exceptions: self
                .exceptions
                .as_ref()
                .map(|(classes, ttl)| (classes.clone_ref(py), *ttl)),
            ttl_of: copy(&self.ttl_of),
            tags_of: copy(&self.tags_of),
            condition: copy(&self.condition),
            jitter: self.jitter,
            stale_while_revalidate: self.stale_while_revalidate,
            stale_if_error: self.stale_if_error,
            early: self.early,
            together: self.together,
        }
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.key_builder)?;
        visit.call(&self.ttl_of)?;
        visit.call(&self.tags_of)?;
        visit.call(&self.condition)?;
        visit.call(self.exceptions.as_ref().map(|(classes, _)| classes))
    }

    /// The tags of a call; `None`: the profile's.
    pub(super) fn tags(
        &self,
        args: &Bound<'_, PyTuple>,
        kwargs: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Option<Vec<String>>> {
        let Some(tags_of) = &self.tags_of else {
            return Ok(self.put.tags.clone());
        };
        let tags = halt::call(tags_of.bind(args.py()), args, kwargs)?;
        if tags.is_none() {
            return Ok(None);
        }
        arguments::tags(&tags).map(Some)
    }

    /// Whether a result is to be kept at all.
    pub(super) fn admits(&self, result: &Bound<'_, PyAny>) -> PyResult<bool> {
        match &self.condition {
            Some(condition) => {
                halt::call(condition.bind(result.py()), (result,), None)?.is_truthy()
            }
            None => Ok(true),
        }
    }

    /// How long a result is to be kept; `None`: as long as the profile says.
    pub(super) fn ttl(&self, result: &Bound<'_, PyAny>) -> PyResult<Option<Ttl>> {
        let Some(ttl_of) = &self.ttl_of else {
            return Ok(self.put.ttl);
        };
        let ttl = halt::call(ttl_of.bind(result.py()), (result,), None)?;
        if ttl.is_none() {
            return Ok(None);
        }
        arguments::one_ttl(&ttl).map(Some)
    }

    /// How long a stale result is of any use.
    pub(super) fn grace(&self) -> Option<Ttl> {
        let length = |ttl: &Ttl| match ttl {
            Ttl::Micros(micros) => *micros,
            Ttl::Never => i64::MAX,
        };
        let both = [self.stale_while_revalidate, self.stale_if_error];
        both.into_iter().flatten().max_by_key(length)
    }

    /// Whether a result is to be computed anew now, at the latest when its time comes: the sooner,
    /// the longer that takes, and by chance, so that not all who hold it do it at once. After
    /// Vattani, Chierichetti and Lowenstein, "Optimal Probabilistic Cache Stampede Prevention"
    /// (VLDB 2015), with beta = 1.
    pub(super) fn is_due(&self, meta: &EntryMeta, now: impl FnOnce() -> Timestamp) -> bool {
        if !self.early || meta.compute_us == 0 || meta.expire_at == Timestamp::NEVER {
            return false;
        }
        #[expect(clippy::cast_precision_loss, reason = "microseconds of computing")]
        let lead = meta.compute_us as f64 * -(1.0 - random()).ln();
        #[expect(clippy::cast_precision_loss, reason = "as above")]
        let left = meta.expire_at.0.saturating_sub(now().0) as f64;
        lead >= left
    }

    /// A time to live with the jitter in it. `default`: what an open one comes to.
    pub(super) fn spread(&self, ttl: Option<Ttl>, default: impl FnOnce() -> Ttl) -> Option<Ttl> {
        if self.jitter == 0.0 {
            return ttl;
        }
        match ttl.unwrap_or_else(default) {
            Ttl::Micros(micros) if micros > 0 => Some(Ttl::Micros(vary(micros, self.jitter))),
            kept => Some(kept),
        }
    }
}

/// A random number, at least 0 and below 1.
fn random() -> f64 {
    // The time too: a forked child has its parent's random keys.
    let random = RandomState::new().hash_one((SystemTime::now(), std::process::id()));
    #[expect(clippy::cast_precision_loss, reason = "53 random bits")]
    let fraction = (random >> 11) as f64 / (1_u64 << 53) as f64;
    fraction
}

/// A random time between `1 - jitter` and `1 + jitter` times this one.
fn vary(micros: i64, jitter: f64) -> i64 {
    let factor = jitter.mul_add(2.0_f64.mul_add(random(), -1.0), 1.0);
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a time to live is far below what a float counts exactly"
    )]
    let varied = (micros as f64 * factor) as i64;
    varied.max(1)
}

fn function(
    given: Option<&Bound<'_, PyAny>>,
    option: &str,
    arguments: &str,
) -> PyResult<Option<Py<PyAny>>> {
    match given {
        Some(given) if !given.is_callable() => Err(InvalidSettingError::new_err(format!(
            "{option}: {} cannot be called; give a function of {arguments}",
            given.repr()?
        ))),
        given => plain(given, option),
    }
}

/// A function that nobody would await, were it one of coroutines.
fn plain(given: Option<&Bound<'_, PyAny>>, option: &str) -> PyResult<Option<Py<PyAny>>> {
    let Some(given) = given else { return Ok(None) };
    let inspect = given.py().import("inspect")?;
    if inspect
        .call_method1("iscoroutinefunction", (given,))?
        .extract()?
    {
        return Err(InvalidSettingError::new_err(format!(
            "{option}: {} is a coroutine function, which nobody awaits here; give a plain function",
            given.repr()?
        )));
    }
    Ok(Some(given.clone().unbind()))
}

fn flag(given: &Bound<'_, PyAny>) -> PyResult<bool> {
    given.extract::<bool>().map_err(|_| {
        let given = given
            .repr()
            .map_or_else(|_| String::from("?"), |it| it.to_string());
        InvalidSettingError::new_err(format!("early: {given} is neither True nor False"))
    })
}

/// The names in `ignore`: several, or one as it is.
fn names(given: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    if let Ok(name) = given.cast::<PyString>() {
        return Ok(vec![name.extract()?]);
    }
    let names = given
        .try_iter()
        .and_then(|names| names.map(|name| name?.extract::<String>()).collect());
    match names {
        Ok(names) => Ok(names),
        Err(_) => Err(InvalidSettingError::new_err(format!(
            "ignore: {} is not a tuple of names of parameters, such as (\"self\",)",
            given.repr()?
        ))),
    }
}

fn jitter(given: &Bound<'_, PyAny>) -> PyResult<f64> {
    match given.extract::<f64>() {
        Ok(jitter) if (0.0..1.0).contains(&jitter) && !given.is_instance_of::<PyBool>() => {
            Ok(jitter)
        }
        _ => Err(InvalidSettingError::new_err(format!(
            "jitter: {} is not a part of the time to live; give 0 <= jitter < 1, such as 0.1",
            given.repr()?
        ))),
    }
}

/// One class of exceptions, or a tuple of them.
fn exceptions(given: &Bound<'_, PyAny>) -> PyResult<Py<PyTuple>> {
    let py = given.py();
    let classes = match given.cast::<PyTuple>() {
        Ok(classes) => classes.clone(),
        Err(_) => PyTuple::new(py, [given])?,
    };
    let base = py.get_type::<PyException>();
    for class in classes.iter() {
        let fits = class
            .cast::<PyType>()
            .is_ok_and(|class| class.is_subclass(&base).unwrap_or(false));
        if !fits {
            return Err(InvalidSettingError::new_err(format!(
                "cache_exceptions: {} is not a class of exceptions; give subclasses of Exception, \
                 one or a tuple of them",
                class.repr()?
            )));
        }
    }
    Ok(classes.unbind())
}

/// A time that goes by another name than the time to live.
fn span(given: Option<&Bound<'_, PyAny>>, option: &str) -> PyResult<Option<Ttl>> {
    let parsed = given.map(arguments::one_ttl).transpose();
    parsed.map_err(|error| {
        let message = given.map_or_else(String::new, |given| error.value(given.py()).to_string());
        let reason = message
            .split_once(": ")
            .map_or(&*message, |(_, reason)| reason);
        InvalidSettingError::new_err(format!("{option}: {reason}"))
    })
}
