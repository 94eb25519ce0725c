"""The Flower app that a server submits: two data files, and no code."""

from __future__ import annotations

import io
import os
import shutil
import tomllib
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.supercore.object_ref import load_app
from hatchling.builders.wheel import WheelBuilder

from fedcondense.files.storage import sha256
from fedcondense.flower import client_app, server_app
from fedcondense.flower.simulation import BUNDLE

# Flower 1.41 calls its pattern matcher by an old name
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
# Digest of the list of its files with their digests; the zip around them depends on zlib's build.
CONTENT = "e32e9a33bfba84958d0516013776cc6a02fd099818e55575617cf3ee94ff168a"


def files_of_the_bundle() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(BUNDLE))) as bundle:
        return {name: bundle.read(name) for name in bundle.namelist()}


def test_the_bundle_changes_only_on_purpose() -> None:
    assert sha256(files_of_the_bundle()[".info/CONTENT"]) == CONTENT


def test_two_builds_are_equal_whatever_times_and_modes_the_files_have(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(BUNDLE, copy)
    for path in copy.iterdir():
        path.chmod(0o600)
        os.utime(path, (0, 0))

    assert build_fab_from_disk(copy) == build_fab_from_disk(BUNDLE)


def test_the_bundle_holds_no_code() -> None:
    assert set(files_of_the_bundle()) == {"pyproject.toml", "LICENSE", ".info/CONTENT"}
    assert {path.name for path in BUNDLE.iterdir()} == {"pyproject.toml", "LICENSE"}


def test_its_components_are_those_of_the_installed_package() -> None:
    app = tomllib.loads((BUNDLE / "pyproject.toml").read_text())["tool"]["flwr"]["app"]

    assert load_app(app["components"]["serverapp"], RuntimeError) is server_app.app
    assert load_app(app["components"]["clientapp"], RuntimeError) is client_app.app
    assert app["config"] == {"run-directory": ""}


def test_the_wheel_holds_the_bundle_and_nothing_beside_the_package() -> None:
    builder = WheelBuilder(str(Path(__file__).parents[2]))

    files = {file.distribution_path for file in builder.recurse_included_files()}

    assert {
        "fedcondense/flower/bundle/pyproject.toml",
        "fedcondense/flower/bundle/LICENSE",
    } <= files
    assert {Path(file).parts[0] for file in files} == {"fedcondense"}
