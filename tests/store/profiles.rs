//! Stored profiles: made, changed, listed, deleted; odd fields of strangers.

use cachetronomy::settings::{Profile, ProfileChanges};
use cachetronomy::store::{Store, Which};

use super::{open, stranger};

fn changes(set: impl FnOnce(&mut ProfileChanges)) -> ProfileChanges {
    let mut changes = ProfileChanges::default();
    set(&mut changes);
    changes
}

#[test]
fn a_profile_is_made_with_the_defaults_and_then_changed_field_by_field() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let (ours, theirs) = (open(&path), open(&path));
    let none = ProfileChanges::default();
    assert_eq!(ours.save_profile("p", &none).unwrap(), Profile::named("p"));
    let ttl = changes(|it| it.time_to_live = Some(60));
    let tags = changes(|it| it.tags = Some(vec![String::from("t")]));
    ours.save_profile("p", &ttl).unwrap();
    theirs.save_profile("p", &tags).unwrap();
    let both = Profile {
        time_to_live: 60,
        tags: vec![String::from("t")],
        ..Profile::named("p")
    };
    let found = ours.profiles(Which::Key("p")).unwrap().rows;
    assert_eq!(found.as_slice(), std::slice::from_ref(&both));
    ours.save_profile("a", &none).unwrap();
    let all = theirs.profiles(Which::All).unwrap().rows;
    assert_eq!(all, [Profile::named("a"), both]);
    assert!(ours.delete_profile("a").unwrap());
    assert!(!ours.delete_profile("a").unwrap());
    assert!(theirs.profiles(Which::Key("a")).unwrap().rows.is_empty());
}

#[test]
fn a_profile_that_does_not_change_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = open(&path);
    let watcher = stranger(&path);
    let version = || -> i64 {
        watcher
            .query_row("PRAGMA data_version", [], |row| row.get(0))
            .unwrap()
    };
    store.save_profile("p", &ProfileChanges::default()).unwrap();
    let before = version();
    store
        .save_profile("p", &changes(|it| it.time_to_live = Some(3_600)))
        .unwrap();
    assert_eq!(version(), before);
    store
        .save_profile("p", &changes(|it| it.time_to_live = Some(1)))
        .unwrap();
    assert_ne!(version(), before);
}

#[test]
fn an_odd_field_of_a_stranger_has_its_default_and_hides_no_other() {
    let odd = [
        "time_to_live = 0",
        "time_to_live = 'an hour'",
        "ttl_cleanup_interval = -1",
        "memory_based_eviction = 'yes'",
        "free_memory_target = -1.0",
        "free_memory_target = x'00'",
        "memory_cleanup_interval = 1.5",
        "max_items_in_memory = -5",
        "tags = '{}'",
        "tags = '[\"\"]'",
    ];
    for change in odd {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let store = open(&path);
        let given = changes(|it| {
            it.time_to_live = Some(7);
            it.max_items_in_memory = Some(7);
        });
        store.save_profile("p", &given).unwrap();
        store.save_profile("z", &given).unwrap();
        let sql = format!("UPDATE profiles SET {change} WHERE name = 'p'");
        stranger(&path).execute_batch(&sql).unwrap();
        let found = store.profiles(Which::All).unwrap();
        assert_eq!(found.damaged.len(), 1, "{change}");
        assert_eq!(found.damaged[0].key, "p");
        assert_eq!(found.rows[1], Profile::named("z").with(&given), "{change}");
        let expected = Profile::named("p");
        let mended = &found.rows[0];
        assert!(
            [7, expected.time_to_live].contains(&mended.time_to_live),
            "{change}: {mended:?}"
        );
        assert!(mended.free_memory_target > 0.0, "{change}: {mended:?}");
        // Written again, it is sound.
        store.save_profile("p", &given).unwrap();
        assert!(store.profiles(Which::All).unwrap().damaged.len() <= 1);
    }
}
