//! Compute-once in terms of Python: threads that wait without the interpreter, tasks that are woken
//! on their own loop.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyTraceback;

use super::client::Client;
use super::errand;
use super::halt;
use super::lease::{self, Claim, Lease};
use super::options::Together;
use super::sentinel::miss;
use crate::cache::{self, Agent, Alive, Boarding, Flights, Lead, Outcome};
use crate::settings::Location;
use crate::store::fence::Watch;

/// What a computation ends with.
type Landing = Result<Py<PyAny>, Fault>;

/// An exception, and where it came from: from Python 3.12 on each who raises it adds to that.
struct Fault {
    error: PyErr,
    traceback: Option<Py<PyTraceback>>,
}

/// All computations of the process, by store and key: clients of one file compute once together.
static FLIGHTS: LazyLock<Flights<Landing>> = LazyLock::new(Flights::default);

/// Between two looks whether Ctrl-C was pressed.
const PATIENCE: Duration = Duration::from_millis(50);

fn this_thread() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static NUMBER: Cell<u64> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    NUMBER.get()
}

/// In a forked child nobody is left to end what was under way.
pub(super) fn forget() {
    FLIGHTS.forget();
}

fn copy(py: Python<'_>, landing: &Landing) -> PyResult<Py<PyAny>> {
    match landing {
        Ok(value) => Ok(value.clone_ref(py)),
        Err(fault) => {
            let error = fault.error.clone_ref(py);
            let traceback = fault.traceback.as_ref();
            error.set_traceback(py, traceback.map(|it| it.bind(py).clone()));
            Err(error)
        }
    }
}

/// Who missed on a key, and what comes of it.
#[pyclass(name = "_Flight", module = "cachetronomy._core", frozen)]
pub(crate) struct Flight {
    me: Agent,
    key: String,
    role: Role,
}

enum Role {
    /// Taken when it ends.
    Leader(Mutex<Option<Lead<'static, Landing>>>),
    Follower(Arc<cache::Flight<Landing>>),
}

impl Flight {
    /// `task`: of whoever waits without blocking its thread; `ancestors`: those that started it. `None`: compute for yourself.
    pub(super) fn board(
        store: &str,
        version: i64,
        key: &str,
        task: Option<u64>,
        ancestors: &[u64],
    ) -> Option<Self> {
        let me = Agent {
            thread: this_thread(),
            task,
        };
        let key = format!("{store}\0{version}\0{key}");
        let role = loop {
            match FLIGHTS.board(&key, me, ancestors) {
                Boarding::Lead(lead) => {
                    if let Some(alive) = task.and_then(|_| alive_loop()) {
                        lead.alive_while(alive);
                    }
                    break Role::Leader(Mutex::new(Some(lead)));
                }
                Boarding::Follow(flight) if flight.is_orphaned() => {
                    FLIGHTS.leave(me, &flight);
                    FLIGHTS.abandon(&key, &flight);
                }
                Boarding::Follow(flight) => break Role::Follower(flight),
                Boarding::Alone => return None,
            }
        };
        Some(Self { me, key, role })
    }

    /// Of a follower: wakes all who wait if the leader's event loop was closed.
    fn look_after_leader(&self) {
        if let Role::Follower(flight) = &self.role
            && flight.is_orphaned()
        {
            FLIGHTS.abandon(&self.key, flight);
        }
    }

    /// Whether this one computes.
    pub(super) fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// Of a leader: when this key is changed, who comes later does not wait for it.
    pub(super) fn outdated_by(&self, watch: &Watch) {
        if let Role::Leader(lead) = &self.role
            && let Some(lead) = &*lead.lock()
        {
            lead.outdated_by(watch.flag());
        }
    }

    /// A leader's word to all who wait. Nobody waits for an exception that is about the process
    /// and not about the computation: then somebody else leads.
    pub(super) fn land(&self, py: Python<'_>, result: &PyResult<Bound<'_, PyAny>>) {
        let Role::Leader(lead) = &self.role else {
            return;
        };
        let Some(lead) = lead.lock().take() else {
            return;
        };
        match result {
            Ok(value) => lead.end(Ok(value.clone().unbind())),
            Err(error) if error.is_instance_of::<PyException>(py) => {
                lead.end(Err(Fault {
                    error: error.clone_ref(py),
                    traceback: error.traceback(py).map(Bound::unbind),
                }));
            }
            Err(_) => drop(lead),
        }
    }

    /// A follower's wait, which blocks its thread. `None`: the leader went away.
    pub(super) fn follow<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Role::Follower(flight) = &self.role else {
            return Ok(None);
        };
        let _stays = Stay(self);
        loop {
            match py.detach(|| flight.wait(PATIENCE)) {
                Some(Outcome::Result(landing)) => {
                    return copy(py, &landing).map(|value| Some(value.into_bound(py)));
                }
                Some(Outcome::Abandoned) => return Ok(None),
                None => {
                    py.check_signals()?;
                    self.look_after_leader();
                }
            }
        }
    }
}

