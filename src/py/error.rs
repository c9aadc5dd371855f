//! The one map from the core's errors to the exceptions of `cachetronomy.exceptions`.

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
