"""Calibration of probabilities by rows that were not trained on."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

RANGE = 3.0  # the temperature is within exp(-3) and exp(3)


def temperature(log_p: np.ndarray, codes: np.ndarray, weights: np.ndarray) -> float:
    """Return the T at which softmax(log_p / T) has the least mean log loss.

    Below 1 for probabilities that are too even, as label smoothing makes them; above 1 for too
    extreme ones.
    Shapes: log_p (n, n_classes); codes, weights (n,).
    Source: Guo, Pleiss, Sun and Weinberger 2017.
    """
    rows = np.arange(len(codes))

    def loss(log_t: float) -> float:
        z = log_p * np.exp(-log_t)
        return float(np.average(logsumexp(z, axis=1) - z[rows, codes], weights=weights))

    best = minimize_scalar(loss, bounds=(-RANGE, RANGE), method="bounded")
    return float(np.exp(best.x))
