"""Types of the native core."""

from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from os import PathLike
from types import EllipsisType
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeAlias, TypeVar, final, overload

from typing_extensions import Self, disjoint_base

_P = ParamSpec("_P")
_Q = ParamSpec("_Q")
_R_co = TypeVar("_R_co", covariant=True)
_F = TypeVar("_F")
_T = TypeVar("_T")
_D = TypeVar("_D")

_TimeToLive: TypeAlias = float | timedelta | str

__all__ = [
    "MISS",
    "CachedFunction",
    "Cachetronaut",
    "ManualClock",
    "_Missing",
    "__version__",
    "_after_fork",
    "_before_fork",
    "_close_all",
    "deserialize",
    "serialize",
]

__version__: Final[str]

@final
class _Missing:
    def __bool__(self) -> bool: ...

MISS: Final[_Missing]

@final
class ManualClock:
    def __new__(cls) -> Self: ...
    def advance(self, seconds: float) -> None: ...

@final
class CachedFunction(Generic[_P, _R_co]):
    __name__: str
    __qualname__: str
    __wrapped__: Callable[..., Any]
    @property
    def cache(self) -> Cachetronaut: ...
    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R_co: ...
    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> Self: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[Any, _Q], _R_co],
        instance: object,
        owner: type | None = None,
        /,
    ) -> Callable[_Q, _R_co]: ...
    def key_for(self, *args: _P.args, **kwargs: _P.kwargs) -> str: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, _memo: object) -> Self: ...
    def _peek(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...
    def _lookup(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, str | None]: ...
    def _store(self, key: str, value: object, compute_us: int) -> None: ...

@disjoint_base
class Cachetronaut:
    def __new__(
        cls,
        db_path: str | PathLike[str] | None = None,
        *,
        max_items_in_memory: int | EllipsisType | None = 100,
        busy_timeout: float = 5.0,
        _clock: ManualClock | None = None,
    ) -> Self: ...
    @overload
    def get(
        self,
        key: str,
        model: None = None,
        promote: bool = True,
        default: object = None,
        version: int | None = None,
    ) -> Any: ...
    @overload
    def get(
        self,
        key: str,
        model: type[_T],
        promote: bool = True,
        default: None = None,
        version: int | None = None,
    ) -> _T | None: ...
    @overload
    def get(
        self,
        key: str,
        model: type[_T],
        promote: bool = True,
        *,
        default: _D,
        version: int | None = None,
    ) -> _T | _D: ...
    def set(
        self,
        key: str,
        value: object,
        time_to_live: _TimeToLive | None = None,
        version: int | None = None,
        tags: Iterable[str] | str | None = None,
        prefer: str | None = None,
        *,
        ttl: _TimeToLive | None = None,
    ) -> None: ...
    def delete(self, key: str) -> bool: ...
    def get_many(self, keys: Iterable[str]) -> dict[str, Any]: ...
    def set_many(
        self,
        items: Mapping[str, object],
        time_to_live: _TimeToLive | None = None,
        version: int | None = None,
        tags: Iterable[str] | str | None = None,
        prefer: str | None = None,
        *,
        ttl: _TimeToLive | None = None,
    ) -> None: ...
    def delete_many(self, keys: Iterable[str]) -> int: ...
    def evict(self, key: str) -> None: ...
    def evict_all(self) -> None: ...
    def clear_all(self) -> None: ...
    def clear_by_tags(self, tags: Iterable[str] | str, exact_match: bool = False) -> list[str]: ...
    def store_keys(self) -> list[str]: ...
    def memory_keys(self) -> list[str]: ...
    def all_keys(self) -> list[str]: ...
    def memory_stats(self, limit: int | None = None) -> list[tuple[str, int]]: ...
    def get_hot_keys(self, limit: int | None = 10) -> list[tuple[str, int]]: ...
    def stats(self) -> dict[str, Any]: ...
    def flush(self) -> None: ...
    def check(self) -> list[str]: ...
    def shutdown(self) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        *_exception: object,
    ) -> None: ...
    @overload
    def __call__(self, function: Callable[_P, _F]) -> CachedFunction[_P, _F]: ...
    @overload
    def __call__(
        self,
        function: None = None,
        *,
        ttl: _TimeToLive | None = None,
        time_to_live: _TimeToLive | None = None,
        tags: Iterable[str] | str | None = None,
        version: int | None = None,
        prefer: str | None = None,
        key_builder: Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], str]
        | None = None,
    ) -> Callable[[Callable[_P, _F]], CachedFunction[_P, _F]]: ...
    def _clear_expired(self) -> list[tuple[str, str | None]]: ...
    def _store_stats(self, limit: int | None = None) -> list[tuple[str, int, str, str]]: ...

def serialize(obj: object, *, prefer: str | None = None) -> tuple[bytes, str]: ...
def deserialize(data: bytes, fmt: str) -> Any: ...
def _after_fork() -> None: ...
def _before_fork() -> None: ...
def _close_all() -> None: ...
