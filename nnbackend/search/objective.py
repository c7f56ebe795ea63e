"""One trial of a search: train with the trial's settings, report, prune, and judge.

A trial is judged by its best epoch on the validation rows. Where these are few, the best of many
trials is the luckiest on a few rows: then several folds judge it, all at the same epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nnbackend.config import DEFAULTS, Settings
from nnbackend.data import Dataset
from nnbackend.data.splits import fold_rows
from nnbackend.devices import get_backend
from nnbackend.errors import ArgumentError, Fault, Mention
from nnbackend.metrics import METRICS
from nnbackend.model.building import build_trainer, complete, with_threshold
from nnbackend.model.model import Model
from nnbackend.search.space import Space, apply, suggest_values
from nnbackend.suggestions import suggest
from nnbackend.training.callbacks import Callback
from nnbackend.training.history import LARGER_IS_BETTER, History, Row
from nnbackend.training.loop import Trainer
from nnbackend.training.preparation import Validation
from nnbackend.training.run import Run

if TYPE_CHECKING:
    from optuna import Trial

LOSS = "loss"
COMPLETE, PRUNED, LATE, INTERRUPTED = "complete", "pruned", "out of time", "interrupted"
VALUES = "values"  # attribute of a trial: the values that it tries
NEIGHBOURS = 2  # epochs before and after the best one that judge a trial of several folds
JUDGING = 0.2  # fraction of the rows that judges trials by default
FOLDS, FEW_ROWS = 5, 500  # by default folds, where fewer validation rows than that would judge
REPORTS = 20  # of a trial's progress, at most


@dataclass(frozen=True)
class Problem:
    """What a search is about; the same for all its trials.

    data: the training rows.  validation: the fraction of them, or the rows, that judge a trial.
    settings: the settings that are not searched.  metric: "loss", or a metric of the model.
    device: the name of the backend, which each worker opens.
    folds: the number of trainings of a trial, each judged on other rows; 1 uses `validation`.
    """

    data: Dataset
    validation: Validation
    settings: Settings
    space: Space
    metric: str
    device: str
    folds: int = 1

    @property
    def is_maximised(self) -> bool:
        """Whether a larger value of the metric is better."""
        if self.metric in METRICS:
            return METRICS[self.metric].more_is_better
        return self.metric in LARGER_IS_BETTER

    def settings_of(self, values: dict[str, Any]) -> Settings:
        """Return the completed settings of a trial's values."""
        settings = apply(values, self.settings)
        if self.metric == LOSS and "loss" in values:
            raise ArgumentError(
                "values of different losses cannot be compared. Received: a space with 'loss', and "
                "the metric 'loss'. Use ", Mention("metric", self.default_score), ".",
            )  # fmt: skip
        return complete(settings, self.data, get_backend(self.device))

    @property
    def default_score(self) -> str:
        """The score of the task: "accuracy" or "r2"."""
        return "r2" if self.data.classes is None else "accuracy"

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Return the values that a trial tries."""
        values = suggest_values(self.space, trial)
        trial.set_user_attr(VALUES, values)
        return values

    def trainer(self, settings: Settings) -> Trainer:
        """Return the trainer of completed settings."""
        return build_trainer(settings, self.data, self.validation, get_backend(self.device))

    def parts(self) -> Iterator[tuple[Dataset, Validation]]:
        """Yield the training and the validation rows of each training of a trial."""
        if self.folds == 1:
            yield self.data, self.validation
            return
        data, s = self.data, self.settings
        labels = data.y if data.classes is not None else None
        keys = data.keys(s.group, s.time)
        for rest, held_out in fold_rows(data.n_samples, self.folds, s.seed, labels, keys):
            held = data.rows(held_out)
            yield data.rows(rest), (held.x, held.y)

    @property
    def column(self) -> str:
        """The column of the history with the metric, if it has one."""
        return f"valid_{self.metric}"

    def value(self, trainer: Run, theta: Any = None) -> float:
        """Return the metric of the validation rows. theta: other weights than the network's."""
        return trainer.data.measured(trainer.net, theta, [self.metric])[self.metric]

    def judge(self, histories: Sequence[History]) -> tuple[float, int]:
        """Return the mean metric of the folds at the epoch that is best on average, and the epoch.

        With several folds an epoch counts with its neighbours. The lowest of the values of a loss
        that jumps, or of each fold for itself, would be too good.
        """
        n = min(map(len, histories))
        width = NEIGHBOURS if len(histories) > 1 else 0
        costs = _smooth(np.mean([history.costs[:n] for history in histories], axis=0), width)
        best = int(np.where(np.isfinite(costs), costs, np.inf).argmin())
        if not width:
            return histories[0].rows[best][self.column], best + 1
        columns = [[row[self.column] for row in history.rows[:n]] for history in histories]
        return float(_smooth(np.mean(columns, axis=0), width)[best]), best + 1


