//! The active profile: which settings hold right now.

use std::sync::Arc;

use super::Cache;
use crate::entry::{Damage, Listing};
use crate::error::Result;
use crate::settings::{Overrides, Profile, ProfileChanges, Settings};
use crate::store::{Store, Which};
use crate::time::Ttl;

/// A profile in effect, with what each write needs of it at hand.
#[derive(Debug)]
pub struct Active {
    /// The settings.
    pub profile: Profile,
    /// Its name, for the records that name it.
    pub name: Arc<str>,
    /// The life of an entry that names none.
    pub ttl: Ttl,
    /// Fields that are not the stored profile's.
    pub overrides: Overrides,
}

impl Active {
    pub(super) fn new(profile: Profile, overrides: Overrides) -> Arc<Self> {
        Arc::new(Self {
            name: Arc::from(profile.name.as_str()),
            ttl: profile.ttl(),
            profile,
            overrides,
        })
    }

    /// The profile to begin with: what the caller named beats the environment, which beats the
    /// store. Only what the caller named is stored.
    pub(super) fn first(
        store: &dyn Store,
        settings: &Settings,
    ) -> Result<(Arc<Self>, Vec<Damage>)> {
        let damaged = store.profiles(Which::Key(&settings.profile))?.damaged;
        let stored = store.save_profile(&settings.profile, &settings.given)?;
        let mut profile = stored.with(&settings.environment).with(&settings.given);
        let mut overrides = Overrides::of(&settings.environment).without(&settings.given);
        if let Some(cap) = settings.max_items_in_memory {
            profile.max_items_in_memory = cap;
            overrides.0.insert("max_items_in_memory");
        }
        Ok((Self::new(profile, overrides), damaged))
    }
}

impl<V> Cache<V> {
    /// The profile in effect.
    pub fn active(&self) -> Arc<Active> {
        Arc::clone(&self.active.read())
    }

    /// Saves a profile in the store, made with the defaults if it is not there, and switches to
    /// it. Returns what left memory.
    pub fn use_profile(&self, name: &str, changes: &ProfileChanges) -> Result<Vec<V>> {
        self.check_open()?;
        let _one_at_a_time = self.switching.lock();
        self.profiles(Which::Key(name))?;
        let profile = self.store.save_profile(name, changes)?;
        Ok(self.switch(profile, Overrides::default()))
    }

    /// Changes fields of the active profile, in the store and in effect; under another name, its
    /// fields and these are stored under that one, which becomes active. Returns what left memory.
    pub fn update_profile(&self, name: Option<&str>, changes: &ProfileChanges) -> Result<Vec<V>> {
        self.check_open()?;
        let _one_at_a_time = self.switching.lock();
        let active = self.active();
        let current = &active.profile.name;
        if let Some(name) = name.filter(|name| name != current) {
            let stored = self.profiles(Which::Key(current))?.pop();
            let stored = stored.unwrap_or_else(|| Profile::named(current));
            let all = stored.with(changes).to_changes();
            return Ok(self.switch(self.store.save_profile(name, &all)?, Overrides::default()));
        }
        self.store.save_profile(current, changes)?;
        let overrides = active.overrides.without(changes);
        Ok(self.switch(active.profile.with(changes), overrides))
    }

    fn switch(&self, profile: Profile, overrides: Overrides) -> Vec<V> {
        // Hits until now are booked under the profile that was active until now; what cannot be
        // written waits, and goes under the new one.
        if self.flush_logs().is_err() {
            self.count_error();
        }
        let cap = profile.max_items_in_memory;
        *self.active.write() = Active::new(profile, overrides);
        self.book(self.memory.resize(cap))
    }

    /// Saves a profile in the store only.
    pub fn save_profile(&self, name: &str, changes: &ProfileChanges) -> Result<Profile> {
        self.check_open()?;
        self.store.save_profile(name, changes)
    }

    /// Stored profiles, by name.
    pub fn profiles(&self, which: Which<'_>) -> Result<Vec<Profile>> {
        self.check_open()?;
        let Listing { rows, damaged } = self.store.profiles(which)?;
        self.report_all(damaged);
        Ok(rows)
    }

    /// Deletes a stored profile; the active one stays in effect. Says whether it was there.
    pub fn delete_profile(&self, name: &str) -> Result<bool> {
        self.check_open()?;
        self.store.delete_profile(name)
    }
}
