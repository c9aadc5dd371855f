"""Two calls share a key when they are equal, and only then; two closures when they are the same."""

from __future__ import annotations

import asyncio
import enum
import functools
import gc
import logging
import math
import multiprocessing
import os
import re
import struct
import sys
import tempfile
import threading
import weakref
from collections import Counter, OrderedDict, UserList, defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import pydantic
import pytest
from cachetronomy import Cachetronaut
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess


pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")


EXAMPLES = int(os.environ.get("CACHETRONOMY_KEY_EXAMPLES", "150"))


class Color(enum.Enum):
    RED = 1
    BLUE = "1"


class Level(enum.IntEnum):
    ONE = 1


class Word(str, enum.Enum):
    ONE = "1"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Point:
    x: Any
    y: Any = 0


@dataclass(frozen=True)
class Place:
    x: Any
    y: Any = 0


class Pair(NamedTuple):
    x: Any
    y: Any = 0


class Model(pydantic.BaseModel):
    """Shows neither what is private nor what is not declared."""

    model_config = pydantic.ConfigDict(extra="allow")
    x: Any
    _y: Any = None


class Quoting:
    """Its repr may look like anything."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class Own:
    """It says itself what tells it apart."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __cache_key__(self) -> str:
        return self.text


class Text(str):
    __slots__ = ()


class Number(int): ...


class Real(float): ...


class Row(list): ...


class Rows(tuple):
    __slots__ = ()


class Table(dict): ...


class Bag(set): ...


def twin(module: str) -> Any:
    """Make a class that only its module tells from another."""
    cls = type("Twin", (Quoting,), {})
    cls.__module__ = module
    return cls


TWINS = twin("one"), twin("two")


class Member:
    """One of the values that a call may be made with, as often as it is needed."""

    def __init__(self, make: Callable[[bool], Any], *same: Any) -> None:
        self.make = make  # of True: sets and dicts are filled in the other order
        self.same = same  # equal for two members if and only if a function must not tell them apart

    def __repr__(self) -> str:
        return f"{self.make(False)!r} as {self.same!r}"


def leaf(values: Any, same: Callable[[Any], Any] = repr) -> Any:
    """Make members of values, told apart by class and by what `same` returns for them."""
    return values.map(lambda value: Member(lambda _: value, type(value), same(value)))


def made(kind: Any, make: Callable[..., Any], *parts: Any) -> Any:
    """Make members of a fixed number of others."""

    def member(chosen: tuple[Member, ...]) -> Member:
        return Member(
            lambda backwards: make(*(part.make(backwards) for part in chosen)),
            kind,
            *(part.same for part in chosen),
        )

    return st.tuples(*parts).map(member)


def row(kind: Any, make: Callable[[list[Any]], Any], inner: Any) -> Any:
    """Make members of any number of others, in order."""

    def member(chosen: list[Member]) -> Member:
        return Member(
            lambda backwards: make([part.make(backwards) for part in chosen]),
            kind,
            *(part.same for part in chosen),
        )

    return st.lists(inner, max_size=3).map(member)


def heap(kind: Any, make: Callable[[list[Any]], Any], inner: Any, by: Any = None) -> Any:
    """Make members of any number of others that differ, in any order."""

    def member(chosen: list[Member]) -> Member:
        return Member(
            lambda backwards: make([m.make(backwards) for m in chosen[:: -1 if backwards else 1]]),
            kind,
            frozenset(Counter(part.same for part in chosen).items()),
        )

    unique = st.lists(inner, max_size=3, unique_by=by or (lambda part: part.make(False)))
    return unique.map(member)


def filled(namespace: Any, pairs: Any) -> Any:
    """Give an object attributes."""
    for name, value in pairs:
        setattr(namespace, name, value)
    return namespace


