"""`Profile`: the settings of a client that are stored under a name, and change while it runs."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from cachetronomy import _core
from cachetronomy.exceptions import InvalidSettingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from os import PathLike

    from typing_extensions import Self

_UNNAMED: Any = None
_PAUSES = {"time_to_live", "ttl_cleanup_interval", "memory_cleanup_interval"}


class Profile(BaseModel):
    """Named settings: how long entries live, and what leaves memory when.

    One without a name stands for the profile that is active where it is used. Only the fields
    that it was built with count where a profile is given to a new client or updates another.

    Raises:
        pydantic.ValidationError: a field is unknown or out of range; a `ValueError`.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    name: str = Field(default=_UNNAMED, description="Name under which it is stored; not empty.")
    time_to_live: int = Field(
        default=3600, description="Seconds an entry lives that is stored without a time to live."
    )
    ttl_cleanup_interval: int = Field(
        default=60, description="Seconds between two sweeps of expired entries; 0 for none."
    )
    memory_based_eviction: bool = Field(
        default=True, description="Whether entries leave memory when the machine runs out of it."
    )
    free_memory_target: float = Field(
        default=500.0,
        description="RAM to keep free: megabytes, or a fraction of all if it is not above 1.",
    )
    memory_cleanup_interval: int = Field(
        default=5, description="Seconds between two looks at the free memory."
    )
    max_items_in_memory: int | None = Field(
        default=100, description="Entries kept as live objects; `None` only by a client's own cap."
    )
    tags: list[str] = Field(
        default_factory=list, description="Tags of an entry that is stored without any."
    )

    # Fields of a client's profile that the environment or the constructor gave, with their values:
    # as long as they have these, they are not the profile's own.
    _overrides: dict[str, Any] = PrivateAttr(default_factory=dict)

    @field_validator("*", mode="wrap")
    @classmethod
    def _is_allowed(
        cls, value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo
    ) -> object:
        """Ask the core, where the limits are."""
        return check(str(info.field_name), value, handler)

    @classmethod
    def load_profiles(cls, path: str | PathLike[str]) -> dict[str, Self]:
        """Read profiles from a YAML file: a mapping of names to mappings of fields.

        Raises:
            InvalidSettingError: the file is not YAML or not such a mapping, or a field is unknown
                or out of range; it names file, profile and field.
            OSError: the file cannot be read.
        """
        import yaml  # noqa: PLC0415 - few programs have such a file

        path = Path(path).expanduser()
        data = path.read_bytes()
        try:
            loaded = yaml.safe_load(data)
        except Exception as error:  # Its constructors of values raise all kinds.
            message = f"{path}: is not YAML: {error}"
            raise InvalidSettingError(message) from error
        if not isinstance(loaded, dict):
            message = f"{path}: must map names of profiles to their fields, and is {shown(loaded)}"
            raise InvalidSettingError(message)
        return {name: cls._load(path, name, fields) for name, fields in loaded.items()}

    @classmethod
    def _load(cls, path: Path, name: object, fields: object) -> Self:
        where = f"{path}: profile {name!r}"
        if not isinstance(fields, dict):
            message = f"{where}: must map fields to values, and is {shown(fields)}"
            raise InvalidSettingError(message)
        if "name" in fields:
            message = f"{where}: name: a profile of a file has its key as its name; leave this out"
            raise InvalidSettingError(message)
        try:
            return cls.model_validate({**fields, "name": name})
        except ValidationError as error:
            texts = (f"{field}: {reason}" for field, reason in reasons(error))
            message = f"{where}: {'; '.join(texts)}"
            raise InvalidSettingError(message) from error


def check(field: str, value: object, handler: ValidatorFunctionWrapHandler) -> object:
    """Return the value of a field as pydantic reads it, if the core allows that."""
    try:
        value = handler(value)
    except ValidationError:
        if field not in _PAUSES:
            raise
        # It may be a `timedelta`, or text like "1h30m"; if not, the core says best what fits.
    return _core._check_setting(field, value)  # noqa: SLF001


def from_core(fields: dict[str, Any], overrides: Iterable[str] = ()) -> Profile:
    """Make the `Profile` of what the core answered; it has checked the values.

    `overrides`: fields whose values are a client's and not the stored profile's.
    """
    profile = Profile.model_construct(_fields_set=set(fields), **fields)
    profile._overrides = {field: fields[field] for field in overrides}  # noqa: SLF001 - ours
    return profile


def changes_of(profile: object, *, whole: bool) -> tuple[str | None, dict[str, Any]]:
    """Split a profile into its name and its fields: all, or those it was built with.

    Raises:
        InvalidSettingError: it is not a profile.
    """
    if not isinstance(profile, Profile):
        message = f"profile: {shown(profile)} is neither a Profile nor the name of one"
        raise InvalidSettingError(message)
    fields = profile.model_dump(exclude_unset=not whole)
    name = fields.pop("name", None)
    for field, value in profile._overrides.items():  # noqa: SLF001 - ours
        if field in fields and fields[field] == value:
            del fields[field]
    if fields.get("max_items_in_memory", 0) is None:
        del fields["max_items_in_memory"]  # No limit is for a client's constructor alone.
    return name, fields


def shown(value: object) -> str:
    """Show a value in a message. One of a few lines of YAML may be longer than memory in full."""
    return reprlib.repr(value)[:80]


def reasons(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Say of each bad field what is wrong with it."""
    for one in error.errors(include_url=False):
        field = str(one["loc"][0]) if one["loc"] else "profile"
        cause = one.get("ctx", {}).get("error")
        if cause is not None:
            # The core says "profile" for its name too.
            yield field, str(cause).removeprefix(f"{field}: ").removeprefix("profile: ")
        elif one["type"] == "extra_forbidden":
            yield field, f"is not a field; there are {', '.join(Profile.model_fields)}"
        else:
            yield field, f"{shown(one['input'])}: {one['msg']}"
