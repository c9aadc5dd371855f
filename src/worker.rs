//! Threads that serve a queue: for callers that must not wait themselves.
//!
//! Jobs are taken in the order in which they came, many at once, so that those that came together
//! can share a transaction and a word to whoever waits for them. Threads start when they are first
//! needed, and end with [`Worker::close`] or, until the next job, with [`Worker::pause`].

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};

/// Jobs taken at once. A transaction of so many entries holds the write lock for some milliseconds.
const MAX_BATCH: usize = 512;

/// How long the word that a job is done may wait for that of jobs after it.
const MAX_DELAY: Duration = Duration::from_millis(1);

/// Threads that end by themselves, and that nobody waits for: their own job has ended them, say.
static ORPHANS: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());

/// Does something on a thread of its own, for which nobody waits but a fork and the process's end.
/// If none can be started, `work` is dropped.
pub fn spawn_orphan(work: impl FnOnce() + Send + 'static) {
    reap_orphans();
    let started = std::thread::Builder::new()
        .name(String::from("cachetronomy-o"))
        .spawn(work);
    ORPHANS.lock().extend(started);
}

/// Waits for threads that nobody else waits for: before a fork, and before the process ends.
pub fn join_orphans() {
    let threads = std::mem::take(&mut *ORPHANS.lock());
    for thread in threads {
        if thread.thread().id() == std::thread::current().id() {
            ORPHANS.lock().push(thread);
        } else {
            drop(thread.join());
        }
    }
}

/// Gives back what ended orphans still hold: their stacks.
fn reap_orphans() {
    let ended: Vec<_> = ORPHANS
        .lock()
        .extract_if(.., |thread| thread.is_finished())
        .collect();
    for thread in ended {
        drop(thread.join());
    }
}

thread_local! {
    /// This thread is one of a worker's.
    static IS_SERVING: Cell<bool> = const { Cell::new(false) };
}

/// What a worker does.
pub trait Job: Sized + Send + 'static {
    /// What is left to be told of a job that is done.
    type Done;

    /// It may take long: no other job is to wait in one batch with it.
    fn is_slow(&self) -> bool;

    /// Does jobs that were taken at once.
    fn serve(batch: Vec<Self>) -> Vec<Self::Done>;

    /// Tells of jobs that are done: when there is nothing else to do, or they were done a while ago.
    fn report(done: Vec<Self::Done>);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    /// Jobs are taken in, and wait.
    Paused,
    /// What is queued is done; nothing more is taken in.
    Closed,
}

struct State<J> {
    jobs: VecDeque<J>,
    mode: Mode,
    threads: Vec<JoinHandle<()>>,
    /// Threads that wait for a job.
    idle: usize,
    /// Threads that have not ended.
    running: usize,
}

struct Queue<J> {
    name: &'static str,
    max_threads: usize,
    state: Mutex<State<J>>,
    changed: Condvar,
}

/// What a thread is to do.
enum Next<J> {
    Serve(Vec<J>),
    Report,
    End,
}

/// A thread that has not ended.
struct Thread<'a, J>(&'a Queue<J>);

impl<J> Drop for Thread<'_, J> {
    fn drop(&mut self) {
        self.0.state.lock().running -= 1;
        self.0.changed.notify_all();
    }
}

/// A queue and the threads that serve it.
pub struct Worker<J>(Arc<Queue<J>>);

impl<J> std::fmt::Debug for Worker<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Worker").field(&self.0.name).finish()
    }
}

impl<J: Job> Worker<J> {
    /// A queue without threads yet. With more than one, jobs may end in another order than they
    /// began.
    pub fn new(name: &'static str, max_threads: usize) -> Self {
        Self(Arc::new(Queue {
            name,
            max_threads,
            state: Mutex::new(State {
                jobs: VecDeque::new(),
                mode: Mode::Open,
                threads: Vec::new(),
                idle: 0,
                running: 0,
            }),
            changed: Condvar::new(),
        }))
    }

    /// Takes a job in; one that cannot be done is handed back with the reason.
    pub fn submit(&self, job: J) -> Result<(), (J, Error)> {
        let mut state = self.0.state.lock();
        if state.mode == Mode::Closed {
            return Err((job, Error::Closed));
        }
        if state.running == 0
            && state.mode == Mode::Open
            && let Err(error) = self.0.spawn(&mut state)
        {
            return Err((job, error));
        }
        state.jobs.push_back(job);
        if state.idle > 0 {
            self.0.changed.notify_one();
        }
        Ok(())
    }

    /// Ends the threads after what they are doing, and waits for them; [`Worker::resume`] goes on.
    pub fn pause(&self) {
        self.halt(Mode::Paused);
    }

    /// Goes on after [`Worker::pause`].
    pub fn resume(&self) {
        let mut state = self.0.state.lock();
        if state.mode == Mode::Paused {
            state.mode = Mode::Open;
            if !state.jobs.is_empty() {
                // If it fails, the next job starts one.
                drop(self.0.spawn(&mut state));
            }
            self.0.changed.notify_all();
        }
    }

