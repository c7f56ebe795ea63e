"""L-BFGS on functions with a known minimum, and against SciPy's L-BFGS."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.optimize
from sklearn.datasets import load_iris

import nnbackend as nn
from nnbackend.errors import ArgumentError
from nnbackend.training.lbfgs import LBFGSSteps, line_search

NUMPY = nn.get_backend("numpy")
Function = Callable[[np.ndarray], tuple[float, np.ndarray]]


def run(
    fun: Function, start: Any, rule: nn.LBFGS, limit: int
) -> tuple[np.ndarray, list[float], LBFGSSteps]:
    theta, grad = np.array(start, dtype=float), np.zeros(len(start))

    def evaluate() -> float:
        loss, grad[:] = fun(theta)
        return loss

    steps, losses = LBFGSSteps(rule, NUMPY, theta, grad, evaluate), [fun(theta)[0]]
    while not steps.converged and len(losses) <= limit:
        losses.append(steps.iterate())
    return theta, losses, steps


def quadratic(n: int, seed: int, condition: float) -> tuple[Function, np.ndarray]:
    """1/2 (p - p0)^T A (p - p0), with eigenvalues of A from 1 to `condition`."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    a, bottom = q @ np.diag(np.geomspace(1, condition, n)) @ q.T, rng.normal(size=n)
    return lambda p: (float(0.5 * (p - bottom) @ a @ (p - bottom)), a @ (p - bottom)), bottom


def rosenbrock(p: np.ndarray) -> tuple[float, np.ndarray]:
    return float(scipy.optimize.rosen(p)), scipy.optimize.rosen_der(p)


EXACT = nn.LBFGS(memory=20, tolerance=1e-8, ftol=0.0)


@pytest.mark.parametrize("n", [1, 2, 5, 10, 20])
def test_a_quadratic_of_n_dimensions_needs_about_n_iterations(n: int) -> None:
    for seed in range(3):
        fun, bottom = quadratic(n, seed, 20.0)
        theta, losses, steps = run(fun, np.zeros(n), EXACT, 200)
        assert steps.converged
        assert len(losses) - 1 <= 2 * n + 8
        np.testing.assert_allclose(theta, bottom, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-3, 1e5])
