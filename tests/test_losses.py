"""Losses against scikit-learn's metrics and SciPy's functions, and fused against unfused ones."""

from __future__ import annotations

import pickle
from typing import Any

import array_api_strict
import numpy as np
import pytest
import scipy.special
from sklearn import metrics

import nnbackend as nn
from nnbackend.errors import ArgumentError, DataError
from nnbackend.network.activations import get_activation
from nnbackend.network.losses import LOSSES, OUTPUT_ACTIVATIONS, get_loss
from nnbackend.testing import GhostBackend

N, K = 40, 3
RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(N, K))
COUNTS = RNG.poisson(2.0, size=(N, K)).astype(float)
CLASSES = np.arange(N) % K
ONE_HOT = np.eye(K)[CLASSES]
YES = (RNG.random((N, K)) < 0.4).astype(float)
WEIGHT = RNG.random(N) * 3
SMOOTHED = ("binary_cross_entropy", "cross_entropy")
PARTNERED = sorted(name for name in LOSSES if get_loss(name).partner is not None)
TARGETS = {"poisson": COUNTS, "binary_cross_entropy": YES, "cross_entropy": ONE_HOT}

# A metric of scikit-learn is the mean over the outputs, our loss the sum: times K.
ORACLES: list[tuple[str, tuple[float, ...], np.ndarray, Any]] = [
    ("quadratic", (), REAL,
     lambda y, a, w: K * metrics.mean_squared_error(y, a, sample_weight=w) / 2),
    ("absolute", (), REAL, lambda y, a, w: K * metrics.mean_absolute_error(y, a, sample_weight=w)),
    ("quantile", (0.5,), REAL,
     lambda y, a, w: K * metrics.mean_absolute_error(y, a, sample_weight=w) / 2),
    ("quantile", (0.9,), REAL,
     lambda y, a, w: K * metrics.mean_pinball_loss(y, a, alpha=0.9, sample_weight=w)),
    ("quantile", (0.2,), REAL,
     lambda y, a, w: K * metrics.mean_pinball_loss(y, a, alpha=0.2, sample_weight=w)),
    ("poisson", (), COUNTS, lambda y, a, w: sum(
        metrics.mean_poisson_deviance(y[:, k], a[:, k], sample_weight=w) for k in range(K)) / 2),
    ("cross_entropy", (), ONE_HOT, lambda y, a, w: metrics.log_loss(y, a, sample_weight=w)),
    ("binary_cross_entropy", (), YES, lambda y, a, w: sum(
        metrics.log_loss(y[:, k], a[:, k], sample_weight=w) for k in range(K))),
    ("huber", (1.0,), REAL,
     lambda y, a, w: np.average(scipy.special.huber(1.0, a - y).sum(axis=1), weights=w)),
    ("huber", (0.3,), REAL,
     lambda y, a, w: np.average(scipy.special.huber(0.3, a - y).sum(axis=1), weights=w)),
]  # fmt: skip


def outputs(name: str, z: np.ndarray) -> np.ndarray:
    return get_activation(OUTPUT_ACTIVATIONS.get(name, "identity")).value(z, np)


def test_every_loss_has_an_oracle() -> None:
    assert {name for name, *_ in ORACLES} == set(LOSSES)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
@pytest.mark.parametrize(
    ("name", "params", "y", "oracle"), ORACLES, ids=[f"{o[0]}{o[1]}" for o in ORACLES]
)
def test_values(
    name: str, params: tuple[float, ...], y: np.ndarray, oracle: Any, weight: np.ndarray | None
) -> None:
    a = outputs(name, RNG.normal(size=(N, K)))
    rows, _ = get_loss(name, *params).rows(a, y, np)
    assert rows.shape == (N,)
    assert np.average(rows, weights=weight) == pytest.approx(oracle(y, a, weight), rel=1e-12)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["alike", "weighted"])
