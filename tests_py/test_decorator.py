"""`@cache` on plain functions: computed once per arguments, otherwise the function itself."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import pickle
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cachetronomy import CacheClosedError, Cachetronaut, SerializationError
from conftest import short_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachetronomy._core import ManualClock
    from conftest import Tier

pytestmark = pytest.mark.both_clients


def counted(cache: Any, **options: Any) -> tuple[Any, list[tuple[Any, ...]]]:
    """Decorate a function that lists its calls."""
    calls: list[tuple[Any, ...]] = []

    @cache(**options)
    def function(a: Any, b: Any = 2, *rest: Any, c: Any = 3, **named: Any) -> str:
        calls.append((a, b, rest, c, named))
        return f"result {len(calls)}"

    return function, calls


def test_a_call_is_computed_once_in_either_tier(cache: Cachetronaut, tier: Tier) -> None:
    calls = []

    def double(number: int) -> int:
        calls.append(number)
        return 2 * number

    assert [cache(double)(4), cache(double)(5), cache(double)(4)] == [8, 10, 8]
    reader = tier(cache)
    assert [reader(double)(4), reader(double)(number=5)] == [8, 10]
    assert calls == [4, 5]


def test_the_wrapper_looks_like_the_function(anywhere: Cachetronaut) -> None:
    def function(a: int, /, b: str = "x", *rest: float, c: bool, **named: bytes) -> list[int]:
        """Say what it does."""
        return [a]

    function.attribute = "kept"  # type: ignore[attr-defined]
    for wrapper in (anywhere(function), anywhere(ttl=1)(function), anywhere()(function)):
        assert wrapper.__name__ == "function"
        assert wrapper.__qualname__ == function.__qualname__
        assert wrapper.__module__ == __name__
        assert wrapper.__doc__ == "Say what it does."
        assert wrapper.__wrapped__ is function
        assert wrapper.__annotations__ == function.__annotations__
        assert wrapper.attribute == "kept"
        assert wrapper.cache is getattr(anywhere, "_served", anywhere)
        assert inspect.signature(wrapper) == inspect.signature(function)
        assert inspect.unwrap(wrapper) is function
        assert not inspect.iscoroutinefunction(wrapper)
        assert callable(wrapper)
        assert "function" in repr(wrapper)


def test_one_call_written_in_several_ways_shares_an_entry(anywhere: Cachetronaut) -> None:
    function, calls = counted(anywhere)
    assert {function(1), function(a=1), function(1, 2), function(b=2, a=1), function(1, c=3)} == {
        "result 1"
    }
    assert function(1, x=1, y=2) == function(1, y=2, x=1) == "result 2"
    assert len(calls) == 2


def test_arguments_that_do_not_fit_raise_the_functions_own_error(anywhere: Cachetronaut) -> None:
    calls = []

    @anywhere
    def function(a: int, /, *, b: int) -> None:
        calls.append(a)

    wrong: list[Callable[[], object]] = [
        function,
        lambda: function(1, 2, b=3),  # type: ignore[misc]
        lambda: function(a=1, b=2),  # type: ignore[call-arg]
        lambda: function(1, b=2, c=3),  # type: ignore[call-arg]
    ]
    for call in wrong:
        with pytest.raises(TypeError, match=r"function\(\)"):
            call()
    assert (calls, anywhere.all_keys()) == ([], [])


def test_a_cached_none_is_a_hit(cache: Cachetronaut, tier: Tier) -> None:
    calls = []

    def nothing() -> None:
        calls.append(1)

    assert cache(nothing)() is None
    assert tier(cache)(nothing)() is None
    assert calls == [1]


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)])
def test_an_exception_passes_through_and_is_not_cached(
    anywhere: Cachetronaut, error: BaseException
) -> None:
    outcomes: list[BaseException | None] = [error, None]

    @anywhere
    def function() -> str:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return "computed"

    with pytest.raises(type(error)) as caught:
        function()
    assert caught.value is error
    assert anywhere.all_keys() == []
    assert [function(), function()] == ["computed", "computed"]


@pytest.mark.parametrize("ttl", [60, 60.0, timedelta(minutes=1), "1m"], ids=str)
@pytest.mark.parametrize("name", ["ttl", "time_to_live"])
def test_results_live_as_long_as_told(
    anywhere: Cachetronaut, clock: ManualClock, name: str, ttl: object
) -> None:
    function, calls = counted(anywhere, **{name: ttl})
    assert function(1) == "result 1"
    clock.advance(59.999)
    assert function(1) == "result 1"
    clock.advance(0.001)
    assert function(1) == function(1) == "result 2"
    assert len(calls) == 2


def test_a_life_of_nothing_computes_every_time(anywhere: Cachetronaut) -> None:
    function, _ = counted(anywhere, ttl=0)
    assert [function(1), function(1)] == ["result 1", "result 2"]
    assert anywhere.all_keys() == []


@pytest.mark.parametrize("tags", ["t", ["t", "u"], ("u", "t")])
def test_results_are_invalidated_by_tag(anywhere: Cachetronaut, tags: object) -> None:
    function, _ = counted(anywhere, tags=tags)
    function(1)
    assert anywhere.clear_by_tags("t") == [function.key_for(1)]
    assert function(1) == "result 2"


def test_a_result_of_another_version_is_computed_anew(
    open_cache: Callable[..., Cachetronaut], cache: Cachetronaut
) -> None:
    for client in (cache, open_cache()):
        for number, version in enumerate((1, 2, 1), start=1):
            function, calls = counted(client, version=version)
            assert function(number) == function(number) == "result 1"
            assert len(calls) == 1
            assert client.get(function.key_for(number), version=version) == "result 1"
            client.clear_all()
    one, calls = counted(cache, version=1)
    two = cache(version=2)(one.__wrapped__)
    assert [one("x"), two("x")] == ["result 1", "result 2"]
    assert cache.get(one.key_for("x"), version=2) == "result 2"
    assert [one("x"), len(calls)] == ["result 3", 3]


def test_prefer_labels_the_rows(anywhere: Cachetronaut) -> None:
    function, _ = counted(anywhere, prefer="msgpack")
    function(1)
    anywhere.evict_all()
    assert function(1) == "result 1"


def test_a_result_that_cannot_be_stored_is_in_the_error(anywhere: Cachetronaut) -> None:
    result = object()

    @anywhere
    def function() -> object:
        return result

    with pytest.raises(SerializationError, match="function") as caught:
        function()
    assert caught.value.value is result
    assert anywhere.all_keys() == []


def test_methods_of_every_kind(anywhere: Cachetronaut) -> None:
    calls: list[str] = []

    @dataclasses.dataclass(frozen=True)
    class Shop:
        name: str

        @anywhere
        def price(self, item: str) -> str:
            calls.append(item)
            return f"{self.name} {item}"

        @classmethod
        @anywhere(ttl=60)
        def kind(cls, item: str) -> str:
            calls.append(item)
            return f"kind {item}"

        @staticmethod
        @anywhere
        def plain(item: str) -> str:
            calls.append(item)
            return f"plain {item}"

        @functools.cached_property
        @anywhere
        def total(self) -> str:
            calls.append("total")
            return f"total of {self.name}"

    a, b = Shop("a"), Shop("b")
    for _ in range(2):
        assert (a.price("x"), b.price("x"), Shop.price(a, "x")) == ("a x", "b x", "a x")
        assert Shop.kind("y") == a.kind("y") == "kind y"
        assert Shop.plain("z") == a.plain("z") == "plain z"
    assert calls == ["x", "x", "y", "z"]
    assert str(inspect.signature(a.price)) == "(item: 'str') -> 'str'"


def test_functions_under_functools_wraps(anywhere: Cachetronaut) -> None:
    calls: list[int] = []

    def twice(function: Callable[[int], int]) -> Callable[[int], int]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> int:
            return 2 * function(*args, **kwargs)

        return wrapper

    @twice
    @anywhere
    @twice
    def function(number: int) -> int:
        calls.append(number)
        return number

    assert [function(3), function(3), function(number=3)] == [12, 12, 12]
    assert calls == [3]


def test_recursion(anywhere: Cachetronaut) -> None:
    calls = []

    @anywhere
    def fib(n: int) -> int:
        calls.append(n)
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert fib(80) == 23_416_728_348_467_685
    assert len(calls) == 81


def test_endless_recursion_is_a_recursion_error(anywhere: Cachetronaut) -> None:
    @anywhere
    def endless(n: int) -> int:
        return endless(n + 1)

    with pytest.raises(RecursionError):
        endless(0)
    assert anywhere.all_keys() == []


def test_a_function_that_changes_its_argument_is_cached_under_what_it_was_given(
    anywhere: Cachetronaut,
) -> None:
    calls = []

    @anywhere
    def drain(items: list[int]) -> int:
        calls.append(1)
        return sum(items.pop() for _ in range(len(items)))

    assert [drain([1, 2]), drain([1, 2])] == [3, 3]
    assert len(calls) == 1
    assert drain([]) == 0


def test_nested_calls_of_one_key(anywhere: Cachetronaut) -> None:
    depth: list[int] = []

    @anywhere
    def again(name: str) -> int:
        depth.append(1)
        return again(name) + 1 if len(depth) < 3 else 0

    assert again("x") == 2
    assert again("x") == 2


def test_what_was_deleted_is_computed_anew(anywhere: Cachetronaut) -> None:
    function, _ = counted(anywhere)
    function(1)
    for forget in (lambda: anywhere.delete(function.key_for(1)), anywhere.clear_all):
        before = function(1)
        forget()
        assert function(1) != before


def test_a_set_under_the_functions_key_is_its_result(anywhere: Cachetronaut) -> None:
    function, calls = counted(anywhere)
    anywhere.set(function.key_for(1), "set by hand")
    assert function(1) == "set by hand"
    assert calls == []


@pytest.mark.parametrize("not_callable", [1, "text", object()], ids=short_id)
def test_only_functions_are_decorated(anywhere: Cachetronaut, not_callable: Any) -> None:
    with pytest.raises(TypeError, match="needs a function"):
        anywhere(not_callable)


@pytest.mark.parametrize("kind", [staticmethod, classmethod, property])
def test_the_decorator_goes_under_staticmethod_and_its_like(
    anywhere: Cachetronaut, kind: Any
) -> None:
    with pytest.raises(TypeError, match=f"put @{kind.__name__} above @cache"):
        anywhere(kind(lambda: 1))


def test_use_after_shutdown_is_an_error_that_computes_nothing(db_path: object) -> None:
    cache = Cachetronaut(db_path)
    function, calls = counted(cache)
    function(1)
    cache.shutdown()
    for argument in (1, 2):
        with pytest.raises(CacheClosedError):
            function(argument)
    with pytest.raises(CacheClosedError):
        cache(len)
    assert len(calls) == 1


def module_level(number: int) -> int:
    """Be found by pickle by its name."""
    return number


def test_a_wrapper_is_copied_and_pickled_as_a_function_is(
    anywhere: Cachetronaut, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = anywhere(module_level)
    assert copy.copy(wrapper) is copy.deepcopy(wrapper) is wrapper
    monkeypatch.setitem(globals(), "module_level", wrapper)
    assert pickle.loads(pickle.dumps(wrapper)) is wrapper


def test_one_decorator_for_several_functions(anywhere: Cachetronaut) -> None:
    minute = anywhere(ttl=60, tags=["t"])

    @minute
    def one() -> int:
        return 1

    @minute
    def two() -> int:
        return 2

    assert (one(), two(), one(), two()) == (1, 2, 1, 2)
    assert len(anywhere.clear_by_tags("t")) == 2
