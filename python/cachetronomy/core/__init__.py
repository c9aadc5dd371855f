"""The import paths of the original package; what they name lives one level up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachetronomy.client import Cachetronaut

if TYPE_CHECKING:
    from cachetronomy.async_client import AsyncCachetronaut
    from cachetronomy.profiles import Profile

__all__ = ["AsyncCachetronaut", "Cachetronaut", "Profile"]


def __getattr__(name: str) -> object:
    """Import what needs pydantic or asyncio when it is asked for."""
    if name == "AsyncCachetronaut":
        from cachetronomy.async_client import AsyncCachetronaut  # noqa: PLC0415

        return globals().setdefault(name, AsyncCachetronaut)
    if name == "Profile":
        from cachetronomy.profiles import Profile  # noqa: PLC0415

        return globals().setdefault(name, Profile)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    """Name also what is not imported yet."""
    return sorted({*globals(), *__all__})
