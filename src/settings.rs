//! The settings of one cache, and the only place that checks them.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::time::Ttl;

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A private store that dies with the client.
    Memory,
    /// A database file.
    File(PathBuf),
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory => f.write_str(":memory:"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Everything a cache is opened with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The store.
    pub location: Location,
    /// How long to wait for a lock of another process. Default 5 s.
    pub busy_timeout: Duration,
    /// The name of the profile to begin with; made with the defaults where the store has none.
    pub profile: String,
    /// Fields that the caller named: saved in the store under that name.
    pub given: ProfileChanges,
    /// Fields of the environment: in this process only, until another profile is switched to.
    pub environment: ProfileChanges,
    /// The cap of the constructor, which beats them all: `Some(None)` sets no limit.
    pub max_items_in_memory: Option<Option<usize>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            location: Location::File(PathBuf::from("cachetronomy.db")),
            busy_timeout: Duration::from_secs(5),
            profile: String::from(DEFAULT_PROFILE),
            given: ProfileChanges::default(),
            environment: ProfileChanges::default(),
            max_items_in_memory: None,
        }
    }
}

/// The profile of a client that names none.
pub const DEFAULT_PROFILE: &str = "default";

/// The largest number of a column: SQLite's integers have 64 bits and a sign.
const LARGEST: u64 = i64::MAX.cast_unsigned();

/// A named set of settings that can be changed while the cache is in use.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// Life of an entry that names none, in seconds.
    pub time_to_live: u64,
    /// Seconds between two sweeps of expired entries; 0: no sweeps.
    pub ttl_cleanup_interval: u64,
    /// Whether entries leave memory when RAM is short.
    pub memory_based_eviction: bool,
    /// RAM to keep free: MB or, up to 1, a fraction of all there is.
    pub free_memory_target: f64,
    /// Seconds between two looks at the free RAM.
    pub memory_cleanup_interval: u64,
    /// Entries kept in memory; `None`: no limit, which no stored profile says.
    pub max_items_in_memory: Option<usize>,
    /// Tags of entries that name none.
    pub tags: Vec<String>,
}

impl Profile {
    /// The defaults under a name.
    pub fn named(name: &str) -> Self {
        Self {
            name: String::from(name),
            time_to_live: 3_600,
            ttl_cleanup_interval: 60,
            memory_based_eviction: true,
            free_memory_target: 500.0,
            memory_cleanup_interval: 5,
            max_items_in_memory: Some(100),
            tags: Vec::new(),
        }
    }

    /// This profile with some fields changed.
    #[must_use]
    pub fn with(&self, changes: &ProfileChanges) -> Self {
        let changes = changes.clone();
        Self {
            name: self.name.clone(),
            time_to_live: changes.time_to_live.unwrap_or(self.time_to_live),
            ttl_cleanup_interval: changes
                .ttl_cleanup_interval
                .unwrap_or(self.ttl_cleanup_interval),
            memory_based_eviction: changes
                .memory_based_eviction
                .unwrap_or(self.memory_based_eviction),
            free_memory_target: changes
                .free_memory_target
                .unwrap_or(self.free_memory_target),
            memory_cleanup_interval: changes
                .memory_cleanup_interval
                .unwrap_or(self.memory_cleanup_interval),
            max_items_in_memory: changes
                .max_items_in_memory
                .map_or(self.max_items_in_memory, Some),
            tags: changes.tags.unwrap_or_else(|| self.tags.clone()),
        }
    }

    /// All fields but the name, as changes of another profile.
    pub fn to_changes(&self) -> ProfileChanges {
        ProfileChanges {
            time_to_live: Some(self.time_to_live),
            ttl_cleanup_interval: Some(self.ttl_cleanup_interval),
            memory_based_eviction: Some(self.memory_based_eviction),
            free_memory_target: Some(self.free_memory_target),
            memory_cleanup_interval: Some(self.memory_cleanup_interval),
            max_items_in_memory: self.max_items_in_memory,
            tags: Some(self.tags.clone()),
        }
    }

    /// The life of an entry that names none.
    pub fn ttl(&self) -> Ttl {
        let micros = self.time_to_live.saturating_mul(1_000_000).min(LARGEST);
        Ttl::Micros(micros.cast_signed())
    }
}

/// Fields of a profile, each given or not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProfileChanges {
    /// See [`Profile::time_to_live`].
    pub time_to_live: Option<u64>,
    /// See [`Profile::ttl_cleanup_interval`].
    pub ttl_cleanup_interval: Option<u64>,
    /// See [`Profile::memory_based_eviction`].
    pub memory_based_eviction: Option<bool>,
    /// See [`Profile::free_memory_target`].
    pub free_memory_target: Option<f64>,
    /// See [`Profile::memory_cleanup_interval`].
    pub memory_cleanup_interval: Option<u64>,
    /// See [`Profile::max_items_in_memory`]; a profile always has a limit.
    pub max_items_in_memory: Option<usize>,
    /// See [`Profile::tags`].
    pub tags: Option<Vec<String>>,
}

