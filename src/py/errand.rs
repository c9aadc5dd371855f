//! Work for callers on an event loop: done by threads that may wait, answered on the loop that
//! asked. One word to a loop brings the answers to all that was done at once.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use super::client::Client;
use super::put::PutWork;
use super::{fork, halt};
use crate::store::sqlite::waiting_since;
use crate::worker::{Job, Worker};

/// Threads for what takes long and writes nothing: a copy of the file, a look at every entry.
const READERS: usize = 4;

/// What is made of what was done, with the interpreter, on the caller's loop.
pub(super) type Answer = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// What is to be done without the interpreter.
pub(super) type Work = Box<dyn FnOnce() -> Answer + Send>;

pub(super) enum Task {
    /// To store an entry, in one transaction with others.
    Put(Box<PutWork>),
    /// A call of the core.
    Work(Work),
    /// A call of Python, which may take long, and its caller's context.
    Call(Py<PyAny>, Py<PyAny>),
}

/// Which queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// What writes, in the order in which it was asked for.
    Write,
    /// What only reads, and shall not wait for a commit.
    Read,
}

/// The queues of one client.
#[derive(Debug)]
pub(super) struct Lanes {
    writer: Worker<Errand>,
    reader: Worker<Errand>,
}

impl Lanes {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            writer: Worker::new("cachetronomy-w", 1),
            reader: Worker::new("cachetronomy-r", READERS),
        })
    }

    fn lane(&self, lane: Lane) -> &Worker<Errand> {
        match lane {
            Lane::Write => &self.writer,
            Lane::Read => &self.reader,
        }
    }

    /// Ends the threads after what they are doing, for the time of a fork.
    pub(super) fn pause(&self) {
        self.writer.pause();
        self.reader.pause();
    }

    /// Goes on after a fork.
    pub(super) fn resume(&self) {
        self.writer.resume();
        self.reader.resume();
    }

    /// Drops what is queued: in a forked child it is the parent's.
    pub(super) fn forget(&self) {
        drop(self.writer.forget());
        drop(self.reader.forget());
    }

    /// Ends the threads after all that is queued.
    pub(super) fn close(&self) {
        self.writer.close();
        self.reader.close();
    }

    /// Has a task done; the future of the running event loop that will have its answer. `decodes`:
    /// code of the program may run for the answer, which is to find the caller's context.
    pub(super) fn send(
        &self,
        py: Python<'_>,
        lane: Lane,
        task: Task,
        decodes: bool,
    ) -> PyResult<Py<PyAny>> {
        let event_loop = running_loop(py)?.ok_or_else(no_loop)?;
        let future = future_of(&event_loop)?;
        let context = if decodes { Some(context(py)?) } else { None };
        let errand = Errand {
            event_loop: event_loop.unbind(),
            future: future.clone().unbind(),
            context,
            since: Instant::now(),
            task,
        };
        match self.lane(lane).submit(errand) {
            Ok(()) => Ok(future.unbind()),
            Err((errand, error)) => {
                drop(errand);
                Err(error.into())
            }
        }
    }
}

impl Client {
    /// Has `call()` carried out where no event loop waits for it; the future of the running one, or
    /// `None` where none runs.
    pub(super) fn send_call(
        &self,
        py: Python<'_>,
        call: Py<PyAny>,
        lane: Lane,
    ) -> PyResult<Option<Py<PyAny>>> {
        if running_loop(py)?.is_none() {
            return Ok(None);
        }
        let task = Task::Call(call, context(py)?);
        self.lanes.send(py, lane, task, false).map(Some)
    }
}

#[pymethods]
impl Client {
    /// As `send_call`; without an event loop an error.
    fn _send(&self, py: Python<'_>, call: Py<PyAny>, writes: bool) -> PyResult<Py<PyAny>> {
        let lane = if writes { Lane::Write } else { Lane::Read };
        self.send_call(py, call, lane)?.ok_or_else(no_loop)
    }
}

static QUESTION: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The event loop that runs in this thread, if one does.
pub(super) fn running_loop(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    let question = QUESTION.import(py, "asyncio", "_get_running_loop")?;
    let found = halt::call(question, (), None)?;
    Ok((!found.is_none()).then_some(found))
}

/// Whether an event loop runs in this thread. It imports nothing, and fails nowhere.
pub(super) fn is_on_loop(py: Python<'_>) -> bool {
    let question = QUESTION.get(py);
    question.is_some_and(|question| {
        let found = halt::call(question.bind(py), (), None);
        found.is_ok_and(|found| !found.is_none())
    })
}

#[cold]
fn no_loop() -> PyErr {
    PyRuntimeError::new_err(
        "no asyncio event loop is running here: AsyncCachetronaut is awaited under asyncio, uvloop \
         or anyio on asyncio; under trio, call Cachetronaut through trio.to_thread.run_sync",
    )
}

fn context(py: Python<'_>) -> PyResult<Py<PyAny>> {
    static COPY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let copy = COPY.import(py, "contextvars", "copy_context")?;
    halt::call(copy, (), None).map(Bound::unbind)
}

fn future_of<'py>(event_loop: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = event_loop.py();
    halt::call_method(event_loop, intern!(py, "create_future"), ())
}

/// An awaitable that has its answer already.
pub(super) fn ready(py: Python<'_>, answer: Py<PyAny>) -> PyResult<Py<PyAny>> {
    let future = future_of(&running_loop(py)?.ok_or_else(no_loop)?)?;
    halt::call_method(&future, intern!(py, "set_result"), (answer,))?;
    Ok(future.unbind())
}

