from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcondense.config.privacy import Budget, Unit
from fedcondense.errors import BudgetExhausted, LedgerError, SettingsError
from fedcondense.privacy.accounting import Mechanism, Planned, Spent, sigma_for
from fedcondense.privacy.chain import State
from fedcondense.privacy.ledger import Access, PrivacyLedger
from fedcondense.privacy.receipt import Paid

POPULATION = "kermany"
BUDGET = Budget(epsilon=8.0, delta=1e-5, unit=Unit.PATIENT)
ACCESS = Access("5" * 64, round=1, mode="dp-embed", unit=Unit.PATIENT)
UNBOUNDED_ACCESS = Access("6" * 64, round=1, mode="none")
NO_NOISE = [Mechanism("images", None)]
slow = pytest.mark.slow


def adding(mechanisms: Sequence[Mechanism], delta: float) -> Spent:
    """Stands in for the accountant: an access costs 1 / sigma, and costs are added."""
    if any(of.sigma is None for of in mechanisms):
        return Spent(math.inf, delta, "none")
    return Spent(math.fsum(of.steps / of.sigma for of in mechanisms if of.sigma), delta, "prv")


def costing(epsilon: float) -> list[Mechanism]:
    return [Mechanism("class-embeddings", 1 / epsilon)]


def opened(folder: Path, budget: Budget | None = BUDGET) -> PrivacyLedger:
    return PrivacyLedger.open(folder, POPULATION, budget, compose=adding)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def ledger(folder) -> PrivacyLedger:
    return opened(folder)


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Paying


def test_a_charge_writes_one_row_for_each_mechanism(ledger):
    planned = [Mechanism("class-counts", 40.0), Mechanism("experts", 2.0, 0.05, 4)]

    paid = ledger.charge(
        planned, replace(ACCESS, mode="dp-sgd", round=3, images_per_patient=4, clip=1.5)
    )

    assert ledger.rows() == paid.rows
    assert [(row.mechanism, row.sigma, row.q, row.steps) for row in paid.rows] == [
        ("class-counts", 40.0, 1.0, 1),
        ("experts", 2.0, 0.05, 4),
    ]
    for row in paid.rows:
        assert (row.state, row.unit, row.mode) == (State.CHARGED, Unit.PATIENT, "dp-sgd")
        assert (row.study, row.round, row.k_max, row.clip) == ("5" * 64, 3, 4, 1.5)


def test_a_receipt_says_what_was_spent_now_and_in_all(ledger):
    ledger.charge(costing(3.0), ACCESS)

    paid = ledger.charge(costing(2.0), replace(ACCESS, delta=1e-6))

    assert paid.spent == Spent(2.0, 1e-6, "prv")
    assert (paid.cumulative.epsilon, paid.cumulative.delta) == (pytest.approx(5.0), 1e-5)
    assert (paid.unit, paid.cumulative_unit, paid.mode) == (Unit.PATIENT, Unit.PATIENT, "dp-embed")
    assert paid.head == ledger.verify() == paid.rows[-1].digest
    assert ledger.spent().epsilon == pytest.approx(5.0)
    assert ledger.spent(1e-3).delta == 1e-3
    assert ledger.remaining == pytest.approx(3.0)


def test_all_studies_on_the_same_patients_share_one_ledger(folder):
    opened(folder).charge(costing(5.0), ACCESS)

    with pytest.raises(BudgetExhausted):
        opened(folder).charge(costing(4.0), replace(ACCESS, study="7" * 64))


def test_another_population_has_its_own_ledger(folder):
    opened(folder).charge(costing(8.0), ACCESS)
    others = PrivacyLedger.open(folder, "others", BUDGET, compose=adding)

    assert others.charge(costing(8.0), ACCESS).cumulative.epsilon == 8.0


def test_an_access_of_nothing_cannot_be_paid_for(ledger):
    with pytest.raises(ValueError, match="without a mechanism"):
        ledger.charge([], ACCESS)


# Refusing


