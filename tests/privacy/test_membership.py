from __future__ import annotations

import numpy as np
import pytest
import torch
from audit_kit import STUDY, Population, mixed, noise_set, shown, subject

from fedcondense.data.dataset import LabeledImages
from fedcondense.exchange.contribution import SyntheticArrays
from fedcondense.learning.randomness import Seed
from fedcondense.privacy import membership, shadows
from fedcondense.privacy.findings import AuditResult, Finding, Verdict
from fedcondense.privacy.membership import announced, estimate_seconds, judge, membership_audit
from fedcondense.privacy.shadows import condense_shadows, halves, joined, nearness

POPULATION = Population(4)
TRAIN, HELD_OUT = POPULATION.admit(24), POPULATION.admit(6)
SITE = joined(TRAIN, HELD_OUT)
ATTACKS = ["distance", "distance-lira", "margin", "margin-lira", "rmia", "distance-released"]


@pytest.fixture(autouse=True)
def _short_training(monkeypatch):
    monkeypatch.setattr(shadows, "MODEL_STEPS", 2)
    monkeypatch.setattr(membership, "RESAMPLES", 100)


def from_noise(images: LabeledImages, seed: Seed) -> SyntheticArrays:
    """A distiller that looks at nobody."""
    return noise_set(4, seed.value % 1_000)


