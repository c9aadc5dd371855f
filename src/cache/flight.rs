//! Compute-once: of all threads and tasks that miss on one key at once, one computes and the others
//! get what it got.
//!
//! Nobody waits for what could only come after its own wait: a function that calls itself, two that
//! call each other from two threads, a plain call that blocks the event loop of the task it would
//! wait for. Who would, computes for itself.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Who computes or waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Agent {
    /// Its thread.
    pub thread: u64,
    /// Its task, where it does not block its thread while it waits; `None`: it blocks it.
    pub task: Option<u64>,
}

/// How a flight ended.
#[derive(Debug)]
pub enum Outcome<T> {
    /// What the leader got.
    Result(Arc<T>),
    /// The leader went away without a result - it was cancelled: somebody else has to lead.
    Abandoned,
}

impl<T> Clone for Outcome<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Result(result) => Self::Result(Arc::clone(result)),
            Self::Abandoned => Self::Abandoned,
        }
    }
}

/// Whether somebody can still do something; asked with no lock held.
pub type Alive = Box<dyn Fn() -> bool + Send + Sync>;

/// Called once when a flight has ended, with no lock held.
pub type Waiter = Box<dyn FnOnce() + Send>;

enum State<T> {
    Under(Vec<Waiter>),
    Ended(Outcome<T>),
}

/// One computation under way.
pub struct Flight<T> {
    leader: Agent,
    /// Set when what it computes from was changed: who comes later computes anew.
    outdated: OnceLock<Arc<AtomicBool>>,
    /// Says whether its leader can still end it.
    alive: OnceLock<Alive>,
    state: Mutex<State<T>>,
    ended: Condvar,
}

impl<T> std::fmt::Debug for Flight<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flight")
            .field("leader", &self.leader)
            .finish_non_exhaustive()
    }
}

impl<T> Flight<T> {
    /// How it ended, if it has by now.
    pub fn outcome(&self) -> Option<Outcome<T>> {
        match &*self.state.lock() {
            State::Under(_) => None,
            State::Ended(outcome) => Some(outcome.clone()),
        }
    }

    /// Whether its leader will never end it.
    pub fn is_orphaned(&self) -> bool {
        self.alive.get().is_some_and(|alive| !alive())
    }

    fn is_outdated(&self) -> bool {
        let flag = self.outdated.get();
        flag.is_some_and(|flag| flag.load(Ordering::Acquire))
    }

    /// Blocks until it has ended, or for so long.
    pub fn wait(&self, patience: Duration) -> Option<Outcome<T>> {
        let mut state = self.state.lock();
        if matches!(&*state, State::Under(_)) {
            self.ended.wait_for(&mut state, patience);
        }
        match &*state {
            State::Under(_) => None,
            State::Ended(outcome) => Some(outcome.clone()),
        }
    }

    /// Has `waiter` called when it ends; hands it back if it has ended already.
    pub fn when_ended(&self, waiter: Waiter) -> Option<Waiter> {
        match &mut *self.state.lock() {
            State::Under(waiters) => {
                waiters.push(waiter);
                None
            }
            State::Ended(_) => Some(waiter),
        }
    }

    fn end(&self, outcome: Outcome<T>) {
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut *state, State::Ended(outcome));
        drop(state);
        self.ended.notify_all();
        if let State::Under(waiters) = before {
            for waiter in waiters {
                waiter();
            }
        }
    }
}

/// What to do after a miss.
#[derive(Debug)]
pub enum Boarding<'a, T> {
    /// Look once more, compute, and end the flight.
    Lead(Lead<'a, T>),
    /// Wait, then [`Flights::leave`].
    Follow(Arc<Flight<T>>),
    /// Compute without a word to others: to wait would be to wait for oneself.
    Alone,
}

/// The duty to end a flight; dropped without a result it is abandoned.
pub struct Lead<'a, T> {
    flights: &'a Flights<T>,
    key: String,
    flight: Arc<Flight<T>>,
}

impl<T> std::fmt::Debug for Lead<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lead").field(&self.key).finish()
    }
}

