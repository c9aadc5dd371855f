"""What `AsyncCachetronaut.get_or_compute` does with a key that is missing."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from cachetronomy import _coroutines
from cachetronomy._core import MISS
from cachetronomy.exceptions import CachetronomyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cachetronomy._core import _Flight
    from cachetronomy.async_client import AsyncCachetronaut


class Computation:
    """One caller's wish for the value of a key.

    Args:
        client: where it is kept.
        key: its key.
        compute_fn: returns the value, or an awaitable of it.
        version: another stored version is a miss.
        tags: those that it will have.
        how: everything else that `set` takes, by name.
    """

    def __init__(
        self,
        client: AsyncCachetronaut,
        key: str,
        compute_fn: Callable[[], Any],
        *,
        version: int,
        tags: Any,  # noqa: ANN401 - as in `set`
        **how: Any,  # noqa: ANN401 - as in `set`
    ) -> None:
        """Remember it."""
        self.client = client
        self.key = key
        self.compute_fn = compute_fn
        self.version = version
        # Asked more than once.
        self.tags = list(tags) if hasattr(tags, "__next__") else tags
        self.how = how

    async def run(self, flight: _Flight | None) -> Any:  # noqa: ANN401 - the caller's value
        """Compute the value and store it."""
        watch = self.client._client._watch(self.key, self.tags)  # noqa: SLF001 - one client
        if flight is not None:
            watch.outdates(flight)
        value = self.compute_fn()
        if inspect.isawaitable(value):
            value = await value
        how = {"version": self.version, "tags": self.tags, **self.how}
        try:
            await self.client._keep(watch, self.key, value, **how)  # noqa: SLF001 - as above
        except CachetronomyError as error:
            error.value = value
            raise
        return value

    async def run_once(self, flight: _Flight, *, on_the_machine: bool) -> Any:  # noqa: ANN401 - as above
        """Return the value that somebody has stored since the look, or compute it."""
        value = await self.client.get(self.key, default=MISS, version=self.version, promote=False)
        if value is not MISS:
            return value
        if not on_the_machine:
            return await self.run(flight)
        claim = functools.partial(self.client._client._try_claim, self.key, self._look)  # noqa: SLF001
        return await _coroutines.once_on_the_machine(
            lambda: self.client._call_apart(claim, writes=True),  # noqa: SLF001 - as above
            lambda lease: self.client._call_apart(lease.end, writes=True),  # noqa: SLF001
            lambda: self.run(flight),
        )

    def _look(self) -> Any:  # noqa: ANN401 - as above
        # On a thread that may wait.
        return self.client._client.get(  # noqa: SLF001 - as above
            self.key, default=MISS, version=self.version, promote=False
        )
