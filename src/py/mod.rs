//! The Python module `cachetronomy._core`: the only place that knows Python. An export list.

mod arguments;
mod client;
mod clock;
mod decorator;
mod error;
mod fork;
mod key;
mod memo;
mod registry;
mod sentinel;
mod shared;
mod signature;
mod value;

use pyo3::prelude::*;

/// Native core of cachetronomy.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use super::client::Client;
    #[pymodule_export]
    use super::clock::PyManualClock;
    #[pymodule_export]
    use super::decorator::CachedFunction;
    #[pymodule_export]
    use super::fork::{after_fork, before_fork};
    #[pymodule_export]
    use super::registry::close_all;
    #[pymodule_export]
    use super::sentinel::Missing;
    #[pymodule_export]
    use super::{deserialize, serialize};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::error::resolve(module.py());
        module.add("MISS", super::sentinel::miss(module.py())?)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}

/// Encodes a value as a row would hold it: its bytes and the name of their format.
#[pyfunction]
#[pyo3(signature = (obj, *, prefer = None))]
fn serialize<'py>(
    obj: &Bound<'py, PyAny>,
    prefer: Option<&str>,
) -> PyResult<(Bound<'py, pyo3::types::PyBytes>, &'static str)> {
    let (data, format) = value::encode(obj, arguments::format(prefer)?)?;
    Ok((pyo3::types::PyBytes::new(obj.py(), &data), format.as_str()))
}

/// Decodes what `serialize` made, or what a plain-format writer made.
#[pyfunction]
fn deserialize<'py>(py: Python<'py>, data: &[u8], fmt: &str) -> PyResult<Bound<'py, PyAny>> {
    value::decode(py, data, fmt)
}
