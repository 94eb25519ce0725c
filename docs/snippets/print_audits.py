"""Print what was tried against each set of a run: python docs/snippets/print_audits.py runs/NAME.

The numbers stay at a site: neither release record nor report has more than the verdicts.
"""

import json
import sys
from pathlib import Path

RETRIEVAL = ("nearest-in-train", "closer-than-held-out", "stands-out")
FOLDERS = ("cells", "sites", "runs")
ATTACKS = ("auc", "tpr-at-1.0%")


def of_the_set(findings: list[dict], statistic: str) -> list[dict]:
    """Of the set as a whole; of retrieval, by whatever comparison chance explains least."""
    found = [one for one in findings if (one["statistic"], one["label"]) == (statistic, None)]
    return found if statistic in ATTACKS else sorted(found, key=lambda one: one["p"])[:1]


def show(number: dict) -> str:
    return f"{number['value']:.3f} ({number['low']:.3f} to {number['high']:.3f})"


def last(log: list[dict], stage: str) -> float:
    return max((step["seconds"] for step in log if step["stage"] == stage), default=0.0)


def print_set(folder: Path, name: str) -> None:
    record = json.loads((folder / "release-record.json").read_text())
    audits = json.loads((folder / "audits.json").read_text())
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    print(f"\n{name}: {record['verdict']}", *record["refusals"])
    condensing = max(last(log, "condensing"), last(log, "training experts"))
    for result in audits["results"]:
        share = f"{result['seconds'] / condensing:.1%} of condensing" if condensing else ""
        print(f"  {result['audit']}: {result['verdict']}, {result['seconds']:.1f} s, {share}")
        likeness = [one["value"] for one in result["findings"] if one["statistic"] == "copy"]
        if likeness:
            print(f"    likeness to one radiograph, at most: {max(likeness):.3f}")
        for statistic in (*RETRIEVAL, *ATTACKS):
            for found in of_the_set(result["findings"], statistic):
                print(f"    {statistic}, {found['space']}: {show(found)}, {found['verdict']}")


root = Path(sys.argv[1])
for found in sorted(root.rglob("round-*/audits.json")):
    own = found.parent.relative_to(root).parts
    print_set(found.parent, " ".join(part for part in own if part not in FOLDERS))
