//! `get` for an event loop: what takes microseconds is done at once, and the rest elsewhere.

use std::sync::Arc;

use pyo3::prelude::*;

use super::arguments;
use super::client::Client;
use super::errand::Lane;
use super::sentinel::{later, miss};
use super::shared::Glimpse;
use crate::cache::Ask;

#[pymethods]
impl Client {
    /// The value of a key from memory or, where that takes microseconds, from the store: `MISS` if
    /// there is none, `_LATER` if `_load` has to look.
    #[pyo3(signature = (key, model, promote, version))]
    fn _get_at_once<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
        model: Option<&Bound<'py, PyAny>>,
        promote: bool,
        version: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let key = arguments::key(key)?;
        let version = arguments::version(version)?;
        model.map_or(Ok(()), arguments::model)?;
        let Ok(shared) = self.shared() else {
            self.check_usable()?;
            return later(py);
        };
        let hash = shared.cache.hash(key);
        if let Some(value) = shared.peek(py, hash, key, version, promote) {
            return Ok(value.into_bound(py));
        }
        if shared.offload_reads {
            shared.begin(py)?;
            return later(py);
        }
        let ask = Ask {
            version,
            ..Ask::ANY
        };
        let Glimpse::Found(found) = shared.fetch_at_once(py, key, &ask)? else {
            return later(py);
        };
        let value = match found {
            Some(arrival) => shared.receive(py, key, arrival, promote, None)?,
            None => None,
        };
        match value {
            Some(value) => Ok(value.into_bound(py)),
            None => Ok(miss(py)?.into_bound(py).into_any()),
        }
    }

    /// An awaitable of the value of a key in the store, `MISS` if there is none.
    fn _load(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        promote: bool,
        version: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let key: Arc<str> = arguments::key(key)?.into();
        let ask = Ask {
            version: arguments::version(version)?,
            ..Ask::ANY
        };
        let shared = self.begin(py)?;
        let missing = miss(py)?.into_any();
        if shared.switch.is_off() {
            return shared.answer(py, missing);
        }
        let wanted = Arc::clone(&key);
        shared.run(
            py,
            (Lane::Read, true),
            move |cache| cache.fetch_as(&wanted, &ask, true),
            move |py, shared, found| {
                let value = match shared.settle(py, &key, &ask, found) {
                    Some(arrival) => shared.receive(py, &key, arrival, promote, None)?,
                    None => None,
                };
                Ok(value.unwrap_or(missing))
            },
        )
    }
}
