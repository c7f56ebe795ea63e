"""Errors of the estimators for invalid input, with their cures."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import nnbackend as nn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
LABELS = np.arange(60) % 3
VALUES = RNG.normal(size=(60, 2))
SMALL: dict[str, Any] = {"hidden_layer_sizes": 4, "max_iter": 2, "random_state": 0}


@pytest.fixture(autouse=True)
def _few_epochs_do_not_converge() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


CLASSIFIER_SETS: list[tuple[Any, str]] = [
    ([(X, LABELS)], "one set. Received: list of 1"),
    (X, "one set. Received: ndarray"),
    ((X, LABELS + 1), r"Received: \[3\] too"),
    ((X, np.array(list("abc"))[LABELS]), "eval_set must have labels of the training rows only"),
    ((X, LABELS[:5]), r"inconsistent numbers of samples: \[60, 5\]"),
    ((X[:, :3], LABELS), "3 features"),
    ((X[:0], LABELS[:0]), "minimum of 1 is required"),
]
REGRESSOR_SETS: list[tuple[Any, str]] = [
    ((X, VALUES[:, 0]), r"must have 2 column\(s\), as y has. Received: y.shape=\(60,\)"),
    ((X, VALUES.astype(str)), "y must hold numbers"),
    ((X, np.where(VALUES > 1, np.nan, VALUES)), "y of eval_set contains NaN"),
]


@pytest.mark.parametrize("kind", [nn.MLPClassifier, nn.TabularMLPClassifier])
@pytest.mark.parametrize(("eval_set", "said"), CLASSIFIER_SETS)
def test_a_validation_set_must_fit_the_classes(eval_set: Any, said: str, kind: Any) -> None:
    with pytest.raises(ValueError, match=said):
        kind(**SMALL).fit(X, LABELS, eval_set=eval_set)


@pytest.mark.parametrize("kind", [nn.MLPRegressor, nn.TabularMLPRegressor])
@pytest.mark.parametrize(("eval_set", "said"), REGRESSOR_SETS)
def test_a_validation_set_must_fit_the_values(eval_set: Any, said: str, kind: Any) -> None:
    with pytest.raises(ValueError, match=said):
        kind(**SMALL).fit(X, VALUES, eval_set=eval_set)


def test_a_validation_set_accepts_labels_as_a_column() -> None:
    fits = [
        nn.MLPClassifier(**SMALL).fit(X, LABELS, eval_set=(X, y)) for y in (LABELS, LABELS[:, None])
    ]
    assert fits[0].validation_scores_ == fits[1].validation_scores_


def test_text_is_not_accepted_as_numbers() -> None:
    with pytest.raises(ValueError, match="use MLPClassifier for classes"):
        nn.MLPRegressor(**SMALL).fit(X, VALUES.astype(str))
    objects = VALUES.astype(str).astype(object)  # scikit-learn accepts these as numbers
    model = nn.MLPRegressor(**SMALL).fit(X, objects, eval_set=(X, objects))
    assert len(model.validation_scores_) == SMALL["max_iter"]


def test_arrays_of_another_gpu_raise_with_a_cure() -> None:
    class OnGPU:
        dtype, __cuda_array_interface__ = np.dtype("float64"), {"shape": (60, 4)}

    with pytest.raises(ValueError, match=r"device, numpy:0. Received: OnGPU on a GPU"):
        nn.MLPClassifier(device="numpy", **SMALL).fit(OnGPU(), LABELS)


@pytest.mark.parametrize("loss", [nn.losses.cross_entropy(), nn.losses.binary_cross_entropy()])
def test_the_regressor_rejects_classification_losses(loss: Any) -> None:
    with pytest.raises(ValueError, match="Use MLPClassifier for classes"):
        nn.MLPRegressor(loss, **SMALL).fit(X, VALUES)


@pytest.mark.parametrize(
    "callbacks",
    [[1], [nn.EarlyStopping()], [nn.Checkpoints("never-made", epochs=1)]],
    ids=[
        "number",
        "EarlyStopping",
        "Checkpoints",
    ],  # without addresses, which differ between the processes of pytest -n
)
def test_callbacks_must_be_nnbackend_callbacks(callbacks: list[Any]) -> None:
    with pytest.raises(ValueError, match="To stop early, set early_stopping=True") as told:
        nn.MLPClassifier(callbacks=callbacks, **SMALL).fit(X, LABELS)
    assert "Watch" not in str(told.value)


def test_transform_without_hidden_layers_raises() -> None:
    model = nn.MLPClassifier(**{**SMALL, "hidden_layer_sizes": ()}).fit(X, LABELS)
    with pytest.raises(ValueError, match="needs a hidden layer"):
        model.transform(X)


@pytest.mark.parametrize("kind", [nn.MLPClassifier, nn.MLPRegressor])
def test_a_missing_partial_fit_has_a_reason(kind: Any) -> None:
    model = kind(solver="lbfgs", **SMALL)
    assert not hasattr(model, "partial_fit")
    with pytest.raises(AttributeError, match="no attribute 'partial_fit'") as raised:
        model.partial_fit(X, LABELS)
    assert "Use fit, or another solver, such as 'adam'" in str(raised.value.__cause__)
    assert hasattr(model.set_params(solver="adam"), "partial_fit")
    assert not hasattr(nn.TabularMLPClassifier(), "partial_fit")


@pytest.mark.parametrize("weights", [{0: -1}, {0: float("nan")}, {0: 0, 1: 0, 2: 0}])
def test_an_invalid_class_weight_raises(weights: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="class_weight must be numbers, at least 0 and not all 0"):
        nn.MLPClassifier(class_weight=weights, **SMALL).fit(X, LABELS)
