"""A TOML file → a frozen model, or one error that names every wrong key."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from fedcondense.errors import SettingsError


class Settings(BaseModel):
    """A frozen group of settings; an unknown key is an error, and no value is coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


AnySettings = TypeVar("AnySettings", bound=Settings)

# The type of an error at a table that is none of its alternatives. Its text begins with the key
# that chooses among them.
UNKNOWN_CHOICE = "unknown_choice"


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        SettingsError: the file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"{path}: {(error.strerror or 'unreadable').lower()}",
            hint="give the path of a TOML file that this user can read",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path}: not TOML: {error}", hint="see docs/ref-settings.md for examples"
        ) from None


def parse_settings(model: type[AnySettings], values: dict[str, Any], where: str) -> AnySettings:
    """Validate `values` strictly; `where` names their file in the error.

    Validation runs on JSON, whose strict mode knows paths and tuples but turns no text into a
    number.

    Raises:
        SettingsError: names every wrong key at once.
    """
    try:
        return model.model_validate_json(json.dumps(values, default=str))
    except ValidationError as error:
        problems = "; ".join(_problem(item, values) for item in error.errors())
        raise SettingsError(
            f"{where}: {problems}", hint="every key is described in docs/ref-settings.md"
        ) from None


def load_settings(model: type[AnySettings], path: Path) -> AnySettings:
    """Read and validate a TOML file; a path in it is relative to the file's own folder.

    Raises:
        SettingsError: the file is no TOML, or any of its keys is wrong.
    """
    return with_absolute_paths(parse_settings(model, read_toml(path), path.name), path.parent)


def with_absolute_paths(settings: AnySettings, folder: Path) -> AnySettings:
    """The same settings, every path in them made absolute, from `folder` or the user's home (~)."""
    values = {name: getattr(settings, name) for name in type(settings).model_fields}
    changes: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Path):
            changes[name] = (folder / value.expanduser()).absolute()
        elif isinstance(value, Settings):
            changes[name] = with_absolute_paths(value, folder)
    return settings.model_copy(update=changes)


def _problem(error: ErrorDetails, values: Any) -> str:
    if error["type"] == "value_error":  # a rule over several keys, which names them itself
        return str(error["ctx"]["error"])
    unchosen = error["type"] == UNKNOWN_CHOICE
    key = ".".join(_keys(error["loc"], values, ends_with_key=not unchosen))
    return f"{key}.{error['msg']}" if unchosen else f"{key}: {error['msg']}"


def _keys(location: tuple[int | str, ...], values: Any, *, ends_with_key: bool) -> Iterator[str]:
    """The keys as they stand in the file, without pydantic's tags of alternatives."""
    for position, part in enumerate(location, start=1):
        surely_key = ends_with_key and position == len(location)
        if isinstance(part, int):
            values = values[part]
        elif not isinstance(values, dict) or (not surely_key and _is_tag(part, values)):
            continue
        else:
            values = values.get(part)
        yield str(part)


def _is_tag(part: str, table: dict[str, Any]) -> bool:
    """Whether a part of a location names the alternative that `table` is, and no key of it."""
    return part not in table or "/" in part or part == table.get("kind")
