from __future__ import annotations

import gc
import math
from types import FunctionType

import pytest
import torch
from dp_embed_kit import embed_study, row
from dp_sgd_kit import film_units, films, patient_units
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.testing import assert_close

from fedcondense.config.privacy import NoPrivacy, Unit
from fedcondense.distill.methods import distill
from fedcondense.distill.source import Embedded, EmbeddedSource
from fedcondense.errors import InternalError, TooFewImages
from fedcondense.learning.feature_maps import public_maps, unit_embeddings
from fedcondense.learning.pixels import normalise
from fedcondense.learning.randomness import Seed
from fedcondense.privacy import dp_embed
from fedcondense.privacy.accounting import Mechanism
from fedcondense.privacy.dp_embed import (
    AT_ONCE,
    ClassEmbeddings,
    DpEmbedSource,
    _class_sums,
    _shares,
    _sums,
    release_class_embeddings,
    sensitivity,
)
from fedcondense.privacy.units import Records, UnitImages
from fedcondense.progress import silent

QUIET = 1e-9  # a sigma at which noise cannot be seen
NAN = float("nan")


def clean_sums(study, records: Records) -> torch.Tensor:
    """The sums without noise, which nothing but this file ever sees."""
    return _sums(records, public_maps(study, study.privacy.maps), study, silent)


def released(study=None, units=None, *, sigma=0.5, least=1, **other) -> ClassEmbeddings:
    study, units = study or embed_study(), units or film_units()
    return release_class_embeddings(units, study, row(sigma), least=least, **other)


# the sum


def test_a_patient_gives_the_mean_over_their_films_of_class_times_vector_and_weight():
    # a patient with films of two classes (3/5, 4/5) and (1, 0), and another with one film
    vectors = torch.tensor([[0.6, 0.8], [1.0, 0.0], [0.0, -1.0]])
    records = records_of(labels=[0, 2, 2], owners=[0, 0, 1])

    sums = _class_sums(vectors, records.labels, _shares(records), 3, 0.25)

    assert sums.dtype == torch.float64
    expected = [[0.3, 0.4, 0.125], [0, 0, 0], [0.5, -1.0, 0.375]]
    assert_close(sums, torch.tensor(expected, dtype=torch.float64))


def test_the_sensitivity_is_the_one_that_was_worked_out():
    # sqrt(32 * (1 + 1/16)) = sqrt(34)
    assert sensitivity(32, 0.25) == pytest.approx(5.830951894845301, rel=1e-12)
    assert sensitivity(1, 1.0) == pytest.approx(math.sqrt(2), rel=1e-12)


HOSTILE = [0.0, 1.0, -1.0, 1e-30, 3e4, 1e30, -3e38, float("inf"), NAN]


@given(
    vectors=st.lists(st.lists(st.sampled_from(HOSTILE), min_size=3, max_size=3), min_size=1),
    weight=st.floats(0.01, 1),
    data=st.data(),
)
def test_one_unit_moves_the_sum_by_no_more_than_the_sensitivity(vectors, weight, data):
    n = len(vectors)
    labels = data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    owners = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
    owners = owners.unique(return_inverse=True)[1]
    rows, labels = torch.tensor(vectors), torch.tensor(labels)

    with_all = sum_of(rows, labels, owners, weight)
    for unit in range(int(owners.max()) + 1):
        others = owners != unit
        moved = with_all - sum_of(rows[others], labels[others], owners[others], weight)
        assert float(moved.norm()) <= sensitivity(1, weight) * (1 + 1e-9)
        # and it counts as one unit, in however many classes
        assert float(moved[:, -1].sum()) == pytest.approx(weight)


def sum_of(rows, labels, owners, weight):
    owners = owners.unique(return_inverse=True)[1]
    records = records_of(labels=labels.tolist(), owners=owners.tolist())
    return _class_sums(rows, labels, _shares(records), 4, weight)


def records_of(*, labels, owners) -> Records:
    images = torch.zeros(len(labels), 1, 16, 16, dtype=torch.uint8)
    owners = torch.tensor(owners, dtype=torch.int64)
    return Records(images, torch.tensor(labels, dtype=torch.int64), owners, len(owners.unique()))


