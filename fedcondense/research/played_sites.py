"""The sites of a repetition as they are on disk, told for its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedcondense.config.study import Study
from fedcondense.data.dataset import LabeledImages
from fedcondense.flower.round_files import read_intake
from fedcondense.research.gate_schema import FailedSite, Gate
from fedcondense.research.gates import newest_gate
from fedcondense.research.hospitals import Consortium
from fedcondense.research.report_assembly import curve_of
from fedcondense.research.report_schema import SiteFigures
from fedcondense.site.journal import read_journal
from fedcondense.site.state import LocalFigures, RoundState


@dataclass(frozen=True)
class PlayedSites:
    """Sites that took part in a study; `parts` are their training images by name.

    `index` is the place of the repetition among those of its scenario.
    """

    index: int
    study: Study
    consortium: Consortium
    parts: Mapping[str, LabeledImages]

    def state(self, name: str, round: int) -> RoundState:
        """What a site keeps of a round."""
        return self.consortium.state(name, self.study, round)

    def gate(self, name: str) -> Gate | None:
        """What a site's gate said last; None if it was never asked."""
        return newest_gate(self._states(name), self.consortium.folder.parent)

    def seconds_since(self, began: float) -> float:
        """How long, after the time `began`, at least one site condensed."""
        spans = [(of.began, of.began + of.seconds) for name in self.parts for of in self._of(name)]
        return covered([(max(start, began), end) for start, end in spans])

    def failed(self) -> tuple[FailedSite, ...]:
        """Sites that the last round goes without, with the code of each."""
        intake = read_intake(self.consortium.run.intake(self.study.rounds))
        codes = {**intake.missing, **intake.failed, **intake.refused}
        return tuple(
            FailedSite(name=name, repetition=self.index, code=code, gate=self.gate(name))
            for name, code in sorted(codes.items())
        )

    def figures(self, name: str) -> SiteFigures:
        """A site that contributed to the last round; its time is that of all rounds."""
        images, state = self.parts[name], self.state(name, self.study.rounds)
        local, gate = state.figures(), self.gate(name)
        assert gate is not None, "nothing is sealed that no gate has looked at"
        condensing = [step for step in read_journal(state.journal) if step.stage == "condensing"]
        return SiteFigures(
            name=name,
            repetition=self.index,
            images=len(images),
            groups=len(set(images.groups)),
            class_counts=dict(zip(images.classes, images.counts().tolist(), strict=True)),
            left_out=local.left_out,
            synthetic_images=local.synthetic_images,
            sealed_bytes=self.consortium.run.sealed(self.study.rounds, name).stat().st_size,
            real_bytes=images.images.numel(),
            seconds=sum(of.seconds for of in self._of(name)),
            peak_megabytes=max(of.peak_megabytes for of in self._of(name)),
            gate=gate,
            payload_sha256=state.record()["payload_sha256"],
            signing_key=self.consortium.fingerprint(name),
            curve=curve_of(condensing),
        )

    def _states(self, name: str) -> list[RoundState]:
        return [self.state(name, round) for round in range(1, self.study.rounds + 1)]

    def _of(self, name: str) -> list[LocalFigures]:
        """What a site knows of each of its condensations."""
        return [state.figures() for state in self._states(name) if state.finished()]


def covered(intervals: list[tuple[float, float]]) -> float:
    """Length of the union of intervals; one that ends before it begins counts nothing."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered
