from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from page_kit import PageReader, numbers_of
from pydantic import ValidationError

from fedcondense.config.scenario import ReleaseMode, Scenario
from fedcondense.config.study import Architecture, NetworkSpec
from fedcondense.files.environment import RunEnvironment, this_environment
from fedcondense.files.figures import Difference, Estimate
from fedcondense.files.galleries import SetPictures, galleries
from fedcondense.progress import Step
from fedcondense.research.gate_schema import FailedSite, Gate
from fedcondense.research.optional_schema import (
    ArchitectureScores,
    Consistency,
    CrossArchitecture,
    NetworkScore,
)
from fedcondense.research.report_assembly import (
    Circumstances,
    Pooled,
    assemble,
    curve_of,
    study_facts,
)
from fedcondense.research.report_curves import curve_key, split_curve
from fedcondense.research.report_schema import (
    External,
    Gains,
    Joining,
    Release,
    Repetition,
    Scores,
    Seconds,
    SiteFigures,
    SiteScores,
    StudyReport,
)
from fedcondense.research.study_report import (
    judgement,
    page_values,
    read_study_report,
    weakest_site,
    write_study_report,
)
from fedcondense.server.report_figures import (
    ARCHITECTURES,
    GlobalSetFigures,
    Measures,
    PrivacyFacts,
    ScoredImages,
    SetScores,
    network_text,
    recalls_of,
    row_shares,
)

pytestmark = pytest.mark.slow  # fifty pages with their drawings: more than 5 s together

CLASSES = ("COVID", "Lung_Opacity", "Normal", "Viral_Pneumonia")
METRICS = (
    "balanced_accuracy",
    "accuracy",
    "macro_f1",
    "auroc",
    "sensitivity_at_90_specificity",
    "calibration_error",
)


AUDITED = {"provenance": "passed", "memorisation": "passed", "membership": "not-run"}
STATEMENT = (
    "Contains 20 synthetic images optimised from 300 records; started from noise; no original "
    "image is included. No formal privacy guarantee. Empirical audit: provenance passed, "
    "memorisation passed, membership not run. A passed audit bounds only the attacks run. Treat "
    "as personal data under contract."
)


def invented_gate(site: str, repetition: int, *problems: str) -> Gate:
    page = f"seed-{repetition}/sites/{site}/runs/0/round-001/preview.html"
    refused = {"memorisation": "refused"} if problems else {}
    return Gate(
        purpose="release",
        problems=problems,
        audits=AUDITED | refused,
        statement=f"{STATEMENT} ({site})",
        page=page,
    )


