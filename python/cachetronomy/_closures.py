"""What tells a function from others of its name: its code, and what it took along."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import os
import re
import sys
import threading
import weakref
from enum import Enum, Flag
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

from cachetronomy import _core

_TOKENS = "__cachetronomy_tokens__"
_TOKENS_LOCK = threading.RLock()  # a destructor may ask in between
_PLAIN = (type(None), bool, int, float, complex, str, bytes, range, type(...))
# Of the standard library, and without a way to change them: their repr tells their value.
_FIXED = {
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "pathlib": {"PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"},
    "uuid": {"UUID"},
    "zoneinfo": {"ZoneInfo"},
}
_FUNCTIONS = (FunctionType, _core.CachedFunction, functools._lru_cache_wrapper)  # noqa: SLF001
_BOUND = (MethodType, _core.BoundCachedFunction)
_CLASSES: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()
# Values inside one that a closure took along. More are not worth the time.
_MOST = 100_000
_REST = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
_UNSET = object()
# Holds a new object in each forked child: who was shown a token there gets another one.
_PROCESS = CellType(object())


class _UntellableError(TypeError):
    """Nothing in a value tells it from all others for good."""


def takes_along(function: Any) -> bool:  # noqa: ANN401 - any callable
    """Tell whether a function took anything from around it, or is an object with a state."""
    *outer, innermost = _chain(function)
    return bool(getattr(innermost, "__closure__", None) or any(map(_has_state, outer)))


def describe(
    function: Any,  # noqa: ANN401 - any callable
    client: object = None,
) -> tuple[str, list[tuple[Any, ...]] | None]:
    """Return what a function took from around it, as a key shows it.

    What has a fixed value is shown by it: the text is the same in every process. Anything else - a
    list, a connection, an open file - may change or be another one of the same looks. It is shown
    by a token that nobody else has, so that the function shares its entries with nobody.

    `client`: the one that decorates it.

    The text holds as long as the cells that come with it hold what they are listed with (nothing,
    if they are empty); `None`: it has to be asked each time.
    """
    *outer, innermost = _chain(function)
    walk, texts = _Walk(client), []
    for index, thing in enumerate(filter(_has_state, outer)):
        texts.append(f"call={_told(walk, innermost, f'call {index}', thing)}")
    code = getattr(innermost, "__code__", None)
    names = code.co_freevars if code else ()
    for name, cell in zip(names, getattr(innermost, "__closure__", None) or (), strict=True):
        content = walk.look_into(cell)
        if content is _UNSET:
            texts.append(f"{name} is unset")
        elif name != "__class__" or not _is_in(innermost, content):
            texts.append(f"{name}={_told(walk, innermost, name, content)}")
    return ", ".join(texts), walk.cells if walk.lasts else None


def text_of(function: Any) -> str:  # noqa: ANN401 - any callable
    """Return the text by which a function is known wherever it has a fixed value.

    Raises:
        TypeError: it has none.
    """
    return _Walk().text("", function, [])


def is_fixed(value: object) -> bool:
    """Tell whether a value cannot change, as far as a key shows it."""
    walk = _Walk()
    try:
        walk.text("", value, [])
    except (_UntellableError, RecursionError):
        return False
    return walk.lasts and not walk.cells


def code_of(function: Any) -> str:  # noqa: ANN401 - a lambda
    """Return a hash of a function's code, the same in every process of one Python."""
    text = _code(_chain(function)[-1].__code__)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def bound_to(function: Any) -> tuple[Any, Any] | None:  # noqa: ANN401 - any callable
    """Return the object that a method is bound to, and its function where Python knows it."""
    for each in _chain(function):
        if isinstance(each, _BOUND):
            return each.__self__, each.__func__
        if isinstance(each, FunctionType):
            break
        if isinstance(each, BuiltinFunctionType) and not isinstance(each.__self__, ModuleType):
            return each.__self__, None
    return None


def main_name(module: str) -> str:
    """Return a name for `__main__`, or for what a worker calls so, that no other program has."""
    main = sys.modules.get(module)
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return module if file is None else f"__main__[{_real_path(file)}]"


