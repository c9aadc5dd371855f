"""Profiles: checked, stored under their names, switched while a client runs."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cachetronomy import Cachetronaut, InvalidSettingError, Profile, _core
from conftest import short_id
from pydantic import ValidationError

pytestmark = pytest.mark.both_clients


DEFAULTS = {
    "time_to_live": 3600,
    "ttl_cleanup_interval": 60,
    "memory_based_eviction": True,
    "free_memory_target": 500.0,
    "memory_cleanup_interval": 5,
    "max_items_in_memory": 100,
    "tags": [],
}
OTHERS = {
    "time_to_live": 7,
    "ttl_cleanup_interval": 0,
    "memory_based_eviction": False,
    "free_memory_target": 0.25,
    "memory_cleanup_interval": 9,
    "max_items_in_memory": 3,
    "tags": ["a", "b"],
}
BAD = [
    ("name", ""),
    ("name", None),
    ("name", 5),
    ("time_to_live", 0),
    ("time_to_live", -1),
    ("time_to_live", 1.5),
    ("time_to_live", "long"),
    ("time_to_live", 10**30),
    ("ttl_cleanup_interval", -1),
    ("memory_based_eviction", "perhaps"),
    ("free_memory_target", -0.1),
    ("free_memory_target", math.nan),
    ("memory_cleanup_interval", -1),
    ("max_items_in_memory", -1),
    ("max_items_in_memory", None),
    ("tags", [""]),
    ("tags", [1]),
    ("tags", None),
    ("time_to_liv", 5),
]


def fields(profile: Profile) -> dict[str, Any]:
    return profile.model_dump(exclude={"name"})


def test_the_defaults_are_those_of_the_core():
    assert fields(Profile(name="p")) == _core._PROFILE_DEFAULTS == DEFAULTS


@pytest.mark.parametrize(("field", "value"), BAD, ids=short_id)
def test_a_bad_field_is_refused_and_named(field, value):
    with pytest.raises(ValidationError, match=field) as caught:
        Profile(**{"name": "p", field: value})
    assert isinstance(caught.value, ValueError)
    profile = Profile(name="p")
    with pytest.raises(ValidationError, match=field):
        setattr(profile, field, value)
    assert profile == Profile(name="p")


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field, value in BAD if field != "name"], ids=short_id
)
def test_a_bad_change_changes_nothing(cache: Cachetronaut, field: str, value: object) -> None:
    before = cache.profile
    with pytest.raises(InvalidSettingError, match=field):
        cache.update_active_profile(**{"ttl_cleanup_interval": 5, "tags": ["x"], field: value})
    assert cache.profile == before
    assert cache.list_profiles() == [before]


def test_fields_are_read_from_text():
    assert Profile(name="p", time_to_live="60", free_memory_target="0.5").time_to_live == 60


def test_a_client_begins_with_the_default_profile(anywhere: Cachetronaut) -> None:
    assert anywhere.profile == Profile(name="default")
    assert anywhere.get_profile() == anywhere.get_profile("default") == anywhere.profile
    assert anywhere.list_profiles() == [Profile(name="default")]
    assert anywhere.stats()["profile"] == "default"


def test_a_name_that_is_not_stored_is_made_with_the_defaults(
    open_cache: Callable[..., Cachetronaut],
) -> None:
    assert open_cache(profile="fresh").profile == Profile(name="fresh")
    cache = open_cache()
    assert cache.get_profile("fresh") == Profile(name="fresh")
    assert cache.get_profile("unknown") is None
    cache.profile = "another"
    assert [profile.name for profile in cache.list_profiles()] == ["another", "default", "fresh"]


def test_a_profile_given_to_a_client_is_stored(open_cache: Callable[..., Cachetronaut]) -> None:
    given = Profile(name="p", **OTHERS)
    assert open_cache(profile=given).profile == given
    assert open_cache(profile="p").profile == given


def test_only_given_fields_of_a_new_clients_profile_count(
    open_cache: Callable[..., Cachetronaut],
) -> None:
    open_cache(profile=Profile(name="p", time_to_live=7, tags=["kept"]))
    cache = open_cache(profile=Profile(name="p", time_to_live=8))
    assert (cache.time_to_live, cache.tags) == (8, ["kept"])


def test_a_profile_without_a_name_is_the_active_one(
    open_cache: Callable[..., Cachetronaut],
) -> None:
    cache = open_cache(profile=Profile(time_to_live=7))
    assert cache.profile == Profile(name="default", time_to_live=7)
    cache.profile = "p"
    assert cache.update_active_profile(Profile(tags=["x"])) == Profile(name="p", tags=["x"])
    assert cache.set_profile(Profile(time_to_live=5)) == Profile(name="p", time_to_live=5)


def test_the_fields_are_attributes(cache: Cachetronaut) -> None:
    cache.profile = Profile(name="p", **OTHERS)
    assert {field: getattr(cache, field) for field in OTHERS} == OTHERS
    for field in OTHERS:
        with pytest.raises(AttributeError):
            setattr(cache, field, 1)


@pytest.mark.parametrize("how", ["assigned", "set", "updated"])
def test_switching_by_object_stores_it(open_cache: Callable[..., Cachetronaut], how: str) -> None:
    cache = open_cache()
    profile = Profile(name="p", **OTHERS)
    if how == "assigned":
        cache.profile = profile
    elif how == "set":
        assert cache.set_profile(profile) == profile
    else:
        assert cache.update_active_profile(profile) == profile
    assert cache.profile == cache.get_profile("p") == profile
    assert cache.stats()["profile"] == "p"
    assert open_cache(profile="p").profile == profile
    assert cache.get_profile("default") == Profile(name="default")


def test_an_assigned_profile_counts_with_all_its_fields(cache: Cachetronaut) -> None:
    cache.profile = Profile(name="p", **OTHERS)
    cache.profile = Profile(name="p")
    assert cache.profile == cache.get_profile("p") == Profile(name="p")


@pytest.mark.parametrize("field", sorted(OTHERS))
def test_one_field_is_updated_and_stored(
    open_cache: Callable[..., Cachetronaut], field: str
) -> None:
    cache = open_cache(profile="p")
    expected = Profile(name="p", **{field: OTHERS[field]})
    assert cache.update_active_profile(**{field: OTHERS[field]}) == expected
    assert cache.profile == cache.get_profile("p") == expected
    assert open_cache(profile="p").profile == expected


def test_only_given_fields_of_an_update_count(cache: Cachetronaut) -> None:
    cache.profile = Profile(name="p", **OTHERS)
    update = Profile(name="p", time_to_live=50)
    expected = {**OTHERS, "time_to_live": 50}
    assert fields(cache.update_active_profile(update)) == expected
    assert fields(cache.update_active_profile(update, tags=["c"])) == {**expected, "tags": ["c"]}
    assert fields(cache.update_active_profile()) == {**expected, "tags": ["c"]}


def test_an_update_under_another_name_switches(cache: Cachetronaut) -> None:
    assert cache.update_active_profile(Profile(name="p", time_to_live=7)).name == "p"
    assert cache.update_active_profile(name="q", time_to_live=8).name == "q"
    assert cache.profile == Profile(name="q", time_to_live=8)
    assert cache.get_profile("p") == Profile(name="p", time_to_live=7)
    assert cache.get_profile("default") == Profile(name="default")


def test_none_is_the_default_profile(cache: Cachetronaut) -> None:
    cache.profile = "p"
    cache.profile = None
    assert cache.profile.name == "default"


@pytest.mark.parametrize("bad", ["", 5, {"name": "p"}, b"p"], ids=short_id)
def test_what_is_no_profile_is_refused(
    open_cache: Callable[..., Cachetronaut], bad: object
) -> None:
    cache = open_cache()
    with pytest.raises(InvalidSettingError):
        cache.profile = bad
    with pytest.raises(InvalidSettingError):
        open_cache(profile=bad)
    assert cache.profile.name == "default"
    assert len(cache.list_profiles()) == 1


def test_a_profile_is_deleted(cache: Cachetronaut) -> None:
    cache.profile = Profile(name="p", **OTHERS)
    cache.profile = "default"
    assert cache.delete_profile("p") is True
    assert cache.delete_profile("p") is False
    assert cache.get_profile("p") is None
    cache.profile = "p"
    assert cache.profile == Profile(name="p")


def test_ttl_and_tags_of_later_writes_are_the_new_ones(anywhere: Cachetronaut) -> None:
    anywhere.set("before", 1)
    anywhere.profile = Profile(name="p", time_to_live=10, tags=["t"])
    anywhere.set("after", 1)
    anywhere.set("own", 1, ttl=20, tags=["u"])
    before, after, own = map(anywhere.key_metadata, ("before", "after", "own"))
    assert before is not None
    assert after is not None
    assert own is not None
    assert (before.tags, after.tags, own.tags) == ([], ["t"], ["u"])
    assert (before.saved_by_profile, after.saved_by_profile) == ("default", "p")
    assert (before.expire_at - after.expire_at).total_seconds() == 3590
    assert (own.expire_at - after.expire_at).total_seconds() == 10
    assert anywhere.clear_by_profile("p") == ["after", "own"]


def test_a_smaller_cap_evicts_at_once(cache: Cachetronaut) -> None:
    cache.set_many(dict.fromkeys("abcdefgh", 1))
    cache.update_active_profile(max_items_in_memory=3)
    assert len(cache.memory_keys()) == 3
    cache.update_active_profile(max_items_in_memory=0)
    assert cache.memory_keys() == []
    assert sorted(cache.store_keys()) == list("abcdefgh")


def test_a_clients_own_cap_is_none_for_no_limit(open_cache: Callable[..., Cachetronaut]) -> None:
    cache = open_cache(max_items_in_memory=None)
    assert cache.max_items_in_memory is None
    assert cache.profile.max_items_in_memory is None
    assert open_cache().max_items_in_memory == 100
    cache.profile = cache.profile
    stored = cache.get_profile("default")
    assert stored is not None
    assert stored.max_items_in_memory == 100


@pytest.fixture
def profiles_yaml(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "profiles.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_profiles_are_loaded_from_yaml(profiles_yaml: Callable[[str], Path]) -> None:
    path = profiles_yaml(
        "fast:\n  time_to_live: 60\n  tags: [a, ä]\n"
        "small: {max_items_in_memory: 5, memory_based_eviction: no}\nplain: {}\n"
    )
    expected = {
        "fast": Profile(name="fast", time_to_live=60, tags=["a", "ä"]),
        "small": Profile(name="small", max_items_in_memory=5, memory_based_eviction=False),
        "plain": Profile(name="plain"),
    }
    assert Profile.load_profiles(path) == Profile.load_profiles(str(path)) == expected


def test_loaded_profiles_are_used(
    open_cache: Callable[..., Cachetronaut], profiles_yaml: Callable[[str], Path]
) -> None:
    loaded = Profile.load_profiles(profiles_yaml("fast: {time_to_live: 60}"))
    assert open_cache(profile=loaded["fast"]).time_to_live == 60


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["names of profiles", "None"]),
        ("- a\n- b\n", ["names of profiles", "['a', 'b']"]),
        ("just text", ["names of profiles", "just text"]),
        ("fast: 5", ["'fast'", "map fields", "5"]),
        ("fast:", ["'fast'", "map fields", "None"]),
        ("a: [", ["is not YAML"]),
        ("a: 2026-99-99", ["is not YAML"]),
        ("\x00", ["is not YAML"]),
        ("[" * 5000, ["is not YAML"]),
        ("a: !!python/object/apply:os.getcwd []", ["is not YAML"]),
        ("fast: {time_to_live: -5}", ["'fast'", "time_to_live", "-5"]),
        ("fast: {time_to_live: soon}", ["'fast'", "time_to_live", "soon"]),
        ("fast: {speed: 5}", ["'fast'", "speed", "is not a field", "time_to_live"]),
        ("fast: {name: other}", ["'fast'", "name"]),
        ("fast: {1: 2}", ["'fast'", "1"]),
        ("'': {}", ["''", "name"]),
        ("5: {}", ["profile 5", "name"]),
        ("good: {}\nbad: {tags: ['']}", ["'bad'", "tags"]),
    ],
    ids=short_id,
)
def test_a_yaml_file_that_is_none_is_refused(
    profiles_yaml: Callable[[str], Path], text: str, words: list[str]
) -> None:
    path = profiles_yaml(text)
    with pytest.raises(InvalidSettingError) as caught:
        Profile.load_profiles(path)
    for word in [str(path), *words]:
        assert word in str(caught.value)


def test_a_yaml_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(OSError, match=path.name):
            Profile.load_profiles(path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(InvalidSettingError, match=r"binary\.yaml: is not YAML"):
        Profile.load_profiles(binary)


@pytest.mark.parametrize(
    "text", ["a: !!timestamp x", "a: !!int ''", "a: !!float ''", "a: !!bool x", "!!set {a: b}: 1"]
)
def test_values_that_yaml_cannot_make_are_no_yaml(
    profiles_yaml: Callable[[str], Path], text: str
) -> None:
    with pytest.raises(InvalidSettingError, match=r"profiles\.yaml"):
        Profile.load_profiles(profiles_yaml(text))


def test_a_few_lines_that_stand_for_a_billion_are_refused_at_once(
    profiles_yaml: Callable[[str], Path],
) -> None:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"]
    lines += [f"{b}: &{b} [{','.join(['*' + a] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi")]  # noqa: B905
    for field in ("tags", "name", "time_to_live"):
        path = profiles_yaml("\n".join([*lines, f"p: {{{field}: *i}}"]))
        start = time.monotonic()
        with pytest.raises(InvalidSettingError):
            Profile.load_profiles(path)
        assert time.monotonic() - start < 5  # Seconds; in full it takes all memory there is.


def test_two_threads_that_update_two_profiles_never_mix_them(cache: Cachetronaut) -> None:
    wrong: list[str] = []
    profiles = [
        Profile(name=name, time_to_live=ttl, tags=[name]) for name, ttl in (("a", 7), ("b", 9))
    ]

    def update(profile: Profile) -> None:
        for _ in range(300):
            seen = cache.update_active_profile(profile)
            if seen.tags != [seen.name]:
                wrong.append(f"{seen.name} has {seen.tags}")

    threads = [threading.Thread(target=update, args=[profile]) for profile in profiles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert [(one.name, one.time_to_live, one.tags) for one in cache.list_profiles()] == [
        ("a", 7, ["a"]),
        ("b", 9, ["b"]),
        ("default", 3600, []),
    ]


def test_another_name_takes_the_fields_of_the_active_profile_along(cache: Cachetronaut) -> None:
    cache.profile = Profile(name="one", time_to_live=99, tags=["t"])
    two = cache.update_active_profile(name="two", max_items_in_memory=5)
    assert (two.name, two.time_to_live, two.tags, two.max_items_in_memory) == ("two", 99, ["t"], 5)
    assert cache.get_profile("one").max_items_in_memory == 100


def test_what_only_this_client_has_is_not_stored_with_its_profile(
    open_cache: Callable[..., Cachetronaut], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_TIME_TO_LIVE", "123")
    cache = open_cache(max_items_in_memory=None)
    profile = cache.profile
    assert (profile.time_to_live, profile.max_items_in_memory) == (123, None)
    profile.tags = ["t"]
    cache.profile = profile
    stored = cache.get_profile("default")
    assert (stored.time_to_live, stored.max_items_in_memory, stored.tags) == (3600, 100, ["t"])
    profile = open_cache().profile
    profile.time_to_live = 124
    cache.profile = profile
    assert cache.get_profile("default").time_to_live == 124
