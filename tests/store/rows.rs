//! Rows, tags, keys and logs through the trait.

use std::sync::atomic::{AtomicBool, Ordering};

use cachetronomy::entry::{AccessRecord, EntryMeta, EvictionReason, EvictionRecord, NewEntry};
use cachetronomy::error::Error;
use cachetronomy::settings::{Location, Settings};
use cachetronomy::store::sqlite::SqliteStore;
use cachetronomy::store::{Store, Which};
use cachetronomy::time::{Timestamp, Ttl};

use super::{NOW, PAST, data, index, open, pairs, put, put_until, stranger, tags};

#[test]
fn a_row_comes_back_as_it_was_written_also_from_another_store() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (ours, theirs) = (open(&path), open(&path));
    let every_byte: Vec<u8> = (0..=255).collect();
    for (format, bytes) in [
        ("json", b"{}".as_slice()),
        ("msgpack", &every_byte),
        ("custom", b""),
    ] {
        let expire_at = NOW.after(Ttl::Micros(1_234_567));
        let meta = EntryMeta {
            expire_at,
            version: 7,
            compute_us: 99,
        };
        ours.write(&[NewEntry {
            key: "k",
            data: bytes,
            format,
            meta,
            tags: &[],
            profile: "p",
            function: None,
            stale_until: None,
        }])
        .unwrap();
        for store in [&ours, &theirs] {
            let row = store.read("k", true).unwrap().row.unwrap();
            assert_eq!((&*row.format, &*row.data, row.meta), (format, bytes, meta));
        }
    }
    assert_eq!(theirs.read("absent", true).unwrap().row, None);
    let many = theirs.read_many(&["absent", "k", "k"]).unwrap();
    assert_eq!(
        many.iter()
            .map(|fetched| fetched.as_ref().unwrap().row.is_some())
            .collect::<Vec<_>>(),
        [false, true, true]
    );
}

#[test]
fn many_entries_are_written_together_and_the_last_of_one_key_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("a.db"));
    let keys: Vec<String> = (0..3_000)
        .map(|number| format!("{}", number % 2_000))
        .collect();
    let values: Vec<String> = (0..3_000).map(|number| number.to_string()).collect();
    let meta = super::meta(Timestamp::NEVER);
    let entry = |(key, value)| {
        let (key, value): (&String, &String) = (key, value);
        NewEntry {
            key,
            data: value.as_bytes(),
            format: "json",
            meta,
            tags: &[],
            profile: "p",
            function: None,
            stale_until: None,
        }
    };
    store
        .write(&keys.iter().zip(&values).map(entry).collect::<Vec<_>>())
        .unwrap();
    assert_eq!(store.size(NOW).unwrap().entries, 2_000);
    assert_eq!(data(&store, "999"), Some(b"2999".to_vec()));
    assert_eq!(data(&store, "1999"), Some(b"1999".to_vec()));
    assert_eq!(store.clear().unwrap(), 2_000);
    assert_eq!(store.check(false).unwrap(), [""; 0]);
}

#[test]
fn a_new_value_takes_the_place_of_the_old_ones_tags() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = open(&path);
    put(&store, "k", b"1", &["a", "b"]);
    put(&store, "k", b"2", &["b", "c"]);
    assert_eq!(index(&path), pairs(&[("b", "k"), ("c", "k")]));
    assert_eq!(
        store.delete_by_tags(&tags(&["a"]), false, NOW).unwrap(),
        [""; 0]
    );
    assert_eq!(
        store.delete_by_tags(&tags(&["c"]), false, NOW).unwrap(),
        ["k"]
    );
    assert_eq!(index(&path), []);
    put(&store, "k", b"3", &["a"]);
    store.delete(&["k"], NOW).unwrap();
    assert_eq!(index(&path), [], "a deleted key leaves no tags behind");
}

