//! What the keys of a function begin with: module, qualified name, and what a closure took along.

use std::fmt::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

use super::key;
use super::signature::Signature;
use super::wrap::misfit;

/// A cell, and what was in it; `None`: it was empty.
type Content = (Py<PyAny>, Option<Py<PyAny>>);

/// What a closure took along, at one time.
#[derive(Clone)]
struct Snapshot {
    /// The name with it.
    text: Arc<str>,
    /// The cells that were looked into: the closure's, and those of functions in them.
    contents: Arc<[Content]>,
}

/// Of a closure.
#[derive(Default)]
struct Snapshots {
    /// Taken at the first use, when all that it refers to is there: the keys that are remembered
    /// are of that name.
    first: Option<Snapshot>,
    /// After a change.
    latest: Option<Snapshot>,
}

/// The name of one function.
pub(super) struct Name {
    base: Arc<str>,
    /// Where in `base` its own name begins, behind module and classes.
    own: usize,
    function: Py<PyAny>,
    /// The client that decorates it, which its closure may hold.
    client: Option<Py<PyAny>>,
    is_closure: bool,
    snapshots: Mutex<Snapshots>,
    /// Bound before it was decorated, to something that may change: no argument any more, but it
    /// tells its results from those of others.
    object: Option<Py<PyAny>>,
}

impl Name {
    /// `ignore`: parameters that keys leave out.
    pub(super) fn of(
        function: &Bound<'_, PyAny>,
        client: Option<&Bound<'_, PyAny>>,
        ignore: &[String],
    ) -> PyResult<Self> {
        let closures = function.py().import("cachetronomy._closures")?;
        let qualname = function.getattr("__qualname__")?.extract::<String>()?;
        let mut base = format!("{}.{qualname}", module_of(function)?);
        let mut own = base.len() - qualname.rsplit('.').next().map_or(0, str::len);
        // A lambda has no name of its own, and one that wraps another function has that one's.
        let is_wrapper = function.hasattr("__wrapped__")? && function.hasattr("__code__")?;
        if is_wrapper || base.ends_with("<lambda>") {
            base.push_str(&code_of(function)?);
        }
        let mut object = bound_to(function)?.map(|(object, _)| object);
        if object.is_some() && object_of(function)?.is_some_and(|name| ignore.contains(&name)) {
            object = None;
        }
        if let Some(given) = &object {
            // Better refused now than at each call.
            let text = key::text_of("self", given)?;
            if closures.call_method1("is_fixed", (given,))?.is_truthy()? {
                let _ = write!(base, "[{text}]");
                object = None;
            }
        }
        let is_closure = closures.call_method1("takes_along", (function,))?;
        let length = base.len();
        let base = key::shorten_name(function.py(), base)?;
        if base.len() < length {
            own = 0; // it may be cut off
        }
        Ok(Self {
            base: base.into(),
            own,
            function: function.clone().unbind(),
            client: client.map(|client| client.clone().unbind()),
            is_closure: is_closure.is_truthy()?,
            snapshots: Mutex::default(),
            object: object.map(Bound::unbind),
        })
    }

    /// The name without what the closure took along: for people.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Whether the name is what it was at first: then so are the keys that are remembered.
    #[inline]
    pub(super) fn is_settled(&self, py: Python<'_>) -> bool {
        !self.is_closure && self.object.is_none() || self.holds_the_same(py)
    }

    /// Whether a key was made while the name was what it was at first, and is.
    pub(super) fn is_settled_for(&self, py: Python<'_>, key: &str) -> bool {
        if !self.is_closure {
            return self.is_settled(py);
        }
        let first = self.snapshots.lock().first.clone();
        self.is_settled(py) && first.is_some_and(|first| key.starts_with(&*first.text))
    }

    fn holds_the_same(&self, py: Python<'_>) -> bool {
        if self.object.is_some() {
            return false;
        }
        let first = self.snapshots.lock().first.clone();
        first.is_some_and(|first| first.is_now(py))
    }

    /// The name as it is now.
    pub(super) fn text(&self, py: Python<'_>) -> PyResult<Arc<str>> {
        let text = if self.is_closure {
            self.with_taken(py)?
        } else {
            Arc::clone(&self.base)
        };
        let Some(object) = &self.object else {
            return Ok(text);
        };
        let object = key::text_of("self", object.bind(py))?;
        Ok(key::shorten_name(py, format!("{text}[{object}]"))?.into())
    }

