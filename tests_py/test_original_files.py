"""Files of the original package are served here: every value, log, profile and setting."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import pytest
from cachetronomy import Cachetronaut
from cachetronomy._core import ManualClock
from originals import VERSIONS, Original, same
from originals import original as make_ready
from originals_programs import JSON_VALUES, LENIENT_VALUES, PACKED_VALUES, PROFILE, WRITE
from pydantic import BaseModel

pytestmark = pytest.mark.timeout(900)  # The first run of all makes the environments.

MISSING: Final = object()
PAST = {"past", "past, no fraction"}  # the keys whose time was over
Rows = dict[str, list[list[Any]]]


@pytest.fixture(params=VERSIONS)
def original(request: pytest.FixtureRequest) -> Original:
    return make_ready(request.param)


@pytest.fixture
def write(tmp_path: Path, db_path: Path) -> Callable[[Original, str], Rows]:
    """Have an original write the test's file; what it left in each table."""

    def run(original: Original, ending: str) -> Rows:
        sources = json.dumps([JSON_VALUES, PACKED_VALUES, LENIENT_VALUES])
        output = original.run(tmp_path, WRITE, db_path, ending, sources, json.dumps(PROFILE))
        rows: Rows = json.loads(output)
        # Otherwise nothing is shown: the rows are all there, under the labels they should have.
        assert {row[0] for row in rows["cache"]} == expected_values().keys() | PAST
        formats = {row[0]: row[2] for row in rows["cache"]}
        fast = "orjson" in original.extras
        assert formats["None text"] == formats["model"] == ("orjson" if fast else "msgpack")
        assert formats["lenient not finite"] == ("orjson" if fast else "json")
        assert formats["unasked bytes"] == "msgpack"
        assert min(len(rows[table]) for table in ("access_log", "eviction_log", "profiles")) > 1
        assert len(rows["cli_config"]) == (original.line >= (0, 2))
        return rows

    return run


def expected_values() -> dict[str, Any]:
    """Name every live entry that the program writes, with what has to come back."""
    values = {
        f"{prefer} {name}": value
        for prefer in ("json", "orjson", "msgpack", None)
        for name, value in eval(JSON_VALUES).items()
    }
    del values["json yes"]
    values |= {f"packed {name}": value for name, value in eval(PACKED_VALUES).items()}
    values |= {f"lenient {name}": value for name, value in eval(LENIENT_VALUES).items()}
    infinity = float("inf")
    return values | {
        "unasked bytes": b"\xff\x00",
        "json not finite": [infinity - infinity, infinity, -infinity, 2**80],
        "model": {"x": 1, "name": "\u00e9", "labels": ["a"]},
        "versioned": {"x": 5},
        "tuple": [1, [2, 3]],
        "looks typed": [None, {"__type__": "set", "items": [1]}],
        "": "the empty key",
        "k\u00e9y \u6771 \U0001f680": 1,
        "tagged": 1,
        "tagged too": 1,
        "tagged otherwise": 1,
        "in the other profile": 1,
        "far, no fraction": 1,
        "near": 1,
    }