#[test]
fn tags_match_any_of_them_or_exactly_these_in_any_order() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("a.db"));
    let fill = || {
        put(&store, "none", b"0", &[]);
        put(&store, "a", b"1", &["a"]);
        put(&store, "ab", b"2", &["a", "b"]);
        put(&store, "ba", b"3", &["b", "a"]);
        put(&store, "abc", b"4", &["a", "b", "c"]);
        put_until(&store, "past", b"5", &["a", "b"], PAST);
    };
    let cases: [(&[&str], bool, &[&str]); 8] = [
        (&["a"], false, &["a", "ab", "abc", "ba"]),
        (&["a"], true, &["a"]),
        (&["b", "c"], false, &["ab", "abc", "ba"]),
        (&["a", "b"], true, &["ab", "ba"]),
        (&["b", "a"], true, &["ab", "ba"]),
        (&["absent", "c"], false, &["abc"]),
        (&[], true, &["none"]),
        (&[], false, &[]),
    ];
    for (wanted, exact, expected) in cases {
        fill();
        let mut removed = store.delete_by_tags(&tags(wanted), exact, NOW).unwrap();
        removed.sort_unstable();
        assert_eq!(removed, expected, "{wanted:?}, exact: {exact}");
        for key in expected {
            assert_eq!(data(&store, key), None);
        }
        assert_eq!(store.size(NOW).unwrap().entries, 5 - expected.len() as u64);
    }
}

#[test]
fn a_tag_may_be_any_text() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("a.db"));
    let long = "long ".repeat(10_000);
    for tag in [
        "it's",
        "\"quoted\"",
        "a\\b",
        "[\"a\"]",
        "%",
        "_",
        "\u{e9}\u{1f980}",
        "a\0b",
        &long,
    ] {
        put(&store, "k", b"1", &[tag]);
        put(&store, "other", b"1", &["a", "\u{e9}", "'"]);
        for exact in [false, true] {
            assert_eq!(
                store.delete_by_tags(&tags(&[tag]), exact, NOW).unwrap(),
                ["k"],
                "{tag:?}"
            );
            put(&store, "k", b"1", &[tag]);
        }
        assert!(
            data(&store, "other").is_some(),
            "{tag:?} took a neighbour along"
        );
    }
    let tens_of_thousands: Vec<String> = (0..40_000).map(|number| number.to_string()).collect();
    put(&store, "many", b"1", &["39999"]);
    assert_eq!(
        store
            .delete_by_tags(&tens_of_thousands, false, NOW)
            .unwrap(),
        ["many"]
    );
}

#[test]
fn a_key_may_be_any_text() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("a.db"));
    let long = "k".repeat(1 << 20);
    let longer = format!("{long}!");
    let keys = [
        "",
        "\0",
        "a",
        "a\0",
        "a\0b",
        "a\0c",
        " a",
        "a ",
        "A",
        "'; DROP TABLE cache; --",
        "%",
        "_",
        "../x",
        "\u{e9}",
        "e\u{301}",
        "\u{1f980}",
        "\u{202e}abc",
        "1",
        "01",
        "1.0",
        &long,
        &longer,
    ];
    for (number, key) in keys.iter().enumerate() {
        put(&store, key, number.to_string().as_bytes(), &["t"]);
    }
    for (number, key) in keys.iter().enumerate() {
        assert_eq!(
            data(&store, key),
            Some(number.to_string().into_bytes()),
            "{key:.20?}"
        );
    }
    let mut listed = store.keys(NOW).unwrap();
    let mut expected = keys.map(str::to_owned);
    listed.sort_unstable();
    expected.sort_unstable();
    assert!(listed == expected, "every key is listed as it is");
    for key in &keys[..10] {
        assert_eq!(store.delete(&[key], NOW).unwrap(), [true], "{key:?}");
        assert_eq!(data(&store, key), None);
    }
    assert_eq!(
        store
            .delete_by_tags(&tags(&["t"]), true, NOW)
            .unwrap()
            .len(),
        keys.len() - 10
    );
    assert_eq!(store.check(false).unwrap(), [""; 0]);
}

#[test]
fn a_delete_says_of_each_key_whether_a_live_entry_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("a.db"));
    put(&store, "live", b"1", &[]);
    put_until(&store, "past", b"1", &[], PAST);
    put_until(&store, "due", b"1", &[], NOW);
    let existed = store
        .delete(&["live", "past", "due", "absent", "live"], NOW)
        .unwrap();
    assert_eq!(existed, [true, false, false, false, false]);
    assert_eq!(data(&store, "past"), None, "gone all the same");
    assert_eq!(store.delete(&[], NOW).unwrap(), [false; 0]);
}

