"""The report of measurements, in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nnbackend.bench.runner import Answer

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
        measured = {c["name"]: c for c in row["contenders"]}
        good = {n: c["us_per_step"]["median"] for n, c in measured.items() if not c["error"]}
        best = min(good, key=lambda n: good[n], default="")
        cells = []
        for name in names:
            if name not in good:
                cells.append("failed" if name in measured else "")
                continue
            text = with_spread(measured[name]["us_per_step"])
            cells.append(f"**{text}**" if name == best else text)
        lines.append((row["title"], *cells, _best_of_ours(row)))
    header = ("layers, batch", *names.values(), "ours / fastest peer")
    failures = [
        f"- {c['title']} on {row['title']} failed: {c['error']}"
        for row in result["rows"]
        for c in row["contenders"]
        if c["error"]
    ]
    return "\n\n".join([table(header, lines), *(["\n".join(failures)] if failures else [])])


def _best_of_ours(row: Answer) -> str:
    ratios = [
        c["of_fastest_peer"]
        for c in row["contenders"]
        if c["is_ours"] and not c["error"] and c["of_fastest_peer"]
    ]
    return with_spread(min(ratios, key=lambda r: float(r["median"]))) if ratios else ""


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