def test_a_bound_on_each_class_alone_would_not_cover_a_patient_with_two():
    # the same patient at full weight in each class would move the sum by sqrt(2) times as much
    vectors, labels = torch.eye(2), torch.tensor([0, 1])
    ones = torch.ones(2, dtype=torch.float64)

    apart = _class_sums(vectors, labels, ones, 2, 0.25)

    assert float(apart.norm()) == pytest.approx(math.sqrt(2) * sensitivity(1, 0.25))


@pytest.mark.parametrize("leaving", [0, 17])
def test_without_one_patient_the_sums_of_all_maps_differ_by_that_patient_alone(leaving):
    study, records = embed_study(privacy={"unit": "patient"}), patient_films()
    others = records.owners != leaving

    with_all = clean_sums(study, records)
    without = clean_sums(study, of_rows(records, others))

    moved = with_all - without
    assert 0 < float(moved.norm()) <= sensitivity(2, 0.25) * (1 + 1e-9)
    alone = clean_sums(study, of_rows(records, ~others))
    assert_close(moved, alone, rtol=0, atol=1e-12)


def patient_films() -> Records:
    """20 patients with 7 films each, of all three classes: more than one batch."""
    return patient_units(films_each=7, patients=20).read("class-embeddings")


def of_rows(records: Records, keep: torch.Tensor) -> Records:
    units, owners = records.owners[keep].unique(return_inverse=True)
    return Records(records.images[keep], records.labels[keep], owners, len(units))


@pytest.mark.parametrize("count", [2, 41, AT_ONCE])
def test_a_record_less_changes_no_bit_of_anothers_vector(count):
    # kernels depend on the size of a batch, so every batch has the same
    (public_map,) = public_maps(embed_study(), 1)
    images, _ = films(count)

    with_all = dp_embed._vectors(public_map, images, embed_study().image)
    without = dp_embed._vectors(public_map, images[1:], embed_study().image)

    assert torch.equal(with_all[1:], without)


def test_a_map_that_amplifies_some_records_lets_none_move_the_sums_further(monkeypatch):
    study, records = embed_study(), film_units(9).read("class-embeddings")

    def hostile(public_map, images):
        brightness = images.sum(dim=(1, 2, 3)).abs()
        factors = 10.0 ** (brightness % 38).unsqueeze(1)
        factors[images[:, 0, 0, 0] > 0] = NAN
        return factors * unit_embeddings(public_map, images)

    monkeypatch.setattr(dp_embed, "unit_embeddings", hostile)
    every = clean_sums(study, records)
    assert bool(every.isfinite().all())
    for number in range(9):
        moved = every - clean_sums(study, of_rows(records, torch.arange(9) != number))
        assert 0 < float(moved.norm()) <= sensitivity(2, 0.25) * (1 + 1e-9)


# the release


def test_noise_has_the_standard_deviation_that_was_charged():
    many = {"classes": [f"class {number}" for number in range(200)]}
    study, units = embed_study(privacy={"maps": 8}, **many), film_units()
    clean = clean_sums(study, units.read("test"))

    noised = released(study, units, sigma=0.7).sums

    noise = (noised - clean) / (0.7 * math.sqrt(8 * (1 + 0.25**2)))
    assert noise.numel() == 8 * 200 * 65  # 104,000
    low, high = stats.chi2.ppf([1e-7, 1 - 1e-7], df=noise.numel())
    assert low < float(noise.square().sum()) < high
    assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 1e-7


def test_one_public_seed_gives_the_same_maps_and_another_noise():
    one, other = released(), released()

    for ours, theirs in zip(one.maps, other.maps, strict=True):
        assert torch.equal(ours.centre, theirs.centre)
        for p, q in zip(ours.network.parameters(), theirs.network.parameters(), strict=True):
            assert torch.equal(p, q)
    assert not bool((one.sums == other.sums).any())


def test_the_noise_does_not_depend_on_the_global_generator():
    noises = []
    for _ in range(2):
        torch.random.default_generator.manual_seed(0)
        noises.append(released().sums)

    assert not torch.equal(*noises)


def test_two_reads_are_bit_identical():
    source = DpEmbedSource(released(), ["class-embeddings"])

    one, other = source.class_embeddings(), source.class_embeddings()

    assert one is other
    assert torch.equal(one.sums, other.sums)
    assert torch.equal(one.targets, other.targets)
    assert torch.equal(one.counts, other.counts)


