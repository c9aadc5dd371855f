//! What the Python layer asks of the native client: rows, logs, profiles, statements. All private;
//! `cachetronomy.client` and `cachetronomy.store` make the public methods of it.

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use super::arguments::{self, Limit};
use super::breath::{self, Breath};
use super::cells::{from_cell, to_cell};
use super::client::Client;
use super::error::InvalidSettingError;
use super::fields;
use crate::entry::{
    AccessRecord, AccessRow, Answer, Cell, EntryMeta, EvictionRecord, EvictionRow, FullRow, Row,
};
use crate::settings::{Profile, check_version};
use crate::store::Which;
use crate::time::Timestamp;

/// Key, data, format, deadline, tags, version, profile.
type RowTuple<'py> = (
    String,
    Bound<'py, PyAny>,
    String,
    String,
    Vec<String>,
    i64,
    String,
);

/// Key, hits, latest hit, profile.
type AccessTuple = (String, i64, String, String);

/// Number, key, time, reason, hits, profile.
type EvictionTuple = (i64, String, String, String, i64, String);

fn tuple(row: FullRow, data: Bound<'_, PyAny>) -> RowTuple<'_> {
    let FullRow {
        key,
        row,
        tags,
        profile,
    } = row;
    let expire_at = row.meta.expire_at.to_string();
    (
        key,
        data,
        row.format,
        expire_at,
        tags,
        row.meta.version,
        profile,
    )
}

fn access(row: AccessRow) -> AccessTuple {
    let last_accessed = row.last_accessed.to_string();
    (row.key, row.count, last_accessed, row.profile)
}

fn eviction(row: EvictionRow) -> EvictionTuple {
    let evicted_at = row.evicted_at.to_string();
    (
        row.id,
        row.key,
        evicted_at,
        row.reason,
        row.access_count,
        row.profile,
    )
}

fn time(text: &str) -> PyResult<Timestamp> {
    Timestamp::parse(text).ok_or_else(|| {
        InvalidSettingError::new_err(format!("{text:?} is not a time; give it in ISO 8601"))
    })
}

#[pymethods]
impl Client {
    #[pyo3(name = "_profile")]
    fn active_profile<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let shared = self.shared()?;
        shared.cache.check_open()?;
        fields::to_dict(py, &shared.cache.active().profile)
    }

    fn _use_profile<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyAny>,
        changes: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (name, changes) = (fields::name(name)?, fields::changes(changes)?);
        let shared = self.begin(py)?;
        drop(shared.detached(py, |cache| cache.use_profile(&name, &changes))?);
        self.active_profile(py)
    }

    /// Fields of the active profile that the environment or the constructor gave.
    fn _overrides(&self) -> PyResult<Vec<&'static str>> {
        let active = self.shared()?.cache.active();
        Ok(active.overrides.0.iter().copied().collect())
    }

    #[pyo3(signature = (name, changes))]
    fn _update_profile<'py>(
        &self,
        py: Python<'py>,
        name: Option<&Bound<'py, PyAny>>,
        changes: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let name = name.map(fields::name).transpose()?;
        let changes = fields::changes(changes)?;
        let shared = self.begin(py)?;
        drop(shared.detached(py, |cache| cache.update_profile(name.as_deref(), &changes))?);
        self.active_profile(py)
    }

    fn _save_profile<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyAny>,
        changes: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (name, changes) = (fields::name(name)?, fields::changes(changes)?);
        let shared = self.begin(py)?;
        let saved = shared.detached(py, |cache| cache.save_profile(&name, &changes))?;
        fields::to_dict(py, &saved)
    }

    fn _stored_profile<'py>(
        &self,
        py: Python<'py>,
        name: &str,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let shared = self.begin(py)?;
        let found = shared.reading(py, |cache| cache.profiles(Which::Key(name)))?;
        let dict = |profile: &Profile| fields::to_dict(py, profile);
        found.first().map(dict).transpose()
    }

    fn _stored_profiles<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let shared = self.begin(py)?;
        let found = shared.reading(py, |cache| cache.profiles(Which::All))?;
        found
            .iter()
            .map(|profile| fields::to_dict(py, profile))
            .collect()
    }

    fn _delete_profile(&self, py: Python<'_>, name: &str) -> PyResult<bool> {
        let shared = self.begin(py)?;
        Ok(shared.detached(py, |cache| cache.delete_profile(name))?)
    }

    fn _row<'py>(
        &self,
        py: Python<'py>,
        key: &Bound<'py, PyAny>,
    ) -> PyResult<Option<RowTuple<'py>>> {
        let key = arguments::key(key)?;
        let shared = self.begin(py)?;
        let mut rows = shared.reading(py, |cache| cache.rows(Which::Key(key), None, true))?;
        Ok(rows.pop().map(|row| {
            let data = PyBytes::new(py, &row.row.data).into_any();
            tuple(row, data)
        }))
    }

    #[pyo3(signature = (limit, with_data))]
    fn _rows<'py>(
        &self,
        py: Python<'py>,
        limit: Limit,
        with_data: bool,
    ) -> PyResult<Bound<'py, PyList>> {
        let shared = self.begin(py)?;
        let rows = shared.reading(py, |cache| cache.rows(Which::All, limit.0, with_data))?;
        let data = |row: &FullRow| {
            if with_data {
                PyBytes::new(py, &row.row.data).into_any()
            } else {
                py.None().into_bound(py)
            }
        };
        let rows = rows.into_iter().map(|row| {
            let data = data(&row);
            tuple(row, data)
        });
        breath::list(py, rows)
    }

    /// As `_rows`, decoded. A row that cannot be decoded takes nobody's place.
    #[pyo3(signature = (limit))]
    fn _items<'py>(&self, py: Python<'py>, limit: Limit) -> PyResult<Bound<'py, PyList>> {
        let shared = self.begin(py)?;
        let rows = shared.reading(py, |cache| cache.rows(Which::All, None, true))?;
        let items = PyList::empty(py);
        let mut breath = Breath::new();
        for row in rows {
            if limit.0.is_some_and(|limit| items.len() == limit) {
                break;
            }
            if let Some(value) = shared.decode(py, &row.key, &row.row)? {
                items.append(tuple(row, value))?;
            }
            breath.take(py);
        }
        Ok(items)
    }

    #[expect(clippy::too_many_arguments, reason = "the columns of a row")]
    fn _put_row(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        data: Vec<u8>,
        fmt: String,
        expire_at: &str,
        tags: &Bound<'_, PyAny>,
        version: i64,
        profile: String,
    ) -> PyResult<()> {
        let row = FullRow {
            key: String::from(arguments::key(key)?),
            row: Row {
                data,
                format: fmt,
                meta: EntryMeta {
                    expire_at: time(expire_at)?,
                    version: check_version(version)?,
                    compute_us: 0,
                },
            },
            tags: arguments::tags(tags)?,
            profile,
        };
        let shared = self.begin(py)?;
        Ok(shared.detached(py, |cache| cache.store_row(&row))?)
    }

    fn _keys_by_tags<'py>(
        &self,
        py: Python<'py>,
        tags: &Bound<'py, PyAny>,
        exact_match: bool,
    ) -> PyResult<Bound<'py, PyList>> {
        let tags = arguments::tags(tags)?;
        let shared = self.begin(py)?;
        let keys = shared.detached(py, |cache| cache.tagged(&tags, exact_match))?;
        breath::list(py, keys)
    }

    #[pyo3(signature = (limit))]
    fn _access_rows<'py>(&self, py: Python<'py>, limit: Limit) -> PyResult<Bound<'py, PyList>> {
        let shared = self.begin(py)?;
        let rows = shared.reading(py, |cache| cache.accesses(Which::All, limit.0))?;
        breath::list(py, rows.into_iter().map(access))
    }

    fn _access_row(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Option<AccessTuple>> {
        let key = arguments::key(key)?;
        let shared = self.begin(py)?;
        let mut rows = shared.reading(py, |cache| cache.accesses(Which::Key(key), None))?;
        Ok(rows.pop().map(access))
    }

    #[pyo3(signature = (key))]
    fn _delete_access(&self, py: Python<'_>, key: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let which = key.map_or(Ok(Which::All), |key| arguments::key(key).map(Which::Key))?;
        let shared = self.begin(py)?;
        Ok(shared.detached(py, |cache| cache.delete_accesses(which))?)
    }

    fn _log_access(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        at: &str,
        profile: &str,
    ) -> PyResult<()> {
        let record = AccessRecord {
            key: String::from(arguments::key(key)?),
            count: 1,
            last_accessed: time(at)?,
        };
        let shared = self.begin(py)?;
        Ok(shared.detached(py, |cache| cache.append_logs(&[record], profile, &[]))?)
    }

    #[pyo3(signature = (limit))]
    fn _eviction_rows<'py>(&self, py: Python<'py>, limit: Limit) -> PyResult<Bound<'py, PyList>> {
        let shared = self.begin(py)?;
        let rows = shared.reading(py, |cache| cache.evictions(limit.0))?;
        breath::list(py, rows.into_iter().map(eviction))
    }

    fn _eviction_count(&self, py: Python<'_>) -> PyResult<u64> {
        let shared = self.begin(py)?;
        Ok(shared.detached(py, crate::cache::Cache::count_evictions)?)
    }

    fn _clear_evictions(&self, py: Python<'_>) -> PyResult<()> {
        let shared = self.begin(py)?;
        Ok(shared.detached(py, crate::cache::Cache::delete_evictions)?)
    }

    fn _log_eviction(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        at: &str,
        reason: String,
        count: u64,
        profile: &str,
    ) -> PyResult<()> {
        let record = EvictionRecord {
            key: String::from(arguments::key(key)?),
            evicted_at: time(at)?,
            reason: reason.into(),
            access_count: count,
            profile: profile.into(),
        };
        let shared = self.begin(py)?;
        Ok(shared.detached(py, |cache| cache.append_logs(&[], profile, &[record]))?)
    }

    fn _query<'py>(
        &self,
        py: Python<'py>,
        sql: &str,
        params: &Bound<'py, PyAny>,
        autocommit: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let parameters: Vec<Cell> = params
            .try_iter()?
            .map(|parameter| to_cell(&parameter?))
            .collect::<PyResult<_>>()?;
        let shared = self.begin(py)?;
        match shared.detached(py, |cache| cache.query(sql, &parameters, autocommit))? {
            Answer::Changed(rows) => rows.into_bound_py_any(py),
            Answer::Rows(names, rows) => {
                let list = PyList::empty(py);
                let mut breath = Breath::new();
                for row in rows {
                    let cells = row.into_iter().map(|cell| from_cell(py, cell));
                    let cells = cells.collect::<PyResult<Vec<_>>>()?;
                    list.append(PyTuple::new(py, cells)?)?;
                    breath.take(py);
                }
                (names, list).into_bound_py_any(py)
            }
        }
    }

    fn _relieve(&self, py: Python<'_>, free_memory_target: f64) -> PyResult<usize> {
        let shared = self.begin(py)?;
        let relieved = shared.detached(py, |cache| Ok(cache.relieve(free_memory_target)))?;
        Ok(relieved)
    }

    fn _memory(&self, py: Python<'_>) -> PyResult<Option<(u64, u64)>> {
        let memory = self.begin(py)?.cache.ram();
        Ok(memory.map(|memory| (memory.total, memory.available)))
    }

    /// Live entries of the store (`None`: it does not answer), entries in memory, whether as much
    /// RAM is free as the profile asks for.
    fn _health(&self, py: Python<'_>) -> PyResult<(Option<u64>, usize, bool)> {
        let health = self.begin(py)?.detached(py, crate::cache::Cache::health)?;
        Ok((health.store_keys.ok(), health.memory_keys, health.memory_ok))
    }
}
