"""`nnbackend train --preset tabular`: the estimators' preset for tables, as a run folder.

The run is short, so it has no checkpoints: Ctrl-C keeps the members trained so far as the model.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sklearn.base import clone

from nnbackend.backend import Backend
from nnbackend.cli import SIGNALLED
from nnbackend.cli.console import print_message
from nnbackend.cli.cross_validation import FIGURES, cross_validate
from nnbackend.cli.parts import (
    Parts,
    read_data,
    resolve_sources,
    split_test,
    split_validation,
)
from nnbackend.cli.progress import loss_text
from nnbackend.cli.results import data_facts, described_data, finish, test_figures, verdict
from nnbackend.cli.run_folder import (
    CONFIG,
    MODEL,
    environment,
    new_folder,
    write_environment,
    write_text,
)
from nnbackend.cli.settings import to_toml
from nnbackend.config import SETTINGS, Settings
from nnbackend.data import Dataset
from nnbackend.devices import get_backend
from nnbackend.errors import ArgumentError, Mention
from nnbackend.estimators import TabularMLPClassifier, TabularMLPRegressor
from nnbackend.estimators.ensemble import SCHEDULES
from nnbackend.model.building import check_threshold
from nnbackend.model.class_weights import BALANCED, class_weights
from nnbackend.model.model import Model
from nnbackend.model.thresholds import as_number
from nnbackend.options import all_of
from nnbackend.training.callbacks import Callback
from nnbackend.training.run import Run

logger = logging.getLogger("nnbackend")
# The estimator's parameter of each option that the preset has.
PARAMETERS = {
    "hidden": "hidden_layer_sizes", "activation": "activation", "dropout": "dropout",
    "epochs": "max_iter", "patience": "n_iter_no_change", "batch_size": "batch_size",
    "learning_rate": "learning_rate_init", "schedule": "schedule", "l1": "l1",
    "weight_decay": "weight_decay", "max_norm": "max_norm", "clip_norm": "clip_norm", "ema": "ema",
    "members": "n_members", "dtype": "dtype", "validation": "validation_fraction",
}  # fmt: skip
OF_CLASSES = ("class_weight", "threshold")  # options of classifiers, the same for the estimator
LISTED = ("hidden", "activation", "dropout")  # tuples as options
MOST_EPOCHS = max(epochs for epochs, _ in SCHEDULES)
SAME = ("data", "machine", "results")  # topics whose options mean the same in every run
Estimator = TabularMLPClassifier | TabularMLPRegressor


@dataclass
class PresetPlan:
    """The validated parts of a preset's run, before anything is written."""

    settings: Settings
    data: Dataset
    parts: Parts
    estimator: Estimator
    eval_set: tuple[Any, Any] | None

    def fit(self, is_quiet: bool) -> Model:
        """Train and return the model of all members."""
        self.estimator.set_params(callbacks=[MemberProgress(is_quiet)])
        model = _fitted(self.estimator, self.parts.training, self.eval_set)
        first: Any = self.estimator.estimators_[0]
        self.settings = replace(
            self.settings, epochs=first.max_iter, learning_rate=first.learning_rate_init
        )
        return model

    def fit_fold(self, training: Dataset) -> Model:
        """Return the model of the same settings for other training rows.

        Raises: KeyboardInterrupt if Ctrl-C has ended the fit.
        """
        rest, eval_set = _eval_set(training, self.settings)
        estimator = clone(self.estimator)
        model = _fitted(estimator, rest, eval_set)
        if len(estimator.estimators_) < estimator.n_members:
            raise KeyboardInterrupt
        return model

    @property
    def is_interrupted(self) -> bool:
        """Whether Ctrl-C has ended the fit before the last member."""
        return len(self.estimator.estimators_) < self.settings.members

    def header(self, folder: Path) -> str:
        """Return the header of the output: data, parts, ensemble, device, folder."""
        s, test = self.settings, self.parts.test
        sizes = [f"train {self.parts.training.n_samples:,}"]
        sizes += [] if test is None else [f"test {test.n_samples:,}"]
        layers = ", ".join(map(str, s.hidden))
        tries = "; the first is trained with several numbers of epochs"
        tries = tries if self.estimator.max_iter == "auto" else ""
        return "\n".join([
            *described_data(self.data, s.missing == "drop"),
            f"parts      {', '.join(sizes)} rows; each member holds out another part of the first",
            f"preset     {s.preset}: {s.members} networks with layers of {layers} units, averaged"
            f"{tries}",
            f"device     {s.device}",
            f"folder     {folder}",
            "",
        ])  # fmt: skip

    def results(self) -> dict[str, Any]:
        """Return the results of training, the means over the members."""
        members: Any = self.estimator.estimators_
        best = [member.best_validation_loss_ for member in members]
        found: dict[str, Any] = {
            "members": len(members),
            "epochs": max(member.n_iter_ for member in members),
            "features": self.estimator.n_inputs_,
        }
        if None not in best:
            found["valid_loss"] = float(sum(best) / len(best))
        if self.data.n_classes:
            found["temperature"] = self.estimator.temperature_
        return found


