"""Results past their time, and results that are computed anew before it.

A stale one is served while it is computed anew, or in the place of an exception.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import threading
import time
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cachetronomy import Cachetronaut, InvalidSettingError, _coroutines

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from cachetronomy._core import ManualClock

pytestmark = pytest.mark.both_clients


TTL = 10


class Body:
    """What is decorated: says how often it was called, waits and fails when it is told to."""

    def __init__(self) -> None:
        self.calls: Counter[int] = Counter()
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.error: BaseException | None = None
        self.seconds = 0.0

    def __call__(self, number: int) -> str:
        self.calls[number] += 1
        if not self.may_go_on.wait(20):
            raise TimeoutError
        if self.seconds:
            time.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return f"{number}: {self.calls[number]}"


class Plain:
    """Plain functions: they are refreshed by threads."""

    def decorate(self, cache: Cachetronaut, body: Body, **options: Any) -> Callable[..., str]:
        @cache(**options)
        def function(number: int) -> str:
            return body(number)

        return function

    def call(self, result: str) -> str:
        return result

    def settle(self) -> None:
        for thread in threading.enumerate():
            if thread.name == "cachetronomy-refresh":
                thread.join(20)


class Asynchronous:
    """Coroutine functions: they are refreshed by tasks of the loop."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()

    def decorate(self, cache: Cachetronaut, body: Body, **options: Any) -> Callable[..., Any]:
        @cache(**options)
        async def function(number: int) -> str:
            # Other tasks go on while this one waits.
            while not body.may_go_on.is_set():  # noqa: ASYNC110 - set by the test's own thread
                await asyncio.sleep(0.001)
            return body(number)

        return function

    def call(self, result: Coroutine[Any, Any, str]) -> str:
        return self.loop.run_until_complete(result)

    def settle(self) -> None:
        async def wait() -> None:
            await asyncio.gather(*_coroutines._refreshes)

        self.loop.run_until_complete(wait())


@pytest.fixture(params=[Plain, Asynchronous])
def kind(request: pytest.FixtureRequest) -> Iterator[Plain | Asynchronous]:
    made = request.param()
    yield made
    made.settle()
    if isinstance(made, Asynchronous):
        made.loop.close()


@pytest.fixture
def body() -> Body:
    return Body()


def test_a_stale_result_is_served_while_it_is_computed_anew(
    anywhere: Cachetronaut, clock: ManualClock, kind: Plain, body: Body
) -> None:
    cached = kind.decorate(anywhere, body, ttl=TTL, stale_while_revalidate=20)
    assert kind.call(cached(1)) == "1: 1"
    clock.advance(TTL + 1)
    body.may_go_on.clear()
    assert [kind.call(cached(1)) for _ in range(5)] == ["1: 1"] * 5
    body.may_go_on.set()
    kind.settle()
    assert kind.call(cached(1)) == "1: 2"
    assert body.calls == {1: 2}


@pytest.mark.parametrize("window", [20, timedelta(seconds=20), "20s"])
def test_after_the_window_the_caller_computes(
    anywhere: Cachetronaut, clock: ManualClock, kind: Plain, body: Body, window: object
) -> None:
    cached = kind.decorate(anywhere, body, ttl=TTL, stale_while_revalidate=window)
    kind.call(cached(1))
    clock.advance(TTL + 20)
    assert kind.call(cached(1)) == "1: 2"


def test_a_result_without_end_is_never_stale(
    anywhere: Cachetronaut, clock: ManualClock, kind: Plain, body: Body
) -> None:
    cached = kind.decorate(anywhere, body, ttl=math.inf, stale_while_revalidate=5, early=True)
    kind.call(cached(1))
    clock.advance(1e9)
    assert kind.call(cached(1)) == "1: 1"


def test_a_window_without_end_serves_for_ever(
    anywhere: Cachetronaut, clock: ManualClock, kind: Plain, body: Body
) -> None:
    cached = kind.decorate(anywhere, body, ttl=TTL, stale_while_revalidate=math.inf)
    kind.call(cached(1))
    clock.advance(1e8)
    assert kind.call(cached(1)) == "1: 1"
    kind.settle()
    assert kind.call(cached(1)) == "1: 2"


