//! The Python module `cachetronomy._core`: the only place that knows Python. An export list.

mod admin;
mod arguments;
mod atomic;
mod attention;
mod attributes;
mod awaitable;
mod bound;
mod breath;
mod bulk;
mod cells;
mod client;
mod compute;
mod coroutine;
mod decorator;
mod disabled;
mod errand;
mod error;
mod failure;
mod fast_await;
mod fast_call;
mod fields;
mod flight;
mod fork;
mod halt;
mod hot_keys;
mod inspect;
mod key;
mod lease;
mod lock;
mod log;
mod manual;
mod memo;
mod naming;
mod opening;
mod options;
mod patience;
mod put;
mod recall;
mod refresh;
mod registry;
mod results;
mod run;
mod sentinel;
mod shared;
mod signature;
mod ticket;
mod value;
mod watch;
mod wrap;

use pyo3::prelude::*;

/// Native core of cachetronomy.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use super::awaitable::Coroutine;
    #[pymodule_export]
    use super::bound::BoundFunction;
    #[pymodule_export]
    use super::client::Client;
    #[pymodule_export]
    use super::coroutine::Fetched;
    #[pymodule_export]
    use super::decorator::CachedFunction;
    #[pymodule_export]
    use super::disabled::Disabled;
    #[pymodule_export]
    use super::errand::Delivery;
    #[pymodule_export]
    use super::fields::check_setting;
    #[pymodule_export]
    use super::flight::Flight;
    #[pymodule_export]
    use super::fork::{after_fork, before_fork};
    #[pymodule_export]
    use super::hot_keys::{
        deregister_key, hot_keys, memory_key_count, promote_key, register_callback,
    };
    #[pymodule_export]
    use super::key::key_text;
    #[pymodule_export]
    use super::lease::Lease;
    #[pymodule_export]
    use super::lock::{Lock, LockPlace};
    #[pymodule_export]
    use super::manual::{PyManualClock, PyManualGauge};
    #[pymodule_export]
    use super::naming::default_key;
    #[pymodule_export]
    use super::recall::Get;
    #[pymodule_export]
    use super::registry::close_all;
    #[pymodule_export]
    use super::sentinel::Missing;
    #[pymodule_export]
    use super::ticket::Ticket;
    #[pymodule_export]
    use super::value::{first_difference, register_serializer};
    #[pymodule_export]
    use super::watch::KeyWatch;
    #[pymodule_export]
    use super::{deserialize, serialize};

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // The first time, PyO3 looks whether there is an interpreter, and panics if there is none:
        // not in a daemon thread whose error is made while the program ends.
        module.py().detach(|| Python::attach(|_| ()));
        super::error::resolve(module.py());
        super::fast_await::enable(module.py());
        super::bound::show_docstrings(module.py())?;
        module.add("_PROFILE_DEFAULTS", super::fields::defaults(module.py())?)?;
        module.add("_LEASE_LIFE", crate::cache::LEASE_LIFE.as_secs_f64())?;
        module.add("MISS", super::sentinel::miss(module.py())?)?;
        module.add("_LATER", super::sentinel::later(module.py())?)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}

/// Encodes a value as a row would hold it: its bytes and the name of their format.
#[pyfunction]
#[pyo3(signature = (obj, *, prefer = None))]
fn serialize<'py>(
    obj: &Bound<'py, PyAny>,
    prefer: Option<&str>,
) -> PyResult<(Bound<'py, pyo3::types::PyBytes>, String)> {
    let (data, label) = value::encode(obj, arguments::format(prefer)?.as_ref())?;
    let data = pyo3::types::PyBytes::new(obj.py(), &data);
    Ok((data, String::from(label.as_str())))
}

/// Decodes what `serialize` made, or what a plain-format writer made.
#[pyfunction]
fn deserialize<'py>(py: Python<'py>, data: &[u8], fmt: &str) -> PyResult<Bound<'py, PyAny>> {
    value::decode(py, data, fmt)
}
