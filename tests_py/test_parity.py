"""The API holds what the project's own table says, and all that the original package had."""

from __future__ import annotations

import importlib.util
import inspect
import json
from collections.abc import Callable
from typing import Any

import pytest
from api_table import ALIASES, ANY, API, DECORATED, DECORATOR, PRESENT, Members
from cachetronomy import Cachetronaut
from originals import original
from originals_programs import DESCRIBE, DUMP

Described = dict[str, Any]
program: dict[str, Any] = {}
exec(DESCRIBE, program)
describe: Callable[..., Described] = program["describe"]

# What the original has and this package has not, or has otherwise, each with the reason. An
# address covers all that lies beneath it.
AWAITED = "this client is not awaitable: `AsyncCachetronaut` is"
INTERNAL = "a part of how the original was built; the core does its work"
CLIENT = "cachetronomy.core.cache.cachetronaut.Cachetronaut"
BASE = "cachetronomy.core.cache.cachetronomer.Cachetronomer"
ASYNC_CLIENT = "cachetronomy.core.cache.cachetronaut_async.AsyncCachetronaut"
STATELESS = "the base only names what a client has to have; it holds nothing"
ALL_ROWS = "all of them, as in 0.1; 0.4 leaves out what comes after the first hundred"
DIFFERENCES = {
    "cachetronomy.__main__": "the command line comes with a later issue",
    f"{CLIENT}(awaited)": AWAITED,
    "cachetronomy.core.store.sqlite.synchronous.SQLiteStore(awaited)": AWAITED,
    "cachetronomy.core.eviction.memory.MemoryEvictionThread(awaited)": AWAITED,
    f"{CLIENT}(max_items_in_memory=)": "left out, the profile's cap holds; None means no cap",
    f"{CLIENT}.items(limit=)": ALL_ROWS,
    f"{CLIENT}.access_logs(limit=)": ALL_ROWS,
    f"{CLIENT}.eviction_logs(limit=)": "a thousand, as in 0.1",
    f"{ASYNC_CLIENT}.store_stats(limit=)": "all of them, as with the sync client",
    f"{ASYNC_CLIENT}.clear_by_profile(profile)": "by position it is called as with the sync client",
    f"{CLIENT}.set_many(version=)": "left out, the class of each value may name its version",
    f"{BASE}(store)": STATELESS,
    f"{BASE}(max_items_in_memory)": STATELESS,
    f"{BASE}(default_time_to_live)": STATELESS,
    f"{BASE}(default_tags)": STATELESS,
    f"{BASE}.store_keys(tags)": "no client of the original takes it",
    f"{BASE}.store_keys(exact_match)": "no client of the original takes it",
    "cachetronomy.core.serialization.serialize(sort_keys=)": "left out, maps keep their order",
    "cachetronomy.core.serialization.serialize(ensure_ascii=)": "left out, the encoder decides",
    "cachetronomy.core.access_frequency.AccessFrequencyTracker": INTERNAL,
    "cachetronomy.core.store.memory.MemoryCache": INTERNAL,
    "cachetronomy.core.store.protocols": INTERNAL,
    "cachetronomy.core.store.utils": INTERNAL,
    "cachetronomy.core.types.schemas.CacheEntry.check_tags": INTERNAL,
    "cachetronomy.core.types.schemas.CacheMetadata.check_tags": INTERNAL,
    "cachetronomy.core.types.schemas.T": INTERNAL,
    **{
        f"cachetronomy.core.cache.{module}.{name}": INTERNAL
        for module in ("cachetronaut", "cachetronomer")
        for name in "PR"
    },
}


@pytest.fixture(scope="module")
def missing(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, str]]:
    """Compare with a version; what is not here, by address, with what is there."""

    def compare(version: str) -> dict[str, str]:
        folder = tmp_path_factory.mktemp("original")
        theirs = json.loads(original(version).run(folder, DUMP.replace("#DESCRIBE", DESCRIBE)))
        assert "cachetronomy.core.serialization" in theirs
        return dict(
            found for module, names in theirs.items() for found in _missing_of_module(module, names)
        )

    return compare


def _missing_of_module(path: str, names: dict[str, Described]) -> list[tuple[str, str]]:
    try:
        spec = importlib.util.find_spec(path)
    except ModuleNotFoundError:  # A package above it is missing.
        spec = None
    if spec is None:
        return [(path, "a module")]
    found = []
    module = importlib.import_module(path) if names else None
    for name, theirs in names.items():
        address = f"{path}.{name}"
        try:
            ours = getattr(module, name)
        except AttributeError:
            found.append((address, theirs["kind"]))
            continue
        if theirs["parameters"] is not None:
            found += misfits(address, parameters(ours), theirs["parameters"])
        if theirs["awaited"] and not describe(ours)["awaited"]:
            found.append((f"{address}(awaited)", "methods that can be awaited"))
        for member, parameters_of in theirs["members"].items():
            at = f"{address}.{member}"
            if not hasattr(ours, member):
                found.append((at, "a member"))
            elif parameters_of is not None and not member.startswith("__"):
                found += misfits(at, parameters(getattr(ours, member)), parameters_of)
    return found


def parameters(thing: Any) -> list[list[Any]] | None:
    """List name, kind and text of the default of each parameter, as the program there does."""
    return describe(thing)["parameters"]


