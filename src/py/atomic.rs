//! The sync client's operations that read and write in one step, and deadlines, patterns, locks.

use std::sync::Arc;

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyList};

use super::arguments;
use super::breath;
use super::client::Client;
use super::disabled::Disabled;
use super::errand::Lane;
use super::error::InvalidSettingError;
use super::lock::Lock;
use super::put::Put;
use super::run::object;
use super::shared::Shared;
use crate::cache::Step;
use crate::store::glob::Glob;
use crate::time::{Timestamp, Ttl};

/// Seconds after which a lock is free though nobody gave it back.
const LOCK_TTL: Ttl = Ttl::Micros(30_000_000);

/// A whole number that is no bool.
fn int(given: Option<&Bound<'_, PyAny>>, otherwise: i128, name: &str) -> PyResult<i128> {
    let Some(given) = given else {
        return Ok(otherwise);
    };
    match given.extract::<i128>() {
        Ok(number) if !given.is_instance_of::<PyBool>() => Ok(number),
        _ => Err(InvalidSettingError::new_err(format!(
            "{name}: {} is not an int of 64 bits",
            given.repr()?
        ))),
    }
}

fn glob(pattern: &Bound<'_, PyAny>) -> PyResult<Glob> {
    match pattern.extract::<&str>() {
        Ok(text) => Ok(Glob::parse(text)),
        Err(_) => Err(InvalidSettingError::new_err(format!(
            "pattern: {} is not a pattern; give a str such as \"user:*\"",
            pattern.repr()?
        ))),
    }
}

