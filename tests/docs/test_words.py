"""No page, record, template or help text says of a set what nobody has proven.

What may stand all the same is listed one by one, and each of these must still be there.
"""

from __future__ import annotations

import ast
from itertools import product
from pathlib import Path

import pytest
from wire_kit import canonical, facts_of, guarantee_of, payload_of, private_study, small_study
from words_kit import forbidden_in

from fedcondense.config.privacy import Declared, Unit
from fedcondense.exchange import record_words
from fedcondense.exchange.guarantee import Account
from fedcondense.exchange.release_record import Refusal, build_record
from fedcondense.exchange.terms import terms_of
from fedcondense.privacy import plain_words

HOME = Path(__file__).parents[2]
# (file, words around it): what is denied or is about something else than a set.
ALLOWED = (("SECURITY.md", "repository's private security advisories"),)


def pages() -> list[Path]:
    """What people read: documents, settings with their comments, templates of pages."""
    found = [*HOME.glob("*.md"), *(HOME / "docs").rglob("*.md")]
    for folder in ("simulations", "sites", "server", "benchmarks"):
        found += [path for path in (HOME / folder).rglob("*") if path.suffix in (".md", ".toml")]
    return found + sorted((HOME / "fedcondense").rglob("*.html"))


def spoken() -> list[Path]:
    """Modules whose strings reach an operator: help texts, errors, words of records."""
    package = HOME / "fedcondense"
    modules = [Path(of.__file__) for of in (record_words, plain_words) if of.__file__]
    return [*(package / "cli").glob("*.py"), *(package / "config").glob("*.py"), *modules]


def strings_of(source: str) -> str:
    """Every string of a module, docstrings included: a command's help is its docstring."""
    nodes = ast.walk(ast.parse(source))
    values = (node.value for node in nodes if isinstance(node, ast.Constant))
    return "\n".join(value for value in values if isinstance(value, str))


def errors_of(source: str) -> str:
    """What a module's errors say: each argument of a `raise`, and every hint."""
    raised = (node.exc for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Raise))
    inside = (part for error in raised if error for part in ast.walk(error))
    values = (part.value for part in inside if isinstance(part, ast.Constant))
    return "\n".join(value for value in values if isinstance(value, str))


def without_allowed(path: Path, text: str) -> str:
    flat = " ".join(text.split())
    for name, words in ALLOWED:
        if path == HOME / name:
            flat = flat.replace(words, "")
    return flat


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.relative_to(HOME).as_posix())
def test_no_page_says_what_nobody_has_proven(path):
    text = path.read_text(encoding="utf-8")

    assert forbidden_in(without_allowed(path, text)) == []


@pytest.mark.parametrize("path", spoken(), ids=lambda path: path.relative_to(HOME).as_posix())
def test_no_help_text_or_setting_says_it(path):
    assert forbidden_in(strings_of(path.read_text(encoding="utf-8"))) == []


def test_no_error_says_it():
    for path in sorted((HOME / "fedcondense").rglob("*.py")):
        assert forbidden_in(errors_of(path.read_text(encoding="utf-8"))) == [], path.name


def test_no_record_says_it_whatever_was_decided():
    image, patient = (private_study(privacy={"unit": unit}) for unit in ("image", "patient"))
    accounts = {
        small_study(): Account(guarantee=None),
        image: Account(guarantee_of(unit=Unit.IMAGE)),
        patient: Account(guarantee_of(unit=Unit.PATIENT)),
    }
    refusals = ((), tuple(Refusal))
    declared = (None, Declared(images=1, patients=1))
    cases = product(accounts, refusals, declared, ("release", "simulation"))

    for study, refused, numbers, purpose in cases:
        facts = facts_of(refusals=refused, declared=numbers, account=accounts[study])
        record = build_record(payload_of(study), terms_of(study), purpose=purpose, facts=facts)
        assert forbidden_in(canonical(record).decode()) == []


@pytest.mark.parametrize(("name", "words"), ALLOWED)
def test_what_is_allowed_is_still_there_and_would_be_noticed(name, words):
    flat = " ".join((HOME / name).read_text(encoding="utf-8").split())

    assert words in flat
    assert forbidden_in(words)


@pytest.mark.parametrize(
    "claim",
    [
        "The images are anonymous.",
        "automatically anonymized",
        "Anonymised films",
        "de-identified",
        "deidentification",
        "The set is private.",
        "kept privately",
        "It is safe to share.",
        "a safer way",
        "GDPR-compliant",
        "HIPAA compliance",
        "compliant with the GDPR",
        "No patient data leaves the hospital",
        "no patient data\n    leaves",
        "visually different, therefore nobody's",
        "privacy for free",
        "Privacy-preserving",
        "fake images",
    ],
)
def test_each_claim_would_be_noticed(claim):
    assert forbidden_in(claim)


@pytest.mark.parametrize(
    "words",
    [
        "safetensors",
        "unsafe-inline",
        "private_key",
        "differential privacy",
        "No formal privacy guarantee.",
        "GDPR Recital 26",
        "no patient data, no file names",
        "complies",
    ],
)
def test_an_innocent_word_is_no_claim(words):
    assert not forbidden_in(words)


def test_the_search_reads_what_an_operator_reads():
    assert "guarantee" in strings_of('"""A guarantee."""')
    assert errors_of('raise DataError("it is safe", hint="or fake")') == "it is safe\nor fake"
    assert len(pages()) > 30
    assert len(spoken()) > 10