class Inventor:
    """Invents figures of a plausible size; no number here was measured."""

    def __init__(self, classes: tuple[str, ...] = CLASSES, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.classes = classes

    def estimate(self, around: float) -> Estimate:
        mean = float(np.clip(around + self.rng.normal(0, 0.004), 0, 1))
        half = float(self.rng.uniform(0.012, 0.028))
        return Estimate(mean=mean, sd=half / 3, low=mean - half, high=mean + half * 0.93)

    def measures(self, level: float, networks: int = 5) -> dict[str, Any]:
        k = len(self.classes)
        counts = np.full((k, k), (1 - level) * 30) * self.rng.uniform(0.3, 1.7, (k, k))
        np.fill_diagonal(counts, 90 * level * self.rng.uniform(0.8, 1.2, k))
        confusion = row_shares(counts)
        levels = (level, level + 0.01, level - 0.01, 0.5 + level / 2, level - 0.05, 0.9 - level)
        return {
            **{name: self.estimate(value) for name, value in zip(METRICS, levels, strict=True)},
            "per_class_recall": recalls_of(confusion, self.classes),
            "confusion": confusion,
            "networks": networks,
        }

    def set_scores(self, level: float, images: int, views: int | None = None) -> SetScores:
        return SetScores(**self.measures(level), images=images, views=views or images)

    def difference(self, around: float) -> Difference:
        value = around + float(self.rng.normal(0, 0.003))
        return Difference(difference=value, low=value - 0.014, high=value + 0.015)

    def scores(self, sites: list[str], images: int) -> Scores:
        alone = {s: float(self.rng.uniform(0.6, 0.74)) for s in sites}
        gain = {s: 0.35 * (0.75 - level) for s, level in alone.items()}
        return Scores(
            global_set=self.set_scores(0.683, images, 4 * images),
            ceiling=self.set_scores(0.801, 1200),
            random_real=self.set_scores(0.601, images),
            random_real_expanded=self.set_scores(0.655, images, 4 * images),
            site_alone=SiteScores(
                sites={s: self.set_scores(alone[s], 300) for s in sites},
                mean=Measures(**self.measures(float(np.mean(list(alone.values()))))),
            ),
            site_joined=SiteScores(
                sites={
                    s: self.set_scores(alone[s] + gain[s], 300 + images, 300 + 4 * images)
                    for s in sites
                },
                mean=Measures(**self.measures(float(np.mean([alone[s] + gain[s] for s in sites])))),
            ),
        )

    def gains(self, scores: Scores) -> Gains:
        alone, joined = scores.site_alone, scores.site_joined
        return Gains(
            joining=Joining(
                sites={
                    s: self.difference(
                        joined.sites[s].balanced_accuracy.mean
                        - alone.sites[s].balanced_accuracy.mean
                    )
                    for s in alone.sites
                },
                mean=self.difference(
                    joined.mean.balanced_accuracy.mean - alone.mean.balanced_accuracy.mean
                ),
            ),
            global_minus_random_real=self.difference(0.082),
            global_minus_random_real_expanded=self.difference(0.011),
        )

    def site(self, name: str, repetition: int) -> SiteFigures:
        counts = {
            c: int(n) for c, n in zip(self.classes, self.rng.integers(8, 180, 4), strict=False)
        }
        left_out = tuple(c for c, n in counts.items() if n < 20)
        steps = [
            Step(
                "condensing",
                i + 1,
                300,
                {
                    "matching": float(60 * np.exp(-i / 80) + 9 + self.rng.normal(0, 1.5)),
                    "regularisation": float(0.2 + 0.6 * np.exp(-i / 120)) if i > 3 else 0.0,
                    "queue_accuracy": float(1 - 0.7 * np.exp(-i / 60)),
                },
            )
            for i in range(300)
        ]
        return SiteFigures(
            name=name,
            repetition=repetition,
            images=sum(counts.values()),
            groups=max(1, sum(counts.values()) - 40),
            class_counts=counts,
            left_out=left_out,
            synthetic_images=5 * (len(self.classes) - len(left_out)),
            sealed_bytes=21_700 + int(self.rng.integers(0, 900)),
            real_bytes=1024 * sum(counts.values()),
            seconds=float(self.rng.uniform(48, 95)),
            peak_megabytes=float(self.rng.uniform(380, 520)),
            gate=invented_gate(name, repetition),
            payload_sha256="5f" * 32,
            signing_key="fc1-ed25519-q3kd-88ax-v2mm-70tn",
            curve=curve_of(steps),
        )

    def external(self, sites: list[str]) -> External:
        counts = dict.fromkeys(self.classes, 0) | {self.classes[0]: 130, self.classes[2]: 89}
        scores = self.scores(sites, 80)
        return External(
            test=ScoredImages(
                name="cxr4_external_sites", images=219, groups=201, class_counts=counts
            ),
            scores=scores,
            gains=self.gains(scores),
        )

    def cross(self) -> CrossArchitecture:
        levels = {"global": 0.68, "ceiling": 0.8, "random_real": 0.6, "random_real_expanded": 0.65}
        return CrossArchitecture(
            condensed_with="convnet",
            tested_with={
                name: ArchitectureScores(
                    sets={
                        key: NetworkScore(
                            balanced_accuracy=self.estimate(level - lower),
                            accuracy=self.estimate(level - lower),
                            networks=2,
                        )
                        for key, level in levels.items()
                    },
                    global_minus_random_real=self.difference(0.08 - lower),
                )
                for name, lower in (("convnet", 0.0), ("alexnet", 0.09), ("resnet18", 0.05))
            },
        )

    def consistency(self) -> Consistency:
        nearest = (1, 5, 10, 20, 50, 100)
        falling = [0.02 * i + float(self.rng.uniform(0, 0.01)) for i in range(6)]
        return Consistency(
            nearest=nearest,
            synthetic=tuple(0.74 - fall for fall in falling),
            unseen_real=tuple(0.81 - fall for fall in falling),
            real_images=520,
            views=80,
        )


def scenario(seeds: tuple[int, ...] = (0,)) -> Scenario:
    return Scenario.model_validate_json(
        json.dumps(
            {
                "name": "covid_cxr",
                "images": {"kind": "phantoms"},
                "distill": {"method": "idm"},
                "seeds": seeds,
            }
        )
    )


def invented_report(
    sites: list[str],
    *,
    seeds: tuple[int, ...] = (0,),
    failed: dict[str, str] | None = None,
    classes: tuple[str, ...] = CLASSES,
    with_external: bool = False,
    with_optional: bool = False,
    mode: ReleaseMode = ReleaseMode.ENFORCED,
) -> StudyReport:
    inventor = Inventor(classes)
    repetitions = []
    for i, seed in enumerate(seeds):
        scores = inventor.scores(sites, 20 * len(sites))
        repetitions.append(
            Repetition(
                seed=seed,
                study_digest=f"{seed:064x}",
                sites=tuple(inventor.site(name, i) for name in sites),
                failed_sites=tuple(
                    FailedSite(name=name, repetition=i, code=code)
                    for name, code in (failed or {}).items()
                ),
                seconds=Seconds(
                    start_up=21.4, condense=96.2, federation=8.8, evaluation=143.0, total=284.9
                ),
                global_set=GlobalSetFigures(
                    sha256=f"{seed + 10:064x}", images=20 * len(sites), classes=classes
                ),
                scores=scores,
                gains=inventor.gains(scores),
                external=inventor.external(sites) if with_external else None,
                cross_architecture=inventor.cross() if with_optional else None,
                consistency=inventor.consistency() if with_optional else None,
            )
        )
    pooled = inventor.scores(sites, 20 * len(sites))
    played = scenario(seeds)
    return assemble(
        Circumstances(
            study=study_facts(played, played.study(classes, len(sites), seeds[0])),
            environment=RunEnvironment(
                versions={"python": "3.11.9", "fedcondense": "0.1.0", "torch": "2.14.0"},
                device="cpu",
                threads=1,
                cpu="Example processor with 2 cores",
                date="2026-11-21T10:00:00Z",
            ),
            release=Release(
                mode=mode, purpose="release" if mode is ReleaseMode.ENFORCED else "simulation"
            ),
            test=ScoredImages(
                name="test", images=600, groups=512, class_counts=dict.fromkeys(classes, 150)
            ),
        ),
        repetitions,
        Pooled(
            pooled,
            inventor.gains(pooled),
            inventor.external(sites) if with_external else None,
            inventor.cross() if with_optional else None,
            inventor.consistency() if with_optional else None,
        ),
    )


def invented_pictures(
    sites: list[str], classes: tuple[str, ...] = CLASSES, size: int = 32, of_each: int = 5
) -> SetPictures:
    """Blurred noise with two dark lungs: chest-like, and nobody's."""
    rng = np.random.default_rng(1)
    n = len(sites) * len(classes) * of_each
    starts = rng.normal(0, 1, (n, 1, size, size))
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    lungs = np.exp(-8 * (np.abs(x) - 0.42) ** 2 - 1.6 * y**2)
    images = 140 - 70 * lungs + 16 * starts + 12 * rng.normal(size=(n, 1, 1, 1))
    return SetPictures(
        images=np.clip(images, 0, 255).astype(np.uint8),
        starts=starts,
        labels=np.tile(np.repeat(np.arange(len(classes)), of_each), len(sites)),
        sites=tuple(s for s in sites for _ in range(len(classes) * of_each)),
        classes=classes,
    )


FOUR = ["site-0", "site-1", "site-2", "site-3"]


def written(folder: Path, report: StudyReport, pictures: SetPictures) -> tuple[str, dict[str, Any]]:
    write_study_report(folder, report, pictures)
    return (folder / "report.html").read_text("utf-8"), json.loads(
        (folder / "report.json").read_bytes()
    )


@cache
def drawn_page(sites: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """The page of one plain report; many tests read it and none changes it."""
    return in_scratch(invented_report(list(sites)), invented_pictures(list(sites), of_each=1))


def in_scratch(report: StudyReport, pictures: SetPictures) -> tuple[str, dict[str, Any]]:
    with TemporaryDirectory() as folder:
        return written(Path(folder), report, pictures)


@cache
def page_of_case(name: str) -> tuple[StudyReport, str, dict[str, Any]]:
    case = CASES[name]
    report = invented_report(**case)
    return report, *in_scratch(report, invented_pictures(case["sites"], of_each=1))


CASES: dict[str, dict[str, Any]] = {
    "one site": {"sites": ["site-0"]},
    "a failed site": {"sites": FOUR, "failed": {"site-4": "FC203"}},
    "three repetitions and an external test": {
        "sites": FOUR[:2],
        "seeds": (0, 1, 2),
        "with_external": True,
        "mode": ReleaseMode.STUDY_ONLY,
    },
    "all that may be asked for": {"sites": FOUR[:2], "seeds": (0, 1), "with_optional": True},
    "twenty sites": {"sites": [f"site-{i}" for i in range(20)]},
}


@pytest.mark.parametrize("case", CASES)
def test_every_figure_of_the_page_stands_in_the_json(case: str) -> None:
    _, page, values = page_of_case(case)

    reader = PageReader(page)

    assert len(reader.figures) > 100
    assert set(reader.figures) <= numbers_of(values)
    assert not re.findall(r"\d\.\d+\s*%|\b0\.\d{3}\b", reader.text)  # none is written by hand


def leads_inside(address: str) -> bool:
    """Into the page, to a picture that it holds, or to a site's page in the same directory."""
    if address.startswith(("#", "data:image/png;base64,")):
        return True
    return bool(re.fullmatch(r"seed-\d/sites/.*/preview\.html", address))


@pytest.mark.parametrize("case", CASES)
def test_the_page_loads_nothing_and_runs_nothing(case: str) -> None:
    _, page, _ = page_of_case(case)

    reader = PageReader(page)

    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(
        reader.elements
    )
    assert all(leads_inside(address) for address in reader.addresses)
    assert not [name for name in reader.attributes if name.startswith("on")]
    assert "http:" not in page
    assert "https:" not in page
    assert "@import" not in page
    assert set(re.findall(r"url\((.)", page)) <= {"#"}


@pytest.mark.parametrize("case", CASES)
def test_every_id_is_unique_and_every_link_inside_has_its_end(case: str) -> None:
    _, page, _ = page_of_case(case)

    reader = PageReader(page)

    inner = {a[1:] for a in reader.addresses if a.startswith("#")}
    inner |= set(re.findall(r"url\(#([^)]*)\)", page))
    assert len(reader.ids) == len(set(reader.ids))
    assert inner <= set(reader.ids)


def test_names_of_sites_and_classes_are_text_and_nothing_else(tmp_path: Path) -> None:
    sites = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "b$x^2$"]
    classes = ("<u>A<u>", "肺炎", "c$x^2$", "'-->{{ 7 * 7 }}")

    page, _ = written(
        tmp_path,
        invented_report(sites, classes=classes, failed={"<i>lost</i>": "FC901"}),
        invented_pictures(sites, classes, of_each=1),
    )

    reader = PageReader(page)
    assert "script" not in reader.elements
    assert "onerror" not in reader.attributes
    assert "<u>A" not in page
    assert "<i>lost" not in page
    assert "<i>lost</i>" in reader.text
    assert "<script>alert(1)</script>" in reader.text
    assert "{{ 7 * 7 }}" in reader.text
    assert all(leads_inside(address) for address in reader.addresses)


def test_equal_reports_are_equal_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_study_report(
            tmp_path / folder, invented_report(FOUR[:2]), invented_pictures(FOUR[:2], of_each=1)
        )

    assert (tmp_path / "a/report.html").read_bytes() == (tmp_path / "b/report.html").read_bytes()
    assert (tmp_path / "a/report.json").read_bytes() == (tmp_path / "b/report.json").read_bytes()


def test_the_json_has_the_paths_that_others_rely_on(tmp_path: Path) -> None:
    report = invented_report(FOUR[:2], seeds=(0, 1), with_external=True)

    _, values = written(tmp_path, report, invented_pictures(FOUR[:2], of_each=1))

    for part in (values, values["external"], *values["repetitions"]):
        for name in ("global", "ceiling", "random_real", "random_real_expanded"):
            assert set(part["scores"][name]) == {
                *METRICS, "per_class_recall", "confusion", "networks", "images", "views"
            }  # fmt: skip
            for metric in METRICS:
                assert set(part["scores"][name][metric]) == {"mean", "sd", "low", "high"}
        for name in ("site_alone", "site_joined"):
            assert list(part["scores"][name]["sites"]) == FOUR[:2]
            assert part["scores"][name]["mean"]["balanced_accuracy"]["mean"] > 0
        assert set(part["gains"]["joining"]) == {"sites", "mean"}
        for name in ("global_minus_random_real", "global_minus_random_real_expanded"):
            assert set(part["gains"][name]) == {"difference", "low", "high"}
    assert set(values["seconds"]) == {"start_up", "condense", "federation", "evaluation", "total"}
    assert set(values["global_set"]) == {"sha256", "images", "classes"}
    assert {
        "name", "images", "synthetic_images", "sealed_bytes", "real_bytes", "seconds",
        "peak_megabytes", "left_out", "class_counts", "repetition", "curve",
    } <= set(values["sites"][3])  # fmt: skip


def test_other_networks_are_columns_and_the_one_condensed_with_is_the_first() -> None:
    report, page, values = page_of_case("all that may be asked for")

    section = page.split('<h2 id="cross">')[1].split("</thead>")[0]
    head = re.findall(r'<th scope="col">(.*?)</th>', section)
    assert head == ["Trained on", "ConvNet (condensed with)", "AlexNet", "ResNet18"]
    assert report.cross_architecture is not None
    assert values["cross_architecture"] == report.cross_architecture.model_dump(mode="json")
    assert list(values["repetitions"][1]["cross_architecture"]) == list(
        values["cross_architecture"]
    )


def test_the_consistency_ratio_is_drawn_and_tabled() -> None:
    _, page, values = page_of_case("all that may be asked for")

    found = values["consistency"]
    figures = PageReader(page).figures
    assert set(found["synthetic"]) | set(found["unseen_real"]) <= set(figures)
    assert 'aria-label="consistency ratio by number of nearest images' in page


def test_a_consistency_without_a_share_for_each_number_is_refused() -> None:
    values = Inventor().consistency().model_dump()

    with pytest.raises(ValidationError, match="one share of each kind"):
        Consistency(**values | {"nearest": (1, 5)})


def test_synthetic_images_that_leave_the_training_early_are_said(tmp_path: Path) -> None:
    report = invented_report(FOUR[:1])
    evaluation = report.study.evaluation.model_copy(update={"synthetic_until": 0.5})
    study = report.study.model_copy(update={"evaluation": evaluation})

    page, _ = written(
        tmp_path,
        report.model_copy(update={"study": study}),
        invented_pictures(FOUR[:1], of_each=1),
    )

    assert "25 % of each batch is synthetic, and none after 50 % of the steps" in page
    assert "and none after" not in drawn_page(tuple(FOUR))[0]


def test_a_network_is_named_as_it_is() -> None:
    assert network_text(NetworkSpec()) == "ConvNet with 3 blocks of 32 channels"
    assert network_text(NetworkSpec(architecture=Architecture.VGG11)) == "VGG11"
    assert set(ARCHITECTURES) == set(Architecture)


def test_a_curve_without_shares_is_one_panel_and_figures_of_tensors_are_not_drawn() -> None:
    steps = [
        Step("condensing", i, 3, {"loss": 1 / i, "pruned_share": 0.1, "pruned_share head": 0.2})
        for i in (1, 2, 3)
    ]

    assert curve_key(curve_of(steps)) == {"loss": "second", "pruned_share": "third"}
    assert split_curve({"iteration": (1,), "matching": (2.0,)}) == ({"matching": (2.0,)}, {})


def test_what_was_not_measured_is_absent_and_not_null() -> None:
    _, values = drawn_page(tuple(FOUR))

    for part in (values, *values["repetitions"]):
        assert not {"external", "cross_architecture", "consistency"} & set(part)


def test_a_report_reads_back_as_it_was(tmp_path: Path) -> None:
    report = invented_report(FOUR[:2], seeds=(3, 1), with_external=True)

    write_study_report(tmp_path, report, invented_pictures(FOUR[:2], of_each=1))

    assert read_study_report(tmp_path) == report


def test_the_json_and_the_pictures_are_enough_to_draw_the_page_again(tmp_path: Path) -> None:
    classes, pictures = ("b", "a", "d", "c"), invented_pictures(["x"], ("b", "a", "d", "c"))
    page, _ = written(
        tmp_path, invented_report(["x"], classes=classes, with_external=True), pictures
    )

    again, _ = written(tmp_path / "again", read_study_report(tmp_path), pictures)

    assert again == page


def test_one_repetition_stands_at_both_places() -> None:
    report = invented_report(FOUR, with_external=True)

    only = report.repetitions[0]

    for part in ("scores", "gains", "sites", "global_set", "failed_sites", "seconds", "external"):
        assert getattr(report, part) == getattr(only, part)


def test_several_repetitions_are_pooled_summed_and_listed() -> None:
    report = invented_report(FOUR, seeds=(0, 1, 2), failed={"site-4": "FC203"})

    assert report.scores not in [each.scores for each in report.repetitions]
    assert report.seconds.condense == pytest.approx(3 * 96.2)
    assert [site.repetition for site in report.sites] == [0] * 4 + [1] * 4 + [2] * 4
    assert len(report.failed_sites) == 3
    assert report.global_set == report.repetitions[0].global_set


def test_several_repetitions_without_pooled_scores_are_refused() -> None:
    report = invented_report(FOUR, seeds=(0, 1))
    circumstances = Circumstances(report.study, report.environment, report.release, report.test)

    with pytest.raises(ValueError, match="pooled"):
        assemble(circumstances, report.repetitions)


def test_a_failed_site_is_named_with_its_code(tmp_path: Path) -> None:
    report = invented_report(FOUR[:2], failed={"site-4": "FC203"})

    page, values = written(tmp_path, report, invented_pictures(FOUR[:2], of_each=1))

    text = PageReader(page).text
    assert "1 site failed and is named" in text
    assert "FC203" in text
    assert values["failed_sites"] == [{"name": "site-4", "repetition": 0, "code": "FC203"}]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.001, 0.03, "On average, joining helps a site."),
        (-0.03, -0.001, "On average, joining costs a site accuracy."),
        (-0.01, 0.02, "On average, joining makes no clear difference to a site."),
        (0.0, 0.02, "On average, joining makes no clear difference to a site."),
    ],
)
def test_the_verdict_says_what_the_interval_allows(
    low: float, high: float, said: str, tmp_path: Path
) -> None:
    report = invented_report(FOUR[:1])
    mean = Difference(difference=(low + high) / 2, low=low, high=high)
    joining = report.gains.joining.model_copy(update={"mean": mean})
    gains = report.gains.model_copy(update={"joining": joining})
    report = report.model_copy(update={"gains": gains})

    page, _ = written(tmp_path, report, invented_pictures(FOUR[:1], of_each=1))

    assert said in PageReader(page).text


