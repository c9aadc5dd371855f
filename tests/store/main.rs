//! What a SQLite store does with rows, logs, files, damage, and files of other makers.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "fails the test"
)]

mod atomic;
mod damage;
mod files;
mod groups;
mod original;
mod profiles;
mod rows;
mod upkeep;

use std::path::Path;

use cachetronomy::entry::{EntryMeta, NewEntry};
use cachetronomy::settings::{Location, Settings};
use cachetronomy::store::Store;
use cachetronomy::store::sqlite::SqliteStore;
use cachetronomy::time::Timestamp;
use rusqlite::Connection;

/// A moment between the deadlines of these tests.
const NOW: Timestamp = Timestamp(1_700_000_000_000_000);
const PAST: Timestamp = Timestamp(NOW.0 - 1);

fn settings(path: &Path) -> Settings {
    Settings {
        location: Location::File(path.to_owned()),
        ..Settings::default()
    }
}

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(&settings(path)).unwrap()
}

/// As a program with another SQLite library would: triggers on, nothing restricted.
fn stranger(path: &Path) -> Connection {
    Connection::open(path).unwrap()
}

fn tags(list: &[&str]) -> Vec<String> {
    list.iter().map(|tag| (*tag).to_owned()).collect()
}

fn meta(expire_at: Timestamp) -> EntryMeta {
    EntryMeta {
        expire_at,
        version: 1,
        compute_us: 0,
    }
}

fn put_until(store: &SqliteStore, key: &str, data: &[u8], list: &[&str], expire_at: Timestamp) {
    let tags = tags(list);
    let entry = NewEntry {
        key,
        data,
        format: "json",
        meta: meta(expire_at),
        tags: &tags,
        profile: "p",
        function: None,
        stale_until: None,
    };
    store.write(&[entry]).unwrap();
}

fn put(store: &SqliteStore, key: &str, data: &[u8], list: &[&str]) {
    put_until(store, key, data, list, Timestamp::NEVER);
}

fn data(store: &SqliteStore, key: &str) -> Option<Vec<u8>> {
    store.read(key, true).unwrap().row.map(|row| row.data)
}

/// The index of tags as it is: (tag, key).
fn index(path: &Path) -> Vec<(String, String)> {
    let connection = stranger(path);
    let mut rows = connection
        .prepare("SELECT tag, key FROM cache_tag ORDER BY 1, 2")
        .unwrap();
    rows.query_map([], |row| row.try_into())
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(tag, key)| ((*tag).to_owned(), (*key).to_owned()))
        .collect()
}