def test_the_first_step_length_is_usually_accepted(scale: float) -> None:
    """The newest pair determines the scale of the curvature, so that a step of 1 is good."""
    fun, _ = quadratic(10, 0, 20.0)

    def scaled(p: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = fun(p)
        return scale * value, scale * slope

    rule = nn.LBFGS(memory=3, tolerance=1e-6 * scale, ftol=0.0)
    _, losses, steps = run(scaled, np.zeros(10), rule, 200)
    assert steps.converged
    assert steps.evaluations < 1.5 * len(losses) + 15


def test_more_memory_converges_faster() -> None:
    fun, _ = quadratic(20, 0, 1e4)
    long, short = (
        len(run(fun, np.zeros(20), nn.LBFGS(memory, 1e-6, 0.0), 5000)[1]) for memory in (20, 1)
    )
    assert long < 0.5 * short


@pytest.mark.parametrize("n", [2, 5])
def test_rosenbrock_is_minimised(n: int) -> None:
    theta, losses, steps = run(rosenbrock, [-1.2, 1.0, -1.2, 1.0, -1.2][:n], EXACT, 100)
    assert steps.converged
    assert losses[-1] < 1e-8
    np.testing.assert_allclose(theta, np.ones(n), atol=1e-4)
    assert steps.evaluations < 3 * len(losses)


@pytest.mark.parametrize("memory", [1, 3, 10])
def test_the_loss_never_increases(memory: int) -> None:
    for fun, n in ((quadratic(8, 1, 1e3)[0], 8), (rosenbrock, 6)):
        _, losses, _ = run(fun, np.linspace(-2, 2, n), nn.LBFGS(memory, 1e-10, 0.0), 150)
        assert (np.diff(losses) <= 0).all()


def test_a_converged_state_does_not_move() -> None:
    fun, bottom = quadratic(4, 0, 10.0)
    theta, losses, steps = run(fun, bottom, EXACT, 10)
    assert steps.converged
    assert losses == [0.0, 0.0]
    np.testing.assert_array_equal(theta, bottom)


def test_the_line_search_backtracks_from_infinite_values() -> None:
    """x - log x is infinite for x <= 0; a first step of length 1 would reach that."""

    def walled(p: np.ndarray) -> tuple[float, np.ndarray]:
        if (p <= 0).any():
            return float("inf"), np.full(p.shape, np.nan)
        return float((100 * p - np.log(p)).sum()), 100 - 1 / p

    theta, losses, steps = run(walled, [0.5], nn.LBFGS(tolerance=1e-6, ftol=0.0), 60)
    assert steps.converged
    assert np.isfinite(losses).all()
    assert theta[0] == pytest.approx(0.01, rel=1e-6)


@pytest.mark.parametrize("first", [1e-6, 1e-2, 1.0, 50.0])
@pytest.mark.parametrize(
    "fun",
    [
        lambda t: ((t - 3) ** 2, 2 * (t - 3)),
        lambda t: (np.cos(t), -np.sin(t)),
        lambda t: (np.log1p((t - 2) ** 2), 2 * (t - 2) / (1 + (t - 2) ** 2)),
        # More and Thuente 1994, function 1, beta = 2: a long flat descent.
        lambda t: (-t / (t * t + 2), (t * t - 2) / (t * t + 2) ** 2),
    ],
    ids=["parabola", "cosine", "logarithm", "flat"],
)
def test_the_line_search_satisfies_the_strong_wolfe_conditions(fun: Any, first: float) -> None:
    start = 0.5 if fun(0.0)[1] == 0 else 0.0
    asked = []

    def along(t: float) -> tuple[float, float]:
        asked.append(t)
        f, slope = fun(start + t)
        return float(f), float(slope)

    f0, slope0 = fun(start)
    t, f = line_search(along, float(f0), float(slope0), first, 40)
    assert t > 0
    assert asked[-1] == t
    assert f == fun(start + t)[0]
    assert f <= f0 + 1e-4 * t * slope0
    assert abs(fun(start + t)[1]) <= 0.9 * abs(slope0)


def test_the_line_search_returns_0_in_an_ascent_direction() -> None:
    t, f = line_search(lambda t: (1.0 + t, 1.0), 1.0, -1.0, 1.0, 25)
    assert (t, f) == (0.0, 1.0)


# ---- in training ------------------------------------------------------------------------------


def iris() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_iris(return_X_y=True)
    return (x - x.mean(axis=0)) / x.std(axis=0), y


def objective(net: nn.Network, x: np.ndarray, y: np.ndarray, l2: float) -> Function:
    """Return the penalised mean loss as a function of the flat vector, for SciPy."""
    n = net.layout.n_weights

    def fun(p: np.ndarray) -> tuple[float, np.ndarray]:
        net.theta[:] = p
        g = net.backprop(x, y)
        gradient = g.vector.copy()
        gradient[:n] += l2 * p[:n]
        return g.loss + 0.5 * l2 * float(p[:n] @ p[:n]), gradient

    return fun


def test_a_convex_network_reaches_scipys_minimum() -> None:
    x, y = iris()
    nets = [nn.Network([4, 3], "cross_entropy", device="numpy", dtype="float64") for _ in range(2)]
    rule = nn.LBFGS(tolerance=1e-9, ftol=0.0)
    history = nn.train(nets[0], x, y, optimizer=rule, epochs=500, l2=1e-2)
    assert history.stop_reason == "converged"
    fun = objective(nets[1], x, y, 1e-2)
    found = scipy.optimize.minimize(
        fun, nets[1].theta.copy(), jac=True, method="L-BFGS-B",
        options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-9},
    )  # fmt: skip
    assert fun(nets[0].theta.copy())[0] == pytest.approx(found.fun, abs=1e-9)
    np.testing.assert_allclose(nets[0].theta, found.x, atol=1e-4)


