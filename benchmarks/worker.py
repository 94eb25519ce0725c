"""A process that runs one loop, an iteration for each line it reads, and answers in JSON lines."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import torch
from plain_idm import PlainDistillation
from workload import SIZES, convolution_rate, source_of, study_of

from fedcondense.distill.idm import Distillation
from fedcondense.learning.randomness import Seed
from fedcondense.progress import peak_megabytes


def iteration_of(loop: str, size_name: str) -> Callable[[], object]:
    """The function that runs one iteration of `ours` or `plain`."""
    size = SIZES[size_name]
    source, study, seed = source_of(size), study_of(size), Seed(0)
    if loop == "ours":
        return Distillation(source, study, seed).iterate
    return PlainDistillation(source, study, seed.stream("plain")).iterate


def answers_of(loop: str, size_name: str) -> dict[str, Callable[[], float]]:
    """What can be asked, by the word that asks it."""
    if loop == "convolution":
        return {"rate": lambda: convolution_rate(SIZES[size_name])}
    iterate = iteration_of(loop, size_name)

    def seconds() -> float:
        began = time.perf_counter()
        iterate()
        return time.perf_counter() - began

    return {"seconds": seconds, "megabytes": peak_megabytes}


def main() -> None:
    """Answer until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("loop", choices=["ours", "plain", "convolution"])
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("threads", type=int)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    answers = answers_of(asked.loop, asked.size)
    for line in sys.stdin:
        print(json.dumps(answers[line.strip()]()), flush=True)


if __name__ == "__main__":
    main()
