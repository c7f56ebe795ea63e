"""The page of results, from the JSONs that the scripts wrote: python results.py FOLDER > page.md

Every row of the published table stands on it; one that was not run, or only shortened, says so.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from ciresan import NETS as CIRESAN
from common import RESULTS
from fashion_paper import ROWS
from nielsen import NETS as NIELSEN

HEAD = (
    "| result | published | ours, mean | spread | best | seeds | minutes a seed | device |\n"
    "|---|---:|---:|---:|---:|---:|---:|---|"
)


def expected() -> dict[str, float]:
    """Give every published figure by its name."""
    rows = {net[0]: net[7] for net in NIELSEN}
    for place, where in enumerate(("Fashion-MNIST", "MNIST")):
        for (activation, hidden), figures in ROWS.items():
            rows[f"{where} paper {activation} {'-'.join(map(str, hidden))}"] = figures[place]
    rows |= {
        "Keras 512-512 dropout": 0.984,
        "Dropout paper 3x1024 max-norm": 0.9894,
        "Maxout paper 2x240x5": 0.9906,
    }
    return rows | {f"Ciresan {'-'.join(map(str, net))}": share for net, share in CIRESAN.items()}


def line(name: str, published: float, facts: dict[str, Any] | None) -> str:
    """Give one row of the table."""
    start = f"| {name} | {published:.2%} |"
    if facts is None or not facts["runs"]:
        return f"{start} not yet run | | | | | |"
    if facts["shortened"]:
        return f"{start} not yet run whole ({facts['shortened']} only) | | | | | |"
    reached = [run["reached"] for run in facts["runs"]]
    spread = f"{statistics.stdev(reached):.2%}" if len(reached) > 1 else ""
    minutes = statistics.mean(run["seconds"] for run in facts["runs"]) / 60
    return (
        f"{start} {statistics.mean(reached):.2%} | {spread} | {max(reached):.2%} | {len(reached)} "
        f"| {minutes:.1f} | {facts['device']} |"
    )


def page(folder: Path) -> str:
    """Give the page in Markdown."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        found[facts["name"]] = facts
    rows = [line(name, share, found.get(name)) for name, share in expected().items()]
    return "\n".join(["# Published results, reproduced", "", "Accuracy on the test rows.", "",
                      HEAD, *rows, ""])  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=RESULTS)
    print(page(parser.parse_args().folder))
