"""The options of `@cache`, on plain and on coroutine functions."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cachetronomy import Cachetronaut, InvalidSettingError, SerializationError
from cachetronomy.core.serialization import register_serializer
from conftest import short_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachetronomy._core import ManualClock
    from conftest import Tier

pytestmark = pytest.mark.both_clients


def run(result: Any) -> Any:
    """Wait for what a coroutine function returned."""
    if not inspect.isawaitable(result):
        return result

    async def wait() -> Any:
        return await result

    return asyncio.run(wait())


@pytest.fixture(params=["plain", "coroutine"])
def color(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Make a plain function of a plain one, and a coroutine function: the test runs with either."""
    if request.param == "plain":
        return lambda function: function

    def paint(function: Any) -> Any:
        async def painted(*args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(0)
            return function(*args, **kwargs)

        painted.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        painted.__name__, painted.__qualname__ = function.__name__, function.__qualname__
        return painted

    return paint


CALLS: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


def function(a: Any, b: Any = 2, *rest: Any, c: Any = 3, **named: Any) -> str:
    CALLS.append((a, b, rest, c, named))
    return f"result {len(CALLS)}"


@pytest.mark.parametrize(
    ("ignore", "same", "other"),
    [
        (("a",), [((1,), {}), ((2,), {}), ((object(),), {}), ((), {"a": 3})], ((1, 3), {})),
        ("b", [((1, 2), {}), ((1,), {"b": object()})], ((2, 2), {})),
        (["a", "c"], [((1,), {"c": 1}), ((2,), {"c": 2})], ((1,), {"z": 2})),
        (("rest",), [((1, 2), {}), ((1, 2, 3), {}), ((1, 2, 3, 4), {})], ((1, 3, 3), {})),
        (("named",), [((1,), {}), ((1,), {"x": object()})], ((1,), {"c": 1})),
        ((), [((1,), {})], ((2,), {})),
    ],
    ids=short_id,
)
def test_what_is_ignored_is_not_in_the_key(
    anywhere: Cachetronaut, color: Any, ignore: Any, same: Any, other: Any
) -> None:
    cached = anywhere(color(function), ignore=ignore)
    for _ in range(2):
        assert {run(cached(*args, **kwargs)) for args, kwargs in same} == {"result 1"}
        assert len({cached.key_for(*args, **kwargs) for args, kwargs in same}) == 1
    assert run(cached(*other[0], **other[1])) == "result 2"
    with pytest.raises(TypeError):
        run(cached(1, b=1, a=2))


class Plain:
    """Its repr is an address."""

    def method(self, x: int) -> str:
        return function(x)


def test_a_method_may_ignore_its_object(anywhere: Cachetronaut, color: Any) -> None:
    class Shop:
        @anywhere(ignore=("self",))
        @color
        def price(self, item: str) -> str:
            return function(item)

    results = [run(Shop().price("x")), run(Shop().price(item="x")), run(Shop().price("y"))]
    assert results == ["result 1", "result 1", "result 2"]
    bound = anywhere(Plain().method, ignore=("self",))
    assert [bound(1), anywhere(Plain().method, ignore="self")(1)] == ["result 3"] * 2
    with pytest.raises(TypeError, match="ignore="):
        anywhere(Plain().method)


class Own:
    """It says itself what tells it apart."""

    def __init__(self, key: Any) -> None:
        self.key = key

    def __cache_key__(self) -> Any:
        return self.key


class Other(Own):
    """Another class of the same keys."""


def test_an_argument_may_name_its_own_key(anywhere: Cachetronaut, color: Any) -> None:
    cached = anywhere(color(function))
    values: list[Callable[[str], Any]] = [
        Own,
        Other,
        str,
        lambda key: [Own(key)],
        lambda key: {"k": (Own(key),)},
        lambda key: {Own: 1, "x": Own(key)},
    ]
    results = [run(cached(make(key))) for make in values for key in ("a", 'a">, b="')]
    assert len(set(results)) == len(results) == len(CALLS)
    assert [run(cached(make(key))) for make in values for key in ("a", 'a">, b="')] == results
    assert cached.key_for(Own("k")).endswith('.Own "k">, b=2, rest=(,), c=3, named={})')
    for wrong in (7, None, b"k", "\ud800"):
        with pytest.raises(TypeError, match=r'"a".*Own.__cache_key__\(\) returned'):
            run(cached([Own(wrong)]))


@pytest.mark.parametrize("name", ["ttl", "time_to_live"])
def test_a_time_to_live_may_depend_on_the_result(
    anywhere: Cachetronaut, color: Any, clock: ManualClock, name: str
) -> None:
    lives: dict[str, Any] = {"s": 10, "d": timedelta(seconds=10), "t": "10s", "n": None}
    lives |= {"i": math.inf, "z": 0}

    @anywhere(**{name: lives.get})
    @color
    def echo(kind: str) -> str:
        CALLS.append(kind)
        return kind

    for kind in lives:
        assert run(echo(kind)) == kind
    lasting = {kind: anywhere.key_metadata(echo.key_for(kind)) for kind in lives}
    assert lasting["z"] is None
    clock.advance(9.9)
    for kind in "sdtni":
        run(echo(kind))
    assert len(CALLS) == 6
    clock.advance(0.1)
    for kind in "sdtni":
        run(echo(kind))
    assert CALLS[6:] == ["s", "d", "t"]
    lives["n"] = "nonsense"
    clock.advance(3_600)
    with pytest.raises(InvalidSettingError, match="nonsense") as caught:
        run(echo("n"))
    assert caught.value.value == "n"


def test_jitter_varies_the_time_to_live(cache: Cachetronaut, color: Any) -> None:
    def seconds(**options: Any) -> set[float]:
        cached = cache(color(function), jitter=0.1, **options)
        for number in range(60):
            run(cached(number))
        items = cache.items()
        cache.clear_all()
        start = min(item.expire_at for item in items)
        return {(item.expire_at - start).total_seconds() for item in items}

    for options in ({"ttl": 100}, {"ttl": lambda _: "100s"}):
        spans = seconds(**options)
        assert len(spans) > 50
        assert 10 < max(spans) <= 20, "100 seconds, a tenth more or less"
    assert 360 < max(seconds()) <= 720, "the profile's hour"
    assert seconds(ttl=math.inf) == {0}
    none = cache(color(function), jitter=0.5, ttl=0)
    run(none(1))
    assert cache.all_keys() == []


def test_tags_may_depend_on_the_arguments(anywhere: Cachetronaut, color: Any) -> None:
    def tags(a: Any, *_: Any, **named: Any) -> Any:
        return named.get("tags", f"user:{a}")

    anywhere.update_active_profile(tags=["profile"])
    cached = anywhere(color(function), tags=tags)
    for args, named, expected in [
        ((1,), {}, ["user:1"]),
        ((2,), {"tags": ["x", "y"]}, ["x", "y"]),
        ((3,), {"tags": []}, []),
        ((4,), {"tags": None}, ["profile"]),
    ]:
        run(cached(*args, **named))
        metadata = anywhere.key_metadata(cached.key_for(*args, **named))
        assert metadata is not None
        assert metadata.tags == expected
    calls = len(CALLS)
    with pytest.raises(InvalidSettingError, match="tags"):
        run(cached(5, tags=7))
    assert len(CALLS) == calls


def test_only_results_that_meet_the_condition_are_stored(
    anywhere: Cachetronaut, color: Any
) -> None:
    @anywhere(condition=lambda result: result > 0)
    @color
    def echo(number: int) -> int:
        CALLS.append(number)
        return number

    assert [run(echo(n)) for n in (1, -1, 1, -1, 0)] == [1, -1, 1, -1, 0]
    assert CALLS == [1, -1, -1, 0]
    assert anywhere.all_keys() == [echo.key_for(1)]


class MineError(Exception):
    """An exception of the program's own."""


class CodedError(Exception):
    """It has attributes, and a constructor of its own."""

    def __init__(self, code: int, reason: str = "?") -> None:
        super().__init__(code, reason)
        self.code = code


class UnmakeableError(Exception):
    """Its arguments do not make it again."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}", "more")


ERRORS: list[Exception] = [
    ValueError("mine"),
    MineError(),
    MineError("a", 1, ("t",), None),
    CodedError(7, reason="r"),
    OSError(2, "no such file", "name"),
    FileNotFoundError(2, "no such file", "name"),
    KeyError("k"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ImportError("i", name="n", path="p"),
]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_exceptions_are_kept_and_raised_again(
    cache: Cachetronaut, color: Any, error: Exception, tier: Tier, clock: ManualClock
) -> None:
    @color
    def fails(number: int) -> int:
        CALLS.append(number)
        raise error

    options: Any = {"cache_exceptions": (type(error), AttributeError), "negative_ttl": 30}
    raised = []
    with pytest.raises(type(error)) as caught:
        run(cache(**options)(fails)(1))
    assert caught.value is error
    reader = tier(cache)
    cached = reader(fails, **options)
    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            run(cached(1))
        raised.append(caught.value)
    assert CALLS == [1]
    assert raised[0] is not raised[1]
    assert raised[0].__traceback__ is not raised[1].__traceback__
    for again in raised:
        assert type(again) is type(error)
        assert (again.args, str(again)) == (error.args, str(error))
        assert vars(again) == vars(error)
        assert getattr(again, "filename", None) == getattr(error, "filename", None)
    assert run(cached.cache_info())[:2] == (2, 0)
    assert reader.stats()["store_hits"] == 2
    clock.advance(30)
    with pytest.raises(type(error)):
        run(cached(1))
    assert CALLS == [1, 1]


def test_an_exception_that_is_kept_is_a_value_to_nobody(
    cache: Cachetronaut, color: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fails() -> int:
        CALLS.append(1)
        raise ValueError

    failing = color(fails)
    cached = cache(failing, cache_exceptions=ValueError)
    with pytest.raises(ValueError, match=r"^$"):
        run(cached())
    key = cached.key_for()
    assert cache.get(key, default="missing") == "missing"
    assert cache.get_many([key]) == {}
    assert key not in cache
    assert cache.items() == []
    assert cache.memory_keys() == []
    assert cache.check() == []
    metadata = cache.key_metadata(key)
    assert metadata is not None
    assert metadata.fmt == "cachetronomy-exception"
    # A function that names the class no more takes it for a miss.
    for others in ((), (KeyError,)):
        with pytest.raises(ValueError, match=r"^$"):
            run(cache(failing, cache_exceptions=others)())
    assert len(CALLS) == 3
    assert caplog.records == []
    with pytest.raises(InvalidSettingError, match="built-in"):
        register_serializer("cachetronomy-exception", repr, bytes)


def test_other_exceptions_pass_uncached(
    anywhere: Cachetronaut, color: Any, caplog: pytest.LogCaptureFixture
) -> None:
    errors = [KeyError(1), UnmakeableError(3), UnmakeableError(3), MineError(object())]
    todo = list(errors)

    @anywhere(cache_exceptions=(LookupError, UnmakeableError, MineError))
    @color
    def fails() -> None:
        raise todo.pop(0)

    for error in errors:
        with pytest.raises(type(error)) as caught:
            run(fails())
        assert caught.value is error
    assert anywhere.all_keys() == []
    assert [record.levelno for record in caplog.records] == [logging.WARNING], "one, not three"
    assert "was not kept" in caplog.text


def test_a_result_takes_the_place_of_an_exception(
    anywhere: Cachetronaut, color: Any, clock: ManualClock
) -> None:
    outcomes: list[Any] = [ValueError("x"), "computed"]

    @anywhere(cache_exceptions=ValueError)
    @color
    def function() -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    for _ in range(2):
        with pytest.raises(ValueError, match="x"):
            run(function())
    clock.advance(59.9)
    with pytest.raises(ValueError, match="x"):
        run(function())
    clock.advance(0.1)
    assert run(function()) == run(function()) == "computed"


async def awaited_by_nobody(*_: object) -> Any:
    raise AssertionError


WRONG: list[tuple[str, Any]] = [
    *((name, awaited_by_nobody) for name in ("condition", "key_builder", "tags", "ttl")),
    *(("ignore", value) for value in (("nobody",), "nobody", 7, (1,), object())),
    *(("jitter", value) for value in (-0.1, 1, 1.5, math.nan, "x", True)),
    *(("ttl", value) for value in (-1, math.nan, "x", object())),
    *(("tags", value) for value in (7, [1], "")),
    *(("condition", value) for value in (True, "x")),
    ("key_builder", "x"),
    *(("cache_exceptions", value) for value in (7, int, (ValueError, "x"), [ValueError])),
    *(("cache_exceptions", value) for value in (BaseException, KeyboardInterrupt, ValueError())),
    *(("negative_ttl", value) for value in (-1, "x", math.nan, object())),
]


@pytest.mark.parametrize(("option", "value"), WRONG, ids=short_id)
def test_a_wrong_option_is_refused_when_decorating(
    anywhere: Cachetronaut, color: Any, option: str, value: Any
) -> None:
    name = {"ttl": "time_to_live"}.get(option, option)
    with pytest.raises(InvalidSettingError, match=f"^{name}: "):
        anywhere(**{option: value})(color(function))


def test_options_that_exclude_each_other_are_refused(anywhere: Cachetronaut) -> None:
    with pytest.raises(TypeError, match="two names"):
        anywhere(ttl=lambda _: 1, time_to_live=1)
    with pytest.raises(InvalidSettingError, match="ignore: "):
        anywhere(ignore="a", key_builder=lambda *_: "k")


def test_a_result_that_is_not_to_be_stored_need_not_be_storable(
    anywhere: Cachetronaut, color: Any
) -> None:
    result = object()
    for condition, stored in ((bool, True), (lambda _: False, False)):

        @anywhere(condition=condition)
        @color
        def function() -> object:
            return result

        if stored:
            with pytest.raises(SerializationError):
                run(function())
        else:
            assert run(function()) is result


@pytest.mark.parametrize(
    ("number", "reason"),
    [(0, "Refused cannot be made again"), (2, "FileNotFoundError is a subclass")],
)
def test_an_exception_that_is_not_kept_says_why_once(
    cache: Cachetronaut, caplog: pytest.LogCaptureFixture, number: int, reason: str
) -> None:
    class Refused(OSError):  # noqa: N818 - as many are called
        def __init__(self, status: int) -> None:
            super().__init__(f"status {status}")

    @cache(cache_exceptions=(OSError, Refused))
    def fetch(number: int) -> None:
        raise Refused(number) if number < 2 else FileNotFoundError(number)

    for _ in range(2):
        with pytest.raises(OSError, match=str(number)):
            fetch(number)
    (record,) = caplog.records
    assert reason in record.getMessage()
    assert len(cache) == 0


def test_an_option_without_its_name_is_refused_with_advice(cache: Any) -> None:
    with pytest.raises(TypeError, match=r"not 60.*@cache\(ttl=60\)"):
        cache(60)


@pytest.mark.parametrize("thing", [int, max, dict.get, str.upper, 5])
def test_what_has_no_parameters_to_read_is_refused_with_advice(cache: Any, thing: object) -> None:
    with pytest.raises(TypeError, match="@cache"):
        cache(thing)


def test_a_lambda_inside_of_another_cache_is_decorated(cache: Any) -> None:
    one, other = (cache(functools.lru_cache(each)) for each in (lambda x: x, lambda x: x + 1))
    assert (one(1), other(1)) == (1, 2)
