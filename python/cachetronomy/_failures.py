"""Exceptions that a decorated function keeps: to bytes, and back into a class that it named."""

from __future__ import annotations

from typing import Any

from cachetronomy import _core

# The class's qualified name, the arguments that make it, attributes set later, its message.
_Parts = tuple[str, tuple[Any, ...], dict[str, Any], str]


def dump(error: Exception, classes: tuple[type[Exception], ...]) -> bytes | None:
    """Return an exception as bytes; `None` if it is not exactly of one of the classes.

    Raises:
        ValueError: what the bytes would be made into again is not the same.
    """
    cls = type(error)
    if cls not in classes:
        if isinstance(error, classes):
            message = f"{cls.__qualname__} is a subclass of one that is named; name it itself"
            raise ValueError(message)
        return None
    try:
        parts = _parts(error)
        data, _ = _core.serialize(parts, prefer="cachetronomy")
        made = load(data, classes)
        same = made is not None and _parts(made) == parts
    except Exception as reason:
        raise ValueError(*reason.args) from reason
    if not same:
        message = (
            f"{cls.__qualname__} cannot be made again from its args; hand all arguments of "
            "__init__ to super().__init__"
        )
        raise ValueError(message)
    return data


def load(data: bytes, classes: tuple[type[Exception], ...]) -> Exception | None:
    """Return a new exception as it was written; `None` if none of the classes fits."""
    try:
        name, args, state, message = _core.deserialize(data, "cachetronomy")
        for cls in classes:
            if _name(cls) == name:
                made = cls(*args)
                if any(_is_special(attribute) for attribute in state):
                    return None
                if state:
                    made.__setstate__(state)
                return made if type(made) is cls and str(made) == message else None
    except Exception:  # noqa: BLE001 - the class has changed since, or the file is a stranger's
        return None
    return None


def _parts(error: Exception) -> _Parts:
    reduced: Any = error.__reduce__()
    cls, args, *rest = reduced
    if cls is not type(error):
        message = "its __reduce__ names something else than its class"
        raise ValueError(message)
    state = rest[0] if rest and rest[0] is not None else {}
    kept = {name: value for name, value in state.items() if not _is_special(name)}
    return _name(cls), args, kept, str(error)


def _is_special(attribute: str) -> bool:
    return attribute.startswith("__") and attribute != "__notes__"


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