    fn with_taken(&self, py: Python<'_>) -> PyResult<Arc<str>> {
        let (first, latest) = {
            let snapshots = self.snapshots.lock();
            (snapshots.first.clone(), snapshots.latest.clone())
        };
        for snapshot in first.iter().chain(&latest) {
            if snapshot.is_now(py) {
                return Ok(Arc::clone(&snapshot.text));
            }
        }
        let (taken, cells): (String, Option<Vec<Bound<'_, PyTuple>>>) = py
            .import("cachetronomy._closures")?
            .call_method1("describe", (&self.function, &self.client))?
            .extract()?;
        let text: Arc<str> = if taken.is_empty() {
            Arc::clone(&self.base)
        } else {
            let taken = key::shorten_taken(py, taken)?;
            let (around, own) = self.base.split_at(self.own);
            let around = around.strip_suffix('.').unwrap_or(around);
            key::shorten_name(py, format!("{around}[{taken}].{own}"))?.into()
        };
        // `None`: it has to be asked each time.
        if let Some(cells) = cells {
            let contents = cells.iter().map(|cell| {
                let then = cell.get_item(1).ok().map(Bound::unbind);
                Ok((cell.get_item(0)?.unbind(), then))
            });
            let snapshot = Snapshot {
                text: Arc::clone(&text),
                contents: contents.collect::<PyResult<_>>()?,
            };
            let mut snapshots = self.snapshots.lock();
            let slot = match &snapshots.first {
                None => &mut snapshots.first,
                Some(_) => &mut snapshots.latest,
            };
            let replaced = slot.replace(snapshot);
            // A destructor may call the function.
            drop(snapshots);
            drop(replaced);
        }
        Ok(text)
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.function)?;
        visit.call(&self.client)?;
        visit.call(&self.object)?;
        // A collector must not wait; what it is not shown, it keeps.
        if let Some(snapshots) = self.snapshots.try_lock() {
            for snapshot in snapshots.first.iter().chain(&snapshots.latest) {
                for (cell, content) in &*snapshot.contents {
                    visit.call(cell)?;
                    visit.call(content)?;
                }
            }
        }
        Ok(())
    }

    /// Lets go of what the cells held, one of which may be the function itself.
    pub(super) fn clear(&self) {
        let held = std::mem::take(&mut *self.snapshots.lock());
        drop(held);
    }
}

impl Snapshot {
    fn is_now(&self, py: Python<'_>) -> bool {
        self.contents.iter().all(|(cell, then)| {
            let now = cell.bind(py).getattr(intern!(py, "cell_contents")).ok();
            match (now, then) {
                (Some(now), Some(then)) => now.is(then),
                (None, None) => true,
                _ => false,
            }
        })
    }
}

/// The object that a method is bound to, and the method's function.
fn bound_to<'py>(
    function: &Bound<'py, PyAny>,
) -> PyResult<Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
    let closures = function.py().import("cachetronomy._closures")?;
    closures.call_method1("bound_to", (function,))?.extract()
}

/// What a bound method's function calls the object that it is bound to.
pub(super) fn object_of(method: &Bound<'_, PyAny>) -> PyResult<Option<String>> {
    let Some((_, function)) = bound_to(method)?.filter(|(_, function)| !function.is_none()) else {
        return Ok(None);
    };
    let inspect = method.py().import("inspect")?;
    let signature = inspect.call_method1("signature", (function,))?;
    let first = signature.getattr("parameters")?.try_iter()?.next();
    first.map(|name| name?.extract()).transpose()
}

fn module_of(function: &Bound<'_, PyAny>) -> PyResult<String> {
    let module = function.getattr("__module__")?;
    if module.is_none() {
        // A method of a built-in object.
        let kind = function.getattr("__self__")?.get_type();
        return Ok(kind.module()?.to_string());
    }
    module_name(function.py(), module.extract()?)
}

/// A module, as a key names it. A script's is `__main__` in every program, so that its file is
/// named too: as in workers that import it under another name.
pub(super) fn module_name(py: Python<'_>, module: String) -> PyResult<String> {
    // The module that it was asked for last: there is one, and it is asked for often.
    static KNOWN: Mutex<Option<(usize, String)>> = Mutex::new(None);
    static MODULES: PyOnceLock<Py<PyDict>> = PyOnceLock::new();

    if module != "__main__" && module != "__mp_main__" {
        return Ok(module);
    }
    let modules = MODULES.import(py, "sys", "modules")?;
    let Some(main) = modules.get_item(&*module)? else {
        return Ok(module);
    };
    let main = main.as_ptr() as usize;
    if let Some((_, name)) = KNOWN.lock().as_ref().filter(|(known, _)| *known == main) {
        return Ok(name.clone());
    }
    let closures = py.import("cachetronomy._closures")?;
    let name: String = closures.call_method1("main_name", (module,))?.extract()?;
    *KNOWN.lock() = Some((main, name.clone()));
    Ok(name)
}

/// What tells a function from others, as its name does not: its code.
fn code_of(function: &Bound<'_, PyAny>) -> PyResult<String> {
    let closures = function.py().import("cachetronomy._closures")?;
    let code: String = closures.call_method1("code_of", (function,))?.extract()?;
    Ok(format!("#{code}"))
}

/// The key of the call `function(*args, **kwargs)`, as `@cache` makes it.
#[pyfunction]
#[pyo3(name = "_default_key")]
pub(crate) fn default_key<'py>(
    function: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: &Bound<'py, PyDict>,
) -> PyResult<String> {
    let name = Name::of(function, None, &[])?;
    let kwargs = (!kwargs.is_empty()).then_some(kwargs);
    let text = name.text(function.py())?;
    key::build(&text, &Signature::of(function, &[])?, args, kwargs)?
        .ok_or_else(|| misfit(name.base(), function, args, kwargs))
}