def misfits(
    address: str, ours: list[list[Any]] | None, wanted: list[list[Any]]
) -> list[tuple[str, str]]:
    """Say which wanted parameters are not taken by name, or position, or with the default."""
    if ours is None:
        return [(f"{address}(...)", "a signature that can be read")]
    found = []
    by_name = {name: (kind, default) for name, kind, default in ours}
    places = [name for name, kind, _ in ours if kind in {"POSITIONAL_ONLY", POSITIONAL}]
    position = 0
    for name, kind, default in wanted:
        if kind in {"VAR_POSITIONAL", "VAR_KEYWORD"}:
            if kind not in {kind for _, kind, _ in ours}:
                found.append((f"{address}(*{name})", f"any arguments: {kind}"))
            continue
        our_kind, our_default = by_name.get(name, ("", None))
        fits = (
            our_kind == POSITIONAL
            if kind == POSITIONAL
            else our_kind in {POSITIONAL, "KEYWORD_ONLY"}
        )
        if not fits or (kind == POSITIONAL and places.index(name) != position):
            found.append((f"{address}({name})", f"{kind} at {position}"))
        elif default not in {None, our_default, repr(ANY)} or (default and our_default is None):
            found.append((f"{address}({name}=)", f"default {default}, not {our_default}"))
        position += kind == POSITIONAL
    taken = {name for name, *_ in wanted}
    for name, kind, default in ours:
        if name not in taken and default is None and not kind.startswith("VAR_"):
            found.append((f"{address}(+{name})", "a call without it"))
    return found


POSITIONAL = "POSITIONAL_OR_KEYWORD"


def own_parameters(signature: str) -> list[list[Any]]:
    """Read a signature of the table."""
    namespace: dict[str, Any] = {"ANY": ANY}
    exec(f"def wanted({signature}): ...", namespace)
    found = parameters(namespace["wanted"])
    assert found is not None
    return found


@pytest.mark.parametrize("path", API)
def test_everything_in_the_table_is_there(path: str) -> None:
    module = importlib.import_module(path)
    found = []
    for name, wanted in API[path].items():
        thing = getattr(module, name)
        members: Members = {"": wanted} if isinstance(wanted, str) else wanted
        fields = getattr(thing, "model_fields", {})
        for member, signature in members.items():
            address = f"{path}.{name}.{member}".rstrip(".")
            if member and member not in fields and not hasattr(thing, member):
                found.append((address, "a member"))
            elif signature != PRESENT:
                actual = getattr(thing, member) if member else thing
                found += misfits(address, parameters(actual), own_parameters(signature))
    assert not found, lines(found)


def test_a_name_is_the_same_thing_under_each_path() -> None:
    things: dict[str, list[Any]] = {}
    for path, names in API.items():
        for name in names:
            things.setdefault(name, []).append(getattr(importlib.import_module(path), name))
    for name, same in things.items():
        assert all(thing is same[0] for thing in same), name
    for path, name, other in ALIASES:
        module = importlib.import_module(path)
        assert getattr(module, name) is getattr(module, other)


def test_the_client_is_what_the_abstract_base_stands_for(cache: Cachetronaut) -> None:
    base = importlib.import_module("cachetronomy.core.cache.cachetronomer").Cachetronomer
    assert isinstance(cache, base)
    assert inspect.isabstract(base)
    assert not isinstance(object(), base)


@pytest.mark.parametrize("option", DECORATOR)
def test_the_decorator_takes_each_option_and_no_other(option: str, cache: Cachetronaut) -> None:
    def double(number: int) -> int:
        return 2 * number

    assert cache(**{option: DECORATOR[option]})(double)(2) == 4
    cache.clear_all()
    assert cache(double, **{option: DECORATOR[option]})(3) == 6
    with pytest.raises(TypeError):
        cache(**{f"no_{option}": DECORATOR[option]})


@pytest.mark.parametrize("name", DECORATED)
def test_a_decorated_function_and_method_have_each_attribute(
    name: str, cache: Cachetronaut
) -> None:
    class Class:
        @cache
        def method(self) -> None: ...

    for owner in (Class.method, Class().method):
        attribute = getattr(owner, name)
        if DECORATED[name] != PRESENT:
            wanted = own_parameters(DECORATED[name])
            assert not misfits(name, parameters(attribute), wanted)


@pytest.mark.timeout(900)  # The first run of all makes the environments.
@pytest.mark.parametrize("version", ["0.1.5", "0.4.1"])
def test_what_the_original_has_is_here_or_listed(
    version: str, missing: Callable[[str], dict[str, str]]
) -> None:
    found = missing(version)
    unlisted = [one for one in found.items() if not any(covers(e, one[0]) for e in DIFFERENCES)]
    assert not unlisted, lines(unlisted)


@pytest.mark.timeout(900)
def test_every_listed_difference_exists(missing: Callable[[str], dict[str, str]]) -> None:
    found = {*missing("0.1.5"), *missing("0.4.1")}
    stale = [entry for entry in DIFFERENCES if not any(covers(entry, at) for at in found)]
    assert not stale, stale
    assert all(DIFFERENCES.values())


def lines(found: list[tuple[str, str]]) -> str:
    """Show what is missing, one address a line."""
    return "\n".join(f"{address}: {what}" for address, what in found)


def covers(entry: str, address: str) -> bool:
    """Tell whether an address is the entry's or lies beneath it."""
    return address == entry or address.startswith((f"{entry}.", f"{entry}("))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("a, b=1, *, c=2", []),
        ("a", []),
        ("a, b=2", ["f(b=)"]),
        ("b=1", ["f(b)", "f(+a)"]),
        ("a, b=1, c=2", ["f(c)"]),
        ("a, b=1, *, d", ["f(d)"]),
        ("a, *, b=ANY", []),
        ("a, **more", ["f(*more)"]),
    ],
)
def test_the_comparison_notices_each_kind_of_misfit(wanted: str, found: list[str]) -> None:
    def f(self: Any, a: int, b: int = 1, *, c: int = 2) -> None: ...

    assert [at for at, _ in misfits("f", parameters(f), own_parameters(wanted))] == found
