"""The options of a run, each declared once.

Keywords of `nnbackend.train` and `Model.fit`, options of the command line, keys of config.toml,
parameters of the estimators and the table in the docs are read from these classes. To add an
option, add a field here: to `UpdateOptions` for all of them, to `TrainOptions` for all but the
estimators, to `Settings` for the command line alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from nnbackend.backend.base import PRECISIONS
from nnbackend.data.scalers import KINDS as SCALES
from nnbackend.data.targets import TASKS
from nnbackend.named import name_of
from nnbackend.options import (
    ABOVE_0,
    AT_LEAST_0,
    AT_LEAST_1,
    BELOW_1,
    INSIDE_0_AND_1,
    SEED,
    TEXT,
    WHOLE,
    YES_OR_NO,
    Kind,
    Option,
    choice,
    like,
    list_of,
    number,
    option,
    or_none,
    table,
)

SCALE_NAMES = ("auto", *SCALES, "none")


def _is_stopping(value: Any) -> bool:
    return hasattr(value, "should_stop") and not isinstance(value, type)


def _norms(value: Any) -> bool:
    return ABOVE_0.is_good(value) or (hasattr(value, "__len__") and not isinstance(value, str))


@dataclass(kw_only=True, eq=False)  # estimators, which inherit it, are equal to themselves only
class UpdateOptions:
    """The options of the updates: for `train`, the command line and the estimators."""

    l1: float = option(
        0.0, AT_LEAST_0, "L1 penalty in the loss, l1 sum |w|", topic="regularisation", metavar="X"
    )
    weight_decay: float = option(
        0.0, AT_LEAST_0,
        "decoupled weight decay: each step also does w *= 1 - learning rate * weight_decay",
        topic="regularisation", metavar="X",
    )  # fmt: skip
    max_norm: float | Sequence[float | None] | None = option(
        None,
        replace(
            or_none(ABOVE_0, "0"), accepts=_norms,
            expected="a number above 0, one number or None for each trainable layer, or None",
        ),
        "upper limit for the norm of each unit's incoming weights",
        topic="regularisation", metavar="X",
    )  # fmt: skip
    clip_norm: float | None = option(
        None, or_none(ABOVE_0, "0"), "upper limit for the norm of the gradient",
        topic="regularisation", metavar="X",
    )  # fmt: skip
    ema: float | None = option(
        None, or_none(INSIDE_0_AND_1, "0"),
        "decay of a running average of the weights, which is validated and kept instead of them",
        topic="regularisation", metavar="X",
    )  # fmt: skip
    schedule: Any = option(
        None, or_none(name_of("schedule"), "constant"),
        "learning-rate schedule: {names}; step:every=10,gamma=0.5 sets parameters",
        topic="training", metavar="NAME",
    )  # fmt: skip


@dataclass(kw_only=True)
class TrainOptions(UpdateOptions):
    """The options of a training run, for `train` and the command line."""

    # Cures for likely keywords that are options of something else.
    ELSEWHERE: ClassVar[dict[str, str]] = {
        "learning_rate": "Use optimizer=nnbackend.Adam(learning_rate=...).",
        "lr": "Use optimizer=nnbackend.Adam(learning_rate=...).",
        "momentum": "Use optimizer=nnbackend.SGD(0.1, momentum=...).",
        "patience": "Use early_stopping=nnbackend.EarlyStopping(patience=...).",
    }

    optimizer: Any = option(
        "adam", name_of("optimizer"), "update rule: {names}", topic="training", metavar="NAME"
    )
    epochs: int = option(
        20, AT_LEAST_1, "maximum number of passes through the training rows",
        topic="training", metavar="N",
    )  # fmt: skip
    batch_size: int | None = option(
        128, or_none(AT_LEAST_1, "full"),
        "rows per step; 1 for stochastic gradient descent, {none} for all rows",
        topic="training", metavar="N|full",
    )  # fmt: skip
    shuffle: bool | Callable[[int], Any] = option(
        True,
        replace(
            YES_OR_NO, accepts=lambda v: callable(v) or v in (True, False),
            expected="True, False, or a function of the epoch that gives the order of the rows",
        ),
        "whether each epoch takes the rows in a new order", topic="training", metavar="yes|no",
    )  # fmt: skip
    momentum_schedule: Any = option(
        None, or_none(name_of("momentum_schedule"), "constant"),
        "schedule of the momentum of sgd, as ramp:start=0.5,end=0.99: {names}",
        topic="training", metavar="NAME",
    )  # fmt: skip
    l2: float = option(
        0.0, AT_LEAST_0, "L2 penalty in the loss, l2/2 sum w^2",
        topic="regularisation", metavar="X",
    )  # fmt: skip
    early_stopping: Any = option(
        None,
        Kind("an nnbackend.EarlyStopping, or None", _is_stopping, str, none=""),
        "rule that ends the run when the monitored value no longer improves", topic="training",
    )  # fmt: skip
    seed: int = option(
        0, SEED, "seed of the weights, the splits, the row order and dropout",
        topic="machine", metavar="N",
    )  # fmt: skip


def _part(*words: str) -> Kind:
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


COLUMNS = list_of(TEXT, "names or indices of columns, or none", or_empty=True)
KINDS = list_of(TEXT, "NAME=KIND, or none", or_empty=True)
WIDTHS = list_of(AT_LEAST_1, "whole numbers of at least 1, as in 100,50, or none", or_empty=True)
INTERVAL = Kind("N minutes, N epochs or N steps, with N above 0", TEXT.accepts, _interval)


@dataclass(kw_only=True)
class Settings(TrainOptions):
    """The options of a command line and of its config file.

    A default that depends on the data or on another option is None here; `model.building` fills it
    in, and the config.toml of a run folder has every value.
    """

    data: str = option(
        "", TEXT,
        "a built-in set (digits, iris, wine, breast_cancer, diabetes, xor, spirals), a .csv (.tsv, "
        ".txt, .data), .npz, .npy or .parquet file, a folder of IDX files, or a database, as in "
        "sqlite:///shop.db?table=orders; not needed with --config or --resume",
        topic="data", metavar="DATA",
    )  # fmt: skip
    query: str | None = option(
        None, TEXT, "SELECT statement whose rows are the data, for the URL of a database",
        topic="data", metavar="SQL", shown="the table that the URL names",
    )  # fmt: skip
    target: str | None = option(
        None, TEXT, "target: the name or index of a column, or the name of a .npz array",
        topic="data", metavar="COLUMN",
        shown="the last column, or a first one called label, target, class or y",
    )  # fmt: skip
    task: str | None = option(
        None, choice(*TASKS), "classification or regression",
        topic="data", metavar="TASK", shown="detected from the target",
    )  # fmt: skip
    header: bool | None = option(
        None, YES_OR_NO, "whether the first row of a .csv holds column names",
        topic="data", metavar="yes|no", shown="detected",
    )  # fmt: skip
    missing: str = option(
        "fill", choice("fill", "drop", "error"),
        "rows with missing values: fill a table's (arrays fail), drop them, or fail",
        topic="data", metavar="fill|drop|error",
    )  # fmt: skip
    column: tuple[str, ...] = option(
        (), KINDS, "kinds of columns: number, yes/no, category, date, text (words as features) or "
        "id (left out, and repeated beside the predictions)", topic="data",
        metavar="NAME=KIND,...", shown="decided from the cells",
    )  # fmt: skip
    decimal: str | None = option(
        None, choice(".", ","), "decimal sign of numbers such as 1,234, which could be either",
        topic="data", metavar=".|,", shown="decided from the other numbers",
    )  # fmt: skip
    encoding: str | None = option(
        None, TEXT, "encoding of a text file, such as cp1252", topic="data", metavar="NAME",
        shown="UTF-8 or UTF-16 where the bytes show it, else cp1252",
    )  # fmt: skip
    categorical: tuple[str, ...] = option(
        (), COLUMNS,
        "columns to treat as categories although their values look like numbers, such as postal "
        "codes", topic="data", metavar="COLUMN,...", shown="none",
    )  # fmt: skip
    ignore: tuple[str, ...] = option(
        (), COLUMNS, "columns to ignore", topic="data", metavar="COLUMN,...", shown="none"
    )
    validation: float | str = option(
        0.1, _part(),
        "rows that select the best epoch: a fraction of the training rows, a file, or 0 for none",
        topic="data", metavar="FRACTION|FILE",
    )  # fmt: skip
    test: float | str | None = option(
        None, _part("own"),
        "rows for the final test, not used in training: a fraction, a file, 0 for none, or own "
        "for the part distributed with the data",
        topic="data", metavar="FRACTION|FILE", shown="own if it exists, else 0.2",
    )  # fmt: skip
    scale: str | None = option(
        None, choice(*SCALE_NAMES), "scaling of the features: {names}",
        topic="data", metavar="KIND", shown="auto: unit for images of bytes, else robust",
    )  # fmt: skip

    hidden: tuple[int, ...] = option(
        (200,), WIDTHS, "units of each hidden layer; none for no hidden layer",
        topic="network", metavar="N,N,...",
    )  # fmt: skip
    activation: tuple[str, ...] = option(
        ("relu",), list_of(name_of("hidden_activation"), "names of activations, as in relu,tanh"),
        "activation of the hidden layers, one for all or one for each: {names}; leaky_relu:0.2 "
        "and maxout:3 set their parameter", topic="network", metavar="NAME,...",
    )  # fmt: skip
    output_activation: str | None = option(
        None, name_of("activation"), "activation of the output layer",
        topic="network", metavar="NAME", shown="the one that suits the loss",
    )  # fmt: skip
    dropout: tuple[float, ...] | None = option(
        None, list_of(BELOW_1, "numbers of at least 0 and below 1"),
        "fraction of units dropped in training, one for all hidden layers or one for each",
        topic="network", metavar="RATE,...",
        shown="0.2 for layers of at least 128 units, else 0; 0 for lbfgs",
    )  # fmt: skip

    preset: str | None = option(
        None, choice("tabular"), "tabular: an ensemble for tables, with the columns divided into "
        "bins and calibrated probabilities, which sets the other options of network and training",
        topic="training", metavar="NAME", shown="none",
    )  # fmt: skip
    members: int = option(
        4, AT_LEAST_1, "networks of the preset's ensemble", topic="training", metavar="N"
    )
    loss: str | None = option(
        None, name_of("loss"), "loss function: {names}; huber:2 and quantile:0.9 set their "
        "parameter", topic="training", metavar="NAME",
        shown="cross_entropy for classes, else quadratic",
    )  # fmt: skip
    learning_rate: float | None = option(
        None, ABOVE_0, "learning rate, to which the schedule applies",
        topic="training", metavar="X", shown="that of the optimizer: 0.001 for adam",
    )  # fmt: skip
    momentum: float | None = option(
        None, BELOW_1, "momentum of sgd", topic="training", metavar="X", shown="0"
    )
    schedule: Any = like(
        TrainOptions, "schedule", None, kind=name_of("schedule"),
        shown="cosine; constant for lbfgs",
    )  # fmt: skip
    batch_size: int | None = like(TrainOptions, "batch_size", 32)
    epochs: int = like(TrainOptions, "epochs", 100)
    patience: int = option(
        20, WHOLE, "stop after N epochs without improvement; 0 for no early stopping",
        topic="training", metavar="N",
    )  # fmt: skip
    monitor: str | None = option(
        None, TEXT, "column of the history that selects the best epoch: train_loss, valid_loss, or "
        "a metric of the validation rows, such as roc_auc, f1 or mae",
        topic="training", metavar="COLUMN", shown="valid_loss, or train_loss without validation",
    )  # fmt: skip

    device: str | None = option(
        None, TEXT, "auto, cpu, gpu, gpu:1, or a backend's name",
        topic="machine", metavar="DEVICE", shown="NNBACKEND_DEVICE, else auto",
    )  # fmt: skip
    dtype: str = option(
        "float32",
        choice("float32", "float64"),
        "number type: {names}",
        topic="machine",
        metavar="DTYPE",
    )
    precision: str | None = option(
        None, choice(*PRECISIONS),
        "precision of float32 matrix products: {names}; the last two are faster and less exact, on "
        "a CUDA GPU, bf16 also on CPUs with AVX512-BF16",
        topic="machine", metavar="NAME", shown="that of the device: float32",
    )  # fmt: skip
    target_accuracy: float | None = option(
        None, number("a number, at most 1", high=1, closed="high"),
        "exit with 1 if the test accuracy is below X; without a test part, the validation "
        "accuracy; for a regression, r2", topic="results", metavar="X", shown="none",
    )  # fmt: skip
    checkpoint: str = option(
        "10 minutes", INTERVAL,
        "interval between checkpoints, from which --resume continues: N minutes, N epochs or "
        "N steps", topic="results", metavar="EVERY",
    )  # fmt: skip


TOPICS = ("data", "network", "training", "regularisation", "machine", "results")
SETTINGS: dict[str, Option] = dict(
    sorted(
        ((name, about) for name, about in table(Settings).items() if about.metavar),
        key=lambda entry: TOPICS.index(entry[1].topic),
    )
)
DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(Settings) if f.name in SETTINGS}
