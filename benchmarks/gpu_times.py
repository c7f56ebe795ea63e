"""The tables of training steps: ours, the floor, the peers, with and without each optimization."""

from __future__ import annotations

from itertools import pairwise

from benchmarks.gpu_answers import (
    Footnotes,
    Parts,
    Time,
    absent,
    our_time,
    peer_time,
    problem,
    title,
)
from benchmarks.gpu_check import PEERS
from benchmarks.gpu_process import Answer
from benchmarks.gpu_rows import TABLE, TINY, parse_row
from benchmarks.gpu_speed import CONTENDERS
from nnbackend.bench.report import number

ALWAYS = PEERS[:2]  # peers that always have a column
OURS = {"float32": "ours", "tf32": "ours-tf32"}
BYTES = 4  # of a float32
PASSES = 6  # over P numbers: parameters and velocity, read and written; gradient, written and read


def rows_of(parts: Parts, is_emulated: bool) -> list[str]:
    """Return the table's rows, and other rows that have answers."""
    names = [n for part in ("speed", "peers", "compiled") for n in parts.get(part, {}) if ":" in n]
    return list(dict.fromkeys([*(TINY if is_emulated else TABLE), *(n.split()[0] for n in names)]))


# ---- the floor ----------------------------------------------------------------------------------


def floor_us(row: str, tflops: float, gbps: float) -> float:
    """Return the minimum microseconds of a step at the measured rates.

    arithmetic: 2 B (3 sum(I O) - I O of the first layer) / rate, which has no dx
    memory: (6 P + B (inputs + outputs)) * 4 bytes / rate of copies
    floor = the larger of the two
    """
    widths, batch = parse_row(row)
    weights = [n_in * n_out for n_in, n_out in pairwise(widths)]
    multiplications = batch * (3 * sum(weights) - weights[0])
    n_parameters = sum(weights) + sum(widths[1:])
    moved = BYTES * (PASSES * n_parameters + batch * (widths[0] + widths[-1]))
    return max(2 * multiplications / tflops / 1e6, moved / gbps / 1e3)


def floor_cell(parts: Parts, row: str, precision: str, notes: Footnotes) -> str:
    """Return the floor, or the reason why there is none."""
    found = []
    for name, key in ((f"rate {precision}", "tflops"), ("copies", "device_gbps")):
        answer = parts.get("first", {}).get(name, {})
        if not answer.get(key):
            why = problem(answer)
            return "-" + notes.mark(
                f"floor: {name}: {why}" if why else absent(parts, "first", "first", name)
            )
        found.append(float(answer[key]))
    return number(floor_us(row, *found))


# ---- comparison with the peers ------------------------------------------------------------------


def speed_table(parts: Parts, rows: list[str], precision: str) -> str:
    """Return a table with a line for each row, and the fastest contender in bold."""
    notes, peers = Footnotes(), peers_of(parts)
    lines = []
    for row in rows:
        ours = our_time(parts, row, OURS[precision])
        theirs = [peer_time(parts, row, peer, precision) for peer in peers]
        cells = [notes.cell(time) for time in (ours, *theirs)]
        good = [time.us for time in (ours, *theirs) if time.is_good and time.us is not None]
        cells = [
            f"**{cell}**" if time.is_good and time.us == min(good) else cell
            for cell, time in zip(cells, (ours, *theirs), strict=True)
        ]
        launches = launches_of(parts.get("speed", {}).get(f"{row} {OURS[precision]}", {}))
        floor = floor_cell(parts, row, precision, notes)
        lines.append([*title(row), floor, launches, *cells, ratio(ours, fastest(theirs))])
    head = ("network", "batch", "floor", "launches a step", OURS[precision], *peers)
    return notes.below((*head, "ours / fastest peer measured"), lines)


def peers_of(parts: Parts) -> list[str]:
    """Return the peers that have a column: some always, the others if they have any answer."""
    found = [n.split()[-1] for part in ("peers", "compiled") for n in parts.get(part, {})]
    return list(dict.fromkeys([*ALWAYS, *(peer for peer in PEERS if peer in found), *found]))


def fastest(times: list[Time]) -> Time:
    """Return the fastest good time, or an empty one."""
    good = [time for time in times if time.is_good]
    return min(good, key=lambda time: time.us or 0.0, default=Time())


def ratio(ours: Time, other: Time) -> str:
    """Return the quotient of two medians; "-" unless both are good."""
    if not (ours.is_good and other.is_good and ours.us and other.us):
        return "-"
    return f"{ours.us / other.us:.2f}"


def launches_of(answer: Answer) -> str:
    """Return the nodes of one captured step; the kernel for narrow networks runs all in one."""
    counts = [graph.get("1") for graph in answer.get("recorded", []) if "1" in graph]
    words = ["?" if count is None else str(count) for count in counts]
    words = (["1 for all steps"] if answer.get("narrow") else []) + words
    return ", ".join(dict.fromkeys(words)) or "-"


# ---- with and without ---------------------------------------------------------------------------


def base_of(variant: str) -> str:
    """Return the base of a variant: ours in the same precision if only a switch differs."""
    return "ours-tf32" if variant.startswith("ours-tf32-") else "ours"


def variants_tables(parts: Parts, rows: list[str]) -> list[str]:
    """Return a table of precisions and switches, and one of the narrow kernel's grids."""
    asked = {name.split()[1] for name in parts.get("speed", {}) if " " in name} - {"ours"}
    order = [*CONTENDERS, *sorted(asked.difference(CONTENDERS))]
    variants = [name for name in order if name in asked]
    grids = [name for name in variants if name in CONTENDERS and "grid" in CONTENDERS[name][1]]
    others = [name for name in variants if name not in grids]
    return [variants_table(parts, rows, names) for names in (others, grids) if names]


def variants_table(parts: Parts, rows: list[str], variants: list[str]) -> str:
    """Return the time of each variant, and its quotient by that of its base."""
    notes, lines, speed = Footnotes(), [], parts.get("speed", {})
    for row in rows:
        if not any(f"{row} {name}" in speed for name in ("ours", *variants)):
            continue
        cells = [notes.cell(our_time(parts, row, "ours"), has_spread=False)]
        for name in variants:
            if f"{row} {name}" not in speed:
                cells.append("")
                continue
            time, base = our_time(parts, row, name), our_time(parts, row, base_of(name))
            cell = notes.cell(time, has_spread=False)
            quotient = ratio(time, base)
            cells.append(cell if quotient == "-" else f"{cell}, {quotient}×")
        lines.append([*title(row), *cells])
    heads = [name if base_of(name) == "ours" else f"{name} / {base_of(name)}" for name in variants]
    return notes.below(("network", "batch", "ours", *heads), lines)
