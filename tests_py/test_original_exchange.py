"""The original package reads what is written here, and shares a file with us while both run."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from cachetronomy import Cachetronaut, Profile
from conftest import PATIENCE
from originals import VERSIONS, Original, OriginalChild, same
from originals import original as make_ready
from originals_programs import JSON_VALUES, PACKED_VALUES, READ, SERVE

pytestmark = pytest.mark.timeout(900)  # The first run of all makes the environments.

MISSING: Final = object()
TAGS = ["t", "\u00e9 'tag'"]


@pytest.fixture(params=VERSIONS)
def original(request: pytest.FixtureRequest) -> Original:
    return make_ready(request.param)


def fill(cache: Cachetronaut) -> dict[str, Any]:
    """Store plain values, each with its own metadata; what has to be read."""
    values = {f"json {name}": value for name, value in eval(JSON_VALUES).items()}
    values |= eval(PACKED_VALUES)
    del values["int keys"]  # The defaults of `msgpack` refuse them: they are no plain row.
    for key, value in values.items():
        cache.set(key, value, ttl=3000, tags=TAGS, version=3)
    packed = {f"packed {name}": value for name, value in eval(JSON_VALUES).items()}
    for key, value in packed.items():
        cache.set(key, value, prefer="msgpack")
    cache.set("endless", [1], ttl=math.inf)
    return values | packed | {"endless": [1]}


@pytest.mark.parametrize("beside", ["plain", "typed"])
def test_the_original_serves_a_file_written_here(
    original: Original,
    beside: str,
    db_path: Path,
    tmp_path: Path,
    open_cache: Callable[..., Cachetronaut],
    query: Callable[..., Any],
) -> None:
    cache = Cachetronaut(db_path)
    cache.profile = Profile(name="ours", time_to_live=123, memory_based_eviction=False, tags=["o"])
    values = fill(cache)
    if beside == "typed":
        cache.set("typed", {(1, 2)}, tags=["o"])
    cache.evict("endless")
    for _ in range(3):
        assert cache.get("endless") == [1]
    expected = {
        "keys": sorted(cache.store_keys()),
        "metadata": {key: cache.key_metadata(key) for key in values},
        "access": [row.model_dump(mode="json") for row in cache.access_logs()],
        "evictions": [row.model_dump(mode="json") for row in cache.eviction_logs()],
        "profiles": {one.name: one.model_dump() for one in cache.list_profiles()},
    }
    cache.close()
    assert set(expected["keys"]) == values.keys() | ({"typed"} if beside == "typed" else set())
    assert len(expected["access"]) == len(expected["evictions"]) == 1
    assert expected["profiles"].keys() == {"default", "ours"}

    found = json.loads(original.run(tmp_path, READ, db_path, json.dumps(list(values))))
    for key, value in values.items():
        # The memory of some versions takes a stored None for a miss; the row is there all the same.
        for way in ("values", "gets"):
            read = eval(found[way][key], {"nan": math.nan, "inf": math.inf})
            assert same(read, value), (key, way)
        theirs, ours = found["metadata"][key], expected["metadata"][key].model_dump(mode="json")
        del theirs["fmt"], ours["fmt"]  # The original's query leaves it out.
        assert theirs == ours
    assert sorted(found["keys"]) == found["all metadata"] == expected["keys"]
    assert found["access"] == expected["access"]
    assert found["evictions"] == expected["evictions"]
    assert {one["name"]: one for one in found["profiles"]} == expected["profiles"]
    assert found["time_to_live"] == 123
    if beside == "typed":
        assert "Unknown serialization format 'cachetronomy'" in found["typed"]
        # Only 0.2 and later decode all rows at once.
        assert (found["items"] is None) == (original.line < (0, 2))
    else:
        assert (found["typed"], found["items"]) == (None, None)

    again = open_cache()
    assert sorted(again.store_keys()) == expected["keys"]
    assert all(same(again.get(key, default=MISSING), value) for key, value in values.items())
    again.close()
    assert query(db_path, "PRAGMA integrity_check") == [["ok"]]


@pytest.fixture
def serve(tmp_path: Path, db_path: Path) -> Iterator[Callable[[Original], OriginalChild]]:
    """Start an original on the test's file, beside us."""
    started: list[OriginalChild] = []

    def start(original: Original) -> OriginalChild:
        started.append(original.child(tmp_path, SERVE, db_path))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait(PATIENCE)
        for pipe in (one.process.stdin, one.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_each_sees_at_once_what_the_other_writes(
    original: Original,
    first: str,
    db_path: Path,
    serve: Callable[..., OriginalChild],
    query: Callable[..., Any],
) -> None:
    if first == "ours":
        Cachetronaut(db_path).close()
    theirs = serve(original)
    assert theirs.ask("keys") == []
    with Cachetronaut(db_path) as ours:
        for turn in range(20):
            ours.set("shared", {"by": "ours", "turn": turn}, tags=["t"])
            assert theirs.ask("get", "shared") == {"by": "ours", "turn": turn}
            assert ours.get("shared") == {"by": "ours", "turn": turn}
            assert "shared" in ours.memory_keys()
            theirs.ask("set", "shared", ["theirs", turn], ["t"])
            assert ours.get("shared") == ["theirs", turn]
            assert ours.key_metadata("shared").tags == ["t"]
            assert theirs.ask("get", "shared") == ["theirs", turn]
        theirs.ask("delete", "shared")
        assert ours.get("shared", default=MISSING) is MISSING
        theirs.ask("set", "shared", 1, [])
        assert ours.get("shared") == 1
        assert ours.delete("shared") is True
        assert theirs.ask("get", "shared") is None
        assert theirs.ask("keys") == ours.store_keys() == []


def test_tags_are_cleared_over_the_entries_of_both(
    original: Original, db_path: Path, serve: Callable[..., OriginalChild]
) -> None:
    theirs = serve(original)
    with Cachetronaut(db_path) as ours:
        for clear in (
            lambda: theirs.ask("clear tags", ["t"]),
            lambda: ours.clear_by_tags(["t"]),
        ):
            ours.set("ours", 1, tags=["t", "u"])
            theirs.ask("set", "theirs", 2, ["t"])
            ours.set("ours, other tag", 3, tags=["u"])
            # A tag that the original replaces is gone from the index too.
            ours.set("retagged", 4, tags=["t"])
            theirs.ask("set", "retagged", 4, ["u"])
            assert ours.get_many(["ours", "theirs"]) == {"ours": 1, "theirs": 2}
            clear()
            assert ours.get("ours", default=MISSING) is MISSING
            assert ours.get("theirs", default=MISSING) is MISSING
            assert theirs.ask("get", "ours") is theirs.ask("get", "theirs") is None
            assert (
                theirs.ask("keys") == sorted(ours.store_keys()) == ["ours, other tag", "retagged"]
            )
        assert sorted(ours.clear_by_tags(["u"], exact_match=True)) == [
            "ours, other tag",
            "retagged",
        ]


def test_nobody_meets_a_locked_or_damaged_file_when_both_write_at_once(
    original: Original,
    db_path: Path,
    serve: Callable[..., OriginalChild],
    query: Callable[..., Any],
) -> None:
    theirs = serve(original)
    assert theirs.ask("keys") == []
    with Cachetronaut(db_path) as ours:
        theirs.tell("burst", "theirs", 200)
        for number in range(200):
            ours.set(f"ours {number}", number, tags=["burst"])
            ours.delete(f"ours {number - 10}")
            ours.get(f"theirs {number}")
        assert theirs.hear() == "done"
        left = [f"{who} {number}" for who in ("ours", "theirs") for number in range(190, 200)]
        assert theirs.ask("keys") == sorted(ours.store_keys()) == left
        assert all(ours.get(key) == int(key.split()[1]) for key in left)
        assert sorted(ours.clear_by_tags(["burst"])) == left
        assert theirs.ask("keys") == []
        assert ours.check() == []
    theirs.ask("close")
    assert theirs.end() == 0
    assert query(db_path, "PRAGMA integrity_check") == [["ok"]]