/// Whether the event loop of this task is open, for others to ask: a task of a closed one goes on no
/// more, whoever may still hold it.
pub(super) fn alive_loop() -> Option<Alive> {
    Python::attach(|py| {
        let event_loop = errand::running_loop(py).ok()??.unbind();
        let alive: Alive = Box::new(move || {
            let is_closed = |py: Python<'_>| {
                event_loop
                    .call_method0(py, pyo3::intern!(py, "is_closed"))
                    .and_then(|closed| closed.is_truthy(py))
                    .unwrap_or(false)
            };
            !Python::try_attach(is_closed).unwrap_or(false)
        });
        Some(alive)
    })
}

/// A follower waits until this is dropped.
struct Stay<'a>(&'a Flight);

impl Drop for Stay<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.leave();
    }
}

#[pymethods]
impl Flight {
    /// Whether this one computes; otherwise it waits.
    #[getter]
    fn leads(&self) -> bool {
        self.is_leader()
    }

    /// Leader: gives the result to all who wait.
    fn end(&self, value: &Bound<'_, PyAny>) {
        self.land(value.py(), &Ok(value.clone()));
    }

    /// Leader: gives its exception to all who wait or, if it was cancelled, the lead to one of them.
    fn fail(&self, error: &Bound<'_, PyAny>) {
        self.land(error.py(), &Err(PyErr::from_value(error.clone())));
    }

    /// Follower: has `tell()` called when the leader has ended, on the leader's thread; false if it
    /// has ended already.
    fn when_ended(&self, tell: Py<PyAny>) -> bool {
        let Role::Follower(flight) = &self.role else {
            return false;
        };
        let waiter = move || {
            Python::try_attach(|py| {
                if let Err(error) = halt::call(tell.bind(py), (), None) {
                    error.write_unraisable(py, None);
                }
            });
        };
        flight.when_ended(Box::new(waiter)).is_none()
    }

    /// Follower: the result of the leader, or its exception; `MISS` if it went away.
    fn result<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let Role::Follower(flight) = &self.role else {
            return Ok(miss(py)?.into_bound(py).into_any());
        };
        match flight.outcome() {
            Some(Outcome::Result(landing)) => copy(py, &landing).map(|value| value.into_bound(py)),
            _ => Ok(miss(py)?.into_bound(py).into_any()),
        }
    }

    /// Follower: waits for the leader, blocking this thread; its result or exception, `MISS` if it
    /// went away.
    fn wait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.follow(py)? {
            Some(value) => Ok(value),
            None => Ok(miss(py)?.into_bound(py).into_any()),
        }
    }

    /// Follower: wakes all who wait if the leader will never end.
    fn look(&self) {
        self.look_after_leader();
    }

    /// Follower: it waits no longer.
    fn leave(&self) {
        if let Role::Follower(flight) = &self.role {
            FLIGHTS.leave(self.me, flight);
        }
    }
}

/// Compute-once for `get_or_compute`.
#[pymethods]
impl Client {
    /// Who missed on a key boards with this; `None`: compute for yourself. `task` and `ancestors`: as
    /// in `_lookup` of a coroutine function.
    #[pyo3(signature = (key, version, lock, task = None, ancestors = Vec::new()),
           text_signature = "($self, key, version, lock, task=None, ancestors=())")]
    #[expect(clippy::needless_pass_by_value, reason = "the shape of the protocol")]
    fn _board(
        &self,
        py: Python<'_>,
        key: &str,
        version: i64,
        lock: Together,
        task: Option<u64>,
        ancestors: Vec<u64>,
    ) -> PyResult<Option<Flight>> {
        let shared = self.begin(py)?;
        if shared.is_disabled()? || lock == Together::Nobody {
            return Ok(None);
        }
        Ok(Flight::board(shared.id(), version, key, task, &ancestors))
    }

    /// Waits until no other process computes the value of a key: `(value, None)` if `look()` finds
    /// it, else `(MISS, lease)`; `(MISS, None)` where no other process could.
    fn _claim<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        look: &Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PyAny>, Option<Lease>)> {
        let missing = miss(py)?.into_bound(py).into_any();
        let shared = self.begin(py)?;
        if *shared.cache.location() == Location::Memory || shared.is_disabled()? {
            return Ok((missing, None));
        }
        Ok(
            match lease::claim(py, shared, key, || look_with(look, &missing))? {
                Claim::Value(value) => (value, None),
                Claim::Lease(lease) => (missing, Some(lease)),
                Claim::Alone | Claim::Wait => (missing, None),
            },
        )
    }

    /// As `_claim`, but tries once: `(done, value or MISS, lease or None)`. Not done: another process
    /// computes, try again later. It may wait for the disk.
    fn _try_claim<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        look: &Bound<'py, PyAny>,
    ) -> PyResult<(bool, Bound<'py, PyAny>, Option<Lease>)> {
        let missing = miss(py)?.into_bound(py).into_any();
        let shared = self.begin(py)?;
        if *shared.cache.location() == Location::Memory || shared.is_disabled()? {
            return Ok((true, missing, None));
        }
        Ok(
            match lease::try_claim(py, shared, key, || look_with(look, &missing))? {
                Claim::Value(value) => (true, value, None),
                Claim::Lease(lease) => (true, missing, Some(lease)),
                Claim::Alone => (true, missing, None),
                Claim::Wait => (false, missing, None),
            },
        )
    }
}

fn look_with<'py>(
    look: &Bound<'py, PyAny>,
    missing: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let value = halt::call(look, (), None)?;
    Ok((!value.is(missing)).then_some(value))
}
