"""`nnbackend plot`: pictures of a run.

Curves are drawn from history.csv; boundary, confusion, weights and diagram from the trained
network. Film, signals and rates show the training itself, which is repeated from config.toml: the
same seed gives the same run.
"""

from __future__ import annotations

import argparse
import csv
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nnbackend import plots
from nnbackend.cli.evaluate import choose_part, labels_of, read_data_of, read_for
from nnbackend.cli.parts import fingerprint
from nnbackend.cli.places import check_places, check_same_rows
from nnbackend.cli.plan import Plan, prepare
from nnbackend.cli.run_folder import CONFIG, HISTORY, Run, open_run, read_history
from nnbackend.cli.settings import read_config
from nnbackend.config import Settings
from nnbackend.data import Dataset
from nnbackend.devices import get_backend
from nnbackend.errors import ArgumentError
from nnbackend.model.columns import RowColumn, columns_of
from nnbackend.model.dependence import N_COLUMNS, partial_dependence
from nnbackend.model.importance import default_metric, most_important, permutation_importance
from nnbackend.model.model import Model
from nnbackend.training.callbacks import Callback
from nnbackend.training.preparation import encode_targets
from nnbackend.training.rate_finder import find_learning_rate

logger = logging.getLogger("nnbackend")
MOST_ROWS = 10_000  # of files larger than memory, where a picture changes columns
FRAMES = 60  # at most, in addition to the frame before training


@dataclass
class Subject:
    """The subject of a picture: a run folder, whose contents are read on first use."""

    run: str
    device: str | None
    row: int
    features: tuple[int, int] | None
    columns: list[str] | None
    out: Path
    source: str | None = None  # rows to draw, or the new path of the run's data

    @cached_property
    def found(self) -> Run:
        """The run with its model."""
        return open_run(self.run)

    @cached_property
    def model(self) -> Model:
        """The trained model."""
        return self.found.load(self.device)

    @cached_property
    def settings(self) -> Settings:
        """The settings of the run."""
        if self.found.settings is None:
            raise ArgumentError(f"This picture needs a run folder with {CONFIG}.")
        return self.found.settings

    @cached_property
    def data(self) -> Dataset:
        """The rows of --data, else the rows that the run held out, else all."""
        if self.source is not None:
            data = read_for(self.found, self.model, self.source)
        else:
            assert self.settings is not None
            data = read_data_of(self.found)
        return choose_part(self.found, data, None)[1]

    @cached_property
    def rows(self) -> Dataset:
        """The rows of `data` in memory, for kinds that change columns."""
        return in_memory(self.data)

    def chosen(self, n: int, is_fit: Callable[[RowColumn], bool]) -> list[str]:
        """Return the names of --columns, else of the n most important columns of some kind."""
        if self.columns is not None:
            return self.columns
        data, known = self.rows, columns_of(self.model, self.data.feature_names)
        among = [name for name, column in known.items() if is_fit(column)]
        names, note = most_important(self.model, data.x, data.y, n, among, names=data.feature_names)
        if note:
            logger.warning("%s", note)
        return names

    def plan(self) -> Plan:
        """Prepare the run's training again, on the same rows."""
        settings, environment = self.settings, self.found.environment
        if self.device is not None:
            settings = replace(settings, device=self.device)
        if settings.preset is not None:
            raise ArgumentError(
                "This picture repeats the training of one network. Received: a run with the preset "
                f"{settings.preset!r}. Draw a run without one."
            )
        if self.source is not None:
            settings = replace(settings, data=self.source)
        check_places(settings, self.found.folder, environment)
        plan = prepare(settings, get_backend(settings.device))
        check_same_rows(fingerprint(plan.data), environment, settings.data)
        return plan


def _curves(s: Subject) -> None:
    history = Path(s.run) / HISTORY
    if not history.is_file():
        raise ArgumentError(
            f"Curves need the history of a run. Received: {s.run}, which has no {HISTORY}: a model "
            "file, or a run of --preset, whose networks have a history each. Choose another --kind."
        )
    config = Path(s.run) / CONFIG
    monitor = read_config(config).get("monitor") if config.is_file() else None
    plots.curves(read_history(history), s.out, monitor=monitor)