def test_what_exceeds_the_budget_is_refused_with_the_numbers_before_anything_is_touched(
    ledger, folder
):
    read = []
    ledger.charge(costing(5.0), ACCESS)
    before = everything(folder)

    def condense() -> None:
        ledger.charge(costing(3.2), ACCESS)
        read.append("an image")

    with pytest.raises(BudgetExhausted) as error:
        condense()

    assert error.value.message == (
        "epsilon 5 is spent and the study would make it 8.2, the budget in [ledger] is 8 "
        "(delta 1e-05, unit patient, accountant prv)"
    )
    assert (error.value.code, error.value.exit_code) == ("FC406", 3)
    assert read == []
    assert everything(folder) == before


def test_a_refused_first_charge_leaves_no_ledger_behind(ledger, folder):
    with pytest.raises(BudgetExhausted):
        ledger.charge(costing(9.0), ACCESS)

    assert [path.name for path in folder.iterdir()] == [f"{POPULATION}.lock"]


def test_the_budget_may_be_spent_to_the_last_bit(ledger):
    ledger.charge(costing(4.0), ACCESS)
    ledger.charge(costing(4.0), ACCESS)

    assert ledger.remaining == 0


def test_a_site_with_a_budget_refuses_a_study_without_differential_privacy(ledger, folder):
    with pytest.raises(BudgetExhausted, match="is not bounded, the budget in") as error:
        ledger.charge(NO_NOISE, UNBOUNDED_ACCESS)

    assert "mode" in error.value.hint
    assert ledger.rows() == ()


def test_a_site_without_a_budget_refuses_a_study_with_differential_privacy(folder):
    with pytest.raises(SettingsError, match=r"\[ledger\] is missing"):
        opened(folder, None).charge(costing(1.0), ACCESS)

    assert opened(folder, None).rows() == ()


def test_a_study_without_differential_privacy_is_one_unbounded_row(folder):
    ledger = opened(folder, None)

    paid = ledger.charge(NO_NOISE, UNBOUNDED_ACCESS)

    (row,) = paid.rows
    assert (row.state, row.sigma, row.unit) == (State.UNBOUNDED, None, None)
    assert (paid.unit, paid.mode) == (None, "none")
    assert not paid.spent.bounded
    assert not paid.cumulative.bounded
    assert ledger.remaining is None


def test_one_unbounded_row_refuses_every_budget_for_ever(folder):
    opened(folder, None).charge(NO_NOISE, UNBOUNDED_ACCESS)
    ledger = opened(folder)

    with pytest.raises(BudgetExhausted, match="is not bounded for unit patient") as error:
        ledger.charge(costing(0.01), ACCESS)

    assert "cannot be undone" in error.value.hint
    assert ledger.spent().epsilon == math.inf
    assert ledger.remaining == 0


def test_images_never_support_a_budget_for_patients(ledger):
    with pytest.raises(BudgetExhausted, match=r"hides single images, the budget .* for patients"):
        ledger.charge(costing(1.0), replace(ACCESS, unit=Unit.IMAGE))


def test_earlier_rows_for_images_refuse_a_later_budget_for_patients(folder):
    for_images = BUDGET.model_copy(update={"unit": Unit.IMAGE})
    opened(folder, for_images).charge(costing(1.0), replace(ACCESS, unit=Unit.IMAGE))

    with pytest.raises(BudgetExhausted, match="not bounded for unit patient"):
        opened(folder).charge(costing(1.0), ACCESS)


def test_a_row_for_patients_counts_in_a_budget_for_images(folder):
    ledger = opened(folder, BUDGET.model_copy(update={"unit": Unit.IMAGE}))

    paid = ledger.charge(costing(2.0), ACCESS)

    assert (paid.unit, paid.cumulative_unit) == (Unit.PATIENT, Unit.IMAGE)
    assert paid.cumulative.epsilon == 2.0


@settings(max_examples=6)
@given(costs=st.lists(st.floats(0.01, 6), min_size=1, max_size=6))
def test_no_order_of_charges_exceeds_the_budget(costs):
    with TemporaryDirectory() as folder:
        for cost in costs:
            ledger = opened(Path(folder))
            left = ledger.remaining
            assert left is not None
            try:
                ledger.charge(costing(cost), ACCESS)
            except BudgetExhausted:
                assert cost > left - 1e-9
        assert ledger.spent().epsilon <= BUDGET.epsilon


# Finishing and rehearsing


