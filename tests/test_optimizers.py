"""Update rules against independently derived closed forms."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backend import Backend
from nnbackend.errors import ArgumentError
from nnbackend.testing.reference import ReferenceBackend
from nnbackend.training.lbfgs import LBFGSSteps
from nnbackend.training.optimizers import OPTIMIZERS, get_optimizer

FIRST_ORDER = sorted(set(OPTIMIZERS) - {"lbfgs"})
BACKENDS = [nn.get_backend("numpy"), ReferenceBackend()]
G = np.array([3.0, -0.02, 1e-4, -700.0])
every_backend = pytest.mark.parametrize("backend", BACKENDS, ids=["numpy", "reference"])


class Steps:
    """Steps of a rule on one vector."""

    def __init__(self, rule: Any, backend: Backend, theta: Any, dtype: str = "float64") -> None:
        self.rule, self.backend = rule, backend
        self.theta = backend.empty((len(theta),), dtype)
        backend.to_device(np.asarray(theta, dtype), out=self.theta)
        self.state = [backend.zeros((len(theta),), dtype) for _ in rule.state]
        self.hyper = backend.zeros((3,), "float64")
        self.dtype, self.count = dtype, 0

    def step(self, g: Any, decay: float = 0.0, n_weights: int = 0, lr: Any = None) -> None:
        self.count += 1
        rate = self.rule.learning_rate if lr is None else lr
        now = np.array([rate, self.rule.momentum, self.count])
        self.backend.to_device(now, out=self.hyper)
        gradient = self.backend.to_device(np.array(g, self.dtype))
        self.backend.optimizer_step(
            self.rule, self.theta, gradient, self.state, self.hyper, decay, n_weights
        )

    @property
    def moved(self) -> np.ndarray:
        return self.backend.to_host(self.theta)


def constant_gradient(rule: Any, backend: Backend, n: int = 1, g: Any = G) -> np.ndarray:
    """Return theta after n steps from 0 with a constant gradient."""
    steps = Steps(rule, backend, np.zeros(len(g)))
    for _ in range(n):
        steps.step(g)
    return steps.moved


# ---- closed forms -----------------------------------------------------------------------------


@every_backend
@pytest.mark.parametrize("n", [1, 2, 7])
def test_sgd(backend: Backend, n: int) -> None:
    np.testing.assert_allclose(constant_gradient(nn.SGD(0.1), backend, n), -0.1 * n * G, rtol=1e-14)


def after_momentum(lr: float, mu: float, n: int) -> float:
    """Sum over k = 1..n of the velocities v_k = -lr (1 - mu^k) / (1 - mu), for g = 1."""
    return -lr / (1 - mu) * (n - mu * (1 - mu**n) / (1 - mu))


@every_backend
@pytest.mark.parametrize("n", [1, 2, 10])
def test_momentum(backend: Backend, n: int) -> None:
    got = constant_gradient(nn.SGD(0.1, momentum=0.8), backend, n)
    np.testing.assert_allclose(got, after_momentum(0.1, 0.8, n) * G, rtol=1e-13)


@every_backend
@pytest.mark.parametrize("n", [1, 2, 10])
def test_nesterov(backend: Backend, n: int) -> None:
    # Every step is mu v_k - lr g: mu times plain momentum's path, and n plain steps.
    got = constant_gradient(nn.SGD(0.1, momentum=0.8, nesterov=True), backend, n)
    np.testing.assert_allclose(got, (0.8 * after_momentum(0.1, 0.8, n) - 0.1 * n) * G, rtol=1e-13)


@every_backend
def test_the_velocity_includes_the_learning_rate(backend: Backend) -> None:
    """After the rate drops to 0, the velocity decays by v = mu v, as in scikit-learn."""
    steps = Steps(nn.SGD(0.1, momentum=0.5), backend, [0.0])
    for lr in (0.1, 0.0, 0.0):
        steps.step([1.0], lr=lr)
    assert steps.moved[0] == pytest.approx(-0.1 * (1 + 0.5 + 0.25), rel=1e-14)


@every_backend
@pytest.mark.parametrize("n", [1, 2, 9])
def test_adagrad(backend: Backend, n: int) -> None:
    # s = k g^2 at step k, so step k has the length lr / sqrt(k).
    got = constant_gradient(nn.AdaGrad(0.1, eps=1e-30), backend, n)
    expected = -0.1 * sum(1 / math.sqrt(k) for k in range(1, n + 1))
    np.testing.assert_allclose(got, expected * np.sign(G), rtol=1e-13)


@every_backend
@pytest.mark.parametrize("n", [1, 2, 9])
def test_rmsprop(backend: Backend, n: int) -> None:
    # s = (1 - rho^k) g^2 at step k.
    got = constant_gradient(nn.RMSProp(0.1, rho=0.7, eps=1e-30), backend, n)
    expected = -0.1 * sum(1 / math.sqrt(1 - 0.7**k) for k in range(1, n + 1))
    np.testing.assert_allclose(got, expected * np.sign(G), rtol=1e-13)


@every_backend
def test_the_first_step_of_adadelta(backend: Backend) -> None:
    eps, rho = 1e-6, 0.95
    got = constant_gradient(nn.AdaDelta(1.0, rho=rho, eps=eps), backend)
    np.testing.assert_allclose(got, -G * np.sqrt(eps / ((1 - rho) * G**2 + eps)), rtol=1e-13)


@every_backend
def test_adadelta_has_the_units_of_theta(backend: Backend) -> None:
    """Gradients 1000 times as large give the same steps, as eps -> 0."""
    rule = nn.AdaDelta(eps=1e-12)
    near, far = (constant_gradient(rule, backend, 5, scale * np.ones(1)) for scale in (1, 1000))
    assert near[0] == pytest.approx(far[0], rel=1e-5)


@every_backend
@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("n", [1, 2, 50])
def test_adam(backend: Backend, name: str, n: int) -> None:
    # With bias correction, m is g and v is g^2 at every step: n steps of length lr.
    rule = OPTIMIZERS[name](0.01, eps=1e-30)
    got = constant_gradient(rule, backend, n)
    np.testing.assert_allclose(got, -0.01 * n * np.sign(G), rtol=1e-12)


@every_backend
def test_epsilon_is_outside_the_corrected_root(backend: Backend) -> None:
    """Algorithm 1: with |g| = eps the first step is lr / 2. With "epsilon hat" it is 3.1e-5."""
    got = constant_gradient(nn.Adam(1e-3, eps=1e-8), backend, 1, np.array([1e-8]))
    assert got[0] == pytest.approx(-5e-4, rel=1e-12)


@every_backend
def test_adams_moments_decay_with_beta1_and_beta2(backend: Backend) -> None:
    """After g = 1 and then 0: m = b1 (1 - b1), v = b2 (1 - b2), worked by hand for .5 and .75."""
    steps = Steps(nn.Adam(1.0, beta1=0.5, beta2=0.75, eps=1e-30), backend, [0.0])
    steps.step([1.0])  # m/(1-.5) = 1, v/(1-.75) = 1: a step of 1
    steps.step([0.0])  # m/(1-.25) = 1/3, v/(1-.5625) = (3/16)/(7/16) = 3/7
    assert steps.moved[0] == pytest.approx(-1 - (1 / 3) / math.sqrt(3 / 7), rel=1e-13)


@every_backend
@pytest.mark.parametrize("name", FIRST_ORDER)
def test_decoupled_decay_changes_only_weights(backend: Backend, name: str) -> None:
    rule = OPTIMIZERS[name]()
    theta = np.array([2.0, -3.0, 5.0])
    steps, lr = Steps(rule, backend, theta), rule.learning_rate
    for _ in range(3):
        steps.step(np.zeros(3), decay=0.1, n_weights=2)
    np.testing.assert_allclose(
        steps.moved, theta * [(1 - 0.1 * lr) ** 3, (1 - 0.1 * lr) ** 3, 1.0], rtol=1e-14
    )


def test_adamw_decays_in_training() -> None:
    """A step of AdamW equals Adam's step after the weights are multiplied by 1 - lr * decay."""
    x, y = np.ones((4, 3)), np.zeros(4)
    nets = [nn.Network([3, 2, 1], activation="tanh", device="numpy", dtype="float64", seed=1)
            for _ in range(3)]  # fmt: skip
    for net in nets:
        net.biases[0][:] = 0.5
    before = nets[0].theta.copy()
    options = {"epochs": 1, "batch_size": None}
    nn.train(nets[0], x, y, optimizer=nn.Adam(0.01), **options)
    nn.train(nets[1], x, y, optimizer=nn.AdamW(0.01, weight_decay=0.5), **options)
    nn.train(nets[2], x, y, optimizer=nn.Adam(0.01), weight_decay=0.5, **options)
    n = nets[0].layout.n_weights
    np.testing.assert_allclose(
        nets[1].theta[:n], nets[0].theta[:n] - 0.005 * before[:n], rtol=1e-12, atol=1e-15
    )
    np.testing.assert_array_equal(nets[1].theta[n:], nets[0].theta[n:])
    np.testing.assert_array_equal(nets[2].theta, nets[1].theta)


