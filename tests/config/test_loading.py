from __future__ import annotations

import pytest
from pydantic import ValidationError

from fedcondense.config.loading import Settings, load_settings, parse_settings, read_toml
from fedcondense.config.scenario import Scenario
from fedcondense.config.site import ImageSource, SiteConfig
from fedcondense.config.study import Study
from fedcondense.errors import SettingsError

STUDY = {
    "name": "chest",
    "classes": ["Normal", "COVID"],
    "images_per_class": 5,
    "distill": {"method": "idm"},
    "quorum": 2,
}
HINT = "every key is described in docs/ref-settings.md"


def refusal(model: type[Settings], values: dict, where: str = "study.toml") -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        parse_settings(model, values, where)
    return caught.value


def test_all_wrong_keys_of_a_file_stand_in_one_line():
    values = STUDY | {
        "colour": "blue",
        "images_per_class": 0,
        "seed": "7",
        "image": {"size": 24.5, "std": 2.0},
        "distill": {"method": "idm", "iteration": 3, "families": ["color", "hue"]},
    }
    del values["quorum"]

    error = refusal(Study, values)

    assert error.message == (
        "study.toml: image.size: Input should be a valid integer; "
        "image.std: Input should be less than or equal to 1; images_per_class: Input should "
        "be greater than or equal to 1; distill.families.1: Input should be 'color', 'crop', "
        "'cutout', 'flip', 'scale' or 'rotate'; distill.iteration: Extra inputs are not permitted; "
        "quorum: Field required; seed: Input should be a valid integer; colour: Extra inputs are "
        "not permitted"
    )
    assert error.hint == HINT
    assert (error.code, error.exit_code) == ("FC101", 2)


def test_a_rule_over_several_keys_names_them_without_a_word_of_pydantic():
    error = refusal(Study, STUDY | {"classes": ["COVID", "COVID"]})

    assert error.message == "study.toml: classes: each class stands once"


def test_a_key_is_named_as_it_stands_in_the_file():
    images = {"kind": "phantoms", "scanner": 2}
    distill = {"method": "mtt", "experts": {"epoch": 3}}

    error = refusal(Scenario, {"name": "a", "images": images, "distill": distill}, "quick.toml")

    assert error.message == (
        "quick.toml: images.scanner: Extra inputs are not permitted; "
        "distill.experts.epoch: Extra inputs are not permitted"
    )


def test_a_table_named_like_its_kind_is_named_as_it_stands():
    images = {"kind": "npz", "npz": {"path": "a.npz"}}

    error = refusal(Scenario, {"name": "a", "images": images, "distill": STUDY["distill"]})

    assert error.message == (
        "study.toml: images.path: Field required; images.npz: Extra inputs are not permitted"
    )


def test_a_rule_of_a_table_names_its_keys_itself():
    error = refusal(Study, STUDY | {"distill": {"method": "mtt", "max_start": 9}})

    assert error.message == (
        "study.toml: distill.experts.epochs: a match reads up to epoch 10 "
        "(max_start - 1 + expert_epochs), experts are trained for 6"
    )


def test_a_key_of_a_table_in_a_list_is_named_with_its_place():
    class Table(Settings):
        sources: tuple[ImageSource, ...]

    error = refusal(Table, {"sources": [{"kind": "npz", "path": "a"}, {"kind": "npz"}]}, "a.toml")

    assert error.message == "a.toml: sources.1.path: Field required"


def test_an_unknown_kind_of_images_is_answered_with_the_known_ones():
    error = refusal(Scenario, {"name": "a", "images": {"kind": "zip"}, "distill": STUDY["distill"]})

    assert error.message == (
        "study.toml: images: Input tag 'zip' found using 'kind' does not match any of the "
        "expected tags: 'folder', 'csv', 'npz', 'phantoms'"
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("images_per_class", "5"),
        ("images_per_class", 5.5),
        ("images_per_class", True),
        ("name", 5),
        ("classes", "Normal, COVID"),
        ("classes", ["Normal", 2]),
        ("image", 32),
        ("evaluation", {"synthetic_share": "0.25"}),
        ("distill", {"method": "idm", "class_balanced_training": 1}),
    ],
)
def test_no_value_is_turned_into_another_type(key, value):
    assert refusal(Study, STUDY | {key: value}).message.startswith(f"study.toml: {key}")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_out_of_every_range(value):
    error = refusal(Study, STUDY | {"image": {"mean": value}})

    assert error.message.startswith("study.toml: image.mean: Input should be")


def test_a_whole_number_serves_where_a_number_is_asked():
    study = parse_settings(
        Study, STUDY | {"distill": {"method": "idm", "image_rate": 5}}, "study.toml"
    )

    assert study.distill.image_rate == 5.0


def test_settings_cannot_be_changed():
    study = parse_settings(Study, STUDY, "study.toml")

    with pytest.raises(ValidationError, match="frozen"):
        study.quorum = 1


def test_the_error_names_the_file_without_its_folder(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text('name = "site-1"\n')

    with pytest.raises(SettingsError, match=r"^site\.toml: seed: Field required; images: Field "):
        load_settings(SiteConfig, path)


def test_a_missing_file_is_named_with_its_path(tmp_path):
    path = tmp_path / "none.toml"

    with pytest.raises(SettingsError) as caught:
        read_toml(path)

    assert caught.value.message == f"{path}: no such file or directory"
    assert caught.value.hint == "give the path of a TOML file that this user can read"


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(SettingsError) as caught:
        read_toml(tmp_path)

    assert caught.value.message == f"{tmp_path}: is a directory"


@pytest.mark.parametrize("data", [b"name = ", b'name = "a"\nname = "b"\n', b"name = \xff", b"\x00"])
def test_what_is_not_toml_is_said_to_be_none(tmp_path, data):
    path = tmp_path / "broken.toml"
    path.write_bytes(data)

    with pytest.raises(SettingsError) as caught:
        read_toml(path)

    assert caught.value.message.startswith(f"{path}: not TOML: ")
    assert caught.value.hint == "see docs/ref-settings.md for examples"