def test_finishing_adds_a_row_and_changes_none(ledger):
    paid = ledger.charge([*costing(1.0), *costing(2.0)], ACCESS)

    ledger.finish(paid)

    assert ledger.rows()[:2] == paid.rows
    done = ledger.rows()[2]
    assert (done.state, done.settles, done.sigma) == (State.DONE, (1, 2), None)
    assert (done.study, done.round, done.mode) == (ACCESS.study, 1, "dp-embed")
    assert ledger.spent().epsilon == pytest.approx(3.0)


def test_finishing_twice_is_finishing_once(ledger):
    paid = ledger.charge(costing(1.0), ACCESS)

    ledger.finish(paid)
    ledger.finish(paid)

    assert len(ledger.rows()) == 2


def test_a_receipt_of_another_ledger_finishes_nothing(ledger, tmp_path):
    other = opened(tmp_path / "other").charge(costing(1.0), ACCESS)
    ledger.charge(costing(1.0), ACCESS)

    with pytest.raises(LedgerError, match="it was set back"):
        ledger.finish(other)


def test_a_rehearsal_is_written_down_before_it_begins_and_costs_nothing(ledger):
    with ledger.rehearsal("memorisation", study="5" * 64, round=2):
        (row,) = ledger.rows()

    assert (row.state, row.mechanism, row.round) == (State.REHEARSAL, "memorisation", 2)
    assert ledger.rows() == (row,)
    assert ledger.spent() == Spent(0.0, 1e-5, "prv")


def test_a_rehearsal_needs_no_budget(folder):
    with opened(folder, None).rehearsal("shadows"):
        pass

    assert len(opened(folder, None).rows()) == 1


# Receipts


@pytest.mark.parametrize("budget", [BUDGET, None])
def test_a_receipt_survives_its_file(folder, budget):
    ledger = opened(folder, budget)
    access = ACCESS if budget else UNBOUNDED_ACCESS
    paid = ledger.charge(costing(1.0) if budget else NO_NOISE, access)

    again = Paid.from_json(json.loads(json.dumps(paid.to_json(), allow_nan=False)))

    assert again == paid
    ledger.finish(again)
    assert len(ledger.rows()) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"rows": [{}]},
        {"spent": {}},
        {"unit": "hospital"},
        {"cumulative": None},
        {"spent": {"epsilon": "much", "delta": 1, "accountant": "prv"}},
    ],
)
def test_a_damaged_receipt_is_refused(ledger, change):
    value = ledger.charge(costing(1.0), ACCESS).to_json()

    with pytest.raises(LedgerError, match=r"receipt .* is damaged"):
        Paid.from_json({**value, **change})


def test_something_that_is_no_receipt_is_refused():
    with pytest.raises(LedgerError, match="is damaged"):
        Paid.from_json([])


# A ledger that cannot be trusted


def test_nothing_is_charged_to_an_altered_ledger(ledger, folder):
    paid = ledger.charge(costing(1.0), ACCESS)
    path = folder / f"{POPULATION}.json"
    path.write_bytes(path.read_bytes().replace(b'"sigma":1.0', b'"sigma":9.0'))
    before = everything(folder)

    for act in (
        lambda: ledger.charge(costing(0.1), ACCESS),
        lambda: ledger.finish(paid),
        lambda: ledger.rehearsal("audits").__enter__(),
        lambda: opened(folder),
        lambda: opened(folder, None),
    ):
        with pytest.raises(LedgerError, match="cannot be trusted"):
            act()
    assert everything(folder) == before


def test_a_ledger_set_back_with_its_anchor_lacks_the_head_of_an_issued_record(ledger, folder):
    ledger.charge(costing(1.0), ACCESS)
    copies = everything(folder)
    issued = ledger.charge(costing(1.0), ACCESS)
    for name, content in copies.items():
        (folder / name).write_bytes(content)

    assert not opened(folder).holds(issued.head)
    with pytest.raises(LedgerError, match="it was set back"):
        ledger.finish(issued)


def test_a_round_that_rests_on_rows_which_the_ledger_lost_is_not_charged(ledger, folder):
    copies_before = everything(folder)
    first = ledger.charge(costing(1.0), ACCESS)
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()
    for name, content in copies_before.items():
        (folder / name).write_bytes(content)

    with pytest.raises(LedgerError, match="does not hold the rows of a receipt"):
        opened(folder).charge(costing(1.0), ACCESS, before=first.rows)
    assert opened(folder).rows() == ()


