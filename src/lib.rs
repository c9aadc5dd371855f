//! A cache in two tiers: live values in memory over a SQLite file.
//!
//! Layers; a module imports only lower ones (`tests/layering.rs` enforces it):
//!
//! | layer | modules | what |
//! |---|---|---|
//! | 0 | [`error`], [`time`] | the error enum; timestamps, times to live, a clock tests can turn |
//! | 1 | [`entry`], [`settings`], [`codec`], [`freshness`] | what the tiers exchange; checked settings; JSON and MessagePack; proof that nobody changed a key |
//! | 2 | [`memory`], [`hotkeys`], [`pressure`], [`store`] | the two tiers, the access counts, the free RAM |
//! | 3 | [`cache`] | the only place that knows both tiers |
//! | 4 | [`maintenance`], [`worker`] | one background thread; threads that serve callers who must not wait |
//! | 5 | `py` | the only place that knows Python (feature `python`) |
//!
//! Invariants:
//!
//! 1. A value past its deadline is never returned, by any path.
//! 2. What memory holds, the store holds or held: encoded first, stored second, kept third.
//! 3. A read that begins after a write returned, in any thread or process, sees it.
//! 4. A value fetched from the store is trusted only if nothing changed its key since.
//! 5. No lock is held while a value's code can run.
//! 6. Counters and logs never make a read wait, and are complete after a flush or a close.
//! 7. Closing twice is closing once; every later call says so.

pub mod cache;
pub mod codec;
pub mod entry;
pub mod error;
pub mod freshness;
pub mod hotkeys;
pub mod maintenance;
pub mod memory;
pub mod pressure;
#[cfg(feature = "python")]
mod py;
pub mod settings;
pub mod store;
pub mod time;
pub mod worker;