impl ProfileChanges {
    /// The names of the fields that are given.
    fn names(&self) -> impl Iterator<Item = &'static str> {
        [
            ("time_to_live", self.time_to_live.is_some()),
            ("ttl_cleanup_interval", self.ttl_cleanup_interval.is_some()),
            (
                "memory_based_eviction",
                self.memory_based_eviction.is_some(),
            ),
            ("free_memory_target", self.free_memory_target.is_some()),
            (
                "memory_cleanup_interval",
                self.memory_cleanup_interval.is_some(),
            ),
            ("max_items_in_memory", self.max_items_in_memory.is_some()),
            ("tags", self.tags.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
    }

    /// Takes one field that is a whole number, if it is in its range.
    pub fn set_number(&mut self, name: &str, number: i128) -> Result<()> {
        let (name, what, least) = match name {
            "time_to_live" => ("time_to_live", "seconds", 1),
            "ttl_cleanup_interval" => ("ttl_cleanup_interval", "seconds", 0),
            "memory_cleanup_interval" => ("memory_cleanup_interval", "seconds", 0),
            "max_items_in_memory" => ("max_items_in_memory", "a number of entries", 0),
            _ => return Err(unknown_field(name)),
        };
        let valid = u64::try_from(number)
            .ok()
            .filter(|number| (least..=LARGEST).contains(number));
        let Some(number) = valid else {
            let reason =
                format!("{number} is out of range; give {what}, a whole number >= {least}");
            return Err(Error::InvalidSetting { name, reason });
        };
        match name {
            "time_to_live" => self.time_to_live = Some(number),
            "ttl_cleanup_interval" => self.ttl_cleanup_interval = Some(number),
            "memory_cleanup_interval" => self.memory_cleanup_interval = Some(number),
            _ => self.max_items_in_memory = Some(usize::try_from(number).unwrap_or(usize::MAX)),
        }
        Ok(())
    }

    /// Takes the RAM to keep free, if it is in its range.
    pub fn set_free_memory_target(&mut self, target: f64) -> Result<()> {
        if !target.is_finite() || target < 0.0 {
            return Err(Error::InvalidSetting {
                name: "free_memory_target",
                reason: format!(
                    "{target} is out of range; give MB >= 0 or, up to 1, a fraction of all RAM"
                ),
            });
        }
        self.free_memory_target = Some(target);
        Ok(())
    }

    /// Takes the default tags, if they are tags.
    pub fn set_tags(&mut self, tags: Vec<String>) -> Result<()> {
        self.tags = Some(check_tags(tags)?);
        Ok(())
    }
}

/// Names of fields that have another value in effect than the stored profile has: those that the
/// environment or the constructor gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides(pub BTreeSet<&'static str>);

impl Overrides {
    /// All fields that are given.
    pub fn of(changes: &ProfileChanges) -> Self {
        Self(changes.names().collect())
    }

    /// Those of them that `changes` does not give.
    #[must_use]
    pub fn without(&self, changes: &ProfileChanges) -> Self {
        Self(&self.0 - &changes.names().collect())
    }
}

/// The error of a profile's field that does not exist.
pub fn unknown_field(name: &str) -> Error {
    Error::InvalidSetting {
        name: "profile",
        reason: format!(
            "{name:?} is not a field of a profile; there are time_to_live, ttl_cleanup_interval, \
             memory_based_eviction, free_memory_target, memory_cleanup_interval, \
             max_items_in_memory and tags"
        ),
    }
}

/// The name of a profile: not empty.
pub fn check_profile_name(name: &str) -> Result<()> {
    if name.is_empty() || name.contains('\0') {
        return Err(Error::InvalidSetting {
            name: "profile",
            reason: format!("{name:?} is not the name of a profile; give non-empty text"),
        });
    }
    Ok(())
}

/// `db_path` as given: `:memory:`, or a path with `~` expanded and made absolute, because SQLite
/// would read a relative one that starts with `file:` as a URL that can switch locking off.
pub fn parse_location(text: &str) -> Result<Location> {
    let invalid = |reason: String| Error::InvalidSetting {
        name: "db_path",
        reason,
    };
    if text == ":memory:" {
        return Ok(Location::Memory);
    }
    if text.is_empty() || text.contains('\0') {
        return Err(invalid(format!(
            "{text:?} is not a path; name a file, or \":memory:\""
        )));
    }
    if let Some((scheme, _)) = text.split_once("://") {
        return Err(invalid(format!(
            "{scheme:?} is not a backend of this version; give the path of a file, or \":memory:\""
        )));
    }
    let home = text
        .strip_prefix("~")
        .filter(|rest| rest.is_empty() || rest.starts_with(['/', '\\']));
    let path = match home {
        Some(rest) => {
            let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
            let home = home.ok_or_else(|| invalid(format!("{text:?}: no home folder is known")))?;
            home.join(rest.trim_start_matches(['/', '\\']))
        }
        None => PathBuf::from(text),
    };
    let path = std::path::absolute(&path).map_err(|error| invalid(format!("{text:?}: {error}")))?;
    if path.is_dir() {
        return Err(invalid(format!(
            "{} is a folder; name a file inside it",
            path.display()
        )));
    }
    Ok(Location::File(path))
}

/// A time-out in seconds, at most what SQLite can wait: 2^31 - 1 milliseconds.
pub fn parse_busy_timeout(seconds: f64) -> Result<Duration> {
    let longest = Duration::from_millis(i32::MAX.cast_unsigned().into());
    let timeout = Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|timeout| *timeout <= longest);
    timeout.ok_or_else(|| Error::InvalidSetting {
        name: "busy_timeout",
        reason: format!(
            "{seconds} is not a time-out; give seconds from 0 to {}",
            longest.as_secs()
        ),
    })
}