def test_the_weakest_site_is_the_one_that_does_worst_alone() -> None:
    repetition = invented_report(FOUR).repetitions[0]

    weakest = weakest_site(repetition)

    alone = repetition.scores.site_alone.sites
    assert weakest.alone.mean == min(s.balanced_accuracy.mean for s in alone.values())
    assert weakest.gain == repetition.gains.joining.sites[weakest.name]


def test_a_judgement_is_open_where_the_interval_holds_zero() -> None:
    judged = [
        judgement(Difference(difference=0, low=low, high=high))
        for low, high in ((0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1), (0.0, 0.1), (-0.1, 0.0))
    ]

    assert judged == ["more", "less", "open", "open", "open"]


def test_the_page_warns_at_its_top() -> None:
    page, _ = drawn_page(tuple(FOUR))

    top = PageReader(page).text.split("What joining is worth to a site")[0]

    assert "may show what a deployed server never sees" in top
    assert "Not for clinical use." in top
    assert "procedural phantoms" in top


def test_no_word_of_the_page_promises_what_nobody_showed() -> None:
    page, _ = drawn_page(tuple(FOUR))

    text = PageReader(page).text.lower()

    assert not re.findall(
        r"anonym\w*|de-identified|\bprivate\b|\bsafe\b|gdpr|hipaa|\bfake\b|no patient data", text
    )
    assert "no formal privacy guarantee" in text