def test_targets_are_sums_over_noised_counts_and_no_longer_than_1():
    sums = torch.tensor([[[2.0, 1.0, 1.0], [9.0, 9.0, 9.0]], [[12.0, 16.0, 3.0], [9.0, 9.0, 9.0]]])
    embeddings = ClassEmbeddings(sums.double(), 0.5, (0,), ("b",), ())

    # counts of 2 and 6 units of the first class in the two maps; (12, 16) / 4 is 5 long
    assert embeddings.counts.tolist() == [4.0, 18.0]
    assert_close(embeddings.targets.tolist(), [[[0.5, 0.25]], [[0.6, 0.8]]])


def test_where_noise_is_small_targets_are_class_means_and_counts_are_units():
    study, units = embed_study(), film_units()
    records = units.read("test")

    embeddings = released(study, units, sigma=QUIET)

    assert_close(embeddings.counts, torch.full((3,), 8.0, dtype=torch.float64))
    for public_map, targets in zip(embeddings.maps, embeddings.targets, strict=True):
        vectors = unit_embeddings(public_map, normalise(records.images, study.image))
        means = torch.stack([vectors[records.labels == label].mean(dim=0) for label in range(3)])
        assert_close(targets.float(), means, rtol=1e-4, atol=1e-5)


def test_patients_count_once_however_many_films_they_have():
    study = embed_study(privacy={"unit": "patient"})

    embeddings = released(study, patient_units(films_each=6, patients=4), sigma=QUIET)

    # each has two films of each of three classes
    assert_close(embeddings.counts, torch.full((3,), 4 / 3, dtype=torch.float64))


def test_the_classes_are_the_studys_whatever_the_data_has():
    study = embed_study(classes=["a", "b", "c", "never seen"])

    embeddings = released(study, sigma=QUIET)

    assert embeddings.sums.shape == (2, 4, 65)
    assert embeddings.labels == (0, 1, 2)
    assert embeddings.left_out == ("never seen",)
    assert embeddings.targets.shape == (2, 3, 64)


def test_a_class_below_the_least_number_is_left_out_by_its_noised_count():
    images, labels = films(24)
    keep = (labels != 1) | (torch.arange(24) < 9)
    units = UnitImages.by_image(images[keep], labels[keep])

    embeddings = released(units=units, sigma=QUIET, least=5)

    assert [round(count) for count in embeddings.counts.tolist()] == [8, 3, 8]
    assert embeddings.labels == (0, 2)
    assert embeddings.left_out == ("b",)


def test_no_class_is_named_by_fewer_than_one_unit(monkeypatch):
    # a count near zero would make a target of any size
    monkeypatch.setattr(dp_embed, "secret_normal", lambda *shape: torch.zeros(shape).double())
    study = embed_study(classes=["a", "b", "c", "never seen"])

    assert released(study, least=0).labels == (0, 1, 2)


def test_a_site_without_a_class_is_a_named_error():
    with pytest.raises(TooFewImages) as caught:
        released(sigma=QUIET, least=9)

    assert caught.value.message == ("no class has 9 images or more at this site, by noised counts")


def test_images_are_read_once_for_each_release():
    units = film_units()
    steps = []

    release_class_embeddings(units, embed_study(), row(), least=1, watch=steps.append)
    release_class_embeddings(units, embed_study(), row(), least=1)

    assert list(units.readings) == ["class-embeddings"] * 2
    assert [(s.stage, s.done, s.total) for s in steps] == [("embedding", 1, 2), ("embedding", 2, 2)]
    assert all(step.figures == {} for step in steps)


@pytest.mark.parametrize(
    "charged",
    [
        row(None),
        row(q=0.5),
        row(steps=2),
        Mechanism("class-counts", 0.5),
    ],
)
def test_what_was_not_charged_is_refused_before_an_image_is_read(charged):
    units = film_units()

    with pytest.raises(InternalError, match="not what was charged"):
        release_class_embeddings(units, embed_study(), charged, least=1)

    assert list(units.readings) == []


def test_another_unit_or_mode_is_refused_before_an_image_is_read():
    units = film_units()
    by_patient = embed_study(privacy={"unit": Unit.PATIENT})
    unprivate = by_patient.model_copy(update={"privacy": NoPrivacy()})

    for study, words in [(by_patient, "another unit"), (unprivate, "privacy.mode")]:
        with pytest.raises(InternalError, match=words):
            release_class_embeddings(units, study, row(), least=1)

    assert list(units.readings) == []


# what is kept


