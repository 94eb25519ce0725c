"""The hospital's whole path on one page: from its images to the sealed bytes that leave."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from fedcondense.config.scenario import ReleaseMode
from fedcondense.config.site import SiteConfig
from fedcondense.config.study import Study
from fedcondense.distill.methods import distill
from fedcondense.errors import ReleaseRefused
from fedcondense.exchange.contribution import Payload, Released, decode_payload
from fedcondense.exchange.keys import SigningKey
from fedcondense.exchange.release_record import Refusal
from fedcondense.exchange.round_result import Given
from fedcondense.exchange.run_description import Request
from fedcondense.exchange.sealing import seal
from fedcondense.learning.randomness import Seed
from fedcondense.privacy.audit import not_run, run_audits
from fedcondense.privacy.budget import check_request
from fedcondense.privacy.ledger import PrivacyLedger
from fedcondense.privacy.membership import announced, estimate_seconds
from fedcondense.privacy.release import Evidence, decide_release, judge, record_of, today
from fedcondense.progress import Step, Watch, silent
from fedcondense.site.checkpoint import checkpoints_of
from fedcondense.site.cohort import Cohort, read_cohort
from fedcondense.site.experts import experts_of
from fedcondense.site.local_page import keep_likenesses, write_page
from fedcondense.site.officer import approvals_for
from fedcondense.site.payload import payload_of
from fedcondense.site.plan import access_of, planned_mechanisms
from fedcondense.site.receipts import trusted_ledger
from fedcondense.site.refinement import beginning_of
from fedcondense.site.shadow_sets import redistill_for
from fedcondense.site.sources import Basis, open_source
from fedcondense.site.state import Outlay, RoundState, local_figures

OTHER_IMAGES = "the images, or release.held_out, are not those that the set was condensed from"


def contribute(
    site: SiteConfig,
    study: Study,
    request: Request,
    *,
    mode: ReleaseMode = ReleaseMode.ENFORCED,
    watch: Watch = silent,
) -> bytes:
    """What this site answers to a request: a sealed contribution.

    The same request is answered with the same bytes and without another look at an image; another
    run of the same study and round is sealed anew from the same set. What was refused stays so.

    Raises:
        SettingsError: a later round was asked for without the global set of the one before.
        BudgetExhausted: the site's ledger does not allow the study; no image was read.
        ReleaseRefused: the gate refused; nothing leaves.
        ApprovalMissing: the data officer has not signed; nothing leaves.
        FedcondenseError: the images cannot be used, or the distillation failed.
    """
    state = RoundState(site.state, study.digest, request.round)
    with state.lock():
        if mode is ReleaseMode.ENFORCED:
            state.demand_no_refusal()
        path = HospitalPath(site, study, state, request.round, watch, given=request.given)
        released = path.walk(mode)
        approvals = approvals_for(site, state, released.payload.sha256)
        key = SigningKey.load(site.signing_key)
        return state.sealed_once(
            request.description.run,
            lambda: seal(released, request, site.name, study, key, approvals=approvals),
        )


def preview(site: SiteConfig, study: Study, *, round: int, watch: Watch = silent) -> Released:
    """Do all that `contribute` does, and send nothing; after a refusal, try another set.

    Raises:
        ReleaseRefused: the gate refused, or no further attempt is allowed.
        FedcondenseError: as `contribute`.
    """
    state = RoundState(site.state, study.digest, round)
    with state.lock():
        state.count_as_refused(site.release)
        state.begin_anew(site.release.attempts)
        return HospitalPath(site, study, state, round, watch).walk(ReleaseMode.ENFORCED)


@dataclass
class HospitalPath:
    """The stations from images to a decision, each taken once for a set."""

    site: SiteConfig
    study: Study
    state: RoundState
    round: int
    watch: Watch = silent
    cohort: Cohort | None = None
    given: Given | None = None

    def walk(self, mode: ReleaseMode) -> Released:
        """Condense, encode, audit, decide.

        Raises:
            ReleaseRefused: the gate refused.
            LedgerError: the ledger does not hold what earlier sets were paid with.
        """
        ledger = trusted_ledger(self.site)
        if not self.state.finished():
            self.condense(ledger)
        payload = payload_of(self.state, self.study)
        audits = self.state.audits(payload.sha256)
        if audits is None or not audits.covers(self.site.release):
            self.audit(payload, ledger)
        return self.decide(payload, mode)

    def condense(self, ledger: PrivacyLedger) -> None:
        """Pay, read the images, distill them, and keep the set in the site's own state.

        A later round begins where the last one ended.
        """
        site, study, began = self.site, self.study, time.time()
        check_request(study.privacy, site.declared, site.ledger)
        beginning = beginning_of(site, study, self.round, self.given)
        charged, access = planned_mechanisms(site, study), access_of(study, self.round)
        paid = ledger.charge(charged, access, before=beginning.paid)  # before an image is opened
        train = self.images().train
        seed = self.seed()
        basis = Basis(charged, beginning.refinement(site, watch=self.watch))
        grant = open_source(site, study, train, basis, seed, watch=self.watch)
        checkpoints = checkpoints_of(
            self.state.checkpoint, study, seed, train, begins_with=beginning.digest
        )
        synthetic = distill(
            grant.source,
            study,
            seed=seed,
            watch=self.watch,
            checkpoints=checkpoints,
            experts=grant.experts
            or experts_of(site, study, train, seed, global_sha256=beginning.global_sha256),
        )
        figures = local_figures(train, synthetic, began)
        ledger.finish(paid, data_digest=figures.data_digest)
        self.state.keep(synthetic, figures, Outlay(paid, beginning.accesses + grant.accesses()))
        checkpoints.clear()

    def audit(self, payload: Payload, ledger: PrivacyLedger) -> None:
        """Attack the bytes that would leave, at home; of what is found only verdicts leave."""
        arrays = decode_payload(payload)
        kept = tuple(sorted(set(arrays.labels.tolist())))
        with ledger.rehearsal("audits", study=self.study.digest, round=self.round):
            if not self.state.figures().is_of(self.images().train):
                self.state.keep_audits(not_run(payload.sha256, self.site.release, OTHER_IMAGES))
                return
            cohort = self.images().of_classes(kept)
            if self.site.release.audits == "full":
                seconds = estimate_seconds(self.state.figures().seconds)
                self.watch(Step(announced(seconds), 0, 1))
            audits = run_audits(
                arrays,
                payload_sha256=payload.sha256,
                study=self.study,
                train=cohort.train,
                held_out=cohort.held_out,
                policy=self.site.release,
                redistill=redistill_for(self.site, self.study, kept),
                seed=self.seed().child("audits"),
                watch=self.watch,
            )
            keep_likenesses(self.state, payload, self.study, cohort.train)
        self.state.keep_audits(audits)

    def decide(self, payload: Payload, mode: ReleaseMode) -> Released:
        """Ask the gate, and write the page that the data officer reads, whatever it says.

        What was decided once is not decided anew on another day: as long as all of the evidence is
        the same, the record is the one that the officer has read.
        """
        outlay, kept = self.state.outlay(), self.state.kept_record()
        evidence = Evidence(
            policy=self.site.release,
            audits=self.state.audits(payload.sha256),
            paid=outlay.paid,
            accesses=outlay.accesses,
            declared=self.site.declared,
            round=self.round,
            attempts=self.state.attempt,
            date=today() if kept is None else kept["date"],
        )
        facts = judge(payload, self.study, evidence)
        record = record_of(payload, self.study, facts, mode=mode)
        if record != kept:
            evidence = replace(evidence, date=today())
            facts = replace(facts, date=evidence.date)
            record = record_of(payload, self.study, facts, mode=mode)
        self.state.keep_record(record)
        write_page(self.site, self.study, self.state, payload, record)
        try:
            return decide_release(payload, study=self.study, mode=mode, evidence=evidence)
        except ReleaseRefused:
            if facts.refusals != (Refusal.AUDIT_MISSING,):  # what was not tried says nothing
                self.state.keep_refusal(facts.refusals)
            raise

    def images(self) -> Cohort:
        """The site's images, read once."""
        if self.cohort is None:
            self.cohort = read_cohort(self.site, self.study, watch=self.watch)
        return self.cohort

    def seed(self) -> Seed:
        """Start and sampling of this round and attempt; never of noise."""
        seed = Seed(self.site.seed).child(f"round-{self.round}")
        attempt = self.state.attempt
        return seed if attempt == 1 else seed.child(f"attempt-{attempt}")
