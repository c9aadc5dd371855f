"""Threads that compute results anew in the background of plain calls."""

from __future__ import annotations

import contextvars
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_AT_ONCE = 8  # A refresh beyond these is left to the next call that finds its result stale.

_running = 0
_counting = threading.Lock()


def start(job: Callable[[], object]) -> None:
    """Run a job on a thread that does not keep the program from ending."""
    global _running  # noqa: PLW0603 - a count of the process
    with _counting:
        if _running >= _AT_ONCE:
            return
        _running += 1
    # The caller's context: it may say whose request this is.
    thread = threading.Thread(
        target=_run,
        args=(contextvars.copy_context(), job),
        name="cachetronomy-refresh",
        daemon=True,
    )
    try:
        thread.start()
    except RuntimeError:  # No more threads, or the interpreter is about to exit.
        _end()


def _run(context: contextvars.Context, job: Callable[[], object]) -> None:
    try:
        context.run(job)
    finally:
        _end()


def _end() -> None:
    global _running  # noqa: PLW0603 - as above
    with _counting:
        _running -= 1


def _forget() -> None:
    # In a forked child none of them runs, and one of them may have held the lock.
    global _running, _counting
    _running, _counting = 0, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
