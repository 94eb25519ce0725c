"""The conclusion as a deployed server plays it: its own images, cores and device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from fedcondense.config.server import ServerConfig
from fedcondense.data.dataset import LabeledImages
from fedcondense.exchange.keys import SigningKey
from fedcondense.learning.evaluation import Bench, Candidate, Outcome, evaluate
from fedcondense.progress import Watch, silent
from fedcondense.server.conclude import conclude_round
from fedcondense.server.current_run import CurrentRun


@dataclass(frozen=True)
class Conclusion:
    """Concludes rounds of one server; `tests` are its evaluation sets by name."""

    config: ServerConfig
    tests: Mapping[str, LabeledImages]
    watch: Watch = silent

    def __call__(self, current: CurrentRun, number: int) -> None:
        """Open, unite, train and score a round.

        Raises:
            KeyFileError: the opening key of the run, or the run-signing key, cannot be read.
            QuorumMissed: fewer valid contributions than the study's quorum.
        """
        conclude_round(
            current.run,
            number,
            current.opening_key(),
            self.tests,
            signer=SigningKey.load(self.config.run_signing_key),
            evaluation=self._evaluate,
        )

    def _evaluate(self, bench: Bench, candidates: Sequence[Candidate]) -> dict[str, Outcome]:
        placed = replace(bench, device=device_of(self.config))
        return evaluate(placed, candidates, processes=self.config.threads, watch=self.watch)


def device_of(config: ServerConfig) -> str:
    """As PyTorch names it; `auto` is the first CUDA device where there is one."""
    if config.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return config.device
