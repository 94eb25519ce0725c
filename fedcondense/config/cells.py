"""The cells of a sweep: a scenario each, all of them checked before the first is played."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedcondense.config.cell_names import choice_name, folder_name, headings
from fedcondense.config.loading import parse_settings
from fedcondense.config.scenario import Scenario
from fedcondense.config.sweep import Axis, Values, axes_of
from fedcondense.errors import SettingsError
from fedcondense.files.storage import canonical_json, sha256

UNREAD = ("one", "another")  # stand for classes that only the images will name


@dataclass(frozen=True)
class Cell:
    """One combination of the axes' values.

    `name` is its folder: another scenario has another one. `choices` are its values in a reader's
    words by the heading of the axis.
    """

    name: str
    scenario: Scenario
    choices: Mapping[str, str]


Choices = tuple[tuple[Axis, Any], ...]


def cells_of(scenario: Scenario) -> tuple[Cell, ...]:
    """The product of the sweep's axes, in the order of a scenario's keys, the last one fastest.

    Raises:
        SettingsError: a cell is no scenario, or its parts do not fit together; the cell is named.
    """
    assert scenario.sweep is not None, "asked of a sweep"
    given = scenario.model_dump(
        mode="json", exclude_unset=True, exclude_none=True, exclude={"sweep", "reference"}
    )
    axes = sorted(axes_of(scenario.sweep), key=_place)
    products = itertools.product(*(axis.values for axis in axes))
    cells = tuple(_cell(given, tuple(zip(axes, values, strict=True))) for values in products)
    _demand_different(cells, scenario.name)
    return cells


def scenario_digest(scenario: Scenario) -> str:
    """SHA-256 of all that is not left at its default.

    A key that comes with a later version changes no digest; its cells are found again.
    """
    return sha256(canonical_json(scenario.model_dump(mode="json", exclude_defaults=True)))


def _place(axis: Axis) -> tuple[int, tuple[str, ...]]:
    """A file written anew may name its axes in another order; `together` is laid over the rest."""
    keys = list(Scenario.model_fields)
    key = axis.path[0]
    return keys.index(key) if key in keys else len(keys), axis.path


def _cell(given: Values, choices: Choices) -> Cell:
    values = copy.deepcopy(given)
    for axis, value in choices:
        axis.put(values, value)
    where = f"{given['name']}: cell {_written(choices)}"
    scenario = parse_settings(Scenario, values, where)
    _demand_sense(scenario, where)
    axes = [axis for axis, _ in choices]
    mode = scenario.privacy.mode
    names = [choice_name(axis, value, scenario.distill, mode) for axis, value in choices]
    return Cell(
        folder_name(axes, names, scenario_digest(scenario)),
        scenario,
        dict(zip(headings(axes), names, strict=True)),
    )


def _demand_different(cells: tuple[Cell, ...], where: str) -> None:
    seen: dict[str, Cell] = {}
    for cell in cells:
        digest = scenario_digest(cell.scenario)
        if digest in seen:
            raise SettingsError(
                f"{where}: cells {seen[digest].name} and {cell.name} are the same scenario",
                hint="leave out one of the values, or the key that makes no difference",
            )
        seen[digest] = cell


def _written(choices: Choices) -> str:
    return ", ".join(f"{axis.key} = {json.dumps(value, default=str)}" for axis, value in choices)


def _demand_sense(scenario: Scenario, where: str) -> None:
    """Refuse now what would only fail after hours, as far as it can be told without the images."""
    by_data = scenario.partition.kind == "site"
    sites = scenario.quorum or 1 if by_data else scenario.partition.sites
    try:
        scenario.study(scenario.classes or UNREAD, sites, scenario.seeds[0])
    except SettingsError as error:
        said = error.message.removeprefix(f"{scenario.name}: ")
        raise SettingsError(f"{where}: {said}", hint=error.hint) from None
