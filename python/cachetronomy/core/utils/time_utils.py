"""`_now`, under the import path of the original package."""

from __future__ import annotations

from datetime import datetime, timezone


def _now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(timezone.utc)
