"""What decorated functions and methods offer beside the call."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import pickle
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from cachetronomy import CacheClosedError, Cachetronaut
from cachetronomy.info import CacheInfo
from test_decorator_options import color, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Child, Tier

pytestmark = pytest.mark.both_clients


__all__ = ["color"]
CALLS: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


def count(*key: Any) -> str:
    """Note a call."""
    CALLS.append(key)
    return f"result {len(CALLS)}"


def function(a: Any, b: Any = 2) -> str:
    return count(a, b)


def other(a: Any) -> str:
    return count(a)


def test_invalidate_forgets_one_call(cache: Cachetronaut, color: Any, tier: Tier) -> None:
    cached = cache(color(function))
    assert [run(cached(n)) for n in (1, 2)] == ["result 1", "result 2"]
    cached = tier(cache)(color(function))
    assert run(cached.invalidate(b=2, a=1)) is True
    assert run(cached.invalidate(1)) is False
    assert [run(cached(n)) for n in (1, 2)] == ["result 3", "result 2"]
    with pytest.raises(TypeError, match="do not fit"):
        run(cached.invalidate())


def test_refresh_computes_and_stores(cache: Cachetronaut, color: Any, tier: Tier) -> None:
    cached = cache(color(function), tags="t")
    assert [run(cached.refresh(1)), run(cached(1)), run(cached.refresh(1))] == [
        "result 1",
        "result 1",
        "result 2",
    ]
    assert run(tier(cache)(color(function))(1)) == "result 2"
    assert cache.clear_by_tags("t") == [cached.key_for(1)]
    with pytest.raises(TypeError, match="argument"):
        run(cached.refresh())


def test_cache_info_counts_this_function(cache: Cachetronaut, color: Any) -> None:
    one, two = cache(color(function)), cache(color(other))
    assert run(one.cache_info()) == CacheInfo(hits=0, misses=0, maxsize=100, currsize=0)
    for argument in (1, 1, 2, [3], [3]):
        run(one(argument))
    run(one(a=1))
    run(two(1))
    info = run(one.cache_info())
    assert info == (3, 3, 100, 3)
    assert (info.hits, info.misses, info.maxsize, info.currsize) == (3, 3, 100, 3)
    cache.evict_all()
    run(one(1))
    run(one.invalidate(2))
    assert run(one.cache_info()) == (4, 3, 100, 2)
    assert run(two.cache_info()) == (0, 1, 100, 1)
    assert run(Cachetronaut(":memory:", max_items_in_memory=None)(color(other)).cache_info()) == (
        0,
        0,
        None,
        0,
    )


@pytest.mark.parametrize("options", [{}, {"key_builder": lambda f, a, k: f"own {f.__name__} {a}"}])
def test_cache_clear_forgets_this_function_alone(
    cache: Cachetronaut, color: Any, tier: Tier, options: Any
) -> None:
    def function(a: Any) -> str:
        return count(a)

    def function_2(a: Any) -> str:
        return count(a)

    function_3 = eval("lambda a: count(a)", globals())  # Nothing but a name may be alike.
    function_3.__name__ = "function["
    function_3.__qualname__ = f"{function.__qualname__}["
    functions = [color(one) for one in (function, function_2, function_3)]
    cached = [cache(one, **options) for one in functions]
    cache.set("function(a=1)", 1)
    before = [run(one(n)) for one in cached for n in (1, "x" * 900)]
    cached = [tier(cache)(one, **options) for one in functions]
    assert run(cached[0].cache_info()).currsize == 2
    assert run(cached[0].cache_clear()) is None
    assert run(cached[0].cache_info()).currsize == 0
    after = [run(one(n)) for one in cached for n in (1, "x" * 900)]
    assert after[2:] == before[2:]
    assert not set(after[:2]) & set(before)
    assert cache.get("function(a=1)") == 1


def test_patterns_in_names_are_nothing_special(anywhere: Cachetronaut) -> None:
    for name in ("f%", "f_", "f*", "f?", "fx", "f[a]", "fa", "F*", "f" * 1_000, "f" * 1_001):
        one = eval("lambda a: a", {"__name__": "m"})
        one.__qualname__ = name
        anywhere(one)(1)
    entries = len(anywhere.all_keys())
    for name in ("f%", "f_", "f*", "f?", "f[a]", "f" * 1_000):
        one = eval("lambda a: a", {"__name__": "m"})
        one.__qualname__ = name
        anywhere(one).cache_clear()
        entries -= 1
        assert len(anywhere.all_keys()) == entries, name


@dataclass(frozen=True)
class Shop:
    """Its objects differ by value."""

    name: str

    def price(self, item: str, *, vat: bool = False) -> str:
        """Tell a price."""
        return count(self.name, item, vat)


@pytest.fixture
def shop(anywhere: Cachetronaut, color: Any, monkeypatch: pytest.MonkeyPatch) -> type[Shop]:
    """Decorate the method."""
    monkeypatch.setattr(Shop, "price", anywhere(color(Shop.price)))
    return Shop


def test_attributes_of_methods_know_the_object(shop: Any) -> None:
    a, b = shop("a"), shop("b")
    assert [run(a.price("x")), run(b.price("x")), run(shop.price(a, "x"))] == [
        "result 1",
        "result 2",
        "result 1",
    ]
    assert a.price.key_for("x") == a.price.key_for(item="x") == shop.price.key_for(a, "x")
    assert a.price.key_for("x") != b.price.key_for("x")
    assert run(a.price.invalidate("x")) is True
    assert [run(a.price("x")), run(b.price("x"))] == ["result 3", "result 2"]
    assert run(b.price.refresh("x")) == run(b.price("x")) == "result 4"
    assert run(a.price.cache_info()) == run(shop.price.cache_info())
    run(b.price.cache_clear())
    assert run(a.price("x")) == "result 5"
    assert a.price.cache is shop.price.cache


def test_a_bound_method_is_one_in_every_respect(shop: Any, color: Any) -> None:
    a, same = shop("a"), shop("a")
    method = a.price
    assert method == a.price
    assert hash(method) == hash(a.price)
    assert len({method, a.price, same.price, shop("b").price}) == 3
    assert method != same.price
    assert method != shop.price
    assert method.__self__ is a
    assert method.__func__ is shop.__dict__["price"]
    assert method.__name__ == "price"
    assert method.__qualname__ == "Shop.price"
    assert method.__doc__ == shop.price.__doc__
    assert "Shop.price" in repr(method)
    assert "name='a'" in repr(method)
    plain = color(lambda: 1)
    assert inspect.iscoroutinefunction(method) == inspect.iscoroutinefunction(plain)
    assert inspect.iscoroutinefunction(shop.price) == inspect.iscoroutinefunction(plain)
    if not inspect.iscoroutinefunction(plain):
        assert str(inspect.signature(method)) == "(item: 'str', *, vat: 'bool' = False) -> 'str'"
    assert run(functools.partial(method, vat=True)("x")) == run(a.price("x", vat=True))
    assert run(copy.copy(method)("y")) == run(method("y"))
    again = pickle.loads(pickle.dumps(method))
    assert run(again("y")) == run(method("y"))
    assert weakref.WeakMethod(method)() == method
    with pytest.raises(AttributeError, match="nothing"):
        method.nothing  # noqa: B018


def test_a_bound_method_keeps_its_object_alive_and_no_longer(shop: Any) -> None:
    class Weak(shop):  # type: ignore[misc]
        pass

    one = Weak("a")
    reference, method = weakref.ref(one), one.price
    run(method("x"))
    del one
    assert reference() is not None
    del method
    gc.collect()
    assert reference() is None


def test_classmethods_and_staticmethods(anywhere: Cachetronaut, color: Any) -> None:
    class Base:
        @classmethod
        @anywhere
        @color
        def kind(cls, item: str) -> str:
            return count(cls.__name__, item)

        @staticmethod
        @anywhere
        @color
        def plain(item: str) -> str:
            return count(item)

    class Derived(Base):
        pass

    results = [run(Base.kind("x")), run(Derived.kind("x")), run(Derived().kind("x"))]
    assert results == ["result 1", "result 2", "result 2"]
    assert Base.kind.key_for("x") != Derived.kind.key_for("x")
    assert run(Derived.kind.invalidate("x")) is True
    assert run(Base.kind("x")) == "result 1"
    assert run(Base.plain("x")) == run(Base().plain("x")) == "result 3"
    assert run(Base().plain.invalidate("x")) is True


def test_single_dispatch(anywhere: Cachetronaut) -> None:
    @functools.singledispatch
    def kind(value: object) -> str:
        return count("object")

    kind.register(int)(anywhere(lambda value: count("int", value)))
    assert [kind(1), kind(1), kind(2)] == ["result 1", "result 1", "result 2"]

    class Holder:
        @functools.singledispatchmethod
        def kind(self, value: object) -> str:
            return count("object")

        @kind.register
        @anywhere(ignore="self")
        def _(self, value: int) -> str:
            return count("int", value)

    assert [Holder().kind(1), Holder().kind(1)] == ["result 3", "result 3"]


def test_after_shutdown_everything_says_so(color: Any) -> None:
    cache = Cachetronaut(":memory:")
    cached = cache(color(function))
    cache.close()
    for call in (
        lambda: cached.invalidate(1),
        lambda: cached.refresh(1),
        cached.cache_info,
        cached.cache_clear,
    ):
        with pytest.raises(CacheClosedError):
            run(call())
    assert CALLS == []


def test_nothing_of_a_coroutine_function_blocks_the_loop(
    open_cache: Callable[..., Cachetronaut], lock_holder: Child
) -> None:
    cache = open_cache(busy_timeout=40)
    threads = []

    @cache
    async def function(a: int) -> int:
        threads.append(threading.get_ident())
        return a

    async def main() -> None:
        await function(1)
        for work in (lambda: function.invalidate(1), lambda: function.refresh(1)):
            lock_holder.ask("BEGIN IMMEDIATE")
            task = asyncio.ensure_future(work())
            for _ in range(300):
                await asyncio.sleep(0)
                assert not task.done()
            lock_holder.ask("COMMIT")
            await task
        assert (await function.cache_info()).currsize == 1
        await function.cache_clear()
        assert (await function.cache_info()).currsize == 0

    asyncio.run(main())
    assert set(threads) == {threading.get_ident()}