# Other processes

PROCESS = """
import math, sys, time
from pathlib import Path
from fedcondense.config.privacy import Budget, Unit
from fedcondense.errors import BudgetExhausted
from fedcondense.privacy.accounting import Mechanism, Spent
from fedcondense.privacy.ledger import Access, PrivacyLedger

def adding(mechanisms, delta):
    time.sleep(0.002)  # long enough for another to come between
    return Spent(math.fsum(1 / of.sigma for of in mechanisms), delta, "prv")

budget = Budget(epsilon=8.0, delta=1e-5, unit=Unit.PATIENT)
ledger = PrivacyLedger.open(Path(sys.argv[1]), "kermany", budget, compose=adding)
access = Access("5" * 64, round=1, mode="dp-embed", unit=Unit.PATIENT)
"""
CHARGE_AND_HANG = """
ledger.charge([Mechanism("class-embeddings", 0.2)], access)
print("charged", flush=True)
time.sleep(60)  # reads images
"""
CHARGE_UNTIL_REFUSED = """
print("ready", flush=True)
sys.stdin.readline()
paid = 0
try:
    while paid < 20:
        ledger.charge([Mechanism("class-embeddings", 1.0)], access)
        paid += 1
except BudgetExhausted:
    print(paid)
"""


def started(script: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS + script, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.e2e
def test_what_a_killed_process_was_charged_stays_spent(folder):
    process = started(CHARGE_AND_HANG, folder)
    first = said(process)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    ledger = opened(folder)
    assert first == "charged"
    assert ledger.spent().epsilon == 5.0
    assert [spending.finished for spending in ledger.view().spendings] == [False]
    with pytest.raises(BudgetExhausted):  # running it again would cost it again
        ledger.charge(costing(5.0), ACCESS)


@pytest.mark.e2e
def test_two_processes_at_once_never_spend_more_than_the_budget(folder):
    processes = [started(CHARGE_UNTIL_REFUSED, folder) for _ in range(2)]
    ready = [said(process) for process in processes]
    answers = [process.communicate("go\n")[0] if ready else "" for process in processes]

    assert ready == ["ready", "ready"]
    assert sum(map(int, answers)) == 8
    assert opened(folder).spent().epsilon == 8.0
    assert [row.seq for row in opened(folder).rows()] == list(range(1, 9))


# With the real accountant


@slow
@pytest.mark.parametrize(
    ("planned", "epsilon", "rounds"),
    [
        ([Planned("class-embeddings")], 8.0, 1),
        ([Planned("class-embeddings")], 1.0, 3),
        ([Mechanism("class-counts", 40.0), Planned("experts", 256 / 5000, 20)], 8.0, 2),
        ([Planned("class-embeddings"), Planned("experts", 0.2, 10)], 3.0, 1),
    ],
)
def test_a_plan_is_accepted_by_its_own_ledger_and_one_round_more_is_not(
    folder, planned, epsilon, rounds
):
    plan = sigma_for(planned, epsilon=epsilon, delta=1e-5, repeat=rounds)
    budget = BUDGET.model_copy(update={"epsilon": epsilon})
    ledger = PrivacyLedger.open(folder, POPULATION, budget)

    paid = [ledger.charge(plan, replace(ACCESS, round=n + 1)) for n in range(rounds)]

    assert 0.99 * epsilon < paid[-1].cumulative.epsilon <= epsilon
    assert paid[-1].cumulative == ledger.spent()
    with pytest.raises(BudgetExhausted):
        ledger.charge(plan, replace(ACCESS, round=rounds + 1))


@slow
def test_a_sigma_that_only_the_exact_formula_would_accept_is_refused(folder):
    # sigma .600 costs exactly 8.004 and by PRV 8.014; .601 is the least that PRV accepts
    ledger = PrivacyLedger.open(folder, POPULATION, BUDGET)

    with pytest.raises(BudgetExhausted, match=r"would make it 8\.014"):
        ledger.charge([Mechanism("class-embeddings", 0.600)], ACCESS)

    assert ledger.charge([Mechanism("class-embeddings", 0.601)], ACCESS).spent.accountant == "prv"
