"""Read the answers of `benchmarks.gpu_check` for tables, and format Markdown.

An answer is good, wrong (its checks failed), an error, left out, or absent. Every answer that is
not good has a reason, which a table can show.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from benchmarks.gpu_process import Answer
from benchmarks.gpu_rows import parse_row
from nnbackend.bench.report import number

Parts = dict[str, dict[str, Answer]]
LONGEST = 220  # characters of a reason; the JSON has the full text
FOLDERS = re.compile(r"(?<![\w:/.])/(?:[\w.+-]+/)+")
ALIKE = 4  # equal widths that are written in full, at most


@dataclass(frozen=True)
class Time:
    """The microseconds of a step, or the reason why there are none.

    is_good: the time may be compared. A time with a reason is shown with it.
    """

    us: float | None = None
    least: float = 0.0
    most: float = 0.0
    why: str = ""
    is_good: bool = False


class Footnotes:
    """The reasons below a table; equal reasons share a number."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def mark(self, reason: str) -> str:
        """Return the mark of a reason; "" without one."""
        return f" ({self._numbers.setdefault(reason, len(self._numbers) + 1)})" if reason else ""

    def cell(self, time: Time, has_spread: bool = True) -> str:
        """Return a table's cell."""
        if time.us is None:
            return "-" + self.mark(time.why)
        spread = f" [{number(time.least)}–{number(time.most)}]" if has_spread else ""
        return f"{number(time.us)}{spread}{self.mark(time.why)}"

    def below(self, head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
        """Return a table with its footnotes, after all cells have been formatted."""
        text = table(head, list(lines))
        notes = [f"({n}) {reason}  " for reason, n in self._numbers.items()]
        return "\n\n".join([text, "\n".join(notes)]) if notes else text


# ---- answers ------------------------------------------------------------------------------------


def problem(answer: Answer) -> str:
    """Return why an answer is not good; "" if it is."""
    if "error" in answer:
        return f"error: {plain(answer['error'])}"
    if "left_out" in answer:
        return f"left out: {plain(answer['left_out'])}"
    if answer.get("ok") is False:
        rest = {key: value for key, value in answer.items() if key != "ok"}
        return f"wrong: {plain(answer.get('wrong') or answer.get('bad') or rest)}"
    return ""


def absent(parts: Parts, part: str, whole: str, wanted: str) -> str:
    """Return why there is no answer.

    whole: the name of the entry of a child process that ended before its answers.
    """
    if part not in parts:
        return f"{wanted}: the part {part} has not run"
    return f"{wanted}: {problem(parts[part].get(whole, {})) or f'no answer in the part {part}'}"


def our_time(parts: Parts, row: str, contender: str) -> Time:
    """Return our time of a step from the part `speed`."""
    answer = parts.get("speed", {}).get(f"{row} {contender}")
    if answer is None:
        return Time(why=absent(parts, "speed", "speed", contender))
    why = problem(answer)
    why = f"{contender}: {why}" if why else ""
    if "us" not in answer:
        return Time(why=why or f"{contender}: the answer has no time")
    return Time(answer["us"], answer["least"], answer["most"], why, not why)


def peer_time(parts: Parts, row: str, contender: str, precision: str) -> Time:
    """Return a peer's time of a step. Measurements before an error count."""
    part = "compiled" if contender.startswith("torch-compile") else "peers"
    answer = parts.get(part, {}).get(f"{row} {contender}")
    if answer is None:
        return Time(why=absent(parts, part, contender, contender))
    why = problem(answer)
    why = f"{contender}: {why}" if why else ""
    found = answer.get("measured", answer)
    us = found.get("us_per_step", {}).get(precision)
    if us is None:
        return Time(why=why or f"{contender}: the answer has no time in {precision}")
    spread = found.get("spread", {}).get(precision, {})
    is_good = answer.get("ok") is not False
    return Time(us, spread.get("min", us), spread.get("max", us), why, is_good)


# ---- Markdown -----------------------------------------------------------------------------------


def plain(value: object) -> str:
    """Return a text as code on one line, without the folders of paths, truncated if long.

    >>> plain("no file:\\n /usr/lib/a.py")
    '`no file: a.py`'
    """
    text = FOLDERS.sub("", " ".join(str(value).split())).replace("`", "'")
    return f"`{text if len(text) <= LONGEST else text[:LONGEST] + ' …'}`"


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table; all columns but the first are aligned to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    rows = [[cell.replace("|", "\\|") for cell in line] for line in (head, rule, *lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def network(row: str) -> str:
    """Return a row's widths, many equal ones shortened.

    >>> network("784-100-10:128"), network("8-8-8-8-8-8-2:1")
    ('784-100-10', '8 (6 times)-2')
    """
    runs = [(width, len(list(run))) for width, run in groupby(parse_row(row)[0])]
    return "-".join(
        f"{width} ({n} times)" if n > ALIKE else "-".join([str(width)] * n) for width, n in runs
    )


def title(row: str) -> list[str]:
    """Return the first two cells of a row's line: network and batch."""
    return [network(row), str(parse_row(row)[1])]