def test_weight_decay_adds_to_that_of_adamw() -> None:
    ends = []
    for rule, beside in ((nn.AdamW(0.01, weight_decay=0.25), 0.5), (nn.Adam(0.01), 0.75)):
        net = nn.Network([3, 2, 1], activation="tanh", device="numpy", dtype="float64", seed=1)
        nn.train(net, np.ones((4, 3)), np.zeros(4), optimizer=rule, weight_decay=beside, epochs=2)
        ends.append(net.theta.copy())
    np.testing.assert_array_equal(ends[0], ends[1])


# ---- families ---------------------------------------------------------------------------------

# Suitable rates; the rate of other rules is 0.01.
RATES = {"sgd": 1e-3, "adagrad": 0.5, "adadelta": 1.0, "rmsprop": 3e-3}


def minimise(name: str, fun: Callable[[np.ndarray], tuple[float, np.ndarray]], start: Any,
             n: int, backend: Backend) -> tuple[float, np.ndarray]:  # fmt: skip
    if name == "lbfgs":
        theta, grad = np.array(start), np.zeros(len(start))

        def evaluate() -> float:
            loss, grad[:] = fun(theta)
            return loss

        steps = LBFGSSteps(nn.LBFGS(), BACKENDS[0], theta, grad, evaluate)
        while n > 0 and not steps.converged:
            steps.iterate()
            n -= 1
        return fun(theta)[0], theta
    under_way = Steps(OPTIMIZERS[name](learning_rate=RATES.get(name, 1e-2)), backend, start)
    for _ in range(n):
        under_way.step(fun(under_way.moved)[1])
    return fun(under_way.moved)[0], under_way.moved