NASTY = st.sampled_from([
    *("", "1", "a=1", "1, b=2", "'", '"', "\\", "\n", "\0", "\ud800", ")", "(,)", "[1]", "{}", ">"),
    *("<m.C 1>", "#", "None", "1>, <m.C 1", "\u2028"),
])  # fmt: skip
LONG = st.sampled_from([300, 301, 600, 601]).map(lambda length: "x" * length)
PLAIN_TEXT = NASTY | LONG | st.text(max_size=4)
SANE_TEXT = PLAIN_TEXT.filter(lambda text: "\ud800" not in text)
TEXT = leaf(PLAIN_TEXT)
ZONES = [None, timezone.utc, timezone(timedelta(hours=1)), timezone(timedelta(hours=1), "here")]
SCALARS = st.one_of(
    leaf(st.none() | st.booleans()),
    leaf(st.integers(-3, 3) | st.sampled_from([10**30, 10**30 + 1]), hex),
    leaf(st.sampled_from([600, 640, 4000]).map(lambda digits: 10**digits), hex),
    leaf(st.floats() | st.sampled_from([0.0, -0.0, 1.0, 2.0])),
    TEXT,
    leaf(SANE_TEXT.map(lambda text: text.encode())),
    leaf(SANE_TEXT.map(lambda text: bytearray(text.encode()))),
    leaf(st.sampled_from([*Color, *Level, *Word, Right.READ, Right.WRITE, ~Right(0), Right(0)])),
    made(Quoting, Quoting, leaf(SANE_TEXT)),
    *(made(cls, cls, leaf(st.sampled_from("ab"))) for cls in TWINS),
    made(Own, Own, leaf(SANE_TEXT)),
    leaf(st.sampled_from([complex(1, 0), complex(1, -0.0), complex(-0.0, 1), 1j, 0j])),
    made(Text, Text, TEXT),
    made(Number, Number, leaf(st.integers(-1, 1))),
    made(Real, Real, leaf(st.sampled_from([0.0, -0.0, 1.0]))),
    leaf(st.sampled_from([Decimal(1), Decimal("1.0"), Decimal("NaN"), Decimal("-0")])),
    leaf(st.sampled_from([PurePosixPath("1"), PurePosixPath("a/b"), PureWindowsPath("1")])),
    leaf(st.builds(datetime, st.just(2024), st.integers(1, 2), st.integers(1, 2),
                   tzinfo=st.sampled_from(ZONES), fold=st.integers(0, 1))),
    leaf(st.sampled_from([date(2024, 1, 1), time(1), timedelta(1), timedelta(0, 1), UUID(int=1)])),
    leaf(st.sampled_from([range(3), range(0, 3, 2), ..., NotImplemented])),
    leaf(st.sampled_from([int, bool, Color, Point, Quoting, list[int], list[str]])),
    leaf(st.sampled_from([pow, math.pow, len, str.upper, str.lower]),
         lambda it: (getattr(it, "__module__", None), it.__qualname__)),
    leaf(LONG).map(
        lambda text: Member(lambda _: re.compile(text.make(False)), "pattern", text.same)
    ),
)  # fmt: skip
HASHABLE = st.recursive(
    SCALARS.filter(lambda one: one.same[0] not in {Quoting, *TWINS, Own, bytearray}),
    lambda inner: st.one_of(
        row(tuple, tuple, inner),
        row(Rows, Rows, inner),
        heap(frozenset, frozenset, inner),
        made(Place, Place, inner, inner),
        made(Pair, Pair, inner, inner),
    ),
    max_leaves=3,
)


def containers(inner: Any) -> Any:
    """Make what holds other values, to which the repr of what it holds is not always enough."""
    items = made("item", lambda key, value: (key, value), HASHABLE, inner)

    def mapping(kind: Any, make: Any = None) -> Any:
        by = lambda item: item.make(False)[0]  # noqa: E731 - short
        return heap(kind, make or kind, items, by)

    names = leaf(st.sampled_from(["a", "b"]))
    attributes = heap("names", list, made("name", lambda *pair: pair, names, inner),
                      lambda pair: pair.make(False)[0])  # fmt: skip
    size = leaf(st.sampled_from([None, 3, 4]))
    return st.one_of(
        row(list, list, inner),
        row(tuple, tuple, inner),
        row(Row, Row, inner),
        row(Rows, Rows, inner),
        row(UserList, UserList, inner),
        row("values", lambda values: dict(enumerate(values)).values(), inner),
        row(OrderedDict, OrderedDict, items).filter(
            lambda one: len(one.make(False)) == len(one.same) - 1
        ),
        mapping(dict),
        mapping(Table),
        mapping("view", lambda pairs: dict(pairs).items()),
        mapping("proxy", lambda pairs: MappingProxyType(dict(pairs))),
        made(defaultdict, defaultdict, leaf(st.sampled_from([int, list])), mapping(dict)),
        made(deque, deque, row(list, list, inner), size),
        heap(set, set, HASHABLE),
        heap(Bag, Bag, HASHABLE),
        made(Row, lambda pairs: filled(Row(), pairs), attributes).filter(
            lambda one: vars(one.make(False))
        ),
        made(SimpleNamespace, lambda pairs: SimpleNamespace(**dict(pairs)), attributes),
        made(slice, slice, inner, inner),
        made(functools.partial, lambda *parts: functools.partial(len, *parts), inner, inner),
        made(ValueError, ValueError, inner),
        made(Point, Point, inner, inner),
        made(Pair, Pair, inner, inner),
        made(Model, lambda x, y, z: filled(Model(x=x, z=z), [("_y", y)]), inner, inner, inner),
    )


