//! The persistent tier: what every backend can do.

pub mod fence;
pub mod glob;
pub mod sqlite;

use std::path::Path;
use std::sync::Arc;

use crate::entry::{
    AccessRecord, AccessRow, Answer, Cell, EvictionRecord, EvictionRow, Expired, FullRow, Listing,
    NewEntry, Row, StoreSize,
};
use crate::error::Result;
use crate::freshness::{Commit, Freshness, Stamp};
use crate::settings::{Profile, ProfileChanges};
use crate::time::{Clock, Timestamp, Ttl};
use fence::{Fence, Watch};
use glob::Glob;

/// A row and where the store stood before it was read.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The row, live or not; `None` when there is none.
    pub row: Option<Row>,
    /// For the entry that is made of it.
    pub stamp: Stamp,
}

/// Which of a kind: all, or the one with this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which<'a> {
    /// All of them.
    All,
    /// One.
    Key(&'a str),
}

/// An entry of one writer of several, and the watch over it if it was computed.
pub type Member<'a> = (NewEntry<'a>, Option<&'a Watch>);

/// What becomes of a row that was looked at.
#[derive(Debug, Clone)]
pub enum Change<'a> {
    /// It stays as it is.
    Keep,
    /// It goes.
    Delete,
    /// Another entry takes its place.
    Write(NewEntry<'a>),
    /// Another value takes the place of its own, from now on under this deadline. Tags, version
    /// and profile stay.
    Value {
        /// The encoded value.
        data: Vec<u8>,
        /// The name of its format.
        format: &'static str,
        /// The deadline.
        expire_at: Timestamp,
    },
    /// Only its deadline is another.
    Deadline(Timestamp),
}

/// A persistent tier, shared by all threads of the process.
///
/// An implementation MUST have committed a write when the method returns (to the operating
/// system, at the least), MUST have settled it with its [`Freshness`], and MUST return
/// [`crate::error::Error::Closed`] from every method after `close`.
pub trait Store: Send + Sync {
    /// What proves that an entry in memory is still what the store holds.
    fn freshness(&self) -> &Arc<Freshness>;

    /// Reads one row. `wait`: whether to wait for a lock, up to the busy time-out. Without it, what
    /// would take more than some microseconds - a lock held by others, a connection to be opened, a
    /// row of more than 256 KiB - is [`crate::error::Error::StoreBusy`] at once.
    fn read(&self, key: &str, wait: bool) -> Result<Fetched>;

    /// Reads many rows in one transaction, in the order of `keys`. One that cannot be read is an
    /// error of its own.
    fn read_many(&self, keys: &[&str]) -> Result<Vec<Result<Fetched>>>;

    /// Reads live rows whole, at most `limit` readable ones. `with_data`: their payloads too.
    fn rows(
        &self,
        which: Which<'_>,
        now: Timestamp,
        limit: Option<usize>,
        with_data: bool,
    ) -> Result<Listing<FullRow>>;

