"""Print how two cells' global sets differ, paired: python docs/snippets/print_gap.py CELL MINUS."""

import sys
from pathlib import Path

from fedcondense.research.resamples import gap_between

gap = gap_between(Path(sys.argv[1]), Path(sys.argv[2]))
if gap is None:
    raise SystemExit("these two were not scored on the same images")
points = [f"{100 * value:+.1f}" for value in (gap.difference, gap.low, gap.high)]
seeds = ", ".join(f"{100 * value:+.1f}" for value in gap.by_seed)
print(f"{points[0]} points ({points[1]} to {points[2]}), by seed {seeds}")