impl<T> Lead<'_, T> {
    /// When this is set, who comes later does not wait for this one.
    pub fn outdated_by(&self, flag: Arc<AtomicBool>) {
        drop(self.flight.outdated.set(flag));
    }

    /// Until `alive` says no, others wait for this one.
    pub fn alive_while(&self, alive: Alive) {
        drop(self.flight.alive.set(alive));
    }

    /// Gives the result to all who wait, and to nobody who comes later.
    pub fn end(self, result: T) {
        self.close(Outcome::Result(Arc::new(result)));
    }

    fn close(&self, outcome: Outcome<T>) {
        let mut table = self.flights.table.lock();
        let ours = |flight: &Arc<Flight<T>>| Arc::ptr_eq(flight, &self.flight);
        let removed = match table.flights.get(&self.key) {
            Some(flight) if ours(flight) => table.flights.remove(&self.key),
            _ => None,
        };
        drop(table);
        self.flight.end(outcome);
        // A value's code may run here.
        drop(removed);
    }
}

impl<T> Drop for Lead<'_, T> {
    fn drop(&mut self) {
        if self.flight.outcome().is_none() {
            self.close(Outcome::Abandoned);
        }
    }
}

struct Table<T> {
    flights: HashMap<String, Arc<Flight<T>>>,
    /// Who waits for what.
    waits: HashMap<Agent, Wait<T>>,
}

struct Wait<T> {
    flight: Arc<Flight<T>>,
    /// Tasks that started this one while they led: they may wait for it.
    ancestors: Box<[u64]>,
}

/// All computations under way.
pub struct Flights<T> {
    table: Mutex<Table<T>>,
}

impl<T> std::fmt::Debug for Flights<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        let (flights, waits) = (HashMap::new(), HashMap::new());
        Self {
            table: Mutex::new(Table { flights, waits }),
        }
    }
}

impl<T> Flights<T> {
    /// Says what `me`, who missed on a key, has to do. `ancestors`: the tasks that started this one
    /// while they led.
    pub fn board(&self, key: &str, me: Agent, ancestors: &[u64]) -> Boarding<'_, T> {
        let mut table = self.table.lock();
        let flight = table.flights.get(key).filter(|it| !it.is_outdated());
        if let Some(flight) = flight.map(Arc::clone) {
            if table.waits_for(&flight, me, ancestors) {
                return Boarding::Alone;
            }
            let wait = Wait {
                flight: Arc::clone(&flight),
                ancestors: ancestors.into(),
            };
            table.waits.insert(me, wait);
            return Boarding::Follow(flight);
        }
        let flight = Arc::new(Flight {
            leader: me,
            outdated: OnceLock::new(),
            alive: OnceLock::new(),
            state: Mutex::new(State::Under(Vec::new())),
            ended: Condvar::new(),
        });
        let outdated = table.flights.insert(String::from(key), Arc::clone(&flight));
        drop(table);
        // Its result may be dropped here, whose code may do anything.
        drop(outdated);
        Boarding::Lead(Lead {
            flights: self,
            key: String::from(key),
            flight,
        })
    }

    /// `me` does not wait for this flight any more; for another one it may.
    pub fn leave(&self, me: Agent, flight: &Arc<Flight<T>>) {
        let mut table = self.table.lock();
        let wait = table.waits.get(&me);
        let is_over = wait.is_some_and(|wait| Arc::ptr_eq(&wait.flight, flight));
        let left = is_over.then(|| table.waits.remove(&me));
        drop(table);
        drop(left);
    }

    /// Gives up a flight whose leader will never end it: who waits for it goes on.
    pub fn abandon(&self, key: &str, flight: &Arc<Flight<T>>) {
        let mut table = self.table.lock();
        let is_there = table.flights.get(key);
        let is_there = is_there.is_some_and(|it| Arc::ptr_eq(it, flight));
        let removed = is_there.then(|| table.flights.remove(key));
        drop(table);
        if flight.outcome().is_none() {
            flight.end(Outcome::Abandoned);
        }
        drop(removed);
    }

    /// Forgets everything: in a forked child nobody is left to end what was under way.
    pub fn forget(&self) {
        let mut table = self.table.lock();
        let flights = std::mem::take(&mut table.flights);
        let waits = std::mem::take(&mut table.waits);
        drop(table);
        drop((flights, waits));
    }
}

