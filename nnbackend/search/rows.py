"""Trials as rows of a table, the best of them, and what a search is about, as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnbackend.config import DEFAULTS, SETTINGS, Settings
from nnbackend.data import Dataset
from nnbackend.errors import ArgumentError
from nnbackend.search.objective import COMPLETE, INTERRUPTED, LATE, VALUES, Problem, shortened
from nnbackend.search.space import SEARCHABLE, describe

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

STATE, VALUE, ERROR = "state", "value", "error"  # attributes of a trial
FACTS = ("trial", STATE, VALUE, "n_epochs", "best_epoch", "seconds")  # columns beside the settings
COMPARED = (*(name for name in SEARCHABLE if name in SETTINGS), "dtype", "seed")

Row = dict[str, Any]


def row_of(trial: FrozenTrial) -> Row:
    """Return a trial as a row of a table: its facts, the values it tried, and its error."""
    facts = trial.user_attrs
    row = {"trial": trial.number, STATE: facts.get(STATE, INTERRUPTED)}
    row |= {name: facts.get(name) for name in FACTS[2:]}
    return {**row, **facts.get(VALUES, trial.params), ERROR: facts.get(ERROR)}


def values_of(row: Row) -> dict[str, Any]:
    """Return the values that a trial tried."""
    return {name: value for name, value in row.items() if name not in (*FACTS, ERROR)}


def is_better(value: float, best: float | None, is_maximised: bool) -> bool:
    """Return True if a value of the metric is better than the best so far."""
    return best is None or (value > best if is_maximised else value < best)


def best_row(rows: Sequence[Row], is_maximised: bool) -> Row | None:
    """Return the best complete trial; without one, the best that ran out of time; or None."""
    best: Row | None = None
    for state in (COMPLETE, LATE):
        for row in rows:
            known = None if best is None else best[VALUE]
            if row[STATE] == state and row[VALUE] is not None and math.isfinite(row[VALUE]):
                best = row if is_better(row[VALUE], known, is_maximised) else best
        if best is not None:
            return best
    return None


def best_of(problem: Problem, rows: Sequence[Row]) -> tuple[Row, Settings]:
    """Return the best trial and its completed settings.

    Raises: ArgumentError if there is none.
    """
    best = best_row(rows, problem.is_maximised)
    if best is None:
        why = next((row[ERROR] for row in reversed(rows) if row[ERROR]), None)
        raise ArgumentError(
            f"a search needs a trial that succeeds. Received: {len(rows)} trials, none of which "
            f"{f'did; the last error: {why}' if why else 'ended. Allow more time.'}"
        )
    settings = problem.settings_of(values_of(best))
    return best, settings if best[STATE] == COMPLETE else shortened(settings, best["n_epochs"])


def about(problem: Problem, fingerprint: str) -> dict[str, str]:
    """Return what a search is about, by name: a study continues only the same search."""
    fixed = {name: getattr(problem.settings, name) for name in COMPARED}
    named = [f"{name}={value}" for name, value in fixed.items() if value != DEFAULTS[name]]
    return {
        "data": fingerprint,
        "validation": judged_by(problem),
        "settings": ", ".join(named) or "defaults",
        "space": "; ".join(describe(problem.space)),
        "metric": problem.metric,
    }


def judged_by(problem: Problem) -> str:
    """Return the rows that judge trials, in words."""
    if problem.folds > 1:
        return f"{problem.folds} folds"
    share = problem.validation
    return f"{share:g} of the rows" if isinstance(share, float) else "given rows"


def hash_of(data: Dataset) -> str:
    """Return a hash of the rows and targets."""
    import joblib

    return str(joblib.hash((data.x, data.y)))


def settings_text(values: Mapping[str, Any]) -> str:
    """Return the values of a trial as one line.

    >>> settings_text({"width": 64, "learning_rate": 0.00123456})
    'width=64 learning_rate=0.00123'
    """
    shown = {
        name: f"{value:.3g}" if isinstance(value, float) else value
        for name, value in values.items()
    }
    return " ".join(f"{name}={value}" for name, value in shown.items())