def test_each_site_stands_with_what_its_own_gate_said_and_the_way_to_its_page() -> None:
    report, page, values = page_of_case("twenty sites")

    reader = PageReader(page)

    assert [site["gate"]["audits"] for site in values["sites"]] == [AUDITED] * 20
    assert {site.gate.page for site in report.sites} <= set(reader.addresses)
    for site in report.sites:
        assert site.gate.statement in " ".join(reader.text.split())
    assert "20 of 20 passed" in " ".join(reader.text.split())


def test_a_refused_site_is_shown_with_its_reasons_and_points_to_its_own_page(
    tmp_path: Path,
) -> None:
    report = invented_report(FOUR[:2], failed={"site-4": "FC401", "site-5": "FC203"})
    refused = invented_gate("site-4", 0, "real-start", "audit-memorisation")
    only = report.repetitions[0]
    failed = (only.failed_sites[0].model_copy(update={"gate": refused}), only.failed_sites[1])
    circumstances = Circumstances(report.study, report.environment, report.release, report.test)
    report = assemble(circumstances, [only.model_copy(update={"failed_sites": failed})])

    page, values = written(tmp_path, report, invented_pictures(FOUR[:2], of_each=1))

    text = " ".join(PageReader(page).text.split())
    assert "2 of 3 passed" in text
    assert "the synthetic images began as radiographs of patients real-start" in text
    assert "the set is closer to the patients it was made from than to others" in text
    assert refused.page in PageReader(page).addresses
    assert refused.statement not in text  # what never left is not said to have left
    assert values["failed_sites"][0]["gate"]["audits"]["memorisation"] == "refused"
    assert "gate" not in values["failed_sites"][1]
    assert read_study_report(tmp_path) == report


