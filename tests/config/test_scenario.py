from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedcondense.config.cells import cells_of
from fedcondense.config.loading import parse_settings
from fedcondense.config.privacy import DpEmbed
from fedcondense.config.scenario import ReleaseMode, Scenario, load_scenario, scenario_toml
from fedcondense.config.site import ImageCsv, ImageFolder, ImageNpz, Phantoms, ReleasePolicy
from fedcondense.config.study import Study
from fedcondense.config.synthesis import Family
from fedcondense.errors import SettingsError

SIMULATIONS = Path(__file__).parents[2] / "simulations"
VALUES = {"name": "quick", "images": {"kind": "phantoms"}, "distill": {"method": "idm"}}
SHORT_TEXT = 'name = "quick"\n[distill]\nmethod = "idm"\n'


def scenario(**changes) -> Scenario:
    return parse_settings(Scenario, VALUES | changes, "quick.toml")


def written(folder: Path, text: str) -> Path:
    path = folder / "quick.toml"
    path.write_text(text)
    return path


def shares(least: float, most: float) -> st.SearchStrategy[float]:
    return st.floats(least, most, exclude_min=True, exclude_max=True)


texts = st.text(st.characters(exclude_characters="/\\", exclude_categories=("C",)), min_size=1)
names = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,39}", fullmatch=True)
paths = st.from_regex(r"[a-zäß0-9 .'\"_-]{1,20}", fullmatch=True).map(lambda name: f"data/{name}")
families = st.lists(st.sampled_from([family.value for family in Family]), unique=True)
class_names = st.lists(texts.map(lambda text: text[:80]), min_size=2, max_size=6, unique=True)
sources = st.one_of(
    st.fixed_dictionaries({"kind": st.sampled_from(["npz", "folder"]), "path": paths}),
    st.fixed_dictionaries(
        {"kind": st.just("phantoms")},
        optional={"seed": st.integers(0, 2**63 - 1), "scanners": st.integers(1, 20)},
    ),
)
idm = st.fixed_dictionaries(
    {"method": st.just("idm"), "preset": st.sampled_from(["short", "published"])},
    optional={
        "start": st.sampled_from(["noise", "real"]),
        "iterations": st.integers(1, 1_000_000),
        "image_rate": shares(0, 1e4),
        "weight_decay": shares(0, 1),
        "accuracy_reset_interval": st.integers(1, 2**40),
        "push_interval": st.integers(1, 2**40),
        "per_class_momentum": st.booleans(),
        "queue": st.sampled_from(["online", "experts"]),
        "families": families,
    },
)
trajectories = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["mtt", "pruned-mtt"]),
        "preset": st.sampled_from(["short", "published", "cxr-112"]),
    },
    optional={
        "label_rate": shares(0, 1e6),
        "averaging": shares(0, 1),
        "experts": st.fixed_dictionaries(
            {"epochs": st.integers(27, 1_000)},
            optional={"rate": shares(0, 10), "families": families},
        ),
    },
)
others = st.fixed_dictionaries(
    {"method": st.sampled_from(["random", "herding", "forgetting", "dm"])}
)
methods = st.one_of(idm, trajectories, others)
scenarios = st.fixed_dictionaries(
    {"name": names, "images": sources, "distill": methods},
    optional={
        "classes": class_names,
        "external": st.fixed_dictionaries({"path": paths}, optional={"classes": class_names}),
        "image": st.fixed_dictionaries({}, optional={"mean": shares(0, 1), "std": shares(0, 1)}),
        "evaluation": st.fixed_dictionaries({}, optional={"families": families}),
        "partition": st.fixed_dictionaries({"alpha": shares(0, 1e4)}),
        "seeds": st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5, unique=True),
        "quorum": st.integers(1, 200),
        "release": st.sampled_from(["enforced", "study-only"]),
        "device": st.sampled_from(["auto", "cpu", "cuda:1"]),
        "read": st.sampled_from(["test", "validation"]),
    },
)


@given(values=scenarios)
def test_a_scenario_written_as_toml_reads_as_an_equal_one(values):
    original = parse_settings(Scenario, values, "given.toml")

    again = parse_settings(Scenario, tomllib.loads(scenario_toml(original)), "again.toml")

    assert again == original


def test_every_default_is_written_out():
    written = tomllib.loads(scenario_toml(scenario()))

    assert written["release"] == "enforced"
    assert written["site"] == {
        "attempts": 2,
        "audits": "quick",
        "held_out": 0.2,
        "min_patients_per_class": 100,
        "needs_approval": False,
    }
    assert written["distill"]["image_rate"] == 5.0


@pytest.mark.parametrize("path", sorted(SIMULATIONS.rglob("*.toml")), ids=lambda path: path.stem)
def test_every_scenario_of_the_repository_is_one(path, tmp_path):
    loaded = load_scenario(path, tmp_path / "own.npz")

    again = parse_settings(Scenario, tomllib.loads(scenario_toml(loaded)), "again.toml")

    assert again == loaded
    assert isinstance(loaded.study(("a", "b"), loaded.partition.sites, loaded.seeds[0]), Study)


