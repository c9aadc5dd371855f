//! From the arguments of a call straight to its key, without building the key's text again.
//!
//! It holds keys and arguments, never results: whatever it answers is looked up in the memory tier
//! like any other key. Only exact built-in types are remembered, and they are told apart by type
//! and value: `1`, `1.0`, `True` and `"1"` are four arguments. They are immutable, so that one that
//! is the very same object needs no look at its value, and no Python code runs to hash or compare
//! them.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyString, PyTuple};

/// Calls that are remembered; a full memo starts anew, which costs each key one building.
const MAX_CALLS: usize = 8_192;

/// Longer text and bytes are not worth keeping alive.
const MAX_TEXT: usize = 256;

/// The positional arguments of a call; of a method, the object is the first.
#[derive(Clone, Copy)]
pub(super) struct Arguments<'a, 'py> {
    pub(super) object: Option<&'a Bound<'py, PyAny>>,
    pub(super) rest: &'a [Bound<'py, PyAny>],
}

impl<'a, 'py> Arguments<'a, 'py> {
    #[inline]
    fn iter(self) -> impl Iterator<Item = &'a Bound<'py, PyAny>> {
        self.object.into_iter().chain(self.rest)
    }

    /// All of them as a tuple.
    pub(super) fn whole(self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.iter().collect::<Vec<_>>())
    }

    #[inline]
    fn len(self) -> usize {
        self.rest.len() + usize::from(self.object.is_some())
    }
}

/// A key with the hash by which memory knows it.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) text: Box<str>,
    pub(super) hash: u64,
}

/// An argument's part of the hash of its call; `None` if its type is not remembered.
#[inline]
fn hash(argument: &Bound<'_, PyAny>) -> Option<u64> {
    if argument.is_exact_instance_of::<PyFloat>() {
        // Python's own would be the same for many of them.
        return argument.cast_exact().ok().map(bits);
    }
    let is_remembered = argument.is_exact_instance_of::<PyString>()
        || argument.is_exact_instance_of::<PyInt>()
        || argument.is_none()
        || argument.is_exact_instance_of::<PyBool>()
        || argument.is_exact_instance_of::<PyBytes>();
    if !is_remembered {
        return None;
    }
    // Python's own, which text and bytes keep.
    argument.hash().ok().map(|hash| hash.cast_unsigned() as u64)
}

fn bits(number: &Bound<'_, PyFloat>) -> u64 {
    number.value().to_bits()
}

/// Whether a key shows two arguments alike, both of types that are remembered.
#[inline]
fn is_same(kept: &Bound<'_, PyAny>, given: &Bound<'_, PyAny>) -> bool {
    kept.is(given) || (kept.get_type_ptr() == given.get_type_ptr() && is_equal(kept, given))
}

/// As [`is_same`] for two of one type.
fn is_equal(kept: &Bound<'_, PyAny>, given: &Bound<'_, PyAny>) -> bool {
    match (kept.cast_exact(), given.cast_exact()) {
        // By bits: `0.0` and `-0.0` print differently, so they are different keys.
        (Ok(kept), Ok(given)) => bits(kept) == bits(given),
        _ => kept.eq(given).unwrap_or(false),
    }
}

/// Whether an argument of a type that is remembered is small enough to be kept.
fn is_small(argument: &Bound<'_, PyAny>) -> bool {
    if argument.is_exact_instance_of::<PyInt>() {
        return argument.extract::<i64>().is_ok();
    }
    let has_length =
        argument.is_exact_instance_of::<PyString>() || argument.is_exact_instance_of::<PyBytes>();
    !has_length || argument.len().is_ok_and(|length| length <= MAX_TEXT)
}

#[derive(Debug)]
struct Call {
    hash: u64,
    /// `None`: left out of the key.
    arguments: Box<[Option<Py<PyAny>>]>,
    key: Key,
}

#[derive(Debug, Default)]
struct Calls {
    table: HashTable<Call>,
    hits: u64,
}

/// The memo of one function.
#[derive(Debug, Default)]
pub(super) struct Memo {
    calls: Mutex<Calls>,
    hasher: RandomState,
    /// See [`super::signature::Signature::ignored_places`].
    ignored: u64,
}

impl Memo {
    /// `ignored`: the places of arguments that are left out.
    pub(super) fn new(ignored: u64) -> Self {
        Self {
            ignored,
            ..Self::default()
        }
    }

    #[inline]
    fn is_ignored(&self, place: usize) -> bool {
        self.ignored != 0 && self.ignored >> place.min(63) & 1 == 1
    }

    /// The hash of positional arguments; `None` if one of them is not remembered.
    #[inline]
    fn hash(&self, arguments: Arguments<'_, '_>) -> Option<u64> {
        let mut places = 0..;
        arguments.iter().try_fold(0, |before, argument| {
            if places.next().is_some_and(|place| self.is_ignored(place)) {
                return Some(before);
            }
            Some(self.hasher.hash_one(before ^ hash(argument)?))
        })
    }

    /// Calls `with` with the key of a call, if it is remembered, and with the count of hits, which
    /// it may raise. `with` runs under a leaf lock.
    #[inline]
    pub(super) fn find<R>(
        &self,
        arguments: Arguments<'_, '_>,
        with: impl FnOnce(&Key, &mut u64) -> R,
    ) -> Option<R> {
        let hash = self.hash(arguments)?;
        let Calls { table, hits } = &mut *self.calls.lock();
        table
            .find(hash, |call| call.is(hash, arguments))
            .map(|call| with(&call.key, hits))
    }

    /// Hits that were counted so far.
    pub(super) fn hits(&self) -> u64 {
        self.calls.lock().hits
    }

    /// Remembers the key of a call, if its arguments are of the types that are remembered.
    pub(super) fn insert(&self, arguments: Arguments<'_, '_>, key: Key) {
        let Some(hash) = self.hash(arguments) else {
            return;
        };
        let kept: Option<Box<[_]>> = arguments
            .iter()
            .enumerate()
            .map(|(place, argument)| {
                if self.is_ignored(place) {
                    return Some(None);
                }
                is_small(argument).then(|| Some(argument.clone().unbind()))
            })
            .collect();
        let Some(arguments_kept) = kept else { return };
        let table = &mut self.calls.lock().table;
        if table.find(hash, |call| call.is(hash, arguments)).is_some() {
            return;
        }
        if table.len() >= MAX_CALLS {
            table.clear();
        }
        let call = Call {
            hash,
            arguments: arguments_kept,
            key,
        };
        table.insert_unique(hash, call, |call| call.hash);
    }
}

impl Call {
    /// Whether it is a call with these arguments, the hash of which was found.
    #[inline]
    fn is(&self, hash: u64, arguments: Arguments<'_, '_>) -> bool {
        let mut kept = self.arguments.iter().map(Option::as_ref);
        let is_same = |given: &Bound<'_, PyAny>| {
            let kept = kept.next().flatten();
            kept.is_none_or(|kept| is_same(kept.bind(given.py()), given))
        };
        self.hash == hash
            && self.arguments.len() == arguments.len()
            && arguments.iter().all(is_same)
    }
}
