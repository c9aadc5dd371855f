"""Calls that type checkers must accept, with the types they must see. Checked, and never run.

`test_typing.py` has mypy and pyright read it. An ignored error is one that a checker reports of
right code: the comment says why nothing can be done.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar, overload

from cachetronomy import AsyncCachetronaut, Cachetronaut, Profile
from cachetronomy._core import CachedFunction
from cachetronomy.core.store import AsyncSQLiteStore, SQLiteStore
from cachetronomy.core.types.schemas import (
    AccessLogEntry,
    CacheEntry,
    CacheMetadata,
    CustomQuery,
    EvictionLogEntry,
)
from cachetronomy.info import CacheInfo
from typing_extensions import Self, assert_type

T = TypeVar("T")

cache = Cachetronaut(db_path=":memory:", max_items_in_memory=None)


def tags_of(_user: object, number: int) -> list[str]:
    """Return the tags of a call."""
    return [f"user:{number}"]


class User:
    """Stands for a caller's class."""

    @cache
    def age(self, year: int) -> int:
        """Return an age."""
        return year

    @cache(ignore="self", tags=tags_of)
    async def load(self, number: int) -> bytes:
        """Return something."""
        return bytes(number)

    @classmethod
    @cache
    def kind(cls, n: int) -> str:
        """Return something."""
        return cls.__name__ * n

    @staticmethod
    @cache(jitter=0.1, condition=bool, cache_exceptions=(ValueError,), negative_ttl="1m")
    def plain(n: int) -> list[str]:
        """Return something."""
        return ["x"] * n

    @staticmethod
    @cache
    def of_keywords(*numbers: int, name: str = "x") -> str:
        """Return something."""
        return name * len(numbers)

    @staticmethod
    @cache
    def of_anything(value: object) -> str:
        """Return something."""
        return str(value)

    @property
    @cache
    def size(self) -> float:
        """Return something."""
        return 1.0

    @classmethod
    @cache
    async def fetch(cls, n: int) -> bytes:
        """Return something."""
        return bytes(n)

    @classmethod
    @cache(ttl=60)
    def make(cls, n: int) -> Self:
        """Return something."""
        del n
        return cls()

    @cache
    def pick(self, items: list[T]) -> T:
        """Return something."""
        return items[0]


class Admin(User):
    """Stands for a subclass, which overrides cached methods."""

    # pyright compares the two objects with `self` in front, which is narrower in a subclass.
    @cache
    def age(  # pyright: ignore[reportIncompatibleVariableOverride]
        self, year: int
    ) -> bool:
        """Return an age."""
        return super().age(year) > 0

    @classmethod
    @cache
    def kind(  # pyright: ignore[reportIncompatibleVariableOverride]
        cls, n: int
    ) -> str:
        """Return something."""
        return super().kind(n)


class Box(Generic[T]):
    """Stands for a generic class."""

    def __init__(self, item: T) -> None:
        """Keep the item."""
        self.item = item

    @cache(ignore="self")
    def get(self, n: int) -> list[T]:
        """Return something."""
        return [self.item] * n


@dataclass(frozen=True)
class Point:
    """Stands for a dataclass."""

    x: int

    @cache
    def shifted(self, by: int) -> int:
        """Return something."""
        return self.x + by


class Aged(Protocol):
    """What a caller asks of an object."""

    def age(self, year: int) -> int:
        """Return an age."""
        ...


class Named(Protocol):
    """What a caller asks of a function."""

    def __call__(self, n: int, *, name: str = ...) -> dict[str, int]:
        """Return something."""
        ...


@cache
def every_kind(a: int, /, b: str = "b", *args: bytes, c: float = 1.0, **kwargs: bool) -> str:
    """Return something."""
    return f"{a}{b}{args}{c}{kwargs}"


@cache
def generic(items: list[T]) -> T:
    """Return something."""
    return items[0]


@overload
def overloaded(a: int) -> int: ...
@overload
def overloaded(a: str) -> str: ...
@cache
def overloaded(a: int | str) -> int | str:
    """Return the argument."""
    return a


@cache
def dynamic(n: int) -> Any:
    """Return something."""
    return n


@cache(
    ttl=lambda result: result[0],
    # pyright knows no types of a lambda's parameters where any parameters will do.
    tags=lambda n: f"n:{n}",  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    key_builder=lambda function, args, kwargs: f"{function.__name__}{args}{kwargs}",
    condition=lambda result: result,
)
def with_callables(n: int) -> list[int]:
    """Return something."""
    return [n]


def calls(function: Callable[[int], T]) -> T:
    """Call a function that was handed over."""
    return function(1)


def load() -> User:
    """Compute a value."""
    return User()


@cache
def bare(n: int, *, name: str = "x") -> dict[str, int]:
    """Return something."""
    return {name: n}


@cache(ttl=timedelta(hours=1), tags="users", version=2)
def with_options(n: int) -> list[int]:
    """Return something."""
    return [n]


