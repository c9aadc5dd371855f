//! What a decorated function promises to return: its annotation, and what makes such a value of the
//! plain data in the store.

use std::sync::OnceLock;

use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;

use super::arguments;
use super::error::SerializationError;

/// Found when it is needed first: the annotation may name classes that come later in the module.
#[derive(Default)]
pub(super) struct Promise(OnceLock<Found>);

struct Found {
    /// From plain data to what is promised; `None`: that is plain data.
    rebuild: Option<Py<PyAny>>,
    /// `__cache_version__` of the promised class.
    version: Option<i64>,
}

impl Promise {
    fn of(&self, function: &Bound<'_, PyAny>) -> PyResult<&Found> {
        if let Some(found) = self.0.get() {
            return Ok(found);
        }
        let module = function.py().import("cachetronomy._rebuild")?;
        let rebuild: Option<Bound<'_, PyAny>> =
            module.call_method1("rebuilder", (function,))?.extract()?;
        let version = module.call_method1("promised_version", (function,))?;
        let found = Found {
            rebuild: rebuild.map(Bound::unbind),
            version: arguments::version(Some(&version)).unwrap_or_default(),
        };
        // Of two threads that find it, the first one wins.
        Ok(self.0.get_or_init(|| found))
    }

    /// What makes of stored data what `function` promises, if that is not the data itself.
    pub(super) fn rebuild<'py>(
        &self,
        function: &Bound<'py, PyAny>,
    ) -> PyResult<Option<&Bound<'py, PyAny>>> {
        let rebuild = &self.of(function)?.rebuild;
        Ok(rebuild.as_ref().map(|rebuild| rebuild.bind(function.py())))
    }

    /// The version of the class that `function` promises.
    pub(super) fn version(&self, function: &Bound<'_, PyAny>) -> PyResult<Option<i64>> {
        Ok(self.of(function)?.version)
    }

    /// Refuses an instance that would not be made of what is stored for it: a subclass of the class
    /// that the annotation names, say.
    pub(super) fn check(
        &self,
        function: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let Some(rebuild) = self.rebuild(function)? else {
            return Ok(());
        };
        let module = value.py().import("cachetronomy._rebuild")?;
        let lost = module.call_method1("lost", (rebuild, value))?;
        if lost.is_none() {
            return Ok(());
        }
        Err(SerializationError::new_err(format!(
            "the result of {}: {lost}; annotate the function with the exact class, or return plain \
             values",
            function.repr()?
        )))
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(self.0.get().and_then(|found| found.rebuild.as_ref()))
    }
}
