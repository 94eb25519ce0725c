"""One partition seed of a scenario: the federation, then everything that it is held against."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fedcondense.config.study import Architecture, Study
from fedcondense.data.dataset import LabeledImages
from fedcondense.errors import QuorumMissed, ReleaseRefused
from fedcondense.files.figures import Figures
from fedcondense.files.storage import read_arrays, write_arrays, write_atomically
from fedcondense.flower.round_files import read_intake
from fedcondense.flower.simulation import FederationTimes, run_federation
from fedcondense.learning.evaluation import Bench, Candidate, Outcome
from fedcondense.learning.randomness import Seed
from fedcondense.progress import Step, Watch
from fedcondense.research.comparators import CEILING, Comparison, as_pictures, compare
from fedcondense.research.consistency import measure_consistency, with_weights
from fedcondense.research.cross_architecture import cross_candidates
from fedcondense.research.evaluation_cache import EvaluationCache
from fedcondense.research.gate_schema import FailedSite
from fedcondense.research.hospitals import Consortium
from fedcondense.research.optional_schema import Consistency
from fedcondense.research.played_sites import PlayedSites
from fedcondense.research.report_schema import Seconds, SiteFigures
from fedcondense.server.conclude import GLOBAL, Conclusion, bench_of, conclude_round
from fedcondense.server.report_figures import GlobalSetFigures
from fedcondense.site.journal import last_step


class RepetitionRecord(Figures):
    """What a finished repetition leaves beside its predictions; scores are computed from both.

    `stored` and `views` say by candidate how many images it stores and how many a network sees.
    """

    seed: int
    study_digest: str
    sites: tuple[SiteFigures, ...]
    failed_sites: tuple[FailedSite, ...]
    seconds: Seconds
    global_set: GlobalSetFigures
    stored: dict[str, int]
    views: dict[str, int]
    consistency: Consistency | None = None


@dataclass(frozen=True)
class Repetition:
    """A repetition that is to be played.

    `index` is its place among the repetitions of the scenario; `parts` are the training images of
    each site, `tests` the test sets by name, `draws` the number of draws of random real images;
    `evaluations` keeps what networks predict, which `device` trains. `architectures` are also
    tested, with `cross_networks` of each; of so many `nearest` real images classes are looked at.
    """

    index: int
    seed: int
    study: Study
    consortium: Consortium
    parts: Mapping[str, LabeledImages]
    tests: Mapping[str, LabeledImages]
    draws: int
    evaluations: EvaluationCache
    device: str = "cpu"
    gpus: float = 0.0
    architectures: tuple[Architecture, ...] = ()
    cross_networks: int = 1
    nearest: tuple[int, ...] = ()


def record_of(folder: Path) -> RepetitionRecord | None:
    """The record of a finished repetition."""
    path = folder / "repetition.json"
    return RepetitionRecord.model_validate_json(path.read_bytes()) if path.exists() else None


def predictions_of(folder: Path, test: str) -> dict[str, np.ndarray]:
    """What each candidate's networks predict for one test set: (networks, N, K) by name."""
    arrays = read_arrays(folder / "predictions.safetensors")
    ending = f"|{test}"
    return {k.removesuffix(ending): v for k, v in arrays.items() if k.endswith(ending)}


def play(repetition: Repetition, *, watch: Watch) -> RepetitionRecord:
    """Run the federation and the comparators; the record, written last, marks completion.

    Raises:
        FedcondenseError: the federation failed, or too few sites contributed.
    """
    return _Play(repetition, watch).run()


