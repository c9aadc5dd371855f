//! Many keys at once: one transaction of the store for what memory does not have.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments;
use super::errand::Lane;
use super::put::Put;
use super::shared::Shared;
use crate::cache::Draft;

impl Shared {
    /// The values of those keys that are there.
    pub(super) fn get_many(
        self: &Arc<Self>,
        py: Python<'_>,
        keys: &[Bound<'_, PyAny>],
    ) -> PyResult<Py<PyAny>> {
        let found = PyDict::new(py);
        if self.switch.is_off() {
            return self.answer(py, found.into_any().unbind());
        }
        let mut missing: Vec<(Py<PyAny>, String)> = Vec::new();
        for key in keys {
            let text = arguments::key(key)?;
            match self.peek(py, self.cache.hash(text), text, None, true) {
                Some(value) => found.set_item(key, value)?,
                None => missing.push((key.clone().unbind(), String::from(text))),
            }
        }
        if missing.is_empty() {
            return self.answer(py, found.into_any().unbind());
        }
        let found = found.unbind();
        self.run(
            py,
            (Lane::Read, true),
            move |cache| {
                let texts: Vec<&str> = missing.iter().map(|(_, text)| text.as_str()).collect();
                let arrivals = cache.fetch_many(&texts)?;
                Ok((missing, arrivals))
            },
            move |py, shared, (missing, arrivals)| {
                for ((key, text), arrival) in missing.into_iter().zip(arrivals) {
                    if let Some(arrival) = arrival
                        && let Some(value) = shared.receive(py, &text, arrival, true, None)?
                    {
                        found.bind(py).set_item(key, value)?;
                    }
                }
                Ok(found.into_any())
            },
        )
    }

    /// Stores every item of a dict that nobody else changes.
    pub(super) fn put_many(
        self: &Arc<Self>,
        items: &Bound<'_, PyDict>,
        put: &Put,
    ) -> PyResult<Py<PyAny>> {
        let py = items.py();
        let mut keys = Vec::with_capacity(items.len());
        for key in items.keys() {
            keys.push(String::from(arguments::key(&key)?));
        }
        if self.switch.is_off() {
            return self.answer(py, py.None());
        }
        if put.is_void() {
            return self.remove_all(py, keys, |py, _| Ok(py.None()));
        }
        let part = put.begin(&self.cache);
        let mut drafts = Vec::with_capacity(keys.len());
        let mut values = Vec::with_capacity(keys.len());
        for (key, value) in keys.into_iter().zip(items.values()) {
            let draft = self.encode(&key, &value, put, &part)?;
            drafts.push((key, draft));
            values.push(value.unbind());
        }
        self.run(
            py,
            (Lane::Write, false),
            move |cache| {
                let named: Vec<(&str, &Draft)> = drafts
                    .iter()
                    .map(|(key, draft)| (key.as_str(), draft))
                    .collect();
                let commit = cache.store(&named)?;
                Ok((drafts, commit))
            },
            move |py, shared, (drafts, commit)| {
                for ((key, draft), value) in drafts.iter().zip(values) {
                    drop(shared.cache.keep(key, value, draft, commit));
                }
                Ok(py.None())
            },
        )
    }
}