def memorising(images: LabeledImages, seed: Seed) -> SyntheticArrays:
    """A distiller that keeps half of its patients."""
    order = torch.randperm(len(images), generator=seed.stream("kept"))
    return shown(images.select(order[: len(images) // 2].sort().values))


def audit(redistill, arrays: SyntheticArrays, watch=lambda step: None) -> AuditResult:
    return membership_audit(
        subject(arrays, TRAIN, HELD_OUT),
        redistill=redistill,
        seed=Seed(0),
        shadows=8,
        watch=watch,
    )


def by_attack(result: AuditResult, statistic: str) -> dict[str, Finding]:
    return {f.space: f for f in result.findings if f.statistic == statistic}


@pytest.fixture(scope="module")
def of_noise() -> AuditResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shadows, "MODEL_STEPS", 2)
        return audit(from_noise, noise_set(4, 0))


def test_a_pipeline_that_looks_at_nobody_passes(of_noise):
    assert of_noise.verdict is Verdict.PASSED
    assert of_noise.audit == "membership"


def test_every_attack_has_an_area_and_a_named_share(of_noise):
    assert list(by_attack(of_noise, "auc")) == ATTACKS
    assert list(by_attack(of_noise, "tpr-at-1.0%")) == ATTACKS
    assert by_attack(of_noise, "tpr-at-0.1%") == {}


def test_few_non_members_say_what_they_cannot_tell(of_noise):
    others = (len(SITE) - 1) // 2  # of the smaller half, or some fewer

    assert of_noise.note.startswith("8 shadow sets of half the site's groups each, ")
    assert of_noise.note.endswith("%")
    assert "say nothing of false alarms rarer than" in of_noise.note
    assert others > 30


def test_a_pipeline_that_keeps_patients_is_refused_by_distance():
    result = audit(memorising, memorising(TRAIN, Seed(5)))

    named = by_attack(result, "tpr-at-1.0%")
    assert result.verdict is Verdict.REFUSED
    assert named["distance"].verdict is Verdict.REFUSED
    assert named["distance-released"].verdict is Verdict.REFUSED
    assert named["distance"].value > 0.4
    assert by_attack(result, "auc")["distance"].low > membership.LARGEST_AREA


def test_a_set_that_leaks_is_refused_though_its_pipeline_leaks_little():
    result = audit(from_noise, mixed(TRAIN, of=1, count=24, noise=0.2))

    assert {finding.space for finding in result.refusing} == {"distance-released"}


def test_halves_are_complementary_and_keep_groups_together():
    members = halves(SITE, 8, torch.Generator().manual_seed(0))

    assert np.array_equal(members[0::2], ~members[1::2])
    groups = np.asarray(SITE.groups)
    assert all(len(set(row[groups == g])) == 1 for row in members for g in set(SITE.groups))
    assert not np.array_equal(members[0], members[2])


def test_each_class_is_halved():
    members = halves(SITE, 2, torch.Generator().manual_seed(0))

    for label in (0, 1):
        of_class = {
            group
            for group, row in zip(SITE.groups, SITE.labels.tolist(), strict=True)
            if row == label
        }
        taken = {g for g, m in zip(SITE.groups, members[0], strict=True) if m} & of_class
        assert len(taken) == len(of_class) // 2


def test_a_shadow_is_condensed_from_its_members_alone():
    seen = []

    def spy(images: LabeledImages, seed: Seed) -> SyntheticArrays:
        seen.append((images.groups, seed))
        return from_noise(images, seed)

    members = halves(SITE, 2, torch.Generator().manual_seed(0))
    condense_shadows(SITE, members, STUDY, spy, seed=Seed(0))

    groups = np.asarray(SITE.groups)
    assert [list(names) for names, _ in seen] == [groups[row].tolist() for row in members]
    assert seen[0][1] != seen[1][1]


def test_what_was_kept_is_near():
    near = nearness(shown(TRAIN.select(torch.tensor([0, 30]))), SITE, STUDY)

    assert near.argmax() in (0, 30)
    assert (near > 0.98).sum() == 2


def test_a_class_without_a_view_is_near_to_nothing():
    near = nearness(shown(TRAIN.select(torch.tensor([0]))), SITE, STUDY)

    assert set(near[SITE.labels == 1]) == {-1.0}


def table(seed: int, *, exposed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of 8 shadows and 400 images; the first `exposed` show wherever they are members."""
    random = np.random.default_rng(seed)
    half = random.permutation(400) < 200
    members = np.stack([half, ~half] * 4)
    scores = random.standard_normal((8, 400))
    scores[:, :exposed] += 100 * members[:, :exposed]
    return scores, members


GROUPS = tuple(f"p{row}" for row in range(400))


def test_an_area_hides_what_the_named_share_shows():
    """A tenth of the patients is exposed, the others are not."""
    area, named = judge("attack", *table(0, exposed=40), GROUPS)

    assert area.verdict is Verdict.PASSED
    assert named.verdict is Verdict.REFUSED
    # the others are named in 1 % of the cases
    assert named.value == pytest.approx(0.1 + 0.9 * 0.01, abs=0.01)
    assert named.threshold == 0.05


def test_the_interval_of_a_named_share_counts_each_patient_once():
    _, named = judge("attack", *table(0, exposed=40), GROUPS)
    _, of_pairs = judge("attack", *table(0, exposed=40), tuple(f"p{r // 2}" for r in range(400)))

    assert (named.n, of_pairs.n) == (400, 200)
    assert of_pairs.low < named.low


def test_with_few_others_chance_names_one_in_their_number():
    scores, members = table(1, exposed=0)

    _, named = judge("attack", scores[:, :40], members[:, :40], GROUPS[:40])

    others = (~members[:, :40]).sum(axis=1).min()
    assert named.threshold == pytest.approx(5 / (others + 1))


def test_rare_alarms_are_asked_for_from_three_thousand_others_on():
    random = np.random.default_rng(0)
    half = np.arange(6_000) % 2 == 0
    members, groups = np.stack([half, ~half]), tuple(f"p{row}" for row in range(6_000))

    found = list(judge("attack", random.standard_normal((2, 6_000)), members, groups))

    assert [f.statistic for f in found] == ["auc", "tpr-at-1.0%", "tpr-at-0.1%"]
    assert found[2].threshold == pytest.approx(5 * 0.001)


@pytest.mark.parametrize("count", [6, 9])
def test_too_few_shadows_or_one_without_its_complement_are_no_audit(count):
    with pytest.raises(ValueError, match=f"{count} shadows: an even number from 8 on"):
        membership_audit(
            subject(noise_set(1, 0), TRAIN, HELD_OUT),
            redistill=from_noise,
            seed=Seed(0),
            shadows=count,
        )


def test_it_reports_each_shadow():
    steps = []

    audit(from_noise, noise_set(1, 0), steps.append)

    assert [(step.stage, step.done, step.total) for step in steps] == [
        ("condensing shadows", number, 8) for number in range(1, 9)
    ]


def test_sixteen_shadows_take_as_long_as_sixteen_condensations_and_a_little():
    assert estimate_seconds(60.0) == pytest.approx(16 * 60 * 1.1)
    assert estimate_seconds(60.0, shadows=8) == pytest.approx(8 * 60 * 1.1)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 seconds"), (89.6, "90 seconds"), (5400.0, "90 minutes"), (9e4, "25 hours")],
)
def test_an_estimate_is_told_in_the_unit_in_which_one_waits(seconds, said):
    assert announced(seconds) == f"attacking membership takes about {said}"
