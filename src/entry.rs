//! What the tiers exchange: rows, entries to be written, log records, reasons of eviction.

use std::borrow::Cow;
use std::sync::Arc;

use crate::time::Timestamp;

/// The format of a row that holds no value, but an exception that a decorated function keeps.
pub const EXCEPTION: &str = "cachetronomy-exception";

/// The metadata that belongs to an entry in either tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryMeta {
    /// From this moment on the entry is never returned.
    pub expire_at: Timestamp,
    /// The caller's version number, at least 1.
    pub version: i64,
    /// How long the value took to compute, in microseconds; 0 when it was not measured.
    pub compute_us: i64,
}

/// One row as read from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The encoded value.
    pub data: Vec<u8>,
    /// The name of its format.
    pub format: String,
    /// Deadline, version, cost.
    pub meta: EntryMeta,
}

impl Row {
    /// Whether readers get a value of it.
    pub fn is_value(&self) -> bool {
        self.format != EXCEPTION
    }
}

/// One row with everything that is stored beside the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullRow {
    /// Its key.
    pub key: String,
    /// The value and what judges it.
    pub row: Row,
    /// Its tags, in their stored order.
    pub tags: Vec<String>,
    /// The profile that was active when it was written.
    pub profile: String,
}

/// Rows of a table, and what of it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing<T> {
    /// The readable rows.
    pub rows: Vec<T>,
    /// The others: one damaged row hides no other.
    pub damaged: Vec<Damage>,
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            damaged: Vec::new(),
        }
    }
}

/// A row that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Damage {
    /// Its table.
    pub table: &'static str,
    /// Its key or, where that is none, the number of the row.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A value of a row of an arbitrary query.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// NULL.
    Null,
    /// INTEGER.
    Integer(i64),
    /// REAL.
    Real(f64),
    /// TEXT.
    Text(String),
    /// BLOB.
    Blob(Vec<u8>),
}

/// The result of an arbitrary query.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Names of the columns, and rows.
    Rows(Vec<String>, Vec<Vec<Cell>>),
    /// How many rows a statement without columns changed.
    Changed(usize),
}

/// An entry to be written.
#[derive(Debug, Clone)]
pub struct NewEntry<'a> {
    /// Its key.
    pub key: &'a str,
    /// The encoded value.
    pub data: &'a [u8],
    /// The name of its format.
    pub format: &'a str,
    /// Deadline, version, cost.
    pub meta: EntryMeta,
    /// Its tags, each once.
    pub tags: &'a [String],
    /// The profile that is active.
    pub profile: &'a str,
    /// The decorated function whose entry it is, where the key does not tell.
    pub function: Option<&'a str>,
    /// Until when the row stays though its time has come, for who is content with a stale value.
    pub stale_until: Option<Timestamp>,
}

/// An entry that a sweep removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// Its key.
    pub key: String,
    /// When it ended.
    pub expire_at: Timestamp,
}

/// Hits of one key since the last flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRecord {
    /// The key.
    pub key: String,
    /// Hits to add.
    pub count: u64,
    /// The latest of them.
    pub last_accessed: Timestamp,
}

/// A row of the access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRow {
    /// The key.
    pub key: String,
    /// Hits of all processes, ever.
    pub count: i64,
    /// The latest of them.
    pub last_accessed: Timestamp,
    /// The profile that was active then.
    pub profile: String,
}

/// A line for the eviction log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvictionRecord {
    /// The key that left.
    pub key: String,
    /// When.
    pub evicted_at: Timestamp,
    /// Why: the text of an [`EvictionReason`], or a caller's own.
    pub reason: Cow<'static, str>,
    /// Hits of the key in this process until then.
    pub access_count: u64,
    /// The profile that was active.
    pub profile: Arc<str>,
}

/// A row of the eviction log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvictionRow {
    /// Its number.
    pub id: i64,
    /// The key that left.
    pub key: String,
    /// When.
    pub evicted_at: Timestamp,
    /// Why.
    pub reason: String,
    /// Hits of the key until then.
    pub access_count: i64,
    /// The profile that was active then.
    pub profile: String,
}

/// Why an entry left a tier. The texts are those of the database file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EvictionReason {
    /// Its time to live ended.
    Time,
    /// The machine or the container ran short of memory.
    Pressure,
    /// The memory tier was full.
    Capacity,
    /// `evict(key)`.
    ManualKey,
    /// `evict_all()` or `clear_all()`.
    ManualAll,
    /// `delete(key)`.
    User,
    /// `clear_by_tags(...)`.
    Tag,
    /// `clear_by_profile(...)`.
    Profile,
}

impl EvictionReason {
    /// Every reason, in the order of the declaration: `self as usize` is its index.
    pub const ALL: [Self; 8] = [
        Self::Time,
        Self::Pressure,
        Self::Capacity,
        Self::ManualKey,
        Self::ManualAll,
        Self::User,
        Self::Tag,
        Self::Profile,
    ];

    /// The text of the `reason` column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Time => "time_eviction",
            Self::Pressure => "memory_eviction",
            Self::Capacity => "capacity_eviction",
            Self::ManualKey => "manual_eviction_clear_key",
            Self::ManualAll => "manual_eviction_clear_full_cache",
            Self::User => "user_eviction",
            Self::Tag => "tag_invalidation",
            Self::Profile => "profile_invalidation",
        }
    }
}

/// How much the store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// Live entries.
    pub entries: u64,
    /// Bytes of the file.
    pub bytes: u64,
}
