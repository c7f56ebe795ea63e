"""The space of a search: the settings to choose, and the values that each may have."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nnbackend.config import SETTINGS, Settings
from nnbackend.data import Dataset, default_scaler_kind
from nnbackend.data.scalers import KINDS
from nnbackend.errors import ArgumentError, Fault
from nnbackend.model.building import parse
from nnbackend.options import raise_all
from nnbackend.suggestions import suggest

if TYPE_CHECKING:
    from optuna import Trial

LAYERS, WIDTH = "layers", "width"  # number of hidden layers, and their units: together `hidden`
SEARCHABLE = (
    *(n for n, o in SETTINGS.items() if o.topic in ("network", "training", "regularisation")),
    *("scale", LAYERS, WIDTH),
)
SCALES = ("range", "log")
FORMS = '("log", low, high), ("range", low, high) or a list of values'
RATES = {"sgd": (1e-3, 1.0), "adagrad": (1e-3, 0.3), "adadelta": (1e-2, 10.0)}
ADAM_RATES = (1e-4, 1e-2)
BATCHES = (16, 32, 64, 128, 256, 512, 1024)
BATCHES_SHOWN = 5
LEAST_STEPS, MOST_STEPS = 8, 2000  # of an epoch, by the batch size


@dataclass(frozen=True)
class Range:
    """The numbers between two limits, both included; is_log: each decade is equally likely."""

    low: float
    high: float
    is_log: bool = False
    is_whole: bool = False

    def suggest(self, trial: Trial, name: str) -> Any:
        """Return the trial's value."""
        if self.is_whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.is_log)
        return trial.suggest_float(name, self.low, self.high, log=self.is_log)

    def nearest(self, value: Any) -> Any:
        """Return the value, or the limit that is closest to it."""
        near = min(max(value, self.low), self.high)
        return int(near) if self.is_whole else float(near)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', logarithmic' if self.is_log else ''}"


@dataclass(frozen=True)
class Choices:
    """Some values without an order."""

    values: tuple[Any, ...]

    def suggest(self, trial: Trial, name: str) -> Any:
        """Return the trial's value."""
        return trial.suggest_categorical(name, self.values)

    def nearest(self, value: Any) -> Any:
        """Return the value if it is one of these. Raises: ValueError."""
        if value not in self.values:
            raise ValueError
        return value

    def __str__(self) -> str:
        return ", ".join("none" if value is None else str(value) for value in self.values)


Dimensions = Mapping[str, Range | Choices]
Function = Callable[["Trial"], Mapping[str, Any]]
Space = Dimensions | Function


# ---- a space given by the user ------------------------------------------------------------------


def space_of(given: Any, fixed: Collection[str]) -> Space:
    """Return the space that a user gave: a dictionary, or a function of an Optuna trial.

    fixed: the settings that have a value already.
    Raises: ArgumentError for unknown settings and invalid values, all at once.
    """
    if callable(given):
        function: Function = given
        return function
    if not isinstance(given, Mapping) or not given:
        expected = "a dictionary of setting -> values, or a function of an Optuna trial"
        raise ArgumentError(Fault("space", expected, given))
    errors: list[ArgumentError] = []
    space: dict[str, Range | Choices] = {}
    for name, form in given.items():
        try:
            _check_name(name, given, fixed)
            space[name] = _dimension(name, form)
        except ArgumentError as error:
            errors.append(error)
    raise_all(errors)
    return space


def _check_name(name: str, given: Mapping[str, Any], fixed: Collection[str]) -> None:
    if name not in SEARCHABLE:
        raise ArgumentError(
            f"space: {name!r} must be a setting that can be searched. {suggest(name, SEARCHABLE)}"
        )
    is_hidden = name in (LAYERS, WIDTH)
    if name in fixed or (is_hidden and "hidden" in fixed):
        raise ArgumentError(
            f"space: {name!r} must be either searched or set. Received: both. Omit one."
        )
    if is_hidden and "hidden" in given:
        raise ArgumentError(
            f"space: hidden layers must be either 'hidden' or 'layers' and 'width'. Received: "
            f"'hidden' and {name!r}. Omit one."
        )


def _dimension(name: str, form: Any) -> Range | Choices:
    """Return the values of a setting: of a tuple, a list, or a text of the command line."""
    if isinstance(form, Range | Choices):
        return form
    if isinstance(form, str):
        words = form.split(":") if form.partition(":")[0] in SCALES else form.split("|")
        form = [words[0], *map(_number, words[1:])] if words[0] in SCALES else words
    if not isinstance(form, (list, tuple)) or not form:
        raise ArgumentError(Fault(f"space: {name}", FORMS, form))
    if form[0] in SCALES:
        return _range(name, form)
    kind = SETTINGS[name].kind if name in SETTINGS else None
    values = []
    for value in form:
        setting_value(name, value)  # raises
        is_list = isinstance(value, (list, tuple))
        values.append(kind.text(tuple(value)) if is_list and kind else value)
    return Choices(tuple(dict.fromkeys(values)))