def test_an_epsilon_never_stands_without_its_delta_and_unit(tmp_path: Path) -> None:
    report = invented_report(FOUR[:1])
    privacy = PrivacyFacts(mode="dp-embed", epsilon=8.0, delta=1e-5, unit="image")
    study = report.study.model_copy(update={"privacy": privacy})

    page, values = written(
        tmp_path,
        report.model_copy(update={"study": study}),
        invented_pictures(FOUR[:1], of_each=1),
    )

    text = " ".join(PageReader(page).text.split())
    assert "epsilon 8Formal guarantee of the study" in text
    assert "at most; mode dp-embed, delta 1e-05, unit image" in text
    assert "dp-embed: ε 8, δ 1e-05, unit image" in text
    assert values["study"]["privacy"] == privacy.model_dump()
    assert drawn_page(tuple(FOUR))[1]["study"]["privacy"] == {"mode": "none"}
    for part in ("epsilon", "delta", "unit"):
        with pytest.raises(ValidationError, match="stand together"):
            PrivacyFacts.model_validate(privacy.model_dump() | {part: None})


def test_a_start_in_real_images_is_said_at_the_top(tmp_path: Path) -> None:
    report = invented_report(FOUR[:2], mode=ReleaseMode.STUDY_ONLY)
    report = report.model_copy(
        update={"study": report.study.model_copy(update={"start": "real", "source": "npz"})}
    )

    page, _ = written(tmp_path, report, invented_pictures(FOUR[:2], of_each=1))

    text = PageReader(page).text
    assert "started from real ones, and this page shows those" in text
    assert "original images, file names" not in text


