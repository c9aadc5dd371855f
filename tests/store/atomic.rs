//! One row looked at and changed in one step; leases; keys by pattern.

use std::sync::Arc;
use std::thread;

use cachetronomy::entry::{NewEntry, Row};
use cachetronomy::error::{Error, Result};
use cachetronomy::store::glob::Glob;
use cachetronomy::store::sqlite::SqliteStore;
use cachetronomy::store::{Change, Store, Which};
use cachetronomy::time::{Clock, ManualClock, Timestamp, Ttl};

use super::{NOW, PAST, data, index, meta, open, pairs, put, put_until, stranger, tags};

const SECOND: Ttl = Ttl::Micros(1_000_000);

fn full(store: &SqliteStore, key: &str) -> cachetronomy::entry::FullRow {
    let listing = store.rows(Which::Key(key), NOW, None, true).unwrap();
    assert_eq!(listing.damaged, []);
    listing.rows.into_iter().next().unwrap()
}

#[test]
fn each_change_does_what_it_says_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = open(&path);
    put(&store, "k", b"1", &["t"]);
    let before = full(&store, "k");

    store.update("k", &mut |_| Ok(Change::Keep)).unwrap();
    assert_eq!(full(&store, "k"), before);

    let later = NOW.after(SECOND);
    store
        .update("k", &mut |_| Ok(Change::Deadline(later)))
        .unwrap();
    let mut expected = before.clone();
    expected.row.meta.expire_at = later;
    assert_eq!(full(&store, "k"), expected);

    store
        .update("k", &mut |row| {
            assert_eq!(row.as_ref(), Some(&expected.row));
            Ok(Change::Value {
                data: b"22".to_vec(),
                format: "orjson",
                expire_at: Timestamp::NEVER,
            })
        })
        .unwrap();
    expected.row.data = b"22".to_vec();
    expected.row.format = String::from("orjson");
    expected.row.meta.expire_at = Timestamp::NEVER;
    assert_eq!(full(&store, "k"), expected);
    assert_eq!(index(&path), pairs(&[("t", "k")]));

    let list = tags(&["u"]);
    let entry = NewEntry {
        key: "k",
        data: b"3",
        format: "json",
        meta: meta(Timestamp::NEVER),
        tags: &list,
        profile: "q",
        function: None,
        stale_until: None,
    };
    store
        .update("k", &mut |_| Ok(Change::Write(entry.clone())))
        .unwrap();
    assert_eq!(full(&store, "k").profile, "q");
    assert_eq!(index(&path), pairs(&[("u", "k")]));

    store.update("k", &mut |_| Ok(Change::Delete)).unwrap();
    assert_eq!(data(&store, "k"), None);
    assert_eq!(index(&path), []);
    assert_eq!(store.check(false).unwrap(), [""; 0]);
}

#[test]
fn an_error_of_who_decides_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("a.db"));
    put(&store, "k", b"1", &[]);
    let refused = store.update("k", &mut |_| Err(Error::Closed));
    assert_eq!(refused.unwrap_err(), Error::Closed);
    assert_eq!(data(&store, "k"), Some(b"1".to_vec()));
    put(&store, "k", b"2", &[]);
}

#[test]
fn who_decides_sees_expired_rows_and_none_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = open(&path);
    put_until(&store, "old", b"1", &[], PAST);
    put(&store, "bad", b"1", &[]);
    stranger(&path)
        .execute("UPDATE cache SET checksum = 1 WHERE key = 'bad'", [])
        .unwrap();
    let seen = |key: &str| {
        let mut seen: Option<Row> = None;
        store
            .update(key, &mut |row| {
                seen = row;
                Ok(Change::Keep)
            })
            .unwrap();
        seen
    };
    assert_eq!(seen("old").unwrap().meta.expire_at, PAST);
    assert_eq!(seen("bad"), None);
    assert_eq!(seen("absent"), None);
}

/// Adds one in one transaction or, for comparison, in two.
fn add_one(store: &SqliteStore, atomic: bool) {
    let next = |row: Option<Row>| -> u64 {
        let text = row.map(|row| String::from_utf8(row.data).unwrap());
        text.map_or(0, |text| text.parse::<u64>().unwrap()) + 1
    };
    let value = |number: u64| Change::Value {
        data: number.to_string().into_bytes(),
        format: "json",
        expire_at: Timestamp::NEVER,
    };
    if atomic {
        store.update("n", &mut |row| Ok(value(next(row)))).unwrap();
    } else {
        let number = next(store.read("n", true).unwrap().row);
        thread::yield_now();
        store.update("n", &mut |_| Ok(value(number))).unwrap();
    }
}

fn sum_of(atomic: bool) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let stores: Vec<_> = (0..2).map(|_| Arc::new(open(&path))).collect();
    put(&stores[0], "n", b"0", &[]);
    thread::scope(|scope| {
        for worker in 0..4 {
            let store = &stores[worker % 2];
            scope.spawn(move || {
                for _ in 0..200 {
                    add_one(store, atomic);
                }
            });
        }
    });
    let sum = String::from_utf8(data(&stores[0], "n").unwrap()).unwrap();
    sum.parse().unwrap()
}

