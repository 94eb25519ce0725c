from __future__ import annotations

import math
import re
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcondense.config.cells import Cell, cells_of
from fedcondense.config.loading import parse_settings
from fedcondense.config.scenario import Scenario, load_scenario, scenario_toml
from fedcondense.errors import SettingsError

EXAMPLE = """
name = "toy"
release = "study-only"
[images]
kind = "phantoms"
[partition]
sites = 3
[sweep]
images_per_class = [1, 10]
[sweep.partition]
alpha = [0.1, 0.5]
[[sweep.distill]]
method = "random"
[[sweep.distill]]
method = "idm"
start = "real"
"""


def loaded(folder: Path, text: str = EXAMPLE) -> Scenario:
    path = folder / "toy.toml"
    path.write_text(text)
    return load_scenario(path)


def swept(sweep: dict, **changes) -> tuple[Cell, ...]:
    values = {"name": "toy", "distill": {"method": "idm"}, "images": {"kind": "phantoms"}}
    return cells_of(parse_settings(Scenario, values | changes | {"sweep": sweep}, "toy.toml"))


def test_cells_are_the_product_of_the_axes_and_the_last_varies_fastest(tmp_path):
    cells = cells_of(loaded(tmp_path))

    found = [
        (c.scenario.images_per_class, c.scenario.partition.alpha, c.scenario.distill.method)
        for c in cells
    ]
    assert found == [
        (1, 0.1, "random"),
        (1, 0.5, "random"),
        (1, 0.1, "idm"),
        (1, 0.5, "idm"),
        (10, 0.1, "random"),
        (10, 0.5, "random"),
        (10, 0.1, "idm"),
        (10, 0.5, "idm"),
    ]
    assert {c.scenario.partition.sites for c in cells} == {3}
    assert all(c.scenario.sweep is None and not c.scenario.reference for c in cells)


def test_a_cell_says_its_choices_and_a_method_its_start():
    cells = swept(
        {
            "images_per_class": [2],
            "distill": [
                {"method": "idm"},
                {"method": "idm", "queue": "experts"},
                {"method": "idm", "preset": "published"},
                {"method": "idm", "image_rate": 3.0},
                {"method": "mtt", "start": "noise"},
            ],
        }
    )

    assert [c.choices for c in cells] == [
        {"images_per_class": "2", "method": "idm, noise start"},
        {"images_per_class": "2", "method": "idm, expert queue, noise start"},
        {"images_per_class": "2", "method": "idm published, noise start"},
        {"images_per_class": "2", "method": "idm, noise start, image_rate 3"},
        {"images_per_class": "2", "method": "mtt, noise start"},
    ]
    assert cells[3].name.startswith("images_per_class-2_idm-noise-start-image_rate-3-")


def test_a_table_replaces_the_whole_table():
    (first, second) = swept(
        {"distill": [{"method": "idm"}, {"method": "idm", "iterations": 7}]},
        distill={"method": "idm", "iterations": 5},
    )

    assert first.scenario.distill.iterations == 300
    assert second.scenario.distill.iterations == 7


def test_keys_that_change_together_are_laid_over_the_scenario():
    cells = swept(
        {
            "together": [
                {"images_per_class": 1, "distill": {"image_rate": 0.5}},
                {"images_per_class": 10, "distill": {"image_rate": 5.0}},
            ]
        },
        distill={"method": "idm", "iterations": 9},
    )

    found = [(c.scenario.images_per_class, c.scenario.distill.image_rate) for c in cells]
    assert found == [(1, 0.5), (10, 5.0)]
    assert {c.scenario.distill.iterations for c in cells} == {9}
    assert cells[0].choices == {"setting": "images_per_class 1, distill.image_rate 0.5"}


def test_a_preset_keeps_its_own_defaults_in_every_cell():
    short, published = swept({"distill": {"preset": ["short", "published"]}})

    assert (short.scenario.distill.iterations, published.scenario.distill.iterations) == (
        300,
        20_000,
    )


def test_seeds_may_be_an_axis_of_lists():
    cells = swept({"seeds": [[0], [1, 2]]})

    assert [c.scenario.seeds for c in cells] == [(0,), (1, 2)]
    assert cells[1].choices == {"seeds": "1 2"}


