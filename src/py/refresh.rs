//! Results that are computed anew in the background, while callers get the old ones: one at a time
//! for each key.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use super::decorator::CachedFunction;
use super::error::CacheClosedError;
use super::flight;
use super::lease::{self, Claim};
use super::log;
use super::ticket::Ticket;
use crate::cache::{Alive, Arrival};
use crate::time::{Timestamp, Ttl};

/// How long a refresh that failed is not tried again.
const PAUSE: Ttl = Ttl::Micros(1_000_000);

/// Above so many, those that may be tried again are forgotten.
const MANY: usize = 1_024;

/// What is known of the refresh of a key.
enum State {
    /// It is under way. On an event loop: says whether that can still go on.
    UnderWay(u64, Option<Arc<Alive>>),
    /// The last one failed; when the next may begin.
    Failed(Timestamp),
}

/// By store and key.
static REFRESHES: LazyLock<Mutex<HashMap<String, State>>> = LazyLock::new(Mutex::default);

/// A refresh under way, until it has ended or is dropped.
pub(super) struct Refreshing {
    name: String,
    number: u64,
    has_ended: AtomicBool,
}

impl Refreshing {
    /// `None`: it is under way, or has just failed. `alive`: whether it can still go on.
    fn begin(store: &str, key: &str, now: Timestamp, alive: Option<Alive>) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let name = format!("{store}\0{key}");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let alive = alive.map(Arc::new);
        let mut refreshes = REFRESHES.lock();
        let before = match refreshes.get(&name) {
            Some(State::Failed(until)) if *until > now => return None,
            Some(State::UnderWay(number, alive)) => Some((*number, alive.clone())),
            _ => None,
        };
        if let Some((before, alive)) = before {
            drop(refreshes);
            // Asked without the lock: it is Python that knows.
            if alive.is_none_or(|alive| alive()) {
                return None;
            }
            refreshes = REFRESHES.lock();
            if !matches!(refreshes.get(&name), Some(State::UnderWay(it, _)) if *it == before) {
                return None;
            }
        }
        if refreshes.len() >= MANY {
            refreshes.retain(|_, state| !matches!(state, State::Failed(until) if *until <= now));
        }
        let replaced = refreshes.insert(name.clone(), State::UnderWay(number, alive));
        drop(refreshes);
        drop(replaced);
        Some(Self {
            name,
            number,
            has_ended: AtomicBool::new(false),
        })
    }
}

impl Refreshing {
    /// Ends it; `again`: when the next may begin, if not at once. It does not wait for the drop:
    /// whoever keeps the exception of one that failed keeps frames that hold this.
    pub(super) fn end(&self, again: Option<Timestamp>) {
        if self.has_ended.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut refreshes = REFRESHES.lock();
        let is_own = |state: &State| matches!(state, State::UnderWay(it, _) if *it == self.number);
        if !refreshes.get(&self.name).is_some_and(is_own) {
            return;
        }
        let ended = match again {
            Some(again) => refreshes.insert(self.name.clone(), State::Failed(again)),
            None => refreshes.remove(&self.name),
        };
        drop(refreshes);
        drop(ended);
    }
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.end(None);
    }
}

/// In a forked child none is under way.
pub(super) fn forget() {
    let refreshes = std::mem::take(&mut *REFRESHES.lock());
    drop(refreshes);
}

impl CachedFunction {
    /// The ticket of a refresh; `None` if there is nothing to be done. What fails here fails the
    /// refresh, and not the caller, who gets the old result.
    pub(super) fn begin_refresh<'py>(
        &self,
        key: &str,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Option<Ticket>> {
        let (py, now) = (args.py(), self.shared()?.cache.now());
        // A plain function's goes on in a thread.
        let alive = self.is_coroutine().then(flight::alive_loop).flatten();
        let Some(refreshing) = Refreshing::begin(self.shared()?.id(), key, now, alive) else {
            return Ok(None);
        };
        let made = self.ticket_for(String::from(key), args, kwargs, None);
        match made {
            Ok(ticket) => Ok(Some(Ticket {
                refreshing: Some(refreshing),
                ..ticket
            })),
            Err(error) => {
                self.fail_refresh(py, key, &refreshing, error)?;
                Ok(None)
            }
        }
    }