#[test]
fn nobody_comes_between_a_look_and_its_change() {
    assert_eq!(sum_of(true), 800);
    assert!(sum_of(false) < 800, "the comparison shows nothing");
}

#[test]
fn a_lease_has_one_owner_until_its_time_or_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (one, other) = (open(&path), open(&path));
    let hands = ManualClock::new(NOW);
    let clock = Clock::Manual(hands.clone());
    let take = |store: &SqliteStore, owner: &str| -> bool {
        store.take_lease("l", owner, SECOND, &clock).unwrap()
    };
    assert!(take(&one, "a"));
    assert!(!take(&one, "a"), "not re-entrant");
    assert!(!take(&other, "b"));
    assert!(other.take_lease("m", "b", SECOND, &clock).unwrap());
    assert!(!other.end_lease("l", "b", &clock).unwrap(), "not its own");
    assert!(one.end_lease("l", "a", &clock).unwrap());
    assert!(!one.end_lease("l", "a", &clock).unwrap(), "ended already");
    assert!(take(&other, "b"));
    hands.advance(999_999);
    assert!(!take(&one, "a"));
    hands.advance(1);
    assert!(take(&one, "a"), "its time is over");
    assert!(!other.end_lease("l", "b", &clock).unwrap(), "taken over");
    assert!(!take(&other, "b"), "the late end has ended nothing");
    hands.advance(1_000_000);
    assert!(!one.end_lease("l", "a", &clock).unwrap(), "too late");
    assert!(take(&other, "b"));
}

#[test]
fn a_sweep_removes_leases_past_their_time_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = open(&path);
    let clock = Clock::Manual(ManualClock::new(NOW));
    for (name, ttl) in [("short", SECOND), ("long", Ttl::Micros(5_000_000))] {
        assert!(store.take_lease(name, "o", ttl, &clock).unwrap());
    }
    assert_eq!(store.delete_expired(NOW.after(SECOND), 9).unwrap().rows, []);
    let names: Vec<String> = stranger(&path)
        .prepare("SELECT name FROM lease")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(std::result::Result::unwrap)
        .collect();
    assert_eq!(names, ["long"]);
}

#[test]
fn a_lease_that_a_stranger_spoiled_is_nobodys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = open(&path);
    let clock = Clock::Manual(ManualClock::new(NOW));
    stranger(&path)
        .execute("INSERT INTO lease VALUES ('l', x'00', 'some day')", [])
        .unwrap();
    assert!(!store.end_lease("l", "a", &clock).unwrap());
    assert!(store.take_lease("l", "a", SECOND, &clock).unwrap());
    assert!(store.end_lease("l", "a", &clock).unwrap());
}

#[test]
fn a_closed_store_changes_nothing_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("a.db"));
    store.close().unwrap();
    let closed = |result: Result<()>| assert_eq!(result, Err(Error::Closed));
    let clock = Clock::System;
    closed(store.update("k", &mut |_| Ok(Change::Keep)).map(drop));
    closed(store.take_lease("l", "a", SECOND, &clock).map(drop));
    closed(store.end_lease("l", "a", &clock).map(drop));
    closed(store.matching(None, None, NOW).map(drop));
    closed(store.delete_matching(&Glob::parse("*"), NOW).map(drop));
}

#[test]
fn keys_match_whole_and_only_if_live_and_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = open(&path);
    for key in ["a", "ab", "a\u{10ffff}", "b", "A"] {
        put(&store, key, b"1", &["t"]);
    }
    put_until(&store, "a old", b"1", &["t"], PAST);
    put(&store, "a other", b"1", &["u"]);
    stranger(&path)
        .execute(
            "INSERT INTO cache VALUES (x'61', '1', 'json', '9999', '[]', 1, 'p', NULL, NULL, NULL, NULL, NULL)",
            [],
        )
        .unwrap();
    let matching = |pattern: &str, tag: Option<&str>| {
        let mut keys = store
            .matching(Some(&Glob::parse(pattern)), tag, NOW)
            .unwrap();
        keys.sort_unstable();
        keys
    };
    assert_eq!(matching("a*", None), ["a", "a other", "ab", "a\u{10ffff}"]);
    assert_eq!(matching("a*", Some("t")), ["a", "ab", "a\u{10ffff}"]);
    assert_eq!(matching("a", None), ["a"]);
    assert_eq!(matching("[aA]", None), ["A", "a"]);
    assert_eq!(
        store.delete_matching(&Glob::parse("a?"), NOW).unwrap(),
        ["ab", "a\u{10ffff}"]
    );
    assert_eq!(matching("*b*", None), ["b"]);
    assert_eq!(data(&store, "a old"), Some(b"1".to_vec()), "for the sweep");
}