def signature_of(function: Any) -> inspect.Signature:  # noqa: ANN401 - any callable
    """Return the parameters by which a function is really called.

    Of one that wraps another, `inspect` shows the other's. That is right for `*args, **kwargs`,
    but a wrapper may have defaults and parameters of its own.
    """
    if isinstance(function, _BOUND):
        signature = signature_of(function.__func__)
        first, *others = signature.parameters.values()
        return signature if first.kind in _REST else signature.replace(parameters=others)
    try:
        own = inspect.signature(function, follow_wrapped=False)
    except ValueError:  # of what is no Python function, only the other's is known
        if not hasattr(function, "__wrapped__"):
            raise
        return signature_of(function.__wrapped__)
    parameters = list(own.parameters.values())
    named = [(one.kind, one.name) for one in parameters if one.kind not in _REST]
    if len(named) + len(_REST) != len(parameters) or not hasattr(function, "__wrapped__"):
        return own
    inner = signature_of(function.__wrapped__)
    firsts = list(inner.parameters.values())[: len(named)]
    has_defaults = any(one.default is not one.empty for one in (*parameters, *firsts))
    is_passed_on = [(one.kind, one.name) for one in firsts] == named and not has_defaults
    return inner if is_passed_on else own


class _Walk:
    """One look at what a function took along."""

    def __init__(self, client: object = None) -> None:
        self.client = client
        self.cells: list[tuple[Any, ...]] = []
        self.lasts = True
        self.left = _MOST

    def look_into(self, cell: Any) -> object:  # noqa: ANN401 - a cell
        try:
            content = cell.cell_contents
        except ValueError:
            self.cells.append((cell,))
            return _UNSET
        self.cells.append((cell, content))
        return content

    def text(self, name: str, value: Any, inside: list[Any]) -> str:  # noqa: ANN401, C901, PLR0911
        self.left -= 1
        cls = type(value)
        if self.left < 0:
            raise _UntellableError
        if cls in _PLAIN or cls.__name__ in _FIXED.get(_package(cls), ()):
            return _shown(value)
        if cls is tuple:
            return f"({self.texts(name, value, inside)})"
        if cls is frozenset:
            return f"frozenset{{{', '.join(sorted(self.text(name, v, inside) for v in value))}}}"
        if getattr(cls, "__cache_key__", None) is not None:
            self.lasts = False
            return str(_core._key_text(value))  # noqa: SLF001 - ours
        if isinstance(value, ModuleType):
            return f"<module {value.__name__}>"
        if isinstance(value, type):
            return f"<class {_class(value)}>"
        if isinstance(value, _FUNCTIONS):
            return self.function(name, value, inside)
        if isinstance(value, _BOUND):
            pair = (value.__self__, value.__func__)
            return f"<method {self.texts(name, pair, inside)}>"
        if isinstance(value, BuiltinFunctionType):
            return f"<{self.text(name, value.__self__, inside)} {value.__qualname__}>"
        if isinstance(value, MethodDescriptorType):
            return f"<{_class(value.__objclass__)} {value.__name__}>"
        if _is_client(value):
            return self.cache(value)
        return f"<{_class(cls)} {self.parts(name, value, inside)}>"

    def cache(self, value: Any) -> str:  # noqa: ANN401 - either client
        # Where its results are kept says nothing about what they are; what others hold does.
        if value is self.client:
            return "<the client>"
        if value.db_path == ":memory:":
            raise _UntellableError
        return f"<client {_shown(value.db_path)}>"

    def parts(self, name: str, value: Any, inside: list[Any]) -> str:  # noqa: ANN401 - as above
        cls = type(value)
        if isinstance(value, Enum):
            return _shown(value._value_ if isinstance(value, Flag) else value._name_)
        if cls is functools.partial:
            keywords = tuple(sorted(value.keywords.items()))
            return self.texts(name, (value.func, value.args, keywords), inside)
        if cls is re.Pattern:
            return _shown((value.pattern, value.flags))
        logging = sys.modules.get("logging")
        if logging is not None and isinstance(value, logging.Logger):
            return _shown(value.name)
        parameters = cls.__dict__.get("__dataclass_params__")
        if parameters is not None and parameters.frozen:
            fields = (getattr(value, one.name, _UNSET) for one in dataclasses.fields(value))
            return self.texts(name, fields, inside)
        if isinstance(value, tuple) and hasattr(cls, "_fields") and not hasattr(value, "__dict__"):
            return self.texts(name, value, inside)
        raise _UntellableError

    def texts(self, name: str, values: Any, inside: list[Any]) -> str:  # noqa: ANN401 - as above
        return "".join(f"{self.text(name, value, inside)}, " for value in values)

    def function(self, name: str, function: Any, inside: list[Any]) -> str:  # noqa: ANN401
        while not isinstance(function, FunctionType):
            function = function.__wrapped__
            if not isinstance(function, _FUNCTIONS):
                return self.text(name, function, inside)
        for index, outer in enumerate(inside):
            if function is outer:
                return f"<itself {index}>"
        text = f"<function {_name(function)}"
        if "<" in function.__qualname__ or hasattr(function, "__wrapped__"):
            text += f"#{code_of(function)}"
        inside = [*inside, function]
        keywords = sorted((function.__kwdefaults__ or {}).items())
        defaults = (*(function.__defaults__ or ()), *keywords)
        if defaults:
            text += f" {self.text(name, defaults, inside)}"
        for each, cell in zip(
            function.__code__.co_freevars, function.__closure__ or (), strict=True
        ):
            content = self.look_into(cell)
            if content is _UNSET:
                text += " unset"
            elif each != "__class__" or not _is_in(function, content):
                text += f" {self.text(each, content, inside)}"
        return f"{text}>"


