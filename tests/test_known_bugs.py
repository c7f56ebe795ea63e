"""Faults that are known and not mended yet; a test that passes belongs in its module's own file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import ArgumentError, DataError, DivergedError, NNBackendError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 4))
LABELS = (X[:, 0] > 0).astype(int)
VALUES = X @ np.array([1.0, 2.0, 3.0, 4.0])


def bug(reason: str, raises: Any = None) -> Any:
    return pytest.mark.xfail(strict=True, reason=reason, raises=raises)


def classifier(**options: Any) -> nn.Network:
    return nn.Network([4, 5, 2], "cross_entropy", device="numpy", **options)


def regressor(**options: Any) -> nn.Network:
    return nn.Network([4, 5, 1], device="numpy", **options)


@bug("overflow of a diverging run leaks out as a RuntimeWarning", RuntimeWarning)
@pytest.mark.parametrize("rule", [nn.SGD(1e6), nn.SGD(1e6, momentum=0.9)], ids=["sgd", "momentum"])
def test_divergence_is_one_clear_error(rule: Any) -> None:
    with pytest.raises(DivergedError):
        nn.train(regressor(), X, VALUES, optimizer=rule, epochs=5, batch_size=4)


@bug("seeds from 2^63 pass through float64 on their way into Philox's key", RuntimeWarning)
def test_large_seeds_are_seeds() -> None:
    weights = {nn.Network([2, 1], seed=2**64 - k, device="numpy").weights[0][0, 0] for k in (1, 2)}
    assert len(weights) == 2


@bug("the dtype of a NumPy array is not looked at on the NumPy backend")
@pytest.mark.parametrize("dtype", ["U8", "complex128", "M8[s]", object])
def test_rows_that_are_no_real_numbers_are_refused(dtype: Any) -> None:
    x = np.full((3, 4), 2).astype(dtype)
    net = regressor()
    for use in (net.feedforward, net.predict, lambda x: nn.train(net, x, np.zeros(3), epochs=1)):
        with pytest.raises(NNBackendError, match="x must hold real numbers"):
            use(x)


@bug("one output with classes and a quadratic loss is judged by an argmax of one column")
def test_accuracy_of_one_output_with_classes() -> None:
    net = regressor(classes=("no", "yes"))
    nn.train(net, X, LABELS, epochs=200, batch_size=5, optimizer=nn.Adam(0.02))
    assert set(net.predict(X)) == {"no", "yes"}


@bug("softmax of one unit is always 1, and nothing can be learnt")
def test_softmax_of_one_unit_is_refused() -> None:
    with pytest.raises(ArgumentError, match="softmax"):
        nn.Network([4, 1], "cross_entropy", device="numpy")


@bug("a scaler fitted to other columns ends in NumPy's error", ValueError)
def test_a_scaler_of_other_columns_is_refused() -> None:
    with pytest.raises(nn.errors.ShapeError, match="columns"):
        nn.train(classifier(), X, LABELS, scale=nn.data.fit_scaler("standard", X[:, :3]), epochs=1)


@bug("rows with too many columns are told to reshape into other rows")
def test_the_cure_for_wrong_columns_keeps_the_rows() -> None:
    with pytest.raises(nn.errors.ShapeError, match=r"^(?!.*Reshape to \(15, 4\))"):
        classifier().predict(np.zeros((10, 6)))


@bug("predict and evaluate take NaN and give a class")
def test_predict_refuses_nan() -> None:
    with pytest.raises(DataError, match="x must be finite"):
        classifier().predict(np.full((2, 4), np.nan))


@bug("labels beyond int64 end in a RuntimeWarning", RuntimeWarning)
def test_labels_beyond_all_integers() -> None:
    with pytest.raises(DataError, match="y must hold class labels"):
        nn.train(classifier(), X, np.full(20, 1e300), epochs=1)


@bug("values beyond float32 end in a RuntimeWarning", RuntimeWarning)
def test_rows_beyond_float32() -> None:
    with pytest.raises(DataError):
        nn.train(classifier(), X * 1e300, LABELS, epochs=1)


@bug(
    "options of the wrong type end in an error of Python's own",
    (AttributeError, TypeError, ValueError, IndexError),
)
@pytest.mark.parametrize(
    "options",
    [
        {"early_stopping": 5},
        {"callbacks": nn.Callback()},
        {"max_norm": np.array([1.0, 2.0])},
        {"l2": "0.1"},
        {"clip_norm": "1"},
        {"schedule": lambda step: np.array([0.1, 0.2])},
        {"schedule": nn.schedules.Cosine(restarts=1.5)},
    ],
    ids=lambda o: f"{next(iter(o))}",
)  # fmt: skip
def test_options_of_the_wrong_type(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        nn.train(classifier(), X, LABELS, epochs=2, **options)


@bug("a schedule inside a warm-up is not looked at", AttributeError)
def test_warm_up_then_a_name() -> None:
    nn.train(classifier(), X, LABELS, epochs=1, schedule=nn.schedules.WarmUp(1.0, "cosine"))


@bug("a momentum of 1 or more is taken from a schedule, though SGD itself refuses it")
def test_a_momentum_schedule_stays_below_one() -> None:
    with pytest.raises(ArgumentError, match="below 1"):
        nn.train(
            classifier(), X, LABELS, epochs=1, optimizer="sgd", momentum_schedule=lambda s: 1.0
        )


@bug("an infinite learning rate is above 0")
@pytest.mark.parametrize("make", [nn.SGD, nn.Adam, nn.AdaGrad])
def test_an_infinite_learning_rate_is_refused(make: Any) -> None:
    with pytest.raises(ArgumentError, match="learning_rate"):
        make(float("inf"))


@bug("a recurrence of one's own with a built-in's name runs the built-in's code")
def test_an_optimizer_of_ones_own_keeps_its_recurrence() -> None:
    def momentum(theta: Any, g: Any, state: Any, c: Any, p: Any, xp: Any) -> Any:
        return theta, tuple(state)

    class Still(nn.SGD):
        state = ("velocity",)
        recurrence = staticmethod(momentum)

    net = regressor()
    before = net.theta.copy()
    nn.train(net, X, VALUES, epochs=1, optimizer=Still(0.1))
    assert np.array_equal(net.theta, before)


@bug("the scaler is kept although an option was refused after it was fitted")
def test_a_refused_run_leaves_no_scaler_behind() -> None:
    net = regressor()
    stopping = nn.EarlyStopping(monitor="valid_loss")
    with pytest.raises(ArgumentError, match="monitor"):
        nn.train(net, X, VALUES, scale="standard", early_stopping=stopping)
    assert net.scaler is None


@bug("labels of text in a NumPy array are refused on the NumPy backend", nn.errors.ShapeError)
@pytest.mark.parametrize("dtype", [None, object])
def test_labels_of_text(dtype: Any) -> None:
    net = classifier(classes=("no", "yes"))
    nn.train(net, X, np.array(["no", "yes"], dtype=dtype)[LABELS], epochs=1)
