"""The settings of a run: one table that defines the options, their help and the config file.

Options and config file use the same parser, so `--hidden 100,50` and `hidden = [100, 50]` are
checked alike. The command line overrides the file, the file overrides the defaults. A default that
depends on the data or on another setting is None here; `nnbackend.cli.building` fills it in, and
the config.toml of the run folder has every value.
"""

from __future__ import annotations

import inspect
import json
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from nnbackend.data.scalers import KINDS as SCALES
from nnbackend.data.targets import TASKS
from nnbackend.errors import ArgumentError
from nnbackend.network.activations import ACTIVATIONS
from nnbackend.network.layers import Maxout
from nnbackend.network.losses import LOSSES
from nnbackend.persistence.building import PRECISIONS
from nnbackend.suggestions import suggest
from nnbackend.training.optimizers import OPTIMIZERS
from nnbackend.training.schedules import SCHEDULES

OPTIMIZER_NAMES = tuple(OPTIMIZERS)
SCHEDULE_NAMES = tuple(name for name in SCHEDULES if name != "ramp")
HIDDEN_ACTIVATIONS: dict[str, Callable[..., Any]] = {
    **{name: make for name, make in ACTIVATIONS.items() if name != "softmax"},
    "maxout": Maxout,
}


@dataclass(frozen=True)
class Kind:
    """A parser of values from text; `parse` raises ValueError for anything but `expected`."""

    expected: str
    parse: Callable[[str], Any]


def _whole(least: int) -> Kind:
    def parse(text: str) -> int:
        value = int(text)
        if value < least:
            raise ValueError
        return value

    return Kind(f"a whole number, at least {least}", parse)


def _number(expected: str, good: Callable[[float], bool]) -> Kind:
    def parse(text: str) -> float:
        value = float(text)
        if not (math.isfinite(value) and good(value)):
            raise ValueError
        return value

    return Kind(expected, parse)


def _list_of(kind: Kind, expected: str, none: bool = False) -> Kind:
    def parse(text: str) -> tuple[Any, ...]:
        if none and text.strip().lower() in ("", "none"):
            return ()
        return tuple(kind.parse(part.strip()) for part in text.split(","))

    return Kind(expected, parse)


def _one_of(*names: str) -> Kind:
    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(suggest(text, names))
        return text

    return Kind("a known name", parse)


def _formula(known: Mapping[str, Callable[..., Any]]) -> Kind:
    """Return the kind of a name, with a number after a colon if the formula has one."""

    def parse(text: str) -> str:
        name, colon, number = text.partition(":")
        if name not in known:
            raise ValueError(suggest(name, known))
        if colon:
            if not inspect.signature(known[name]).parameters:
                raise ValueError(f"Known without a number: {name}.")
            float(number)
        return text

    return Kind("a name, or NAME:NUMBER", parse)


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
    return Kind(f"{own}a fraction of at least 0 and below 1, or a file", parse)


def _batch(text: str) -> int | str:
    return text if text == "full" else int(_whole(1).parse(text))


def _interval(text: str) -> str:
    number, _, unit = text.strip().partition(" ")
    kind = {"epoch": _whole(1), "step": _whole(1), "minute": POSITIVE}.get(unit.removesuffix("s"))
    if kind is None:
        raise ValueError
    kind.parse(number)
    return text.strip()


def interval(text: str) -> dict[str, float]:
    """Return {"minutes": 10.0} for "10 minutes", and whole numbers of epochs or steps.

    >>> interval("10 minutes"), interval("1 epoch")
    ({'minutes': 10.0}, {'epochs': 1})
    """
    number, _, unit = text.partition(" ")
    unit = unit if unit.endswith("s") else unit + "s"
    return {unit: float(number) if unit == "minutes" else int(number)}


def _any_text(text: str) -> str:
    if not text:
        raise ValueError
    return text


TEXT = Kind("a text", _any_text)
COLUMNS = _list_of(TEXT, "names or indices of columns, or none", none=True)
POSITIVE = _number("a number above 0", lambda v: v > 0)
NOT_NEGATIVE = _number("a number, at least 0", lambda v: v >= 0)
BELOW_ONE = _number("a number of at least 0 and below 1", lambda v: 0 <= v < 1)
SHARE = _number("a number, at most 1", lambda v: v <= 1)