VALUES = st.recursive(SCALARS | HASHABLE, containers, max_leaves=5)


def function(a: Any, b: Any = 2, /, c: Any = (), *rest: Any, d: Any = None, **named: Any) -> None:
    """Have parameters of each kind."""


def bound(args: tuple[Member, ...], kwargs: dict[str, Member]) -> Any:
    """Return what `function` would see of a call."""
    two, nothing = (int, hex(2)), (tuple,)
    same = [one.same for one in args]
    a, b, c, *rest = (*same, *(two, nothing)[len(same) - 1 :]) if len(same) < 3 else same
    named = {name: one.same for name, one in kwargs.items()}
    c = named.pop("c", c)
    d = named.pop("d", (type(None), "None"))
    return a, b, c, tuple(rest), d, frozenset(named.items())


def key_of(cached: Any, args: Any, kwargs: Any = None, backwards: bool = False) -> str:
    """Return the key of a call with these members."""
    named = {name: one.make(backwards) for name, one in (kwargs or {}).items()}
    if backwards:
        named = dict(reversed(named.items()))
    key: str = cached.key_for(*(one.make(backwards) for one in args), **named)
    return key


NAMES = st.sampled_from(
    ["d", "x", "y", "x, y", "x=1, y", "a", "b", "\ud800", "\ud801", "\ufffd", "'\\ud800'"]
)
CALLS = st.tuples(
    st.lists(VALUES, min_size=1, max_size=4).map(tuple),
    st.dictionaries(NAMES, VALUES, max_size=3),
)


@pytest.fixture(scope="module")
def cached() -> Any:
    """Decorate the function, once for all examples."""
    with Cachetronaut(":memory:") as cache:
        yield cache(function)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(one=CALLS, two=CALLS)
def test_calls_share_a_key_if_and_only_if_they_are_equal(cached: Any, one: Any, two: Any) -> None:
    assert (key_of(cached, *one) == key_of(cached, *two)) == (bound(*one) == bound(*two))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values=st.lists(VALUES, min_size=2, max_size=12) | st.lists(SCALARS, min_size=30))
def test_values_share_a_key_if_and_only_if_they_are_equal(cached: Any, values: Any) -> None:
    by_key: dict[str, Any] = {}
    for value in values:
        by_key.setdefault(key_of(cached, [value]), value.same)
    assert len(by_key) == len({value.same for value in values})
    for value in values:
        assert by_key[key_of(cached, [value], backwards=True)] == value.same


@settings(max_examples=EXAMPLES // 2, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    args=st.lists(VALUES, min_size=3, max_size=5),
    named=st.dictionaries(NAMES, VALUES, max_size=3),
)
def test_spellings_of_one_call_share_a_key(cached: Any, args: Any, named: Any) -> None:
    key = key_of(cached, args, named)
    assert key_of(cached, args, named, backwards=True) == key
    if len(args) == 3:
        assert key_of(cached, args[:2], {"c": args[2], **named}) == key
    if "d" not in named:
        nothing = Member(lambda _: None)
        assert key_of(cached, args, {"d": nothing, **named}) == key