def test_a_page_without_curves_or_a_joined_site_is_whole(tmp_path: Path) -> None:
    report = invented_report(["a", "b"])
    only = report.repetitions[0]
    joined = only.scores.site_joined
    fewer = joined.model_copy(update={"sites": {"a": joined.sites["a"]}})
    only = only.model_copy(
        update={
            "scores": only.scores.model_copy(update={"site_joined": fewer}),
            "sites": tuple(site.model_copy(update={"curve": {}}) for site in only.sites),
        }
    )
    report = assemble(
        Circumstances(report.study, report.environment, report.release, report.test), [only]
    )

    page, _ = written(tmp_path, report, invented_pictures(["a", "b"], of_each=1))

    assert "How condensing went" not in page


def test_pictures_stand_by_site_and_class_and_are_capped() -> None:
    pictures = invented_pictures(["b", "a"], of_each=12)

    shown = galleries(pictures)

    assert [gallery.site for gallery in shown] == ["b", "a"]
    assert [strip.class_name for strip in shown[0].strips] == list(CLASSES)
    assert (len(shown[0].strips[0].pairs), shown[0].strips[0].images) == (10, 12)


def test_a_class_that_a_site_left_out_has_no_strip() -> None:
    pictures = invented_pictures(["a", "b"], of_each=1)
    kept = np.arange(8) != 2
    fewer = SetPictures(
        images=pictures.images[kept],
        starts=pictures.starts[kept],
        labels=pictures.labels[kept],
        sites=tuple(site for site, keep in zip(pictures.sites, kept, strict=True) if keep),
        classes=CLASSES,
    )

    shown = galleries(fewer)

    assert [len(gallery.strips) for gallery in shown] == [3, 4]
    assert "Normal" not in [strip.class_name for strip in shown[0].strips]