def _range(name: str, form: Any) -> Range:
    is_log = form[0] == "log"
    limits = [v for v in form[1:] if isinstance(v, (int, float)) and not isinstance(v, bool)]
    is_good = len(form) == 3 and len(limits) == 2 and limits[0] < limits[1]
    if not is_good or not all(map(math.isfinite, limits)) or (is_log and limits[0] <= 0):
        above = " above 0" if is_log else ""
        raise ArgumentError(
            Fault(f"space: {name}", f"({form[0]!r}, low, high) with numbers{above}, low < high",
                  tuple(form))
        )  # fmt: skip
    for limit in limits:
        setting_value(name, limit)
    low, high = limits
    try:  # a number that is not whole
        setting_value(name, low + (high - low) / math.pi)
    except ArgumentError:
        return Range(low, high, is_log, is_whole=True)
    return Range(float(low), float(high), is_log)


def _number(text: str) -> Any:
    """Return the number of a text; other texts are refused with their range."""
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


# ---- the default space --------------------------------------------------------------------------


def default_space(settings: Settings, data: Dataset, fixed: Collection[str]) -> Dimensions:
    """Return the space for data that is searched unless the user gives another.

    fixed: the settings that have a value already; they are not searched.
    """
    optimizer = settings.optimizer.partition(":")[0]
    space: dict[str, Range | Choices] = {
        LAYERS: Range(1, 3, is_whole=True),
        WIDTH: Range(16, 512, is_log=True, is_whole=True),
        "activation": Choices(("relu", "silu", "tanh")),
        "learning_rate": Range(*RATES.get(optimizer, ADAM_RATES), is_log=True),
        "weight_decay": Range(1e-5, 0.3, is_log=True),
        "dropout": Range(0.0, 0.5),
        "batch_size": Choices(_batches(data.n_samples)),
        "scale": Choices(_scales(data)),
    }
    if optimizer == "lbfgs":
        for name in ("learning_rate", "weight_decay", "dropout", "batch_size"):
            del space[name]
        space["l2"] = Range(1e-6, 0.1, is_log=True)
    fixed = {*fixed, *((LAYERS, WIDTH) if "hidden" in fixed else ())}
    if "learning_rate" in settings.optimizer:
        fixed.add("learning_rate")
    left = {name: values for name, values in space.items() if name not in fixed}
    if not left:
        raise ArgumentError(
            "a search needs a setting without a value. Received: values for all of "
            f"{', '.join(space)}. Omit one, or give a space."
        )
    return left


def _batches(n: int) -> tuple[int, ...]:
    sizes = [size for size in BATCHES if LEAST_STEPS * size <= n <= MOST_STEPS * size]
    return tuple(sizes[:BATCHES_SHOWN]) or (BATCHES[0] if n < MOST_STEPS else BATCHES[-1],)


def _scales(data: Dataset) -> tuple[str, ...]:
    if default_scaler_kind(data.x) == "unit":
        return "unit", "standard"
    return tuple(kind for kind in KINDS if kind != "unit")


def describe(space: Space) -> list[str]:
    """Return a line for each setting of a space."""
    if not isinstance(space, Mapping):
        return [f"function {getattr(space, '__qualname__', type(space).__name__)}"]
    return [f"{name}: {values}" for name, values in space.items()]


# ---- from values to settings --------------------------------------------------------------------


def suggest_values(space: Space, trial: Trial) -> dict[str, Any]:
    """Return the values that a trial tries.

    Raises: ArgumentError if a function of the user returns something else than settings.
    """
    if isinstance(space, Mapping):
        return {name: values.suggest(trial, name) for name, values in space.items()}
    found = space(trial)
    if not isinstance(found, Mapping):
        raise ArgumentError(
            "the function of a space must return a dictionary of settings. Received: "
            f"{type(found).__name__}."
        )
    for name in found:
        _check_name(name, found, ())
    return dict(found)


def apply(values: Mapping[str, Any], settings: Settings) -> Settings:
    """Return settings with the values of a trial. Raises: ArgumentError for invalid ones."""
    rest = {name: value for name, value in values.items() if name not in (LAYERS, WIDTH)}
    found = {name: setting_value(name, value) for name, value in rest.items()}
    if LAYERS in values or WIDTH in values:
        n = values.get(LAYERS, len(settings.hidden))
        found["hidden"] = (values.get(WIDTH, max(settings.hidden, default=0)),) * n
    return replace(settings, **found)


def setting_value(name: str, value: Any) -> Any:
    """Return a value as the setting holds it; text is read as on the command line.

    Raises: ArgumentError if the setting does not accept it.
    """
    if name in (LAYERS, WIDTH):
        return setting_value("hidden", value)
    if isinstance(value, str):
        return parse(name, value)
    kind = SETTINGS[name].kind
    if isinstance(value, list):
        value = tuple(value)
    for form in (value, (value,)):  # one value for all layers
        if kind.is_good(form):
            return form
    raise ArgumentError(Fault(name, kind.expected, value))


def default_values(space: Space, settings: Settings) -> dict[str, Any]:
    """Return the values of the space that are closest to completed settings, where it has some."""
    if not isinstance(space, Mapping):
        return {}
    known: dict[str, Any] = {
        LAYERS: len(settings.hidden),
        WIDTH: max(settings.hidden, default=1),
    }
    near = {}
    for name, values in space.items():
        value = known[name] if name in known else getattr(settings, name)
        if isinstance(values, Range):
            value = max(value, default=0) if isinstance(value, tuple) else value
        elif isinstance(value, tuple):
            value = SETTINGS[name].kind.text(value)
        try:
            near[name] = values.nearest(value)
        except (TypeError, ValueError):  # no value, or none of the choices
            continue
    return near