#[test]
fn what_has_expired_goes_in_chunks_and_the_rest_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = open(&path);
    for number in 0..25 {
        put_until(
            &store,
            &number.to_string(),
            b"1",
            &["t"],
            Timestamp(NOW.0 - number),
        );
    }
    put_until(&store, "later", b"1", &["t"], Timestamp(NOW.0 + 1));
    assert_eq!(store.keys(NOW).unwrap(), ["later"]);
    let chunks: Vec<usize> = (0..4)
        .map(|_| store.delete_expired(NOW, 10).unwrap().rows.len())
        .collect();
    assert_eq!(chunks, [10, 10, 5, 0]);
    assert_eq!(index(&path), pairs(&[("t", "later")]));
    let later = store.delete_expired(Timestamp(NOW.0 + 1), 10).unwrap().rows;
    assert_eq!(
        (&*later[0].key, later[0].expire_at),
        ("later", Timestamp(NOW.0 + 1))
    );
}

#[test]
fn the_access_log_adds_up_over_two_stores() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (ours, theirs) = (open(&path), open(&path));
    let hits = |key: &str, count, at: i64| AccessRecord {
        key: key.to_owned(),
        count,
        last_accessed: Timestamp(NOW.0 + at),
    };
    ours.append_logs(&[hits("a", 2, 5), hits("b", 4, 0)], "default", &[])
        .unwrap();
    theirs
        .append_logs(&[hits("a", 3, 1), hits("c", 4, 0)], "other", &[])
        .unwrap();
    let rows = ours.accesses(Which::All, None).unwrap().rows;
    let counts: Vec<_> = rows.iter().map(|row| (&*row.key, row.count)).collect();
    assert_eq!(
        counts,
        [("a", 5), ("b", 4), ("c", 4)],
        "hottest first, then by key"
    );
    assert_eq!(
        rows[0].last_accessed,
        Timestamp(NOW.0 + 5),
        "the latest of both"
    );
    assert_eq!((&*rows[0].profile, &*rows[1].profile), ("other", "default"));
    assert_eq!(theirs.accesses(Which::All, Some(1)).unwrap().rows.len(), 1);
}

#[test]
fn the_eviction_log_keeps_its_newest_lines() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = open(&path);
    let record = |number: u64| EvictionRecord {
        key: number.to_string(),
        evicted_at: NOW,
        reason: EvictionReason::Time.as_str().into(),
        access_count: number,
        profile: "p".into(),
    };
    let records: Vec<_> = (0..100_100).map(record).collect();
    store.append_logs(&[], "p", &records[..60_000]).unwrap();
    store.append_logs(&[], "p", &records[60_000..]).unwrap();
    store.close().unwrap();
    let found: (i64, i64, i64) = stranger(&path)
        .query_row(
            "SELECT count(*), min(last_access_count), max(last_access_count) FROM eviction_log",
            [],
            |row| row.try_into(),
        )
        .unwrap();
    assert_eq!(found, (100_000, 100, 100_099));
}

#[test]
fn a_value_beyond_sqlites_limit_is_refused_and_the_old_one_stays() {
    let store = SqliteStore::open(&Settings {
        location: Location::Memory,
        ..Settings::default()
    })
    .unwrap();
    put(&store, "k", b"1", &["t"]);
    let (data_too_long, meta) = (vec![0; 1_000_000_001], super::meta(Timestamp::NEVER));
    let entry = NewEntry {
        key: "k",
        data: &data_too_long,
        format: "json",
        meta,
        tags: &[],
        profile: "p",
        function: None,
        stale_until: None,
    };
    assert!(matches!(
        store.write(&[entry]),
        Err(Error::Serialization { .. })
    ));
    assert_eq!(data(&store, "k"), Some(b"1".to_vec()));
    assert_eq!(
        store.delete_by_tags(&tags(&["t"]), true, NOW).unwrap(),
        ["k"]
    );
}

#[test]
fn a_write_that_reads_first_is_not_refused_because_another_store_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (ours, theirs) = (open(&path), open(&path));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                put(&theirs, "theirs", b"1", &["t"]);
            }
        });
        let results: Vec<_> = (0..60)
            .map(|_| {
                put(&ours, "ours", b"1", &["u"]);
                ours.delete_by_tags(&tags(&["u"]), false, NOW)
            })
            .collect();
        done.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    });
}