def _boundary(s: Subject) -> None:
    model, data = s.model, s.rows
    has_classes = model.is_classifier or model.network.loss.name == "binary_cross_entropy"
    if not has_classes or data.y is None or data.y.ndim != 1:
        raise ArgumentError(
            "--kind boundary needs a classifier, and rows with a class each. "
            f"Received: {model!r}, {data.name}."
        )
    columns = s.chosen(2, lambda column: column.is_number) if s.features is None else None
    if columns is not None and len(columns) < 2 and s.columns is None:
        columns = None  # the picture says that there are too few
    plots.decision_boundary(
        model, data.x, data.y, s.out, columns=columns, features=s.features,
        names=data.feature_names,
    )  # fmt: skip


def _train_again(plan: Plan, callback: Callback) -> None:
    """Train to the end. Raise KeyboardInterrupt after Ctrl-C: a picture of a part would mislead."""
    plan.trainer.callbacks = (callback,)
    if plan.trainer.run().stop_reason == "interrupted":
        raise KeyboardInterrupt


def _film(s: Subject) -> None:
    plan = s.plan()
    training = in_memory(plan.parts.training)
    every = math.ceil(plan.settings.epochs / FRAMES)
    film = plots.BoundaryFilm(
        training.x, training.y, columns=s.columns, features=s.features, every=every,
        names=training.feature_names,
    )  # fmt: skip
    _train_again(plan, film)
    film.save(s.out)


def _confusion(s: Subject) -> None:
    model, data = s.model, s.data
    if model.classes is None or data.y is None or data.y.ndim != 1:
        raise ArgumentError("--kind confusion needs a classifier and rows with targets.")
    true = labels_of(model, data.y)
    plots.confusion_matrix(true, model.predict(data.x), model.classes, s.out)


def _of_classes(draw: Callable[..., None]) -> Callable[[Subject], None]:
    """Return the kind that draws a picture of class probabilities."""

    def kind(s: Subject) -> None:
        model, y = s.model, s.data.y
        if model.classes is None or y is None or y.ndim != 1 or not model.has_probabilities:
            raise ArgumentError(
                "This picture needs a classifier with probabilities, and rows with targets. "
                f"Received: {model!r}, {s.data.name}."
            )
        draw(y, model.predict_proba(s.data.x), model.classes, s.out)

    return kind


def _residuals(s: Subject) -> None:
    model, y = s.model, s.data.y
    if model.is_classifier or y is None or y.ndim != 1:
        raise ArgumentError(
            "--kind residuals needs a regression of one value, and rows with targets. Received: "
            f"{model!r}, {s.data.name}."
        )
    plots.residual_plot(y, model.predict(s.data.x), s.out)


def _importance(s: Subject) -> None:
    data = s.rows
    if data.y is None:
        raise ArgumentError(f"--kind importance needs rows with targets. Received: {data.name}.")
    losses = permutation_importance(s.model, data.x, data.y, names=data.feature_names)
    plots.importance_plot(losses, default_metric(s.model), s.out)


def _dependence(s: Subject) -> None:
    columns = s.chosen(N_COLUMNS, lambda column: column.has_values)
    data = s.rows
    found = partial_dependence(s.model, data.x, columns, names=data.feature_names)
    plots.dependence_plot(found, s.out)


def _weights(s: Subject) -> None:
    is_plain = s.found.settings is not None and s.model.preprocessing.encoder is None
    names = s.data.feature_names if is_plain else None
    plots.first_layer_weights(s.model.network, s.out, names=names)


def _diagram(s: Subject) -> None:
    x, y = sample(s.model, s.data, s.row)
    net = s.model.network
    plots.network_diagram(net, net.backend.to_device(x), y, s.out)


def _signals(s: Subject) -> None:
    plan = s.plan()
    training = plan.parts.training
    recorder = plots.SignalRecorder(training.x, training.y)
    _train_again(plan, recorder)
    plots.signal_histograms(recorder, s.out)


def _rates(s: Subject) -> None:
    plan = s.plan()
    training = plan.parts.training
    known = plan.trainer.data.preprocessing
    y = encode_targets(plan.net, training.y, training.n_samples, known)
    trial = find_learning_rate(
        plan.net, plan.model.inputs(training.x), y, optimizer=plan.trainer.config.optimizer,
        batch_size=plan.trainer.state.history.batch_size, seed=plan.settings.seed,
    )  # fmt: skip
    plots.learning_rate_curve(trial, s.out)
    print(f"suggested learning rate: {trial.suggestion:.2g}")