class MemberProgress(Callback):
    """Callback that prints a line for each network; the first member tries several schedules."""

    def __init__(self, is_quiet: bool) -> None:
        self.is_quiet, self.member = is_quiet, 0

    def on_train_begin(self, trainer: Run) -> None:
        """Count the networks."""
        self.member, self._begin = self.member + 1, time.perf_counter()

    def on_train_end(self, trainer: Run) -> None:
        """Print the best epoch."""
        history = trainer.state.history
        if self.is_quiet or not history.rows:
            return
        best = history.best
        losses = [f"{n} {loss_text(best[n])}" for n in ("train_loss", "valid_loss") if n in best]
        print(
            f"network {self.member}  best epoch {best['epoch']:.0f} of "
            f"{len(history)}  {'  '.join(losses)}  {time.perf_counter() - self._begin:.1f} s",
            file=sys.stderr, flush=True,
        )  # fmt: skip


def prepare(
    settings: Settings, stored: Mapping[str, Any], given: Mapping[str, Any], backend: Backend
) -> PresetPlan:
    """Read the data and build the estimator.

    stored: the options that are not defaults.  given: those of the command line.

    Raises: ArgumentError for options that the preset does not have.
    """
    wrong = [
        name for name in given
        if name not in (*PARAMETERS, *OF_CLASSES, "preset") and SETTINGS[name].topic not in SAME
    ]  # fmt: skip
    if wrong:
        listed = [part for name in wrong for part in (", ", Mention(name))][1:]
        raise ArgumentError(
            Mention("preset", settings.preset), " decides these options. Received: ", *listed,
            ". Omit them, or omit the preset.",
        )  # fmt: skip
    data = read_data(settings)
    _warn_of_trends(settings)
    parts = split_test(data, settings)
    chosen = {name: getattr(settings, name) for name in PARAMETERS if name in stored}
    training, eval_set = _eval_set(parts.training, settings)
    parts = replace(parts, training=training)
    if eval_set is not None:
        chosen.pop("validation", None)
    parameters: dict[str, Any] = {"dtype": settings.dtype}
    for name, value in chosen.items():
        is_one = name in LISTED and name != "hidden" and len(value) == 1
        parameters[PARAMETERS[name]] = value[0] if is_one else value
    if not parameters.get("n_iter_no_change", 1):
        parameters["n_iter_no_change"] = float("inf")
    if parameters.get("validation_fraction") == 0.0:
        del parameters["validation_fraction"]
        parameters["early_stopping"] = False
    parameters |= _of_classes(settings, parts.training)
    kind = TabularMLPClassifier if data.n_classes else TabularMLPRegressor
    estimator: Any = kind(**parameters, device=backend, random_state=settings.seed)
    return PresetPlan(
        _completed(settings, estimator, parts.training, data, backend), data, parts, estimator,
        eval_set,
    )  # fmt: skip


def _warn_of_trends(settings: Settings) -> None:
    if settings.time is not None:
        logger.warning(
            "the bins and intervals of --preset %s end where the training rows end: where values "
            "grow with time, compare with a run without it", settings.preset,
        )  # fmt: skip