impl<T> Table<T> {
    /// Whether `flight` cannot end before `me` goes on.
    fn waits_for(&self, flight: &Arc<Flight<T>>, me: Agent, ancestors: &[u64]) -> bool {
        let mut open = vec![flight];
        let mut seen: Vec<*const Flight<T>> = Vec::new();
        while let Some(flight) = open.pop() {
            if seen.contains(&Arc::as_ptr(flight)) {
                continue;
            }
            seen.push(Arc::as_ptr(flight));
            let leader = flight.leader;
            // A call further up on this thread's stack, a task of the loop that this thread would
            // block, or this very task.
            let same_thread = leader.thread == me.thread;
            if same_thread && (leader.task.is_none() || me.task.is_none() || leader.task == me.task)
            {
                return true;
            }
            if leader.task.is_some_and(|task| ancestors.contains(&task)) {
                return true;
            }
            let on_its_thread = Agent {
                task: None,
                ..leader
            };
            let own = [self.waits.get(&on_its_thread), self.waits.get(&leader)];
            open.extend(own.into_iter().flatten().map(|wait| &wait.flight));
            let Some(task) = leader.task else { continue };
            let of_children = self.waits.values();
            let of_children = of_children.filter(|wait| wait.ancestors.contains(&task));
            open.extend(of_children.map(|wait| &wait.flight));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn thread(thread: u64) -> Agent {
        Agent { thread, task: None }
    }

    const fn task(thread: u64, task: u64) -> Agent {
        Agent {
            thread,
            task: Some(task),
        }
    }

    fn lead<'a>(flights: &'a Flights<u8>, key: &str, me: Agent) -> Lead<'a, u8> {
        match flights.board(key, me, &[]) {
            Boarding::Lead(lead) => lead,
            other => panic!("{other:?}"),
        }
    }

    fn follow(flights: &Flights<u8>, key: &str, me: Agent) -> Arc<Flight<u8>> {
        match flights.board(key, me, &[]) {
            Boarding::Follow(flight) => flight,
            other => panic!("{other:?}"),
        }
    }

    fn is_alone(flights: &Flights<u8>, key: &str, me: Agent) -> bool {
        matches!(flights.board(key, me, &[]), Boarding::Alone)
    }

    #[test]
    fn those_who_wait_get_the_result_and_those_who_come_later_compute() {
        let flights = Flights::default();
        let leading = lead(&flights, "k", thread(1));
        let flight = follow(&flights, "k", thread(2));
        assert!(flight.wait(Duration::from_millis(1)).is_none());
        drop(lead(&flights, "other", thread(3)));
        leading.end(7);
        assert!(matches!(flight.outcome(), Some(Outcome::Result(seven)) if *seven == 7));
        flights.leave(thread(2), &flight);
        lead(&flights, "k", thread(2)).end(8);
    }

    #[test]
    fn a_leader_that_goes_away_leaves_the_lead_to_another() {
        let flights = Flights::default();
        let leading = lead(&flights, "k", task(1, 1));
        let flight = follow(&flights, "k", task(1, 2));
        drop(leading);
        assert!(matches!(flight.outcome(), Some(Outcome::Abandoned)));
        flights.leave(task(1, 2), &flight);
        drop(lead(&flights, "k", task(1, 2)));
    }

    #[test]
    fn a_waiter_is_called_once_also_if_it_comes_late() {
        let flights = Flights::default();
        let leading = lead(&flights, "k", thread(1));
        let flight = follow(&flights, "k", task(2, 1));
        let (sent, received) = std::sync::mpsc::channel();
        let waiter = || {
            let sent = sent.clone();
            Box::new(move || sent.send(()).unwrap())
        };
        assert!(flight.when_ended(waiter()).is_none());
        leading.end(1);
        assert_eq!(received.try_iter().count(), 1);
        assert!(flight.when_ended(waiter()).is_some());
    }