@cache(ttl="1h30m", tags=["a", "b"])
async def coroutine(n: int) -> bytes:
    """Return something."""
    return bytes(n)


async def attributes() -> None:
    """Use what decorated functions and methods offer beside the call."""
    assert_type(bare.invalidate(1), bool)
    assert_type(bare.refresh(1, name="y"), dict[str, int])
    assert_type(bare.cache_info(), CacheInfo)
    bare.cache_clear()
    assert_type(await coroutine.invalidate(1), bool)
    assert_type(await coroutine.refresh(1), bytes)
    assert_type(await coroutine.cache_info(), CacheInfo)
    await coroutine.cache_clear()
    assert_type(User().age.key_for(2026), str)
    assert_type(User().age.invalidate(year=2026), bool)
    assert_type(User().age.refresh(2026), int)
    assert_type(await User().load(1), bytes)
    assert_type(await User().load.invalidate(1), bool)
    assert_type(await User().load.refresh(1), bytes)
    assert_type(User().load.key_for(1), str)
    assert_type(await User().load.cache_info(), CacheInfo)
    assert_type(User.kind.key_for(1), str)
    assert_type(User.kind.invalidate(1), bool)
    assert_type(User().kind.invalidate(n=1), bool)
    assert_type(User.kind.refresh(1), str)
    assert_type(User.kind.cache_info(), CacheInfo)
    User.kind.cache_clear()
    assert_type(await User.fetch.invalidate(1), bool)
    assert_type(User.age.key_for(User(), 2026), str)
    assert_type(User.age.invalidate(User(), 2026), bool)
    assert_type(User().plain.invalidate(1), bool)
    assert_type(User.age.__name__ + bare.__qualname__, str)
    assert_type(bare.__doc__, str | None)
    assert_type(User().age.cache.is_closed, bool | Any)
    # What returns `Any` may be awaited or not.
    assert_type(dynamic.invalidate(1), Any)
    assert_type(dynamic.cache_info(), Any)
    assert_type(User.plain.invalidate(1), bool)


def functions() -> None:
    """Call decorated functions."""
    assert_type(every_kind(1), str)
    assert_type(every_kind(1, "b", b"x", c=2, d=True), str)
    assert_type(generic([1]), int)
    assert_type(generic(["x"]), str)
    assert_type(overloaded(1), int)
    assert_type(overloaded("x"), str)
    assert_type(dynamic(1), Any)
    assert_type(with_callables(1), list[int])
    assert_type(cache(load)(), User)
    assert_type(calls(with_options), list[int])
    assert_type(calls(User().age), int)
    assert_type(calls(User.kind), str)
    assert_type(calls(User().plain), list[str])
    named: Named = bare
    one: CachedFunction[[int], list[int]] = cache(lambda n: [n])
    method: Callable[[User, int], int] = User.age
    del named, one, method


async def methods() -> None:
    """Call decorated methods."""
    assert_type(User().age(2026), int)
    assert_type(User().age(year=2026), int)
    assert_type(User.age(User(), 2026), int)
    assert_type(await User().load(1), bytes)
    assert_type(await User.load(User(), 1), bytes)
    assert_type(User.kind(1), str)
    assert_type(User().kind(n=1), str)
    assert_type(await User.fetch(1), bytes)
    assert_type(await User().fetch(1), bytes)
    assert_type(User.plain(1), list[str])
    assert_type(User().plain(1), list[str])
    assert_type(User.of_keywords(1, 2, name="x"), str)
    assert_type(User().of_keywords(1, 2, name="x"), str)
    assert_type(User.of_anything(1), str)
    assert_type(User().of_anything(1), str)
    assert_type(User().size, float)
    assert_type(Admin().age(2026), bool)
    assert_type(Admin.kind(1), str)
    assert_type(await Admin().load(1), bytes)
    assert_type(await Admin.fetch(1), bytes)
    assert_type(Admin().size, float)
    assert_type(Box("x").get(1), list[str])
    assert_type(Box(1).get.refresh(1), list[int])
    assert_type(Point(1).shifted(by=2), int)
    # pyright doesn't bind an object that is no function when it compares with a protocol.
    aged: Aged = User()  # pyright: ignore[reportAssignmentType]
    del aged
    # mypy solves a method's own type variables before it knows the object and the arguments.
    picked = User().pick([1])  # type: ignore[arg-type, var-annotated]
    made = Admin.make(1)  # type: ignore[call-arg, arg-type, var-annotated]
    del picked, made


def entries() -> None:
    """Read entries."""
    assert_type(cache.get("k"), Any)
    assert_type(cache.get("k", default=0), Any)
    assert_type(cache.get("k", model=User), User | None)
    assert_type(cache.get("k", User, promote=False, version=2), User | None)
    assert_type(cache.get("k", User, True, 0), User | int)
    assert_type(cache.get("k", model=list[int]), list[int] | None)
    cache.get("k", model=int | None)
    user = cache.get("k", model=User)
    if user is not None:
        assert_type(user.age(2026), int)
    assert_type(cache.get_or_compute("k", load), User)
    assert_type(cache.get_or_set("k", load, ttl="1h", tags=["t"]), User)
    assert_type(cache.get_or_compute("k", lambda: [1], 60, "t", 2), list[int])
    with Cachetronaut(":memory:") as opened:
        assert_type(opened, Cachetronaut)