def parabola(p: np.ndarray) -> tuple[float, np.ndarray]:
    stiff = np.array([1.0, 4.0, 0.5])
    e = p - np.array([1.0, -2.0, 0.5])
    return float(0.5 * (stiff * e * e).sum()), stiff * e


def rosenbrock(p: np.ndarray) -> tuple[float, np.ndarray]:
    x, y = p
    value = (1 - x) ** 2 + 100 * (y - x * x) ** 2
    return float(value), np.array([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])


@every_backend
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_rule_minimises_a_parabola(name: str, backend: Backend) -> None:
    loss, theta = minimise(name, parabola, [0.0, 0.0, 0.0], 3000, backend)
    assert loss < 1e-3 * parabola(np.zeros(3))[0]
    assert np.abs(theta - [1.0, -2.0, 0.5]).max() < 0.2


@every_backend
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_rule_decreases_rosenbrocks_function(name: str, backend: Backend) -> None:
    start = [-1.2, 1.0]
    loss, _ = minimise(name, rosenbrock, start, 3000, backend)
    assert loss < 0.05 * rosenbrock(np.array(start))[0]


@every_backend
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FIRST_ORDER)
def test_dtype_is_kept(name: str, dtype: str, backend: Backend) -> None:
    steps = Steps(OPTIMIZERS[name](), backend, [1.0, 2.0], dtype)
    for _ in range(3):
        steps.step([0.1, -0.1], decay=0.01, n_weights=1)
    assert {str(np.asarray(v).dtype) for v in (steps.theta, *steps.state)} == {dtype}


@pytest.mark.parametrize("name", FIRST_ORDER)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_backends_agree(name: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=50), rng.normal(size=(20, 50))
    ends = []
    for backend in BACKENDS:
        steps = Steps(OPTIMIZERS[name](), backend, start, dtype)
        for g in gradients:
            steps.step(g)
        ends.append(steps.moved)
    # The backends round differently, by a few units in the last place.
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(ends[0], ends[1], rtol=tolerance, atol=tolerance * 1e-2)


