//! The decorator: a callable in the place of the function, that asks the cache first.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use pyo3::exceptions::PyTypeError;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::awaitable::{Callee, Coroutine};
use super::bound::BoundFunction;
use super::client::Client;
use super::error::InvalidKeyError;
use super::fast_call::{FastCall, FastCalled};
use super::memo::{Arguments, Memo};
use super::naming::{Name, object_of};
use super::options::Options;
use super::results::Reading;
use super::shared::Shared;
use super::signature::Signature;
use super::{attention, halt, key};
use crate::cache::Lookup;

/// What `@cache` makes of a function. A coroutine function has a wrapper in Python, for which this
/// keeps keys and results.
#[pyclass(module = "cachetronomy._core", frozen, dict, weakref, immutable_type)]
pub(crate) struct CachedFunction {
    pub(super) fast_call: FastCall,
    client: Py<Client>,
    /// The client as the program knows it.
    owner: Py<PyAny>,
    /// The client's once it is open, here for the sake of the hot path.
    shared: OnceLock<Arc<Shared>>,
    /// The version of results that are hits: the one given or, without one, that of the class that
    /// the function promises, or that of the latest result.
    pub(super) version: AtomicI64,
    pub(super) function: Py<PyAny>,
    is_coroutine: bool,
    /// The wrapper, an `async def`.
    wrapper: OnceLock<Py<PyAny>>,
    pub(super) options: Options,
    pub(super) name: Name,
    signature: Signature,
    pub(super) memo: Memo,
    /// Hits that the memo did not see.
    pub(super) hits: AtomicU64,
    pub(super) misses: AtomicU64,
    /// Whether it was told that an exception could not be kept.
    pub(super) has_warned: AtomicBool,
    /// From plain maps to what the return annotation promises. Made when it is needed first: the
    /// annotation may name classes that come later in the module.
    pub(super) rebuild: OnceLock<Option<Py<PyAny>>>,
}

impl CachedFunction {
    pub(super) fn new(
        client: &Bound<'_, Client>,
        owner: &Bound<'_, PyAny>,
        function: &Bound<'_, PyAny>,
        is_coroutine: bool,
        options: Options,
    ) -> PyResult<Self> {
        let name = Name::of(function, Some(owner), &options.ignore)?;
        // The object of a bound method is no parameter of it.
        let object = object_of(function)?;
        let mut ignore = options.ignore.clone();
        ignore.retain(|name| Some(name) != object.as_ref());
        let signature = Signature::of(function, &ignore)?;
        Ok(Self {
            fast_call: Self::FAST_CALL,
            client: client.clone().unbind(),
            owner: owner.clone().unbind(),
            shared: OnceLock::new(),
            version: AtomicI64::new(options.put.version.unwrap_or(1)),
            function: function.clone().unbind(),
            is_coroutine,
            wrapper: OnceLock::new(),
            memo: Memo::new(signature.ignored_places()),
            name,
            signature,
            options,
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            has_warned: AtomicBool::new(false),
            rebuild: OnceLock::new(),
        })
    }

    /// The client's, once it is open.
    pub(super) fn shared(&self) -> PyResult<&Arc<Shared>> {
        if let Some(shared) = self.shared.get() {
            return Ok(shared);
        }
        let shared = self.client.get().shared()?;
        Ok(self.shared.get_or_init(|| Arc::clone(shared)))
    }

    /// The client, open: before each call that memory does not answer. To open it may wait for a
    /// lock or the disk.
    pub(super) fn open(&self, py: Python<'_>) -> PyResult<&Arc<Shared>> {
        if self.shared.get().is_none() {
            self.client.get().opened(py)?;
        }
        self.shared()
    }

    pub(super) fn client(&self) -> &Py<Client> {
        &self.client
    }

    pub(super) fn owner(&self, py: Python<'_>) -> Py<PyAny> {
        self.owner.clone_ref(py)
    }

    /// Its name, for people.
    pub(super) fn name(&self) -> &str {
        self.name.base()
    }

    pub(super) fn is_coroutine(&self) -> bool {
        self.is_coroutine
    }

    /// What a coroutine function is called through.
    pub(super) fn wrapper(&self) -> Option<&Py<PyAny>> {
        self.wrapper.get()
    }

    pub(super) fn set_wrapper(&self, wrapper: Py<PyAny>) {
        self.wrapper.get_or_init(|| wrapper);
    }

