from __future__ import annotations

import itertools
import json
import re
import statistics
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from sweep_kit import StandIn, error_of, invented_scores, sweep_scenario

from fedcondense.config.cells import cells_of
from fedcondense.errors import DivergedError
from fedcondense.learning.scores import difference, pool
from fedcondense.progress import silent
from fedcondense.research.gate_schema import Gate
from fedcondense.research.sweep_page import page_values, write_sweep_report
from fedcondense.research.sweep_plots import lines_of
from fedcondense.research.sweep_report import sweep_report
from fedcondense.research.sweep_root import SweepRoot
from fedcondense.research.sweep_schema import SweepReport
from fedcondense.research.sweep_tables import difference_tables, paper_tables
from fedcondense.server.conclude import GLOBAL

SWEEP = {
    "images_per_class": [1, 10],
    "distill": [{"method": "random"}, {"method": "idm", "start": "real"}],
}
REFERENCES = [
    {
        "label": "IDM",
        "value": 58.6,
        "sd": 0.1,
        "source": "Zhao et al. 2023, Table 1",
        "cell": {"images_per_class": 10, "distill": {"method": "idm"}},
    },
    {"label": "DSA", "value": 52.1, "source": "Table 1", "cell": {"images_per_class": 10}},
    {"label": "whole set", "value": 84.8, "source": "Table 1", "beside": "ceiling"},
    {"label": "astray", "value": 1, "source": "Table 9", "cell": {"images_per_class": 50}},
]
SCENARIO = sweep_scenario(SWEEP, seeds=[0, 1], reference=REFERENCES)
CELLS = cells_of(SCENARIO)


@cache
def finished() -> SweepReport:
    """All cells but the last, which failed."""
    with TemporaryDirectory() as folder:
        root, play = SweepRoot(Path(folder)), StandIn()
        for cell in CELLS[:-1]:
            with root.cell(cell).claim(cell.scenario):
                play(root.cell(cell), cell.scenario, silent)
        root.record(CELLS[-1], error_of(DivergedError))
        return sweep_report(SCENARIO, CELLS, root)


@cache
def page() -> str:
    with TemporaryDirectory() as folder:
        write_sweep_report(Path(folder), finished())
        assert json.loads((Path(folder) / "report.json").read_bytes()) == finished().to_json()
        return (Path(folder) / "report.html").read_text()


def pooled(cell):
    parts = [invented_scores(cell.scenario, seed) for seed in (0, 1)]
    return parts, pool([part.sets[GLOBAL] for part in parts])


def test_a_cell_shows_the_mean_of_all_networks_and_the_sd_of_the_seeds():
    parts, together = pooled(CELLS[0])

    found = finished().cells[0].results.scores.global_set

    by_seed = [part.scores().global_set.balanced_accuracy.mean for part in parts]
    whole = together.estimates()["balanced_accuracy"]
    assert (found.mean, found.low, found.high) == (whole.mean, whole.low, whole.high)
    assert found.by_seed == tuple(by_seed)
    assert found.sd == statistics.stdev(by_seed)
    assert found.mean == pytest.approx(statistics.fmean(by_seed))


def test_bytes_and_seconds_are_those_of_a_site():
    results = [cell.results for cell in finished().cells if cell.results]

    assert [r.sealed_bytes for r in results] == [1_000, 1_000, 10_000]
    assert {(r.sites, r.condensing_seconds, r.networks) for r in results} == {(2, 2.5, 4)}


def test_two_methods_are_compared_resample_by_resample():
    (found,) = finished().differences

    (_, random), (_, idm) = pooled(CELLS[0]), pooled(CELLS[1])
    gap = difference(idm, random)
    assert (found.cell, found.minus) == (CELLS[1].name, CELLS[0].name)
    assert found.gap.difference == pytest.approx(gap.difference)
    assert (found.gap.low, found.gap.high) == pytest.approx((gap.low, gap.high))
    assert np.mean(found.gap.by_seed) == pytest.approx(gap.difference)


def test_a_reference_stands_beside_the_cells_that_have_its_keys():
    by_label = {reference.label: reference for reference in finished().references}

    assert by_label["IDM"].cells == (CELLS[3].name,)
    assert by_label["DSA"].cells == (CELLS[2].name, CELLS[3].name)
    assert by_label["whole set"].cells == tuple(cell.name for cell in CELLS)
    assert by_label["astray"].cells == ()
    assert (by_label["IDM"].value, by_label["IDM"].sd) == (0.586, 0.001)
    assert [r.names_method for r in finished().references] == [True, False, False, False]


def test_the_table_is_as_papers_print_it():
    (table,) = paper_tables(finished())

    assert table.columns == ("1", "10")
    assert [row.name for row in table.rows] == [
        "random, real images",
        "idm, real start",
        "all real images (ceiling)",
        "random real images, as many",
        "DSA",
    ]
    rows = {row.name: row.entries for row in table.rows}
    cells = finished().cells
    assert rows["random, real images"]["10"].ours == cells[2].results.scores.global_set
    assert rows["idm, real start"]["10"].ours is None
    assert [r.label for r in rows["idm, real start"]["10"].published] == ["IDM"]
    assert set(rows["DSA"]) == {"10"}
    assert rows["all real images (ceiling)"]["1"].published[0].label == "whole set"
    assert table.compared == {"1", "10"}