def test_only_the_function_itself_sees_its_stale_results(
    anywhere: Cachetronaut, clock: ManualClock, kind: Plain, body: Body
) -> None:
    cached: Any = kind.decorate(anywhere, body, ttl=TTL, stale_while_revalidate=20)
    kind.call(cached(1))
    key = cached.key_for(1)
    clock.advance(TTL + 1)
    assert anywhere.get(key) is None
    assert (key in anywhere, anywhere.ttl(key), anywhere.keys(), len(anywhere)) == (
        *(False, None, [], 0),
    )
    assert anywhere.add(key, "another")
    assert kind.call(cached(1)) == "another"


def test_sweeps_leave_stale_results_until_their_window_ends(
    anywhere: Cachetronaut, clock: ManualClock, kind: Plain, body: Body
) -> None:
    cached = kind.decorate(anywhere, body, ttl=TTL, stale_while_revalidate=20, stale_if_error="30s")
    kind.call(cached(1))
    anywhere.set("other", 1, ttl=TTL)
    clock.advance(TTL + 1)
    assert [entry.key for entry in anywhere.clear_expired()] == ["other"]
    assert kind.call(cached(1)) == "1: 1"
    kind.settle()
    clock.advance(TTL + 29)
    assert anywhere.clear_expired() == []
    clock.advance(1)
    assert len(anywhere.clear_expired()) == 1


def test_a_stale_result_outlives_its_process(
    open_cache: Callable[..., Cachetronaut], clock: ManualClock, body: Body
) -> None:
    kind = Plain()
    options: dict[str, Any] = {
        "ttl": TTL,
        "stale_while_revalidate": 20,
        "key_builder": lambda _, args, __: f"k{args[0]}",
    }
    first = open_cache()
    kind.decorate(first, body, **options)(1)
    first.close()
    clock.advance(TTL + 1)
    body.may_go_on.clear()
    assert kind.decorate(open_cache(), body, **options)(1) == "1: 1"
    body.may_go_on.set()
    kind.settle()


@pytest.mark.parametrize(
    "forget",
    [
        lambda cache, cached, call: call(cached.invalidate(1)),
        lambda cache, cached, call: call(cached.cache_clear()),
        lambda cache, cached, _: cache.delete(cached.key_for(1)),
        lambda cache, cached, _: cache.clear_by_tags("t"),
        lambda cache, cached, _: cache.delete_match("*"),
        lambda cache, cached, _: cache.clear_all(),
        lambda cache, cached, _: cache.clear_by_profile("default"),
    ],
    ids=["invalidate", "cache_clear", "delete", "tags", "match", "all", "profile"],
)
@pytest.mark.parametrize("has_builder", [False, True])
def test_what_is_taken_away_is_not_served_as_stale(
    anywhere: Cachetronaut,
    clock: ManualClock,
    kind: Plain,
    body: Body,
    forget: Callable[..., object],
    has_builder: bool,
) -> None:
    options = {"key_builder": lambda _, args, __: f"k{args[0]}"} if has_builder else {}
    cached = kind.decorate(
        anywhere, body, ttl=TTL, tags=["t"], stale_while_revalidate=20, stale_if_error=20, **options
    )
    kind.call(cached(1))
    clock.advance(TTL + 1)
    forget(anywhere, cached, kind.call)
    assert kind.call(cached(1)) == "1: 2"