/// A task and who waits for its answer.
pub(super) struct Errand {
    event_loop: Py<PyAny>,
    future: Py<PyAny>,
    context: Option<Py<PyAny>>,
    since: Instant,
    task: Task,
}

/// An answer on its way to who waits for it.
pub(super) struct Letter {
    event_loop: Py<PyAny>,
    future: Py<PyAny>,
    context: Option<Py<PyAny>>,
    answer: Answer,
}

impl Job for Errand {
    type Done = Letter;

    fn is_slow(&self) -> bool {
        matches!(self.task, Task::Call(..))
    }

    fn serve(batch: Vec<Self>) -> Vec<Letter> {
        fork::mark_background();
        let mut letters = Vec::with_capacity(batch.len());
        let (mut group, mut writers) = (Vec::new(), Vec::new());
        let mut latest = Instant::now();
        for errand in batch {
            let Self {
                event_loop,
                future,
                context,
                since,
                task,
            } = errand;
            let letter = |answer| Letter {
                event_loop,
                future,
                context,
                answer,
            };
            match task {
                Task::Put(put) => {
                    latest = since;
                    group.push(*put);
                    writers.push(letter);
                }
                // In the order in which they came.
                other => {
                    let puts = std::mem::take(&mut group);
                    let answers = waiting_since(latest, || PutWork::store_all(puts)).into_iter();
                    letters.extend(writers.drain(..).zip(answers).map(|(to, it)| to(it)));
                    let answer = match other {
                        Task::Work(work) => waiting_since(since, work),
                        Task::Call(call, context) => waiting_since(since, || ask(&call, &context)),
                        Task::Put(_) => continue,
                    };
                    letters.push(letter(answer));
                }
            }
        }
        let answers = waiting_since(latest, || PutWork::store_all(group)).into_iter();
        letters.extend(writers.into_iter().zip(answers).map(|(to, it)| to(it)));
        letters
    }

    fn report(letters: Vec<Letter>) {
        halt::within(|| post(letters));
    }
}

/// Calls Python; while the interpreter ends, nobody waits for the answer.
fn ask(call: &Py<PyAny>, context: &Py<PyAny>) -> Answer {
    let result = Python::try_attach(|py| {
        halt::call_method(context.bind(py), intern!(py, "run"), (call,)).map(Bound::unbind)
    });
    Box::new(move |_| result.unwrap_or_else(|| Err(no_loop())))
}

/// Brings each answer to its loop. A loop that is closed has nobody who waits.
fn post(letters: Vec<Letter>) {
    Python::try_attach(|py| {
        let mut letters = letters;
        while let Some(first) = letters.first() {
            let event_loop = first.event_loop.clone_ref(py);
            let (here, elsewhere) = letters
                .into_iter()
                .partition(|letter| letter.event_loop.is(&event_loop));
            letters = elsewhere;
            let delivery = Delivery(Mutex::new(here));
            let posted = Py::new(py, delivery).and_then(|delivery| {
                let post = intern!(py, "call_soon_threadsafe");
                halt::call_method(event_loop.bind(py), post, (delivery,))
            });
            drop(posted);
        }
    });
}

/// Answers that a loop has still to hand out, which it does by calling this.
#[pyclass(name = "_Delivery", module = "cachetronomy._core", frozen)]
pub(crate) struct Delivery(Mutex<Vec<Letter>>);

#[pymethods]
impl Delivery {
    fn __call__(&self, py: Python<'_>) {
        let letters = std::mem::take(&mut *self.0.lock());
        for letter in letters {
            halt::within(|| {
                // One that fails is no reason to keep the others waiting.
                if let Err(error) = letter.hand_over(py) {
                    error.write_unraisable(py, None);
                }
            });
        }
    }
}

impl Letter {
    fn hand_over(self, py: Python<'_>) -> PyResult<()> {
        let Self {
            future,
            context,
            answer,
            ..
        } = self;
        // Also where nobody waits any more: memory is to know of it.
        let result = match context {
            Some(context) => within(py, &context, answer),
            None => answer(py),
        };
        let future = future.bind(py);
        if halt::call_method(future, intern!(py, "done"), ())?.is_truthy()? {
            return Ok(());
        }
        match result {
            Ok(value) => halt::call_method(future, intern!(py, "set_result"), (value,))?,
            Err(error) => {
                let error = presentable(py, error);
                halt::call_method(future, intern!(py, "set_exception"), (error,))?
            }
        };
        Ok(())
    }
}

/// The exception for a future, which takes no `StopIteration`: a format of the program's own may
/// raise one.
fn presentable(py: Python<'_>, error: PyErr) -> Py<PyAny> {
    if !error.is_instance_of::<PyStopIteration>(py) {
        return error.into_value(py).into_any();
    }
    let raised = PyRuntimeError::new_err("a coroutine raised StopIteration");
    raised.set_cause(py, Some(error));
    raised.into_value(py).into_any()
}

/// Has the code of the program that an answer may run find its caller's context.
fn within(py: Python<'_>, context: &Py<PyAny>, answer: Answer) -> PyResult<Py<PyAny>> {
    let answer = Mutex::new(Some(answer));
    let call = PyCFunction::new_closure(
        py,
        None,
        None,
        move |args: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
            let answer = answer.lock().take();
            answer.map_or_else(|| Ok(args.py().None()), |answer| answer(args.py()))
        },
    )?;
    halt::call_method(context.bind(py), intern!(py, "run"), (call,)).map(Bound::unbind)
}
