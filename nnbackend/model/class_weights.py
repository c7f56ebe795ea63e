"""Weights of classes, as in "balanced" or "yes=10"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnbackend.errors import ArgumentError, Fault
from nnbackend.options import ABOVE_0, raise_all
from nnbackend.suggestions import suggest

BALANCED = "balanced"
EXPECTED = f"{BALANCED}, or CLASS=WEIGHT,... with weights above 0, as in yes=10"


def class_weights(
    given: Sequence[str], y: np.ndarray | None, classes: Sequence[Any] | None
) -> np.ndarray | None:
    """Return the weights of the classes (n_classes,), or None if none are given.

    given: "balanced" alone, for which all classes weigh the same in total; or CLASS=WEIGHT, where
    the other classes have the weight 1.  y: the codes of the training rows (n,).
    Raises: ArgumentError for a regression, unknown classes and invalid weights, all at once.
    """
    if not given:
        return None
    if classes is None or y is None or y.ndim != 1:
        raise ArgumentError(Fault("class_weight", "none for a regression", ",".join(given)))
    n = len(classes)
    if tuple(given) == (BALANCED,):
        counts = np.bincount(y, minlength=n)
        found: np.ndarray = len(y) / (n * np.maximum(counts, 1))
        return found
    positions = {str(label): code for code, label in enumerate(classes)}
    weights, faults = np.ones(n), []
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            weight = ABOVE_0.parse(number)
        except ValueError:
            faults.append(Fault("class_weight", EXPECTED, text))
            continue
        if name in positions:
            weights[positions[name]] = weight
        else:
            faults.append(
                Fault("class_weight", "weights of the classes of the target", text,
                      (suggest(name, positions),))
            )  # fmt: skip
    raise_all(faults)
    return weights