def _setting(
    topic: str, metavar: str, kind: Kind, default: Any, help: str, shown: str | None = None
) -> Any:
    """Return the field of one setting; `shown` is the help text of a computed default."""
    about = {"topic": topic, "metavar": metavar, "kind": kind, "help": help, "shown": shown}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Settings:
    """Every setting of a run, by the names of the options and of the config file."""

    data: str = _setting("data", "DATA", TEXT, "", "")
    target: str | None = _setting(
        "data", "COLUMN", TEXT, None,
        "target: the name or index of a column, or the name of a .npz array", "the last column",
    )  # fmt: skip
    task: str | None = _setting(
        "data", "TASK", _one_of(*TASKS), None, "classification or regression",
        "detected from the target",
    )  # fmt: skip
    header: str | None = _setting(
        "data", "yes|no", _one_of("yes", "no"), None,
        "whether the first row of a .csv holds column names", "detected",
    )  # fmt: skip
    missing: str = _setting(
        "data", "error|drop", _one_of("error", "drop"), "error",
        "rows with missing values: fail, or drop them",
    )  # fmt: skip
    categorical: tuple[str, ...] = _setting(
        "data", "COLUMN,...", COLUMNS, (),
        "columns to treat as categories although their values look like numbers, such as postal "
        "codes", "none",
    )  # fmt: skip
    ignore: tuple[str, ...] = _setting(
        "data", "COLUMN,...", COLUMNS, (), "columns to ignore", "none"
    )
    validation: float | str = _setting(
        "data", "FRACTION|FILE", _part(), 0.1,
        "rows that select the best epoch: a fraction of the training rows, a file, or 0 for none",
    )  # fmt: skip
    test: float | str | None = _setting(
        "data", "FRACTION|FILE", _part("own"), None,
        "rows for the final test, not used in training: a fraction, a file, 0 for none, or own "
        "for the part distributed with the data", "own if it exists, else 0.2",
    )  # fmt: skip
    scale: str | None = _setting(
        "data", "KIND", _one_of("auto", *SCALES, "none"), None,
        f"scaling of the features: auto, {', '.join(SCALES)}, none",
        "auto: unit for images of bytes, else robust",
    )  # fmt: skip

    hidden: tuple[int, ...] = _setting(
        "network", "N,N,...",
        _list_of(_whole(1), "whole numbers of at least 1, as in 100,50, or none", none=True),
        (200,),
        "units of each hidden layer; none for no hidden layer",
    )  # fmt: skip
    activation: tuple[str, ...] = _setting(
        "network", "NAME,...",
        _list_of(_formula(HIDDEN_ACTIVATIONS), "names of activations, as in relu,tanh"), ("relu",),
        "activation of the hidden layers, one for all or one for each: "
        f"{', '.join(HIDDEN_ACTIVATIONS)}; leaky_relu:0.2 and maxout:3 set their parameter",
    )  # fmt: skip
    output_activation: str | None = _setting(
        "network", "NAME", _formula(ACTIVATIONS), None, "activation of the output layer",
        "the one that suits the loss",
    )  # fmt: skip
    dropout: tuple[float, ...] | None = _setting(
        "network", "RATE,...", _list_of(BELOW_ONE, "numbers of at least 0 and below 1"), None,
        "fraction of units dropped in training, one for all hidden layers or one for each",
        "0.2 for layers of at least 128 units, else 0; 0 for lbfgs",
    )  # fmt: skip

    loss: str | None = _setting(
        "training", "NAME", _formula(LOSSES), None,
        f"loss function: {', '.join(LOSSES)}; huber:2 and quantile:0.9 set their parameter",
        "cross_entropy for classes, else quadratic",
    )  # fmt: skip
    optimizer: str = _setting(
        "training", "NAME", _one_of(*OPTIMIZER_NAMES), "adam",
        f"optimizer: {', '.join(OPTIMIZER_NAMES)}",
    )  # fmt: skip
    learning_rate: float | None = _setting(
        "training", "X", POSITIVE, None, "learning rate, to which the schedule applies",
        "that of the optimizer: 0.001 for adam",
    )  # fmt: skip
    momentum: float | None = _setting("training", "X", BELOW_ONE, None, "momentum of sgd", "0")
    schedule: str | None = _setting(
        "training", "NAME", TEXT, None,
        f"learning-rate schedule: {', '.join(SCHEDULE_NAMES)}; "
        "step:every=10,gamma=0.5 sets parameters", "cosine; constant for lbfgs",
    )  # fmt: skip
    batch_size: int | str = _setting(
        "training", "N|full", Kind("a whole number of at least 1, or full", _batch), 32,
        "rows per step; full for all rows",
    )  # fmt: skip
    epochs: int = _setting(
        "training", "N", _whole(1), 100, "maximum number of passes through the training rows"
    )
    patience: int = _setting(
        "training", "N", _whole(0), 20,
        "stop after N epochs without improvement; 0 for no early stopping",
    )  # fmt: skip
    monitor: str | None = _setting(
        "training", "COLUMN", TEXT, None, "column of the history that selects the best epoch",
        "valid_loss, or train_loss without validation",
    )  # fmt: skip

    l1: float = _setting("regularisation", "X", NOT_NEGATIVE, 0.0, "L1 penalty: X sum |w|")
    l2: float = _setting("regularisation", "X", NOT_NEGATIVE, 0.0, "L2 penalty: X/2 sum w^2")
    weight_decay: float = _setting(
        "regularisation", "X", NOT_NEGATIVE, 0.0,
        "decoupled weight decay: each step also does w *= 1 - rate X",
    )  # fmt: skip
    max_norm: float = _setting(
        "regularisation", "X", NOT_NEGATIVE, 0.0,
        "upper limit for the norm of each unit's incoming weights; 0 for none",
    )  # fmt: skip

    clip_norm: float = _setting(
        "regularisation", "X", NOT_NEGATIVE, 0.0,
        "upper limit for the norm of the gradient; 0 for none",
    )  # fmt: skip

    device: str | None = _setting(
        "machine", "DEVICE", TEXT, None, "auto, cpu, gpu, gpu:1, or a backend's name",
        "NNBACKEND_DEVICE, else auto",
    )  # fmt: skip
    dtype: str = _setting(
        "machine", "DTYPE", _one_of("float32", "float64"), "float32", "float32 or float64"
    )
    precision: str | None = _setting(
        "machine", "NAME", _one_of(*PRECISIONS), None,
        f"precision of float32 matrix products: {', '.join(PRECISIONS)}; on a CUDA GPU the last "
        "two are faster and less exact", "that of the device: float32",
    )  # fmt: skip
    seed: int = _setting(
        "machine", "N", _whole(0), 0, "seed of the weights, the splits, the row order and dropout"
    )
    target_accuracy: float | None = _setting(
        "results", "X", SHARE, None,
        "exit with 1 if the test accuracy is below X; without a test part, the validation "
        "accuracy; for a regression, r2", "none",
    )  # fmt: skip
    checkpoint: str = _setting(
        "results", "EVERY",
        Kind("N minutes, N epochs or N steps, with N above 0", _interval), "10 minutes",
        "interval between checkpoints, from which --resume continues: N minutes, N epochs or "
        "N steps",
    )  # fmt: skip