/// A version number, at least 1.
pub fn check_version(version: i64) -> Result<i64> {
    if version >= 1 {
        return Ok(version);
    }
    Err(Error::InvalidSetting {
        name: "version",
        reason: format!("{version} is not a version; give an int >= 1"),
    })
}

/// Tags as given: none may be empty; each is kept once, in the order of its first mention.
pub fn check_tags(tags: Vec<String>) -> Result<Vec<String>> {
    let mut seen = HashSet::new();
    let mut unique: Vec<String> = Vec::with_capacity(tags.len());
    for tag in tags {
        if tag.is_empty() {
            return Err(Error::InvalidSetting {
                name: "tags",
                reason: String::from("a tag is empty; give non-empty text"),
            });
        }
        if seen.insert(tag.clone()) {
            unique.push(tag);
        }
    }
    Ok(unique)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_made_absolute_and_a_folder_refused() {
        assert_eq!(parse_location(":memory:"), Ok(Location::Memory));
        let Location::File(path) = parse_location("file:x.db?nolock=1").unwrap() else {
            panic!("a file was expected");
        };
        assert!(path.is_absolute());
        let folder = tempfile::tempdir().unwrap();
        assert!(parse_location(folder.path().to_str().unwrap()).is_err());
        for bad in ["", "a\0b", "redis://localhost"] {
            assert!(parse_location(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn tags_are_unique_and_never_empty() {
        let tags = |list: &[&str]| check_tags(list.iter().map(|tag| (*tag).to_owned()).collect());
        assert_eq!(
            tags(&["b", "a", "b"]),
            Ok(vec!["b".to_owned(), "a".to_owned()])
        );
        assert!(tags(&["a", ""]).is_err());
    }

    #[test]
    fn a_field_out_of_its_range_is_refused_and_named() {
        for (field, number) in [
            ("time_to_live", 0),
            ("time_to_live", i128::MAX),
            ("ttl_cleanup_interval", -1),
            ("memory_cleanup_interval", -1),
            ("max_items_in_memory", -1),
        ] {
            let mut changes = ProfileChanges::default();
            let error = changes.set_number(field, number).unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
            assert_eq!(changes, ProfileChanges::default(), "nothing was changed");
        }
        for target in [-1.0, f64::NAN, f64::INFINITY] {
            let mut changes = ProfileChanges::default();
            assert!(changes.set_free_memory_target(target).is_err(), "{target}");
        }
        let unknown = ProfileChanges::default().set_number("max_itmes", 1);
        assert!(unknown.unwrap_err().to_string().contains("max_itmes"));
        assert!(check_profile_name("").is_err());
    }

    #[test]
    fn what_is_not_changed_stays() {
        let mut changes = ProfileChanges::default();
        changes.set_number("time_to_live", 60).unwrap();
        let profile = Profile::named("p").with(&changes);
        assert_eq!(profile.ttl(), Ttl::Micros(60_000_000));
        let expected = Profile {
            time_to_live: 60,
            ..Profile::named("p")
        };
        assert_eq!(profile, expected);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert!(check_version(0).is_err());
        for seconds in [-1.0, f64::NAN, f64::INFINITY, 1e7] {
            assert!(parse_busy_timeout(seconds).is_err(), "{seconds}");
        }
    }
}