def processors() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass
class _Play:
    repetition: Repetition
    watch: Watch
    concluded: Conclusion | None = None
    conclusion_seconds: float = 0.0
    reported: dict[str, tuple[int, int]] = field(default_factory=dict)
    round: int = 1

    def run(self) -> RepetitionRecord:
        began = time.time()
        times = run_federation(
            self.repetition.consortium.folder,
            cpus=processors(),
            gpus=self.repetition.gpus,
            conclude=self._conclude,
            watch=self.watch,
            meanwhile=self._report_sites,
        )
        assert self.concluded is not None, "run_federation returns after conclude"
        compared = time.time()
        comparison, outcomes = self._compare(self.concluded)
        outcomes[GLOBAL] = self.concluded.outcome
        evaluation = time.time() - compared + self.conclusion_seconds
        seconds = self._seconds(times, began, evaluation)
        return self._write(comparison, outcomes, seconds)

    def _conclude(self, number: int) -> None:
        began, consortium = time.time(), self.repetition.consortium
        self._report_sites()
        self._demand_quorum(number)
        self.concluded = conclude_round(
            consortium.run,
            number,
            consortium.opening_key,
            self.repetition.tests,
            signer=consortium.signer,
            evaluation=self._evaluate,
        )
        self.conclusion_seconds += time.time() - began
        self.round = min(number + 1, self.repetition.study.rounds)

    @property
    def sites(self) -> PlayedSites:
        """What the sites keep."""
        here = self.repetition
        return PlayedSites(here.index, here.study, here.consortium, here.parts)

    def _demand_quorum(self, number: int) -> None:
        """Name the sites that did not contribute; a gate that refused is exit code 3."""
        intake = read_intake(self.repetition.consortium.run.intake(number))
        quorum, sites = self.repetition.study.quorum, len(self.repetition.parts)
        if len(intake.stored) >= quorum:
            return
        codes = {**intake.missing, **intake.failed, **intake.refused}
        named = ", ".join(f"{site} {code}" for site, code in sorted(codes.items()))
        what = f"{len(intake.stored)} of {sites} sites contributed, the quorum is {quorum}: {named}"
        if intake.refused:
            gate = self.sites.gate(min(intake.refused))
            page = gate.page if gate else "each site's errors.log"
            raise ReleaseRefused(
                what,
                hint=f"{page} in the run's directory says why; condense from noise, or to study "
                'what is refused, say release = "study-only"',
            )
        raise QuorumMissed(
            what, hint="each site's errors.log says why; the codes are in docs/ref-errors.md"
        )

    def _compare(self, concluded: Conclusion) -> tuple[Comparison, dict[str, Outcome]]:
        here = self.repetition
        comparison = compare(
            here.study,
            here.parts,
            concluded.global_set,
            draws=here.draws,
            seed=Seed(here.seed).child("comparators"),
        )
        bench = bench_of(here.study, comparison.pictures, here.tests)
        crossed = cross_candidates(
            here.study,
            comparison,
            concluded.global_set,
            here.architectures,
            here.cross_networks,
        )
        return comparison, self._evaluate(bench, [*comparison.candidates, *crossed])

    def _consistency(
        self, comparison: Comparison, outcomes: Mapping[str, Outcome]
    ) -> Consistency | None:
        """In the eyes of the ceiling's first network, trained on all real training images."""
        here = self.repetition
        if not here.nearest:
            return None
        network = with_weights(outcomes[CEILING].weights, here.study)
        unseen = as_pictures(next(iter(here.tests.values())), here.study)
        return measure_consistency(
            network,
            {**comparison.pictures, "unseen": unseen},
            here.nearest,
            Seed(here.seed).stream("consistency"),
        )

    def _evaluate(self, bench: Bench, candidates: Sequence[Candidate]) -> dict[str, Outcome]:
        here = self.repetition
        return here.evaluations.evaluate(
            replace(bench, device=here.device),
            candidates,
            processes=processors(),
            watch=self.watch,
        )

    def _report_sites(self) -> None:
        """Pass on what the sites' journals say since the last look."""
        for name in self.repetition.parts:
            step = last_step(self.sites.state(name, self.round).journal)
            if step is not None and self.reported.get(name) != (self.round, step.done):
                self.reported[name] = self.round, step.done
                self.watch(Step(f"{step.stage}: {name}", step.done, step.total, step.figures))

    def _seconds(self, times: FederationTimes, began: float, evaluation: float) -> Seconds:
        """Federation is what neither starting, nor condensing, nor concluding took."""
        condense = self.sites.seconds_since(began)
        federation = times.total - times.start_up - condense - self.conclusion_seconds
        return Seconds(
            start_up=times.start_up,
            condense=condense,
            federation=max(0.0, federation),
            evaluation=evaluation,
            total=time.time() - began,
        )

    def _contributors(self) -> list[str]:
        assert self.concluded is not None, "asked after the conclusion"
        return list(dict.fromkeys(self.concluded.global_set.sites))

    def _write(
        self, comparison: Comparison, outcomes: Mapping[str, Outcome], seconds: Seconds
    ) -> RepetitionRecord:
        assert self.concluded is not None, "written after the conclusion"
        folder = self.repetition.consortium.folder
        arrays = {
            f"{name}|{test}": values
            for name, outcome in outcomes.items()
            for test, values in outcome.probabilities.items()
        }
        write_arrays(folder / "predictions.safetensors", arrays)
        union = self.concluded.global_set
        names = [union.classes[label] for label in sorted(set(union.labels.tolist()))]
        record = RepetitionRecord(
            seed=self.repetition.seed,
            study_digest=self.repetition.study.digest,
            sites=tuple(self.sites.figures(name) for name in self._contributors()),
            failed_sites=self.sites.failed(),
            seconds=seconds,
            global_set=GlobalSetFigures(
                sha256=union.sha256, images=len(union), classes=tuple(names)
            ),
            stored=dict(comparison.stored),
            views=comparison.views(),
            consistency=self._consistency(comparison, outcomes),
        )
        write_atomically(folder / "repetition.json", record.model_dump_json().encode())
        return record
