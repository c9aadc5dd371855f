//! How an entry is to be written: the parameters that `set`, `set_many` and the decorator share;
//! and how one is.

use std::sync::Arc;

use pyo3::prelude::*;

use super::arguments;
use super::errand::{Answer, Lane};
use super::error::{CachetronomyError, SerializationError};
use super::shared::{Live, Shared};
use super::value::{self, Prefer};
use crate::cache::{Cache, Draft, Part};
use crate::error::Result;
use crate::freshness::Commit;
use crate::store::fence::Watch;
use crate::time::Ttl;

/// How an entry is to be written; what is not given is the active profile's.
#[derive(Clone)]
pub(super) struct Put {
    pub(super) ttl: Option<Ttl>,
    /// Not given: that of the value's class.
    pub(super) version: Option<i64>,
    pub(super) tags: Option<Vec<String>>,
    pub(super) prefer: Option<Prefer>,
    pub(super) compute_us: i64,
    /// The decorated function whose entry it is, where the key does not tell.
    pub(super) function: Option<Arc<str>>,
    /// How long a stale copy is of use to it.
    pub(super) grace: Option<Ttl>,
}

impl Put {
    /// The parameters of `set`, `set_many` and the decorator, checked.
    pub(super) fn parse(
        ttl: Option<&Bound<'_, PyAny>>,
        time_to_live: Option<&Bound<'_, PyAny>>,
        version: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        prefer: Option<&str>,
    ) -> PyResult<Self> {
        Ok(Self {
            ttl: arguments::ttl(ttl, time_to_live)?,
            version: arguments::version(version)?,
            tags: tags.map(arguments::tags).transpose()?,
            prefer: arguments::format(prefer)?,
            compute_us: 0,
            function: None,
            grace: None,
        })
    }

    /// What a write that begins now does not say itself, filled in.
    pub(super) fn begin<V>(&self, cache: &Cache<V>) -> Part {
        cache
            .begin_write(self.ttl, self.tags.as_deref())
            .of_function(self.function.clone(), self.grace)
    }

    /// Whether nothing is to be kept.
    pub(super) fn is_void(&self) -> bool {
        self.ttl.is_some_and(Ttl::is_zero)
    }
}

/// A value that is encoded and waits to be stored.
pub(super) struct PutWork {
    shared: Arc<Shared>,
    key: String,
    /// Taken when it enters memory.
    value: Option<Live>,
    draft: Draft,
    /// Of a value that was computed: it is not stored if its key was changed meanwhile.
    watch: Option<Arc<Watch>>,
    /// Whether it is the result of a decorated function, which must not be lost.
    is_result: bool,
}

/// What a write comes to.
pub(super) enum Planned {
    /// Nothing is stored.
    Nothing,
    /// Nothing is kept, and what is there goes.
    Removal(String),
    /// A value is stored.
    Put(PutWork),
}

impl PutWork {
    /// Stores it, then keeps it in memory.
    pub(super) fn store_now(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let stored = self.shared.detached(py, |cache| match &self.watch {
            Some(watch) => cache.store_computed(&self.key, &self.draft, watch),
            None => cache.store(&[(&self.key, &self.draft)]).map(Some),
        });
        self.finish(py, stored)
    }

    /// Stores all of one client, in one transaction.
    pub(super) fn store_all(puts: Vec<Self>) -> Vec<Answer> {
        let Some(shared) = puts.first().map(|put| Arc::clone(&put.shared)) else {
            return Vec::new();
        };
        let group: Vec<_> = puts
            .iter()
            .map(|put| (put.key.as_str(), &put.draft, put.watch.as_deref()))
            .collect();
        let stored = shared.cache.store_group(&group);
        puts.into_iter()
            .zip(stored)
            .map(|(mut put, stored)| -> Answer {
                // At once: after the next commit memory could not tell whether it is still the
                // newest. What leaves is dropped where a destructor may run.
                let (stored, left) = match stored {
                    Ok(Some(commit)) => (Ok(None), put.keep(commit)),
                    other => (other, Vec::new()),
                };
                Box::new(move |py| {
                    drop(left);
                    put.finish(py, stored)
                })
            })
            .collect()
    }

