"""The async client has what the sync one has: the same names, parameters, defaults, docstrings."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from cachetronomy import AsyncCachetronaut, Cachetronaut
from cachetronomy.core.cache.cachetronomer import Cachetronomer
from cachetronomy.core.store import AsyncSQLiteStore, SQLiteStore

# What is called otherwise, or is not awaited, and what only one of the two has.
BLOCKS = {"lock", "disabled"}
PROPERTIES = {
    "db_path",
    "free_memory_target",
    "is_closed",
    "max_items_in_memory",
    "memory_based_eviction",
    "memory_cleanup_interval",
    "profile",
    "store",
    "tags",
    "time_to_live",
    "ttl_cleanup_interval",
}
ONLY_ASYNC = {"contains", "count", "init_async"}
# In the original package its parameter has another name, which is taken too.
OTHER_PARAMETERS = {"clear_by_profile"}


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    _self, *rest = inspect.signature(function).parameters.values()
    return [(one.name, one.kind, one.default) for one in rest]


def methods(cls: type) -> list[str]:
    return sorted(name for name in public(cls) if callable(getattr(cls, name)))


def test_the_clients_have_the_same_names() -> None:
    assert public(Cachetronaut) == public(AsyncCachetronaut) - ONLY_ASYNC
    assert public(Cachetronaut) - set(methods(Cachetronaut)) == PROPERTIES
    assert public(SQLiteStore) == public(AsyncSQLiteStore) - {"init"}


@pytest.mark.parametrize("name", methods(Cachetronaut))
def test_a_method_of_the_client_is_the_same_awaited(name: str) -> None:
    sync, awaited = getattr(Cachetronaut, name), getattr(AsyncCachetronaut, name)
    assert inspect.iscoroutinefunction(awaited) == (name not in BLOCKS)
    if name not in OTHER_PARAMETERS:
        assert parameters(awaited) == parameters(sync)
    assert awaited.__doc__
    assert awaited.__qualname__ in {
        f"AsyncCachetronaut.{name}",
        f"AsyncCachetronaut.{sync.__name__}",  # Another name of one.
    }


@pytest.mark.parametrize("name", methods(SQLiteStore))
def test_a_method_of_the_store_is_the_same_awaited(name: str) -> None:
    sync, awaited = getattr(SQLiteStore, name), getattr(AsyncSQLiteStore, name)
    assert inspect.iscoroutinefunction(awaited)
    assert parameters(awaited) == parameters(sync)
    assert awaited.__doc__


def test_the_constructors_take_the_same() -> None:
    def settings(cls: type) -> dict[str, Any]:
        found = inspect.signature(cls).parameters.values()
        return {one.name: one.default for one in found if not one.name.startswith("_")}

    ours = settings(AsyncCachetronaut)
    assert ours.pop("offload_reads") is None
    assert ours == settings(Cachetronaut)


def test_the_decorators_take_the_same(tmp_path: Any) -> None:
    client = AsyncCachetronaut(tmp_path / "cache.db")
    with pytest.raises(TypeError, match="no_option"):
        client(no_option=1)


def test_both_are_what_the_abstract_base_stands_for() -> None:
    assert issubclass(AsyncCachetronaut, Cachetronomer)
    assert issubclass(Cachetronaut, Cachetronomer)
    assert not issubclass(AsyncCachetronaut, Cachetronaut)


def test_what_a_sync_client_does_by_a_dunder_is_refused(tmp_path: Any) -> None:
    client: Any = AsyncCachetronaut(tmp_path / "cache.db")
    with pytest.raises(TypeError):
        len(client)
    with pytest.raises(TypeError):
        assert "key" in client
    with pytest.raises((TypeError, AttributeError)), client:
        pass
    assert client
