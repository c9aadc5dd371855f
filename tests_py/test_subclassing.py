"""Clients of a user's own: with an `__init__`, attributes and methods over those of the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cachetronomy import (
    MISS,
    CacheClosedError,
    Cachetronaut,
    CachetronomyError,
    Profile,
    SerializationError,
)
from cachetronomy._core import ManualGauge
from cachetronomy.core.cache.cachetronomer import Cachetronomer


class Prefixed(Cachetronaut):
    """Puts a prefix before each key, and counts reads."""

    def __init__(self, prefix: str, db_path: Any = ":memory:", **settings: Any) -> None:
        """Open it with other parameters than the client's."""
        super().__init__(db_path, **settings)
        self.prefix = prefix
        self.reads = 0

    def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        self.reads += 1
        return super().get(self.prefix + key, *args, **kwargs)

    def set(self, key: str, *args: Any, **kwargs: Any) -> None:
        super().set(self.prefix + key, *args, **kwargs)


def test_an_init_of_ones_own_opens_the_client(db_path: Path) -> None:
    with Prefixed("p:", db_path, profile="mine") as cache:
        cache.set("key", 1, ttl=60)
        assert cache.get("key") == 1
        assert cache.store_keys() == ["p:key"]
        assert (cache.prefix, cache.reads, cache.profile.name) == ("p:", 1, "mine")
    with Cachetronaut(db_path) as plain:
        assert plain.get("p:key") == 1


def test_a_subclass_is_a_client():
    with Prefixed("p:") as cache:
        assert isinstance(cache, Cachetronaut)
        assert isinstance(cache, Cachetronomer)
        assert cache.store is cache.store


def test_what_reads_through_calls_the_methods_of_the_subclass():
    with Prefixed("p:") as cache:
        assert cache.get_or_compute("key", lambda: 1) == cache.get_or_set("key", lambda: 2) == 1
        assert cache.reads == 3  # Who computes looks once more: somebody may have been faster.
        assert cache.store_keys() == ["p:key"]


def test_a_subclass_decorates():
    with Prefixed("p:") as cache:

        @cache(ttl=60)
        def double(n: int) -> int:
            return 2 * n

        assert double(4) == double(4) == 8
        assert double.cache is cache


def test_an_init_that_opens_nothing_leaves_nothing_to_use():
    class Forgetful(Cachetronaut):
        def __init__(self) -> None:
            pass

    cache = Forgetful()
    for call in (
        lambda: cache.get("key"),
        lambda: cache.set("key", 1),
        cache.store_keys,
        lambda: cache.profile,
        lambda: cache(len),
        cache.store.keys,
        cache.health_check,
        cache.__enter__,
    ):
        with pytest.raises(CachetronomyError):
            call()
    cache.close()


def test_a_client_is_opened_once(cache: Cachetronaut, tmp_path: Path) -> None:
    cache.set("key", 1)
    with pytest.raises(CachetronomyError):
        cache.__init__(tmp_path / "other.db")  # type: ignore[misc]
    assert cache.get("key") == 1
    assert not (tmp_path / "other.db").exists()


@pytest.mark.parametrize("value", [1, None, [], ""])
def test_a_value_is_computed_once(anywhere: Cachetronaut, value: object) -> None:
    calls = []

    def compute() -> object:
        calls.append(1)
        return value

    for _ in range(3):
        assert anywhere.get_or_compute("key", compute, 60, ["t"], 2, "msgpack") == value
    assert calls == [1]
    metadata = anywhere.key_metadata("key")
    assert metadata is not None
    assert (metadata.tags, metadata.version, metadata.fmt) == (["t"], 2, "msgpack")
    assert anywhere.get_or_set("key", compute, version=3) == value
    assert calls == [1, 1], "another version is computed anew"
    assert anywhere.get("key", default=MISS, version=3) == value


def test_a_value_that_cannot_be_stored_is_not_lost(anywhere: Cachetronaut) -> None:
    value = object()
    with pytest.raises(SerializationError) as caught:
        anywhere.get_or_compute("key", lambda: value)
    assert caught.value.value is value
    with pytest.raises(TypeError, match="ttl"):
        anywhere.get_or_compute("key", lambda: 1, 5, ttl=5)


def test_errors_of_the_function_pass_and_nothing_is_stored(anywhere: Cachetronaut) -> None:
    def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        anywhere.get_or_compute("key", fail)
    assert anywhere.store_keys() == []


def test_a_coroutine_function_is_refused(anywhere: Cachetronaut) -> None:
    called = []

    async def compute() -> int:
        called.append(1)
        return 1

    for function in (compute, lambda: compute()):  # noqa: PLW0108 - not a coroutine function itself
        with pytest.raises(TypeError, match="async client"):
            anywhere.get_or_compute("key", function)
    assert called == []
    assert anywhere.store_keys() == []


def test_names_of_one_method_are_one_method(anywhere: Cachetronaut) -> None:
    anywhere.set("key", 1, tags=["t"])
    assert anywhere.invalidate_tags(["t"]) == ["key"]
    assert Cachetronaut.get_or_set is Cachetronaut.get_or_compute


MEGABYTE = 1024 * 1024


@pytest.mark.parametrize(
    ("target", "status"), [(400, "healthy"), (0.4, "healthy"), (500, "degraded"), (0.5, "degraded")]
)
def test_a_client_says_whether_memory_suffices(
    open_cache: Callable[..., Cachetronaut], target: float, status: str
) -> None:
    gauge = ManualGauge(1000 * MEGABYTE, 499 * MEGABYTE)
    profile = Profile(free_memory_target=target, memory_based_eviction=False)
    cache = open_cache(profile=profile, max_items_in_memory=1, _gauge=gauge)
    cache.set_many({"a": 1, "b": 2})
    assert cache.health_check() == {
        "status": status,
        "db_accessible": True,
        "memory_ok": status == "healthy",
        "store_keys_count": 2,
        "memory_keys_count": 1,
    }


def test_a_client_whose_store_does_not_answer_is_unhealthy() -> None:
    class Silent(Cachetronaut):
        def _health(self) -> tuple[int | None, int, bool]:
            return (None, *super()._health()[1:])

    with Silent(":memory:") as cache:
        cache.set("key", 1)
        report = cache.health_check()
        assert (report["status"], report["db_accessible"]) == ("unhealthy", False)
        assert (report["store_keys_count"], report["memory_keys_count"]) == (0, 1)
    with pytest.raises(CacheClosedError):
        cache.health_check()


def test_a_loop_is_accepted_and_ignored(db_path: Path) -> None:
    with Cachetronaut(db_path=str(db_path), profile=None, loop=object()) as cache:
        cache.set("key", 1)
        assert cache.get("key") == 1
