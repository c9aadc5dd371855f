"""The keys of decorated calls: the same for one call, different for any two different ones."""

from __future__ import annotations

import dataclasses
import enum
import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cachetronomy import Cachetronaut, InvalidKeyError
from conftest import short_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess


def counted(cache: Any, **options: Any) -> tuple[Any, list[tuple[Any, ...]]]:
    """Decorate a function that lists its calls."""
    calls: list[tuple[Any, ...]] = []

    @cache(**options)
    def function(a: Any, b: Any = 2, *rest: Any, c: Any = 3, **named: Any) -> str:
        calls.append((a, b, rest, c, named))
        return f"result {len(calls)}"

    return function, calls


def test_the_key_names_module_qualname_and_bound_arguments(anywhere: Cachetronaut) -> None:
    function, calls = counted(anywhere)
    name = f"{__name__}.counted.<locals>.function"
    key = f"{name}(a=1, b=2, rest=(,), c=3, named={{}})"
    assert function.key_for(1) == key
    function(1)
    assert anywhere.all_keys() == [key]
    assert function.key_for("1", 2.0, True, None, c=b"x", z=1, y=[2]) == (
        f"{name}(a='1', b=2.0, rest=(True, None,), c=b'x', named={{\"y\": [2], \"z\": 1}})"
    )
    assert len(calls) == 1, "key_for computes nothing"
    with pytest.raises(TypeError, match="function"):
        function.key_for()


class Color(enum.Enum):
    """Members print unlike values."""

    RED = 1


@dataclasses.dataclass
class Point:
    """Its repr tells its value."""

    x: int


DIFFERENT: list[Any] = [
    *(1, 1.0, True, "1", b"1", 1j, None, "None", 0, 0.0, -0.0, False, "", b"", math.nan, math.inf),
    *([], (), {}, set(), frozenset(), [1], (1,), {1}, frozenset({1}), {1: 1}, {"1": 1}, ["1"]),
    *([[1]], [(1,)], [1, 1], (1, 1), ["1, 1"], "[1]", "a=1", "1, b=2", "'", '"', "\\", "\n", "\\n"),
    *(Color.RED, Point(1), Point(2), int, "Color.RED", 10**30, {"a": 1, "b": 2}, {"a": 12}),
    *(timedelta(1), range(3), range(0, 3, 2), "\ud800", "x" * 600, "x" * 601, "x" * 599 + "y"),
]


def test_no_two_different_arguments_share_a_key(anywhere: Cachetronaut) -> None:
    function, calls = counted(anywhere)
    keys = [function.key_for(value) for value in DIFFERENT]
    assert len(set(keys)) == len(DIFFERENT)
    results = [function(value) for value in DIFFERENT]
    assert len(calls) == len(set(results)) == len(DIFFERENT)
    assert [function(value) for value in reversed(DIFFERENT)] == results[::-1]
    assert [function(a=value) for value in DIFFERENT] == results
    assert len(calls) == len(DIFFERENT)


def test_where_an_argument_goes_is_part_of_the_key(anywhere: Cachetronaut) -> None:
    function, calls = counted(anywhere)
    different = [
        lambda: function(1, 2, 3),
        lambda: function(1, 2, (3,)),
        lambda: function(1, 2, 3, 4),
        lambda: function(1, 2, x=3),
        lambda: function(1, 2, c=4),
        lambda: function(1, 2, **{"x=3, y": 4}),
        lambda: function(1, 2, x=3, y=4),
        lambda: function(1, 2, **{"x, y": 1}),
        lambda: function(1, 2, named={}),
        lambda: function(1, 2, rest=()),
    ]
    assert len({call() for call in different}) == len(different) == len(calls)


def test_equal_dicts_and_sets_share_a_key_in_any_order(anywhere: Cachetronaut) -> None:
    function, calls = counted(anywhere)
    function({"a": 1, "b": {1, 2, 300}})
    function({"b": {300, 2, 1}, "a": 1})
    assert len(calls) == 1


def test_long_keys_are_short_and_readable_and_different(anywhere: Cachetronaut) -> None:
    function, calls = counted(anywhere)
    keys = [function.key_for("é" * 1_000 + end) for end in ("a", "b")]
    assert keys[0] != keys[1]
    for key in keys:
        assert len(key.encode()) <= 512
        assert key.startswith(f"{__name__}.counted.<locals>.function(a='é")
        assert len(key.rpartition("#")[2]) == 32
    assert function("é" * 1_000 + "a") == function("é" * 1_000 + "a")
    assert len(calls) == 1


class Plain:
    """Its repr is an address."""


@pytest.mark.parametrize(
    "argument",
    [Plain(), [Plain()], {"k": Plain()}, (1, {Plain()}), lambda: 1, iter([1])],
    ids=short_id,
)
def test_an_argument_known_by_its_address_alone_is_refused(
    anywhere: Cachetronaut, argument: object
) -> None:
    function, calls = counted(anywhere)
    with pytest.raises(TypeError, match=r'"b".*key_builder'):
        function(1, argument)
    assert (calls, anywhere.all_keys()) == ([], [])


def test_an_own_key_builder(anywhere: Cachetronaut) -> None:
    seen: list[Any] = []

    def build(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        seen.append((function, args, kwargs))
        return f"own:{args[0]}"

    function, calls = counted(anywhere, key_builder=build, tags=["t"])
    assert function(1, object()) == function(1, b=3) == "result 1"
    assert function(2) == "result 2"
    assert sorted(anywhere.all_keys()) == ["own:1", "own:2"]
    assert function.key_for(9) == "own:9"
    assert seen[1] == (function.__wrapped__, (1,), {"b": 3})
    assert seen[2][1:] == ((2,), {})
    assert len(calls) == 2


def test_a_key_builder_must_return_text(anywhere: Cachetronaut) -> None:
    function, calls = counted(anywhere, key_builder=lambda *_: 7)
    with pytest.raises(InvalidKeyError, match=r"key_builder of .*function returned 7"):
        function(1)
    assert (calls, anywhere.all_keys()) == ([], [])


def test_an_error_in_a_key_builder_passes_through(anywhere: Cachetronaut) -> None:
    def build(*_: object) -> str:
        raise LookupError("mine")

    function, calls = counted(anywhere, key_builder=build)
    with pytest.raises(LookupError, match="mine"):
        function(1)
    assert calls == []


def test_bound_methods_of_two_objects_do_not_share_entries(anywhere: Cachetronaut) -> None:
    @dataclasses.dataclass
    class Shop:
        name: str

        def price(self, item: str) -> str:
            return f"{self.name} {item}"

    a, b = anywhere(Shop("a").price), anywhere(Shop("b").price)
    assert (a("x"), b("x")) == ("a x", "b x")


def test_keys_are_the_same_in_every_process(
    run_python: Callable[..., CompletedProcess[str]],
) -> None:
    code = (
        "from cachetronomy import Cachetronaut\n"
        "cache = Cachetronaut(':memory:')\n"
        "@cache\n"
        "def function(a, *b, c=None): pass\n"
        "print(function.key_for({'b', 'a', 'c'}, {'x': 1}, frozenset('xyz'), c='k' * 900))\n"
    )
    assert len({run_python(code).stdout for _ in range(3)}) == 1
