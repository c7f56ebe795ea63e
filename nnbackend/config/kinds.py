"""Kinds of values that only the options of the command line have."""

from __future__ import annotations

from dataclasses import replace

from nnbackend.named import name_of
from nnbackend.options import ABOVE_0, AT_LEAST_1, TEXT, Kind, list_of, number


def part(*words: str) -> Kind:
    """Return the kind of a fraction of the rows, or a file; a number is never a file's name."""

    def parse(text: str) -> float | str:
        try:
            fraction = float(text)
        except ValueError:
            if not text:
                raise
            return text
        if not 0.0 <= fraction < 1.0:
            raise ValueError
        return fraction

    own = "".join(f"{word}, " for word in words)
    expected = f"{own}a fraction of at least 0 and below 1, or a file"
    return Kind(expected, lambda v: isinstance(v, (float, int, str)), parse)


def _interval(text: str) -> str:
    number, _, unit = text.strip().partition(" ")
    kinds = {"epoch": AT_LEAST_1, "step": AT_LEAST_1, "minute": ABOVE_0}
    if unit.removesuffix("s") not in kinds:
        raise ValueError
    kinds[unit.removesuffix("s")].parse(number)
    return text.strip()


def interval(text: str) -> dict[str, float]:
    """Return {"minutes": 10.0} for "10 minutes", and whole numbers of epochs or steps.

    >>> interval("10 minutes"), interval("1 epoch")
    ({'minutes': 10.0}, {'epochs': 1})
    """
    number, _, unit = text.partition(" ")
    unit = unit if unit.endswith("s") else unit + "s"
    return {unit: float(number) if unit == "minutes" else int(number)}


def _threshold(text: str) -> str:
    try:
        number = float(text)
    except ValueError:
        return str(NAMED_THRESHOLD.parse(text))
    if not 0.0 < number < 1.0:
        raise ValueError
    return text


NAMED_THRESHOLD = name_of("threshold")
THRESHOLD = replace(
    NAMED_THRESHOLD, parse=_threshold, accepts=TEXT.accepts,
    expected="a number between 0 and 1, or a known name",
)  # fmt: skip
COLUMNS = list_of(TEXT, "names or indices of columns, or none", or_empty=True)
KINDS = list_of(TEXT, "NAME=KIND, or none", or_empty=True)
WIDTHS = list_of(AT_LEAST_1, "whole numbers of at least 1, as in 100,50, or none", or_empty=True)
WEIGHTS = list_of(TEXT, "balanced, or CLASS=WEIGHT,..., or none", or_empty=True)
FOLDS = number("a whole number of at least 2", low=2, closed="low", is_whole=True)
INTERVAL = Kind("N minutes, N epochs or N steps, with N above 0", TEXT.accepts, _interval)
