"""Print the scores of a run as Markdown: python docs/snippets/print_scores.py runs/NAME."""

import json
import sys
from pathlib import Path

SETS = ("ceiling", "global", "random_real_expanded", "random_real", "site_alone", "site_joined")


def estimate(scores: dict) -> str:
    score = scores.get("mean", scores)["balanced_accuracy"]
    return f"{score['mean']:.3f} ± {score['sd']:.3f} ({score['low']:.3f} to {score['high']:.3f})"


def points(gain: dict) -> str:
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(
        *(100 * gain[key] for key in ("difference", "low", "high"))
    )


def weakest(part: dict) -> dict:
    alone = part["scores"]["site_alone"]["sites"]
    name = min(alone, key=lambda site: alone[site]["balanced_accuracy"]["mean"])
    return part["gains"]["joining"]["sites"][name]


def table(parts: dict[str, dict]) -> None:
    print("| balanced accuracy | " + " | ".join(parts) + " |")
    print("|---|" + "---|" * len(parts))
    for name in SETS:
        cells = [estimate(part["scores"][name]) for part in parts.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")
    rows = {
        "global - random real": lambda gains: gains["global_minus_random_real"],
        "global - random real expanded": lambda g: g["global_minus_random_real_expanded"],
        "joining, mean of sites": lambda gains: gains["joining"]["mean"],
    }
    for name, pick in rows.items():
        cells = [points(pick(part["gains"])) for part in parts.values()]
        print(f"| {name}, points | " + " | ".join(cells) + " |")
    cells = [points(weakest(part)) for part in parts.values()]
    print("| joining, weakest site, points | " + " | ".join(cells) + " |")


report = json.loads((Path(sys.argv[1]) / "report.json").read_text())
repetitions = {f"seed {part['seed']}": part for part in report["repetitions"]}
print(f"{report['test']['images']} images of {report['test']['groups']} groups:\n")
table({"all seeds": report, **repetitions})
if "external" in report:
    print(f"\n{report['external']['test']['images']} external images:\n")
    table({"all seeds": report["external"]} | {k: v["external"] for k, v in repetitions.items()})
print("\nseconds:", {k: round(v) for k, v in report["seconds"].items()})
print("global_set.sha256:", [part["global_set"]["sha256"][:16] for part in report["repetitions"]])
print("on", report["environment"]["cpu"], report["environment"]["date"])