def test_a_float_start_is_shown_in_the_scale_of_the_set() -> None:
    levels = np.array([0, 64, 128, 255], dtype=np.uint8).reshape(1, 1, 2, 2)
    as_floats = -4 + levels.astype(np.float64) * 8 / 255

    (gallery,) = galleries(
        SetPictures(levels, as_floats, np.array([0]), ("a",), ("x", "y"), -4.0, 4.0)
    )

    start, image = gallery.strips[0].pairs[0].start, gallery.strips[0].pairs[0].image
    assert re.search('base64,([^"]*)', start)[1] == re.search('base64,([^"]*)', image)[1]


def test_colour_pictures_are_shown() -> None:
    images = np.zeros((1, 3, 16, 16), dtype=np.uint8)

    (gallery,) = galleries(SetPictures(images, images, np.array([1]), ("a",), ("x", "y")))

    assert gallery.strips[0].class_name == "y"


def test_a_long_curve_becomes_means_of_stretches() -> None:
    steps = [Step("condensing", i + 1, 400, {"loss": float(i)}) for i in range(400)]

    curve = curve_of(steps)

    assert len(curve["iteration"]) == 200
    assert curve["iteration"][-1] == 400
    assert curve["loss"][:2] == (0.5, 2.5)  # by hand: (0 + 1) / 2 and (2 + 3) / 2