    /// Writes entries in one transaction, each in the place of its predecessor.
    fn write(&self, entries: &[NewEntry<'_>]) -> Result<Commit>;

    /// What knows of changes of keys for which somebody computes.
    fn fence(&self) -> &Arc<Fence>;

    /// Writes entries of several writers in one transaction, each in the place of its predecessor.
    /// One that was computed is left out if its key was changed since its watch began, by one
    /// before it too; says of each whether it was written.
    fn write_group(&self, group: &[Member<'_>]) -> Result<(Vec<bool>, Commit)>;

    /// Looks at the row of a key, live or not, and changes it, in one transaction: nobody else
    /// changes it meanwhile. A row that cannot be read is shown as none. An error of `change` is
    /// returned, and nothing was changed. It may be called again where the transaction has to be.
    fn update<'a>(
        &self,
        key: &str,
        change: &mut dyn FnMut(Option<Row>) -> Result<Change<'a>>,
    ) -> Result<Commit>;

    /// Deletes keys in one transaction; says of each whether a live entry was there.
    fn delete(&self, keys: &[&str], now: Timestamp) -> Result<Vec<bool>>;

    /// Deletes every entry; returns how many there were.
    fn clear(&self) -> Result<u64>;

    /// The keys of live entries that have one of the tags or, if `exact`, exactly these.
    fn tagged(&self, tags: &[String], exact: bool, now: Timestamp) -> Result<Vec<String>>;

    /// Deletes every entry that has one of the tags or, if `exact`, exactly these; returns the
    /// keys of those that were live.
    fn delete_by_tags(&self, tags: &[String], exact: bool, now: Timestamp) -> Result<Vec<String>>;

    /// Deletes every entry that was written under a profile; returns the keys of those that were
    /// live.
    fn delete_by_profile(&self, profile: &str, now: Timestamp) -> Result<Vec<String>>;

    /// Deletes up to `limit` entries whose time has come, that of their stale copies too, rows beside them that have no time or no
    /// key that can be read, and all leases whose time has come.
    fn delete_expired(&self, now: Timestamp, limit: usize) -> Result<Listing<Expired>>;

    /// The keys of all live entries.
    fn keys(&self, now: Timestamp) -> Result<Vec<String>>;

    /// The keys of live entries that match a pattern and have a tag, each where it is given.
    fn matching(
        &self,
        pattern: Option<&Glob>,
        tag: Option<&str>,
        now: Timestamp,
    ) -> Result<Vec<String>>;

    /// Deletes every entry whose key matches, in one transaction; returns the keys of those that
    /// were live.
    fn delete_matching(&self, pattern: &Glob, now: Timestamp) -> Result<Vec<String>>;

    /// Makes `owner` the owner of the lease of a name until `ttl` from now, in one transaction,
    /// unless it has one whose time has not come; says whether it did. The time is asked for when
    /// nobody else can change the lease any more.
    fn take_lease(&self, name: &str, owner: &str, ttl: Ttl, clock: &Clock) -> Result<bool>;

    /// Whether somebody has a lease whose time has not come; takes no lock from anybody.
    fn is_leased(&self, name: &str, clock: &Clock) -> Result<bool>;

    /// Gives leases, by name and owner, until `ttl` from now, in one transaction. One that has come
    /// to another owner stays theirs.
    fn renew_leases(&self, leases: &[(&str, &str)], ttl: Ttl, clock: &Clock) -> Result<()>;

    /// Ends a lease if it is still this owner's; says whether it was, and its time had not come.
    fn end_lease(&self, name: &str, owner: &str, clock: &Clock) -> Result<bool>;

    /// The keys of live entries that were written as a decorated function's.
    fn of_function(&self, function: &str, now: Timestamp) -> Result<Vec<String>>;

    /// Deletes every entry that was written as a decorated function's; returns the keys of those
    /// that were live.
    fn delete_by_function(&self, function: &str, now: Timestamp) -> Result<Vec<String>>;

    /// How much there is.
    fn size(&self, now: Timestamp) -> Result<StoreSize>;

    /// Adds to the access log, under the given profile, and to the eviction log, in one
    /// transaction.
    fn append_logs(
        &self,
        accesses: &[AccessRecord],
        profile: &str,
        evictions: &[EvictionRecord],
    ) -> Result<()>;

    /// The access log, hottest first.
    fn accesses(&self, which: Which<'_>, limit: Option<usize>) -> Result<Listing<AccessRow>>;

    /// Deletes from the access log.
    fn delete_accesses(&self, which: Which<'_>) -> Result<()>;

    /// The eviction log, newest first.
    fn evictions(&self, limit: Option<usize>) -> Result<Listing<EvictionRow>>;

    /// How many lines the eviction log has.
    fn count_evictions(&self) -> Result<u64>;

    /// Empties the eviction log.
    fn delete_evictions(&self) -> Result<()>;

    /// Stored profiles, by name. A field that cannot be read has its default.
    fn profiles(&self, which: Which<'_>) -> Result<Listing<Profile>>;

    /// Changes a stored profile, which is made with the defaults if there is none; returns it.
    fn save_profile(&self, name: &str, changes: &ProfileChanges) -> Result<Profile>;

    /// Deletes a stored profile; says whether it was there.
    fn delete_profile(&self, name: &str) -> Result<bool>;

    /// Runs one statement in the backend's own language; one that writes only if `write`.
    fn query(&self, statement: &str, parameters: &[Cell], write: bool) -> Result<Answer>;

    /// Moves written pages to their place and gives free ones back: a little at a time, called
    /// about once a second.
    fn maintain(&self) -> Result<()>;

    /// Gives all free pages back at once.
    fn vacuum(&self) -> Result<()>;

    /// Copies everything, as of one moment, to a new file.
    fn backup(&self, path: &Path) -> Result<()>;

    /// Looks for damage; one line for each finding. `fix`: removes entries that nobody can read,
    /// and makes the index of tags anew.
    fn check(&self, fix: bool) -> Result<Vec<String>>;

    /// Lets go of everything that a forked child must not inherit. Until `resume`, a method that
    /// may not wait returns [`crate::error::Error::StoreBusy`]; the caller sees to it that no
    /// other method is running or called.
    fn suspend(&self) -> Result<()>;

    /// Goes on after `suspend`, in the parent as in the child.
    fn resume(&self);

    /// The first half of `close`: nothing proves itself fresh, and every method but `close` says
    /// `Closed`, from now on. The caller then keeps readers of memory out before it calls `close`.
    fn stop_proving(&self);

    /// Closes everything. Calling it again does nothing.
    fn close(&self) -> Result<()>;
}
