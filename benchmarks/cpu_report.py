"""The report of the CPU comparison: a JSON file, its tables in Markdown, a picture."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nnbackend.bench.report import (
    NOTHING,
    best_of_ours,
    facts,
    measured,
    number,
    table,
    times_table,
    titles,
    was_busy,
    with_spread,
)
from nnbackend.bench.runner import Answer

INK, FAINT = "#333333", "#dddddd"
# Ours in strong colours, peers in pale ones; each with its own marker.
STYLES = {
    "nnbackend-numba": ("#d1402f", "o"),
    "nnbackend-numpy": ("#f0a08c", "o"),
    "nnbackend-torch": ("#c98a2b", "o"),
    "jax": ("#2f6db3", "s"),
    "torch": ("#5aa897", "D"),
    "torch-compile": ("#1f6f60", "D"),
    "sklearn": ("#9a8fb8", "^"),
}


def default_name(result: Answer) -> str:
    """Return the name of a result's files, from its machine and date: `cpu-<model>-<date>`."""
    words = "".join(c if c.isalnum() else " " for c in result["machine"]["cpu"]).lower().split()
    noise = {"r", "tm", "cpu", "processor", "with", "family"}
    name = "-".join(word for word in words if word not in noise)
    return f"cpu-{name}-{result['date'][:10]}".replace(os.sep, "-")


def write(result: Answer, folder: Path, name: str = "") -> list[Path]:
    """Write a result as `<name>.json`, `.md` and a picture of each run; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = result["runs"]
    base = name or default_name(runs[0])
    suffixes = [""] if len(runs) == 1 else [f"-threads{run['settings']['threads']}" for run in runs]
    paths = [folder / f"{base}{ending}" for ending in (".json", ".md")]
    paths[0].write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    paths[1].write_text(markdown(result), encoding="utf-8")
    for run, suffix in zip(runs, suffixes, strict=True):
        paths.append(folder / f"{base}{suffix}.png")
        paths[-1].write_bytes(picture(run))
    return paths


# ---- Markdown -----------------------------------------------------------------------------------


def markdown(result: Answer) -> str:
    """Return the whole report: the tables of each run, by its number of threads."""
    parts = ["# Training on the CPU, side by side"]
    for run in result["runs"]:
        parts += [f"## Threads: {run['settings']['threads']}", *_run_parts(run)]
    if result["imports"]:
        lines = [(i["what"], with_spread(i["seconds"])) for i in result["imports"]]
        parts += ["## Import, in seconds", table(("", "seconds"), lines)]
    return "\n\n".join([*parts, f"{result['minutes']} minutes in all."]) + "\n"


def _run_parts(run: Answer) -> list[str]:
    parts = [
        facts(run) + _peak_line(run),
        "### Time of a training step, in µs",
        "Within whole epochs: new order, gathering of the batch, step. Median over the rounds "
        "(least–most). Last column: our faster backend divided by the fastest peer of the same "
        "round; below 1, ours is faster.",
        times_table(run),
        "### Rate of our faster backend, and its share of two ceilings",
        "Operations of the matrix products only, in all of the step's time.",
        rates_table(run),
        "### Beside the fastest peer, and share of the sgemm rate",
        _rows_table(run, _relative),
        "### Loss after the same number of steps",
        "From the same initial weights, each library with an order of its own"
        " and, with dropout, masks of its own; computed without dropout.",
        losses_table(run),
        "### A step on a resident batch, in µs",
        "No shuffling and no gathering. scikit-learn: a call of `partial_fit`, checks included.",
        _rows_table(run, lambda c: with_spread(c["us_per_resident_step"])),
        "### Getting ready, and memory",
        "Import; first step when nothing is compiled yet (first row, first round) and later "
        "(median of the last round); most memory of any row.",
        startup_table(run),
    ]
    if run.get("predictions"):
        parts += ["### Prediction, 784-100-10, from and to host arrays", predictions_table(run)]
    return parts


def _peak_line(run: Answer) -> str:
    if not run.get("peak"):
        return ""
    return f"\n- peak of the cores, multiply-adds in registers: {run['peak']['gflops']:.0f} GFLOP/s"


def rates_table(run: Answer) -> str:
    """Return the rate of our faster backend, as a share of sgemm's and of the cores' peak."""
    lines = []
    for row in run["rows"]:
        ours = best_of_ours(row)
        if ours:
            of_sgemm = f"{ours['of_ceiling']:.0%}" if ours["of_ceiling"] else NOTHING
            peak = run.get("peak")
            of_peak = f"{ours['gflops'] / peak['gflops']:.0%}" if peak else NOTHING
            cells = (f"{row['flops_per_step'] / 1e6:.3g}", f"{ours['gflops']:.3g}")
            lines.append((row["title"], ours["title"], *cells, of_sgemm, of_peak))
    header = ("layers, batch", "backend", "MFLOP a step", "GFLOP/s", "of sgemm", "of the peak")
    return table(header, lines)


def _relative(c: Answer) -> str:
    """Return a time relative to the fastest peer's, and the share of sgemm's rate."""
    ratio = f"{c['of_fastest_peer']['median']:.2f}" if c["of_fastest_peer"] else ""
    share = f"{c['of_ceiling']:.0%}" if c["of_ceiling"] else ""
    return ", ".join(filter(None, [ratio, share]))


def losses_table(result: Answer) -> str:
    """Return the table of losses."""
    names = titles(result)
    lines = []
    for row in result["rows"]:
        good = measured(row)
        if good:
            any_one = next(iter(good.values()))
            cells = (f"{good[n]['loss']:.4f}" if n in good else NOTHING for n in names)
            steps, before = any_one["steps_before_loss"], f"{any_one['loss_before']:.4f}"
            lines.append((row["title"], str(steps), before, *cells))
    return table(("layers, batch", "steps", "before", *names.values()), lines)


def startup_table(result: Answer) -> str:
    """Return the table of preparation times and memory."""
    lines = []
    for name, title in titles(result).items():
        good = [c for row in result["rows"] for n, c in measured(row).items() if n == name]
        if good:
            imports = _middle([c["import_s"] for c in good])
            first = good[0]["first_step_s"][0]
            later = _middle([c["first_step_s"][-1] for c in good])
            memory = max(c["peak_memory"] for c in good) / 2**20
            lines.append((title, f"{imports:.2f}", f"{first:.2f}", f"{later:.2f}", f"{memory:.0f}"))
    header = ("", "import, s", "first step, s", "first step later, s", "most memory, MiB")
    return table(header, lines)


def predictions_table(result: Answer) -> str:
    """Return the table of prediction times."""
    lines = [
        (p["title"], with_spread(p["one_us"]), with_spread(p["many_ms"]))
        for p in result["predictions"]
    ]
    return table(("", "1 row, µs", f"{result['predictions'][0]['many']:,} rows, ms"), lines)


def _rows_table(result: Answer, cell: Any) -> str:
    names, lines = titles(result), []
    for row in result["rows"]:
        good = measured(row)
        lines.append((row["title"], *(cell(good[n]) if n in good else NOTHING for n in names)))
    return table(("layers, batch", *names.values()), lines)


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


# ---- the picture --------------------------------------------------------------------------------


def picture(result: Answer) -> bytes:
    """Draw each row's times relative to its fastest peer, on a logarithmic scale; return a PNG."""
    import io

    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    rows, names = result["rows"][::-1], titles(result)
    figure = Figure(figsize=(9.2, 1.7 + 0.55 * len(rows)), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log", base=2)
    axes.axvline(1.0, color=INK, linewidth=1.1, linestyle=(0, (3, 3)), zorder=1)
    handles = {name: _draw_contender(axes, name, rows) for name in _ours_last(names)}
    axes.xaxis.set_major_locator(LogLocator(base=2))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}×"))
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_axisbelow(True)
    axes.grid(True, axis="both", color=FAINT, linewidth=0.7)
    axes.tick_params(length=0, which="both", labelcolor=INK)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel("time of a training step relative to the fastest peer; further left is faster")
    axes.set_title(_caption(result), fontsize=9, color=INK, loc="left")
    figure.legend(
        [handles[n] for n in names], list(names.values()), loc="outside upper center",
        ncols=min(6, len(names)), frameon=False, fontsize=9, handletextpad=0.2, columnspacing=1.4,
    )  # fmt: skip
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _ours_last(names: Iterable[str]) -> list[str]:
    """Return names in drawing order: ours are drawn last."""
    return sorted(names, key=lambda name: (name.startswith("nnbackend"), name))


