"""Wrong calls: type checkers must report each line marked `# wrong`, and no other. Never run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachetronomy import AsyncCachetronaut, Cachetronaut

if TYPE_CHECKING:
    from collections.abc import Callable

cache = Cachetronaut(":memory:")
acache = AsyncCachetronaut(db_path=":memory:")


class User:
    """Stands for a caller's class."""

    name = "x"

    @cache
    def age(self, year: int) -> int:
        """Return an age."""
        return year

    @cache
    async def load(self, number: int) -> bytes:
        """Return something."""
        return bytes(number)

    @classmethod
    @cache
    def kind(cls, n: int) -> str:
        """Return something."""
        return cls.__name__ * n

    @staticmethod
    @cache
    def plain(n: int) -> str:
        """Return something."""
        return "x" * n

    @property
    @cache
    def size(self) -> float:
        """Return something."""
        return 1.0


@cache
def function(a: int, /, b: str = "x", *, c: float = 1.0) -> str:
    """Return something."""
    return f"{a}{b}{c}"


@cache
async def coroutine(n: int) -> bytes:
    """Return something."""
    return bytes(n)


def takes_text(text: str) -> str:
    """Return the text."""
    return text


def functions() -> None:
    """Call a decorated function."""
    function("wrong")  # wrong
    function()  # wrong
    function(a=1)  # wrong
    function(1, "b", 2.0)  # wrong
    function(1, c="c")  # wrong
    function(1, unknown=1)  # wrong
    function(1) + 1  # wrong
    function.key_for("wrong")  # wrong
    function.key_for(1, unknown=1)  # wrong
    function.invalidate("wrong")  # wrong
    function.refresh()  # wrong
    function.refresh(1) + 1  # wrong
    function.cache_info(1)  # wrong
    takes_text(function.cache_info().unknown)  # wrong
    function.cache_clear(1)  # wrong
    takes_text(function.unknown)  # wrong
    function.cache = cache  # wrong
    takes_text(function)  # wrong
    handed: Callable[[str], str] = function  # wrong
    del handed


async def coroutines() -> None:
    """Call a decorated coroutine function."""
    coroutine(1) + b"x"  # wrong
    await coroutine("wrong")  # wrong
    await coroutine.invalidate("wrong")  # wrong
    await coroutine.refresh()  # wrong
    takes_text(coroutine.cache_info().hits)  # wrong
    await function(1)  # wrong
    await function.invalidate(1)  # wrong


async def methods() -> None:
    """Call decorated methods."""
    User().age("wrong")  # wrong
    User().age()  # wrong
    User().age(User(), 1)  # wrong
    User.age(1)  # wrong
    User.age("wrong", 1)  # wrong
    User().age.key_for()  # wrong
    User().age.invalidate("wrong")  # wrong
    await User().load("wrong")  # wrong
    await User().load.refresh("wrong")  # wrong
    User.kind("wrong")  # wrong
    User().kind()  # wrong
    User.kind(User, 1)  # wrong
    User.kind.invalidate("wrong")  # wrong
    User.kind(1) + 1  # wrong
    User.plain("wrong")  # wrong
    User().plain("wrong")  # wrong
    User().plain.refresh()  # wrong
    User().size()  # wrong


def options() -> None:
    """Give wrong options."""
    cache(ttl=[1])  # wrong
    cache(ttl=lambda _: [1])  # wrong
    cache(tags=1)  # wrong
    cache(tags=lambda _: 1)  # wrong
    cache(version="2")  # wrong
    cache(prefer=1)  # wrong
    cache(key_builder=lambda _: "key")  # wrong
    cache(key_builder=lambda _function, _args, _kwargs: 1)  # wrong
    cache(ignore=1)  # wrong
    cache(jitter="0.1")  # wrong
    cache(condition=True)  # wrong
    cache(cache_exceptions="ValueError")  # wrong
    cache(cache_exceptions=KeyboardInterrupt)  # wrong
    cache(negative_ttl=lambda _: 1)  # wrong
    cache(stale_while_revalidate=[1])  # wrong
    cache(stale_if_error=lambda _: 1)  # wrong
    cache(early="yes")  # wrong
    cache(lock="threads")  # wrong
    cache(unknown=1)  # wrong
    cache(60)  # wrong


def entries() -> None:
    """Read entries."""
    cache.get(1)  # wrong
    cache.get("k", 0)  # wrong
    takes_text(cache.get("k", model=User).name)  # wrong
    takes_text(cache.get("k", model=User, default=0).name)  # wrong
    takes_text(cache.get("k", model=User))  # wrong
    cache.get("k", promote="no")  # wrong
    cache.get_or_compute("k", 1)  # wrong
    cache.get_or_compute("k", takes_text)  # wrong
    takes_text(cache.get_or_compute("k", lambda: 1).name)  # wrong
    cache.get_or_set("k", lambda: 1, ttl=[1])  # wrong
    cache.get_or_set("k", lambda: 1, lock=True)  # wrong


async def awaits() -> None:
    """Use the async client."""
    await acache.get(1)  # wrong
    takes_text(await acache.get("k", model=User))  # wrong
    takes_text(acache.get("k"))  # wrong
    await acache.set("k", 1, tll=60)  # wrong
    await acache.delete(1)  # wrong
    takes_text(await acache.count())  # wrong
    await acache.get_or_compute("k", 1)  # wrong
    with acache.lock("job"):  # wrong
        pass
    acache(unknown=1)  # wrong
    len(acache)  # wrong