    /// Ends the threads after all jobs are done, and waits for them. Takes in no more.
    pub fn close(&self) {
        self.halt(Mode::Closed);
    }

    /// Takes out what is queued: in a forked child it is the parent's, and so are the threads.
    pub fn forget(&self) -> VecDeque<J> {
        let mut state = self.0.state.lock();
        state.threads.drain(..).for_each(std::mem::forget);
        (state.idle, state.running) = (0, 0);
        std::mem::take(&mut state.jobs)
    }

    fn halt(&self, mode: Mode) {
        let mut state = self.0.state.lock();
        if state.mode != Mode::Closed {
            state.mode = mode;
        }
        if mode == Mode::Closed && state.running == 0 && !state.jobs.is_empty() {
            // Closed while it was paused: somebody waits for these.
            drop(self.0.spawn(&mut state));
        }
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        self.0.changed.notify_all();
        for thread in threads {
            if thread.thread().id() == std::thread::current().id() {
                // A job closes its own worker, whose thread then ends after it.
                ORPHANS.lock().push(thread);
            } else {
                // It has no panics to report but bugs, and those it has printed.
                drop(thread.join());
            }
        }
        // Those that somebody else joins. A job does not wait for itself, nor one for another.
        if !IS_SERVING.get() {
            let mut state = self.0.state.lock();
            while state.running > 0 && state.mode != Mode::Open {
                self.0.changed.wait(&mut state);
            }
        }
    }
}

impl<J: Job> Queue<J> {
    fn spawn(self: &Arc<Self>, state: &mut State<J>) -> Result<()> {
        reap_orphans();
        let queue = Arc::clone(self);
        let started = std::thread::Builder::new()
            .name(String::from(self.name))
            .spawn(move || queue.run())
            .map_err(|error| Error::StoreUnavailable {
                path: String::from("background thread"),
                reason: format!("cannot be started: {error}"),
            })?;
        state.running += 1;
        state.threads.retain(|thread| !thread.is_finished());
        state.threads.push(started);
        Ok(())
    }

    fn run(self: Arc<Self>) {
        IS_SERVING.set(true);
        let _ends = Thread(&self);
        let mut done = Vec::new();
        let mut since = Instant::now();
        loop {
            let is_due = !done.is_empty() && since.elapsed() >= MAX_DELAY;
            match self.next(done.is_empty(), is_due) {
                Next::Serve(batch) => {
                    if done.is_empty() {
                        since = Instant::now();
                    }
                    done.extend(J::serve(batch));
                }
                Next::Report => J::report(std::mem::take(&mut done)),
                Next::End => return,
            }
        }
    }

