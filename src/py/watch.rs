//! For `get_or_compute`: a value is not stored if its key was changed while it was computed.

use std::sync::Arc;

use pyo3::prelude::*;

use super::arguments;
use super::client::Client;
use super::flight::Flight;
use super::put::Put;
use crate::store::fence::Watch;

/// Whether a key was changed since this was made.
#[pyclass(name = "_Watch", module = "cachetronomy._core", frozen)]
pub(crate) struct KeyWatch(Arc<Watch>);

#[pymethods]
impl KeyWatch {
    /// Who comes after a change does not wait for this flight.
    fn outdates(&self, flight: &Flight) {
        flight.outdated_by(&self.0);
    }
}

#[pymethods]
impl Client {
    /// Watches a key from now on, and tags that its value is to have.
    fn _watch(
        &self,
        py: Python<'_>,
        key: &str,
        tags: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<KeyWatch> {
        let tags = tags.map(arguments::tags).transpose()?;
        let watch = self.begin(py)?.cache.watch(key, tags.as_deref(), None);
        Ok(KeyWatch(Arc::new(watch)))
    }

    /// As `set`, unless the key was changed since the watch began.
    #[expect(clippy::too_many_arguments, reason = "those of `set`")]
    fn _set_computed(
        &self,
        watch: &KeyWatch,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        time_to_live: Option<&Bound<'_, PyAny>>,
        version: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        prefer: Option<&str>,
        ttl: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let key = arguments::key(key)?;
        let put = Put::parse(ttl, time_to_live, version, tags, prefer)?;
        let shared = self.begin(value.py())?;
        let planned = shared.plan_put(key, value, &put, Some(&watch.0))?;
        shared.carry_out(value.py(), planned)
    }
}
