"""Time experts trained in threads, each on one core, against the same ones after one another.

Three ways, in interleaved rounds, on the same images with the same draws; ratios are taken round by
round: one after another on one thread, one after another on all, and as many at once as there are
threads, which is what a site with `threads` above 1 does.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from fedcondense.config.loading import parse_settings
from fedcondense.config.study import Study
from fedcondense.distill.experts import train_experts
from fedcondense.distill.source import PlainSource
from fedcondense.distill.trajectories import Shelf
from fedcondense.learning.randomness import Seed

WAYS = ("one thread", "all threads, one after another", "threads, several at once")


def study_of(asked: argparse.Namespace, *, experts: int) -> Study:
    """A study whose experts are those of the preset `short`."""
    values = {
        "name": "experts",
        "classes": ["a", "b", "c", "d"],
        "quorum": 1,
        "images_per_class": 1,
        "image": {"size": asked.size},
        "network": {"width": asked.width},
        "distill": {"method": "pruned-mtt", "experts": {"count": experts}},
    }
    return parse_settings(Study, values, "experts")


def seconds(asked: argparse.Namespace, source: PlainSource, way: str) -> float:
    """How long fresh experts take."""
    torch.set_num_threads(1 if way == WAYS[0] else asked.threads)
    study = study_of(asked, experts=asked.experts)
    began = time.perf_counter()
    if way == WAYS[1]:  # a single expert has all threads to itself
        single = study_of(asked, experts=1)
        for number in range(study.distill.experts.count):
            train_experts(source, single, Shelf(), seed=Seed(number))
    else:
        train_experts(source, study, Shelf(), seed=Seed(0))
    return time.perf_counter() - began


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=300, help="real images of the site")
    parser.add_argument("--experts", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, default=32, help="side of the images in pixels")
    parser.add_argument("--width", type=int, default=32, help="channels of a ConvNet's blocks")
    parser.add_argument("--pairs", type=int, default=3, help="timed rounds")
    return parser.parse_args()


def main() -> None:
    """One warming round, then the timed ones; print the ratios."""
    asked = _asked()
    study = study_of(asked, experts=asked.experts)
    pixels = Seed(0).stream("pixels")
    images = torch.randint(
        0, 256, (asked.images, 1, asked.size, asked.size), dtype=torch.uint8, generator=pixels
    )
    source = PlainSource(images, torch.arange(asked.images) % 4, study.image)
    rounds = [[seconds(asked, source, way) for way in WAYS] for _ in range(1 + asked.pairs)][1:]
    print(
        f"{asked.experts} experts of {study.distill.experts.epochs} epochs of {asked.images} "
        f"images, 1x{asked.size}x{asked.size}, width {asked.width}, torch {torch.__version__}, "
        f"{asked.threads} threads, median of {asked.pairs} interleaved rounds:"
    )
    for place, way in enumerate(WAYS):
        taken = statistics.median(times[place] for times in rounds)
        ratios = [times[0] / times[place] for times in rounds]
        spread = f"({min(ratios):.2f}..{max(ratios):.2f})"
        print(f"  {way}: {taken:.1f} s, {statistics.median(ratios):.2f} {spread} times as fast")


if __name__ == "__main__":
    main()
