//! The results of decorated functions: found, judged, stored; exceptions that are kept, too.

use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::decorator::CachedFunction;
use super::error::{CacheClosedError, SerializationError};
use super::memo::{Arguments, Key};
use super::put::{Planned, Put, carry};
use super::shared::{Glimpse, Live};
use super::ticket::Ticket;
use super::value;
use super::{arguments, failure, hot_keys};
use crate::cache::{Arrival, Ask};
use crate::entry::EntryMeta;
use crate::time::Ttl;

/// What the store has of a result.
enum Found<'py> {
    /// It is live.
    Value(Bound<'py, PyAny>),
    /// Its time has come, but it may be of use.
    Stale(Arrival),
    Nothing,
    /// To look would take longer than the reader has.
    Unknown,
}

/// How long a reader of the store has.
pub(super) enum Reading {
    /// As long as it takes.
    Patient,
    /// Some microseconds.
    AtOnce,
    /// Somebody has read it.
    Given(Option<Arrival>),
}

/// What there is before anything is computed.
pub(super) enum Outset<'py> {
    /// A result after all.
    Known(Bound<'py, PyAny>),
    /// One that is stale, and to be computed anew in the background.
    Stale(Bound<'py, PyAny>),
    /// Nothing.
    Missed(Box<Ticket>),
    /// To look would take longer than the reader has.
    Unknown,
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
        reading: Reading,
    ) -> PyResult<Option<(Bound<'py, PyAny>, bool)>> {
        let py = args.py();
        let hash = self.shared()?.cache.hash(key);
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
        if let Some((value, is_due)) = self.peek(py, hash, key)? {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(Some((value.into_bound(py), is_due)));
        }
        if self.options.stale_while_revalidate.is_none() {
            return Ok(None);
        }
        match self.read(py, key, false, reading)? {
            Found::Value(value) => Ok(Some((value, false))),
            Found::Stale(stale) => {
                let value = self.serve_stale(py, key, &stale)?;
                Ok(value.map(|value| (value, true)))
            }
            Found::Nothing | Found::Unknown => Ok(None),
        }
    }

    /// The value of a stale row that may be served while it is computed anew.
    fn serve_stale<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        stale: &Arrival,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        if !self.may_serve(stale) {
            return Ok(None);
        }
        let value = self.revive(py, key, stale)?;
        if value.is_some() {
            self.shared()?.cache.count_hit(key, &stale.row);
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
        Ok(value)
    }

    /// The value in memory, and whether it is to be computed anew.
    fn peek(&self, py: Python<'_>, hash: u64, key: &str) -> PyResult<Option<(Py<PyAny>, bool)>> {
        let version = Some(self.version.load(Ordering::Relaxed));
        let shared = self.shared()?;
        let now = || shared.cache.now();
        let share =
            |value: &Live, meta: &EntryMeta| (value.clone_ref(py), self.options.is_due(meta, now));
        Ok(shared.peek_as(py, hash, key, version, true, share))
    }

    /// What there is before anything is computed.
    pub(super) fn set_out<'py>(
        &self,
        key: &str,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
        reading: Reading,
    ) -> PyResult<Outset<'py>> {
        let py = args.py();
        let stale = match self.read(py, key, true, reading)? {
            Found::Value(value) => return Ok(Outset::Known(value)),
            Found::Stale(stale) => {
                if let Some(value) = self.serve_stale(py, key, &stale)? {
                    return Ok(Outset::Stale(value));
                }
                self.shared()?.cache.count_miss();
                self.misses.fetch_add(1, Ordering::Relaxed);
                Some(stale).filter(|stale| self.may_rescue(stale))
            }
            Found::Nothing => None,
            Found::Unknown => return Ok(Outset::Unknown),
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
        match self.read(py, key, false, Reading::Patient)? {
            Found::Value(value) => Ok(Some(value)),
            Found::Stale(_) | Found::Nothing | Found::Unknown => Ok(None),
        }
    }

    /// The stored result, if there is one; an exception that is kept in its place is the error.
    /// `counts`: whether there being none is a miss to be counted. A stale one is not counted here.
    fn read<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        counts: bool,
        reading: Reading,
    ) -> PyResult<Found<'py>> {
        let found = self.find(py, key, counts, reading)?;
        match &found {
            Ok(Found::Value(_)) | Err(_) => {
                self.hits.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Found::Nothing) if counts => {
                self.misses.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Found::Nothing | Found::Stale(_) | Found::Unknown) => {}
        }
        found
    }

    /// What the function asks the store for.
    pub(super) fn ask(&self, counts: bool) -> Ask {
        Ask {
            version: Some(self.version.load(Ordering::Relaxed)),
            grace: self.options.grace().unwrap_or(Ttl::Micros(0)),
            counts,
        }
    }

    /// As [`CachedFunction::read`], uncounted; an exception that is kept is the inner error.
    fn find<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        counts: bool,
        reading: Reading,
    ) -> PyResult<PyResult<Found<'py>>> {
        let shared = self.shared()?;
        // First: the promise may have a version that was not known until now.
        let rebuild = self.rebuild(py)?;
        let ask = self.ask(counts);
        let hash = shared.cache.hash(key);
        if let Some(value) = shared.peek(py, hash, key, ask.version, true) {
            return Ok(Ok(Found::Value(value.into_bound(py))));
        }
        let found = match reading {
            Reading::Patient => shared.fetch(py, key, &ask)?,
            Reading::AtOnce if shared.offload_reads => return Ok(Ok(Found::Unknown)),
            Reading::AtOnce => match shared.fetch_at_once(py, key, &ask)? {
                Glimpse::Found(found) => found,
                Glimpse::Unknown => return Ok(Ok(Found::Unknown)),
            },
            Reading::Given(found) => shared.settle(py, key, &ask, found),
        };
        let Some(arrival) = found else {
            return Ok(Ok(Found::Nothing));
        };
        let is_stale = shared.cache.staleness(&arrival.row).is_some();
        if arrival.row.is_value() {
            if is_stale {
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
        self.shared()?.make(py, key, &stale.row, rebuild)
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
        let shared = self.shared()?;
        let profiles = || shared.cache.active().ttl;
        Ok(Some(Put {
            ttl: self.options.spread(ttl, profiles),
            tags: ticket.tags.clone(),
            compute_us,
            function: ticket.function.clone(),
            grace: self.options.grace(),
            ..self.options.put.clone()
        }))
    }

    /// Stores a result, now.
    pub(super) fn store(
        &self,
        ticket: &Ticket,
        value: &Bound<'_, PyAny>,
        put: &Put,
    ) -> PyResult<()> {
        let py = value.py();
        match self.plan_store(ticket, value, put)? {
            Planned::Nothing => Ok(()),
            Planned::Removal(key) => self.shared()?.remove(py, &[&key]).map(drop),
            Planned::Put(put) => put.store_now(py).map(drop),
        }
    }

    /// How a result is to be stored. One that cannot be is not lost: the error carries it.
    pub(super) fn plan_store(
        &self,
        ticket: &Ticket,
        value: &Bound<'_, PyAny>,
        put: &Put,
    ) -> PyResult<Planned> {
        let (py, shared) = (value.py(), self.shared()?);
        let mut put = put.clone();
        if put.version.is_none() {
            put.version = value::class_version(value)?;
            let version = put.version.unwrap_or(1);
            self.version.store(version, Ordering::Relaxed);
        }
        let planned = self
            .check_promise(value)
            .and_then(|()| shared.plan_put(&ticket.key, value, &put, Some(&ticket.watch)));
        match planned {
            Ok(planned) => Ok(planned.of_function()),
            Err(error) if error.is_instance_of::<CacheClosedError>(py) && shared.has_exited() => {
                Ok(Planned::Nothing)
            }
            Err(error) => Err(carry(error, value)?),
        }
    }
}