#[pymethods]
impl Client {
    /// Store a value under a key unless a live entry is there; return whether it was stored.
    ///
    /// Of all threads and processes that add one key at once, one gets `True`. The parameters and
    /// errors are those of `set`; with `ttl=0` nothing is stored, and nothing removed.
    #[pyo3(signature = (
        key, value, time_to_live = None, version = None, tags = None, prefer = None, *, ttl = None
    ))]
    #[expect(clippy::too_many_arguments, reason = "the public signature")]
    fn add(
        &self,
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
        self.begin(value.py())?.add(key, value, &put)
    }

    /// Add `delta` to the int of a key, and return the sum; no other writer comes in between.
    ///
    /// Where there is no live entry, `default + delta` is stored as `set` would, with the time to
    /// live and tags given. An entry that is there keeps its tags and version, and its deadline
    /// too unless a time to live is given. With `ttl=0` the sum is returned, and nothing kept.
    ///
    /// Raises `SerializationError` if what is stored is not an int of 64 bits, or the sum would
    /// not be one; else as `set`. Nothing was changed then.
    #[pyo3(signature = (
        key, delta = None, default = None, time_to_live = None, tags = None, *, ttl = None
    ), text_signature = "($self, key, delta=1, default=0, time_to_live=None, tags=None, *, \
                         ttl=None)")]
    fn incr(
        &self,
        key: &Bound<'_, PyAny>,
        delta: Option<&Bound<'_, PyAny>>,
        default: Option<&Bound<'_, PyAny>>,
        time_to_live: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        ttl: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let step = Step {
            delta: int(delta, 1, "delta")?,
            default: int(default, 0, "default")?,
            ttl: arguments::ttl(ttl, time_to_live)?,
        };
        self.count(key, step, tags)
    }

    /// Subtract `delta` from the int of a key, and return the difference; else as `incr`.
    #[pyo3(signature = (
        key, delta = None, default = None, time_to_live = None, tags = None, *, ttl = None
    ), text_signature = "($self, key, delta=1, default=0, time_to_live=None, tags=None, *, \
                         ttl=None)")]
    fn decr(
        &self,
        key: &Bound<'_, PyAny>,
        delta: Option<&Bound<'_, PyAny>>,
        default: Option<&Bound<'_, PyAny>>,
        time_to_live: Option<&Bound<'_, PyAny>>,
        tags: Option<&Bound<'_, PyAny>>,
        ttl: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let step = Step {
            delta: int(delta, 1, "delta")?.saturating_neg(),
            default: int(default, 0, "default")?,
            ttl: arguments::ttl(ttl, time_to_live)?,
        };
        self.count(key, step, tags)
    }

    /// Delete a key from both tiers and return its value, or `default` on a miss.
    ///
    /// Of all threads and processes that pop one key at once, one gets the value. It comes from
    /// the store: an instance of a class comes as the plain map that is stored of it.
    #[pyo3(signature = (key, default = None))]
    fn pop(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        default: Option<Py<PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let key: Arc<str> = arguments::key(key)?.into();
        let shared = self.begin(py)?;
        let otherwise = default.unwrap_or_else(|| py.None());
        if shared.switch.is_off() {
            return shared.answer(py, otherwise);
        }
        let popped = Arc::clone(&key);
        shared.run(
            py,
            (Lane::Write, true),
            move |cache| cache.pop(&popped),
            move |py, shared, row| {
                drop(shared.cache.forget([&*key]));
                let value = match row {
                    Some(row) => shared.decode(py, &key, &row)?,
                    None => None,
                };
                Ok(value.map_or(otherwise, Bound::unbind))
            },
        )
    }

    /// Let an entry live for so long from now on; return whether there is one.
    ///
    /// Without a time to live it is the active profile's; 0 removes the entry. Its value, tags and
    /// version stay.
    #[pyo3(signature = (key, ttl = None, *, time_to_live = None))]
    fn touch(
        &self,
        key: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        time_to_live: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let py = key.py();
        let key: Arc<str> = arguments::key(key)?.into();
        let ttl = arguments::ttl(ttl, time_to_live)?;
        let shared = self.begin(py)?;
        if shared.switch.is_off() {
            return shared.answer(py, object(py, false)?);
        }
        let touched = Arc::clone(&key);
        shared.run(
            py,
            (Lane::Write, false),
            move |cache| cache.touch(&touched, ttl),
            move |py, shared, touched| {
                if !touched || ttl.is_some_and(Ttl::is_zero) {
                    drop(shared.cache.forget([&*key]));
                }
                object(py, touched)
            },
        )
    }

    /// Return the seconds that an entry has left to live: `math.inf` if it never expires, `None`
    /// if there is none.
    fn ttl(&self, key: &Bound<'_, PyAny>) -> PyResult<Option<f64>> {
        let deadline = self.deadline(key)?;
        let now = self.shared()?.cache.now();
        Ok(deadline.map(|deadline| match deadline {
            Timestamp::NEVER => f64::INFINITY,
            #[expect(clippy::cast_precision_loss, reason = "microseconds, for 285 years")]
            Timestamp(micros) => (micros - now.0).max(0) as f64 / 1e6,
        }))
    }

    /// Return when an entry expires, in UTC; `None` if there is none. One that never expires has
    /// the last moment of the year 9999.
    fn expire_at<'py>(&self, key: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(deadline) = self.deadline(key)? else {
            return Ok(None);
        };
        let class = key.py().import("datetime")?.getattr("datetime")?;
        let text = deadline.to_string();
        class
            .call_method1(intern!(key.py(), "fromisoformat"), (text,))
            .map(Some)
    }

    /// Return the keys of the live entries in the store that match a pattern and have a tag, each
    /// where it is given.
    ///
    /// In a pattern `*` is any text, `?` any one character, `[abc]` and `[a-z]` one of these,
    /// `[!abc]` one that is none of these, as in Python's `fnmatch`; `[*]` is a star. Case counts.
    /// Keys with the text before the first of these are found through an index, and so are those
    /// with a tag; a pattern that begins with one of these looks at every key.
    #[pyo3(signature = (pattern = None, tag = None))]
    fn keys<'py>(
        &self,
        py: Python<'py>,
        pattern: Option<&Bound<'py, PyAny>>,
        tag: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let pattern = pattern.map(glob).transpose()?;
        let tag = tag.map(arguments::tags).transpose()?;
        let tag = match tag.as_deref() {
            None => None,
            Some([tag]) => Some(tag.as_str()),
            Some(_) => return Err(PyTypeError::new_err("tag: give one tag, as a str")),
        };
        let shared = self.begin(py)?;
        let keys = shared.detached(py, |cache| cache.matching(pattern.as_ref(), tag))?;
        breath::list(py, keys)
    }

    /// Delete the live entries whose keys match a pattern, as in `keys`, from both tiers; return
    /// how many.
    ///
    /// All in one transaction, for which other writers wait: about a second for 100,000 entries.
    fn delete_match(&self, py: Python<'_>, pattern: &Bound<'_, PyAny>) -> PyResult<usize> {
        let pattern = glob(pattern)?;
        let shared = self.begin(py)?;
        let removed = shared.detached(py, |cache| cache.delete_matching(&pattern))?;
        let left = shared.cache.forget(removed.iter().map(String::as_str));
        breath::drop_all(py, left);
        Ok(removed.len())
    }

    /// Return a lock for a `with` block: of all threads and processes that use the file, one at a
    /// time is inside.
    ///
    /// `ttl`: the time, as in `set`, after which it is free again though its holder did not leave
    /// the block - because it was killed, say. A block that takes longer shares the lock from then
    /// on, and says so in the log when it is left. `timeout`: seconds to wait for it, or a
    /// `timedelta`; `None` is for ever, 0 tries once. It is not re-entrant: a thread that is inside
    /// waits for itself. The object can be entered again.
    ///
    /// Entering raises `StoreBusyError` when the time is over, `StoreFullError`,
    /// `StoreUnavailableError`, `CacheClosedError`.
    #[pyo3(
        signature = (name, ttl = None, timeout = None, *, time_to_live = None),
        text_signature = "($self, name, ttl=30, timeout=None, *, time_to_live=None)"
    )]
    fn lock(
        slf: &Bound<'_, Self>,
        name: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
        time_to_live: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Lock> {
        let name = arguments::key(name)?;
        let ttl = arguments::ttl(ttl, time_to_live)?.unwrap_or(LOCK_TTL);
        if ttl.is_zero() || ttl == Ttl::Never {
            return Err(InvalidSettingError::new_err(
                "ttl: a lock is free again after some time, neither at once nor never; give \
                 seconds > 0",
            ));
        }
        let timeout = arguments::timeout(timeout)?;
        slf.get().check_usable()?;
        Lock::new(slf, name, ttl, timeout)
    }

    /// Return a context manager inside which this client, in all threads, finds nothing and stores
    /// nothing: reads miss, writes are dropped, decorated functions run each time. Nothing is
    /// counted. Entries stay, `delete`, `evict` and the clearing methods still remove them, lists
    /// of keys still show them, and locks still lock. It may be nested.
    fn disabled(slf: &Bound<'_, Self>) -> PyResult<Disabled> {
        slf.get().check_usable()?;
        Ok(Disabled::new(slf))
    }
}