    /// Takes the value into memory.
    fn keep(&mut self, commit: Commit) -> Vec<Live> {
        let value = self.value.take();
        value.map_or_else(Vec::new, |value| {
            self.shared
                .cache
                .keep(&self.key, value, &self.draft, commit)
        })
    }

    fn finish(mut self, py: Python<'_>, stored: Result<Option<Commit>>) -> PyResult<Py<PyAny>> {
        match stored {
            Ok(Some(commit)) => {
                drop(self.keep(commit));
                Ok(py.None())
            }
            Ok(None) => Ok(py.None()),
            Err(_) if self.is_result && self.shared.has_exited() => Ok(py.None()),
            Err(error) => match &self.value {
                Some(value) if self.is_result => Err(carry(error.into(), value.bind(py))?),
                _ => Err(error.into()),
            },
        }
    }
}

/// The error with the result that it is about.
pub(super) fn carry(error: PyErr, value: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let py = value.py();
    if error.is_instance_of::<CachetronomyError>(py) {
        error.value(py).setattr("value", value)?;
    }
    Ok(error)
}

impl Planned {
    /// It is the result of a decorated function.
    pub(super) fn of_function(self) -> Self {
        match self {
            Self::Put(put) => Self::Put(PutWork {
                is_result: true,
                ..put
            }),
            other => other,
        }
    }
}

impl Shared {
    /// Encodes a value that is to be stored; `watch`: of one that was computed.
    pub(super) fn plan_put(
        self: &Arc<Self>,
        key: &str,
        value: &Bound<'_, PyAny>,
        put: &Put,
        watch: Option<&Arc<Watch>>,
    ) -> PyResult<Planned> {
        self.begin(value.py())?;
        if self.switch.is_off() {
            return Ok(Planned::Nothing);
        }
        if put.is_void() {
            return Ok(Planned::Removal(String::from(key)));
        }
        let part = put.begin(&self.cache);
        Ok(Planned::Put(PutWork {
            shared: Arc::clone(self),
            key: String::from(key),
            value: Some(value.clone().unbind()),
            draft: self.encode(key, value, put, &part)?,
            watch: watch.map(Arc::clone),
            is_result: false,
        }))
    }

    /// Carries a write out.
    pub(super) fn carry_out(
        self: &Arc<Self>,
        py: Python<'_>,
        planned: Planned,
    ) -> PyResult<Py<PyAny>> {
        match planned {
            Planned::Nothing => self.answer(py, py.None()),
            Planned::Removal(key) => self.remove_all(py, vec![key], |py, _| Ok(py.None())),
            Planned::Put(put) => self.run_put(py, put),
        }
    }

    /// As [`Shared::carry_out`] for a coroutine function, with either client: an awaitable where an
    /// event loop runs.
    pub(super) fn carry_out_aside(
        self: &Arc<Self>,
        py: Python<'_>,
        planned: Planned,
    ) -> PyResult<Py<PyAny>> {
        match planned {
            Planned::Nothing => Ok(py.None()),
            Planned::Removal(key) => self.run_aside(
                py,
                (Lane::Write, false),
                move |cache| cache.delete(&[&key]).map(|_| key),
                |py, shared, key| {
                    drop(shared.cache.forget([key.as_str()]));
                    Ok(py.None())
                },
            ),
            Planned::Put(put) => self.put_aside(py, put),
        }
    }

    pub(super) fn encode(
        &self,
        key: &str,
        value: &Bound<'_, PyAny>,
        put: &Put,
        part: &Part,
    ) -> PyResult<Draft> {
        let version = match put.version {
            Some(version) => version,
            None => value::class_version(value)?.unwrap_or(1),
        };
        let prefer = put.prefer.as_ref().or(self.serializer.as_ref());
        let (data, format) =
            value::encode(value, prefer).map_err(|error| name_key(key, error, value.py()))?;
        Ok(self
            .cache
            .draft(data, format.as_str(), part, version, put.compute_us))
    }
}

/// Says which key a value was refused for.
#[cold]
fn name_key(key: &str, error: PyErr, py: Python<'_>) -> PyErr {
    if !error.is_instance_of::<SerializationError>(py) {
        return error;
    }
    let named = SerializationError::new_err(format!("key {key:?}: {}", error.value(py)));
    named.set_cause(py, Some(error));
    named
}
