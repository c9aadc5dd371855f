//! The results of decorated functions: found, judged, stored; exceptions that are kept, too.

use std::sync::atomic::Ordering;

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::decorator::CachedFunction;
use super::error::{CacheClosedError, CachetronomyError, SerializationError};
use super::memo::{Arguments, Key};
use super::put::Put;
use super::ticket::Ticket;
use super::value;
use super::{arguments, failure, hot_keys, log};
use crate::cache::{Arrival, Ask};
use crate::time::Ttl;

/// What the store has of a result.
enum Found<'py> {
    /// It is live.
    Value(Bound<'py, PyAny>),
    /// Its time has come, but it may be of use.
    Stale(Arrival),
    Nothing,
}

/// What there is before anything is computed.
pub(super) enum Outset<'py> {
    /// A result after all.
    Known(Bound<'py, PyAny>),
    /// Nothing.
    Missed(Box<Ticket>),
}

impl CachedFunction {
    /// What makes of a stored result what the function promised. Asked before the store is: the
    /// promise may have a version too.
    fn rebuild<'py>(&self, py: Python<'py>) -> PyResult<Option<&Bound<'py, PyAny>>> {
        let made = if let Some(made) = self.rebuild.get() {
            made
        } else {
            let module = py.import("cachetronomy._rebuild")?;
            let made = module.call_method1("rebuilder", (&self.function,))?;
            if self.options.put.version.is_none() {
                let promised = module.call_method1("promised_version", (&self.function,))?;
                if let Ok(Some(version)) = arguments::version(Some(&promised)) {
                    self.version.store(version, Ordering::Relaxed);
                }
            }
            let made: Option<Bound<'py, PyAny>> = made.extract()?;
            // Of two threads that make it, the first one wins.
            self.rebuild.get_or_init(|| made.map(Bound::unbind))
        };
        Ok(made.as_ref().map(|made| made.bind(py)))
    }

    /// What a caller gets without anybody computing: the value in memory or, with
    /// `stale_while_revalidate`, a stale one; and whether it is to be computed anew. Remembers the
    /// key of the arguments.
    pub(super) fn glance<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
        key: &str,
    ) -> PyResult<Option<(Bound<'py, PyAny>, bool)>> {
        let py = args.py();
        let hash = self.shared.cache.hash(key);
        if kwargs.is_none()
            && self.options.key_builder.is_none()
            && self.name.is_settled_for(py, key)
        {
            let arguments = Arguments {
                object: None,
                rest: args.as_slice(),
            };
            let text = key.into();
            self.memo.insert(arguments, Key { text, hash });
        }
        if let Some((value, is_due)) = self.peek(py, hash, key) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Some((value.into_bound(py), is_due)));
        }
        if self.options.stale_while_revalidate.is_none() {
            return Ok(None);
        }
        match self.read(py, key, false)? {
            Found::Value(value) => Ok(Some((value, false))),
            Found::Stale(stale) if self.may_serve(&stale) => {
                let value = self.revive(py, key, &stale)?;
                if value.is_some() {
                    self.shared.cache.count_hit(key, &stale.row);
                    self.hits.fetch_add(1, Ordering::Relaxed);
                }
                Ok(value.map(|value| (value, true)))
            }
            Found::Stale(_) | Found::Nothing => Ok(None),
        }
    }

    /// The value in memory, and whether it is to be computed anew.
    fn peek(&self, py: Python<'_>, hash: u64, key: &str) -> Option<(Py<PyAny>, bool)> {
        let version = Some(self.version.load(Ordering::Relaxed));
        let now = || self.shared.cache.now();
        self.shared
            .peek_as(py, hash, key, version, true, |value, meta| {
                (value.clone_ref(py), self.options.is_due(meta, now))
            })
    }

    /// What there is before anything is computed.
    pub(super) fn set_out<'py>(
        &self,
        key: &str,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Outset<'py>> {
        let stale = match self.read(args.py(), key, true)? {
            Found::Value(value) => return Ok(Outset::Known(value)),
            Found::Stale(stale) => Some(stale).filter(|stale| self.may_rescue(stale)),
            Found::Nothing => None,
        };
        self.ticket_for(String::from(key), args, kwargs, stale)
            .map(|ticket| Outset::Missed(Box::new(ticket)))
    }

    /// What somebody else has stored since this one missed.
    pub(super) fn look_again<'py>(
        &self,
        py: Python<'py>,
        key: &str,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.read(py, key, false)? {
            Found::Value(value) => Ok(Some(value)),
            Found::Stale(_) | Found::Nothing => Ok(None),
        }
    }

    /// The stored result, if there is one; an exception that is kept in its place is the error.
    /// `counts`: whether there being none is a miss to be counted.
    fn read<'py>(&self, py: Python<'py>, key: &str, counts: bool) -> PyResult<Found<'py>> {
        let (found, is_hit) = match self.find(py, key, counts)? {
            Ok(found) => {
                let is_hit = matches!(found, Found::Value(_));
                (Ok(found), is_hit)
            }
            Err(kept) => (Err(kept), true),
        };
        if is_hit {
            self.hits.fetch_add(1, Ordering::Relaxed);
        } else if counts {
            self.misses.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    /// As [`CachedFunction::read`], uncounted; an exception that is kept is the inner error.
    fn find<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        counts: bool,
    ) -> PyResult<PyResult<Found<'py>>> {
        let shared = &self.shared;
        // First: the promise may have a version that was not known until now.
        let rebuild = self.rebuild(py)?;
        let version = Some(self.version.load(Ordering::Relaxed));
        let hash = shared.cache.hash(key);
        if let Some(value) = shared.peek(py, hash, key, version, true) {
            return Ok(Ok(Found::Value(value.into_bound(py))));
        }
        let ask = Ask {
            version,
            grace: self.options.grace().unwrap_or(Ttl::Micros(0)),
            counts,
        };
        let Some(arrival) = shared.fetch(py, key, &ask)? else {
            return Ok(Ok(Found::Nothing));
        };
        let is_stale = shared.cache.staleness(&arrival.row).is_some();
        if arrival.row.is_value() {
            if is_stale {
                if counts {
                    shared.cache.count_miss();
                }
                return Ok(Ok(Found::Stale(arrival)));
            }
            let value = shared.receive(py, key, arrival, true, rebuild)?;
            let value = value.map(|value| value.into_bound(py));
            return Ok(Ok(value.map_or(Found::Nothing, Found::Value)));
        }
        let kept = match &self.options.exceptions {
            Some((classes, _)) if !is_stale => failure::read(&arrival.row.data, classes.bind(py))?,
            _ => None,
        };
        let Some(kept) = kept else {
            if counts {
                shared.cache.count_miss();
            }
            return Ok(Ok(Found::Nothing));
        };
        shared.cache.count_hit(key, &arrival.row);
        if hot_keys::is_watched() {
            hot_keys::tell(py, key);
        }
        Ok(Err(kept))
    }

    /// The value of a stale row, which memory never holds.
    pub(super) fn revive<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        stale: &Arrival,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let rebuild = self.rebuild(py)?;
        self.shared.make(py, key, &stale.row, rebuild)
    }

    /// Refuses an instance that the annotation would not make of what is stored for it: a subclass
    /// of the class that it names, say.
    fn check_promise(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let Some(rebuild) = self.rebuild(value.py())? else {
            return Ok(());
        };
        let module = value.py().import("cachetronomy._rebuild")?;
        let lost = module.call_method1("lost", (rebuild, value))?;
        if lost.is_none() {
            return Ok(());
        }
        Err(SerializationError::new_err(format!(
            "the result of {}: {lost}; annotate the function with the exact class, or return plain \
             values",
            self.name()
        )))
    }

    /// How a result is to be stored; `None`: not at all.
    pub(super) fn judge(
        &self,
        ticket: &Ticket,
        value: &Bound<'_, PyAny>,
        compute_us: i64,
    ) -> PyResult<Option<Put>> {
        if !self.options.admits(value)? {
            return Ok(None);
        }
        let ttl = self.options.ttl(value);
        let ttl = ttl.or_else(|error| Err(carry(error, value)?))?;
        let profiles = || self.shared.cache.active().ttl;
        Ok(Some(Put {
            ttl: self.options.spread(ttl, profiles),
            tags: ticket.tags.clone(),
            compute_us,
            function: ticket.function.clone(),
            grace: self.options.grace(),
            ..self.options.put.clone()
        }))
    }

    /// Stores a result. One that cannot be stored is not lost: the error carries it.
    pub(super) fn store(
        &self,
        ticket: &Ticket,
        value: &Bound<'_, PyAny>,
        put: &Put,
    ) -> PyResult<()> {
        let py = value.py();
        let mut put = put.clone();
        if put.version.is_none() {
            put.version = value::class_version(value)?;
            let version = put.version.unwrap_or(1);
            self.version.store(version, Ordering::Relaxed);
        }
        let stored = self.check_promise(value).and_then(|()| {
            let watch = Some(&ticket.watch);
            self.shared.put_computed(&ticket.key, value, &put, watch)
        });
        let Err(error) = stored else {
            return Ok(());
        };
        if error.is_instance_of::<CacheClosedError>(py) && self.shared.has_exited() {
            return Ok(());
        }
        Err(carry(error, value)?)
    }

    /// The bytes of an exception, and how they are to be stored; `None`: not at all.
    pub(super) fn judge_failure(
        &self,
        py: Python<'_>,
        ticket: &Ticket,
        error: &PyErr,
        compute_us: i64,
    ) -> PyResult<Option<(Vec<u8>, Put)>> {
        let Some((classes, ttl)) = &self.options.exceptions else {
            return Ok(None);
        };
        if ticket.refreshing.is_some() {
            // It would take the place of a result that is of use still.
            return Ok(None);
        }
        let data = match failure::write(error, classes.bind(py)) {
            Ok(data) => data,
            Err(reason) if reason.is_instance_of::<PyException>(py) => {
                self.warn(py, &ticket.key, &reason);
                None
            }
            Err(reason) => return Err(reason),
        };
        let put = Put {
            ttl: self.options.spread(Some(*ttl), || *ttl),
            version: Some(self.version.load(Ordering::Relaxed)),
            tags: ticket.tags.clone(),
            prefer: None,
            compute_us,
            function: ticket.function.clone(),
            grace: None,
        };
        Ok(data.map(|data| (data, put)))
    }

    /// Stores an exception. That it cannot be stored must not take its place.
    pub(super) fn store_failure(&self, py: Python<'_>, ticket: &Ticket, data: &[u8], put: &Put) {
        let (key, watch) = (&ticket.key, &ticket.watch);
        if let Err(reason) = self.shared.put_failure(py, key, data, put, watch)
            && !self.shared.has_exited()
        {
            self.warn(py, key, &reason);
        }
    }

    /// Tells the program's log, once, that an exception was not kept.
    #[cold]
    fn warn(&self, py: Python<'_>, key: &str, reason: &PyErr) {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            let reason = reason.value(py);
            log::warn(
                py,
                &format!("key {key:?}: its exception was not kept: {reason}"),
            );
        }
    }
}

/// The error with the result that it is about.
fn carry(error: PyErr, value: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let py = value.py();
    if error.is_instance_of::<CachetronomyError>(py) {
        error.value(py).setattr("value", value)?;
    }
    Ok(error)
}