def test_there_is_a_table_of_differences_where_two_methods_are_done():
    (table,) = difference_tables(finished())

    assert table.title == "images_per_class 1"
    assert table.names == ("random, real images", "idm, real start")
    assert list(table.gaps) == [("idm, real start", "random, real images")]


def test_a_line_joins_cells_that_differ_in_images_per_class_alone():
    lines = lines_of(finished())

    assert [(line.name, [c.images_per_class for c in line.cells]) for line in lines] == [
        ("random, real images", [1, 10]),
        ("idm, real start", [1]),
    ]
    assert len({(line.shade, line.mark, line.style) for line in lines}) == 2


def test_the_page_is_one_file_without_a_script():
    assert "<script" not in page()
    assert not re.search(r'(?:src|href)="(?!#|data:|cells/[^"]*/preview\.html")', page())


def test_ids_stand_once_and_every_link_of_the_page_leads_somewhere():
    ids = re.findall(r'\bid="([^"]+)"', page())

    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'<a href="#([^"]+)"', page())) <= set(ids)


def test_every_figure_of_the_page_stands_in_the_json():
    known = numbers_of(finished().to_json())

    shown = {float(value) for value in re.findall(r'<data value="([^"]+)"', page())}

    assert len(shown) > 20
    assert shown <= known


def numbers_of(value) -> set[float]:
    if isinstance(value, dict):
        return set(itertools.chain.from_iterable(map(numbers_of, value.values())))
    if isinstance(value, list):
        return set(itertools.chain.from_iterable(map(numbers_of, value)))
    return {float(value)} if isinstance(value, int | float) else set()


def test_the_page_names_what_failed_and_what_was_published():
    assert "what is wrong" in page()
    assert "FC301" in page()
    assert "3 of 4 cells are done, 1 failed." in page()
    assert "Zhao et al. 2023, Table 1" in page()
    assert "none of this sweep" in page()


def test_each_cell_stands_with_what_the_gates_of_its_sites_said():
    cells = {cell.name: cell for cell in finished().cells}
    idm = next(cell for cell in cells.values() if cell.method == "idm, real start" and cell.gates)

    row = page().split('<h2 id="gate">')[1].split(idm.name, 1)[1].split("</tr>")[0]

    assert len(idm.gates) == 4  # two sites, two seeds
    assert "refused</b> as a release<small>4 of 4 sites" in row
    for site in idm.gates:
        assert site.gate.page.startswith(f"cells/{idm.name}/seed-")
        assert f'href="{site.gate.page}"' in row


def test_cells_of_before_verdicts_were_reported_are_shown_without_them():
    cell = next(cell for cell in finished().cells if cell.gates)
    bare = cell.gates[0].model_copy(update={"gate": Gate(purpose="simulation")})
    report = finished().model_copy(
        update={"cells": (cell.model_copy(update={"gates": (bare,)}), *finished().cells[1:])}
    )

    with TemporaryDirectory() as folder:
        write_sweep_report(Path(folder), report)
        row = (Path(folder) / "report.html").read_text().split('<h2 id="gate">')[1]

    assert row.split("</tr>")[1].count("<td>not known</td>") == 3


def test_an_epsilon_of_a_sweep_stands_with_its_delta_and_unit():
    asked = {"mode": "dp-embed", "epsilon": 8.0}
    scenario = sweep_scenario({"privacy": [{"mode": "none"}, asked]})
    with TemporaryDirectory() as folder:
        report = sweep_report(scenario, cells_of(scenario), SweepRoot(Path(folder)))
        write_sweep_report(Path(folder), report)
        text = (Path(folder) / "report.html").read_text()

    assert "that of one study at one site:</b> delta 1e-05, unit image, add/remove one" in text
    assert [cell.privacy.epsilon for cell in report.cells] == [None, 8.0]
    assert report.to_json()["cells"][0]["privacy"] == {"mode": "none"}
    assert "that of one study" not in page()  # it has no epsilon


def test_names_from_the_file_are_escaped():
    hostile = "<script>alert(1)</script>"
    scenario = sweep_scenario(
        {"images_per_class": [1]}, reference=[{"label": hostile, "value": 1, "source": hostile}]
    )
    with TemporaryDirectory() as folder:
        root = SweepRoot(Path(folder))
        write_sweep_report(Path(folder), sweep_report(scenario, cells_of(scenario), root))
        text = (Path(folder) / "report.html").read_text()

    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_sweep_without_a_finished_cell_has_a_page_too():
    report = finished().model_copy(update={"cells": finished().cells[3:], "facts": None})

    values = page_values(report)

    assert values["ipc_plot"] is None
    assert values["bytes_plot"] is None
    assert values["lines"] == []
