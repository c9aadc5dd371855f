"""Compares hits, reads and writes with the peers, side by side in one run.

The machine's speed drifts, so every figure is a ratio of two measurements taken one after the
other, many times; printed are the medians. Peers that are not installed are left out.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import statistics
import tempfile
import timeit
from pathlib import Path
from typing import Any

import cachetronomy

ROUNDS = 31
VALUE = {
    "id": 42,
    "name": "Ada Lovelace",
    "email": "ada@example.org",
    "tags": ["analyst", "engine", "notes"],
    "score": 0.25,
    "active": True,
}


def peer(name: str) -> Any:  # noqa: ANN401 - somebody else's module
    """Return a peer's module, or `None` where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def nanoseconds(statement: str, names: dict[str, Any], number: int) -> float:
    """Time one statement."""
    return timeit.timeit(statement, globals=names, number=number) / number * 1e9


def compare(title: str, ours: str, theirs: dict[str, str], names: dict[str, Any], n: int) -> None:
    """Print our time, each peer's time, and the median of the ratios."""
    times: dict[str, list[float]] = {label: [] for label in ("cachetronomy", *theirs)}
    for _ in range(ROUNDS):
        times["cachetronomy"].append(nanoseconds(ours, names, n))
        for label, statement in theirs.items():
            times[label].append(nanoseconds(statement, names, n))
    mine = statistics.median(times["cachetronomy"])
    print(f"{title:28} {'cachetronomy':24} {mine:10,.0f} ns")
    for label in theirs:
        pairs = zip(times["cachetronomy"], times[label], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        theirs_ns = statistics.median(times[label])
        print(f"{'':28} {label:24} {theirs_ns:10,.0f} ns   ours / theirs {ratio:5.2f}")


def identity(x: object) -> object:
    """Return the argument: the cheapest function there is."""
    return x


def method(self: object, x: object) -> object:  # noqa: ARG001 - as methods are
    """Return the argument, for an object."""
    return x


class Decorated:
    """One instance: a method for each of the decorators, set on the class below."""


def hits(cache: cachetronomy.Cachetronaut) -> None:
    """Compare hits in memory."""
    names: dict[str, Any] = {
        "ours": cache(identity),
        "lru": functools.lru_cache(maxsize=128)(identity),
        "obj": Decorated(),
        "get": cache.get,
        "dict_get": {"key": VALUE}.get,
    }
    # The others tell an object by its identity. We would by its value, or refuse it.
    methods: dict[str, Any] = {
        "ours": cache(ignore=("self",))(method),
        "lru": functools.lru_cache(maxsize=128)(method),
    }
    cache.set("key", VALUE)
    decorated = {"functools.lru_cache": "lru({0})"}
    gets = {"dict.get": "dict_get('key')"}
    cachebox = peer("cachebox")
    if cachebox:
        names["box"] = cachebox.cached(cachebox.TTLCache(1_000, 3_600))(identity)
        methods["box"] = cachebox.cached(cachebox.TTLCache(1_000, 3_600))(method)
        ttl_cache = cachebox.TTLCache(1_000, 3_600)
        ttl_cache["key"] = VALUE
        names["box_get"] = ttl_cache.get
        decorated["cachebox.cached"] = "box({0})"
        gets["cachebox.TTLCache.get"] = "box_get('key')"
    for name, one in methods.items():
        setattr(Decorated, name, one)
    for what, owner in (("function", ""), ("method", "obj.")):
        for kind, argument in (("int", "42"), ("str", "'an argument'")):
            ours = f"{owner}ours({argument})"
            theirs = {label: owner + call.format(argument) for label, call in decorated.items()}
            for call in (ours, *theirs.values()):
                eval(call, names)  # noqa: S307 - our own text: the first call computes
            compare(f"decorated {what}, {kind}", ours, theirs, names, 20_000)
    compare("get, in memory", "get('key')", gets, names, 100_000)


def store(cache: cachetronomy.Cachetronaut, folder: Path) -> None:
    """Compare acknowledged writes, and reads of the file."""
    numbers = map(str, itertools.count())
    names: dict[str, Any] = {
        "set": cache.set,
        "get": cache.get,
        "value": VALUE,
        "next_key": functools.partial(next, numbers),
        "stored": functools.partial(next, itertools.cycle(map(str, range(2_000)))),
    }
    writes: dict[str, str] = {}
    reads: dict[str, str] = {}
    diskcache = peer("diskcache")
    if diskcache:
        disk = diskcache.Cache(str(folder / "diskcache"))
        names["disk_set"], names["disk_get"] = disk.set, disk.get
        for key in range(2_000):
            disk.set(str(key), VALUE, expire=3_600)
        writes["diskcache.Cache.set"] = "disk_set(next_key(), value, expire=3600)"
        reads["diskcache.Cache.get"] = "disk_get(stored())"
    cache.set_many({str(key): VALUE for key in range(2_000)})
    compare("set, acknowledged", "set(next_key(), value)", writes, names, 100)
    compare("get, from the file", "get(stored())", reads, names, 1_000)


def main() -> None:
    """Run everything."""
    print(f"cachetronomy {cachetronomy.__version__}; medians of {ROUNDS} rounds")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with cachetronomy.Cachetronaut(folder / "hits.db", max_items_in_memory=1_000) as cache:
            hits(cache)
        with cachetronomy.Cachetronaut(folder / "store.db", max_items_in_memory=0) as cache:
            store(cache, folder)


if __name__ == "__main__":
    main()