def test_a_figure_that_no_step_of_a_stretch_has_is_none() -> None:
    steps = [
        Step("condensing", 1, 2, {"loss": float("nan")}),
        Step("condensing", 2, 2, {"loss": 3.0, "queue_accuracy": 0.5}),
    ]

    curve = curve_of(steps)

    assert curve == {"iteration": (1, 2), "loss": (None, 3.0), "queue_accuracy": (None, 0.5)}
    assert curve_of([]) == {}


def test_row_shares_are_counts_over_their_row() -> None:
    counts = np.array([[3.0, 1.0], [0.0, 0.0]])

    shares = row_shares(counts)

    assert shares == ((0.75, 0.25), (0.0, 0.0))
    assert recalls_of(shares, ("a", "b")) == {"a": 0.75, "b": None}


def test_a_curve_of_unequal_lengths_is_refused() -> None:
    site = invented_report(["a"]).sites[0].model_dump()

    with pytest.raises(ValidationError, match="equally many"):
        SiteFigures(**site | {"curve": {"iteration": (1, 2), "loss": (1.0,)}})


def test_a_confusion_that_is_not_square_is_refused() -> None:
    measures = Inventor().measures(0.6)

    with pytest.raises(ValidationError, match="confusion"):
        Measures(**measures | {"confusion": ((1.0,),)})


def test_no_score_is_a_nan() -> None:
    with pytest.raises(ValidationError):
        Estimate(mean=float("nan"), sd=0, low=0, high=0)


def test_the_environment_names_versions_and_processor() -> None:
    environment = this_environment("cpu", 1)

    assert "numpy" in environment.versions
    assert environment.cpu
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", environment.date)


def test_every_drawing_has_a_description() -> None:
    values = page_values(invented_report(FOUR), invented_pictures(FOUR, of_each=1))

    for name in ("sets_plot", "bytes_plot", "stages_plot"):
        assert 'role="img" aria-label="' in str(values[name])


def test_the_schema_page_names_every_key() -> None:
    text = (Path(__file__).parents[2] / "docs/ref-report.md").read_text("utf-8")
    schema = StudyReport.model_json_schema(by_alias=True)

    keys = {
        key for model in [schema, *schema["$defs"].values()] for key in model.get("properties", {})
    }

    assert not [key for key in sorted(keys) if f"`{key}`" not in text]
