//! Calls that missed: who computes, and what becomes of the result.

use std::sync::atomic::Ordering;
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::decorator::CachedFunction;
use super::flight::Flight;
use super::lease::{self, Claim};
use super::options::Together;
use super::results::{Outset, Reading};
use super::ticket::Ticket;
use crate::settings::Location;

impl CachedFunction {
    /// What a call that missed has to do; `None`: it computes for itself.
    pub(super) fn board(
        &self,
        key: &str,
        task: Option<u64>,
        ancestors: &[u64],
    ) -> PyResult<Option<Flight>> {
        if self.options.together == Together::Nobody {
            return Ok(None);
        }
        let version = self.version.load(Ordering::Relaxed);
        let store = self.shared()?.id();
        Ok(Flight::board(store, version, key, task, ancestors))
    }

    /// One that missed, and waits for somebody else's result.
    pub(super) fn count_follower(&self) -> PyResult<()> {
        self.misses.fetch_add(1, Ordering::Relaxed);
        self.shared()?.cache.count_miss();
        Ok(())
    }

    /// Whether to compute takes a lease, which others could have.
    pub(super) fn needs_lease(&self) -> PyResult<bool> {
        Ok(self.options.together == Together::Machine
            && *self.shared()?.cache.location() != Location::Memory)
    }

    /// The result of the one that computes for all who wait; or alone, because to wait would be to
    /// wait for itself: for its own lease, too.
    pub(super) fn lead<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
        flight: Option<&Flight>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let ticket = match self.set_out(key, args, kwargs, Reading::Patient)? {
            Outset::Known(value) | Outset::Stale(value) => return Ok(value),
            Outset::Missed(ticket) => ticket,
            Outset::Unknown => return self.call_function(args, kwargs),
        };
        if let Some(flight) = flight {
            flight.outdated_by(&ticket.watch);
        }
        if self.needs_lease()? && flight.is_some() {
            match lease::claim(py, self.shared()?, key, || self.look_again(py, key))? {
                Claim::Value(value) => return Ok(value),
                Claim::Lease(lease) => ticket.hold(lease),
                Claim::Alone | Claim::Wait => {}
            }
        }
        let result = self.compute(&ticket, args, kwargs);
        ticket.end_lease(py);
        result
    }

    /// Calls the function, and stores what it returns.
    pub(super) fn compute<'py>(
        &self,
        ticket: &Ticket,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = args.py();
        let start = Instant::now();
        let result = self.call_function(args, kwargs);
        let compute_us = i64::try_from(start.elapsed().as_micros()).unwrap_or(i64::MAX);
        match &result {
            Ok(value) => {
                if let Some(put) = self.judge(ticket, value, compute_us)? {
                    self.store(ticket, value, &put)?;
                }
            }
            Err(error) => {
                if let Some(value) = self.rescue(py, ticket, error)? {
                    return Ok(value);
                }
                if let Some((data, put)) = self.judge_failure(py, ticket, error, compute_us)? {
                    self.store_failure(py, ticket, &data, &put);
                }
            }
        }
        result
    }
}
