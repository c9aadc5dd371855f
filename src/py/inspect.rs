//! The sync client's view of itself: keys, clearing, counts, statistics, care of the file.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::arguments::{self, Limit};
use super::breath;
use super::client::Client;
use crate::cache::Cache;
use crate::entry::Expired;
use crate::store::Which;

#[pymethods]
impl Client {
    /// Removes what is past its deadline: `[(key, expire_at)]`.
    fn _clear_expired<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let shared = self.begin(py)?;
        let expired = shared.reading(py, Cache::delete_expired)?;
        breath::drop_all(py, shared.cache.forget_expired(&expired));
        let text = |entry: Expired| (entry.key, entry.expire_at.to_string());
        breath::list(py, expired.into_iter().map(text))
    }

    /// Remove entries that have any of the tags or, if `exact_match`, exactly these; return
    /// their keys.
    #[pyo3(signature = (tags, exact_match = false))]
    fn clear_by_tags<'py>(
        &self,
        py: Python<'py>,
        tags: &Bound<'py, PyAny>,
        exact_match: bool,
    ) -> PyResult<Bound<'py, PyList>> {
        let tags = arguments::tags(tags)?;
        let shared = self.begin(py)?;
        let removed = shared.detached(py, |cache| cache.delete_by_tags(&tags, exact_match))?;
        let left = shared.cache.forget(removed.iter().map(String::as_str));
        breath::drop_all(py, left);
        breath::list(py, removed)
    }

    /// Remove the entries that were written under a profile; return their keys.
    fn clear_by_profile<'py>(
        &self,
        py: Python<'py>,
        profile_name: &str,
    ) -> PyResult<Bound<'py, PyList>> {
        let shared = self.begin(py)?;
        let removed = shared.detached(py, |cache| cache.delete_by_profile(profile_name))?;
        let left = shared.cache.forget(removed.iter().map(String::as_str));
        breath::drop_all(py, left);
        breath::list(py, removed)
    }

    /// Return the keys of the live entries in the store.
    fn store_keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        breath::list(py, self.begin(py)?.detached(py, Cache::store_keys)?)
    }

    /// Return the keys of the live entries in memory.
    fn memory_keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        breath::list(py, self.begin(py)?.detached(py, Cache::memory_keys)?)
    }

    /// Return the keys of the live entries in either tier, each once.
    fn all_keys<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        // Memory holds nothing that the store does not.
        self.store_keys(py)
    }

    /// Return the hits of this process: `[(key, count)]`, hottest first.
    #[pyo3(signature = (limit = Limit(None)), text_signature = "($self, limit=None)")]
    fn memory_stats<'py>(&self, py: Python<'py>, limit: Limit) -> PyResult<Bound<'py, PyList>> {
        breath::list(py, self.begin(py)?.cache.memory_stats(limit.0)?)
    }

    /// Return the hottest keys of all processes ever: `[(key, count)]`.
    #[pyo3(signature = (limit = Limit(Some(10))), text_signature = "($self, limit=10)")]
    fn get_hot_keys(&self, py: Python<'_>, limit: Limit) -> PyResult<Vec<(String, i64)>> {
        let shared = self.begin(py)?;
        let rows = shared.reading(py, |cache| cache.accesses(Which::All, limit.0))?;
        Ok(rows.into_iter().map(|row| (row.key, row.count)).collect())
    }

    /// Return a dict of counters of this process since it opened the cache - `memory_hits`,
    /// `store_hits`, `misses`, `hit_ratio` (0 to 1), `sets`, `evictions` (a dict by reason),
    /// `evictions_count`, `expired`, `seconds_saved`, `errors` - and of sizes as they are:
    /// `memory_keys`, `memory_bytes`, `store_keys`, `store_bytes` (of the file), `total_keys`,
    /// `hot_keys`, `profile`. What is in the store is counted by deadlines, without a look at each
    /// row, so that one that cannot be read counts until a sweep or `check(fix=True)` removes it.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        // First, for it may come upon damage, which counts.
        let hot_keys = PyList::new(py, self.get_hot_keys(py, Limit(Some(10)))?)?;
        let stats = self.begin(py)?.detached(py, Cache::stats)?;
        let report = PyDict::new(py);
        report.set_item("memory_hits", stats.memory_hits)?;
        report.set_item("store_hits", stats.store_hits)?;
        report.set_item("misses", stats.misses)?;
        report.set_item("hit_ratio", stats.hit_ratio)?;
        report.set_item("sets", stats.sets)?;
        report.set_item("evictions", stats.evictions)?;
        report.set_item("evictions_count", stats.evictions_count)?;
        report.set_item("expired", stats.expired)?;
        report.set_item("memory_keys", stats.memory_keys)?;
        report.set_item("memory_bytes", stats.memory_bytes)?;
        report.set_item("store_keys", stats.store_keys)?;
        report.set_item("store_bytes", stats.store_bytes)?;
        report.set_item("total_keys", stats.store_keys)?;
        report.set_item("hot_keys", hot_keys)?;
        report.set_item("seconds_saved", stats.seconds_saved)?;
        report.set_item("errors", stats.errors)?;
        report.set_item("profile", &*self.shared()?.cache.active().name)?;
        Ok(report)
    }

    /// Write pending counts and logs to the store.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        Ok(self.begin(py)?.detached(py, Cache::flush_logs)?)
    }

    /// Look for damage in both tiers, the file and every entry; return one line for each finding.
    ///
    /// `fix=True` removes entries that cannot be read, which are misses anyway, and makes the
    /// indexes anew; what it returns is what was found before.
    #[pyo3(signature = (fix = false))]
    fn check(&self, py: Python<'_>, fix: bool) -> PyResult<Vec<String>> {
        Ok(self.begin(py)?.detached(py, |cache| cache.check(fix))?)
    }

    /// Give the free room in the file back to the file system.
    ///
    /// A file of the original package is rewritten, once: other processes wait meanwhile.
    fn vacuum(&self, py: Python<'_>) -> PyResult<()> {
        Ok(self.begin(py)?.detached(py, Cache::vacuum)?)
    }

    /// Copy the whole store, as it is at one moment, to a new file, while it is in use.
    ///
    /// Raises `InvalidSettingError` if the file is there already.
    fn backup(&self, py: Python<'_>, path: &Bound<'_, PyAny>) -> PyResult<()> {
        let path = arguments::path(path, "path")?;
        Ok(self.begin(py)?.detached(py, |cache| cache.backup(&path))?)
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        let count = self.begin(py)?.detached(py, Cache::count)?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// A client is true, however many entries it has.
    #[expect(clippy::unused_self, reason = "the shape of the protocol")]
    fn __bool__(&self) -> bool {
        true
    }

    fn __contains__(&self, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = key.py();
        let key = arguments::key(key)?;
        let shared = self.begin(py)?;
        if shared.switch.is_off() {
            return Ok(false);
        }
        let rows = shared.reading(py, |cache| cache.rows(Which::Key(key), None, true))?;
        match rows.first() {
            // What cannot be decoded is a miss for `get` too.
            Some(row) => Ok(shared.decode(py, key, &row.row)?.is_some()),
            None => Ok(false),
        }
    }
}
