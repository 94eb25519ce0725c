"""Whether a site can pay, before anybody counts on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hospital_kit import Hospital, tiny_study

from fedcondense.config.loading import parse_settings
from fedcondense.config.study import Study
from fedcondense.errors import BudgetExhausted, FedcondenseError, LedgerError, SettingsError
from fedcondense.privacy.accounting import Mechanism
from fedcondense.privacy.ledger import Access, PrivacyLedger
from fedcondense.site.doctor import Verdict
from fedcondense.site.payment import demand_payable, payment

PRIVATE = {"mode": "dp-embed", "epsilon": 4.0}
DECLARED = {"images": 12}


def private_study() -> Study:
    values = tiny_study().model_dump(mode="json", exclude_none=True)
    distill = {"method": "dm", "iterations": 2}
    return parse_settings(Study, values | {"distill": distill, "privacy": PRIVATE}, "study")


def told(hospital: Hospital) -> list[tuple[Verdict, str]]:
    return [(line.verdict, line.text) for line in payment(hospital.site, hospital.study)]


def test_without_a_budget_a_study_without_a_guarantee_is_payable(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path)

    demand_payable(hospital.site, hospital.study, 1)

    [(verdict, text)] = told(hospital)
    assert verdict is Verdict.OK
    assert "bounded by nothing" in text


@pytest.mark.parametrize(
    ("study", "settings", "error"),
    [
        (tiny_study(), {"ledger": {"epsilon": 4.0}}, BudgetExhausted),
        (private_study(), {}, SettingsError),
        (private_study(), {"ledger": {"epsilon": 4.0}}, SettingsError),
        (private_study(), {"ledger": {"epsilon": 1.0}, "declared": DECLARED}, BudgetExhausted),
    ],
    ids=["not-bounded", "no-ledger", "nothing-declared", "too-little"],
)
def test_what_the_ledger_would_refuse_is_refused_before(
    tmp_path: Path, study: Study, settings: dict[str, Any], error: type[FedcondenseError]
) -> None:
    hospital = Hospital(tmp_path, study=study, settings=settings)

    with pytest.raises(error):
        demand_payable(hospital.site, study, 1)

    with pytest.raises(error):
        told(hospital)


def test_what_a_study_would_leave_of_the_budget_is_told(tmp_path: Path) -> None:
    settings = {"ledger": {"epsilon": 8.0}, "declared": DECLARED}
    hospital = Hospital(tmp_path, study=private_study(), settings=settings)

    demand_payable(hospital.site, hospital.study, 1)

    [(verdict, text)] = told(hospital)
    assert verdict is Verdict.OK
    assert text.startswith("epsilon 3.9")
    assert text.endswith(" of 8 would be spent after this study (delta 1e-05, unit image)")


def test_a_set_that_is_kept_costs_nothing_more(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path, settings={"ledger": {"epsilon": 4.0}})
    folder = hospital.state.folder
    folder.mkdir(parents=True)
    (folder / "figures.json").touch()
    assert hospital.state.finished()

    demand_payable(hospital.site, hospital.study, 1)

    assert told(hospital) == [(Verdict.OK, "all rounds of this study are paid for")]


def test_a_ledger_that_was_set_back_pays_nothing(tmp_path: Path) -> None:
    hospital = Hospital(tmp_path)
    site = hospital.site
    ledger = PrivacyLedger.open(site.ledger_folder, site.population, site.ledger)
    access = Access(study=hospital.study.digest, round=1, mode="none")
    ledger.charge([Mechanism("images", None)], access)
    for path in site.ledger_folder.glob("*anchor*"):
        path.unlink()

    with pytest.raises(LedgerError):
        demand_payable(site, hospital.study, 1)


def test_no_torch_is_loaded_where_nothing_is_to_be_charged() -> None:
    code = "import fedcondense.site.payment, sys; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
