"""The settings of the environment: a cheap look whether there are any, and then their values."""

from __future__ import annotations

import os
import stat
from typing import Any

PREFIX = "CACHE_"


def read() -> dict[str, Any]:
    """Return what `CACHE_*` variables and the `.env` of the current folder set, by field.

    pydantic is loaded only if there is any.

    Raises:
        InvalidSettingError: a value is not allowed; it names the variable.
    """
    if not any(name.upper().startswith(PREFIX) for name in os.environ) and not is_in(".env"):
        return {}
    from cachetronomy.settings import CacheSettings  # noqa: PLC0415 - pydantic is loaded late

    return CacheSettings().model_dump(exclude_unset=True, exclude_none=True)


def is_in(env_file: str | os.PathLike[str]) -> bool:
    """Tell whether a `.env` file mentions a variable of ours. Any other is none of our business."""
    try:
        # A pipe would be waited for.
        if not stat.S_ISREG(os.stat(env_file).st_mode):  # noqa: PTH116 - pathlib takes as long
            return False  # as all the rest
        with open(env_file, "rb") as file:  # noqa: PTH123 - as above
            lines = file.read().lower().splitlines()
    except OSError:
        return False
    prefix = PREFIX.lower().encode()
    names = (line.strip().removeprefix(b"export").strip() for line in lines)
    return any(name.startswith(prefix) for name in names)
