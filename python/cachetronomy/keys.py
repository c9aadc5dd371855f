"""The key that the decorator makes of a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cachetronomy import _core

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def default_key_builder(
    fn: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> str:
    """Return the key of the call `fn(*args, **kwargs)`, as the decorator makes it by default.

    Raises:
        TypeError: the arguments do not fit the function, or have no text of their value.
    """
    return _core._default_key(fn, tuple(args), dict(kwargs))  # noqa: SLF001