axes = st.fixed_dictionaries(
    {"images_per_class": st.lists(st.integers(1, 1000), min_size=1, max_size=3, unique=True)},
    optional={
        "partition": st.fixed_dictionaries(
            {"alpha": st.lists(st.floats(1e-4, 1e4), min_size=1, max_size=3, unique=True)}
        ),
        "random_draws": st.lists(st.integers(1, 100), min_size=1, max_size=2, unique=True),
        "distill": st.lists(
            st.fixed_dictionaries(
                {"method": st.sampled_from(["idm", "dm", "mtt"])},
                optional={"iterations": st.integers(2, 10**6)},
            ),
            min_size=1,
            max_size=3,
            unique_by=lambda table: table.get("iterations"),
        ),
    },
)


@settings(max_examples=15)
@given(sweep=axes)
def test_there_are_as_many_cells_as_combinations_each_with_a_safe_name_of_its_own(sweep):
    cells = swept(sweep)

    lists = [v for v in sweep.values() if isinstance(v, list)]
    lists += [sweep["partition"]["alpha"]] if "partition" in sweep else []
    names = [c.name for c in cells]
    assert len(cells) == math.prod(map(len, lists))
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9._-]{8,100}", name) for name in names)


def test_another_value_of_any_key_is_another_folder():
    sweep = {"images_per_class": [1]}

    names = {swept(sweep)[0].name, swept(sweep, random_draws=3)[0].name}

    assert len(names) == 2


def test_a_default_that_is_written_out_is_the_same_cell():
    sweep = {"images_per_class": [1]}

    assert swept(sweep)[0].name == swept(sweep, random_draws=5)[0].name


def test_written_as_toml_it_reads_as_the_same_cells(tmp_path):
    scenario = loaded(tmp_path)

    again = parse_settings(Scenario, tomllib.loads(scenario_toml(scenario)), "again")

    assert again == scenario
    assert cells_of(again) == cells_of(scenario)


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({}, "sweep: names no axis"),
        ({"images_per_class": 3}, "sweep.images_per_class: an axis is a list of the values"),
        ({"images_per_class": []}, "sweep.images_per_class: an axis is a list of the values"),
        ({"partition": {"alpha": [0.1, 0.1]}}, "sweep.partition.alpha: each value stands once"),
        ({"read": ["test", "validation"]}, "sweep.read: read: one for all cells of a sweep"),
        ({"together": [{"images": {"kind": "npz"}}]}, "sweep.together: images: one for all cells"),
        ({"together": [3]}, "sweep.together: a list of tables of keys that change together"),
    ],
)
def test_what_is_no_axis_is_refused(sweep, said):
    with pytest.raises(SettingsError, match=said):
        swept(sweep)


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        (
            {"images_per_class": [1, 0]},
            "toy: cell images_per_class = 0: images_per_class: Input should be greater",
        ),
        (
            {"distill": [{"method": "idm"}, {"method": "idm", "rate": 1}]},
            'toy: cell distill = {"method": "idm", "rate": 1}: distill.rate: Extra inputs',
        ),
        (
            {"network": {"depth": [3, 6]}},
            "toy: cell network.depth = 6: network.depth: 6 blocks leave less than 2 x 2 pixels",
        ),
        ({"quorum": [2, 9]}, "toy: cell quorum = 9: quorum: 9 of 4 sites can never be met"),
        ({"nonsense": [1]}, "toy: cell nonsense = 1: nonsense: Extra inputs are not permitted"),
        (
            {"distill": [{"method": "idm"}, {"method": "idm", "preset": "short"}]},
            "are the same scenario",
        ),
    ],
)
def test_a_cell_that_cannot_be_played_is_named(sweep, said):
    with pytest.raises(SettingsError) as caught:
        swept(sweep)

    assert said in caught.value.message
    assert "\n" not in caught.value.message


def test_a_reference_without_a_sweep_has_no_place():
    values = {
        "name": "toy",
        "distill": {"method": "idm"},
        "reference": [{"label": "IDM", "value": 58.6, "source": "Table 1"}],
    }

    with pytest.raises(SettingsError, match="reference: stands beside the cells of a"):
        parse_settings(Scenario, values, "toy.toml")