def reachable(root: object) -> list[object]:
    """Everything that the attributes of an object lead to, but classes and modules."""
    found, waiting = {}, [vars(root)]
    while waiting:
        thing = waiting.pop()
        if isinstance(thing, FunctionType):  # what it encloses; its globals are a module's
            thing = [thing.__closure__, thing.__defaults__, thing.__kwdefaults__]
        for next_thing in gc.get_referents(thing):
            if id(next_thing) not in found and not isinstance(next_thing, type | type(gc)):
                found[id(next_thing)] = next_thing
                waiting.append(next_thing)
    return list(found.values())


def tells(thing: object, clean: torch.Tensor) -> bool:
    """Whether a tensor is nearer to the clean sums than noise allows, in its first places."""
    if not isinstance(thing, torch.Tensor) or thing.numel() < clean.numel():
        return False
    start = thing.detach().double().flatten()[: clean.numel()]
    return float((start - clean.flatten()).abs().median()) < 0.1


def test_nothing_clean_is_reachable_from_class_embeddings_or_their_source():
    study, units = embed_study(), film_units()
    clean = clean_sums(study, units.read("test"))
    embeddings = released(study, units, sigma=5.0)
    source = DpEmbedSource(embeddings, units.readings)

    for root in (embeddings, source):
        things = reachable(root)
        assert any(thing is embeddings.sums for thing in things)
        assert not any(tells(thing, clean) for thing in things)
        assert not any(thing is units for thing in things)
        images = [t for t in things if isinstance(t, torch.Tensor) and t.dtype == torch.uint8]
        assert images == []
    assert embeddings.sums._base is None


def test_a_kept_clean_sum_would_be_found():
    clean = torch.randn(2, 3, 65, dtype=torch.float64)
    embeddings = ClassEmbeddings(clean + 5 * torch.randn_like(clean), 0.25, (0,), (), ())
    source = DpEmbedSource(embeddings, [])
    source.later = lambda: clean

    assert any(tells(thing, clean) for thing in reachable(source))


def test_neither_the_clean_sums_nor_the_noise_outlive_the_release():
    def doubles() -> set[int]:
        gc.collect()
        return {
            id(thing)
            for thing in gc.get_objects()
            if type(thing) is torch.Tensor and thing.dtype == torch.float64 and thing.dim() == 3
        }

    study, units = embed_study(), film_units()
    before = doubles()

    embeddings = released(study, units)

    assert doubles() - before <= {id(embeddings.sums)}


# the source


def test_the_source_is_one_that_methods_know():
    source = DpEmbedSource(released(), [])

    assert isinstance(source, EmbeddedSource)
    assert isinstance(source.class_embeddings(), Embedded)
    assert source.labels == (0, 1, 2)
    assert source.device == torch.device("cpu")


@pytest.mark.parametrize(
    "ask",
    [
        lambda source: source.draw(0, 1, torch.Generator()),
        lambda source: source.draw_batch(1, torch.Generator(), balanced=False),
        lambda source: source.epoch(1, torch.Generator(), balanced=False),
    ],
)
def test_what_is_not_granted_raises_at_once_and_nothing_is_read(ask):
    units = film_units()
    source = DpEmbedSource(released(units=units), units.readings)

    with pytest.raises(InternalError, match="does not grant"):
        ask(source)

    assert source.accesses == 1


def test_accesses_are_counted_where_images_are_read():
    units = film_units()
    source = DpEmbedSource(released(units=units), units.readings)

    source.class_embeddings()
    source.class_embeddings()
    assert source.accesses == 1

    units.read("another mechanism")  # that nobody paid for: the gate would see it
    assert source.accesses == 2


@pytest.mark.parametrize("method", ["dm", "idm"])
def test_methods_condense_from_class_embeddings_without_reading_again(method):
    study, units = embed_study(method=method), film_units()
    source = DpEmbedSource(released(study, units), units.readings)

    result = distill(source, study, seed=Seed(0))

    assert result.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert not torch.equal(result.images, result.started_from)
    assert source.accesses == 1


def test_one_public_and_one_site_seed_give_the_same_start_and_another_set():
    study = embed_study()

    one, other = (
        distill(DpEmbedSource(released(study), []), study, seed=Seed(0)) for _ in range(2)
    )

    assert torch.equal(one.started_from, other.started_from)
    assert not torch.equal(one.images, other.images)