    /// A coroutine function's for a call.
    pub(super) fn coroutine<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let wrapper = self.wrapper.get();
        let wrapper =
            wrapper.ok_or_else(|| PyTypeError::new_err("this is no coroutine function"))?;
        wrapper.bind(args.py()).call(args, kwargs)
    }

    /// Calls that were answered from the cache, and calls that were not.
    pub(super) fn counts(&self) -> (u64, u64) {
        let hits = self.memo.hits() + self.hits.load(Ordering::Relaxed);
        (hits, self.misses.load(Ordering::Relaxed))
    }

    /// The value in memory, for positional arguments that are remembered, and whether it is to be
    /// computed anew: the hot path.
    #[inline]
    pub(super) fn recall<'py>(
        &self,
        py: Python<'py>,
        args: Arguments<'_, 'py>,
    ) -> Option<(Py<PyAny>, bool)> {
        let version = Some(self.version.load(Ordering::Relaxed));
        if attention::is_needed() || !self.name.is_settled(py) {
            // The slow way looks closer, and makes the key anew.
            return None;
        }
        let cache = &self.shared.get()?.cache;
        // What left memory comes out with the answer, and is dropped after both locks are free.
        let lookup = self.memo.find(args, |key, hits| {
            let found = cache.lookup(key.hash, &key.text, version, true, |value, meta| {
                (
                    value.clone_ref(py),
                    self.options.is_due(meta, || cache.now()),
                )
            });
            *hits += u64::from(matches!(found, Lookup::Hit(_)));
            found
        });
        match lookup {
            Some(Lookup::Hit(value)) => Some(value),
            Some(Lookup::Miss(_)) | None => None,
        }
    }

    /// As [`CachedFunction::recall`], for a call of which nothing else is to be done.
    #[inline]
    pub(super) fn recall_at_once<'py>(
        &self,
        py: Python<'py>,
        args: &[Bound<'py, PyAny>],
    ) -> Option<Py<PyAny>> {
        // Whether it is to be computed anew, only the slow way can see to.
        if self.options.early {
            return None;
        }
        let arguments = Arguments {
            object: None,
            rest: args,
        };
        self.recall(py, arguments).map(|(value, _)| value)
    }

    /// A plain call.
    pub(super) fn call<'py>(
        slf: &Bound<'py, Self>,
        arguments: Arguments<'_, 'py>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        if kwargs.is_none()
            && !this.is_coroutine
            && let Some((value, is_due)) = this.recall(py, arguments)
        {
            if is_due {
                let args = arguments.whole(py)?;
                if let Some(key) = this.build_key(&args, None)? {
                    Self::refresh_in_background(slf, &key, &args, None)?;
                }
            }
            return Ok(value.into_bound(py));
        }
        Self::call_slowly(slf, &arguments.whole(py)?, kwargs)
    }

    /// The key of a call; `None` if the arguments do not fit the function.
    pub(super) fn build_key<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Option<String>> {
        let py = args.py();
        let Some(builder) = &self.options.key_builder else {
            let name = self.name.text(py)?;
            return halt::within(|| key::build(&name, &self.signature, args, kwargs));
        };
        let kwargs = kwargs.map_or_else(|| PyDict::new(py), Clone::clone);
        let built = halt::call(builder.bind(py), (&self.function, args, kwargs), None)?;
        match built.extract::<String>() {
            Ok(key) => Ok(Some(key)),
            Err(_) => Err(InvalidKeyError::new_err(format!(
                "the key_builder of {} returned {}; it must return a str",
                self.name(),
                built.repr()?
            ))),
        }
    }

    pub(super) fn call_function<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        halt::call(self.function.bind(args.py()), args, kwargs)
    }

    /// Everything but a hit of remembered arguments.
    #[cold]
    pub(super) fn call_slowly<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        if this.is_coroutine {
            return match kwargs {
                None => Coroutine::of(Callee::Function(slf.clone().unbind()), args.clone()),
                Some(_) => this.coroutine(args, kwargs),
            };
        }
        let shared = this.open(py)?;
        if shared.has_exited() || shared.is_disabled()? {
            return this.call_function(args, kwargs);
        }
        let Some(key) = this.build_key(args, kwargs)? else {
            // The function itself says best what does not fit.
            return this.call_function(args, kwargs);
        };
        if let Some((value, is_due)) = this.glance(args, kwargs, &key, Reading::Patient)? {
            if is_due {
                Self::refresh_in_background(slf, &key, args, kwargs)?;
            }
            return Ok(value);
        }
        loop {
            let flight = this.board(&key, None, &[])?;
            if let Some(flight) = flight.as_ref().filter(|flight| !flight.is_leader()) {
                this.count_follower()?;
                match flight.follow(py)? {
                    Some(value) => return Ok(value),
                    None => continue,
                }
            }
            let result = this.lead(py, &key, args, kwargs, flight.as_ref());
            if let Some(flight) = &flight {
                flight.land(py, &result);
            }
            return result;
        }
    }
}

#[pymethods]
impl CachedFunction {
    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let arguments = Arguments {
            object: None,
            rest: args.as_slice(),
        };
        Self::call(slf, arguments, kwargs)
    }

    /// What it returns for an object calls this with the object in front, and nothing else:
    /// `super::fast_call` promises that.
    fn __get__<'py>(
        slf: Bound<'py, Self>,
        instance: Option<Bound<'py, PyAny>>,
        _owner: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        match instance {
            None => Ok(slf.into_any()),
            Some(instance) => {
                let bound = BoundFunction::new(slf.unbind(), instance.unbind());
                Ok(Bound::new(py, bound)?.into_any())
            }
        }
    }

    fn __repr__(&self) -> String {
        format!("<cached function {}>", self.name())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.client)?;
        visit.call(&self.owner)?;
        visit.call(&self.function)?;
        visit.call(self.wrapper.get())?;
        self.options.traverse(&visit)?;
        self.name.traverse(&visit)?;
        self.signature.traverse(&visit)?;
        visit.call(self.rebuild.get().and_then(Option::as_ref))
    }

    fn __clear__(&self) {
        self.name.clear();
    }
}
