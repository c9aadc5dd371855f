//! What serves the wrapper of a coroutine function, which `python/cachetronomy/_coroutines.py` has.

use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::decorator::CachedFunction;
use super::errand::Lane;
use super::flight::Flight;
use super::lease::{self, Claim};
use super::results::{Outset, Reading};
use super::run::object;
use super::sentinel::miss;
use super::ticket::Ticket;
use crate::cache::Arrival;

/// What a coroutine function is known by.
const MARKS: [&str; 4] = [
    "__code__",
    "__defaults__",
    "__kwdefaults__",
    "_is_coroutine_mark",
];

/// What a coroutine is to do next: `(value or MISS, ticket or None, flight or None, key or None)`.
type Next<'py> = (
    Bound<'py, PyAny>,
    Option<Ticket>,
    Option<Flight>,
    Option<String>,
);

/// What was read of a key where no event loop waited for it.
#[pyclass(name = "_Fetched", module = "cachetronomy._core", frozen)]
pub(crate) struct Fetched(Mutex<Option<Arrival>>);

#[pymethods]
impl CachedFunction {
    /// A coroutine function is taken for one by what its wrapper has.
    fn __getattr__<'py>(slf: &Bound<'py, Self>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        if MARKS.contains(&name)
            && let Some(coroutine) = slf.get().wrapper()
        {
            return coroutine.bind(slf.py()).getattr(name);
        }
        Err(PyAttributeError::new_err(format!(
            "the cached function {} has no attribute {name:?}",
            slf.get().name()
        )))
    }

    /// A future of `call()` done where no event loop waits for it; `None`: none runs.
    fn _send(&self, py: Python<'_>, call: Py<PyAny>, writes: bool) -> PyResult<Option<Py<PyAny>>> {
        let lane = if writes { Lane::Write } else { Lane::Read };
        self.client().get().send_call(py, call, lane)
    }

    /// What is to be done for a call that memory does not answer:
    ///
    /// `(value, None, None, None)`: return it;
    /// `(value, ticket, None, None)`: return it, and refresh it in the background;
    /// `(MISS, None, flight, None)`: wait for the flight;
    /// `(MISS, ticket, flight or None, None)`: compute, and end the flight;
    /// `(MISS, None, flight or None, key)`: `_fetch` what is stored, and ask `_set_out`;
    /// `(MISS, None, None, None)`: call the function.
    ///
    /// `task`: a number of the task that can wait for another one; `None`: it cannot, nor start
    /// one; `ancestors`: the numbers of those that started it while they computed. Raises an
    /// exception that is kept.
    #[pyo3(signature = (args, kwargs, task, ancestors))]
    fn _lookup<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: &Bound<'py, PyDict>,
        task: Option<u64>,
        ancestors: &Bound<'py, PyTuple>,
    ) -> PyResult<Next<'py>> {
        let py = args.py();
        let kwargs = (!kwargs.is_empty()).then_some(kwargs);
        let missing = miss(py)?.into_bound(py).into_any();
        let shared = self.open(py)?;
        if shared.has_exited() || shared.is_disabled()? {
            return Ok((missing, None, None, None));
        }
        let Some(key) = self.build_key(args, kwargs)? else {
            return Ok((missing, None, None, None));
        };
        if let Some((value, is_due)) = self.glance(args, kwargs, &key, Reading::AtOnce)? {
            let ticket = if is_due && task.is_some() {
                self.begin_refresh(&key, args, kwargs)?
            } else {
                None
            };
            return Ok((value, ticket, None, None));
        }
        let ancestors: Vec<u64> = ancestors.extract()?;
        let flight = match task {
            Some(task) => self.board(&key, Some(task), &ancestors)?,
            None => None,
        };
        if flight.as_ref().is_some_and(|flight| !flight.is_leader()) {
            self.count_follower()?;
            return Ok((missing, None, flight, None));
        }
        // Whoever has no loop to wait with has to wait here.
        let reading = match task {
            Some(_) => Reading::AtOnce,
            None => Reading::Patient,
        };
        let known = match self.set_out(&key, args, kwargs, reading) {
            Ok(Outset::Missed(ticket)) => {
                if let Some(flight) = &flight {
                    flight.outdated_by(&ticket.watch);
                }
                return Ok((missing, Some(*ticket), flight, None));
            }
            Ok(Outset::Unknown) => return Ok((missing, None, flight, Some(key))),
            Ok(Outset::Known(value) | Outset::Stale(value)) => Ok(value),
            Err(error) => Err(error),
        };
        if let Some(flight) = &flight {
            flight.land(py, &known);
        }
        Ok((known?, None, None, None))
    }

    /// A future of what is stored under a key: a `_Fetched`.
    fn _fetch(&self, py: Python<'_>, key: String) -> PyResult<Py<PyAny>> {
        let ask = self.ask(true);
        self.shared()?.run_aside(
            py,
            (Lane::Read, false),
            move |cache| cache.fetch_as(&key, &ask, true),
            |py, _, found| object(py, Fetched(Mutex::new(found))),
        )
    }

    /// What is to be done now that it is known what is stored: `(value, None)`, return it;
    /// `(value, ticket)`, return it, and refresh it in the background; `(MISS, ticket)`, compute.
    #[pyo3(signature = (key, fetched, args, kwargs, flight))]
    fn _set_out<'py>(
        &self,
        key: &str,
        fetched: &Fetched,
        args: &Bound<'py, PyTuple>,
        kwargs: &Bound<'py, PyDict>,
        flight: Option<&Flight>,
    ) -> PyResult<(Bound<'py, PyAny>, Option<Ticket>)> {
        let py = args.py();
        let kwargs = (!kwargs.is_empty()).then_some(kwargs);
        let reading = Reading::Given(fetched.0.lock().take());
        match self.set_out(key, args, kwargs, reading)? {
            Outset::Known(value) => Ok((value, None)),
            Outset::Stale(value) => Ok((value, self.begin_refresh(key, args, kwargs)?)),
            Outset::Missed(ticket) => {
                if let Some(flight) = flight {
                    flight.outdated_by(&ticket.watch);
                }
                Ok((miss(py)?.into_bound(py).into_any(), Some(*ticket)))
            }
            Outset::Unknown => Ok((miss(py)?.into_bound(py).into_any(), None)),
        }
    }

    /// The ticket of a call whatever is stored, or None.
    fn _ticket<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: &Bound<'py, PyDict>,
    ) -> PyResult<Option<Ticket>> {
        self.ticket(args, (!kwargs.is_empty()).then_some(kwargs))
    }

    /// Whether to compute takes a lease: see `_claim`.
    #[getter]
    fn _needs_lease(&self) -> PyResult<bool> {
        self.needs_lease()
    }

    /// Tries to get the lease, which then is the ticket's: `(done, value or MISS)`. Not done:
    /// somebody else computes, try again later. It may wait for the disk.
    fn _claim<'py>(&self, py: Python<'py>, ticket: &Ticket) -> PyResult<(bool, Bound<'py, PyAny>)> {
        let missing = miss(py)?.into_bound(py).into_any();
        let look = || self.look_again(py, &ticket.key);
        Ok(
            match lease::try_claim(py, self.shared()?, &ticket.key, look)? {
                Claim::Value(value) => (true, value),
                Claim::Lease(lease) => {
                    ticket.hold(lease);
                    (true, missing)
                }
                Claim::Alone => (true, missing),
                Claim::Wait => (false, missing),
            },
        )
    }

    /// The flight of a refresh in the background, or None if somebody computes already.
    fn _board(&self, ticket: &Ticket, task: u64) -> PyResult<(bool, Option<Flight>)> {
        Ok(match self.board(&ticket.key, Some(task), &[])? {
            Some(flight) if !flight.is_leader() => (false, None),
            flight => {
                if let Some(flight) = &flight {
                    flight.outdated_by(&ticket.watch);
                }
                (true, flight)
            }
        })
    }

    /// Logs and counts a refresh that failed.
    fn _fail_refresh(&self, ticket: &Ticket, error: &Bound<'_, PyAny>) -> PyResult<()> {
        self.fail_refresh_of(error.py(), ticket, PyErr::from_value(error.clone()))
    }

    /// Stores a result that took so many microseconds: an awaitable where an event loop runs,
    /// otherwise None.
    fn _settle(
        &self,
        ticket: &Ticket,
        value: &Bound<'_, PyAny>,
        compute_us: i64,
    ) -> PyResult<Py<PyAny>> {
        let py = value.py();
        let Some(put) = self.judge(ticket, value, compute_us)? else {
            return Ok(py.None());
        };
        let planned = self.plan_store(ticket, value, &put)?;
        self.shared()?.carry_out_aside(py, planned)
    }

    /// What a computation that failed comes to: `(stale value or MISS, an awaitable of its
    /// exception being stored or None)`.
    fn _settle_failure<'py>(
        slf: &Bound<'py, Self>,
        ticket: &Ticket,
        error: &Bound<'py, PyAny>,
        compute_us: i64,
    ) -> PyResult<(Bound<'py, PyAny>, Py<PyAny>)> {
        let (py, this) = (slf.py(), slf.get());
        let error = PyErr::from_value(error.clone());
        if let Some(value) = this.rescue(py, ticket, &error)? {
            return Ok((value, py.None()));
        }
        let missing = miss(py)?.into_bound(py).into_any();
        let Some((data, put)) = this.judge_failure(py, ticket, &error, compute_us)? else {
            return Ok((missing, py.None()));
        };
        let function = slf.clone().unbind();
        let (key, watch) = (ticket.key.clone(), Arc::clone(&ticket.watch));
        let shared = this.shared()?;
        let draft = (!put.is_void()).then(|| shared.draft_failure(data, &put));
        let left = shared.run_aside(
            py,
            (Lane::Write, false),
            move |cache| {
                // That it cannot be stored must not take its place.
                let stored = match draft {
                    Some(draft) => cache
                        .store_computed(&key, &draft, &watch)
                        .map(|it| it.is_some()),
                    None => cache.delete(&[&key]).map(|_| true),
                };
                Ok((key, stored))
            },
            move |py, shared, (key, stored)| {
                match stored {
                    Ok(true) => drop(shared.cache.forget([key.as_str()])),
                    Ok(false) => {}
                    Err(_) if shared.has_exited() => {}
                    Err(reason) => function.get().warn(py, &key, &reason.into()),
                }
                Ok(py.None())
            },
        )?;
        Ok((missing, left))
    }

    /// Gives the ticket's lease back, if it has one: an awaitable where an event loop runs,
    /// otherwise None.
    #[expect(clippy::unused_self, reason = "beside the other halves of the wrapper")]
    fn _end_lease(&self, py: Python<'_>, ticket: &Ticket) -> PyResult<Py<PyAny>> {
        match ticket.lease.get() {
            Some(lease) => lease.end_aside(py),
            None => Ok(py.None()),
        }
    }
}
