"""Activations against reference formulas, and their slopes against finite differences."""

from __future__ import annotations

import math
import pickle
from typing import Any

import array_api_strict
import numpy as np
import pytest
import scipy.special

import nnbackend as nn
from nnbackend.errors import ArgumentError
from nnbackend.network.activations import ACTIVATIONS, get_activation
from nnbackend.network.losses import get_loss
from nnbackend.network.probing import LOWEST
from nnbackend.testing import GhostBackend

NAMES = sorted(ACTIVATIONS)
ELEMENTWISE = [name for name in NAMES if name != "softmax"]
Z = np.linspace(-6.0, 6.0, 241) + 0.01  # avoids the kinks, which are at 0

# Formulas of SciPy and NumPy, or of the paper in an equivalent form.
ORACLES = {
    "identity": lambda z: z.copy(),
    "step": lambda z: np.heaviside(z, 0.0),
    "relu": lambda z: (np.abs(z) + z) / 2,
    "leaky_relu": lambda z: np.maximum(0.1 * z, z),
    "tanh": lambda z: 2 * scipy.special.expit(2 * z) - 1,
    "sigmoid": scipy.special.expit,
    "exponential": lambda z: np.logaddexp(z, -np.inf) * 0 + np.power(np.e, z),
    "elu": lambda z: np.maximum(z, 0) + np.minimum(np.power(np.e, z) - 1, 0),
    "selu": lambda z: (
        1.0507009873554805 * np.maximum(z, 0)
        + np.minimum(1.7580993408473766 * (np.power(np.e, z) - 1), 0)
    ),
    "softplus": lambda z: np.logaddexp(0, z),
    "silu": lambda z: z * scipy.special.expit(z),
    "mish": lambda z: z * np.tanh(np.logaddexp(0, z)),
}


def test_every_activation_has_an_oracle() -> None:
    assert set(ORACLES) | {"gelu", "softmax"} == set(ACTIVATIONS)


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_values(name: str) -> None:
    got = get_activation(name).value(Z, np)
    np.testing.assert_allclose(got, ORACLES[name](Z), rtol=1e-13, atol=1e-15)


def test_gelu_is_close_to_its_definition() -> None:
    exact = Z * scipy.special.ndtr(Z)
    error = np.abs(get_activation("gelu").value(Z, np) - exact)
    assert 1e-5 < error.max() < 5e-4  # the tanh approximation, within the bound of its docstring


def test_softmax_returns_probabilities() -> None:
    z = np.random.default_rng(0).normal(size=(7, 5)) * 3
    a = get_activation("softmax").value(z, np)
    np.testing.assert_allclose(a, scipy.special.softmax(z, axis=1), rtol=1e-13)
    np.testing.assert_allclose(get_activation("softmax").value(z + 100.0, np), a, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "params", "z", "a"),
    [
        ("relu", (), -3.0, 0.0),
        ("relu", (), 2.5, 2.5),
        ("leaky_relu", (), -2.0, -0.2),  # max(0.1 z, z)
        ("leaky_relu", (0.25,), -2.0, -0.5),
        ("leaky_relu", (0.0,), -2.0, 0.0),
        ("elu", (), -1.0, 1 / math.e - 1),
        ("elu", (2.0,), -1.0, 2 / math.e - 2),
        ("selu", (), -1e4, -1.7580993408473766),
        ("sigmoid", (), math.log(3), 0.75),
        ("softplus", (), 0.0, math.log(2)),
        ("step", (), 0.0, 0.0),
        ("step", (), 1e-30, 1.0),
        ("mish", (), 0.0, 0.0),
        ("gelu", (), 0.0, 0.0),
    ],
)
def test_values_worked_by_hand(name: str, params: tuple[float, ...], z: float, a: float) -> None:
    assert get_activation(name, *params).value(np.array([z]), np)[0] == pytest.approx(a, rel=1e-14)