def test_there_are_scenarios_in_the_repository():
    assert {path.stem for path in SIMULATIONS.glob("*.toml")} >= {"quick", "covid_cxr"}


def test_paths_are_relative_to_the_folder_of_the_scenario(tmp_path):
    text = SHORT_TEXT + '[images]\nkind = "npz"\npath = "data/a.npz"\n[external]\npath = "b"\n'

    loaded = load_scenario(written(tmp_path, text))

    assert loaded.images == ImageNpz(kind="npz", path=tmp_path / "data/a.npz")
    assert loaded.external is not None
    assert loaded.external.path == tmp_path / "data" / "b"


def test_an_absolute_path_stays_as_it_is(tmp_path):
    text = SHORT_TEXT + '[images]\nkind = "folder"\npath = "/data"\n'

    loaded = load_scenario(written(tmp_path, text))

    assert loaded.images == ImageFolder(kind="folder", path=Path("/data"))


def test_the_root_of_a_csv_file_is_relative_to_the_scenario(tmp_path):
    text = SHORT_TEXT + '[images]\nkind = "csv"\npath = "a.csv"\nroot = "films"\n'

    loaded = load_scenario(written(tmp_path, text))

    assert loaded.images == ImageCsv(kind="csv", path=tmp_path / "a.csv", root=tmp_path / "films")


def test_a_scenario_may_be_named_relative_to_the_working_directory(tmp_path, monkeypatch):
    written(tmp_path, SHORT_TEXT + '[images]\nkind = "folder"\npath = "a"\n')
    monkeypatch.chdir(tmp_path)

    loaded = load_scenario(Path("quick.toml"))

    assert loaded.images == ImageFolder(kind="folder", path=tmp_path / "a")


@pytest.mark.parametrize("images", ["", '[images]\nkind = "phantoms"\nseed = 3\n'])
def test_given_data_replaces_the_images_and_is_relative_to_the_working_directory(
    tmp_path, monkeypatch, images
):
    (tmp_path / "elsewhere").mkdir()
    path = written(tmp_path, SHORT_TEXT + images)
    monkeypatch.chdir(tmp_path / "elsewhere")

    archive, folder = load_scenario(path, Path("a.npz")), load_scenario(path, Path("b"))
    table = load_scenario(path, Path("c.csv"))

    assert archive.images == ImageNpz(kind="npz", path=tmp_path / "elsewhere/a.npz")
    assert folder.images == ImageFolder(kind="folder", path=tmp_path / "elsewhere/b")
    assert table.images == ImageCsv(kind="csv", path=tmp_path / "elsewhere/c.csv")


def test_a_scenario_without_images_says_how_to_name_them(tmp_path):
    with pytest.raises(SettingsError) as caught:
        load_scenario(written(tmp_path, SHORT_TEXT))

    assert caught.value.message == "quick.toml: images: no images are named"
    assert caught.value.hint == (
        "add --data PATH (class folders, a CSV file or an npz), or an [images] table"
    )


def test_phantoms_have_no_path_to_make_absolute(tmp_path):
    loaded = load_scenario(written(tmp_path, SHORT_TEXT + '[images]\nkind = "phantoms"\n'))

    assert isinstance(loaded.images, Phantoms)


@pytest.mark.parametrize(("sites", "quorum"), [(1, 1), (2, 1), (3, 2), (20, 19)])
def test_the_quorum_is_all_sites_but_one_and_at_least_one(sites, quorum):
    assert scenario().study(("a", "b"), sites, 0).quorum == quorum


def test_a_given_quorum_is_the_studys():
    assert scenario(quorum=4).study(("a", "b"), 4, 0).quorum == 4


def test_a_quorum_that_can_never_be_met_is_refused():
    with pytest.raises(SettingsError) as caught:
        scenario(quorum=5).study(("a", "b"), 4, 0)

    assert caught.value.message == "quick: quorum: 5 of 4 sites can never be met"
    assert caught.value.hint == "lower quorum or raise partition.sites"


def test_the_study_of_a_repetition_is_that_of_the_scenario():
    given = scenario(
        images_per_class=3, image={"size": 16}, network={"depth": 2}, evaluation={"steps": 9}
    )

    study = given.study(("a", "b"), 3, 7)

    assert (study.name, study.classes, study.seed) == ("quick", ("a", "b"), 7)
    assert (study.image, study.network, study.images_per_class) == (given.image, given.network, 3)
    assert (study.distill, study.evaluation) == (given.distill, given.evaluation)


def test_a_study_that_cannot_be_is_refused_in_the_scenarios_name():
    deep = scenario(network={"depth": 8})

    with pytest.raises(SettingsError, match=r"^quick: network\.depth: 8 blocks leave less than"):
        deep.study(("a", "b"), 3, 0)


