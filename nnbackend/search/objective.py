"""One trial of a search: train with the trial's settings, report, prune, and judge.

A trial is judged by its best epoch on the validation rows. Trials that diverge count as the worst
ones, so that the sampler avoids their settings.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nnbackend.config import Settings
from nnbackend.data import Dataset
from nnbackend.devices import get_backend
from nnbackend.errors import ArgumentError, Fault, Mention
from nnbackend.model.building import build_trainer, complete
from nnbackend.model.metrics import METRICS, metrics_of
from nnbackend.model.model import Model
from nnbackend.search.space import Space, apply, suggest_values
from nnbackend.suggestions import suggest
from nnbackend.training.callbacks import Callback
from nnbackend.training.history import LARGER_IS_BETTER, Row
from nnbackend.training.loop import Trainer
from nnbackend.training.preparation import Validation
from nnbackend.training.run import Run

if TYPE_CHECKING:
    from optuna import Trial

LOSS = "loss"
COMPLETE, PRUNED, LATE, INTERRUPTED = "complete", "pruned", "out of time", "interrupted"
VALUES = "values"  # attribute of a trial: the values that it tries
REPORTS = 20  # of a trial's progress, at most


@dataclass(frozen=True)
class Problem:
    """What a search is about; the same for all its trials.

    data: the training rows.  validation: the fraction of them, or the rows, that judge a trial.
    settings: the settings that are not searched.  metric: "loss", or a metric of the model.
    device: the name of the backend, which each worker opens.
    """

    data: Dataset
    validation: Validation
    settings: Settings
    space: Space
    metric: str
    device: str

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

    def value(self, trainer: Trainer) -> float:
        """Return the metric of the best epoch, whose weights the network must have."""
        best = trainer.state.history.best
        column = f"valid_{self.metric}"
        if column in best:
            return best[column]
        data, model = trainer.data, Model.from_parts(trainer.net, trainer.data.preprocessing)
        assert data.validation is not None
        x, y, _ = data.validation
        classes, scaler = model.classes, data.preprocessing.target_scaler
        if classes is not None:
            codes = (y.reshape(len(y), -1)[:, 0] if trainer.net.n_out == 1 else y).astype(np.int64)
            found = metrics_of(codes, model.predict_proba(x), len(classes), [self.metric])
        else:
            values = y if scaler is None else scaler.inverse(y)
            predicted = model.predict(x)
            found = metrics_of(values.reshape(predicted.shape), predicted, 0, [self.metric])
        return found[self.metric]


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


class TrialMonitor(Callback):
    """Callback that reports a trial's progress, and ends it if it is pruned or out of time.

    The progress is the lowest monitored value so far, negated if the study maximises.
    deadline: the time, as `time.time`, at which the trial ends.
    """

    def __init__(self, trial: Trial, is_maximised: bool, deadline: float | None) -> None:
        self.trial, self.sign = trial, -1.0 if is_maximised else 1.0
        self.deadline = math.inf if deadline is None else deadline
        self.is_pruned = self.is_late = False

    def on_progress(self, trainer: Run, step: int, n_steps: int) -> None:
        if time.time() > self.deadline:
            self.is_late = trainer.interrupt.requested = True

    def on_epoch_end(self, trainer: Run, row: Row) -> bool | None:
        epoch, epochs = int(row["epoch"]), trainer.config.epochs
        self.is_late = time.time() > self.deadline and epoch < epochs
        lowest = min(trainer.state.history.costs)
        if epoch % max(1, epochs // REPORTS) == 0 and epoch < epochs and math.isfinite(lowest):
            self.trial.report(self.sign * lowest, epoch)
            self.is_pruned = self.trial.should_prune()
        return self.is_pruned or self.is_late


@dataclass(frozen=True)
class Outcome:
    """The result of a trial. value: the metric, also if the trial was ended early."""

    state: str
    value: float | None
    facts: dict[str, Any]


def run_trial(problem: Problem, trial: Trial, deadline: float | None) -> Outcome:
    """Train with the settings of a trial.

    Raises: DivergedError, and other errors of the settings or the device.
    """
    begin = time.perf_counter()
    trainer = problem.trainer(problem.settings_of(problem.suggest(trial)))
    monitor = TrialMonitor(trial, problem.is_maximised, deadline)
    trainer.callbacks = (monitor,)
    history = trainer.run()
    value = None
    if history.rows:
        trainer.state.restore_best()
        value = problem.value(trainer)
    state = PRUNED if monitor.is_pruned else COMPLETE
    if monitor.is_late:
        state = LATE
    elif history.stop_reason == "interrupted":
        state = INTERRUPTED
    facts = {
        "n_epochs": len(history),
        "best_epoch": int(history.best["epoch"]) if history.rows else 0,
        "seconds": round(time.perf_counter() - begin, 3),
    }
    return Outcome(state, value, facts)


def refit(problem: Problem, settings: Settings) -> tuple[Model, Trainer]:
    """Return the model of the best settings, trained as in its trial, with its trainer."""
    trainer = problem.trainer(settings)
    trainer.run()
    if trainer.state.history.rows:
        trainer.state.restore_best()
    return Model.from_parts(trainer.net, trainer.data.preprocessing), trainer


def shortened(settings: Settings, epochs: int) -> Settings:
    """Return settings with fewer epochs, for a best trial that ran out of time."""
    return replace(settings, epochs=max(1, epochs))