def _draw_contender(axes: Any, name: str, rows: Sequence[Answer]) -> Any:
    """Draw one contender's medians and spreads; return the mark for the legend."""
    color, mark = STYLES.get(name, ("#777777", "v"))
    xs, ys = [], []
    for place, row in enumerate(rows):
        good = measured(row)
        if name not in good:
            continue
        unit = reference(row)
        spread = good[name]["of_fastest_peer"] or {
            k: good[name]["us_per_step"][k] / unit for k in ("median", "min", "max")
        }
        axes.plot(
            [spread["min"], spread["max"]], [place] * 2, color=color, linewidth=2.2, alpha=0.6
        )
        xs.append(spread["median"])
        ys.append(place)
    (handle,) = axes.plot(
        xs, ys, mark, color=color, markersize=8.5, markeredgecolor="white", markeredgewidth=0.9,
        zorder=3,
    )  # fmt: skip
    return handle


def reference(row: Answer) -> float:
    """Return the time of a row's fastest peer, in us; without peers, of the fastest of all."""
    good = list(measured(row).values())
    peers = [c for c in good if not c["is_ours"]] or good
    return min((float(c["us_per_step"]["median"]) for c in peers), default=1.0)


def _label(row: Answer) -> str:
    sizes = row["layers"]
    title = row["title"]
    if len(sizes) > 5:
        title = title.replace("-".join(map(str, sizes)), f"{sizes[0]}-{sizes[1]}-…-{sizes[-1]}")
    return f"{title}\n1× = {duration(reference(row))}"


def _caption(result: Answer) -> str:
    machine, threads = result["machine"], result["settings"]["threads"]
    busy = "; the machine was not quiet" if was_busy(result) else ""
    return f"{machine['cpu']}, threads: {threads}, {result['date'][:10]}{busy}"


def duration(us: float) -> str:
    """Return a time with its unit.

    >>> duration(99.0), duration(2040.0), duration(1.5e6)
    ('99.0 µs', '2.04 ms', '1.50 s')
    """
    scale, unit = next((s, u) for s, u in ((1e6, "s"), (1e3, "ms"), (0.0, "µs")) if us >= s)
    return f"{number(us / (scale or 1.0))} {unit}"
