"""The ways in which the interpreter calls decorated functions come to one and the same."""

from __future__ import annotations

import functools
import gc
import sys
import weakref
from typing import Any

import pytest
from cachetronomy import Cachetronaut
from cachetronomy._core import BoundCachedFunction


@pytest.fixture(params=["miss", "hit"])
def rounds(request: pytest.FixtureRequest) -> int:
    """Call once, which misses, or twice."""
    return 1 if request.param == "miss" else 2


def shape(a: Any, /, b: Any = 2, *rest: Any, k: Any = 5, **more: Any) -> Any:
    return [a, b, list(rest), k, more]


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((1,), {}),
        ((1, 2, 3, 4, 5, 6, 7, 8, 9, 10), {}),
        ((1,), {"b": 3}),
        ((1,), {"k": 6, "z": 7, "a": 8}),
        ((1, 2, 3), {"k": 4, "y": None}),
        ((None,), {}),
        (("text", 1.5, b"bytes", True), {}),
    ],
)
def test_a_call_gets_its_arguments_however_it_is_made(
    anywhere: Cachetronaut, args: tuple[Any, ...], kwargs: dict[str, Any], rounds: int
) -> None:
    cached = anywhere(shape)
    expected = shape(*args, **kwargs)
    for _ in range(rounds):
        assert cached(*args, **kwargs) == expected
        assert cached.__call__(*args, **kwargs) == expected
        assert functools.partial(cached, *args)(**kwargs) == expected
        assert type(cached).__call__(cached, *args, **kwargs) == expected
    if not kwargs and len(args) == 1:
        assert list(map(cached, args)) == [expected]


def test_arguments_that_do_not_fit_are_refused_as_by_the_function(cache: Cachetronaut) -> None:
    cached: Any = cache(shape)
    for args, kwargs in [((), {}), ((1, 2), {"b": 3})]:
        with pytest.raises(TypeError) as ours:
            cached(*args, **kwargs)
        with pytest.raises(TypeError) as its:
            shape(*args, **kwargs)
        assert str(ours.value) == str(its.value)


class Thing:
    """Has methods of all kinds, once they are decorated."""

    def __init__(self, number: int) -> None:
        self.number = number


def test_methods_are_found_as_functions_are(anywhere: Cachetronaut, rounds: int) -> None:
    class Decorated(Thing):
        @anywhere(key_builder=lambda _, args, __: f"m {args[0].number} {args[1]}")
        def method(self, x: int) -> tuple[int, int]:
            return (self.number, x)

        @classmethod
        @anywhere
        def of_class(cls, x: int) -> str:
            return f"{cls.__name__} {x}"

        @staticmethod
        @anywhere
        def static(x: int) -> int:
            return x

    class Child(Decorated):
        pass

    thing, other = Decorated(1), Child(2)
    for _ in range(rounds):
        assert thing.method(5) == Decorated.method(thing, 5) == (1, 5)
        assert other.method(5) == Child.method(other, 5) == (2, 5)
        assert (Decorated.of_class(1), thing.of_class(1)) == ("Decorated 1", "Decorated 1")
        assert (Child.of_class(1), other.of_class(1)) == ("Child 1", "Child 1")
        assert Decorated.static(3) == thing.static(3) == 3
    bound = thing.method
    assert isinstance(bound, BoundCachedFunction)
    assert bound(5) == (1, 5)
    thing.method = lambda x: -x  # type: ignore[method-assign,assignment]
    assert thing.method(5) == -5  # What an object has itself comes first.
    del thing.method
    assert thing.method(5) == (1, 5)
    Decorated.method = lambda self, x: x  # type: ignore[method-assign,assignment]
    assert other.method(5) == 5  # And what a class gets later counts.


def test_what_a_call_was_given_and_returned_is_let_go_of(anywhere: Cachetronaut) -> None:
    class Key:
        def __cache_key__(self) -> str:
            return "key"

    class Result:
        pass

    @anywhere(condition=lambda _: False)
    def make(_: Key, /, *__: object, **___: object) -> Result:
        return Result()

    text = "a text of this test only"
    kept: Any = anywhere(lambda *given: len(given))
    kept(text)
    before = sys.getrefcount(text)
    for _ in range(100):
        assert kept(text) == 1
    assert sys.getrefcount(text) == before
    key = Key()
    argument, result = weakref.ref(key), weakref.ref(make(key, 1, more=key))
    make(key)
    del key
    gc.collect()
    assert (argument(), result()) == (None, None)


def test_exceptions_pass_and_leave_nothing_behind(anywhere: Cachetronaut) -> None:
    @anywhere
    def fail(number: int) -> int:
        raise ValueError(number)

    for number in (1, 1, 2):
        with pytest.raises(ValueError, match=str(number)):
            fail(number)
    assert len(anywhere) == 0


def test_a_recursion_without_end_is_an_error_and_no_crash(anywhere: Cachetronaut) -> None:
    @anywhere(ignore=("number",), lock=None)
    def deeper(number: int) -> int:
        return deeper(number + 1)

    with pytest.raises(RecursionError):
        deeper(0)
    assert len(anywhere) == 0


def test_a_recursion_is_served_from_memory(cache: Cachetronaut) -> None:
    cache.update_active_profile(max_items_in_memory=1_000)

    @cache
    def fibonacci(n: int) -> int:
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(100) == 354224848179261915075
    assert fibonacci.cache_info()[:2] == (98, 101)