@settings(max_examples=EXAMPLES // 3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(between=st.lists(SCALARS, max_size=2))
def test_no_repr_imitates_other_arguments(cached: Any, between: Any) -> None:
    real = [Quoting("a"), *(one.make(False) for one in between), Quoting("b")]
    key = cached.key_for(*real)
    opening = f"<{__name__}.Quoting "
    forged = key[key.index(opening) + len(opening) : key.rindex(">")]
    for text in (forged, forged.replace(", b=", ", ", 1)):
        assert cached.key_for(Quoting(text)) != key
        assert cached.key_for([Quoting(text)]) != cached.key_for(real)


@settings(max_examples=EXAMPLES // 3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(one=VALUES, two=VALUES)
def test_what_is_remembered_of_a_call_is_its_own_key(one: Any, two: Any) -> None:
    with Cachetronaut(":memory:") as cache:
        calls: list[Any] = []

        @cache
        def count(value: Any) -> int:
            calls.append(value)
            return len(calls)

        results = [count(each.make(False)) for each in (one, two, one, two)]
    assert results == ([1, 1, 1, 1] if one.same == two.same else [1, 2, 1, 2])


# Closures.


def multiplier(factor: Any) -> Callable[[Any], Any]:
    def multiply(x: Any) -> Any:
        return [factor, x]

    return multiply


def twice(inner: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(inner)
    def wrapper(x: Any) -> Any:
        return [inner(x)] * 2

    return wrapper


def thrice(inner: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(inner)
    def wrapper(x: Any) -> Any:
        return [inner(x)] * 3

    return wrapper


def identity(x: Any) -> Any:
    return x


@Cachetronaut(":memory:")
def decorated(x: Any) -> Any:
    return x


class Nowhere(tzinfo):
    """A zone whose repr is an address."""


class Shop:
    """Its methods can be told by the class."""

    @classmethod
    def create(cls, x: Any) -> Any:
        return x

    @decorated.cache
    def price(self, x: Any) -> Any:
        return x


def decorated_multiplier(cache: Cachetronaut, factor: Any) -> Any:
    @cache
    def inner(x: Any) -> Any:
        return [factor, x]

    return inner


class Client(Cachetronaut):
    """A client of one's own."""


# Of a private client nothing tells which it is.
FOLDER = tempfile.TemporaryDirectory()
OTHER = Cachetronaut(Path(FOLDER.name) / "a.db")
OWN_CLIENT = Client(Path(FOLDER.name) / "b.db")

PAIRS: list[Callable[[], Any]] = [
    lambda: multiplier(1),
    lambda: multiplier(1.0),
    lambda: multiplier(True),
    lambda: multiplier("1"),
    lambda: multiplier((1, (2, None))),
    lambda: multiplier(frozenset({"b", "a"})),
    lambda: multiplier(Color.RED),
    lambda: multiplier(Color.BLUE),
    lambda: multiplier(Place(1)),
    lambda: multiplier(Point),
    lambda: multiplier(struct),
    lambda: multiplier(len),
    lambda: multiplier(identity),
    lambda: multiplier(lambda x: x + 1),
    lambda: multiplier(lambda x: x + 2),
    lambda: multiplier(lambda x, y=1: x + y),
    lambda: multiplier(lambda x, y=2: x + y),
    lambda: multiplier(multiplier(1)),
    lambda: multiplier(multiplier(2)),
    lambda: multiplier(OTHER),
    lambda: multiplier(OWN_CLIENT),
    lambda: multiplier(OTHER.get),
    lambda: multiplier(OTHER.set),
    lambda: multiplier((OTHER, (decorated, 1))),
    lambda: multiplier((OTHER, (decorated, 2))),
    lambda: multiplier(decorated),
    lambda: multiplier(Shop.create),
    lambda: multiplier(Shop.price),
    lambda: multiplier(Own("a").__cache_key__),
    lambda: multiplier(decorated_multiplier(OTHER, 1)),
    lambda: multiplier(decorated_multiplier(OTHER, 2)),
    lambda: multiplier(functools.lru_cache(multiplier(3))),
    lambda: multiplier(functools.partial(identity, 1)),
    lambda: multiplier(functools.partial(identity, x=1)),
    lambda: multiplier(functools.partial(multiplier(1), 1)),
    lambda: multiplier("a".join),
    lambda: multiplier("b".join),
    lambda: multiplier(str.upper),
    lambda: multiplier(str.lower),
    lambda: multiplier(Own("a")),
    lambda: multiplier(Own("b")),
    lambda: multiplier((Own("b"), 1)),
    lambda: multiplier(logging.getLogger("a")),
    lambda: multiplier(logging.getLogger("b")),
    lambda: multiplier(re.compile("x" * 300)),
    lambda: multiplier(re.compile("x" * 301)),
    lambda: multiplier(re.compile("x" * 301, re.IGNORECASE)),
    lambda: multiplier(Right.READ | Right.WRITE),
    lambda: multiplier(Pair(1, (2,))),
    lambda: multiplier(range(3)),
    lambda: twice(identity),
    lambda: thrice(identity),
    lambda: twice(twice(identity)),
    lambda: twice(multiplier(1)),
    lambda: identity,
]


def test_closures_over_fixed_values_share_entries_with_their_equals(cache: Cachetronaut) -> None:
    keys = [cache(make()).key_for(1) for make in PAIRS]
    assert len(set(keys)) == len(PAIRS)
    assert [cache(make()).key_for(1) for make in PAIRS] == keys


@pytest.mark.parametrize(
    "content",
    [
        *([1], {}, {1}, object(), (1, [2]), Point(1), SimpleNamespace(), Place([1]), Quoting("q")),
        *(Shop().price, Shop().create.__func__.__get__(Shop()), [].append, Pair(1, [2])),
        *(functools.partial(identity, []), multiplier([]), decorated_multiplier(OTHER, [])),
        datetime(2024, 1, 1, tzinfo=Nowhere()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_closures_over_anything_else_share_entries_with_nobody(
    cache: Cachetronaut, content: Any
) -> None:
    one, two = multiplier(content), multiplier(content)
    assert cache(one).key_for(1) != cache(two).key_for(1)
    assert cache(one).key_for(1) == cache(one).key_for(1)
    assert cache(twice(one)).key_for(1) != cache(twice(two)).key_for(1)


def test_a_cell_that_changes_is_never_a_wrong_hit(anywhere: Cachetronaut) -> None:
    factor: Any = 1

    @anywhere
    def multiply(x: int) -> Any:
        return [factor, x]

    @anywhere
    async def multiply_later(x: int) -> Any:
        return [factor, x]

    for value in (1, 2, [3], {4}, 1, 2):
        factor = value
        for _ in range(2):
            assert multiply(7) == [factor, 7]
            assert asyncio.run(multiply_later(7)) == [factor, 7]


def test_a_change_behind_a_function_that_a_closure_took_is_never_a_wrong_hit(
    anywhere: Cachetronaut,
) -> None:
    factor: Any = 1

    def inner(x: int) -> Any:
        return [factor, x]

    @anywhere
    def middle(x: int) -> Any:
        return inner(x)

    @anywhere
    def outer(x: int) -> Any:
        return [middle(x)]

    for value in (1, 2, [3], 1, 2):
        factor = value
        for _ in range(2):
            assert (middle(7), outer(7)) == ([factor, 7], [[factor, 7]])


def test_what_says_its_own_key_is_asked_each_time(anywhere: Cachetronaut) -> None:
    own = Own("a")

    @anywhere
    def text(x: int) -> str:
        return own.text

    assert text(1) == "a"
    own.text = "b"
    assert text(1) == "b"


def test_a_bound_method_is_known_by_what_its_object_is_now(anywhere: Cachetronaut) -> None:
    class Kiosk:
        def __init__(self, name: str) -> None:
            self.name = name

        def __repr__(self) -> str:
            return self.name

        def price(self, x: int) -> str:
            return self.name

        cached = anywhere(price)

    for make in (lambda it: it.price, lambda it: it.cached, lambda it: anywhere(it.price)):
        a, b = Kiosk("a"), Kiosk("b")
        functions = [anywhere(make(a)), anywhere(make(b))]
        assert [function(1) for function in functions] == ["a", "b"]
        a.name = "c"
        assert [function(1) for function in functions] == ["c", "b"]


def test_objects_around_one_function_are_apart(anywhere: Cachetronaut) -> None:
    class Times:
        def __init__(self, inner: Any, factor: int) -> None:
            functools.update_wrapper(self, inner)
            self.inner, self.factor = inner, factor

        def __call__(self, x: int) -> int:
            return self.inner(x) * self.factor

    assert [anywhere(Times(identity, 2))(1), anywhere(Times(identity, 3))(1)] == [2, 3]
    assert anywhere(Times(len, 2))("a") == 2


def test_a_wrapper_with_defaults_of_its_own_is_called_by_those(anywhere: Cachetronaut) -> None:
    def add(x: int, y: int = 2) -> int:
        return x + y

    @anywhere
    @functools.wraps(add)
    def more(x: int, y: int = 5) -> int:
        return add(x, y)

    @anywhere
    @functools.wraps(add)
    def swapped(y: int, x: int) -> Any:
        return (x, y)

    @anywhere
    @functools.wraps(more)
    def loud(*args: Any, shout: bool = False, **named: Any) -> Any:
        return (shout, add(*args, **named))

    @anywhere
    @functools.wraps(add)
    def quiet(*args: Any, **named: Any) -> int:
        return add(*args, **named)

    assert [more(1), more(1, 2), more(1, 5)] == [6, 3, 6]
    assert [swapped(1, 2), swapped(x=1, y=2)] == [(2, 1), (1, 2)]
    assert [loud(1), loud(1, shout=True), loud(1, y=3)] == [(False, 3), (True, 3), (False, 4)]
    assert quiet.key_for(1) == quiet.key_for(x=1) == quiet.key_for(1, y=2) != quiet.key_for(1, 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_has_tokens_of_its_own(cache: Cachetronaut) -> None:
    function = cache(multiplier([1]))
    mine = function.key_for(1)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(
        target=lambda: sender.send([function.key_for(1), function.key_for(1), mine])
    )
    child.start()
    one, same, inherited = receiver.recv()
    child.join()
    assert one == same != inherited == mine == function.key_for(1)


def test_threads_that_ask_at_once_get_one_key(cache: Cachetronaut) -> None:
    def ask(function: Any, ready: threading.Barrier) -> str:
        ready.wait()
        key: str = function.key_for(1)
        return key

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            for _ in range(100):
                function, ready = cache(multiplier([1])), threading.Barrier(8)
                asked = [pool.submit(ask, function, ready) for _ in range(8)]
                assert len({one.result() for one in asked}) == 1
    finally:
        sys.setswitchinterval(interval)


def test_a_huge_closure_is_described_in_reasonable_time(cache: Cachetronaut) -> None:
    many: Any = ()
    for _ in range(40):
        many = (many, many)
    function = cache(multiplier(many))
    assert function.key_for(1) == function.key_for(1)


def test_recursion_and_cycles_of_closures(anywhere: Cachetronaut) -> None:
    def make(base: int) -> Any:
        @anywhere
        def even(n: int) -> int:
            return base if n == 0 else odd(n - 1)

        @anywhere
        def odd(n: int) -> int:
            return -base if n == 0 else even(n - 1)

        return even

    assert [make(1)(10), make(2)(10), make(1)(11), make(2)(11)] == [1, 2, -1, -2]
    assert make(1).key_for(1) == make(1).key_for(1)


def test_a_closure_that_refers_to_itself_can_be_collected(cache: Cachetronaut) -> None:
    def make() -> Any:
        calls: list[Any] = []

        @cache
        def fib(n: int) -> int:
            calls.append(fib)
            return n if n < 2 else fib(n - 1) + fib(n - 2)

        assert fib(5) == 5
        return weakref.ref(fib)

    reference = make()
    gc.collect()
    assert reference() is None


def test_keys_of_closures_and_lambdas_are_the_same_in_every_process(
    run_python: Callable[..., CompletedProcess[str]],
) -> None:
    code = (
        "from cachetronomy import Cachetronaut\n"
        "cache = Cachetronaut(':memory:')\n"
        "import logging, re\n"
        "@cache\n"
        "def cached(x): pass\n"
        "class Shop:\n"
        "    __cache_key__ = lambda self: 'shop'\n"
        "    price = cached\n"
        "fixed = (cache, cache.get, cached, Shop().price, re.compile('a'), logging.getLogger())\n"
        "def make(a, f):\n"
        "    return lambda x: (a, f, fixed, x in {'p', 'q', 'r'})\n"
        "def local(fixed):\n"
        "    return cache(lambda x: fixed)\n"
        "function = make(('t', frozenset('xyz')), local(fixed))\n"
        "print(cache(function).key_for(1))\n"
        "[make.__code__] * 7, [function.__code__] * 9\n"
        "print(cache(function).key_for(1))\n"
    )
    lines = [line for _ in range(3) for line in run_python(code).stdout.splitlines()]
    assert len(lines) == 6
    assert len(set(lines)) == 1
