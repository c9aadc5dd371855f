//! The one error type of the core, with one variant for each exception of the public tree.

use std::fmt;

/// What can go wrong. Each variant becomes the exception of the same name in Python.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// Any call after `close`.
    Closed,
    /// Reading a row whose payload, format or checksum is not what was written.
    CorruptEntry {
        /// The key of the row.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Opening or using a file that is not one of our databases, or is damaged.
    CorruptStore {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Storing a value that is larger than a row can be.
    Serialization {
        /// Which value, and what to do instead.
        reason: String,
    },
    /// Waiting longer than `busy_timeout` for another process's lock.
    StoreBusy {
        /// The file.
        path: String,
        /// How long was waited, in milliseconds.
        waited_ms: u128,
    },
    /// Writing when the disk is full.
    StoreFull {
        /// The file.
        path: String,
    },
    /// Opening, reading or writing a file that the operating system refuses.
    StoreUnavailable {
        /// The file.
        path: String,
        /// What the operating system or SQLite said.
        reason: String,
    },
    /// A number or text out of its range, checked before anything changes.
    InvalidSetting {
        /// The setting or parameter.
        name: &'static str,
        /// What was given and what is allowed.
        reason: String,
    },
}

/// The result of every fallible function of the core.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("this cache is closed; open a new client to go on"),
            Self::CorruptEntry { key, reason } => {
                write!(f, "the entry {key:?} cannot be read: {reason}")
            }
            Self::CorruptStore { path, reason } => write!(
                f,
                "{path} is not a usable cache file: {reason}; it was left as it is - move it \
                 away or give another db_path"
            ),
            Self::Serialization { reason } => f.write_str(reason),
            Self::StoreBusy { path, waited_ms } => write!(
                f,
                "{path} stayed locked by another connection for {waited_ms} ms; try again, or \
                 raise busy_timeout"
            ),
            Self::StoreFull { path } => {
                write!(
                    f,
                    "no room left to write {path}; free disk space and try again"
                )
            }
            Self::StoreUnavailable { path, reason } => write!(f, "{path}: {reason}"),
            Self::InvalidSetting { name, reason } => write!(f, "{name}: {reason}"),
        }
    }
}

impl std::error::Error for Error {}
