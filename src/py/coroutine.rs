//! What serves the wrapper of a coroutine function, which `python/cachetronomy/_coroutines.py` has.

use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use super::decorator::CachedFunction;
use super::flight::Flight;
use super::lease::{self, Claim};
use super::memo::Arguments;
use super::results::Outset;
use super::sentinel::miss;
use super::ticket::Ticket;

/// What a coroutine function is known by.
const MARKS: [&str; 4] = [
    "__code__",
    "__defaults__",
    "__kwdefaults__",
    "_is_coroutine_mark",
];

/// What a coroutine is to do next: `(value or MISS, ticket or None, flight or None)`.
type Next<'py> = (Bound<'py, PyAny>, Option<Ticket>, Option<Flight>);

/// A call that is to run where no event loop waits for it.
fn later(
    py: Python<'_>,
    work: impl Fn(Python<'_>) -> PyResult<()> + Send + Sync + 'static,
) -> PyResult<Bound<'_, PyCFunction>> {
    PyCFunction::new_closure(
        py,
        None,
        None,
        move |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| work(args.py()),
    )
}

#[pymethods]
impl CachedFunction {
    /// A coroutine function is taken for one by what its wrapper has.
    fn __getattr__<'py>(slf: &Bound<'py, Self>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        if MARKS.contains(&name)
            && let Some(coroutine) = slf.get().coroutine()
        {
            return coroutine.bind(slf.py()).getattr(name);
        }
        Err(PyAttributeError::new_err(format!(
            "the cached function {} has no attribute {name:?}",
            slf.get().name()
        )))
    }

    /// For coroutine functions: the value in memory, or MISS.
    fn _peek<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: &Bound<'py, PyDict>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = args.py();
        // Whether it is to be computed anew, only the other half can see to.
        let value = if kwargs.is_empty() && !self.options.early {
            self.recall(
                py,
                Arguments {
                    object: None,
                    rest: args.as_slice(),
                },
            )
        } else {
            None
        };
        Ok(match value {
            Some((value, _)) => value.into_bound(py),
            None => miss(py)?.into_bound(py).into_any(),
        })
    }

    /// What is to be done for a call that memory does not answer:
    ///
    /// `(value, None, None)`: return it;
    /// `(value, ticket, None)`: return it, and refresh it in the background;
    /// `(MISS, None, flight)`: wait for the flight;
    /// `(MISS, ticket, flight or None)`: compute, and end the flight;
    /// `(MISS, None, None)`: call the function.
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
        if self.shared.has_exited() || self.shared.is_disabled()? {
            return Ok((missing, None, None));
        }
        let Some(key) = self.build_key(args, kwargs)? else {
            return Ok((missing, None, None));
        };
        if let Some((value, is_due)) = self.glance(args, kwargs, &key)? {
            let ticket = if is_due && task.is_some() {
                self.begin_refresh(&key, args, kwargs)?
            } else {
                None
            };
            return Ok((value, ticket, None));
        }
        let ancestors: Vec<u64> = ancestors.extract()?;
        let flight = task.and_then(|task| self.board(&key, Some(task), &ancestors));
        if flight.as_ref().is_some_and(|flight| !flight.is_leader()) {
            self.count_follower();
            return Ok((missing, None, flight));
        }
        let known = match self.set_out(&key, args, kwargs) {
            Ok(Outset::Missed(ticket)) => {
                if let Some(flight) = &flight {
                    flight.outdated_by(&ticket.watch);
                }
                return Ok((missing, Some(*ticket), flight));
            }
            Ok(Outset::Known(value)) => Ok(value),
            Err(error) => Err(error),
        };
        if let Some(flight) = &flight {
            flight.land(py, &known);
        }
        Ok((known?, None, None))
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
    fn _needs_lease(&self) -> bool {
        self.needs_lease()
    }

    /// Tries to get the lease, which then is the ticket's: `(done, value or MISS)`. Not done:
    /// somebody else computes, try again later. It may wait for the disk.
    fn _claim<'py>(&self, py: Python<'py>, ticket: &Ticket) -> PyResult<(bool, Bound<'py, PyAny>)> {
        let missing = miss(py)?.into_bound(py).into_any();
        let look = || self.look_again(py, &ticket.key);
        Ok(
            match lease::try_claim(py, &self.shared, &ticket.key, look)? {
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
    fn _board(&self, ticket: &Ticket, task: u64) -> (bool, Option<Flight>) {
        match self.board(&ticket.key, Some(task), &[]) {
            Some(flight) if !flight.is_leader() => (false, None),
            flight => {
                if let Some(flight) = &flight {
                    flight.outdated_by(&ticket.watch);
                }
                (true, flight)
            }
        }
    }

    /// Logs and counts a refresh that failed.
    fn _fail_refresh(&self, ticket: &Ticket, error: &Bound<'_, PyAny>) -> PyResult<()> {
        self.fail_refresh_of(error.py(), ticket, PyErr::from_value(error.clone()))
    }

    /// What is left to be done with a result that took so many microseconds, or None.
    fn _settle<'py>(
        slf: &Bound<'py, Self>,
        ticket: &Bound<'py, Ticket>,
        value: &Bound<'py, PyAny>,
        compute_us: i64,
    ) -> PyResult<Option<Bound<'py, PyCFunction>>> {
        let put = slf.get().judge(ticket.get(), value, compute_us)?;
        if put.is_none() && ticket.get().lease.get().is_none() {
            return Ok(None);
        }
        let (function, ticket) = (slf.clone().unbind(), ticket.clone().unbind());
        let value = value.clone().unbind();
        later(slf.py(), move |py| {
            let stored = match &put {
                Some(put) => function.get().store(ticket.get(), value.bind(py), put),
                None => Ok(()),
            };
            ticket.get().end_lease(py);
            stored
        })
        .map(Some)
    }

    /// What a computation that failed comes to: `(stale value or MISS, what is left to be done or
    /// None)`.
    fn _settle_failure<'py>(
        slf: &Bound<'py, Self>,
        ticket: &Bound<'py, Ticket>,
        error: &Bound<'py, PyAny>,
        compute_us: i64,
    ) -> PyResult<(Bound<'py, PyAny>, Option<Bound<'py, PyCFunction>>)> {
        let (py, this) = (slf.py(), slf.get());
        let error = PyErr::from_value(error.clone());
        let rescued = this.rescue(py, ticket.get(), &error)?;
        let kept = match &rescued {
            Some(_) => None,
            None => this.judge_failure(py, ticket.get(), &error, compute_us)?,
        };
        let value = match rescued {
            Some(value) => value,
            None => miss(py)?.into_bound(py).into_any(),
        };
        if kept.is_none() && ticket.get().lease.get().is_none() {
            return Ok((value, None));
        }
        let (function, ticket) = (slf.clone().unbind(), ticket.clone().unbind());
        let left = later(py, move |py| {
            if let Some((data, put)) = &kept {
                function.get().store_failure(py, ticket.get(), data, put);
            }
            ticket.get().end_lease(py);
            Ok(())
        })?;
        Ok((value, Some(left)))
    }
}