def test_scipy_cannot_improve_on_a_deep_networks_minimum() -> None:
    x, y = iris()
    net = nn.Network([4, 5, 3], "cross_entropy", activation="tanh", device="numpy",
                     dtype="float64", seed=1)  # fmt: skip
    nn.train(net, x, y, optimizer=nn.LBFGS(tolerance=1e-8, ftol=0.0), epochs=2000, l2=1e-2)
    end = net.theta.copy()
    fun = objective(net, x, y, 1e-2)
    found = scipy.optimize.minimize(
        fun, end, jac=True, method="L-BFGS-B",
        options={"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-10},
    )  # fmt: skip
    assert fun(end)[0] - found.fun < 1e-6


def test_training_uses_all_rows_for_any_batch_size() -> None:
    x, y = iris()
    ends = []
    for batch_size in (None, 7, 1000):
        net = nn.Network([4, 3, 3], "cross_entropy", device="numpy", dtype="float64", seed=2)
        history = nn.train(net, x, y, optimizer="lbfgs", epochs=5, batch_size=batch_size)
        losses = history["train_loss"]
        assert all(b <= a for a, b in pairwise(losses))
        ends.append(net.theta.copy())
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ends[0], ends[2], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_convergence_ends_training(dtype: str) -> None:
    x, y = iris()
    net = nn.Network([4, 3], "cross_entropy", device="numpy", dtype=dtype)
    history = nn.train(net, x, y, optimizer="lbfgs", epochs=1000, l2=0.1)
    assert history.stop_reason == "converged"
    assert len(history) < 100
    assert net.evaluate(x, y)["accuracy"] > 0.85
    again = nn.train(net, x, y, optimizer="lbfgs", epochs=1000, l2=0.1)
    assert len(again) <= 3


def test_sample_weights_are_used() -> None:
    x, y = iris()
    times = 1 + y
    nets = [nn.Network([4, 3], "cross_entropy", device="numpy", dtype="float64") for _ in range(2)]
    rule = nn.LBFGS(tolerance=1e-9, ftol=0.0)
    nn.train(nets[0], x, y, optimizer=rule, epochs=500, l2=0.1, sample_weight=times)
    nn.train(nets[1], np.repeat(x, times, axis=0), np.repeat(y, times), optimizer=rule, epochs=500,
             l2=0.1)  # fmt: skip
    np.testing.assert_allclose(nets[0].theta, nets[1].theta, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"weight_decay": 0.1}, "Received: weight_decay"),
        ({"max_norm": 3.0}, "Received: max_norm"),
        ({"clip_norm": 1.0}, "Received: clip_norm"),
        ({"ema": 0.99}, "Received: ema"),
        ({"schedule": "cosine"}, "Received: schedule"),
        ({"momentum_schedule": "ramp"}, "Received: momentum_schedule"),
    ],
)
def test_options_that_change_the_objective_are_refused(options: Any, text: str) -> None:
    net = nn.Network([4, 3], "cross_entropy", device="numpy")
    with pytest.raises(ArgumentError, match=f"one fixed function of all rows. {text}"):
        nn.train(net, *iris(), optimizer="lbfgs", **options)


def test_dropout_is_refused() -> None:
    net = nn.Network([4, 5, nn.Dropout(0.5), 3], "cross_entropy", device="numpy")
    with pytest.raises(ArgumentError, match=r"one fixed function.*Received: Dropout"):
        nn.train(net, *iris(), optimizer="lbfgs")


@pytest.mark.parametrize(
    "options", [{"memory": 0}, {"tolerance": -1.0}, {"ftol": -1.0}, {"max_evaluations": 0}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    name, value = next(iter(options.items()))
    with pytest.raises(ArgumentError, match=f"must be a (whole )?number, at least.*{name}={value}"):
        nn.LBFGS(**options)