async def uses() -> None:
    """Use everything."""
    assert_type(bare(1, name="y"), dict[str, int])
    assert_type(with_options(1), list[int])
    pending: Coroutine[Any, Any, bytes] = coroutine(1)
    assert_type(await pending, bytes)
    assert_type(await coroutine(1), bytes)
    assert_type(User().age(2026), int)
    assert_type(bare.key_for(1, name="y"), str)
    assert_type(bare.cache.stats(), dict[str, Any] | Any)
    assert_type(cache.get("k", User), User | None)
    assert_type(cache.get("k", model=User, default=0), User | int)
    assert_type(cache.profile, Profile)
    cache.profile = Profile(name="p", time_to_live=60)
    assert_type(cache.set_profile("p"), Profile)
    assert_type(cache.update_active_profile(tags=["t"]), Profile)
    assert_type(cache.get_profile("p"), Profile | None)
    assert_type(cache.items(), list[CacheEntry])
    assert_type(cache.key_metadata("k"), CacheMetadata | None)
    assert_type(cache.access_logs(limit=5), list[AccessLogEntry])
    assert_type(cache.eviction_logs(), list[EvictionLogEntry])
    assert_type(cache.store, SQLiteStore)
    assert_type(cache.store.get("k"), CacheEntry | None)
    cache.store.custom_query(CustomQuery(query="SELECT 1"))
    assert_type(cache.invalidate_tags(["t"]), list[str])
    assert_type(cache.check(fix=True), list[str])
    assert_type(len(cache), int)
    assert_type(cache.add("k", 1, ttl=60), bool)
    assert_type(cache.incr("k", 2, default=5), int)
    assert_type(cache.decr("k"), int)
    assert_type(cache.pop("k", default=[]), Any)
    assert_type(cache.touch("k", ttl="1h"), bool)
    assert_type(cache.ttl("k"), float | None)
    assert_type(cache.expire_at("k"), datetime | None)
    assert_type(cache.keys("user:*", tag="t"), list[str])
    assert_type(cache.delete_match("user:*"), int)
    with cache.lock("job", ttl=5, timeout=0.5), cache.disabled():
        pass
    cache.vacuum()
    cache.backup("copy.db")
    with cache as same:
        assert_type(same, Cachetronaut)


acache = AsyncCachetronaut(db_path=":memory:", offload_reads=True)


class Fetcher:
    """Stands for a caller's class with coroutine functions."""

    @acache(ttl=60, ignore=("self",))
    async def fetch(self, number: int) -> bytes:
        """Return something."""
        return bytes(number)

    @acache
    def plain(self, number: int) -> str:
        """Return something."""
        return str(number)


@acache
async def fetched(number: int) -> list[User]:
    """Return something."""
    return [User()] * number


async def load_later() -> User:
    """Return something."""
    return User()


async def awaits() -> None:
    """Use everything of the async client."""
    assert_type(await acache.init_async(), None)
    assert_type(await fetched(1), list[User])
    assert_type(await fetched.invalidate(1), bool)
    assert_type(await Fetcher().fetch(1), bytes)
    assert_type(Fetcher().plain(1), str)
    assert_type(await acache.get("k"), Any)
    assert_type(await acache.get("k", model=User), User | None)
    assert_type(await acache.get("k", User, default=0), User | int)
    assert_type(await acache.set("k", 1, ttl="1h", tags=["t"]), None)
    assert_type(await acache.delete("k"), bool)
    assert_type(await acache.get_many(["k"]), dict[str, Any])
    assert_type(await acache.set_many({"k": 1}, ttl=60), None)
    assert_type(await acache.incr("k", 2, default=5), int)
    assert_type(await acache.contains("k"), bool)
    assert_type(await acache.count(), int)
    assert_type(await acache.items(), list[CacheEntry])
    assert_type(await acache.key_metadata("k"), CacheMetadata | None)
    assert_type(await acache.set_profile("p"), Profile)
    assert_type(await acache.update_active_profile(tags=["t"]), Profile)
    assert_type(acache.profile, Profile)
    acache.profile = "p"
    assert_type(await acache.get_or_compute("k", load_later), User)
    assert_type(await acache.get_or_compute("k", lambda: 1, lock="process"), int)
    assert_type(acache.store, AsyncSQLiteStore)
    assert_type(await acache.store.get("k"), CacheEntry | None)
    assert_type(await acache.stats(), dict[str, Any])
    async with acache.lock("job", ttl=5, timeout=0.5), acache.disabled():
        pass
    with acache.disabled():
        pass
    async with AsyncCachetronaut(":memory:") as opened:
        assert_type(opened, AsyncCachetronaut)
    assert_type(await acache.shutdown(), None)
