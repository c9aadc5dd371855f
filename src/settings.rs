//! The settings of one cache, and the only place that checks them.

use std::collections::HashSet;
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

/// Everything a cache can be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The store.
    pub location: Location,
    /// Entries kept in memory; 0 keeps none, `None` sets no limit. Default 100.
    pub max_items_in_memory: Option<usize>,
    /// The life of an entry that names none. Default 3600 s.
    pub time_to_live: Ttl,
    /// Pause between two sweeps of expired entries; zero switches them off. Default 60 s.
    pub ttl_cleanup_interval: Duration,
    /// How long to wait for a lock of another process. Default 5 s.
    pub busy_timeout: Duration,
    /// The name written beside each entry and log row.
    pub profile: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            location: Location::File(PathBuf::from("cachetronomy.db")),
            max_items_in_memory: Some(100),
            time_to_live: Ttl::Micros(3_600_000_000),
            ttl_cleanup_interval: Duration::from_mins(1),
            busy_timeout: Duration::from_secs(5),
            profile: String::from("default"),
        }
    }
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
    fn numbers_out_of_range_are_refused() {
        assert!(check_version(0).is_err());
        for seconds in [-1.0, f64::NAN, f64::INFINITY, 1e7] {
            assert!(parse_busy_timeout(seconds).is_err(), "{seconds}");
        }
    }
}