    /// What a thread is to do next, which waits for it if there is nothing to report.
    fn next(self: &Arc<Self>, is_idle: bool, is_due: bool) -> Next<J> {
        let mut state = self.state.lock();
        while state.jobs.is_empty() || state.mode == Mode::Paused {
            if !is_idle {
                return Next::Report;
            }
            if state.mode != Mode::Open {
                return Next::End;
            }
            state.idle += 1;
            self.changed.wait(&mut state);
            state.idle -= 1;
        }
        let slow = state.jobs.iter().take(MAX_BATCH).position(J::is_slow);
        if !is_idle && (is_due || slow == Some(0)) {
            return Next::Report;
        }
        let count = slow.unwrap_or(MAX_BATCH).clamp(1, state.jobs.len());
        let batch = state.jobs.drain(..count).collect();
        // Whoever came meanwhile was told of a thread that now has something else to do.
        if !state.jobs.is_empty() && state.idle == 0 && state.running < self.max_threads {
            // If it fails, they wait for this one.
            drop(self.spawn(&mut state));
        }
        Next::Serve(batch)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Says its number, and waits for a word if it is slow.
    struct Note {
        number: usize,
        heard: Sender<Vec<usize>>,
        gate: Option<Receiver<()>>,
    }

    impl Job for Note {
        type Done = (Sender<Vec<usize>>, Vec<usize>);

        fn is_slow(&self) -> bool {
            self.gate.is_some()
        }

        fn serve(batch: Vec<Self>) -> Vec<Self::Done> {
            let numbers = batch.iter().map(|note| note.number).collect();
            for note in &batch {
                if let Some(gate) = &note.gate {
                    gate.recv().unwrap();
                }
            }
            vec![(batch[0].heard.clone(), numbers)]
        }

        fn report(done: Vec<Self::Done>) {
            for (heard, numbers) in done {
                heard.send(numbers).unwrap();
            }
        }
    }

    struct Desk {
        worker: Worker<Note>,
        sender: Sender<Vec<usize>>,
        heard: Receiver<Vec<usize>>,
    }

    impl Desk {
        fn new(threads: usize) -> Self {
            let (sender, heard) = channel();
            let worker = Worker::new("test", threads);
            Self {
                worker,
                sender,
                heard,
            }
        }

        fn note(&self, number: usize) -> Note {
            Note {
                number,
                heard: self.sender.clone(),
                gate: None,
            }
        }

        fn submit(&self, number: usize) {
            assert!(self.worker.submit(self.note(number)).is_ok());
        }

        fn submit_slow(&self, number: usize) -> Sender<()> {
            let (go, gate) = channel();
            let note = Note {
                gate: Some(gate),
                ..self.note(number)
            };
            assert!(self.worker.submit(note).is_ok());
            go
        }
    }

    #[test]
    fn jobs_that_wait_are_taken_at_once_and_in_order() {
        let desk = Desk::new(1);
        let go = desk.submit_slow(0);
        (1..=3).for_each(|number| desk.submit(number));
        let last = desk.submit_slow(4);
        desk.submit(5);
        go.send(()).unwrap();
        last.send(()).unwrap();
        desk.worker.close();
        let heard: Vec<_> = desk.heard.try_iter().collect();
        assert_eq!(heard, [vec![0], vec![1, 2, 3], vec![4], vec![5]]);
    }

    #[test]
    fn a_slow_job_holds_up_nobody_where_there_are_threads() {
        let desk = Desk::new(2);
        let go = desk.submit_slow(0);
        desk.submit(1);
        assert_eq!(desk.heard.recv().unwrap(), [1]);
        go.send(()).unwrap();
        assert_eq!(desk.heard.recv().unwrap(), [0]);
        desk.worker.close();
    }

    #[test]
    fn a_pause_keeps_what_is_queued() {
        let desk = Desk::new(1);
        desk.submit(0);
        assert_eq!(desk.heard.recv().unwrap(), [0]);
        desk.worker.pause();
        desk.submit(1);
        assert!(desk.heard.try_recv().is_err());
        desk.worker.resume();
        assert_eq!(desk.heard.recv().unwrap(), [1]);
        desk.worker.pause();
        desk.submit(2);
        assert_eq!(desk.worker.forget().len(), 1);
        desk.worker.resume();
        desk.submit(3);
        assert_eq!(desk.heard.recv().unwrap(), [3]);
        desk.worker.close();
    }

    #[test]
    fn closing_does_what_is_queued_and_refuses_what_comes_later() {
        let desk = Desk::new(1);
        let go = desk.submit_slow(0);
        desk.submit(1);
        std::thread::scope(|scope| {
            let closing = scope.spawn(|| desk.worker.close());
            go.send(()).unwrap();
            closing.join().unwrap();
        });
        let heard: Vec<_> = desk.heard.try_iter().collect();
        assert_eq!(heard, [vec![0], vec![1]]);
        let (refused, error) = desk.worker.submit(desk.note(2)).err().unwrap();
        assert_eq!((refused.number, error), (2, Error::Closed));
        desk.worker.close();
    }

    #[test]
    fn a_job_can_close_its_own_worker() {
        struct Closing(Arc<Worker<Self>>, Sender<()>);

        impl Job for Closing {
            type Done = Sender<()>;

            fn is_slow(&self) -> bool {
                true
            }

            fn serve(batch: Vec<Self>) -> Vec<Self::Done> {
                let close = |job: Self| {
                    job.0.close();
                    job.1
                };
                batch.into_iter().map(close).collect()
            }

            fn report(done: Vec<Self::Done>) {
                for done in done {
                    done.send(()).unwrap();
                }
            }
        }

        let (done, heard) = channel();
        let worker = Arc::new(Worker::new("test", 1));
        let job = Closing(Arc::clone(&worker), done);
        assert!(worker.submit(job).is_ok());
        heard.recv().unwrap();
        join_orphans();
        assert_eq!(worker.0.state.lock().running, 0);
    }

    #[test]
    fn whoever_closes_it_too_goes_on_when_it_is_closed() {
        let desk = Desk::new(1);
        let go = desk.submit_slow(0);
        std::thread::scope(|scope| {
            let (ended, heard) = channel();
            for _ in 0..2 {
                let (worker, ended) = (&desk.worker, ended.clone());
                scope.spawn(move || {
                    worker.close();
                    ended.send(()).unwrap();
                });
            }
            while desk.worker.0.state.lock().mode != Mode::Closed {
                std::thread::yield_now();
            }
            assert!(heard.recv_timeout(Duration::from_millis(20)).is_err());
            go.send(()).unwrap();
            heard.recv().unwrap();
            heard.recv().unwrap();
        });
        assert_eq!(desk.heard.recv().unwrap(), [0]);
    }

    #[test]
    fn orphans_are_waited_for() {
        let (done, heard) = channel();
        let (go, gate) = channel::<()>();
        spawn_orphan(move || {
            gate.recv().unwrap();
            done.send(()).unwrap();
        });
        go.send(()).unwrap();
        join_orphans();
        assert!(heard.try_recv().is_ok());
    }

    #[test]
    fn closing_a_paused_one_does_what_is_queued() {
        let desk = Desk::new(1);
        desk.worker.pause();
        desk.submit(0);
        desk.worker.close();
        assert_eq!(desk.heard.recv().unwrap(), [0]);
    }
}
