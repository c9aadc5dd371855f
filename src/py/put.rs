//! How an entry is to be written: the parameters that `set`, `set_many` and the decorator share;
//! and how one is.

use std::sync::Arc;

use pyo3::prelude::*;

use super::arguments;
use super::error::SerializationError;
use super::shared::Shared;
use super::value::{self, Prefer};
use crate::cache::{Cache, Draft, Part};
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

impl Shared {
    /// Stores one value, then keeps it in memory.
    pub(super) fn put(&self, key: &str, value: &Bound<'_, PyAny>, put: &Put) -> PyResult<()> {
        self.put_computed(key, value, put, None)
    }

    /// As [`Shared::put`] of a value that was computed, unless its key was changed meanwhile.
    pub(super) fn put_computed(
        &self,
        key: &str,
        value: &Bound<'_, PyAny>,
        put: &Put,
        watch: Option<&Watch>,
    ) -> PyResult<()> {
        let py = value.py();
        self.begin(py)?;
        if self.switch.is_off() {
            return Ok(());
        }
        if put.is_void() {
            self.remove(py, &[key])?;
            return Ok(());
        }
        let part = put.begin(&self.cache);
        let draft = self.encode(key, value, put, &part)?;
        let commit = self.detached(py, |cache| match watch {
            Some(watch) => cache.store_computed(key, &draft, watch),
            None => cache.store(&[(key, &draft)]).map(Some),
        })?;
        let Some(commit) = commit else {
            return Ok(());
        };
        drop(self.cache.keep(key, value.clone().unbind(), &draft, commit));
        Ok(())
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