@pytest.mark.parametrize(
    ("name", "params", "y", "oracle"), ORACLES, ids=[f"{o[0]}{o[1]}" for o in ORACLES]
)
def test_the_loss_of_a_network_is_that_of_its_outputs(
    name: str, params: tuple[float, ...], y: np.ndarray, oracle: Any, weight: np.ndarray | None
) -> None:
    """The loss is the same with and without fusion; the mean over rows is weighted."""
    x = RNG.normal(size=(N, 4))
    net = nn.Network([4, 5, K], get_loss(name, *params), device="numpy", dtype="float64")
    expected = oracle(y, net.outputs(x), weight)
    assert net.backprop(x, y, weight).loss == pytest.approx(expected, rel=1e-12)
    assert net.evaluate(x, y, weight)["loss"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradients_match_finite_differences(name: str) -> None:
    loss, h = get_loss(name), 1e-6
    a, y = outputs(name, RNG.normal(size=(N, K)) * 0.7), TARGETS.get(name, REAL)
    # Kinks are avoided by construction: of |e| at 0, of Huber's e at 1.
    e = a - y
    assert np.abs(e).min() > 10 * h
    assert np.abs(np.abs(e) - 1.0).min() > 10 * h
    _, gradient = loss.rows(a, y, np)
    for k in range(K):
        v = h * np.eye(K)[k]
        difference = (loss.rows(a + v, y, np)[0] - loss.rows(a - v, y, np)[0]) / (2 * h)
        np.testing.assert_allclose(gradient[:, k], difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "params"),
    [*((name, ()) for name in PARTNERED), *((name, (0.2,)) for name in SMOOTHED)],
)
def test_on_logits_is_the_same_function(name: str, params: tuple[float, ...]) -> None:
    loss, y = get_loss(name, *params), TARGETS[name]
    phi, z = get_activation(str(loss.partner)), RNG.normal(size=(N, K)) * 2
    a = phi.value(z, np)
    rows, gradient = loss.rows(a, y, np)
    fused_rows, delta = loss.fused().rows(z, y, np)
    np.testing.assert_allclose(fused_rows, rows, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(delta, phi.delta(gradient, z, a, np), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", PARTNERED)
def test_delta_with_the_partner_is_the_error(name: str) -> None:
    loss, z = get_loss(name), RNG.normal(size=(N, K))
    _, delta = loss.fused().rows(z, TARGETS[name], np)
    np.testing.assert_allclose(delta, outputs(name, z) - TARGETS[name], atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["binary_cross_entropy", "cross_entropy"])
def test_far_logits_stay_finite(name: str, dtype: str) -> None:
    loss = get_loss(name)
    z = np.array([[1e4, -1e4, 0.0], [-1e4, -1e4, 1e4], [1e4, 1e4, 1e4]], dtype=dtype)
    for y in (np.eye(3, dtype=dtype), np.eye(3, dtype=dtype)[::-1].copy()):
        rows, delta = loss.fused().rows(z, y, np)
        assert np.isfinite(rows).all()
        assert np.isfinite(delta).all()
        a = get_activation(str(loss.partner)).value(z, np)  # some values are exactly 0 or 1
        rows, gradient = loss.rows(a, y, np)
        assert np.isfinite(rows).all()
        assert np.isfinite(gradient).all()
    # -log of e^-2e4: the distance of the logits, which underflows as a probability.
    y = np.array([[0.0, 1.0, 0.0]] * 3, dtype=dtype)
    assert loss.fused().rows(z, y, np)[0][0] == pytest.approx(2e4, rel=1e-3)


def test_poisson_with_an_exponential_near_zero() -> None:
    loss, z = get_loss("poisson").fused(), np.array([[-1e4, -1e4]])
    rows, delta = loss.rows(z, np.array([[0.0, 2.0]]), np)
    assert np.isfinite(rows).all()
    assert np.array_equal(delta, [[0.0, -2.0]])


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_dtype_is_kept_and_arguments_do_not_change(name: str) -> None:
    a = outputs(name, RNG.normal(size=(N, K))).astype(np.float32)
    y = TARGETS.get(name, REAL).astype(np.float32)
    kept = a.copy(), y.copy()
    rows, gradient = get_loss(name).rows(a, y, np)
    assert rows.dtype == gradient.dtype == np.float32
    assert np.array_equal(a, kept[0])
    assert np.array_equal(y, kept[1])


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_formulas_run_on_any_array_library(name: str) -> None:
    xp, loss = array_api_strict, get_loss(name)
    z, y = RNG.normal(size=(N, K)), TARGETS.get(name, REAL)
    pairs = [(loss, outputs(name, z)), *([(loss.fused(), z)] if loss.partner else [])]
    for formula, out in pairs:
        theirs = formula.rows(xp.asarray(out), xp.asarray(y), xp)
        for got, expected in zip(theirs, formula.rows(out, y, np), strict=True):
            np.testing.assert_allclose(np.asarray(got), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("s", "name"), [(0.1, "cross_entropy"), (0.3, "binary_cross_entropy")])
def test_smoothing_mixes_the_losses_of_all_classes(s: float, name: str) -> None:
    """Both losses are linear in y, so smoothing is a mean of unsmoothed losses."""
    z, y = RNG.normal(size=(N, K)), TARGETS[name]
    plain = get_loss(name).fused()
    smooth, _ = get_loss(name, s).fused().rows(z, y, np)
    if name == "cross_entropy":
        answers = [np.eye(K)[[k] * N] for k in range(K)]
    else:
        answers = [np.zeros((N, K)), np.ones((N, K))]
    everything = np.mean([plain.rows(z, answer, np)[0] for answer in answers], axis=0)
    expected = (1 - s) * plain.rows(z, y, np)[0] + s * everything
    np.testing.assert_allclose(smooth, expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy", "quadratic", "huber"])
def test_class_labels_equal_one_hot_rows(name: str) -> None:
    x = RNG.normal(size=(N, 4))
    nets = [nn.Network([4, 5, K], name, device="numpy", seed=1) for _ in range(2)]
    labels, rows = nets[0].backprop(x, CLASSES, WEIGHT), nets[1].backprop(x, ONE_HOT, WEIGHT)
    assert labels.loss == rows.loss
    assert np.array_equal(labels.vector, rows.vector)


def test_the_loss_of_soft_targets_is_a_mean_over_hard_ones() -> None:
    x, net = RNG.normal(size=(1, 4)), nn.Network([4, K], "cross_entropy", device="numpy")
    share = np.array([0.2, 0.3, 0.5])
    soft = net.backprop(x, share[None])
    hard = [net.backprop(x, np.eye(K)[[k]]) for k in range(K)]
    assert soft.loss == pytest.approx(sum(s * h.loss for s, h in zip(share, hard, strict=True)))
    expected = sum(s * h.vector for s, h in zip(share, hard, strict=True))
    np.testing.assert_allclose(soft.vector, expected, rtol=1e-5, atol=1e-7)


def test_poisson_is_zero_and_minimal_at_the_target() -> None:
    y = np.array([[0.5, 3.0, 7.0]])
    rows, gradient = get_loss("poisson").rows(y, y, np)
    assert rows[0] == pytest.approx(0.0, abs=1e-14)
    assert np.array_equal(gradient, np.zeros((1, 3)))


def test_a_network_learns_with_a_custom_loss() -> None:
    fourth = nn.Loss("fourth", lambda a, y, xp: (xp.sum((a - y) ** 4, axis=1), 4 * (a - y) ** 3))
    net = nn.Network([2, 6, 1], fourth, activation="tanh", device="numpy", seed=2)
    x = RNG.normal(size=(50, 2))
    y = x[:, 0] - x[:, 1]
    assert nn.check_gradients(net, x, y)
    history = nn.train(net, x, y, epochs=30, optimizer=nn.Adam(0.02), batch_size=10)
    assert history["train_loss"][-1] < 0.05 * history["train_loss"][0]


@pytest.mark.parametrize(
    ("name", "params"),
    [
        *((name, ()) for name in sorted(LOSSES)),
        *((name, (0.25,)) for name in ("huber", "quantile", *SMOOTHED)),
    ],
)
def test_losses_can_be_pickled(name: str, params: tuple[float, ...]) -> None:
    loss = get_loss(name, *params)
    again = pickle.loads(pickle.dumps(loss))
    assert again == loss
    a, y = outputs(name, RNG.normal(size=(N, K))), TARGETS.get(name, REAL)
    assert np.array_equal(again.rows(a, y, np)[0], loss.rows(a, y, np)[0])


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("huber", 0.0, "threshold of huber must be above 0. Received: threshold=0.0"),
        ("huber", -1.0, "threshold of huber must be above 0"),
        ("quantile", 0.0, "q of quantile must be between 0 and 1"),
        ("quantile", 1.0, "q of quantile must be between 0 and 1. Received: q=1.0"),
        ("cross_entropy", 1.0, "label_smoothing of cross_entropy must be at least 0 and below 1"),
        ("cross_entropy", -0.1, "label_smoothing of cross_entropy must be at least 0"),
        ("binary_cross_entropy", 1.5, "label_smoothing of binary_cross_entropy must be"),
    ],
)
def test_parameters_out_of_range_are_refused(name: str, value: float, text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        get_loss(name, value)


@pytest.mark.parametrize(("typed", "meant"), [("quadratc", "quadratic"), ("hubert", "huber")])
def test_an_unknown_name_suggests_the_closest(typed: str, meant: str) -> None:
    with pytest.raises(ArgumentError, match=f"Received: loss={typed!r}.*Did you mean {meant!r}"):
        nn.Network([2, 1], typed, device="numpy")


@pytest.mark.parametrize(
    ("name", "bad", "text"),
    [
        ("poisson", -1.0, "targets of poisson must lie between 0 and inf"),
        ("binary_cross_entropy", 1.5, "targets of binary_cross_entropy must lie between 0 and 1"),
        ("cross_entropy", -0.5, "targets of cross_entropy must lie between 0 and 1"),
    ],
)
def test_invalid_targets_are_refused(name: str, bad: float, text: str) -> None:
    net = nn.Network([4, 2], name, device="numpy")
    y = np.full((3, 2), 0.5)
    y[1, 1] = bad
    with pytest.raises(DataError, match=f"{text}.*Received: values from"):
        net.backprop(np.ones((3, 4)), y)


def squares(a: Any, y: Any, xp: Any) -> Any:
    return xp.sum((a - y) ** 2, axis=1), 2 * (a - y)


REFUSED: dict[str, tuple[Any, str]] = {
    "two arguments": (lambda a, y: squares(a, y, np), "takes 2 positional arguments"),
    "no gradient": (lambda a, y, xp: squares(a, y, xp)[0], "ValueError"),
    "mean of the rows": (lambda a, y, xp: (((a - y) ** 2).mean(), a - y), r"shape \(\) for 3 rows"),
    "not summed": (lambda a, y, xp: ((a - y) ** 2, 2 * (a - y)), r"shape \(3, 2\) for 3 rows"),
    "gradient of the mean": (lambda a, y, xp: (squares(a, y, xp)[0], (a - y)[:, :0]), "ValueError"),
    "other rows": (
        lambda a, y, xp: (xp.sum((a - a.mean(axis=0)) ** 2, axis=1), a - y),
        "as only other rows changed",
    ),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_a_loss_that_is_not_per_sample_is_refused(case: str) -> None:
    formula, text = REFUSED[case]
    with pytest.raises(ArgumentError, match=rf"the loss 'own' must be a function of.*{text}"):
        nn.Network([3, 2], nn.Loss("own", formula), device="numpy")


def test_a_loss_with_functions_of_another_library_is_not_tested() -> None:
    def theirs(a: Any, y: Any, xp: Any) -> Any:
        if isinstance(a, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        return squares(a, y, xp)

    own = nn.Loss("own", theirs)
    assert nn.Network([3, 2], own, device=GhostBackend()).backprop([[1.0, 2.0, 3.0]], [0]).loss > 0
    with pytest.raises(ArgumentError, match="Unsupported type"):
        nn.Network([3, 2], own, device="numpy")


@pytest.mark.parametrize("n_out", [1, 7])
def test_a_wrong_gradient_is_logged(n_out: int, caplog: pytest.LogCaptureFixture) -> None:
    def hinge(a: Any, y: Any, xp: Any) -> Any:
        gap = 1.0 - a * (2.0 * y - 1.0)
        is_on = gap > 0
        return xp.sum(xp.where(is_on, gap, 0.0), axis=1), xp.where(is_on, 1.0 - 2.0 * y, 0.0)

    nn.Network([3, n_out], nn.Loss("own", squares), device="numpy")
    nn.Network([3, n_out], nn.Loss("hinge", hinge), device="numpy")
    assert not caplog.records

    def halved(a: Any, y: Any, xp: Any) -> Any:
        return squares(a, y, xp)[0], a - y

    nn.Network([3, n_out], nn.Loss("halved", halved), device="numpy")
    assert "the gradient of loss 'halved' is not its slope" in caplog.text
