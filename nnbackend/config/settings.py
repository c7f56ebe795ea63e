"""The options of the command line and of its config.toml."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from nnbackend.backend.base import PRECISIONS
from nnbackend.config.kinds import COLUMNS, FOLDS, INTERVAL, KINDS, THRESHOLD, WEIGHTS, WIDTHS, part
from nnbackend.config.run_options import TrainOptions
from nnbackend.data.scalers import KINDS as SCALES
from nnbackend.data.targets import TASKS
from nnbackend.named import name_of
from nnbackend.options import (
    ABOVE_0,
    AT_LEAST_1,
    BELOW_1,
    TEXT,
    WHOLE,
    YES_OR_NO,
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


@dataclass(kw_only=True)
class Settings(TrainOptions):
    """The options of a command line and of its config file.

    A default that depends on the data or on another option is None here; `model.building` fills it
    in, and the config.toml of a run folder has every value.
    """

    data: str = option(
        "", TEXT,
        "a built-in set (digits, iris, wine, breast_cancer, diabetes, xor, spirals), a .csv (.tsv, "
        ".txt, .data), .npz, .npy or .parquet file, a folder of IDX files, a folder or a pattern "
        "(in quotes: 'data/*.parquet') of .npy, .npz or .parquet files, or a database, as in "
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
    positive: str | None = option(
        None, TEXT, "class that is the second of two: of which f1, average_precision and the "
        "threshold are", topic="data", metavar="CLASS", shown="the last in sorted order",
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
    group: str | None = option(
        None, TEXT, "column of a table, such as patient, whose rows with the same value all go to "
        "the training, validation or test part or to one fold; not a feature",
        topic="data", metavar="COLUMN", shown="none",
    )  # fmt: skip
    time: str | None = option(
        None, TEXT, "column of a table with dates or numbers: the test and validation rows, and "
        "those of a fold, are later than all training rows",
        topic="data", metavar="COLUMN", shown="none",
    )  # fmt: skip
    validation: float | str = option(
        0.1, part(),
        "rows that select the best epoch: a fraction of the training rows, a file, or 0 for none",
        topic="data", metavar="FRACTION|FILE",
    )  # fmt: skip
    test: float | str | None = option(
        None, part("own"),
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
    class_weight: tuple[str, ...] = option(
        (), WEIGHTS, "weights of each class in the loss: balanced, or CLASS=WEIGHT,...; the "
        "probabilities are then as if there were so many more of these rows", topic="training",
        metavar="CLASS=X,...", shown="none",
    )  # fmt: skip
    threshold: str | None = option(
        None, THRESHOLD, "probability above which the second of two classes is the answer: a "
        "number, or accuracy, balanced_accuracy, f1, mcc or cost:miss=10,alarm=1, for which the "
        "best one on the validation rows is taken", topic="training", metavar="X|NAME",
        shown="0.5",
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
    reduction: str = option(
        "fixed", choice("fixed", "fast"), "sum of the gradients of several ranks (mpiexec): fixed "
        "gives the same bits for 1, 2, 4 and 8 ranks", topic="machine", metavar="fixed|fast",
    )  # fmt: skip
    target_accuracy: float | None = option(
        None, number("a number, at most 1", high=1, closed="high"),
        "exit with 1 if the test accuracy is below X; without a test part, the validation "
        "accuracy; for a regression, r2", topic="results", metavar="X", shown="none",
    )  # fmt: skip
    cv: int | None = option(
        None, or_none(FOLDS, "0"), "before the training, judge the settings on K folds of the "
        "training rows: mean and standard deviation of each metric",
        topic="results", metavar="K",
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