def test_a_failing_refresh_is_logged_and_counted_and_not_repeated_at_once(
    anywhere: Cachetronaut,
    clock: ManualClock,
    kind: Plain,
    body: Body,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cached = kind.decorate(
        anywhere, body, ttl=TTL, stale_while_revalidate=20, cache_exceptions=ValueError
    )
    kind.call(cached(1))
    clock.advance(TTL + 1)
    body.error = ValueError("no answer")
    for _ in range(5):
        assert kind.call(cached(1)) == "1: 1"
        kind.settle()
    assert body.calls == {1: 2}
    assert anywhere.stats()["errors"] == 1
    (record,) = (record for record in caplog.records if record.levelno >= logging.WARNING)
    assert "refresh failed" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[1] is body.error
    clock.advance(1)
    body.error = None
    assert kind.call(cached(1)) == "1: 1"
    kind.settle()
    assert kind.call(cached(1)) == "1: 3"


def test_tags_that_cannot_be_told_fail_the_refresh_and_not_the_caller(
    anywhere: Cachetronaut, clock: ManualClock, kind: Plain, body: Body
) -> None:
    known = True

    def tags(_: int) -> list[str]:
        if not known:
            raise ValueError
        return []

    cached = kind.decorate(anywhere, body, ttl=TTL, stale_while_revalidate=20, tags=tags)
    kind.call(cached(1))
    clock.advance(TTL + 1)
    known = False
    assert kind.call(cached(1)) == "1: 1"
    assert anywhere.stats()["errors"] == 1


def test_a_refresh_after_the_client_was_closed_says_nothing(
    open_cache: Callable[..., Cachetronaut],
    clock: ManualClock,
    kind: Plain,
    body: Body,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache = open_cache()
    cached = kind.decorate(cache, body, ttl=TTL, stale_while_revalidate=20)
    kind.call(cached(1))
    clock.advance(TTL + 1)
    body.may_go_on.clear()
    kind.call(cached(1))
    cache.close()
    body.may_go_on.set()
    kind.settle()
    assert body.calls[1] == 2
    assert caplog.records == []


def test_threads_that_refresh_are_few(
    anywhere: Cachetronaut, clock: ManualClock, body: Body
) -> None:
    kind = Plain()
    cached = kind.decorate(anywhere, body, ttl=TTL, stale_while_revalidate=20)
    for number in range(20):
        cached(number)
    clock.advance(TTL + 1)
    body.may_go_on.clear()
    assert [cached(number) for number in range(20)] == [f"{number}: 1" for number in range(20)]
    running = [thread.name for thread in threading.enumerate()].count("cachetronomy-refresh")
    body.may_go_on.set()
    kind.settle()
    assert running == 8
    assert sum(body.calls.values()) == 28
    # Those that were left out come next.
    for number in range(20):
        cached(number)
        kind.settle()
    assert set(body.calls.values()) == {2}


def test_a_refresh_runs_in_the_context_of_its_caller(
    anywhere: Cachetronaut, clock: ManualClock, kind: Plain
) -> None:
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")

    class Who(Body):
        def __call__(self, number: int) -> str:
            return user.get()

    cached = kind.decorate(anywhere, Who(), ttl=TTL, stale_while_revalidate=20)
    kind.call(cached(1))
    clock.advance(TTL + 1)
    token = user.set("somebody")
    assert kind.call(cached(1)) == "nobody"
    user.reset(token)
    kind.settle()
    assert kind.call(cached(1)) == "somebody"


def test_inside_of_disabled_nothing_stale_is_served(
    anywhere: Cachetronaut, clock: ManualClock, kind: Plain, body: Body
) -> None:
    cached = kind.decorate(anywhere, body, ttl=TTL, stale_while_revalidate=20, stale_if_error=20)
    kind.call(cached(1))
    clock.advance(TTL + 1)
    with anywhere.disabled():
        assert kind.call(cached(1)) == "1: 2"
        body.error = ValueError()
        with pytest.raises(ValueError, match=r"^$"):
            kind.call(cached(1))


def test_a_stale_result_takes_the_place_of_an_exception(
    anywhere: Cachetronaut,
    clock: ManualClock,
    kind: Plain,
    body: Body,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cached = kind.decorate(anywhere, body, ttl=TTL, stale_if_error=20, cache_exceptions=ValueError)
    kind.call(cached(1))
    clock.advance(TTL + 1)
    body.error = ValueError("no answer")
    assert [kind.call(cached(1)) for _ in range(2)] == ["1: 1"] * 2
    assert body.calls == {1: 3}
    assert anywhere.stats()["errors"] == 2
    assert "no answer" in caplog.text
    body.error = None
    assert kind.call(cached(1)) == "1: 4"


def test_after_its_window_a_stale_result_hides_no_exception(
    anywhere: Cachetronaut, clock: ManualClock, kind: Plain, body: Body
) -> None:
    cached = kind.decorate(anywhere, body, ttl=TTL, stale_if_error=20)
    kind.call(cached(1))
    clock.advance(TTL + 20)
    body.error = ValueError("no answer")
    with pytest.raises(ValueError, match="no answer"):
        kind.call(cached(1))


def test_an_exit_is_no_error_that_a_stale_result_hides(
    anywhere: Cachetronaut, clock: ManualClock, kind: Plain, body: Body
) -> None:
    cached = kind.decorate(anywhere, body, ttl=TTL, stale_if_error=20)
    kind.call(cached(1))
    clock.advance(TTL + 1)
    body.error = GeneratorExit()
    with pytest.raises(GeneratorExit):
        kind.call(cached(1))


def test_near_its_end_a_result_is_computed_anew_early(
    anywhere: Cachetronaut, clock: ManualClock, kind: Plain, body: Body
) -> None:
    cached = kind.decorate(anywhere, body, ttl=1_000_000, early=True)
    body.seconds = 0.02
    kind.call(cached(1))
    clock.advance(500_000)
    for _ in range(100):
        kind.call(cached(1))
    kind.settle()
    assert body.calls == {1: 1}  # Far from it, never.
    clock.advance(499_999.999_999)
    assert kind.call(cached(1)) == "1: 1"
    kind.settle()
    assert body.calls == {1: 2}  # The computing takes 20,000 times as long as is left.
    assert kind.call(cached(1)) == "1: 2"
    clock.advance(999_999)
    assert kind.call(cached(1)) == "1: 2"  # Its life began anew.


def test_early_is_a_matter_of_chance(
    anywhere: Cachetronaut, clock: ManualClock, body: Body
) -> None:
    kind = Plain()
    anywhere.update_active_profile(max_items_in_memory=1_000)
    cached = kind.decorate(anywhere, body, ttl=10, early=True)
    body.seconds = 0.002
    for number in range(300):
        cached(number)
    # As long is left as the computing of most took: one of e is due.
    clock.advance(10 - 0.0022)
    for number in range(300):
        cached(number)
        kind.settle()
    refreshed = list(body.calls.values()).count(2)
    assert 50 < refreshed < 200


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"stale_while_revalidate": -1}, "stale_while_revalidate: -1"),
        ({"stale_while_revalidate": "soon"}, "stale_while_revalidate: .*soon"),
        ({"stale_if_error": math.nan}, "stale_if_error: .*[Nn]a[Nn]"),
        ({"stale_if_error": [1]}, r"stale_if_error: \[1\]"),
        ({"lock": "thread "}, "lock: 'thread '"),
        ({"lock": True}, "lock: True"),
        ({"early": 0.5}, r"early: 0\.5"),
        ({"ttl": "1 hour"}, r"time_to_live: .*math\.inf"),
    ],
)
def test_wrong_options_are_refused_by_name(
    cache: Cachetronaut, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidSettingError, match=reason):
        cache(**options)


def test_a_file_of_an_earlier_layout_gets_what_stale_results_need(
    open_cache: Callable[..., Cachetronaut],
    clock: ManualClock,
    body: Body,
    db_path: Path,
    query: Callable[..., object],
) -> None:
    cache = open_cache()
    cache.set("old", 1)
    cache.close()
    for change in (
        "DROP TRIGGER cache_measures_update",
        "DROP INDEX cache_by_function",
        "ALTER TABLE cache DROP COLUMN function",
        "ALTER TABLE cache DROP COLUMN stale_until",
    ):
        query(db_path, change)
    cache = open_cache()
    assert cache.get("old") == 1
    kind = Plain()
    cached = kind.decorate(cache, body, ttl=TTL, stale_while_revalidate=20)
    cached(1)
    clock.advance(TTL + 1)
    assert cached(1) == "1: 1"
    kind.settle()
