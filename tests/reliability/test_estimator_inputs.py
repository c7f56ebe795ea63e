"""Any data and parameters for the estimators: a clear error, or a fit with finite numbers."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning

import nnbackend as nn
from nnbackend.errors import NNBackendError
from nnbackend.network.activations import ACTIVATIONS
from nnbackend.training.optimizers import OPTIMIZERS
from nnbackend.training.schedules import SCHEDULES

SETTINGS = settings(
    deadline=None, derandomize=True, database=None, phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
EXAMPLES = 150
ODD = [float("nan"), float("inf"), -float("inf"), 1e300, -1e30, 1e38, 1e-320, -0.0]
DTYPES = ["f8", "f8", "f8", "f4", "f2", ">f8", "i1", "u8", "?", "O", "c16", "S3", "U3", "M8[s]"]
LAYOUTS = [
    "C", "C", "C", "F", "reversed", "strided", "read-only", "list", "1-d", "3-d", "0-d", "csr",
    "csc", "coo", "masked", "None mixed in", "text", "None",
]  # fmt: skip


def laid_out(x: np.ndarray, layout: str) -> Any:
    """Return an array in some form that a user may pass."""
    if layout in ("csr", "csc", "coo"):
        kept = np.atleast_2d(x) if x.dtype.kind in "fiub" else np.zeros((len(x), 2))
        return scipy.sparse.coo_array(kept.astype("f8")).asformat(layout)
    made = x.copy()
    made.flags.writeable = layout != "read-only"
    if layout == "None mixed in":
        made = x.astype(object)
        made.flat[:1] = None
    forms: dict[str, Any] = {
        "F": lambda: np.asfortranarray(x),
        "reversed": lambda: x[::-1],
        "strided": lambda: np.repeat(x, 2, axis=0)[::2],
        "list": x.tolist,
        "1-d": x.ravel,
        "3-d": lambda: x[None, None],
        "0-d": lambda: x.ravel()[0] if x.size else x,
        "masked": lambda: np.ma.masked_array(x, np.arange(x.size).reshape(x.shape) % 3 == 1),
        "text": lambda: "rows",
        "None": lambda: None,
    }
    return forms[layout]() if layout in forms else made


@st.composite
def arrays(draw: st.DrawFn, shape: tuple[int, ...], *, is_odd: bool) -> Any:
    """Draw an array; if `is_odd`, with some odd numbers, in some dtype and form."""
    made = np.random.default_rng(draw(st.integers(0, 99))).normal(size=shape)
    if not is_odd:
        return made
    for place in draw(st.sets(st.integers(0, 40), max_size=3)):
        if made.size:
            made.flat[place % made.size] = draw(st.sampled_from(ODD))
    dtype = draw(st.sampled_from(DTYPES))
    if np.dtype(dtype).kind in "iubM":
        made = np.nan_to_num(np.clip(made, 0, 100))
    with np.errstate(all="ignore"):
        return laid_out(made.astype(dtype), draw(st.sampled_from(LAYOUTS)))


@st.composite
def data(draw: st.DrawFn, kind: Any) -> tuple[Any, Any, Any]:
    """Draw x, y and sample_weight, of which one or all are odd."""
    n = draw(st.sampled_from([0, 1, 2, 3, 5, 9, 9, 9, 20]))
    n_in = draw(st.sampled_from([1, 2, 3, 0]))
    odd = draw(st.sampled_from([{"x"}, {"y"}, {"w"}, {"x", "y", "w"}, set()]))
    off = draw(st.sampled_from([0, 0, 0, 0, 1, -1]))
    x = draw(arrays((n, n_in), is_odd="x" in odd))
    rows = max(n + off, 0)
    n_classes = draw(st.integers(1, 4))
    y: Any = np.arange(rows) % n_classes
    if draw(st.booleans()) and kind is nn.MLPClassifier:
        names = [["a", "b", "c", "dé"], [b"a", b"b", b"c", b"d"], [True, False, True, False]]
        y = np.array(draw(st.sampled_from(names)), draw(st.sampled_from([None, object])))[y]
    elif kind is nn.MLPRegressor or "y" in odd:
        outputs = draw(st.sampled_from([(), (1,), (2,), (0,)]))
        y = draw(arrays((rows, *outputs), is_odd="y" in odd))
    w = None
    if "w" in odd:
        w = draw(arrays((rows,), is_odd=True) | st.sampled_from([0, 1.0, "w", np.zeros(rows)]))
    return x, y, w


SIZES = st.sampled_from([3, (4, 2), [1], (), [], 0, -1, 2.5, "3", None, nn.Maxout(2),
                         [nn.Dense(2), 3], np.array([2, 3]), [[2]], (True,)])  # fmt: skip
NUMBERS = st.sampled_from([0, 0.0, 1, 0.5, 0.999, 1.0, -1, 1e-300, 1e30, 1e308, float("nan"),
                           float("inf"), None, "0.1", True, [0.1], np.float32(0.1)])  # fmt: skip
PARAMETERS: dict[str, st.SearchStrategy[Any]] = {
    "hidden_layer_sizes": SIZES,
    "activation": st.sampled_from([*sorted(ACTIVATIONS), "logistic", "none", None, ["relu"],
                                   ["relu", "tanh"], [None], nn.Activation]),
    "solver": st.sampled_from([*sorted(OPTIMIZERS), "newton", None, nn.Adam(0.1), nn.LBFGS(),
                               nn.Adam]),
    "batch_size": st.sampled_from(["auto", 1, 2, 100, 0, -1, 2.0, None, "all", True]),
    "learning_rate": st.sampled_from(["constant", "invscaling", "adaptive", "fast", None]),
    "max_iter": st.sampled_from([1, 2, 3, 0, -1, 2.0, None]),
    "max_fun": st.sampled_from([1, 5, 0, None]),
    "random_state": st.sampled_from([0, None, -1, 2**32, "0", np.random.RandomState(0),
                                     np.random.default_rng(0)]),
    "n_iter_no_change": st.sampled_from([1, np.inf, 0, 1.5, None]),
    "dtype": st.sampled_from([None, "float32", "float64", "float16", np.float32]),
    "device": st.sampled_from(["numpy", "numpy", None, "none", "numpy:7", 3]),
    "dropout": st.sampled_from([0.0, 0.5, 0.99, 1.0, -0.1, [0.1, 0.2], [0.1], ["a", "b"], "0.1",
                                None, float("nan")]),
    "max_norm": st.sampled_from([None, 1.0, 0.0, -1, [1.0, None], [1.0], ["a", "b"], np.inf]),
    "schedule": st.sampled_from([None, *sorted(SCHEDULES), "none", lambda step: -1.0,
                                 lambda step: 0.01, lambda: 1, nn.schedules.Step(1)]),
    "monitor": st.sampled_from([None, "score", "valid_loss", "loss"]),
    "callbacks": st.sampled_from([None, [], [None], 3, nn.Callback(), nn.Callback]),
    "verbose": st.sampled_from([False, 0, None, "loud"]),
    **dict.fromkeys(
        ("alpha", "learning_rate_init", "power_t", "tol", "momentum", "validation_fraction",
         "beta_1", "beta_2", "epsilon", "l1", "weight_decay", "clip_norm", "ema"), NUMBERS),
    **dict.fromkeys(
        ("shuffle", "warm_start", "nesterovs_momentum", "early_stopping"),
        st.sampled_from([False, True, True, 1, None, "yes"])),
}  # fmt: skip
OWN: dict[Any, dict[str, st.SearchStrategy[Any]]] = {
    nn.MLPClassifier: {
        "label_smoothing": NUMBERS,
        "class_weight": st.sampled_from([None, "balanced", {0: 1.0}, {0: -1.0, 1: 0.0}, {"a": 2.0},
                                         [1.0], "even", {0: float("nan")}, {0: "a"}]),
    },
    nn.MLPRegressor: {
        "loss": st.sampled_from(["squared_error", "poisson", "absolute_error", "huber", "quantile",
                                 "log_loss", None, nn.losses.quantile(0.9), nn.losses.quantile]),
    },
}  # fmt: skip

# Parts of Python's messages about arguments that were not validated.
UNCLEAR = re.compile(
    r"operand|'NoneType'|has no attribute|object is not|unpack|not supported between"
)


@st.composite
def parameters(draw: st.DrawFn, kind: Any, most: int) -> dict[str, Any]:
    """Draw some parameters, good or bad."""
    known = PARAMETERS | OWN[kind]
    names = draw(st.lists(st.sampled_from(sorted(known)), max_size=most, unique=True))
    return {name: draw(known[name]) for name in names}


def refused(call: Any, *args: Any, **more: Any) -> bool:
    """Return True if the call raises a clear error. Other exceptions propagate."""
    with warnings.catch_warnings():
        # Warnings of scikit-learn too: convergence, clipped batches, columns used as vectors.
        for kind in (ConvergenceWarning, DataConversionWarning, UserWarning):
            warnings.simplefilter("ignore", kind)
        # scikit-learn's checks of targets and its scores see odd numbers before ours.
        warnings.filterwarnings("ignore", "", RuntimeWarning, r"sklearn\.|numpy\.")
        try:
            call(*args, **more)
        except (ValueError, TypeError, NNBackendError) as error:
            message = str(error)
        else:
            return False
    assert len(message.split()) > 2, message
    assert not UNCLEAR.search(message), message
    return True


def check_fit(model: Any) -> None:
    for part in (*model.coefs_, *model.intercepts_):
        assert np.isfinite(part).all()


def learn(model: Any, x: Any, y: Any, w: Any, is_partial: bool) -> bool:
    """Return True if a fit is accepted."""
    if not is_partial:
        return not refused(model.fit, x, y, w)
    if not hasattr(model, "partial_fit"):
        assert model.solver == "lbfgs"
        return False
    more: dict[str, Any] = {}
    if isinstance(model, nn.MLPClassifier) and not hasattr(model, "classes_"):
        try:
            more["classes"] = np.unique(y)
        except TypeError:
            more["classes"] = [0, 1]
    return not refused(model.partial_fit, x, y, w, **more)


@pytest.mark.parametrize("kind", [nn.MLPClassifier, nn.MLPRegressor])
@settings(SETTINGS, max_examples=EXAMPLES)
@given(drawn=st.data(), ways=st.lists(st.booleans(), min_size=1, max_size=3))
def test_any_input_is_accepted_or_refused(kind: Any, drawn: st.DataObject, ways: Any) -> None:
    model = kind(hidden_layer_sizes=3, max_iter=2, device="numpy", random_state=0)
    for is_partial in ways:
        x, y, w = drawn.draw(data(kind))
        if learn(model, x, y, w, is_partial):
            check_fit(model)
        refused(model.predict, drawn.draw(data(kind))[0])
        refused(model.score, x, y, w)


@pytest.mark.parametrize("kind", [nn.MLPClassifier, nn.MLPRegressor])
@settings(SETTINGS, max_examples=EXAMPLES)
@given(drawn=st.data(), ways=st.lists(st.booleans(), min_size=1, max_size=3))
def test_any_parameters_are_taken_or_refused(kind: Any, drawn: st.DataObject, ways: Any) -> None:
    """Also changed between one fit and the next."""
    x = np.random.default_rng(0).normal(size=(12, 2))
    y = np.arange(12) % drawn.draw(st.integers(2, 3))
    model = kind(hidden_layer_sizes=3, max_iter=2, device="numpy", random_state=0)
    for is_partial in ways:
        model.set_params(**drawn.draw(parameters(kind, 3)))
        w = drawn.draw(st.sampled_from([None, np.arange(12.0)]))
        if learn(model, x, y, w, is_partial):
            check_fit(model)
            assert model.predict(x).shape == (12,)
