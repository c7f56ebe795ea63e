"""The encoding of numeric columns: its features, its edges, and what is stored."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnbackend.data.piecewise import MOST_FEATURES, PiecewiseEncoder, bin_edges, fit_piecewise
from nnbackend.errors import DataError, ShapeError


def test_bins_are_filled_from_the_left() -> None:
    x = np.array([[0.0], [1.0], [2.0], [4.0]])
    encoder = fit_piecewise(x, bins=24, size=1.0)  # edges 0, 1, 2, 4
    found = encoder.transform(np.array([[-5.0], [0.5], [3.0], [9.0]]), np.float64)[:, 1:]
    np.testing.assert_allclose(found, [[0, 0, 0], [0.5, 0, 0], [1, 1, 0.5], [1, 1, 1]])


def test_size_scales_the_bins_only() -> None:
    x = np.random.default_rng(0).normal(size=(200, 2))
    small, large = (fit_piecewise(x, 8, size).transform(x, np.float64) for size in (0.25, 1.0))
    np.testing.assert_array_equal(small[:, :2], large[:, :2])
    np.testing.assert_allclose(small[:, 2:] * 4.0, large[:, 2:])


def test_columns_of_two_values_become_0_and_1_and_constants_0() -> None:
    x = np.array([[3.0, 7.0], [5.0, 7.0], [3.0, 7.0]])
    encoder = fit_piecewise(x, 24, 1.0)
    np.testing.assert_array_equal(encoder.transform(x), [[0, 0], [0, 1], [0, 0]])
    assert encoder.transform(np.array([[4.0, 8.0]])).tolist() == [[0.0, 0.5]]


def test_frequent_values_leave_edges_to_the_others() -> None:
    """Nine tenths are 0; quantiles would give the other values a tenth of the edges."""
    values = np.concatenate([[0.0], np.linspace(1.0, 2.0, 100)])
    edges = bin_edges(values, np.array([900] + [1] * 100), 10)
    assert len(edges) == 11
    assert (edges >= 1.0).sum() >= 8
    assert edges[0] == 0.0
    assert edges[-1] == 2.0


def test_bins_have_equal_shares_of_rows_without_frequent_values() -> None:
    x = np.sort(np.random.default_rng(0).exponential(size=10_000))
    edges = bin_edges(x, np.ones(len(x), np.int64), 20)
    counts, _ = np.histogram(x, edges)
    assert counts.min() > 0.98 * 500
    assert counts.max() < 1.02 * 500


def test_many_columns_have_fewer_bins_each() -> None:
    x = np.random.default_rng(0).normal(size=(100, 200))
    encoder = fit_piecewise(x, 24, 1.0)
    assert encoder.n_bins == 200 * (MOST_FEATURES // 200)


def test_values_that_nearly_agree_have_finite_factors() -> None:
    x = np.array([[1.0], [np.nextafter(1.0, 2.0)], [2.0], [3.0]])
    encoder = fit_piecewise(x, 24, 1.0)
    assert np.isfinite(encoder.transform(x)).all()
    assert np.abs(encoder.factor).max() < 1e10


def test_a_stored_encoder_is_the_same() -> None:
    x = np.random.default_rng(0).normal(size=(300, 3))
    encoder = fit_piecewise(x, 8, 0.3)
    again = PiecewiseEncoder.from_dict(encoder.to_dict())
    np.testing.assert_array_equal(again.transform(x), encoder.transform(x))


@pytest.mark.parametrize(
    "change",
    [
        {"column": [7] * 27},
        {"column": [-1] * 27},
        {"shift": [0.0]},
        {"factor": [float("nan")] * 27},
        {"n_bins": 400},
        {"n_smooth": -1},
        {"size": "large"},
        {"column": None},
    ],
    ids=str,
)
def test_an_untrusted_encoder_is_refused(change: dict[str, Any]) -> None:
    stored = fit_piecewise(np.random.default_rng(0).normal(size=(300, 3)), 8, 0.3).to_dict()
    assert len(stored["column"]) == 27
    with pytest.raises(DataError, match="A stored encoder must have"):
        PiecewiseEncoder.from_dict({**stored, **change})


def test_wrong_rows_are_refused() -> None:
    encoder = fit_piecewise(np.eye(3), 8, 0.3)
    with pytest.raises(ShapeError, match="must have 3 columns"):
        encoder.transform(np.zeros((2, 4)))
    with pytest.raises(DataError, match="must be finite"):
        fit_piecewise(np.array([[np.nan], [1.0]]), 8, 0.3)
