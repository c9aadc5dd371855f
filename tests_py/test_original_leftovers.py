"""Rows as versions of the original have left them, that a strict reader would refuse."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from cachetronomy import Cachetronaut
from originals import same

MISSING: Final = object()

# Under the name of what is special: label, data as SQLite stores it (bytes as a BLOB, str as
# TEXT), and the value.
LEFTOVERS: dict[str, tuple[str, bytes | str, Any]] = {
    "not finite": ("orjson", b"[NaN, Infinity, -Infinity]", [math.nan, math.inf, -math.inf]),
    "not finite in a map": ("orjson", b'{"a": {"b": NaN}}', {"a": {"b": math.nan}}),
    "NaN alone": ("orjson", b"NaN", math.nan),
    "huge": ("orjson", str(2**80).encode(), 2**80),
    "huge negative": ("orjson", b'{"n": -%d}' % 2**70, {"n": -(2**70)}),
    "lone surrogate": ("orjson", b'"\\ud800"', "\ud800"),
    "beyond a float": ("orjson", b"[1e999, -1e999]", [math.inf, -math.inf]),
    "deep": ("orjson", b"[" * 300 + b"NaN" + b"]" * 300, None),
    "text": ("orjson", '{"\u00e9": [1, "\u6771"]}', {"\u00e9": [1, "\u6771"]}),
    "text, not finite": ("orjson", "[NaN]", [math.nan]),
    "text under json": ("json", '["\U0001f680", null]', ["\U0001f680", None]),
    "not finite under json": ("json", b"[NaN, -Infinity]", [math.nan, -math.inf]),
    "packed as text": ("msgpack", b"\x93\x01\x02\xc3".decode("latin-1"), [1, 2, True]),
    "packed text as text": (
        "msgpack",
        (b"\xaa" + "\u00e9\u6771\U0001f680!".encode()).decode("latin-1"),
        "\u00e9\u6771\U0001f680!",
    ),
    "packed bytes as text": ("msgpack", b"\xc4\x04\x80\xff\x7f\x01".decode("latin-1"), None),
    "packed zeros as text": ("msgpack", b"\x92\x00\xc4\x02\x00\x00".decode("latin-1"), None),
    "packed ASCII as text": ("msgpack", "\x81\x01\x05", {1: 5}),
}
DEEP: Any = math.nan
for _ in range(300):
    DEEP = [DEEP]
VALUES = {name: value for name, (_, _, value) in LEFTOVERS.items()} | {
    "deep": DEEP,
    "packed bytes as text": b"\x80\xff\x7f\x01",
    "packed zeros as text": [0, b"\0\0"],
}


INSERT = """
import json, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
for key, fmt, kind, data in json.loads(sys.argv[2]):
    data = bytes.fromhex(data) if kind == "blob" else data
    connection.execute(
        "INSERT INTO cache (key, data, fmt, expire_at, tags, version, saved_by_profile) "
        "VALUES (?, ?, ?, '2999-01-01T00:00:00+00:00', '[\\"t\\"]', 1, 'default')",
        (key, data, fmt),
    )
connection.commit()
print(json.dumps(connection.execute("SELECT key, typeof(data) FROM cache").fetchall()))
connection.close()
"""


@pytest.fixture
def leftovers(run_python: Callable[..., Any], db_path: Path) -> None:
    """Put the rows into the test's file, beside one of ours."""
    with Cachetronaut(db_path) as cache:
        cache.set("neighbour", 1, ttl=math.inf, tags=["t"])
    rows = [
        (name, fmt, "text", data) if isinstance(data, str) else (name, fmt, "blob", data.hex())
        for name, (fmt, data, _) in LEFTOVERS.items()
    ]
    kinds = dict(json.loads(run_python(INSERT, db_path, json.dumps(rows)).stdout))
    assert kinds == {name: kind for name, _, kind, _ in rows} | {"neighbour": "blob"}


@pytest.mark.usefixtures("leftovers")
@pytest.mark.parametrize("name", LEFTOVERS)
def test_a_leftover_is_served(name: str, cache: Cachetronaut) -> None:
    assert same(cache.get(name, default=MISSING), VALUES[name])
    assert same(cache.get(name, default=MISSING), VALUES[name]), "from memory"
    cache.evict(name)
    assert same(cache.get_many([name]).get(name, MISSING), VALUES[name])
    assert cache.get("neighbour") == 1


@pytest.mark.usefixtures("leftovers")
def test_leftovers_are_among_keys_items_and_metadata(cache: Cachetronaut) -> None:
    names = LEFTOVERS.keys() | {"neighbour"}
    assert set(cache.store_keys()) == {meta.key for meta in cache.store_metadata()} == names
    items = {entry.key: entry for entry in cache.items()}
    assert items.keys() == names
    for name, (fmt, _, _) in LEFTOVERS.items():
        assert same(items[name].data, VALUES[name]), name
        assert items[name].fmt == fmt
        assert cache.key_metadata(name).tags == ["t"]
    assert cache.check() == []


@pytest.mark.usefixtures("leftovers")
def test_leftovers_are_cleared_by_their_tag(cache: Cachetronaut) -> None:
    assert set(cache.clear_by_tags(["t"])) == LEFTOVERS.keys() | {"neighbour"}
    assert cache.store_keys() == []
