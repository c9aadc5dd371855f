//! How an entry is to be written: the parameters that `set`, `set_many` and the decorator share.

use pyo3::prelude::*;

use super::arguments;
use super::value::Prefer;
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
        })
    }

    /// Whether nothing is to be kept.
    pub(super) fn is_void(&self) -> bool {
        self.ttl.is_some_and(Ttl::is_zero)
    }
}
