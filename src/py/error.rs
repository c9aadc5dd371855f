//! The one map from the core's errors to the exceptions of `cachetronomy.exceptions`.

use pyo3::PyTypeInfo;
use pyo3::prelude::*;

use crate::error::Error;

pyo3::import_exception!(cachetronomy.exceptions, CachetronomyError);
pyo3::import_exception!(cachetronomy.exceptions, CacheClosedError);
pyo3::import_exception!(cachetronomy.exceptions, CorruptEntryError);
pyo3::import_exception!(cachetronomy.exceptions, CorruptStoreError);
pyo3::import_exception!(cachetronomy.exceptions, InvalidKeyError);
pyo3::import_exception!(cachetronomy.exceptions, InvalidSettingError);
pyo3::import_exception!(cachetronomy.exceptions, SerializationError);
pyo3::import_exception!(cachetronomy.exceptions, StoreBusyError);
pyo3::import_exception!(cachetronomy.exceptions, StoreFullError);
pyo3::import_exception!(cachetronomy.exceptions, StoreUnavailableError);

/// Looks every class up while the interpreter can still import: an error may have to be raised
/// when it is about to end, from an object's `__del__`.
pub(super) fn resolve(py: Python<'_>) {
    CachetronomyError::type_object(py);
    CacheClosedError::type_object(py);
    CorruptEntryError::type_object(py);
    CorruptStoreError::type_object(py);
    InvalidKeyError::type_object(py);
    InvalidSettingError::type_object(py);
    SerializationError::type_object(py);
    StoreBusyError::type_object(py);
    StoreFullError::type_object(py);
    StoreUnavailableError::type_object(py);
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Closed => CacheClosedError::new_err(message),
            Error::CorruptEntry { .. } => CorruptEntryError::new_err(message),
            Error::CorruptStore { .. } => CorruptStoreError::new_err(message),
            Error::Serialization { .. } => SerializationError::new_err(message),
            Error::StoreBusy { .. } => StoreBusyError::new_err(message),
            Error::StoreFull { .. } => StoreFullError::new_err(message),
            Error::StoreUnavailable { .. } => StoreUnavailableError::new_err(message),
            Error::InvalidSetting { .. } => InvalidSettingError::new_err(message),
        }
    }
}