KINDS: dict[str, Callable[[Subject], None]] = {
    "curves": _curves,
    "boundary": _boundary,
    "film": _film,
    "confusion": _confusion,
    "roc": _of_classes(plots.roc_curve),
    "pr": _of_classes(plots.precision_recall_curve),
    "calibration": _of_classes(plots.calibration_curve),
    "residuals": _residuals,
    "importance": _importance,
    "dependence": _dependence,
    "weights": _weights,
    "diagram": _diagram,
    "signals": _signals,
    "rates": _rates,
}


def in_memory(data: Dataset) -> Dataset:
    """Return the rows as an array: all, or a sample of rows that are too large for one."""
    x: Any = data.x
    if isinstance(x, np.ndarray):
        return data
    n = data.n_samples
    if n > MOST_ROWS:
        logger.warning(
            "the picture is of %s of %s rows, a random sample", f"{MOST_ROWS:,}", f"{n:,}"
        )
    rows = np.random.default_rng(0).choice(n, min(n, MOST_ROWS), replace=False)
    part = data.rows(np.sort(rows))
    return replace(part, x=part.x[:])


def sample(model: Model, data: Dataset, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one row as input of the first layer (1, n_in), and its target as input of the loss."""
    if not 0 <= row < data.n_samples or data.y is None:
        raise ArgumentError(
            f"ROW must be from 0 to {data.n_samples - 1}, of data with a target. Received: {row}."
        )
    y = encode_targets(model.network, data.y[row : row + 1], 1, model.preprocessing)
    return model.inputs(data.x[row : row + 1]), y


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `plot`."""
    parser.add_argument("run", metavar="RUN", help="a run folder, also of a running training")
    parser.add_argument(
        "--kind", choices=KINDS, default="curves", metavar="KIND",
        help=f"kind of picture: {', '.join(KINDS)}; film, signals and rates repeat the training "
        "(default: curves)",
    )  # fmt: skip
    parser.add_argument(
        "--row", type=int, default=0, metavar="N",
        help="for diagram: index of the row in the test part, from 0 (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--columns", metavar="NAME,...",
        help="for dependence, boundary and film: the columns to draw, for the last two a pair "
        "(default: the most important ones; film: the first two of numbers)",
    )  # fmt: skip
    parser.add_argument(
        "--features", metavar="I,J",
        help="for boundary and film: the positions of two features, instead of --columns",
    )  # fmt: skip
    parser.add_argument(
        "--data", metavar="DATA",
        help="rows to draw, with targets unless for dependence; for film, signals and rates the "
        "new path of the run's data (default: the run's data)",
    )  # fmt: skip
    parser.add_argument("--device", metavar="DEVICE", help="as for train (default: auto)")
    parser.add_argument(
        "--out", metavar="FILE",
        help=".png, .svg or .pdf file to write, .gif for film (default: RUN/KIND.png)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Draw the picture and return the exit code."""
    suffix = "gif" if args.kind == "film" else "png"
    given = Path(args.run)
    folder = given if given.is_dir() else given.parent
    path = Path(args.out) if args.out else folder / f"{args.kind}.{suffix}"
    if args.columns is not None and args.features is not None:
        raise ArgumentError("--columns and --features exclude each other. Received: both.")
    columns = None if args.columns is None else _words(args.columns)
    features = None if args.features is None else _features(args.features)
    subject = Subject(args.run, args.device, args.row, features, columns, path, args.data)
    KINDS[args.kind](subject)
    print(path)
    return 0


def _features(text: str) -> tuple[int, int]:
    try:
        i, j = (int(word) for word in text.split(","))
    except ValueError:
        raise ArgumentError(
            f"--features must be two indices, as in 0,1. Received: {text}."
        ) from None
    return i, j


def _words(text: str) -> list[str]:
    """Return the names in a list as in a line of CSV, where quotes enclose a name with commas.

    >>> _words('age, "size, in m2"')
    ['age', 'size, in m2']
    """
    return [word.strip() for word in next(csv.reader([text], skipinitialspace=True), [])]
