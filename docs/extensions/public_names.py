"""The public names that the API reference documents, by page."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, get_args

import nnbackend

# Members that all classes of a family inherit and that no user calls.
HIDDEN = {"kernel", "params", "coefficients", "is_several", "spelled"}
# Members for the library's own parts, which stand after the others.
LAST = ("workspace", "for_training", "device_targets", "rows_on_device")


@dataclass(frozen=True)
class Page:
    """A page of the reference: single names of nnbackend, and modules with all of theirs."""

    name: str
    title: str
    about: str
    names: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


PAGES = (
    Page("models", "Models", "From rows of a table to labels or values, and to files.",
         ("Model", "load", "export", "tune", "live", "metrics.metrics_of",
          "model.dependence.partial_dependence")),
    Page("estimators", "Estimators", "The interface of scikit-learn: "
         ":doc:`/estimators` says how they differ from scikit-learn's.",
         ("MLPClassifier", "MLPRegressor", "TabularMLPClassifier", "TabularMLPRegressor")),
    Page("networks", "Networks and layers", "The mathematics on arrays, and its intermediate "
         "results: see :doc:`/backprop`.",
         ("Network", "Dense", "Maxout", "Dropout", "Trace", "Gradient", "check_gradients")),
    Page("formulas", "Activations, losses, initial weights", "Each has a name for options, and a "
         "class for custom formulas.", ("Activation", "Loss"),
         ("activations", "losses", "initializers")),
    Page("training", "Training", "A run, its optimizer and its callbacks.",
         ("train", "resume", "SGD", "Adam", "AdamW", "RMSProp", "AdaGrad", "AdaDelta", "LBFGS",
          "EarlyStopping", "History", "Callback", "Checkpoints", "TensorBoard",
          "persistence.metrics_log.MetricsLog"),
         ("schedules",)),
    Page("data", "Data", "Reading and scaling; see :doc:`/tables`.", (), ("data",)),
    Page("plots", "Plots", "The :doc:`gallery </pictures>` shows one of each kind.",
         (), ("plots",)),
    Page("explain", "Explanations", "The five steps of backpropagation with a row's numbers.",
         (), ("explain",)),
    Page("devices", "Devices", "Choose a device, or write one: see :doc:`/devices` and "
         ":doc:`/write-a-backend`.", ("backends", "get_backend", "Backend")),
    Page("distributed", "Several processes", "See :doc:`/ranks`.", (), ("distributed",)),
    Page("testing", "Tests of backends and gradients", "See :doc:`/conformance`.",
         (), ("testing",)),
    Page("errors", "Errors", "All errors of the library are of the first class.",
         ("NNBackendError", "DeviceLostError", "DeviceMemoryError"), ("errors",)),
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A documented name, its object, and the names of its documented members."""

    name: str
    value: Any
    members: tuple[str, ...] = ()

    @property
    def directive(self) -> str:
        """The directive of autodoc for it."""
        if inspect.isclass(self.value):
            return "autoexception" if issubclass(self.value, Exception) else "autoclass"
        return "autofunction" if inspect.isroutine(self.value) else "autodata"

    @property
    def text(self) -> str:
        """Its docstring; of a constant its keys or values."""
        if self.directive != "autodata":
            return inspect.getdoc(self.value) or ""
        if isinstance(self.value, dict):
            return f"A dictionary with the keys {', '.join(map(repr, self.value))}."
        values = get_args(self.value)
        names = [getattr(each, "__name__", repr(each)) for each in values]
        return f"One of {', '.join(names)}."


def module_of(name: str) -> ModuleType:
    """Return a documented module, such as nnbackend.activations."""
    found = getattr(nnbackend, name, None)
    return found if inspect.ismodule(found) else importlib.import_module(f"nnbackend.{name}")


def _public(module: ModuleType) -> list[str]:
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return list(listed)
    package = f"{module.__name__}."
    return [
        name
        for name, value in vars(module).items()
        if (inspect.isfunction(value) or inspect.isclass(value)) and name[0] != "_"
        if value.__module__ == module.__name__ or f"{value.__module__}.".startswith(package)
    ]


def _members(kind: type) -> Iterator[str]:
    """Yield the public methods and properties that nnbackend defines, in their order."""
    names: dict[str, None] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("nnbackend") and not base.__name__.endswith("Conformance"):
            names |= dict.fromkeys(name for name in vars(base) if name[0] != "_")
    for name in sorted(names, key=lambda name: name in LAST):
        value = inspect.getattr_static(kind, name, None)
        is_method = isinstance(value, staticmethod | classmethod | property)
        is_method |= inspect.isfunction(value) or hasattr(value, "fn")
        is_request = name.startswith("set_") and name.endswith("_request")
        if is_method and name not in HIDDEN and not is_request and _has_doc(kind, name):
            yield name


def _has_doc(kind: type, name: str) -> bool:
    return bool(inspect.getdoc(getattr(kind, name, None)))


def _value(name: str) -> Any:
    """Return the object of a name below nnbackend, in a module if it has dots."""
    module, _, last = f"nnbackend.{name}".rpartition(".")
    return getattr(importlib.import_module(module), last)


def _entry(name: str, value: Any) -> Entry:
    members = tuple(_members(value)) if inspect.isclass(value) else ()
    return Entry(name, value, members)


@cache
def entries(page: Page) -> tuple[Entry, ...]:
    """Return the documented names of a page; a name of nnbackend is documented as such only."""
    found = [_entry(f"nnbackend.{name}", _value(name)) for name in page.names]
    top = [getattr(nnbackend, name) for name in nnbackend.__all__]
    for name in page.modules:
        module = module_of(name)
        for part in _public(module):
            value = getattr(module, part)
            if not any(value is known for known in top):
                found.append(_entry(f"nnbackend.{name}.{part}", value))
    return tuple(sorted(found, key=_order)) if page.modules and not page.names else tuple(found)


def _order(entry: Entry) -> int:
    """Functions first, then classes, then constants."""
    return ("autofunction", "autoclass", "autoexception", "autodata").index(entry.directive)


@cache
def documented() -> dict[str, str]:
    """Return all documented names, with the short forms that pages use -> the full name."""
    found: dict[str, str] = {}
    for page in PAGES:
        for entry in entries(page):
            last = entry.name.rpartition(".")[2]
            for name in (entry.name, *(f"{entry.name}.{member}" for member in entry.members)):
                found[name] = name
                found.setdefault(name.removeprefix("nnbackend."), name)
                if inspect.isclass(entry.value):
                    found.setdefault(last + name.removeprefix(entry.name), name)
    return found


def undocumented() -> list[str]:
    """Return the public names of nnbackend that no page has."""
    listed = {name for page in PAGES for name in (*page.names, *page.modules)}
    return [name for name in nnbackend.__all__ if name not in listed]
