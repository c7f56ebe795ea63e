"""`nnbackend.tune`: search for the settings of a network, and fit the best."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nnbackend.config import SETTINGS, Settings
from nnbackend.data import Dataset
from nnbackend.devices import get_backend
from nnbackend.errors import ArgumentError, Fault
from nnbackend.model.model import Model
from nnbackend.options import ABOVE_0, AT_LEAST_1, INSIDE_0_AND_1, raise_all, unknown_keywords
from nnbackend.search.data import as_dataset, code_validation
from nnbackend.search.objective import Problem, check_folds, check_metric, refit
from nnbackend.search.progress import TrialTable
from nnbackend.search.rows import about, best_of, hash_of, values_of
from nnbackend.search.space import SEARCHABLE, Space, default_space, setting_value, space_of
from nnbackend.training.history import History

if TYPE_CHECKING:
    import optuna

Row = dict[str, Any]
FIXABLE = (*(n for n in SEARCHABLE if n in SETTINGS), "dtype", "precision")


@dataclass(frozen=True)
class TuneResult:
    """The result of a search.

    best_params: the values that the best trial chose.  best_value: its metric on validation rows.
    settings: all settings of the best trial.  model: the network trained with them, and history.
    trials: a row for each trial, as `pandas.DataFrame` takes them.  study: Optuna's.
    importances: the share of each setting in the differences of the value; {} if unknown.
    """

    best_params: Mapping[str, Any]
    best_value: float
    metric: str
    model: Model
    history: History
    settings: Settings = field(repr=False)
    trials: list[Row] = field(repr=False)
    importances: Mapping[str, float] = field(repr=False)
    study: optuna.Study = field(repr=False)


def tune(
    x: Any,
    y: Any,
    *,
    trials: int = 50,
    minutes: float | None = None,
    space: Any = None,
    metric: str | None = None,
    validation: Any = None,
    folds: int | None = None,
    study: str | os.PathLike[str] | None = None,
    workers: int = 1,
    seed: int = 0,
    device: str | None = None,
    task: Literal["classification", "regression"] | None = None,
    progress: bool | Callable[[Row], None] = False,
    **settings: Any,
) -> TuneResult:
    """Search for the settings of a network by trials, and return the best with its model.

    x, y: as for `Model.fit`: arrays or a table, labels or values, or the name of a column.
    trials: how many the study shall have.  minutes: time limit of the search; a trial that runs
        then ends, and the best settings are fitted after it.
    space: setting -> ("log", low, high), ("range", low, high) or a list of values; or a function
        of an Optuna trial that returns settings. "layers" and "width" stand for `hidden`.
        By default: layers, width, activation, learning_rate, weight_decay, dropout, batch_size and
        scale, without those among the keywords.
    metric: "loss", or a metric of the model such as "roc_auc", of the validation rows; the weights
        are those of the best epoch by `monitor`.
    folds: trainings of each trial, judged on different rows by their mean value; by default 5 where
        a fifth of the rows is fewer than 500, else 1.
    validation: without folds, the fraction of the rows that judge a trial, by default 0.2, or rows
        (x, y). With folds, the fraction that selects the model's epoch, by default 0.1.
    study: a file of trials; if it exists, the search continues it.
    workers: processes that run trials at the same time.  seed: of the search and of every trial.
    progress: True prints each trial to stderr; or a function of its row.
    settings: those that are not searched, as on the command line: epochs, optimizer, hidden, ...
    The model is trained without the rows of `validation`: without folds exactly as in its trial.
    Ctrl-C ends the search and keeps its trials.
    Raises: ArgumentError for invalid arguments, all at once, without Optuna, and if no trial
    succeeds; DataError for rows that cannot be used.
    """
    require_optuna()
    from nnbackend.search import study as studies

    _check(trials, minutes, workers, folds, validation, settings)
    data = as_dataset(x, y, task)
    base, searched = _settings_and_space(data, space, settings, seed)
    folds, validation = check_folds(folds, data, code_validation(validation, data))
    problem = Problem(
        data, validation, base, searched, check_metric(metric, data, searched),
        get_backend(device).device, folds,
    )  # fmt: skip
    found = _search(problem, study, trials, minutes, workers, progress)
    rows = studies.rows_of(found)
    best, chosen = best_of(problem, rows)
    model, history = refit(problem, chosen)
    return TuneResult(
        values_of(best), best["value"], problem.metric, model, history, chosen, rows,
        studies.importances(found), found,
    )  # fmt: skip


def _search(
    problem: Problem, study: str | os.PathLike[str] | None, trials: int, minutes: float | None,
    workers: int, progress: bool | Callable[[Row], None],
) -> optuna.Study:  # fmt: skip
    """Run the trials; return the study."""
    from nnbackend.search import study as studies

    deadline = None if minutes is None else time.time() + 60 * minutes
    table = TrialTable(sys.stderr, problem, trials, deadline, workers)
    shown = progress if callable(progress) else table.add if progress else lambda row: None
    with tempfile.TemporaryDirectory() as folder:
        path = None if study is None else os.fspath(study)
        if path is None and workers > 1:
            path = str(Path(folder) / "study")
        found = studies.open_study(problem, path, about(problem, hash_of(problem.data)))
        studies.search(
            found, problem, path, trials=trials, deadline=deadline, workers=workers, show=shown
        )
        # A file of the workers alone is removed.
        return studies.in_memory(found) if study is None and path is not None else found


def _settings_and_space(
    data: Dataset, space: Any, settings: Mapping[str, Any], seed: int
) -> tuple[Settings, Space]:
    given = {name: setting_value(name, value) for name, value in settings.items()}
    base = Settings(**given, seed=seed)
    return base, default_space(base, data, given) if space is None else space_of(space, given)


def _check(
    trials: Any,
    minutes: Any,
    workers: Any,
    folds: Any,
    validation: Any,
    settings: Mapping[str, Any],
) -> None:  # fmt: skip
    """Raise ArgumentError for all invalid arguments at once."""
    faults: list[Any] = unknown_keywords("tune", settings, FIXABLE)
    for name, value in (("trials", trials), ("workers", workers), ("folds", folds or 1)):
        if not AT_LEAST_1.is_good(value):
            faults.append(Fault(name, AT_LEAST_1.expected, value))
    if minutes is not None and not ABOVE_0.is_good(minutes):
        faults.append(Fault("minutes", f"{ABOVE_0.expected}, or None", minutes))
    is_rows = validation is None or isinstance(validation, (tuple, list))
    if not is_rows and not INSIDE_0_AND_1.is_good(validation):
        expected = "a fraction between 0 and 1, rows (x, y), or None"
        faults.append(Fault("validation", expected, validation))
    for name, value in settings.items():
        if name in FIXABLE:
            try:
                setting_value(name, value)
            except ArgumentError as error:
                faults.append(error)
    raise_all(faults)


def require_optuna() -> None:
    """Raise ArgumentError if Optuna is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ArgumentError(
            f"a search needs the package optuna. Received: {error}. "
            'Install it with: pip install "nnbackend[tune]"'
        ) from error