def differences(cache: Cachetronaut, rows: Rows) -> list[str]:
    """Say where the client serves something else than what stands in the rows."""
    found = []

    def expect(what: str, ours: Any, theirs: Any) -> None:
        if not same(ours, theirs):
            found.append(f"{what}: {ours!r}, not {theirs!r}")

    # Logs first: what is read here is counted too.
    access = [
        [row.key, row.access_count, row.last_accessed, row.last_accessed_by_profile]
        for row in cache.access_logs()
    ]
    expect("access", sorted(access), timed(rows["access_log"], 2))
    for key, *rest in timed(rows["access_log"], 2):
        one = cache.key_access_logs(key)
        ours = [one.access_count, one.last_accessed, one.last_accessed_by_profile]
        expect(f"access of {key}", ours, rest)
    columns = attrgetter(
        "id", "key", "evicted_at", "reason", "last_access_count", "evicted_by_profile"
    )
    logs = cache.eviction_logs(limit=None)
    evictions = [list(columns(row)) for row in logs if row.key not in PAST]
    expect("evictions", sorted(evictions), timed(rows["eviction_log"], 2))
    for row in rows["profiles"]:
        theirs = dict(zip(PROFILE, row, strict=True))
        theirs["memory_based_eviction"] = bool(theirs["memory_based_eviction"])
        theirs["tags"] = json.loads(theirs["tags"])
        profile = cache.get_profile(row[0])
        expect(f"profile {row[0]}", profile and profile.model_dump(), theirs)
    expect(
        "profiles",
        sorted(profile.name for profile in cache.list_profiles()),
        [row[0] for row in rows["profiles"]],
    )
    live = {row[0]: row for row in timed(rows["cache"], 3) if row[0] not in PAST}
    expect("keys", sorted(cache.store_keys()), sorted(live))
    for key, (_, _, fmt, expire_at, tags, version, profile) in live.items():
        meta = cache.key_metadata(key)
        ours = meta and [
            meta.fmt,
            meta.expire_at,
            meta.tags,
            meta.version,
            meta.saved_by_profile,
        ]
        expect(f"metadata of {key!r}", ours, [fmt, expire_at, json.loads(tags), version, profile])
    expect("all metadata", sorted(meta.key for meta in cache.store_metadata()), sorted(live))
    for key, value in expected_values().items():
        expect(f"value of {key!r}", cache.get(key, default=MISSING), value)
        expect(f"value of {key!r} in memory", cache.get(key, default=MISSING), value)
    many = cache.get_many([*live, *PAST])
    items = {entry.key: entry.data for entry in cache.items()}
    for key, value in expected_values().items():
        expect(f"value of {key!r} among many", many.get(key, MISSING), value)
        expect(f"value of {key!r} among items", items.get(key, MISSING), value)
    for key in sorted(PAST):
        served = [
            cache.get(key, default=MISSING),
            *(one.get(key, MISSING) for one in (many, items)),
        ]
        expect(f"{key!r} is served", all(value is MISSING for value in served), True)
    return found


def timed(rows: list[list[Any]], column: int) -> list[list[Any]]:
    """Read the text of one column as moments."""
    return [
        [*row[:column], datetime.fromisoformat(row[column]), *row[column + 1 :]] for row in rows
    ]


@pytest.mark.parametrize("ending", ["closed", "killed"])
def test_a_file_of_the_original_is_served_whole(
    original: Original,
    ending: str,
    write: Callable[..., Rows],
    db_path: Path,
    open_cache: Callable[..., Cachetronaut],
    query: Callable[..., Any],
) -> None:
    rows = write(original, ending)
    if ending == "killed":  # 0.4 leaves its log behind at times even when it was closed.
        assert db_path.with_name(db_path.name + "-wal").stat().st_size > 0
    cache = open_cache(_clock=ManualClock())
    assert differences(cache, rows) == []
    cache.close()
    assert query(db_path, "PRAGMA integrity_check") == [["ok"]]
    if rows["cli_config"]:
        assert query(db_path, "SELECT * FROM cli_config") == rows["cli_config"]
    columns = "key, data, fmt, expire_at, tags, version, saved_by_profile"
    kept = query(db_path, f"SELECT {columns} FROM cache ORDER BY key")
    assert [row for row in kept if row[0] not in PAST] == [
        row for row in rows["cache"] if row[0] not in PAST
    ]


def test_an_entry_of_the_original_lives_to_its_end_and_no_longer(
    original: Original,
    write: Callable[..., Rows],
    open_cache: Callable[..., Cachetronaut],
) -> None:
    rows = write(original, "closed")
    end = next(row[3] for row in timed(rows["cache"], 3) if row[0] == "near")
    before = datetime.now(timezone.utc)
    clock = ManualClock()
    after = datetime.now(timezone.utc)
    cache, other = open_cache(_clock=clock), open_cache(_clock=clock)
    millisecond = timedelta(milliseconds=1)
    clock.advance((end - after - millisecond).total_seconds())
    assert cache.get("near") == 1
    clock.advance((after - before + 2 * millisecond).total_seconds())
    for client in (cache, other):  # It has it in memory; it has only the file.
        assert client.get("near", default=MISSING) is MISSING
        assert "near" not in client.store_keys()
    assert cache.get("tagged") == 1


