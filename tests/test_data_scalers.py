"""Scalers against hand-worked and independent results."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nnbackend.data import Scaler, default_scaler_kind, fit_scaler
from nnbackend.data import scalers as module
from nnbackend.errors import ArgumentError, DataError, ShapeError


@pytest.fixture(params=[1 << 20, 8], ids=["one chunk", "many chunks"])
def chunks(request, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", request.param)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int32", "uint16", "bool"])
def test_standard_is_zero_mean_and_unit_variance(rng, chunks, dtype):
    x = (50 + 20 * rng.standard_normal((101, 3)) * [1, 0.1, 2]).astype(dtype)
    if dtype == "bool":
        x = rng.random((101, 3)) < 0.3
    scaler = fit_scaler("standard", x)
    t = scaler.transform(x, dtype=np.float64)
    np.testing.assert_allclose(t.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(t.std(axis=0), 1.0, rtol=1e-12)
    np.testing.assert_allclose(scaler.shift, x.astype(np.float64).mean(axis=0), rtol=1e-13)


def test_standard_by_hand():
    scaler = fit_scaler("standard", np.array([[1.0], [3.0], [5.0], [7.0]]))
    # Mean 4, deviations -3 -1 1 3, variance (9 + 1 + 1 + 9) / 4 = 5.
    assert scaler.shift == pytest.approx([4.0], rel=1e-15)
    assert scaler.factor == pytest.approx([5**-0.5], rel=1e-15)


def test_standard_survives_a_large_offset(rng, chunks):
    x = 1e9 + rng.integers(0, 2, (1000, 1)).astype(np.float64)
    t = fit_scaler("standard", x).transform(x, dtype=np.float64)
    np.testing.assert_allclose(t.std(), 1.0, rtol=1e-10)


def test_standard_survives_huge_values(rng):
    x = 1e200 * rng.standard_normal((100, 1))  # the squares are beyond float64
    t = fit_scaler("standard", x).transform(x, dtype=np.float64)
    np.testing.assert_allclose(t.std(), 1.0, rtol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, -7.0, 1e300, 5e-324])
def test_constant_columns_become_zero(value, chunks):
    x = np.full((37, 2), value)
    for kind in ("standard", "robust", "unit"):
        scaler = fit_scaler(kind, x)
        assert scaler.transform(x).tolist() == np.zeros((37, 2)).tolist()
    assert fit_scaler("standard", x).factor.tolist() == [1.0, 1.0]
    assert fit_scaler("robust", x).factor.tolist() == [0.0, 0.0]


def test_robust_by_hand(chunks):
    # Column 1: quartiles 1, 2, 3. Column 2: quartiles equal, range 0 to 8. Column 3: constant.
    x = np.array([[0, 4, 9], [1, 4, 9], [2, 4, 9], [3, 8, 9], [4, 0, 9]])
    scaler = fit_scaler("robust", x)
    assert scaler.shift.tolist() == [2.0, 4.0, 9.0]
    assert scaler.factor.tolist() == [0.5, 0.25, 0.0]
    assert scaler.clip == 3.0
    t = scaler.transform(np.array([[8.0, 4.0, 100.0]]), dtype=np.float64)
    # (8 - 2) / 2 = 3, and 3 / sqrt(1 + (3 / 3)^2) = 3 / sqrt(2).
    np.testing.assert_allclose(t, [[3.0 / np.sqrt(2.0), 0.0, 0.0]], rtol=1e-15)


def test_robust_clip_bounds_everything():
    scaler = fit_scaler("robust", np.arange(9.0).reshape(-1, 1))
    t = scaler.transform(np.array([[1e308], [-1e308], [4.0]]))
    assert t.tolist() == [[3.0], [-3.0], [0.0]]


def test_robust_takes_a_fixed_sample_of_many_rows(rng, monkeypatch):
    x = rng.standard_normal((5000, 2))
    whole = fit_scaler("robust", x)
    monkeypatch.setattr(module, "QUANTILE_ROWS", 2000)
    sampled, again = fit_scaler("robust", x), fit_scaler("robust", x)
    assert sampled.factor.tolist() == again.factor.tolist() != whole.factor.tolist()
    np.testing.assert_allclose(sampled.factor, whole.factor, rtol=0.1)
    # The range is still that of all rows.
    spike = np.zeros((5000, 1))
    spike[1234] = 8.0
    assert fit_scaler("robust", spike).factor.tolist() == [0.25]


def test_unit_divides_bytes_by_255():
    x = np.array([[0, 10], [51, 10]], dtype=np.uint8)
    t = fit_scaler("unit", x).transform(x)
    assert t.dtype == np.float32
    np.testing.assert_allclose(t, [[0.0, 10 / 255], [0.2, 10 / 255]], rtol=1e-7)


def test_unit_is_min_max_for_other_dtypes(chunks):
    x = np.array([[-1.0, 5.0], [3.0, 5.0], [1.0, 5.0]])
    assert fit_scaler("unit", x).transform(x).tolist() == [[0.0, 0.0], [1.0, 0.0], [0.5, 0.0]]


def test_none_returns_no_scaler():
    assert fit_scaler("none", np.zeros((2, 2))) is None


def test_default_kinds():
    assert default_scaler_kind(np.zeros((1, 1), np.uint8)) == "unit"
    assert default_scaler_kind(np.zeros((1, 1), np.int8)) == "standard"
    assert default_scaler_kind(np.zeros((1, 1))) == "standard"


@pytest.mark.parametrize("kind", ["standard", "unit"])
def test_inverse_undoes_transform(rng, kind):
    x = np.column_stack([rng.standard_normal((50, 2)) * [1e-3, 1e6], np.full(50, 7.0)])
    scaler = fit_scaler(kind, x)
    back = scaler.inverse(scaler.transform(x, dtype=np.float64))
    np.testing.assert_allclose(back, x, rtol=1e-12, atol=1e-9)
    y = x[:, 0]
    assert scaler_of_vector_round_trip(kind, y)


def scaler_of_vector_round_trip(kind, y):
    scaler = fit_scaler(kind, y)
    t = scaler.transform(y, dtype=np.float64)
    return t.shape == y.shape and np.allclose(scaler.inverse(t), y, rtol=1e-12)


def test_inverse_with_factor_zero_returns_the_shift():
    scaler = Scaler("standard", np.array([5.0]), np.array([0.0]))
    assert scaler.inverse(np.array([[0.0], [1.0]])).tolist() == [[5.0], [5.0]]


def test_inverse_refuses_a_clip():
    with pytest.raises(ArgumentError, match="clip=3"):
        fit_scaler("robust", np.arange(4.0)).inverse(np.zeros(2))


@pytest.mark.parametrize("kind", ["standard", "robust", "unit"])
def test_round_trip_through_json_is_exact(rng, kind):
    x = rng.standard_normal((30, 4)) ** 3
    scaler = fit_scaler(kind, x)
    again = Scaler.from_dict(json.loads(json.dumps(scaler.to_dict())))
    assert again.to_dict() == scaler.to_dict()
    assert np.array_equal(again.transform(x), scaler.transform(x))


@pytest.mark.parametrize(
    "damage",
    [
        {"kind": "other"},
        {"shift": [1.0, 2.0]},
        {"shift": ["a"]},
        {"factor": [float("nan")]},
        {"clip": 0.0},
        {"clip": "x"},
        {"shift": None},
    ],
)
def test_a_damaged_stored_scaler_is_refused(damage):
    stored = fit_scaler("standard", np.arange(3.0)).to_dict()
    with pytest.raises(DataError, match="stored scaler"):
        Scaler.from_dict(stored | damage)
    with pytest.raises(DataError, match="KeyError"):
        Scaler.from_dict({key: stored[key] for key in stored if key not in damage})


def test_invalid_data_is_refused(rng, chunks):
    with pytest.raises(ArgumentError, match=r"Did you mean 'robust'\?"):
        fit_scaler("robist", np.zeros((2, 2)))
    for bad in (np.nan, np.inf, -np.inf):
        x = rng.standard_normal((20, 3))
        x[17, 1] = bad
        for kind in ("standard", "robust", "unit"):
            with pytest.raises(DataError, match="column 1"):
                fit_scaler(kind, x)
    with pytest.raises(DataError, match="at least one row"):
        fit_scaler("standard", np.zeros((0, 3)))
    with pytest.raises(DataError, match="span"):
        fit_scaler("standard", np.array([[-1.7e308], [1.7e308]]))
    with pytest.raises(ShapeError, match=r"\(2, 2, 2\)"):
        fit_scaler("standard", np.zeros((2, 2, 2)))
    with pytest.raises(ShapeError, match="<U1"):
        fit_scaler("standard", np.array([["a"]]))
    with pytest.raises(ShapeError, match="3 columns"):
        fit_scaler("standard", np.zeros((2, 3))).transform(np.zeros((2, 4)))


def test_transform_does_not_change_its_argument(rng, chunks):
    x = rng.standard_normal((20, 3))
    before = x.copy()
    fit_scaler("robust", x).transform(x)
    assert np.array_equal(x, before)


def test_a_memory_map_is_fitted_and_transformed(tmp_path, rng, chunks):
    x = rng.standard_normal((40, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for kind in ("standard", "robust", "unit"):
        expected = fit_scaler(kind, x).transform(x)
        assert np.array_equal(fit_scaler(kind, mapped).transform(mapped), expected)
