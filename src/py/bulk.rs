//! Many keys at once: one transaction of the store for what memory does not have.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments;
use super::put::Put;
use super::shared::Shared;
use crate::cache::Draft;

impl Shared {
    /// The values of those keys that are there.
    pub(super) fn get_many<'py>(
        &self,
        py: Python<'py>,
        keys: &[Bound<'py, PyAny>],
    ) -> PyResult<Bound<'py, PyDict>> {
        self.begin(py)?;
        let found = PyDict::new(py);
        if self.switch.is_off() {
            return Ok(found);
        }
        let mut missing: Vec<(&Bound<'py, PyAny>, &str)> = Vec::new();
        for key in keys {
            let text = arguments::key(key)?;
            match self.peek(py, self.cache.hash(text), text, None, true) {
                Some(value) => found.set_item(key, value)?,
                None => missing.push((key, text)),
            }
        }
        let texts: Vec<&str> = missing.iter().map(|(_, text)| *text).collect();
        let arrivals = self.reading(py, |cache| cache.fetch_many(&texts))?;
        for ((key, text), arrival) in missing.into_iter().zip(arrivals) {
            if let Some(arrival) = arrival
                && let Some(value) = self.receive(py, text, arrival, true, None)?
            {
                found.set_item(key, value)?;
            }
        }
        Ok(found)
    }

    /// Stores every item of a dict that nobody else changes.
    pub(super) fn put_many(&self, items: &Bound<'_, PyDict>, put: &Put) -> PyResult<()> {
        let py = items.py();
        let pairs: Vec<_> = items.iter().collect();
        let keys: Vec<&str> = pairs
            .iter()
            .map(|(key, _)| arguments::key(key))
            .collect::<PyResult<_>>()?;
        self.begin(py)?;
        if self.switch.is_off() {
            return Ok(());
        }
        if put.is_void() {
            return self.remove(py, &keys).map(drop);
        }
        let part = put.begin(&self.cache);
        let mut drafts = Vec::with_capacity(pairs.len());
        for (key, (_, value)) in keys.iter().zip(&pairs) {
            drafts.push((*key, self.encode(key, value, put, &part)?));
        }
        let named: Vec<(&str, &Draft)> = drafts.iter().map(|(key, draft)| (*key, draft)).collect();
        let commit = self.detached(py, |cache| cache.store(&named))?;
        for ((key, draft), (_, value)) in drafts.iter().zip(&pairs) {
            drop(self.cache.keep(key, value.clone().unbind(), draft, commit));
        }
        Ok(())
    }
}