@pytest.mark.parametrize("rule", [nn.SGD(momentum=0.9), nn.SGD(momentum=0.9, nesterov=True)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_backends_agree_on_momentum(rule: Any, dtype: str) -> None:
    g = np.random.default_rng(0).normal(size=30).astype(dtype).astype(float)
    one, two = (constant_gradient(rule, backend, 10, g) for backend in BACKENDS)
    np.testing.assert_allclose(one, two, rtol=1e-12)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_rule_trains_by_name(name: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(80, 3))
    y = x[:, 0] - 2 * x[:, 1]
    net = nn.Network([3, 8, 1], activation="tanh", device="numpy", seed=1)
    before = net.evaluate(x, y)["loss"]
    history = nn.train(net, x, y, optimizer=name, epochs=10, batch_size=10)
    assert net.evaluate(x, y)["loss"] < before
    assert len(history) == 10
    assert net.theta.dtype == np.float32


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_rules_are_records(name: str) -> None:
    rule = get_optimizer(name)
    assert pickle.loads(pickle.dumps(rule)) == rule
    assert get_optimizer(rule) is rule
    assert type(rule).__name__ in repr(rule)


@pytest.mark.parametrize("name", FIRST_ORDER)
def test_against_torch(name: str) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch where it is installed")
    pairs = {
        "sgd": (nn.SGD(0.1, 0.9, True), torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
        "adagrad": (nn.AdaGrad(0.1), torch.optim.Adagrad, {"eps": 1e-10}),
        "rmsprop": (nn.RMSProp(0.1), torch.optim.RMSprop, {"alpha": 0.9, "eps": 1e-7}),
        "adadelta": (nn.AdaDelta(1.0), torch.optim.Adadelta, {"rho": 0.95, "eps": 1e-6}),
        "adam": (nn.Adam(0.1), torch.optim.Adam, {}),
        "adamw": (nn.AdamW(0.1), torch.optim.AdamW, {"weight_decay": 0.01}),
    }
    rule, theirs, options = pairs[name]
    rng = np.random.default_rng(2)
    start = rng.normal(size=20)
    parameter = torch.nn.Parameter(torch.tensor(start))
    optimizer = theirs([parameter], lr=rule.learning_rate, **options)
    steps = Steps(rule, BACKENDS[0], start)
    for g in rng.normal(size=(10, 20)):
        parameter.grad = torch.tensor(g)
        optimizer.step()
        steps.step(g, decay=rule.weight_decay, n_weights=20)
    np.testing.assert_allclose(steps.moved, parameter.detach().numpy(), rtol=1e-9)


# ---- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: nn.SGD(0.0),
            r"learning_rate must be a number above 0.*Received: learning_rate=0.0",
        ),
        (lambda: nn.Adam(-1e-3), "learning_rate must be a number above 0"),
        (lambda: nn.Adam(float("nan")), r"learning_rate must be a number above 0.*Received: .*nan"),
        (lambda: nn.SGD(momentum=1.0), "momentum must be a number of at least 0 and below 1"),
        (lambda: nn.SGD(momentum=-0.1), "momentum must be a number of at least 0 and below 1"),
        (
            lambda: nn.Adam(beta1=1.0),
            "beta1 must be a number of at least 0 and below 1. Received: beta1=1.0",
        ),
        (lambda: nn.Adam(beta2=-0.5), "beta2 must be a number of at least 0 and below 1"),
        (lambda: nn.Adam(eps=0.0), "eps must be a number above 0"),
        (lambda: nn.AdaGrad(eps=-1.0), "eps must be a number above 0"),
        (lambda: nn.RMSProp(rho=1.0), "rho must be a number of at least 0 and below 1"),
        (lambda: nn.AdaDelta(rho=2.0), "rho must be a number of at least 0 and below 1"),
        (lambda: nn.AdamW(weight_decay=-0.1), "weight_decay must be a number, at least 0"),
        (lambda: get_optimizer("adm"), "Received: optimizer='adm'.*Did you mean 'adam'"),
        (lambda: get_optimizer("Adam"), "Known: adadelta, adagrad, adam, adamw, lbfgs"),
        (lambda: get_optimizer(nn.Adam), "optimizer must be a name or an optimizer"),
        (lambda: get_optimizer(None), "optimizer must be a name or an optimizer"),
    ],
)
def test_invalid_options_are_refused(make: Any, text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        make()
