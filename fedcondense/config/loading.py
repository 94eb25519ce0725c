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
    """Read and validate a TOML file.

    Raises:
        SettingsError: the file is no TOML, or any of its keys is wrong.
    """
    return parse_settings(model, read_toml(path), path.name)


def _problem(error: ErrorDetails, values: Any) -> str:
    ours = error["type"] == "value_error"  # a rule over several keys, which names them itself
    message = str(error["ctx"]["error"]) if ours else error["msg"]
    key = ".".join(_key(error["loc"], values))
    return f"{key}: {message}" if key else message


def _key(location: tuple[int | str, ...], values: Any) -> Iterator[str]:
    """The key as it stands in the file, without pydantic's tags of alternatives."""
    for part in location[:-1]:
        if isinstance(part, str) and isinstance(values, dict) and part not in values:
            continue
        values = values[part]
        yield str(part)
    yield from map(str, location[-1:])