def test_the_leak_demo_is_one_study_from_noise_and_from_real_images_under_an_enforced_gate():
    demo = load_scenario(SIMULATIONS / "leak_demo.toml")

    cells = [cell.scenario for cell in cells_of(demo)]

    assert [cell.distill.start.value for cell in cells] == ["noise", "real"]
    starts = {cell.model_copy(update={"distill": None}) for cell in cells}
    assert len({cell.model_dump_json() for cell in starts}) == 1  # they differ in nothing else
    assert demo.release is ReleaseMode.ENFORCED
    assert demo.site == ReleasePolicy()  # no limit is lowered for the demo
    assert isinstance(demo.images, Phantoms)


def test_the_demo_of_a_guarantee_is_the_leak_demo_from_noise_with_differential_privacy():
    leak, guarded = (load_scenario(SIMULATIONS / f"{name}_demo.toml") for name in ("leak", "dp"))

    noise = cells_of(leak)[0].scenario

    assert (guarded.distill, guarded.image, guarded.network, guarded.images) == (
        noise.distill,
        noise.image,
        noise.network,
        noise.images,
    )
    assert guarded.privacy == DpEmbed(mode="dp-embed", epsilon=8.0)
    assert guarded.site == ReleasePolicy()


def test_the_sweep_of_differential_privacy_has_a_cell_without_it_beside_each_epsilon():
    demo = load_scenario(SIMULATIONS / "dp_embed.toml", Path("x.npz"))

    played = {
        (cell.scenario.distill.method, getattr(cell.scenario.privacy, "epsilon", None))
        for cell in cells_of(demo)
    }

    assert played == {(m, e) for m in ("idm", "dm") for e in (None, 10.0, 8.0, 3.0, 1.0)}


def test_a_scenario_enforces_the_gate_if_it_says_nothing():
    assert scenario().release is ReleaseMode.ENFORCED


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seeds": [1, 1]}, "seeds: each stands once"),
        ({"seeds": []}, "seeds: Tuple should have at least 1 item"),
        ({"seeds": [0, -1]}, "seeds.1: Input should be greater than or equal to 0"),
        ({"seeds": [2**63]}, "seeds.0: Input should be less than 9223372036854775808"),
        ({"release": "off"}, "release: Input should be 'enforced' or 'study-only'"),
        ({"read": "train"}, "read: Input should be 'test' or 'validation'"),
        ({"partition": {"kind": "iid"}}, "partition.kind: Input should be 'dirichlet', 'site' or"),
        ({"partition": {"sites": 0}}, "partition.sites: Input should be greater than or equal"),
        ({"partition": {"sites": 201}}, "partition.sites: Input should be less than or equal"),
        ({"partition": {"alpha": 0.0}}, "partition.alpha: Input should be greater than 0"),
        ({"external": {}}, "external.path: Field required"),
        ({"random_draws": 0}, "random_draws: Input should be greater than or equal to 1"),
        ({"quorum": 0}, "quorum: Input should be greater than or equal to 1"),
        ({"name": "a b"}, "name: String should match pattern"),
    ],
    ids=str,
)
def test_a_wrong_key_of_a_scenario_is_named(change, named):
    with pytest.raises(SettingsError) as caught:
        scenario(**change)

    assert caught.value.message.startswith(f"quick.toml: {named}")


def test_the_scenario_with_external_images_is_otherwise_the_one_without():
    data = Path("/images.npz")

    plain, external = (
        load_scenario(SIMULATIONS / f"{name}.toml", data)
        for name in ("covid_cxr", "covid_cxr_external")
    )

    assert external.external is not None
    assert external.model_copy(update={"external": None}) == plain


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"architectures": ["vgg11", "vgg11"]}, "architectures: each stands once"),
        ({"architectures": ["vit"]}, "architectures.0: Input should be 'convnet', 'alexnet'"),
        (
            {
                "architectures": ["convnet"],
                "network": {"architecture": "vgg11", "depth": 8},
            },
            "network.depth: too many blocks for the ConvNet of `architectures`",
        ),
        ({"consistency": [5, 1]}, "consistency: numbers ascend"),
        ({"consistency": [5, 5]}, "consistency: each stands once"),
        ({"consistency": [0]}, "consistency.0: Input should be greater than or equal to 1"),
    ],
)
def test_what_is_asked_for_must_make_sense(changes, problem):
    with pytest.raises(SettingsError) as caught:
        scenario(**changes)

    assert problem in caught.value.message


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": ["vgg11"]},
        {"consistency": [1]},
        {"external": {"path": "other.npz"}},
        {"sweep": {"images_per_class": [1, 2]}},
    ],
)
def test_what_a_federation_is_asked_for_does_not_stand_beside_continual(changes):
    (key,) = changes

    with pytest.raises(SettingsError, match=rf"{key}: not beside \[continual\]"):
        scenario(continual={}, **changes)


def test_continual_has_orders_in_place_of_seeds():
    assert scenario(continual={"stages": 10}).continual.orders == 5
    with pytest.raises(SettingsError, match=r"seeds: one beside \[continual\]"):
        scenario(continual={}, seeds=[0, 1])