@pytest.mark.parametrize("name", ["relu", "step"])
def test_the_slope_at_the_kink_is_zero(name: str) -> None:
    phi, z = get_activation(name), np.zeros((1, 1))
    assert phi.delta(np.ones((1, 1)), z, phi.value(z, np), np)[0, 0] == 0.0


@pytest.mark.parametrize(
    ("name", "params"),
    [*((name, ()) for name in ELEMENTWISE), ("leaky_relu", (0.3,)), ("elu", (0.3,))],
)
def test_slopes_match_finite_differences(name: str, params: tuple[float, ...]) -> None:
    phi, h = get_activation(name, *params), 1e-5
    z = Z.reshape(-1, 1)
    difference = (phi.value(z + h, np) - phi.value(z - h, np)) / (2 * h)
    got = phi.delta(np.full_like(z, 2.0), z, phi.value(z, np), np)
    np.testing.assert_allclose(got, 2.0 * difference, rtol=1e-8, atol=1e-9)


def test_softmax_delta_uses_the_full_jacobian() -> None:
    rng = np.random.default_rng(1)
    phi, z, da = get_activation("softmax"), rng.normal(size=(1, 4)), rng.normal(size=(1, 4))
    h, a = 1e-6, phi.value(z, np)
    for k in range(4):
        v = h * np.eye(4)[k]
        difference = ((phi.value(z + v, np) - phi.value(z - v, np)) * da).sum() / (2 * h)
        assert phi.delta(da, z, a, np)[0, k] == pytest.approx(difference, rel=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_dtype_is_kept_and_far_values_are_finite(name: str, dtype: str) -> None:
    phi = get_activation(name)
    far = 80.0 if name == "exponential" else 1e4  # e^z overflows in float32 at 89
    z = np.array([[-far, -1.0, 0.0, 1.0, far]], dtype=dtype)
    before = z.copy()
    a = phi.value(z, np)
    delta = phi.delta(np.ones_like(z), z, a, np)
    assert a.dtype == delta.dtype == np.dtype(dtype)
    assert np.isfinite(a).all()
    assert np.isfinite(delta).all()
    assert np.array_equal(z, before)


@pytest.mark.parametrize("name", NAMES)
def test_formulas_run_on_any_array_library(name: str) -> None:
    xp, phi = array_api_strict, get_activation(name)
    z = np.random.default_rng(2).normal(size=(3, 4))
    da = np.random.default_rng(3).normal(size=(3, 4))
    theirs = phi.value(xp.asarray(z), xp)
    np.testing.assert_allclose(np.asarray(theirs), phi.value(z, np), rtol=1e-13, atol=1e-15)
    delta = phi.delta(xp.asarray(da), xp.asarray(z), theirs, xp)
    ours = phi.delta(da, z, phi.value(z, np), np)
    np.testing.assert_allclose(np.asarray(delta), ours, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_matches_the_formula(name: str) -> None:
    """Compare the in-place kernels of a backend with the formula."""
    net = nn.Network([3, nn.Dense(4, name, weights="normal")], device="numpy", dtype="float64")
    x = np.random.default_rng(4).normal(size=(6, 3))
    z = x @ net.weights[0] + net.biases[0]
    np.testing.assert_allclose(
        net.feedforward(x), get_activation(name).value(z, np), rtol=1e-13, atol=1e-15
    )
    np.testing.assert_allclose(net.trace(x).z[0], z, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize(
    ("f", "df"),
    [
        (lambda z: z**3, lambda z: 3 * z**2),
        (lambda z, xp: xp.asarray(z) ** 3, lambda z: 3 * z**2),
        (lambda z: z**3, lambda z, a, xp: 3 * z * z),
        (lambda z, power=3: z**power, lambda z, power=3: power * z ** (power - 1)),
    ],
)
def test_a_custom_activation(f: object, df: object) -> None:
    cube = nn.Activation("cube", f, df)
    net = nn.Network([2, nn.Dense(3, cube), 1], device="numpy", seed=3)
    x = np.random.default_rng(5).normal(size=(4, 2))
    y = np.arange(4.0)
    assert nn.check_gradients(net, x, y), nn.check_gradients(net, x, y)
    z = net.trace(x.astype(np.float32)).z[0]
    np.testing.assert_allclose(net.trace(x.astype(np.float32)).a[0], z * z * z, rtol=1e-5)


def test_a_ufunc_is_a_valid_activation() -> None:
    sine = nn.Activation("sine", np.sin, np.cos)
    net = nn.Network([2, nn.Dense(3, sine), 1], device="numpy")
    assert nn.check_gradients(net, np.ones((2, 2)), np.zeros(2))


@pytest.mark.parametrize("f", [lambda: 1, lambda z, a, xp, more: z, 3.0, None])
def test_a_formula_with_wrong_arguments_is_refused(f: object) -> None:
    with pytest.raises(ArgumentError, match="f of activation 'odd' must be a function of z"):
        nn.Activation("odd", f, lambda z: z)
    with pytest.raises(ArgumentError, match="df of activation 'odd' must be a function of z"):
        nn.Activation("odd", lambda z: z, f)


def relu_in_place(z: np.ndarray) -> np.ndarray:
    z[z < 0] = 0.0
    return z


ONE = np.ones_like
ALONE, WHOLE = "must work element by element", "must be a formula for whole arrays"
REFUSED: dict[str, tuple[Any, Any, str]] = {
    "sum": (lambda z: z / np.abs(z).sum(), ONE, f"f of activation 'own' {ALONE}.*'softmax'"),
    "mean over the batch": (lambda z: z - z.mean(axis=0), ONE, ALONE),
    "softmax": (
        lambda z, xp: xp.exp(z) / xp.sum(xp.exp(z), axis=1, keepdims=True), ONE, ALONE,
    ),
    "largest": (lambda z: z - z.max(axis=1, keepdims=True), ONE, ALONE),
    "slope": (lambda z: z**2, lambda z: z / z.std(), f"df of activation 'own' {ALONE}"),
    "if": (lambda z: z if z > 0 else 0 * z, ONE, f"f of .*{WHOLE}.*np.where"),
    "if in df": (np.abs, lambda z: 1.0 if z > 0 else -1.0, f"df of .*{WHOLE}.*np.where"),
    "max": (lambda z: max(z, 0), ONE, f"{WHOLE}.*np.maximum for max"),
    "math": (math.tanh, ONE, f"{WHOLE}.*np.exp for math.exp"),
    "shape": (lambda z: z[:, :0], ONE, f"{WHOLE}.*same shape.*for z.shape="),
    "fault": (lambda z: z.no_such_thing, ONE, f"{WHOLE}.*AttributeError"),
    "none": (lambda z: None, ONE, f"{WHOLE}.*it returns None"),
    "in place": (relu_in_place, ONE, f"{WHOLE}.*it changes z in place"),
}  # fmt: skip


@pytest.mark.parametrize("device", ["numpy", "numba", "ghost"])
@pytest.mark.parametrize("units", [2, 300])
@pytest.mark.parametrize("case", sorted(REFUSED))
def test_an_activation_that_is_not_elementwise_is_refused(
    case: str, units: int, device: str
) -> None:
    f, df, text = REFUSED[case]
    place = GhostBackend() if device == "ghost" else device
    if device == "numba":
        pytest.importorskip("numba", reason="numba is not installed")
    with pytest.raises(ArgumentError, match=text):
        nn.Network([3, nn.Dense(units, nn.Activation("own", f, df)), 1], device=place)


TABLE = np.linspace(0.0, 0.3, 7)
ACCEPTED: dict[str, tuple[Any, Any]] = {
    "kinks": (lambda z: np.clip(z, -1, 1), lambda z: np.abs(z) < 1),
    "a kink at a test point": (
        lambda z: np.where(z > LOWEST, z, LOWEST), lambda z: np.where(z > LOWEST, 1.0, 0.0),
    ),
    "floor": (np.floor, np.zeros_like),
    "a number as the slope": (lambda z: 3.0 * z, lambda z: 3),
    "not defined everywhere": (np.log, lambda z: 1 / z),
    "a different slope per unit": (
        lambda z: np.where(z > 0, z, TABLE * z), lambda z: np.where(z > 0, 1.0, TABLE),
    ),
    "single precision": (lambda z: np.tanh(z.astype("f4")), lambda z, a, xp: 1 - a * a),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(ACCEPTED))
def test_an_elementwise_activation_is_accepted(case: str, caplog: pytest.LogCaptureFixture) -> None:
    nn.Network([3, nn.Dense(7, nn.Activation("own", *ACCEPTED[case])), 1], device="numpy")
    assert not caplog.records


def test_a_wrong_slope_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    surrogate = nn.Activation("spike", lambda z: np.heaviside(z, 0.0), np.ones_like)
    nn.Network([3, nn.Dense(5, surrogate), 1], device="numpy")
    assert "df of activation 'spike' is not the slope of f" in caplog.text
    assert "it is 1, and the finite difference of f is 0" in caplog.text


def test_a_formula_with_functions_of_another_library_is_not_tested() -> None:
    def theirs(z: Any) -> Any:
        if isinstance(z, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        return z

    own = nn.Activation("theirs", theirs, lambda z, a, xp: xp.ones_like(z))
    net = nn.Network([3, nn.Dense(2, own), 1], device=GhostBackend())
    assert net.predict(np.ones((2, 3))).shape == (2,)
    with pytest.raises(ArgumentError, match="Unsupported type"):
        nn.Network([3, nn.Dense(2, own), 1], device="numpy")


@pytest.mark.parametrize("name", NAMES)
def test_activations_can_be_pickled(name: str) -> None:
    phi = get_activation(name)
    again = pickle.loads(pickle.dumps(phi))
    assert again == phi
    assert type(again) is type(phi)
    z = np.array([[-1.0, 2.0]])
    assert np.array_equal(again.value(z, np), phi.value(z, np))


def test_parameters_are_pickled() -> None:
    phi = pickle.loads(pickle.dumps(get_activation("elu", 0.5)))
    assert phi.params == (0.5,)
    assert phi.value(np.array([-50.0]), np)[0] == pytest.approx(-0.5)


def test_get_activation_returns_an_activation_unchanged() -> None:
    phi = get_activation("elu", 0.5)
    assert get_activation(phi) is phi


def test_a_name_returns_one_object_for_the_same_parameters() -> None:
    """Backends cache compiled code by formula object."""
    assert get_activation("relu") is get_activation("relu")
    assert get_activation("elu", 0.5) is get_activation("elu", 0.5)
    assert get_activation("elu", 0.5) is not get_activation("elu", 0.7)
    assert type(get_activation("elu", 1).params[0]) is int
    assert type(get_activation("elu", 1.0).params[0]) is float
    assert get_loss("huber", 2.0) is get_loss("huber", 2.0)
    with pytest.raises(ArgumentError, match=r"alpha of leaky_relu must be at least 0"):
        get_activation("leaky_relu", [1.0])  # type: ignore[arg-type]


@pytest.mark.parametrize(("typed", "meant"), [("rellu", "relu"), ("sigmoed", "sigmoid")])
def test_an_unknown_name_suggests_the_closest(typed: str, meant: str) -> None:
    with pytest.raises(ArgumentError, match=f"activation={typed!r}.*Did you mean {meant!r}"):
        nn.Dense(3, typed)


def test_a_negative_slope_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"alpha of leaky_relu must be at least 0.*alpha=-0.1"):
        get_activation("leaky_relu", -0.1)