    #[test]
    fn nobody_waits_for_itself() {
        let flights = Flights::default();
        let _one = lead(&flights, "1", thread(1));
        assert!(is_alone(&flights, "1", thread(1)), "it calls itself");
        let _two = lead(&flights, "2", thread(2));
        let _waits = follow(&flights, "2", thread(1));
        assert!(is_alone(&flights, "1", thread(2)), "they call each other");
        let _three = lead(&flights, "3", thread(3));
        let _waits = follow(&flights, "1", thread(3));
        assert!(is_alone(&flights, "3", thread(2)), "three in a circle");
        drop(follow(&flights, "1", thread(4)));
    }

    #[test]
    fn a_thread_does_not_block_the_loop_of_the_task_that_it_would_wait_for() {
        let flights = Flights::default();
        let _one = lead(&flights, "1", task(1, 1));
        assert!(is_alone(&flights, "1", thread(1)));
        assert!(is_alone(&flights, "1", task(1, 1)));
        drop(follow(&flights, "1", task(1, 2)));
        drop(follow(&flights, "1", thread(2)));
        // Its thread is blocked by a call of another task, which waits for thread 3.
        let _three = lead(&flights, "3", thread(3));
        let blocked = follow(&flights, "3", thread(1));
        assert!(is_alone(&flights, "1", thread(3)));
        flights.leave(thread(1), &blocked);
        drop(follow(&flights, "1", thread(3)));
    }

    #[test]
    fn nobody_waits_for_a_task_that_may_wait_for_its_child() {
        let flights = Flights::default();
        let alone = |key: &str, me: Agent, ancestors: &[u64]| {
            matches!(flights.board(key, me, ancestors), Boarding::Alone)
        };
        let _one = lead(&flights, "1", task(1, 1));
        assert!(alone("1", task(1, 2), &[1]), "a child on its loop");
        assert!(alone("1", task(2, 3), &[7, 1]), "a grandchild elsewhere");
        let _five = lead(&flights, "5", task(1, 5));
        let Boarding::Follow(stranger) = flights.board("5", task(1, 2), &[1]) else {
            panic!("a child waits for a stranger");
        };
        assert!(
            is_alone(&flights, "1", task(1, 5)),
            "which closes the circle"
        );
        flights.leave(task(1, 2), &stranger);
        drop(follow(&flights, "1", task(1, 5)));
    }

    #[test]
    fn who_leaves_late_is_not_forgotten_where_it_waits_by_now() {
        let flights = Flights::default();
        drop(lead(&flights, "1", thread(1)));
        let leading = lead(&flights, "1", thread(1));
        let before = follow(&flights, "1", thread(2));
        drop(leading);
        let _two = lead(&flights, "2", thread(2));
        let _again = lead(&flights, "1", thread(1));
        let _waits = follow(&flights, "1", thread(2));
        flights.leave(thread(2), &before);
        assert!(is_alone(&flights, "2", thread(1)), "they call each other");
    }

    #[test]
    fn who_waits_for_a_leader_that_will_never_end_goes_on() {
        let flights = Flights::default();
        let leading = lead(&flights, "k", task(1, 1));
        let alive = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&alive);
        leading.alive_while(Box::new(move || asked.load(Ordering::Acquire)));
        let flight = follow(&flights, "k", thread(2));
        assert!(!flight.is_orphaned());
        alive.store(false, Ordering::Release);
        assert!(flight.is_orphaned());
        flights.abandon("k", &flight);
        assert!(matches!(flight.outcome(), Some(Outcome::Abandoned)));
        flights.leave(thread(2), &flight);
        let other = lead(&flights, "k", thread(2));
        // Too late: another one leads.
        leading.end(1);
        drop(follow(&flights, "k", thread(3)));
        other.end(2);
    }

    #[test]
    fn a_child_has_nothing_under_way() {
        let flights = Flights::default();
        let leading = lead(&flights, "k", thread(1));
        flights.forget();
        let anew = lead(&flights, "k", thread(2));
        leading.end(1);
        let flight = follow(&flights, "k", thread(3));
        anew.end(2);
        assert!(matches!(flight.outcome(), Some(Outcome::Result(two)) if *two == 2));
    }
}
