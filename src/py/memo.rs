//! From the arguments of a call straight to its key, without building the key's text again.
//!
//! It holds keys, never values: whatever it answers is looked up in the memory tier like any
//! other key. Only exact built-in types are remembered, by value and type, as Rust data: `1`,
//! `1.0`, `True` and `"1"` are four arguments, and no Python code runs to compare them.

use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyString, PyTuple};

/// Calls that are remembered; a full memo starts anew, which costs each key one building.
const MAX_CALLS: usize = 8_192;

/// Longer text and bytes are not worth keeping twice.
const MAX_TEXT: usize = 256;

/// A key with the hash by which memory knows it.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) text: Box<str>,
    pub(super) hash: u64,
}

/// An argument, borrowed.
#[derive(PartialEq, Hash)]
enum Atom<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// By bits: `0.0` and `-0.0` print differently, so they are different keys.
    Float(u64),
    Str(&'a str),
    Bytes(&'a [u8]),
}

/// An argument, kept.
#[derive(Debug)]
enum Kept {
    None,
    Bool(bool),
    Int(i64),
    Float(u64),
    Str(Box<str>),
    Bytes(Box<[u8]>),
}

impl Kept {
    fn as_atom(&self) -> Atom<'_> {
        match self {
            Self::None => Atom::None,
            Self::Bool(value) => Atom::Bool(*value),
            Self::Int(value) => Atom::Int(*value),
            Self::Float(bits) => Atom::Float(*bits),
            Self::Str(text) => Atom::Str(text),
            Self::Bytes(bytes) => Atom::Bytes(bytes),
        }
    }
}

impl Atom<'_> {
    fn keep(&self) -> Kept {
        match *self {
            Self::None => Kept::None,
            Self::Bool(value) => Kept::Bool(value),
            Self::Int(value) => Kept::Int(value),
            Self::Float(bits) => Kept::Float(bits),
            Self::Str(text) => Kept::Str(text.into()),
            Self::Bytes(bytes) => Kept::Bytes(bytes.into()),
        }
    }
}

#[inline]
fn atom<'a>(argument: &'a Bound<'_, PyAny>) -> Option<Atom<'a>> {
    if let Ok(text) = argument.cast_exact::<PyString>() {
        let text = text.to_str().ok()?;
        return (text.len() <= MAX_TEXT).then_some(Atom::Str(text));
    }
    if let Ok(number) = argument.cast_exact::<PyInt>() {
        return number.extract().ok().map(Atom::Int);
    }
    if argument.is_none() {
        return Some(Atom::None);
    }
    if let Ok(value) = argument.cast_exact::<PyBool>() {
        return Some(Atom::Bool(value.is_true()));
    }
    if let Ok(number) = argument.cast_exact::<PyFloat>() {
        return Some(Atom::Float(number.value().to_bits()));
    }
    let bytes = argument.cast_exact::<PyBytes>().ok()?.as_bytes();
    (bytes.len() <= MAX_TEXT).then_some(Atom::Bytes(bytes))
}

#[derive(Debug)]
struct Call {
    hash: u64,
    arguments: Box<[Kept]>,
    key: Key,
}

/// The memo of one function.
#[derive(Debug, Default)]
pub(super) struct Memo {
    calls: Mutex<HashTable<Call>>,
    hasher: RandomState,
}

impl Memo {
    /// The hash of positional arguments; `None` if one of them is not remembered.
    #[inline]
    fn hash(&self, arguments: &Bound<'_, PyTuple>) -> Option<u64> {
        let mut hasher = self.hasher.build_hasher();
        for argument in arguments.iter_borrowed() {
            atom(&argument)?.hash(&mut hasher);
        }
        Some(hasher.finish())
    }

    /// Calls `with` with the key of a call, if it is remembered. `with` runs under a leaf lock.
    #[inline]
    pub(super) fn find<R>(
        &self,
        arguments: &Bound<'_, PyTuple>,
        with: impl FnOnce(&Key) -> R,
    ) -> Option<R> {
        let hash = self.hash(arguments)?;
        let calls = self.calls.lock();
        calls
            .find(hash, |call| call.hash == hash && same(call, arguments))
            .map(|call| with(&call.key))
    }

    /// Remembers the key of a call, if its arguments are of the types that are remembered.
    pub(super) fn insert(&self, arguments: &Bound<'_, PyTuple>, key: Key) {
        let Some(hash) = self.hash(arguments) else {
            return;
        };
        let kept: Option<Box<[Kept]>> = arguments
            .iter_borrowed()
            .map(|argument| Some(atom(&argument)?.keep()))
            .collect();
        let Some(kept) = kept else { return };
        let mut calls = self.calls.lock();
        if calls
            .find(hash, |call| call.hash == hash && same(call, arguments))
            .is_some()
        {
            return;
        }
        if calls.len() >= MAX_CALLS {
            calls.clear();
        }
        calls.insert_unique(
            hash,
            Call {
                hash,
                arguments: kept,
                key,
            },
            |call| call.hash,
        );
    }
}

#[inline]
fn same(call: &Call, arguments: &Bound<'_, PyTuple>) -> bool {
    call.arguments.len() == arguments.len()
        && call
            .arguments
            .iter()
            .zip(arguments.iter_borrowed())
            .all(|(kept, argument)| atom(&argument).is_some_and(|atom| atom == kept.as_atom()))
}