def _eval_set(data: Dataset, settings: Settings) -> tuple[Dataset, tuple[Any, Any] | None]:
    """Return the training rows, and the validation rows of a file or of a column's division.

    Without both, each member holds out other training rows.
    """
    data, held_out = split_validation(data, settings)
    return data, None if held_out is None else (held_out.x, held_out.y)


def _fitted(estimator: Estimator, rows: Dataset, eval_set: tuple[Any, Any] | None) -> Model:
    """Fit an estimator to coded rows and return its model, which takes rows of the table."""
    with warnings.catch_warnings():  # the command prints it with the number of members
        warnings.filterwarnings("ignore", "Training interrupted", UserWarning)
        estimator.fit(rows.x, rows.y, eval_set=eval_set)
    model = estimator.to_model()
    columns = None if rows.columns is None else rows.columns.to_dict()
    known = replace(model.preprocessing, classes=rows.classes, columns=columns)
    return Model.from_parts(model.network, known)


def _of_classes(settings: Settings, data: Dataset) -> dict[str, Any]:
    """Return the parameters of a classifier alone, none for values.

    Raises: ArgumentError for options that do not suit the target.
    """
    weights, _ = all_of(
        lambda: class_weights(settings.class_weight, data.y, data.classes),
        lambda: check_threshold(settings, data),
    )
    found: dict[str, Any] = {}
    if weights is not None:
        is_balanced = settings.class_weight == (BALANCED,)
        found["class_weight"] = BALANCED if is_balanced else dict(enumerate(weights))
    if settings.threshold is not None:
        number = as_number(settings.threshold)
        found["threshold"] = settings.threshold if number is None else number
    return found


def _completed(
    settings: Settings, estimator: Any, training: Dataset, data: Dataset, backend: Backend
) -> Settings:
    """Return the settings with the estimator's values, so that config.toml repeats the run."""
    found = {name: getattr(estimator, of) for name, of in PARAMETERS.items()}
    for name in LISTED:
        value = found[name]
        found[name] = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    patience = found["patience"]
    found["epochs"] = MOST_EPOCHS if found["epochs"] == "auto" else found["epochs"]
    found["patience"] = 0 if patience == float("inf") else int(patience)
    found["batch_size"] = estimator.rows_per_batch(training.n_samples)
    by_column = settings.group or settings.time
    if isinstance(settings.validation, str) or by_column or not estimator.early_stopping:
        found["validation"] = settings.validation
    settings = resolve_sources(replace(settings, **found), data)
    return replace(
        settings, task=data.task, device=backend.device, optimizer="adamw", scale="none",
        momentum=None, precision=settings.precision or backend.precision,
    )  # fmt: skip


def run(plan: PresetPlan, out: str | None, begin: float, *, is_quiet: bool, with_json: bool) -> int:
    """Train an ensemble, write its run folder, print the results and return the exit code.

    begin: the `perf_counter` of the command's start.
    """
    config, folder = to_toml(plan.settings), new_folder(out, plan.data.name)
    backend = get_backend(plan.settings.device)
    facts = environment(backend, plan.settings.seed, data_facts(plan.data, plan.parts), folder)
    write_text(folder / CONFIG, config)
    write_environment(folder, facts)
    if not is_quiet:
        print(plan.header(folder), file=sys.stderr)
    known: dict[str, Any] = {}
    if plan.settings.cv is not None:
        rows = split_test(plan.data, plan.settings).training
        known = cross_validate(
            rows, plan.settings, plan.fit_fold, folder / FIGURES, is_quiet=is_quiet
        )
    model = plan.fit(is_quiet)
    model.save(folder / MODEL)
    write_text(folder / CONFIG, to_toml(plan.settings))  # with the epochs that the fit has chosen
    results = known | plan.results() | test_figures(model, plan.parts.test)
    finish(results, facts, folder, begin, with_json)
    if plan.is_interrupted:
        n_members = results["members"]
        print_message(f"interrupted; the model of the {n_members} members so far is in {folder}")
        return SIGNALLED + signal.SIGINT
    return verdict(results, plan.settings)
