"""Write docs/results.md from the JSON files of the scripts: python examples/published/results.py.

Every published figure has a row, which shows if it was not run, or only with fewer epochs. A JSON
with an unknown result, or with another published figure than the script's, is refused.
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ciresan import NETS as CIRESAN
from fashion_paper import ROWS
from nielsen import NETS as NIELSEN

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PAGE = HERE.parent.parent / "docs" / "results.md"
INTRO = """\
# Published results, reproduced

Reproduce a published accuracy on MNIST or Fashion-MNIST. FOLDER holds the four files of the data
set; the scripts download nothing:

```sh
python examples/published/nielsen.py --data FOLDER --out examples/published/results
python examples/published/results.py   # writes this page
```

- `--only 784-30-10` runs the rows with that text in their name, `--device gpu` runs them on a GPU.
- An interrupted script resumes at its current seed, long scripts within the seed.

The tables give the accuracy on the 10,000 test rows:

| column | meaning |
|---|---|
| ours, spread | mean and standard deviation over the seeds; "not yet run" where there is none |
| "not yet run whole" | fewer epochs than published: not comparable with the published figure |
| device | the backend and, in brackets, the processor |
"""
HEAD = (
    "| result | published | ours | spread | best | seeds | minutes a seed | device |\n"
    "|---|---:|---:|---:|---:|---:|---:|---|"
)


@dataclass(frozen=True)
class Section:
    """The published figures of one script: its module, heading, and accuracies by name."""

    script: str
    title: str
    figures: dict[str, float]


def sections() -> list[Section]:
    """Return every published figure, by the script that reproduces it."""
    found = [Section("nielsen", "Nielsen's book", {net[0]: net[7] for net in NIELSEN})]
    paper = {
        f"{where} paper {activation} {'-'.join(map(str, hidden))}": figures[place]
        for place, where in enumerate(("Fashion-MNIST", "MNIST"))
        for (activation, hidden), figures in ROWS.items()
    }
    large = {f"Ciresan {'-'.join(map(str, net))}": share for net, share in CIRESAN.items()}
    return [
        *found,
        Section("fashion_paper", "The Fashion-MNIST paper", paper),
        Section("keras_512", "Keras's example", {"Keras 512-512 dropout": 0.984}),
        Section("dropout_paper", "Dropout", {"Dropout paper 3x1024 max-norm": 0.9894}),
        Section("maxout_paper", "Maxout", {"Maxout paper 2x240x5": 0.9906}),
        Section("ciresan", "Ciresan", large),
    ]


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Read the results of a folder, by name."""
    known = {name: share for section in sections() for name, share in section.figures.items()}
    found = {}
    for path in sorted(folder.glob("*.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        name, published = facts["name"], facts["published"]
        if known.get(name) != published:
            raise SystemExit(
                f"{path} must hold a published figure that a script here reproduces. Received: "
                f"{name}, published {published}; the script says {known.get(name)}."
            )
        found[name] = facts
    return found


def line(name: str, published: float, facts: dict[str, Any] | None) -> str:
    """Return one row of the table."""
    start = f"| {name} | {published:.2%} |"
    if facts is None or not facts["runs"]:
        return f"{start} not yet run | | | | | |"
    if facts["shortened"] == "quick trial":
        return f"{start} not yet run (quick trial only) | | | | | |"
    reached = [run["reached"] for run in facts["runs"]]
    ours = f"{statistics.mean(reached):.2%}"
    if facts["shortened"]:
        ours = f"not yet run whole; {ours} after {facts['shortened']}"
    spread = f"{statistics.stdev(reached):.2%}" if len(reached) > 1 else ""
    minutes = statistics.mean(run["seconds"] for run in facts["runs"]) / 60
    return (
        f"{start} {ours} | {spread} | {max(reached):.2%} | {len(reached)} "
        f"| {minutes:.1f} | {facts['device']} ({facts['processor']}) |"
    )


def page(folder: Path) -> str:
    """Return the page in Markdown: the docstring and the rows of each script."""
    found, parts = read(folder), [INTRO]
    for section in sections():
        about = importlib.import_module(section.script).__doc__ or ""
        rows = [line(name, share, found.get(name)) for name, share in section.figures.items()]
        where = f"The script: `examples/published/{section.script}.py`."
        parts += [f"## {section.title}\n", f"{about.strip()}\n", f"{where}\n", HEAD, *rows, ""]
    return "\n".join(parts)


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=RESULTS, help="of the JSONs")
    parser.add_argument("--page", type=Path, default=PAGE, help="the file to write")
    args = parser.parse_args()
    args.page.write_text(page(args.folder), encoding="utf-8")
    print(args.page)


if __name__ == "__main__":
    main()