impl Client {
    fn count(
        &self,
        key: &Bound<'_, PyAny>,
        step: Step,
        tags: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        let py = key.py();
        let key = arguments::key(key)?;
        let tags = tags.map(arguments::tags).transpose()?;
        self.begin(py)?.increment(py, key, step, tags.as_deref())
    }

    fn deadline(&self, key: &Bound<'_, PyAny>) -> PyResult<Option<Timestamp>> {
        let py = key.py();
        let key = arguments::key(key)?;
        let shared = self.begin(py)?;
        if shared.switch.is_off() {
            return Ok(None);
        }
        shared.reading(py, |cache| cache.deadline(key))
    }
}

impl Shared {
    /// Stores a value unless a live entry is there; says whether it was not.
    pub(super) fn add(
        self: &Arc<Self>,
        key: &str,
        value: &Bound<'_, PyAny>,
        put: &Put,
    ) -> PyResult<Py<PyAny>> {
        let py = value.py();
        if put.is_void() || self.switch.is_off() {
            return self.answer(py, object(py, false)?);
        }
        let part = put.begin(&self.cache);
        let draft = self.encode(key, value, put, &part)?;
        let (key, value) = (String::from(key), value.clone().unbind());
        self.run(
            py,
            (Lane::Write, false),
            move |cache| {
                let commit = cache.add(&key, &draft)?;
                Ok((key, draft, commit))
            },
            move |py, shared, (key, draft, commit)| {
                if let Some(commit) = commit {
                    drop(shared.cache.keep(&key, value, &draft, commit));
                }
                object(py, commit.is_some())
            },
        )
    }

    /// Adds to the number of a key.
    pub(super) fn increment(
        self: &Arc<Self>,
        py: Python<'_>,
        key: &str,
        step: Step,
        tags: Option<&[String]>,
    ) -> PyResult<Py<PyAny>> {
        if self.switch.is_off() {
            let sum = step.from(key, step.default)?;
            return self.answer(py, object(py, sum)?);
        }
        let part = self.cache.begin_write(step.ttl, tags);
        let key = String::from(key);
        self.run(
            py,
            (Lane::Write, false),
            move |cache| {
                let counted = cache.increment(&key, step, &part)?;
                Ok((key, counted))
            },
            move |py, shared, (key, counted)| {
                let number = object(py, counted.number)?;
                drop(match counted.stored {
                    Some((meta, weight, commit)) => {
                        let value = number.clone_ref(py);
                        shared.cache.keep_as(&key, value, meta, weight, commit)
                    }
                    None => shared.cache.forget([key.as_str()]),
                });
                Ok(number)
            },
        )
    }
}