TABLE: dict[str, Field[Any]] = {f.name: f for f in fields(Settings)}


def resolve(given: Mapping[str, str], config: str | None) -> Settings:
    """Return the settings of a command line, given as {option name: text}.

    Raises: ArgumentError for an invalid value, or a config file that cannot be read.
    """
    values = {} if config is None else read_config(Path(config))
    for name, text in given.items():
        shown = name.upper() if name == "data" else f"--{name.replace('_', '-')}"
        values[name] = _parse(name, text, shown)
    return Settings(**values)


def _parse(name: str, text: str, shown: str) -> Any:
    kind: Kind = TABLE[name].metadata["kind"]
    try:
        return kind.parse(text)
    except ValueError as error:
        # Messages of int() and float() are about Python; only our messages are shown.
        why = str(error) if str(error).startswith("Known") else ""
        raise ArgumentError(
            f"{shown} must be {kind.expected}. Received: {text!r}. {why}".rstrip()
        ) from None


# ---- the config file ----------------------------------------------------------------------------


def read_config(path: Path) -> dict[str, Any]:
    """Read the settings of a config file, by name.

    Raises: ArgumentError if it cannot be read, or has an unknown key or an invalid value.
    """
    try:
        with path.open("rb") as file:
            stored = tomllib.load(file)
    except OSError as error:
        raise ArgumentError(f"--config must be a readable file. Received: {error}.") from error
    except (ValueError, RecursionError) as error:  # also for too long numbers, too deep nesting
        raise ArgumentError(f"{path}: the file must be TOML. Received: {error}.") from error
    values = {}
    for key, value in stored.items():
        if key not in TABLE:
            raise ArgumentError(f"{path}: unknown key {key!r}. {suggest(key, TABLE)}")
        items = value if isinstance(value, list) else [value]
        if any(isinstance(item, bool) or not isinstance(item, (str, int, float)) for item in items):
            raise ArgumentError(
                f"{path}: {key} must be text, a number or a list of them. Received: {value!r}."
            )
        if any(isinstance(item, int) and abs(item) >= 1 << 64 for item in items):
            raise ArgumentError(f"{path}: {key} must be a 64-bit number. Received: a larger one.")
        values[key] = _parse(key, ",".join(map(str, items)), f"{path}: {key}")
    return values


def to_toml(settings: Settings) -> str:
    """Return the text of a config file; settings that are None do not apply and are omitted."""
    lines = ["# All settings of a run, defaults included. Repeat it: nnbackend train --config FILE"]
    topic = ""
    for name, setting in TABLE.items():
        value = getattr(settings, name)
        if value is None:
            continue
        if setting.metadata["topic"] != topic:
            topic = setting.metadata["topic"]
            lines += ["", f"# {topic}"]
        lines.append(f"{name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        if not _is_unicode(value):
            raise ArgumentError(
                "names of files and folders must be text in UTF-8, as config.toml is. Received: "
                f"{value!r}. Rename it, or set PYTHONUTF8=1 if the system's locale is not UTF-8."
            )
        # A JSON string is a TOML string, except that JSON does not escape DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def _is_unicode(text: str) -> bool:
    """Return True if there are no bytes of a file name in it that are no characters."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def default_text(setting: Field[Any]) -> str:
    """Return a default as text for the help."""
    if setting.metadata["shown"] is not None:
        return str(setting.metadata["shown"])
    value = setting.default
    assert value is not MISSING
    if isinstance(value, tuple):
        return ",".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
