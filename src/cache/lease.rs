//! Leases of computations: of all processes that share a store, one computes.
//!
//! The background thread renews a lease for as long as its holder computes, so that it can be short:
//! when a process was killed, the others wait for that long at most.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::{Alive, Cache};
use crate::error::Result;
use crate::time::{Timestamp, Ttl};

/// How long a lease outlives its holder.
pub const LEASE_LIFE: Duration = Duration::from_secs(5);
const LEASE: Ttl = Ttl::Micros(5_000_000);

/// A lease that has less left is renewed in the next pass of the background thread, about a second
/// later: some passes may fail.
const RENEWAL: Ttl = Ttl::Micros(3_500_000);

struct Held {
    name: String,
    until: Timestamp,
    /// Its holder went away without ending it.
    forsaken: bool,
    /// Whether its holder can still go on; asked before it is renewed.
    alive: Option<Arc<Alive>>,
}

impl Held {
    /// Whether it is there for whoever of this cache wants it.
    fn is_forsaken(&self, name: &str, now: Timestamp) -> bool {
        self.forsaken && self.name == name && self.until > now
    }
}

/// The leases that a cache has, by owner.
#[derive(Default)]
pub(super) struct Leases(Mutex<HashMap<String, Held>>);

/// A text that no two takings of a lease share.
pub fn new_owner() -> String {
    static TAKINGS: AtomicU64 = AtomicU64::new(0);
    let taking = TAKINGS.fetch_add(1, Ordering::Relaxed);
    // Each state has keys of its own.
    let random = RandomState::new().hash_one(taking);
    format!("{}-{random:016x}-{taking}", std::process::id())
}

impl<V> Cache<V> {
    /// Takes the lease of a computation, and returns its owner; `None`: somebody has it. From now
    /// on it is renewed.
    pub fn claim(&self, name: &str) -> Result<Option<String>> {
        self.check_open()?;
        let now = self.clock.now();
        let mut leases = self.leases.0.lock();
        let forsaken = leases
            .iter_mut()
            .find(|(_, held)| held.is_forsaken(name, now));
        if let Some((owner, held)) = forsaken {
            held.forsaken = false;
            return Ok(Some(owner.clone()));
        }
        drop(leases);
        let (owner, until) = (new_owner(), now.after(LEASE));
        if !self.store.take_lease(name, &owner, LEASE, &self.clock)? {
            return Ok(None);
        }
        let held = Held {
            name: String::from(name),
            until,
            forsaken: false,
            alive: None,
        };
        self.leases.0.lock().insert(owner.clone(), held);
        Ok(Some(owner))
    }

    /// Whether somebody has the lease of a computation.
    pub fn is_claimed(&self, name: &str) -> Result<bool> {
        self.check_open()?;
        let now = self.clock.now();
        let leases = self.leases.0.lock();
        let is_left = leases.values().any(|held| held.is_forsaken(name, now));
        drop(leases);
        if is_left {
            return Ok(false);
        }
        self.store.is_leased(name, &self.clock)
    }

    /// Ends the lease of an owner, in the store too.
    pub fn release(&self, owner: &str) -> Result<()> {
        let held = self.leases.0.lock().remove(owner);
        held.map_or(Ok(()), |held| {
            self.store
                .end_lease(&held.name, owner, &self.clock)
                .map(drop)
        })
    }

    /// Leaves it to the background thread to end the lease of an owner. Until then whoever claims
    /// it from this cache has it.
    pub fn forsake(&self, owner: &str) {
        if let Some(held) = self.leases.0.lock().get_mut(owner) {
            held.forsaken = true;
        }
    }

    /// Has the lease of an owner forsaken when its holder cannot go on any more.
    pub fn renew_while(&self, owner: &str, alive: Alive) {
        if let Some(held) = self.leases.0.lock().get_mut(owner) {
            held.alive = Some(Arc::new(alive));
        }
    }

    /// In a forked child: what is held is the parent's.
    pub fn forget_leases(&self) {
        self.leases.0.lock().clear();
    }

    /// Forsakes what nobody will end.
    fn forsake_the_dead(&self) {
        let leases = self.leases.0.lock();
        let asked: Vec<_> = leases
            .iter()
            .filter_map(|(owner, held)| Some((owner.clone(), Arc::clone(held.alive.as_ref()?))))
            .collect();
        drop(leases);
        // What is asked may wait for others.
        for (owner, alive) in asked {
            if !alive() {
                self.forsake(&owner);
            }
        }
    }

    /// Renews what would end soon, and ends what was forsaken.
    pub(super) fn keep_leases(&self) -> Result<()> {
        self.forsake_the_dead();
        let soon = self.clock.now().after(RENEWAL);
        let until = self.clock.now().after(LEASE);
        let mut leases = self.leases.0.lock();
        let forsaken: Vec<_> = leases.extract_if(|_, held| held.forsaken).collect();
        let renewed: Vec<(String, String)> = leases
            .iter()
            .filter(|(_, held)| held.until < soon)
            .map(|(owner, held)| (held.name.clone(), owner.clone()))
            .collect();
        drop(leases);
        for (owner, held) in forsaken {
            self.store.end_lease(&held.name, &owner, &self.clock)?;
        }
        if renewed.is_empty() {
            return Ok(());
        }
        let borrowed: Vec<_> = renewed
            .iter()
            .map(|(name, owner)| (name.as_str(), owner.as_str()))
            .collect();
        self.store.renew_leases(&borrowed, LEASE, &self.clock)?;
        let mut leases = self.leases.0.lock();
        for (_, owner) in &renewed {
            if let Some(held) = leases.get_mut(owner) {
                held.until = until;
            }
        }
        Ok(())
    }

    /// Ends all of them; what fails ends by itself.
    pub(super) fn end_leases(&self) {
        let leases = std::mem::take(&mut *self.leases.0.lock());
        for (owner, held) in leases {
            drop(self.store.end_lease(&held.name, &owner, &self.clock));
        }
    }
}
