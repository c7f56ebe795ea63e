"""The documented exception tree is correct, and each class derives from a built-in exception."""

from __future__ import annotations

import inspect
import pickle
import re
from typing import Any

import pytest

from nnbackend import errors, suggestions
from nnbackend.config import SETTINGS
from nnbackend.data.scalers import KINDS
from nnbackend.devices.registry import BUILT_IN
from nnbackend.errors import NNBackendError
from nnbackend.metrics import METRICS
from nnbackend.network.activations import ACTIVATIONS, get_activation
from nnbackend.network.initializers import INITIALIZERS, get_initializer
from nnbackend.network.losses import LOSSES, get_loss
from nnbackend.suggestions import suggest
from nnbackend.training.optimizers import OPTIMIZERS, get_optimizer
from nnbackend.training.schedules import SCHEDULES, get_schedule

CLASSES = [
    value for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, NNBackendError)
]  # fmt: skip
BUILT_IN_BASES = {
    "UnknownBackendError": ValueError,
    "BackendUnavailableError": RuntimeError,
    "BackendVersionError": RuntimeError,
    "DeviceMemoryError": MemoryError,
    "DeviceLostError": RuntimeError,
    "DeviceMismatchError": TypeError,
    "ArgumentError": ValueError,
    "ShapeError": ValueError,
    "DataError": ValueError,
    "ModelFileError": ValueError,
    "DivergedError": ArithmeticError,
}


def test_the_documented_tree_is_correct() -> None:
    drawn: dict[str, tuple[str, str]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"^ {4}([│├└─ ]*)(\w+Error)(?:\s+\((\w+)\))?", line):
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            drawn[found[2]] = (path[depth - 1] if depth else "", found[3] or "")
    assert set(drawn) == {c.__name__ for c in CLASSES}
    for kind in CLASSES:
        parent, also = drawn[kind.__name__]
        bases = {base.__name__ for base in kind.__bases__}
        assert bases == ({parent} if parent else {"Exception"}) | ({also} if also else set())


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_each_derives_from_a_built_in_exception(kind: type[NNBackendError]) -> None:
    assert issubclass(kind, BUILT_IN_BASES.get(kind.__name__, Exception))
    assert kind.__doc__
    again = pickle.loads(pickle.dumps(kind("words")))
    assert type(again) is kind
    assert str(again) == "words"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rellu", "Known: relu, tanh. Did you mean 'relu'?"),
        ("tan", "Known: relu, tanh. Did you mean 'tanh'?"),
        ("xyz", "Known: relu, tanh."),
        ("", "Known: relu, tanh."),
    ],
)
def test_suggest_returns_the_closest_name(name: str, text: str) -> None:
    assert suggest(name, ["tanh", "relu"]) == text


@pytest.mark.parametrize(
    ("get", "written", "meant"),
    [
        (get_loss, "mse", "quadratic"),
        (get_loss, "MAE", "absolute"),
        (get_loss, "bce", "binary_cross_entropy"),
        (get_loss, "nll", "cross_entropy"),
        (get_loss, "sparse_categorical_crossentropy", "cross_entropy"),
        (get_loss, "log-loss", "cross_entropy"),
        (get_activation, "swish", "silu"),
        (get_activation, "LeakyReLU", "leaky_relu"),
        (get_activation, "logistic", "sigmoid"),
        (get_activation, "linear", "identity"),
        (get_optimizer, "RMSprop", "rmsprop"),
        (get_optimizer, "Adam", "adam"),
        (get_optimizer, "L-BFGS", "lbfgs"),
        (get_initializer, "xavier_uniform", "glorot_uniform"),
        (get_initializer, "kaiming_normal", "he_normal"),
        (get_schedule, "CosineAnnealing", "cosine"),
    ],
)
def test_names_of_other_libraries_suggest_ours(get: Any, written: str, meant: str) -> None:
    with pytest.raises(errors.ArgumentError, match=f"Did you mean '{meant}'"):
        get(written)


def test_every_entry_of_other_names_is_one_of_our_names() -> None:
    ours = {*ACTIVATIONS, *LOSSES, *OPTIMIZERS, *INITIALIZERS, *SCHEDULES, *KINDS, *BUILT_IN}
    assert suggestions.OTHER_NAMES.keys() <= ours | SETTINGS.keys() | METRICS.keys() | {"out"}
