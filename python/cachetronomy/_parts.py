"""What values consist of whose repr does not tell all: keys show the parts instead."""

from __future__ import annotations

import functools
import hashlib
import re
from collections import ChainMap, OrderedDict, UserDict, UserList, UserString, defaultdict, deque
from enum import Enum, Flag
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    SimpleNamespace,
    WrapperDescriptorType,
)
from typing import TYPE_CHECKING, Any

from cachetronomy import _core
from cachetronomy._closures import text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    Parts = tuple[Any, ...]

_WHOLE = slice(None)


def parts_of(value: Any) -> Parts | None:  # noqa: ANN401 - any argument
    """Return what tells a value from others of its class; `None`: its repr does.

    Raises:
        TypeError: nothing does.
    """
    cls = type(value)
    if issubclass(cls, Enum):  # first, as many are ints and strings too
        return (value._value_ if issubclass(cls, Flag) else value._name_,)
    if hasattr(cls, "get_secret_value"):  # as pydantic's, whose repr hides what it holds
        return (_digest(value.get_secret_value()),)
    for base in cls.__mro__:
        if base in _PARTS:
            return _PARTS[base](value)
        if base in _CONTENT:
            # As the built-in class has it, and what a subclass added to it.
            return None if base is cls else (_CONTENT[base](value), *_attributes(value))
    if hasattr(cls, "fileno"):
        message = "it is an open file, which is not a value"
        raise TypeError(message)
    return None


def _attributes(value: Any) -> Parts:  # noqa: ANN401 - as above
    found = dict(getattr(value, "__dict__", ()))
    for base in type(value).__mro__:
        if "__slots__" in base.__dict__:
            for name, member in base.__dict__.items():
                if isinstance(member, MemberDescriptorType) and hasattr(value, name):
                    found[f"{base.__qualname__}.{name}"] = member.__get__(value)
    return (found,) if found else ()


def _digest(secret: object) -> str:
    # A key is written to the file and to logs.
    return hashlib.blake2b(repr(secret).encode(), digest_size=16).hexdigest()


def _builtin(function: Any) -> Parts:  # noqa: ANN401 - as above
    owner = function.__self__
    return (owner.__name__ if isinstance(owner, ModuleType) else owner, function.__qualname__)


def _tuple(value: Any) -> Parts:  # noqa: ANN401 - as above
    if hasattr(type(value), "n_sequence_fields"):  # as `os.stat_result`: some fields are hidden
        return tuple(value.__reduce__()[1])
    return (tuple.__getitem__(value, _WHOLE), *_attributes(value))


def _bounds(value: Any) -> Parts:  # noqa: ANN401 - as above
    return (value.start, value.stop, value.step)


def _described(value: Any) -> Parts:  # noqa: ANN401 - as above
    return (value.__objclass__, value.__name__)


# By class. The exact built-in containers never come here.
_CONTENT: dict[type, Callable[[Any], Any]] = {
    dict: lambda value: dict(dict.items(value)),
    list: lambda value: list.__getitem__(value, _WHOLE),
    set: lambda value: set().union(set.__iter__(value)),
    frozenset: lambda value: frozenset().union(frozenset.__iter__(value)),
    str: str.__str__,
    bytes: lambda value: bytes.__getitem__(value, _WHOLE),
    bytearray: lambda value: bytearray.__getitem__(value, _WHOLE),
    int: int.__pos__,
    float: float.__pos__,
    complex: complex.__pos__,
}
_PARTS: dict[type, Callable[[Any], Parts]] = {
    tuple: _tuple,
    OrderedDict: lambda value: ([*OrderedDict.items(value)], *_attributes(value)),
    defaultdict: lambda value: (
        dict(dict.items(value)),
        value.default_factory,
        *_attributes(value),
    ),
    deque: lambda value: ([*deque.__iter__(value)], value.maxlen, *_attributes(value)),
    **dict.fromkeys(
        (UserDict, UserList, UserString, SimpleNamespace), lambda value: (vars(value),)
    ),
    ChainMap: lambda value: (value.maps,),
    MappingProxyType: lambda value: (dict(value),),
    type({}.keys()): lambda value: (frozenset(value),),
    type({}.values()): lambda value: ([*value],),
    type({}.items()): lambda value: (dict(value),),
    slice: _bounds,
    range: _bounds,
    BaseException: lambda value: tuple(value.__reduce__()[1:]),
    re.Pattern: lambda value: (value.pattern, value.flags),
    re.Match: lambda value: (value.re, value.string, value.pos, value.endpos, value.regs),
    functools.partial: lambda value: (value.func, value.args, value.keywords),
    _core.CachedFunction: lambda value: (text_of(value),),
    BuiltinFunctionType: _builtin,
    MethodWrapperType: lambda value: (value.__self__, value.__name__),
    **dict.fromkeys(
        (MethodType, _core.BoundCachedFunction),
        lambda value: (value.__self__, value.__func__.__module__, value.__func__.__qualname__),
    ),
    **dict.fromkeys(
        (
            ClassMethodDescriptorType,
            GetSetDescriptorType,
            MemberDescriptorType,
            MethodDescriptorType,
            WrapperDescriptorType,
        ),
        _described,
    ),
}
