"""What the estimators refuse, and that they say what to do."""

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
    ((X, np.array(list("abc"))[LABELS]), "eval_set may have only labels that were learnt"),
    ((X, LABELS[:5]), r"inconsistent numbers of samples: \[60, 5\]"),
    ((X[:, :3], LABELS), "3 features"),
    ((X[:0], LABELS[:0]), "minimum of 1 is required"),
]
REGRESSOR_SETS: list[tuple[Any, str]] = [
    ((X, VALUES[:, 0]), r"must have 2 column\(s\), as y has. Received: y.shape=\(60,\)"),
    ((X, VALUES.astype(str)), "y must hold numbers"),
    ((X, np.where(VALUES > 1, np.nan, VALUES)), "y of eval_set contains NaN"),
]


@pytest.mark.parametrize("preset", [None, "tabular"])
@pytest.mark.parametrize(("eval_set", "said"), CLASSIFIER_SETS)
def test_a_validation_set_must_fit_the_classes(
    eval_set: Any, said: str, preset: str | None
) -> None:
    with pytest.raises(ValueError, match=said):
        nn.MLPClassifier(preset=preset, **SMALL).fit(X, LABELS, eval_set=eval_set)


@pytest.mark.parametrize("preset", [None, "tabular"])
@pytest.mark.parametrize(("eval_set", "said"), REGRESSOR_SETS)
def test_a_validation_set_must_fit_the_values(eval_set: Any, said: str, preset: str | None) -> None:
    with pytest.raises(ValueError, match=said):
        nn.MLPRegressor(preset=preset, **SMALL).fit(X, VALUES, eval_set=eval_set)


def test_a_column_as_the_truth_of_a_validation_set_is_taken() -> None:
    fits = [
        nn.MLPClassifier(**SMALL).fit(X, LABELS, eval_set=(X, y)) for y in (LABELS, LABELS[:, None])
    ]
    assert fits[0].validation_scores_ == fits[1].validation_scores_


def test_text_is_no_number() -> None:
    with pytest.raises(ValueError, match="learn classes with MLPClassifier"):
        nn.MLPRegressor(**SMALL).fit(X, VALUES.astype(str))
    objects = VALUES.astype(str).astype(object)  # which scikit-learn does take for numbers
    model = nn.MLPRegressor(**SMALL).fit(X, objects, eval_set=(X, objects))
    assert len(model.validation_scores_) == SMALL["max_iter"]


def test_arrays_of_another_gpu_are_told_the_way() -> None:
    class OnGPU:
        dtype, __cuda_array_interface__ = np.dtype("float64"), {"shape": (60, 4)}

    with pytest.raises(ValueError, match=r"device, numpy:0. Received: OnGPU on a GPU"):
        nn.MLPClassifier(device="numpy", **SMALL).fit(OnGPU(), LABELS)


@pytest.mark.parametrize("loss", [nn.losses.cross_entropy(), nn.losses.binary_cross_entropy()])
def test_the_regressor_takes_no_loss_of_classes(loss: Any) -> None:
    with pytest.raises(ValueError, match="Learn classes with MLPClassifier"):
        nn.MLPRegressor(loss, **SMALL).fit(X, VALUES)


@pytest.mark.parametrize(
    "callbacks",
    [[1], [nn.EarlyStopping()], [nn.Checkpoints("never-made", epochs=1)]],
    ids=["number", "EarlyStopping", "Checkpoints"],  # no address: pytest -n collects alike
)
def test_callbacks_are_callbacks_of_ours(callbacks: list[Any]) -> None:
    with pytest.raises(ValueError, match="To stop early, set early_stopping=True") as told:
        nn.MLPClassifier(callbacks=callbacks, **SMALL).fit(X, LABELS)
    assert "Watch" not in str(told.value)


def test_without_a_hidden_layer_there_is_nothing_to_transform_to() -> None:
    model = nn.MLPClassifier(**{**SMALL, "hidden_layer_sizes": ()}).fit(X, LABELS)
    with pytest.raises(ValueError, match="needs a hidden layer"):
        model.transform(X)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"preset": "tabular"}, "Use fit, or preset=None"), ({"solver": "lbfgs"}, "as 'adam'")],
    ids=str,
)
def test_who_has_no_partial_fit_says_why(settings: dict[str, Any], said: str) -> None:
    model = nn.MLPClassifier(**SMALL, **settings)
    assert not hasattr(model, "partial_fit")
    with pytest.raises(AttributeError, match=f"no attribute 'partial_fit': .*{said}"):
        model.partial_fit(X, LABELS, classes=[0, 1, 2])


@pytest.mark.parametrize("weights", [{0: -1}, {0: float("nan")}, {0: 0, 1: 0, 2: 0}])
def test_a_class_weight_must_be_a_weight(weights: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="class_weight must be numbers, at least 0 and not all 0"):
        nn.MLPClassifier(class_weight=weights, **SMALL).fit(X, LABELS)
