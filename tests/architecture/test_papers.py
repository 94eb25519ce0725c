"""Version, changelog, pins and licence agree; the project's text claims only what is proven."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import fedcondense

HOME = Path(__file__).parents[2]
PROJECT = tomllib.loads((HOME / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DIRECT = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
# Without a proof nobody may say these of a synthetic set, and no proof of them exists.
CLAIMS = re.compile(
    r"anonym\w*|de-?identif\w*|(gdpr|hipaa)[- ]complian\w*|no patient data leaves"
    r"|privacy[- ]preserving|privacy for free"
    r"|(set|image|film|contribution|data)s? (is|are) (safe|private)"
    r"|\bfake\b",
    re.IGNORECASE,
)
PLACES = re.compile(
    r"/work/|/tmp/venv|/tmp/w\b|shared/design|pypi\.org|pythonhosted|artifactory|\bregistry host",
    re.IGNORECASE,
)
# Tests that look for the very words.
LISTS = {
    "tests/architecture/test_papers.py",
    "tests/docs/test_words.py",
    "tests/kits/words_kit.py",
    "tests/privacy/test_release.py",
    "tests/research/test_study_report.py",
}
FOLDERS = ("fedcondense", "tests", "docs", "simulations", "benchmarks", ".ci")


def project_texts() -> list[Path]:
    """Text files of the project: in a checkout all that git knows or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if (HOME / ".git").exists():
        found = subprocess.run(command, cwd=HOME, check=True, capture_output=True)
        paths = [HOME / name for name in found.stdout.decode().split("\0") if name]
    else:
        inside = [path for folder in FOLDERS for path in (HOME / folder).rglob("*")]
        paths = [*HOME.glob("*.*"), *(p for p in inside if "__pycache__" not in p.parts)]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()]


def pins() -> dict[str, str]:
    lines = (HOME / "constraints.txt").read_text(encoding="utf-8").splitlines()
    given = [line.split("#")[0].strip() for line in lines]
    return {
        canonicalize_name(name): version
        for name, _, version in (line.partition("==") for line in given if line)
    }


def said(pattern: re.Pattern[str], text: str) -> list[str]:
    return [match[0] for match in pattern.finditer(text)]


def test_one_version_stands_everywhere():
    changelog = (HOME / "CHANGELOG.md").read_text(encoding="utf-8")
    citation = (HOME / "CITATION.cff").read_text(encoding="utf-8")

    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", changelog, re.MULTILINE)
    cited = re.search(r"^version: (\S+)$", citation, re.MULTILINE)

    assert newest is not None
    assert cited is not None
    assert fedcondense.__version__ == PROJECT["version"] == newest[1] == cited[1]


def test_the_licence_is_the_whole_of_apache_2():
    text = (HOME / "LICENSE").read_text(encoding="utf-8")

    assert PROJECT["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize("wanted", DIRECT, ids=lambda wanted: Requirement(wanted).name)
def test_the_pinned_version_is_one_that_the_project_asks_for(wanted):
    requirement = Requirement(wanted)

    version = pins()[canonicalize_name(requirement.name)]

    assert requirement.specifier.contains(version)


def test_every_pin_is_one_exact_version():
    assert len(pins()) > len(DIRECT)
    assert all(re.fullmatch(r"\d[0-9a-z.+!]*", version) for version in pins().values())


def test_no_text_claims_what_is_not_proven():
    found = {
        path.relative_to(HOME).as_posix(): claims
        for path in project_texts()
        if (claims := said(CLAIMS, path.read_text(encoding="utf-8")))
    }

    assert {name: claims for name, claims in found.items() if name not in LISTS} == {}
    assert len(found) >= 2  # the lists themselves: the search does find what is there


def test_no_text_names_a_machine_or_a_registry():
    found = {
        path.relative_to(HOME).as_posix(): places
        for path in project_texts()
        if (places := said(PLACES, path.read_text(encoding="utf-8")))
    }

    assert {name: places for name, places in found.items() if name not in LISTS} == {}


@pytest.mark.parametrize(
    "claim",
    [
        "The images are anonymous.",
        "anonymised films",
        "de-identified",
        "deidentification",
        "GDPR-compliant",
        "it is HIPAA compliance",
        "no patient data leaves the hospital",
        "Privacy-preserving learning",
        "synthetic sets are safe",
        "fake images",
    ],
)
def test_each_claim_would_be_noticed(claim):
    assert said(CLAIMS, claim)


@pytest.mark.parametrize("word", ["safetensors", "private_key", "unsafe", "sealed", "saved"])
def test_an_innocent_word_is_no_claim(word):
    assert not said(CLAIMS, word)
