"""Settings of the environment and of `.env`: what beats what, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cachetronomy import CacheSettings, Cachetronaut, InvalidSettingError, Profile
from cachetronomy.environment import read

pytestmark = pytest.mark.both_clients


FIELDS = {
    "db_path": ("here/x.db", Path("here/x.db")),
    "default_profile": ("mine", "mine"),
    "time_to_live": ("7", 7),
    "ttl_cleanup_interval": ("0", 0),
    "memory_based_eviction": ("false", False),
    "free_memory_target": ("0.25", 0.25),
    "memory_cleanup_interval": ("9", 9),
    "max_items_in_memory": ("3", 3),
    "tags": ('["a", "b,c"]', ["a", "b,c"]),
    "serializer": ("msgpack", "msgpack"),
    "busy_timeout": ("1.5", 1.5),
    "offload_reads": ("true", True),
}
OF_PROFILES = sorted(
    FIELDS.keys() - {"db_path", "default_profile", "serializer", "busy_timeout", "offload_reads"}
)


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take nobody's settings, and stay in a folder with no `.env`."""
    for name in list(os.environ):
        if name.upper().startswith("CACHE_"):
            monkeypatch.delenv(name)
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture(params=["variable", "lower case", ".env"])
def setting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set a setting in each of the ways there are."""

    def use(field: str, text: str) -> None:
        name = f"CACHE_{field.upper()}"
        if request.param == ".env":
            with Path(".env").open("a", encoding="utf-8") as file:
                file.write(f"{name}='{text}'\n")
        else:
            monkeypatch.setenv(name.lower() if request.param == "lower case" else name, text)

    return use


def test_there_are_defaults():
    settings = CacheSettings()
    assert (settings.db_path, settings.default_profile) == (Path("cachetronomy.db"), "default")
    assert all(getattr(settings, field) is None for field in [*OF_PROFILES, "serializer"])
    assert read() == {}


def test_every_field_of_a_profile_is_a_setting():
    assert set(OF_PROFILES) == Profile.model_fields.keys() - {"name"}
    assert CacheSettings.model_fields.keys() == FIELDS.keys()


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_each_field_is_read(setting: Callable[..., None], field: str) -> None:
    text, value = FIELDS[field]
    setting(field, text)
    assert getattr(CacheSettings(), field) == value
    assert read() == {field: value}


def test_variables_beat_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("CACHE_TIME_TO_LIVE=5\nCACHE_TAGS=x\n", encoding="utf-8")
    monkeypatch.setenv("CACHE_TIME_TO_LIVE", "6")
    assert read() == {"time_to_live": 6, "tags": ["x"]}
    assert CacheSettings(time_to_live=7).time_to_live == 7


@pytest.mark.parametrize(
    ("text", "tags"),
    [("", []), ("a", ["a"]), ("a,b", ["a", "b"]), (" a , b ", ["a", "b"]), ("[]", [])],
)
def test_tags_are_separated_by_commas_or_a_json_list(
    monkeypatch: pytest.MonkeyPatch, text: str, tags: list[str]
) -> None:
    monkeypatch.setenv("CACHE_TAGS", text)
    assert CacheSettings().tags == tags
    assert read() == {"tags": tags}


def test_a_url_keeps_its_slashes(setting: Callable[..., None]) -> None:
    setting("db_path", "redis://host:6379/0")
    assert CacheSettings().db_path == "redis://host:6379/0"


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("db_path", ""),
        ("default_profile", ""),
        ("time_to_live", "0"),
        ("time_to_live", "-1"),
        ("time_to_live", "soon"),
        ("time_to_live", "1.5"),
        ("time_to_live", ""),
        ("ttl_cleanup_interval", "-1"),
        ("memory_based_eviction", "perhaps"),
        ("free_memory_target", "-1"),
        ("free_memory_target", "nan"),
        ("memory_cleanup_interval", "x"),
        ("max_items_in_memory", "-1"),
        ("max_items_in_memory", "None"),
        ("tags", "a,,b"),
        ("tags", "[1]"),
        ("tags", "[broken"),
        ("tags", '["a", ""]'),
    ],
)
def test_a_bad_value_names_its_variable(
    setting: Callable[..., None], field: str, text: str, db_path: Path
) -> None:
    setting(field, text)
    with pytest.raises(InvalidSettingError, match=f"^CACHE_{field.upper()}: ") as caught:
        CacheSettings()
    if field != "db_path":
        with pytest.raises(InvalidSettingError, match=f"^CACHE_{field.upper()}: "):
            Cachetronaut(db_path)
        assert not db_path.exists()
    assert "pydantic" not in str(caught.value)


def test_all_bad_values_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_TIME_TO_LIVE", "soon")
    monkeypatch.setenv("CACHE_MAX_ITEMS_IN_MEMORY", "-1")
    with pytest.raises(InvalidSettingError, match=r"CACHE_TIME_TO_LIVE.*CACHE_MAX_ITEMS_IN_MEMORY"):
        read()


@pytest.mark.parametrize(("field", "text"), [("db_path", "."), ("serializer", "unknown")])
def test_what_only_opening_can_tell_names_its_variable_too(
    setting: Callable[..., None], field: str, text: str
) -> None:
    setting(field, text)
    with pytest.raises(InvalidSettingError, match=f"^CACHE_{field.upper()}: "):
        Cachetronaut()


@pytest.mark.parametrize("cached", [False, True])
def test_unrelated_variables_do_no_harm(
    monkeypatch: pytest.MonkeyPatch, open_cache: Callable[..., Cachetronaut], cached: bool
) -> None:
    ours = "CACHE_TIME_TO_LIVE=7\n" if cached else ""
    Path(".env").write_text(
        f"DB_PATH=nowhere\nTAGS={{\nSECRET='x\n#\n=\n{ours}CACHE_ROOT=/tmp\nOTHER=1\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("CACHE_DIR", "/nowhere")
    assert read() == ({"time_to_live": 7} if cached else {})
    assert open_cache().time_to_live == (7 if cached else 3600)


@pytest.mark.parametrize("content", [b"NAME=\xff\xfe\n", b"\x00\x00", "directory"])
def test_an_env_file_that_is_not_ours_is_not_read(
    monkeypatch: pytest.MonkeyPatch, content: Any
) -> None:
    if content == "directory":
        Path(".env").mkdir()
    else:
        Path(".env").write_bytes(content)
    assert read() == {}
    monkeypatch.setenv("CACHE_TIME_TO_LIVE", "7")
    assert read() == {"time_to_live": 7}


def test_one_of_ours_in_another_encoding_is_named() -> None:
    Path(".env").write_bytes(b"CACHE_TAGS=\xe4\n")
    with pytest.raises(InvalidSettingError, match=r"\.env.*UTF-8"):
        read()


def test_the_file_is_where_the_setting_says(setting: Callable[..., None], tmp_path: Path) -> None:
    setting("db_path", str(tmp_path / "new" / "set.db"))
    with Cachetronaut() as cache:
        cache.set("key", 1)
    assert (tmp_path / "new" / "set.db").exists()
    with Cachetronaut(tmp_path / "given.db") as cache:
        assert cache.get("key") is None


def test_the_file_is_in_the_current_folder_by_default() -> None:
    with Cachetronaut() as cache:
        assert Path(cache.db_path) == Path("cachetronomy.db").resolve()


def test_the_active_profile_is_named_by_the_setting(
    setting: Callable[..., None], open_cache: Callable[..., Cachetronaut]
) -> None:
    setting("default_profile", "mine")
    assert open_cache().profile.name == "mine"
    assert open_cache(profile="other").profile.name == "other"
    assert open_cache(profile=Profile(name="object")).profile.name == "object"
    assert open_cache(profile=Profile(time_to_live=5)).profile == Profile(
        name="mine", time_to_live=5
    )


def test_the_serializer_is_that_of_the_setting(
    setting: Callable[..., None], open_cache: Callable[..., Cachetronaut]
) -> None:
    setting("serializer", "msgpack")
    cache = open_cache()
    cache.set("key", 1)
    cache.set("preferred", 1, prefer="json")
    assert [entry.fmt for entry in map(cache.key_metadata, ("key", "preferred")) if entry] == [
        "msgpack",
        "json",
    ]


@pytest.mark.parametrize("field", OF_PROFILES)
def test_the_environment_beats_the_stored_profile_in_this_client_only(
    setting: Callable[..., None],
    open_cache: Callable[..., Cachetronaut],
    field: str,
) -> None:
    plain = open_cache(profile="p")
    text, value = FIELDS[field]
    setting(field, text)
    cache = open_cache(profile="p")
    assert getattr(cache, field) == getattr(cache.profile, field) == value
    assert cache.get_profile("p") == plain.profile == Profile(name="p")


@pytest.mark.parametrize("field", OF_PROFILES)
def test_a_profile_object_beats_the_environment_field_by_field(
    setting: Callable[..., None],
    open_cache: Callable[..., Cachetronaut],
    field: str,
) -> None:
    default = getattr(Profile(name="p"), field)
    for name in ("time_to_live", "tags", field):
        setting(name, FIELDS[name][0])
    cache = open_cache(profile=Profile(name="p", **{field: default}))
    assert getattr(cache, field) == default
    for other in {"time_to_live", "tags"} - {field}:
        assert getattr(cache, other) == FIELDS[other][1]
    assert cache.get_profile("p") == Profile(name="p")


def test_an_update_leaves_what_the_environment_set(
    monkeypatch: pytest.MonkeyPatch, open_cache: Callable[..., Cachetronaut]
) -> None:
    monkeypatch.setenv("CACHE_TIME_TO_LIVE", "7")
    cache = open_cache()
    cache.update_active_profile(tags=["x"])
    assert (cache.time_to_live, cache.tags) == (7, ["x"])
    assert cache.get_profile("default") == Profile(name="default", tags=["x"])


@pytest.mark.parametrize("profile", ["p", Profile(name="p")], ids=["name", "object"])
def test_a_profile_that_is_set_later_beats_the_environment(
    monkeypatch: pytest.MonkeyPatch, open_cache: Callable[..., Cachetronaut], profile: Any
) -> None:
    monkeypatch.setenv("CACHE_TIME_TO_LIVE", "7")
    cache = open_cache()
    cache.profile = profile
    assert cache.profile == Profile(name="p")


def test_a_cap_that_is_given_beats_all(
    monkeypatch: pytest.MonkeyPatch, open_cache: Callable[..., Cachetronaut]
) -> None:
    monkeypatch.setenv("CACHE_MAX_ITEMS_IN_MEMORY", "5")
    cap = {"max_items_in_memory": 2}
    cache = open_cache(profile=Profile(name="p", max_items_in_memory=4), **cap)
    assert cache.max_items_in_memory == 2
    assert open_cache(profile=Profile(name="p", max_items_in_memory=4)).max_items_in_memory == 4
    assert open_cache().max_items_in_memory == 5


@pytest.mark.parametrize(
    "text", [b"# cache_dir of the caf\xe9\n", b"REDIS_CACHE_URL=\xff\nNAME=\xe9\n", b"\xff\xfe"]
)
def test_a_file_of_others_in_another_encoding_is_none_of_our_business(
    db_path: Path, text: bytes
) -> None:
    Path(".env").write_bytes(text)
    Cachetronaut(db_path).close()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders on this system")
def test_a_pipe_is_not_waited_for(db_path: Path) -> None:
    os.mkfifo(".env")
    Cachetronaut(db_path).close()
