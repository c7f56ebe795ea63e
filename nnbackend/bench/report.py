"""The report of measurements, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nnbackend.bench.runner import Answer

NOTHING = "—"  # the cell of a contender without figures
QUIET = 0.5  # above this load average before the run the figures are unreliable


def facts(result: Answer) -> str:
    """Return the machine and the settings as a list."""
    machine, settings = result["machine"], result["settings"]
    load = ", ".join(map(str, machine["load_average"]))
    core = settings["openblas_coretype"]
    lines = [
        f"{machine['cpu']}; {machine['usable_cpus']} CPUs usable, {settings['threads']} thread(s) "
        f"for every contender; {', '.join(machine['flags'])}",
        f"{machine['system']}; load average before the run {load}"
        + (" (**the machine was not quiet**)" if was_busy(result) else ""),
        ", ".join(f"{k} {v}" for k, v in machine["versions"].items()),
        f"NumPy's BLAS: {machine['blas']}; "
        + (f"OPENBLAS_CORETYPE={core} set for all" if core else "its own choice of kernels"),
        *(
            f"sgemm ceiling: {c['gflops']:.0f} GFLOP/s with the kernels {c['core'] or 'unknown'}"
            + (" (asked for)" if c["coretype"] else " (NumPy's choice)")
            for c in result["ceilings"]
        ),
        f"{result['date']}, {settings['rounds']} rounds, {result['minutes']} minutes",
        *(f"left out: {name} ({why})" for name, why in settings["left_out"].items()),
    ]
    return "\n".join(f"- {line}" for line in lines)


def was_busy(result: Answer) -> bool:
    """Return True if other programs were running at the start."""
    return bool(result["machine"]["load_average"]) and result["machine"]["load_average"][0] > QUIET


def times_table(result: Answer) -> str:
    """Return the main table, the fastest of each row in bold."""
    names = titles(result)
    lines = []
    for row in result["rows"]:
        good, failed = measured(row), {c["name"] for c in row["contenders"] if c["error"]}
        best = min(good, key=lambda n: float(good[n]["us_per_step"]["median"]), default="")
        cells = []
        for name in names:
            text = with_spread(good[name]["us_per_step"]) if name in good else NOTHING
            cells.append("failed" if name in failed else f"**{text}**" if name == best else text)
        ours = best_of_ours(row)
        ratio = with_spread(ours["of_fastest_peer"]) if ours and ours["of_fastest_peer"] else ""
        lines.append((row["title"], *cells, ratio))
    header = ("layers, batch", *names.values(), "ours / fastest peer")
    reasons = _reasons(result)
    return "\n\n".join([table(header, lines), *(["\n".join(reasons)] if reasons else [])])


def _reasons(result: Answer) -> list[str]:
    """Return why contenders have no times."""
    lacking: dict[str, list[str]] = {}
    failures = []
    for row in result["rows"]:
        for c in row["contenders"]:
            if c["lacks"]:
                lacking.setdefault(f"{c['title']} has no {c['lacks']}", []).append(row["title"])
            elif c["error"]:
                failures.append(f"- {c['title']} on {row['title']} failed: {c['error']}")
    return [*(f"- {NOTHING} {why}: {'; '.join(rows)}" for why, rows in lacking.items()), *failures]


def measured(row: Answer) -> dict[str, Answer]:
    """Return the contenders that have figures on a row, by name."""
    return {c["name"]: c for c in row["contenders"] if not c["error"] and not c["lacks"]}


def best_of_ours(row: Answer) -> Answer | None:
    """Return the faster of our contenders on a row."""
    ours = [c for c in measured(row).values() if c["is_ours"]]
    return min(ours, key=lambda c: float(c["us_per_step"]["median"]), default=None)


def titles(result: Answer) -> dict[str, str]:
    """Return the contenders of any row, in their order."""
    return {c["name"]: c["title"] for row in result["rows"] for c in row["contenders"]}


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, its numbers on the right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *lines))


def number(value: float) -> str:
    """Return a number with three digits, or its whole integer part.

    >>> number(0.12345), number(12.345), number(12345.6)
    ('0.123', '12.3', '12 346')
    """
    if abs(value) >= 99.95:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:#.3g}"


def with_spread(spread: dict[str, float]) -> str:
    """Return a median with its minimum and maximum."""
    return f"{number(spread['median'])} ({number(spread['min'])}–{number(spread['max'])})"