def _smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Return the mean of each value with `width` neighbours on each side, where it has them."""
    n = len(values)
    return np.array([values[max(0, i - width) : min(n, i + width + 1)].mean() for i in range(n)])


def check_metric(metric: str | None, problem_data: Dataset, space: Space) -> str:
    """Return the metric of a search: the loss by default, or the score where losses are searched.

    Raises: ArgumentError for a metric that does not suit the task.
    """
    is_regression = problem_data.classes is None
    score = "r2" if is_regression else "accuracy"
    if metric is None:
        return score if not callable(space) and "loss" in space else LOSS
    suitable = [m.name for m in METRICS.values() if (m.needs == "values") == is_regression]
    names = [LOSS, *dict.fromkeys([score, *suitable])]
    metric = metric.removeprefix("valid_")
    if metric not in names:
        expected = f"one of {', '.join(names)} for a {problem_data.task}"
        raise ArgumentError(Fault("metric", expected, metric, (suggest(metric, names),)))
    return metric


def check_folds(folds: int | None, data: Dataset, validation: Validation) -> tuple[int, Validation]:
    """Return the number of folds and the validation rows.

    folds: None means several where the fraction of the rows would be few.
    validation: None means the fraction that suits. With folds, it is only for the last training.
    Raises: ArgumentError for several folds of given validation rows, or of too few rows.
    """
    is_share = validation is None or isinstance(validation, float)
    if folds is None:
        share = JUDGING if validation is None else validation
        is_few = isinstance(share, float) and share * data.n_samples < FEW_ROWS
        folds = FOLDS if is_few and data.n_samples >= 2 * FOLDS else 1
    if folds > 1 and not is_share:
        expected = "1 with given validation rows, which judge every trial"
        raise ArgumentError(Fault("folds", expected, folds))
    if folds > data.n_samples // 2:
        expected = f"at most half of the {data.n_samples} training rows"
        raise ArgumentError(Fault("folds", expected, folds))
    if validation is None:
        validation = JUDGING if folds == 1 else DEFAULTS["validation"]
    return folds, validation


class TrialMonitor(Callback):
    """Callback that reports a trial's progress, and ends it if it is pruned or out of time.

    The progress is the lowest monitored value so far, negated if the study maximises.
    trial: None reports nothing.
    deadline: the time, as `time.time`, at which the trial ends, but not before its first epoch.
    """

    def __init__(self, problem: Problem, trial: Trial | None, deadline: float | None) -> None:
        self.problem, self.trial = problem, trial
        self.sign = -1.0 if problem.is_maximised else 1.0
        self.deadline = math.inf if deadline is None else deadline
        self.is_pruned = self.is_late = False

    def on_progress(self, trainer: Run, step: int, n_steps: int) -> None:
        if trainer.state.history.rows and time.time() > self.deadline:
            self.is_late = trainer.interrupt.requested = True

    def on_epoch_end(self, trainer: Run, row: Row) -> bool | None:
        if self.problem.folds > 1 and self.problem.column not in row:
            row[self.problem.column] = self.problem.value(trainer, trainer.state.weights)
        epoch, epochs = int(row["epoch"]), trainer.config.epochs
        self.is_late = time.time() > self.deadline and epoch < epochs
        lowest = min(trainer.state.history.costs)
        is_due = epoch % max(1, epochs // REPORTS) == 0 and epoch < epochs
        if self.trial is not None and is_due and math.isfinite(lowest):
            self.trial.report(self.sign * lowest, epoch)
            self.is_pruned = self.trial.should_prune()
        return self.is_pruned or self.is_late

    def state(self, history: History) -> str:
        """Return how the training ended."""
        if self.is_late:
            return LATE
        if history.stop_reason == "interrupted":
            return INTERRUPTED
        return PRUNED if self.is_pruned else COMPLETE


@dataclass(frozen=True)
class Outcome:
    """The result of a trial. value: the metric, also if the last fold has ended early."""

    state: str
    value: float | None
    facts: dict[str, Any]


def run_trial(problem: Problem, trial: Trial, deadline: float | None) -> Outcome:
    """Train with the settings of a trial, once for each fold; the first one may be pruned.

    Raises: DivergedError, and other errors of the settings or the device.
    """
    begin = time.perf_counter()
    settings = problem.settings_of(problem.suggest(trial))
    backend = get_backend(problem.device)
    state = COMPLETE
    histories: list[History] = []
    for data, validation in problem.parts():
        trainer = build_trainer(settings, data, validation, backend)
        monitor = TrialMonitor(problem, None if histories else trial, deadline)
        trainer.callbacks = (monitor,)
        history = trainer.run()
        if history.rows:
            histories.append(history)
            if problem.column not in history.best:
                trainer.state.restore_best()
                history.best[problem.column] = problem.value(trainer)
        state = monitor.state(history)
        if state != COMPLETE:
            break
    # The value of fewer folds does not compare with others; out of time, it may be the only one.
    is_judged = histories and (len(histories) == problem.folds or state == LATE)
    value, epoch = problem.judge(histories) if is_judged else (None, 0)
    facts = {
        "n_epochs": len(histories[0]) if histories else 0,
        "best_epoch": epoch,
        "seconds": round(time.perf_counter() - begin, 3),
    }
    return Outcome(state, value, facts)


def refit(problem: Problem, settings: Settings) -> tuple[Model, History]:
    """Return the model of the best settings, trained as in its trial, and its history."""
    trainer = problem.trainer(settings)
    history = trainer.run()
    if history.rows:
        trainer.state.restore_best()
    model, rule = Model.from_parts(trainer.net, trainer.data.preprocessing), settings.threshold
    return model if rule is None else with_threshold(model, rule, trainer.data), history


def shortened(settings: Settings, epochs: int) -> Settings:
    """Return settings with fewer epochs, for a best trial that ran out of time."""
    return replace(settings, epochs=max(1, epochs))