    /// Logs and counts a refresh that failed; an error that is no `Exception` is handed back.
    fn fail_refresh(
        &self,
        py: Python<'_>,
        key: &str,
        refreshing: &Refreshing,
        error: PyErr,
    ) -> PyResult<()> {
        refreshing.end(Some(self.shared()?.cache.now().after(PAUSE)));
        if !error.is_instance_of::<PyException>(py) {
            return Err(error);
        }
        // The cache is being closed, or was.
        if error.is_instance_of::<CacheClosedError>(py)
            || self.shared()?.cache.check_open().is_err()
        {
            return Ok(());
        }
        self.shared()?.cache.count_error();
        log::error(py, &format!("key {key:?}: its refresh failed"), error);
        Ok(())
    }

    /// As [`CachedFunction::fail_refresh`], of a ticket.
    pub(super) fn fail_refresh_of(
        &self,
        py: Python<'_>,
        ticket: &Ticket,
        error: PyErr,
    ) -> PyResult<()> {
        match &ticket.refreshing {
            Some(refreshing) => self.fail_refresh(py, &ticket.key, refreshing, error),
            None => Err(error),
        }
    }

    /// Has a result computed anew by a thread in the background.
    pub(super) fn refresh_in_background<'py>(
        slf: &Bound<'py, Self>,
        key: &str,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let Some(ticket) = slf.get().begin_refresh(key, args, kwargs)? else {
            return Ok(());
        };
        let function = slf.clone().unbind();
        let (args, kwargs) = (args.clone().unbind(), kwargs.map(|it| it.clone().unbind()));
        let job = PyCFunction::new_closure(
            py,
            None,
            None,
            move |none: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
                let py = none.py();
                let kwargs = kwargs.as_ref().map(|kwargs| kwargs.bind(py));
                function.get().run_refresh(&ticket, args.bind(py), kwargs)
            },
        )?;
        py.import("cachetronomy._refresh")?
            .call_method1("start", (job,))?;
        Ok(())
    }

    fn run_refresh<'py>(
        &self,
        ticket: &Ticket,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<()> {
        let py = args.py();
        let flight = self.board(&ticket.key, None, &[])?;
        if flight.as_ref().is_some_and(|flight| !flight.is_leader()) {
            // Somebody computes it already.
            return Ok(());
        }
        if let Some(flight) = &flight {
            flight.outdated_by(&ticket.watch);
        }
        if self.needs_lease()? && !self.try_lease(py, ticket)? {
            return Ok(());
        }
        let result = self.compute(ticket, args, kwargs);
        ticket.end_lease(py);
        if let Some(flight) = &flight {
            flight.land(py, &result);
        }
        match result {
            Ok(_) => Ok(()),
            Err(error) => self.fail_refresh_of(py, ticket, error),
        }
    }

    /// Takes the lease for a refresh, if nobody has it.
    pub(super) fn try_lease(&self, py: Python<'_>, ticket: &Ticket) -> PyResult<bool> {
        let claimed = lease::try_claim(py, self.shared()?, &ticket.key, || Ok(None::<()>))?;
        let Claim::Lease(lease) = claimed else {
            return Ok(false);
        };
        ticket.hold(lease);
        Ok(true)
    }

    /// Whether a stale row may be served while it is computed anew.
    pub(super) fn may_serve(&self, arrival: &Arrival) -> bool {
        self.is_within(arrival, self.options.stale_while_revalidate)
    }

    /// Whether a stale row may be served in the place of an exception.
    pub(super) fn may_rescue(&self, arrival: &Arrival) -> bool {
        self.is_within(arrival, self.options.stale_if_error)
    }

    fn is_within(&self, arrival: &Arrival, grace: Option<Ttl>) -> bool {
        let shared = self.shared().ok();
        let staleness = shared.and_then(|shared| shared.cache.staleness(&arrival.row));
        let staleness = staleness.unwrap_or(0);
        match grace {
            Some(Ttl::Micros(micros)) => staleness < micros,
            Some(Ttl::Never) => true,
            None => false,
        }
    }

    /// The stale result in the place of the exception of the call that was to replace it, which is
    /// logged and counted; `None` if there is none.
    pub(super) fn rescue<'py>(
        &self,
        py: Python<'py>,
        ticket: &Ticket,
        error: &PyErr,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        if !error.is_instance_of::<PyException>(py) {
            return Ok(None);
        }
        let Some(arrival) = ticket.stale.lock().take() else {
            return Ok(None);
        };
        let Ok(Some(value)) = self.revive(py, &ticket.key, &arrival) else {
            // Nothing to be had of it: the exception is what the caller has to see.
            return Ok(None);
        };
        self.shared()?.cache.count_error();
        let message = format!(
            "key {:?}: computing it failed, the stale result is used: {}",
            ticket.key,
            error.value(py).repr()?
        );
        log::warn(py, &message);
        Ok(Some(value))
    }
}
