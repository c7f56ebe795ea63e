"""What can be set on the page: a part of the table of options, with stricter limits.

A page must not name files, so only the listed options are accepted, and `validation` is a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from nnbackend.config import SETTINGS, Settings
from nnbackend.data.scalers import KINDS
from nnbackend.errors import ArgumentError, Fault
from nnbackend.model.building import LOSSES_OF, parse
from nnbackend.named import FAMILIES, make_named
from nnbackend.options import all_of, check, raise_all, unknown_keywords

MAX_LAYERS, MAX_UNITS, MAX_EPOCHS, MAX_TEXT = 6, 256, 100_000, 200
# The options of the page, and whether a change draws new weights.
NEW_WEIGHTS = {
    "hidden": True, "activation": True, "output_activation": True, "loss": True,
    "initializer": True, "validation": True, "scale": True, "device": True, "dtype": True,
    "seed": True, "dropout": False, "optimizer": False, "learning_rate": False, "momentum": False,
    "schedule": False, "batch_size": False, "epochs": False, "l1": False, "l2": False,
    "weight_decay": False,
}  # fmt: skip
# Those of the network itself, which are fixed for a network from Python.
STRUCTURE = (
    *("hidden", "activation", "output_activation", "dropout", "loss", "initializer"),
    *("device", "dtype", "seed"),
)
AUTOMATIC = ("output_activation", "loss", "learning_rate", "momentum")  # None: chosen
# Rates at which a small network learns visibly within a few hundred steps.
RATES = {"adam": 0.01, "adamw": 0.01, "rmsprop": 0.01, "sgd": 0.1, "adagrad": 0.1}
START = Settings(
    hidden=(8, 8), activation=("tanh", "tanh"), dropout=(0.0, 0.0), optimizer="adam",
    learning_rate=RATES["adam"], schedule="constant", batch_size=32, epochs=5000, validation=0.2,
    test=0.0, scale="none", patience=0,
)  # fmt: skip


@dataclass(frozen=True)
class PageOptions:
    """The values of the page's controls: settings of a run, and the initial weights.

    initializer: a name of `nnbackend.initializers`, or "auto" for the activation's own.
    """

    settings: Settings = field(default_factory=lambda: START)
    initializer: str = "auto"

    def changed(self, given: Mapping[str, Any], devices: tuple[str, ...]) -> PageOptions:
        """Return the options with some texts replaced, as the page sends them.

        Raises: ArgumentError for unknown names and invalid values, all at once.
        """
        raise_all(unknown_keywords("the page", given, NEW_WEIGHTS))
        values = dict(zip(given, all_of(*_readers(given, devices)), strict=True))
        initializer = values.pop("initializer", self.initializer)
        for name in ("activation", "dropout"):
            if "hidden" in values and name not in values:
                values[name] = _for_each(getattr(self.settings, name), len(values["hidden"]))
        if "optimizer" in values and "learning_rate" not in values:
            name, _, own = values["optimizer"].partition(":")
            values["learning_rate"] = None if "learning_rate" in own else RATES.get(name)
        if values.get("optimizer", self.settings.optimizer).partition(":")[0] != "sgd":
            values["momentum"] = None
        return PageOptions(replace(self.settings, **values), initializer)

    def texts(self) -> dict[str, str]:
        """Return the values as texts, by name; "" for those that are chosen automatically."""
        found = {"initializer": self.initializer}
        for name in NEW_WEIGHTS:
            if name != "initializer":
                value = getattr(self.settings, name)
                is_auto = value is None and name in AUTOMATIC
                found[name] = "" if is_auto else SETTINGS[name].kind.text(value)
        return found

    @property
    def toml_names(self) -> tuple[str, ...]:
        """The names of the options that a config file has too."""
        return tuple(name for name in NEW_WEIGHTS if name != "initializer")


def _for_each(values: tuple[Any, ...], n: int) -> tuple[Any, ...]:
    """Return one value for each of n layers, at least one: the last one is repeated."""
    return (*values, *[values[-1]] * n)[: max(n, 1)]


def _readers(given: Mapping[str, Any], devices: tuple[str, ...]) -> list[Callable[[], Any]]:
    def reader(name: str, value: Any) -> Callable[[], Any]:
        return lambda: read(name, value, devices)

    return [reader(name, value) for name, value in given.items()]


def read(name: str, text: Any, devices: tuple[str, ...]) -> Any:
    """Return the value of an option's text. Raises: ArgumentError."""
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise ArgumentError(Fault(name, f"a text of at most {MAX_TEXT} characters", str(text)[:40]))
    if name == "initializer":
        if text != "auto":
            make_named("initializer", text)
        return text
    if name in AUTOMATIC and text == "":
        return None
    value = parse(name, text)
    if name in _LIMITS:
        accepts, expected = _LIMITS[name]
        check(name, value, accepts, expected)
    if name in ("device", "scale") and value not in (known := (*devices, *SCALES)):
        raise ArgumentError(Fault(name, f"one of {', '.join(known)}", value))
    return value


SCALES = (*KINDS, "none")
_LIMITS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "hidden": (
        lambda v: len(v) <= MAX_LAYERS and all(n <= MAX_UNITS for n in v),
        f"at most {MAX_LAYERS} layers of at most {MAX_UNITS} units",
    ),
    "validation": (lambda v: 0.0 <= v <= 0.9, "a fraction from 0 to 0.9"),
    "epochs": (lambda v: v <= MAX_EPOCHS, f"at most {MAX_EPOCHS}"),
}


def choices(task: str, devices: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the names that the page offers, by option."""
    names = {
        name: list(FAMILIES[family].known)
        for name, family in (
            ("activation", "hidden_activation"), ("output_activation", "activation"),
            ("optimizer", "optimizer"), ("schedule", "schedule"), ("initializer", "initializer"),
        )
    }  # fmt: skip
    names["initializer"] = ["auto", *names["initializer"]]
    return names | {
        "loss": list(LOSSES_OF[task]),
        "scale": list(SCALES),
        "device": list(devices),
        "dtype": ["float32", "float64"],
    }