def _chain(function: Any) -> list[Any]:  # noqa: ANN401 - any callable
    """Return a callable and all that it wraps, as far as Python's first plain function."""
    chain = [function]
    while not isinstance(function, FunctionType):
        if isinstance(function, _BOUND):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            break
        chain.append(function)
    return chain


def _has_state(thing: object) -> bool:
    """Tell whether something in a chain, behind which there is more, is an object of a class."""
    return not isinstance(thing, (*_FUNCTIONS, *_BOUND, type))


def _told(walk: _Walk, function: Any, name: str, content: object) -> str:  # noqa: ANN401
    try:
        return walk.text(name, content, [function])
    except (_UntellableError, RecursionError):
        walk.look_into(_PROCESS)
        return _token(function, name, content)


def _is_in(function: Any, cls: object) -> bool:  # noqa: ANN401 - as above
    """Tell whether a function is a method of a class, so that its name says which."""
    return isinstance(cls, type) and _name(function).startswith(f"{_name(cls)}.")


def _code(code: CodeType) -> str:
    consts = [
        _code(const) if isinstance(const, CodeType) else _core._key_text(const)  # noqa: SLF001
        for const in code.co_consts
    ]
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return repr((code.co_code, consts, counts, names))


def _shown(value: object) -> str:
    try:
        return str(_core._key_text(value))  # noqa: SLF001 - ours
    except TypeError as error:  # such as a time in a zone that does not say which it is
        raise _UntellableError from error


def _package(cls: type) -> str:
    return str(cls.__module__).partition(".")[0]


def _class(cls: Any) -> str:  # noqa: ANN401 - a class
    # A local class may have others of its name.
    if "<locals>" in cls.__qualname__:
        raise _UntellableError
    return _name(cls)


def _name(thing: Any) -> str:  # noqa: ANN401 - a class or a function
    module = thing.__module__
    if module in {"__main__", "__mp_main__"}:
        module = main_name(module)
    return f"{module}.{thing.__qualname__}"


def _is_client(value: object) -> bool:
    # A program that has no async client has not loaded its class.
    module = sys.modules.get("cachetronomy.async_client")
    return isinstance(value, _core.Cachetronaut) or (
        module is not None and isinstance(value, module.AsyncCachetronaut)
    )


_real_path = functools.cache(os.path.realpath)


def _token(function: Any, name: str, content: object) -> str:  # noqa: ANN401 - as above
    with _TOKENS_LOCK:  # of threads that ask at once, all get the same one
        tokens = _tokens(function)
        if name not in tokens or tokens[name][0] is not content:
            tokens[name] = (content, f"#{os.urandom(8).hex()}")
        return tokens[name][1]


def class_token(cls: type) -> str:
    """Return what tells a class from others of its name in this process and in all others."""
    with _TOKENS_LOCK:
        return _CLASSES.setdefault(cls, f"#{os.urandom(8).hex()}")


def _tokens(function: Any) -> dict[str, tuple[object, str]]:  # noqa: ANN401 - as above
    # On the function, where the garbage collector sees what it holds; `functools.wraps` copies it
    # to others, who are not meant.
    process = _PROCESS.cell_contents
    tokens: dict[str, tuple[object, str]]
    owner, of, tokens = getattr(function, _TOKENS, (None, None, {}))
    if owner is None or owner() is not function or of is not process:
        tokens = {}
        with contextlib.suppress(AttributeError):  # a built-in one, which an object wraps
            setattr(function, _TOKENS, (weakref.ref(function), process, tokens))
    return tokens


def _begin_process() -> None:
    global _TOKENS_LOCK  # noqa: PLW0603 - another thread may have held it at the fork
    _TOKENS_LOCK = threading.RLock()
    _PROCESS.cell_contents = object()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_process)