def test_tags_of_the_original_are_cleared(
    original: Original,
    write: Callable[..., Rows],
    open_cache: Callable[..., Cachetronaut],
) -> None:
    write(original, "closed")
    cache = open_cache(_clock=ManualClock())
    before = set(cache.store_keys())
    assert cache.get("tagged") == 1
    assert sorted(cache.clear_by_tags(["it's", "\u00e9"], exact_match=True)) == [
        "k\u00e9y \u6771 \U0001f680"
    ]
    assert cache.clear_by_tags(["a"], exact_match=True) == []
    removed = set(cache.clear_by_tags(["b", "no such"])) - PAST
    assert removed == {"tagged", "tagged too", "far, no fraction", "near"}
    assert cache.get("tagged", default=MISSING) is MISSING
    assert set(cache.store_keys()) == before - removed - {"k\u00e9y \u6771 \U0001f680"}
    kept = {meta.key: meta.saved_by_profile for meta in cache.store_metadata()}
    ours = {key for key, profile in kept.items() if profile == PROFILE["name"]}
    assert "in the other profile" in ours
    assert set(cache.clear_by_profile(str(PROFILE["name"]))) == ours
    assert cache.get("tagged otherwise") == 1


def test_a_profile_of_the_original_is_taken_by_its_name(
    original: Original,
    write: Callable[..., Rows],
    open_cache: Callable[..., Cachetronaut],
) -> None:
    write(original, "closed")
    cache = open_cache(_clock=ManualClock(), profile=PROFILE["name"])
    assert cache.profile.model_dump() == PROFILE
    cache.set("new", 1)
    meta = cache.key_metadata("new")
    assert (meta.tags, meta.saved_by_profile) == (PROFILE["tags"], PROFILE["name"])
    left = meta.expire_at - datetime.now(timezone.utc)
    assert timedelta(0) < left <= timedelta(seconds=77)


def test_a_model_of_the_original_comes_back_as_an_instance(
    original: Original, write: Callable[..., Rows], open_cache: Callable[..., Cachetronaut]
) -> None:
    class Point(BaseModel):
        x: int
        name: str
        labels: list[str]

    write(original, "closed")
    cache = open_cache(_clock=ManualClock())
    assert cache.get("model", model=Point) == Point(x=1, name="\u00e9", labels=["a"])
    assert cache.get("versioned", version=7) == {"x": 5}
    assert cache.get("versioned", version=1, default=MISSING) is MISSING


CHANGES = {
    "value of 'json text'": "UPDATE cache SET data = CAST('\"X' || substr(data, 3) AS BLOB) "
    "WHERE key = 'json text'",
    "value of 'packed bytes'": "UPDATE cache SET data = X'C40100' WHERE key = 'packed bytes'",
    "metadata of 'tagged'": "UPDATE cache SET tags = '[\"a\", \"x\"]' WHERE key = 'tagged'",
    "metadata of ''": "UPDATE cache SET version = 2 WHERE key = ''",
    "metadata of 'tuple'": "UPDATE cache SET expire_at = '2999-01-01T00:00:00+00:00' "
    "WHERE key = 'tuple'",
    "metadata of 'model'": "UPDATE cache SET saved_by_profile = 'x' WHERE key = 'model'",
    "keys": "DELETE FROM cache WHERE key = 'near'",
    "'past' is served": "UPDATE cache SET expire_at = '2999-01-01T00:00:00+00:00' "
    "WHERE key = 'past'",
    "access of logged": "UPDATE access_log SET access_count = 2 WHERE key = 'logged'",
    "evictions": "UPDATE eviction_log SET reason = 'x' WHERE id = 1",
    "profile default": "UPDATE profiles SET max_items_in_memory = 99 WHERE name = 'default'",
    "profiles": "DELETE FROM profiles WHERE name = 'other'",
}


def test_the_comparison_notices_each_kind_of_change(
    write: Callable[..., Rows],
    db_path: Path,
    tmp_path: Path,
    open_cache: Callable[..., Cachetronaut],
    run_python: Callable[..., Any],
) -> None:
    rows = write(make_ready("0.1.5"), "closed")
    changed = [tmp_path / f"{number}.db" for number in range(len(CHANGES))]
    for path in changed:
        shutil.copy(db_path, path)
    code = (
        "import json, sqlite3, sys\n"
        "for path, sql in zip(*map(json.loads, sys.argv[1:])):\n"
        "    connection = sqlite3.connect(path)\n"
        "    assert connection.execute(sql).rowcount == 1, sql\n"
        "    connection.commit()\n"
        "    connection.close()\n"
    )
    run_python(code, json.dumps(list(map(str, changed))), json.dumps(list(CHANGES.values())))
    for path, what in zip(changed, CHANGES, strict=True):
        found = differences(open_cache(path, _clock=ManualClock()), rows)
        assert any(line.startswith(what) for line in found), (what, found)
