"""Invalid and unusual input: it works, or the error states the cure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import (
    ArgumentError,
    DataError,
    DeviceMismatchError,
    NNBackendError,
    ShapeError,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 4))
LABELS = (X[:, 0] > 0).astype(int)
VALUES = X @ np.array([1.0, 2.0, 3.0, 4.0])


def classifier(**options: Any) -> nn.Network:
    return nn.Network([4, 5, 2], "cross_entropy", **{"device": "numpy", **options})


def regressor(**options: Any) -> nn.Network:
    return nn.Network([4, 5, 1], device="numpy", **options)


def fit(net: nn.Network, x: Any, y: Any, **options: Any) -> nn.History:
    """Train a network, as part of a Model if the options are those of preprocessing."""
    options = {"epochs": 1, "batch_size": 8, **options}
    own = {name: options.pop(name) for name in ("scale", "scale_targets") if name in options}
    return nn.Model(net, **own).fit(x, y, **options) if own else nn.train(net, x, y, **options)


def refused(net: nn.Network, call: Callable[[], Any], kind: type[Exception], text: str) -> None:
    """Assert that the call raises with this text and leaves the network unchanged."""
    before = net.theta.copy()
    with pytest.raises(kind, match=text) as caught:
        call()
    assert isinstance(caught.value, NNBackendError)
    np.testing.assert_array_equal(net.theta, before)


# Every entry point for rows, with the name of the rows in its errors.
WITH_DATA: dict[str, Callable[[nn.Network, Any], Any]] = {
    "train": lambda net, x: fit(net, x, np.zeros(len(x), int)),
    "evaluate": lambda net, x: net.evaluate(x, np.zeros(len(x), int)),
    "predict": lambda net, x: net.predict(x),
    "predict_proba": lambda net, x: nn.Model(net).predict_proba(x),
    "outputs": lambda net, x: net.outputs(x),
}
ON_DEVICE: dict[str, Callable[[nn.Network, Any], Any]] = {
    "feedforward": lambda net, x: net.feedforward(x),
    "trace": lambda net, x: net.trace(x),
    "backprop": lambda net, x: net.backprop(x, np.zeros(len(x), int)),
}
every_entry = pytest.mark.parametrize("entry", sorted(WITH_DATA | ON_DEVICE))
data_entry = pytest.mark.parametrize("entry", sorted(WITH_DATA))


def call_entry(entry: str, net: nn.Network, x: Any) -> Any:
    return (WITH_DATA | ON_DEVICE)[entry](net, x)


# ---- rows: shape ------------------------------------------------------------------------------


@every_entry
@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ((4,), r"x must have 4 columns .*Received: x.shape=\(4,\). Reshape to \(1, 4\)"),
        ((12,), r"Received: x.shape=\(12,\). Reshape to \(3, 4\)"),
        ((5,), r"Received: x.shape=\(5,\). Give 4 columns"),
        ((6, 2, 2), r"Received: x.shape=\(6, 2, 2\). Reshape to \(6, 4\)"),
        ((6, 3), r"x must have 4 columns \(the first layer's n_in\).*\(6, 3\). Give 4 columns"),
        ((10, 6), r"Received: x.shape=\(10, 6\). Give 4 columns"),
        ((4, 20), r"Received: x.shape=\(4, 20\). Give 4 columns"),
        ((6, 0), r"Received: x.shape=\(6, 0\)"),
    ],
)
def test_rows_of_another_shape(entry: str, shape: tuple[int, ...], text: str) -> None:
    net = classifier()
    refused(net, lambda: call_entry(entry, net, np.ones(shape)), ShapeError, text)


@every_entry
def test_no_rows_at_all(entry: str) -> None:
    net = classifier()
    refused(
        net,
        lambda: call_entry(entry, net, np.ones((0, 4))),
        DataError,
        "x must have at least one row",
    )


def test_a_number_is_refused_as_rows() -> None:
    net = classifier()
    refused(net, lambda: net.predict(3.0), ShapeError, r"x must have 4 columns.*x.shape=\(\)")


# ---- rows: values -----------------------------------------------------------------------------


@data_entry
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_a_value_that_is_not_finite_is_reported_with_its_position(
    entry: str, bad: float, dtype: Any
) -> None:
    x = X.astype(dtype)
    x[13, 2] = bad
    x[17, 1] = bad
    net = classifier()
    text = f"x must be finite.*Received: {bad} in row 13, column 2. Drop such rows or fill in the"
    refused(net, lambda: call_entry(entry, net, x), DataError, text)


@data_entry
def test_a_value_beyond_float32_is_refused(entry: str) -> None:
    x = X.copy()
    x[3, 1] = 1e300
    net = classifier()
    refused(
        net, lambda: call_entry(entry, net, x), DataError, r"finite in float32.*1e\+300 in row 3"
    )
    call_entry(entry, classifier(dtype="float64"), X * 1e30)


def test_a_nan_far_down_a_large_table_is_found() -> None:
    x = np.ones((1_500_000, 4), np.float32)
    x[1_400_000, 3] = np.nan
    with pytest.raises(DataError, match="nan in row 1400000, column 3"):
        regressor().predict(x)


def test_the_validation_set_is_checked() -> None:
    x = X.copy()
    x[2, 0] = np.nan
    net = classifier()
    refused(net, lambda: fit(net, X, LABELS, validation=(x, LABELS), scale="standard"), DataError,
            "validation x must be finite.*row 2, column 0")  # fmt: skip
    refused(net, lambda: fit(net, X, LABELS, validation=(X[:, :3], LABELS)), ShapeError,
            "validation x must have 4 columns")  # fmt: skip
    refused(net, lambda: fit(net, X, LABELS, validation=(X, LABELS[:5])), ShapeError, "20 rows")
    refused(net, lambda: fit(net, X, LABELS, validation=(X, LABELS, np.ones(3))), ShapeError,
            "sample_weight")  # fmt: skip


# ---- rows: dtypes and containers --------------------------------------------------------------


@every_entry
@pytest.mark.parametrize(
    "dtype",
    [
        *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
        *("float16", "float32", "float64", "longdouble", ">f2", ">f4", ">f8", ">i4", ">u8", object),
    ],
)
@pytest.mark.parametrize("device", ["numpy", "numba"])
def test_numbers_of_any_dtype(entry: str, dtype: Any, device: str) -> None:
    x = (RNG.random((20, 4)) < 0.5).astype(dtype)
    nets = [classifier(device=device), classifier(device=device)]
    got, expected = call_entry(entry, nets[0], x), call_entry(entry, nets[1], x.astype("float32"))
    np.testing.assert_array_equal(nets[0].theta, nets[1].theta)
    if isinstance(got, np.ndarray):
        np.testing.assert_array_equal(got, expected)


@every_entry
@pytest.mark.parametrize(
    ("dtype", "said"),
    [
        ("U8", r"<U8 \(text\). Use nnbackend.Model.*or encode them as numbers first"),
        ("S8", r"S8 \(text\). Use nnbackend.Model"),
        ("complex128", r"complex128 \(complex numbers\). .*numpy.hstack\(\[x.real, x.imag\]\)"),
        ("clongdouble", r"\(complex numbers\)"),
        ("M8[s]", r"datetime64\[s\] \(dates\). .*numpy.timedelta64\(1, 'D'\)"),
        ("m8[s]", r"timedelta64\[s\] \(durations\). .*numpy.timedelta64\(1, 's'\)"),
        ("V4", r"V4 \(raw bytes\). Give numbers"),
        ([("a", float), ("b", int)], r"\(named fields\). .*structured_to_unstructured"),
    ],
    ids=str,
)
def test_dtypes_without_real_numbers_are_refused(entry: str, dtype: Any, said: str) -> None:
    x = np.zeros((3, 4), dtype) if dtype == "V4" else np.full((3, 4), 2).astype(dtype)
    net = classifier()
    refused(net, lambda: call_entry(entry, net, x), ShapeError,
            "x must hold real numbers. Received: x.dtype=.*" + said)  # fmt: skip


VIEWS: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "Fortran order": lambda x, path: np.asfortranarray(x),
    "negative strides": lambda x, path: x[::-1, ::-1][::-1, ::-1],
    "every second": lambda x, path: np.repeat(np.repeat(x, 2, axis=0), 2, axis=1)[::2, ::2],
    "broadcast": lambda x, path: np.broadcast_to(x, (3, *x.shape))[1],
    "read-only": lambda x, path: read_only(x),
    "memory-mapped": lambda x, path: mapped(x, path),
    "list": lambda x, path: x.tolist(),
    "tuple of rows": lambda x, path: tuple(x),
    "subclass": lambda x, path: x.view(type("Mine", (np.ndarray,), {})),
    "DataFrame": lambda x, path: pytest.importorskip(
        "pandas", reason="compares with pandas where it is installed"
    ).DataFrame(x, columns=list("abcd")),
}


def read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


def mapped(x: np.ndarray, path: Path) -> np.ndarray:
    np.save(path / "x.npy", x)
    array: np.ndarray = np.load(path / "x.npy", mmap_mode="r")
    return array


@every_entry
@pytest.mark.parametrize("view", sorted(VIEWS))
def test_arrays_of_any_kind(entry: str, view: str, tmp_path: Path) -> None:
    nets = [classifier(), classifier()]
    got = call_entry(entry, nets[0], VIEWS[view](X, tmp_path))
    expected = call_entry(entry, nets[1], X)
    np.testing.assert_allclose(nets[0].theta, nets[1].theta, rtol=1e-6)
    if isinstance(got, np.ndarray):
        np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("view", sorted(set(VIEWS) - {"tuple of rows", "subclass"}))
def test_targets_and_weights_of_any_kind(view: str, tmp_path: Path) -> None:
    table = np.abs(X)
    nets = [nn.Network([4, 4], device="numpy"), nn.Network([4, 4], device="numpy")]
    fit(nets[0], X, VIEWS[view](table, tmp_path), scale_targets=True)
    fit(nets[1], X, table, scale_targets=True)
    np.testing.assert_allclose(nets[0].theta, nets[1].theta, rtol=1e-6)
    weight = table[:, 0]
    series = weight.tolist() if view == "list" else weight[::-1][::-1]
    assert regressor().evaluate(X, VALUES, series) == regressor().evaluate(X, VALUES, weight)


def test_a_series_of_pandas() -> None:
    pandas = pytest.importorskip("pandas", reason="compares with pandas where it is installed")
    nets = [classifier(), classifier(), classifier()]
    fit(nets[0], X, LABELS)
    fit(nets[1], pandas.DataFrame(X), pandas.Series(LABELS, index=range(100, 120)))
    words = pandas.Series(np.array(["no", "yes"])[LABELS], dtype="category")
    nn.Model(nets[2]).fit(X, words, epochs=1, batch_size=8)
    np.testing.assert_array_equal(nets[0].theta, nets[1].theta)
    np.testing.assert_array_equal(nets[0].theta, nets[2].theta)
    frame = pandas.DataFrame({"a": ["x", "y"], "b": [1, 2], "c": [1, 2], "d": [1, 2]})
    refused(nets[0], lambda: nets[0].predict(frame), ShapeError, "x must hold real numbers")


@every_entry
def test_rows_of_unequal_length(entry: str) -> None:
    net = classifier()
    refused(net, lambda: call_entry(entry, net, [[1.0, 2.0], [1.0]]), ShapeError,
            "x must be an array of numbers. Received: builtins.list")  # fmt: skip


class OnAGPU:
    """An array on a CUDA device by its interface, as CuPy's and PyTorch's."""

    shape, dtype, ndim = (20, 4), np.dtype("float32"), 2
    __cuda_array_interface__: ClassVar[Any] = {
        "shape": (20, 4),
        "typestr": "<f4",
        "data": (1, True),
        "version": 3,
    }

    def __len__(self) -> int:
        return 20

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("no copy to the host is made for you")


class OfAnotherLibrary:
    """An array of another library on the host."""

    def __init__(self) -> None:
        self.__array_interface__ = X.__array_interface__

    def __len__(self) -> int:
        return 20


@data_entry
def test_arrays_on_a_gpu_are_not_copied_silently(entry: str) -> None:
    net = classifier()
    refused(net, lambda: call_entry(entry, net, OnAGPU()), DeviceMismatchError,
            r"x is .*OnAGPU on a GPU and the network is not. .*device='gpu'")  # fmt: skip


@pytest.mark.parametrize("entry", sorted(ON_DEVICE))
@pytest.mark.parametrize("foreign", [OnAGPU, OfAnotherLibrary])
def test_feedforward_refuses_arrays_of_other_devices(entry: str, foreign: Any) -> None:
    net = classifier()
    refused(net, lambda: call_entry(entry, net, foreign()), DeviceMismatchError, foreign.__name__)


def test_targets_and_weights_on_a_gpu() -> None:
    net = regressor()
    refused(net, lambda: fit(net, X, OnAGPU()), DeviceMismatchError, "y is .*OnAGPU on a GPU")
    refused(net, lambda: fit(net, X, VALUES, sample_weight=OnAGPU()), DeviceMismatchError,
            "sample_weight is .*OnAGPU on a GPU")  # fmt: skip


# ---- targets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"validation": 0.2}], ids=str)
@pytest.mark.parametrize(
    ("y", "kind", "text"),
    [
        (LABELS[:15], ShapeError, r"y must have one target for each of the 20 rows.*\(15,\)"),
        (np.ones((2, 20)), ShapeError, r"20 rows of x. Received: y.shape=\(2, 20\)"),
        (np.ones((20, 2, 1)), ShapeError, "y.shape"),
        (3, ShapeError, r"y.shape=\(\)"),
        (LABELS + 1, DataError, "class labels from 0 to 1.*Received: labels from 1 to 2.*np|numpy"),
        (LABELS - 1, DataError, "class labels from 0 to 1.*Received: labels from -1 to 0"),
        (
            LABELS * 0.5,
            DataError,
            r"class labels, whole numbers.*Received: 0.5.*\(n, 2\)|\(20, 2\)",
        ),
        (np.where(LABELS, np.nan, 0.0), DataError, "y must be finite.*nan in row"),
        (np.where(LABELS, np.inf, 0.0), DataError, "y must be finite.*inf in row"),
        (np.full(20, 1e300), DataError, "y must"),
        (np.full(20, 2**62), DataError, "class labels from 0 to 1"),
        (np.full((20, 3), 0.5), ShapeError, r"y must have 2 columns.*y.shape=\(20, 3\)"),
        (np.full((20, 2), 2.0), DataError, "targets of cross_entropy must lie between 0 and 1"),
        (LABELS + 0j, ShapeError, "y must hold real numbers.*complex"),
        (LABELS.astype("M8[s]"), ShapeError, "y must hold real numbers"),
        (np.array(["no", "yes"])[LABELS], DataError, "y must hold numbers.*text.*numpy.unique"),
        (["no", "yes"] * 10, DataError, "y must hold numbers.*text.*classes"),
    ],
    ids=range(17),
)
def test_targets_of_a_classifier(y: Any, kind: Any, text: str, options: dict[str, Any]) -> None:
    net = classifier()
    refused(net, lambda: fit(net, X, y, **options), kind, text)
    if not options:
        refused(net, lambda: net.evaluate(X, y), kind, text)
        refused(net, lambda: net.backprop(X, y), kind, text)


@pytest.mark.parametrize("options", [{}, {"scale_targets": True, "scale": "standard"}], ids=str)
@pytest.mark.parametrize(
    ("y", "kind", "text"),
    [
        (VALUES[:15], ShapeError, r"y must have one target for each of the 20 rows.*\(15,\)"),
        (np.where(np.arange(20) == 3, np.nan, VALUES), DataError, "y must be finite.*nan in row 3"),
        (np.ones((20, 2)), ShapeError, r"y must have 1 columns|y must have 1 column"),
        (np.array(["a"] * 20), DataError, "y must hold numbers.*text"),
        (VALUES * 1e300, DataError, "y must be finite in float32"),
    ],
    ids=["short", "nan", "wide", "text", "huge"],
)
def test_targets_of_a_regression(y: Any, kind: Any, text: str, options: dict[str, Any]) -> None:
    net = regressor()
    refused(net, lambda: fit(net, X, y, **options), kind, text)


@pytest.mark.parametrize(
    "y",
    [
        LABELS.astype(bool), LABELS.astype(np.uint8), LABELS.astype(float), LABELS.tolist(),
        LABELS.astype(np.float16), LABELS[:, None], LABELS.astype(object), np.eye(2)[LABELS],
        np.eye(2, dtype=bool)[LABELS], np.eye(2, dtype=int)[LABELS].tolist(),
    ],
    ids=["bool", "uint8", "float", "list", "float16", "column", "object", "one-hot", "bool one-hot",
         "list of rows"],
)  # fmt: skip
def test_class_labels_of_any_kind(y: Any) -> None:
    nets = [classifier(), classifier()]
    fit(nets[0], X, y)
    fit(nets[1], X, LABELS)
    np.testing.assert_array_equal(nets[0].theta, nets[1].theta)


@pytest.mark.parametrize("dtype", [None, "S3", object])
def test_labels_of_text(dtype: Any) -> None:
    names = np.array(["no", "yes"], dtype=dtype)
    model, net = nn.Model(classifier()), classifier()
    model.fit(X, names[LABELS], epochs=1, batch_size=8, validation=0.2)
    fit(net, X, LABELS, validation=0.2)
    assert model.classes == tuple(names.tolist())
    np.testing.assert_array_equal(model.network.theta, net.theta)
    np.testing.assert_array_equal(model.predict(X), names[net.predict(X)])
    refused(model.network, lambda: model.fit(X, ["maybe"] * 20), DataError, "Received: .*maybe")


def test_evaluate_does_not_change_the_model() -> None:
    model = nn.Model(nn.Network([4, 5, 3], "quadratic", device="numpy"))
    model.evaluate(X, LABELS)
    model.network.backprop(X, LABELS)
    assert model.classes is None
    assert not model.is_classifier


def test_one_output_with_classes_is_a_binary_classifier() -> None:
    model, words = nn.Model(regressor(), classes=("no", "yes")), np.array(["no", "yes"])[LABELS]
    model.fit(X, words, epochs=200, batch_size=5, optimizer=nn.Adam(0.02))
    assert set(model.predict(X)) == {"no", "yes"}
    right = (model.predict(X) == words).mean()
    assert model.evaluate(X, words)["accuracy"] == pytest.approx(right)


@pytest.mark.parametrize("layers", [[4, 1], [4, 5, 1], [4, nn.Dense(1, "softmax")]], ids=str)
def test_softmax_of_one_unit_is_refused(layers: Any) -> None:
    with pytest.raises(ArgumentError, match="softmax"):
        nn.Network(layers, "cross_entropy", device="numpy")


# ---- weights ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "kind", "text"),
    [
        (np.ones(19), ShapeError, r"sample_weight must have shape \(20,\).*\(19,\)"),
        (np.ones((20, 1)), ShapeError, r"sample_weight must have shape \(20,\).*\(20, 1\)"),
        (1.0, ShapeError, "sample_weight must have shape"),
        (
            np.where(np.arange(20) == 4, np.nan, 1.0),
            DataError,
            "sample_weight must be finite.*row 4",
        ),
        (np.where(np.arange(20) == 4, -1.0, 1.0), DataError, "sample_weight must not be negative"),
        (np.zeros(20), DataError, "nor zero .* for every row"),
        (["1"] * 20, ShapeError, "sample_weight must hold real numbers"),
    ],
    ids=["short", "column", "number", "nan", "negative", "zero", "text"],
)
def test_weights(weight: Any, kind: Any, text: str) -> None:
    net = regressor()
    refused(net, lambda: fit(net, X, VALUES, sample_weight=weight), kind, text)
    refused(net, lambda: net.evaluate(X, VALUES, weight), kind, text)


# ---- options of the wrong type ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"early_stopping": 5}, "early_stopping must be an nnbackend.EarlyStopping.*=5"),
        ({"early_stopping": True}, "early_stopping must be an nnbackend.EarlyStopping"),
        ({"callbacks": nn.Callback()}, "callbacks"),
        ({"callbacks": [print]}, "callbacks"),
        ({"max_norm": "3"}, "max_norm must be a number above 0"),
        ({"l2": "0.1"}, "l2 must be a number, at least 0. Received: l2='0.1'"),
        ({"l2": None}, "l2 must be a number"),
        ({"l1": np.inf}, "l1 must be a number"),
        ({"clip_norm": "1"}, "clip_norm must be a number above 0"),
        ({"ema": "0.9"}, "ema must be a number between 0 and 1"),
        ({"epochs": "3"}, "epochs must be a whole number"),
        ({"batch_size": "32"}, "batch_size must be a whole number"),
        ({"seed": "1"}, "seed must be a whole number"),
        ({"scale": 3}, "kind"),
        ({"validation": "0.2"}, "validation must be"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_of_the_wrong_type(options: dict[str, Any], text: str) -> None:
    net = classifier()
    refused(net, lambda: fit(net, X, LABELS, **options), ArgumentError, text)


@pytest.mark.parametrize("make", [nn.SGD, nn.Adam, nn.AdaGrad, nn.RMSProp, nn.AdaDelta])
def test_an_infinite_rate_is_refused(make: Any) -> None:
    with pytest.raises(ArgumentError, match="learning_rate must be a number above 0"):
        make(float("inf"))


def test_warm_up_then_an_unknown_name() -> None:
    with pytest.raises(ArgumentError, match="Did you mean 'cosine'"):
        nn.schedules.WarmUp(1.0, "cosin")


@pytest.mark.parametrize("value", [np.array([0.1, 0.2]), "fast", None], ids=str)
def test_a_schedule_that_returns_no_number_is_refused(value: Any) -> None:
    with pytest.raises(ArgumentError, match="a schedule must return one number"):
        fit(classifier(), X, LABELS, schedule=lambda step: value)


def test_a_momentum_of_1_from_a_schedule_is_refused() -> None:
    with pytest.raises(ArgumentError, match="below 1"):
        fit(classifier(), X, LABELS, optimizer="sgd", momentum_schedule=lambda step: 1.0)


def test_warm_up_accepts_a_name() -> None:
    by_name, by_object = (
        fit(regressor(), X, VALUES, epochs=3, schedule=nn.schedules.WarmUp(1.0, then))
        for then in ("cosine", nn.schedules.Cosine())
    )
    assert by_name["learning_rate"] == by_object["learning_rate"]


def test_a_norm_for_each_layer_may_be_an_array() -> None:
    net = classifier()
    fit(net, X, LABELS, max_norm=np.array([1.0, 0.5]))
    assert np.linalg.norm(net.weights[1], axis=0).max() <= 0.5 * (1 + 1e-6)


def test_a_custom_recurrence_is_used() -> None:
    def momentum(theta: Any, g: Any, state: Any, c: Any, p: Any, xp: Any) -> Any:
        return theta, tuple(state)

    class Still(nn.SGD):
        state = ("velocity",)
        recurrence = staticmethod(momentum)

    net = regressor()
    before = net.theta.copy()
    fit(net, X, VALUES, optimizer=Still(0.1))
    np.testing.assert_array_equal(net.theta, before)


def test_a_scaler_of_other_columns_is_refused() -> None:
    net = classifier()
    scaler = nn.data.fit_scaler("standard", X[:, :3])
    refused(net, lambda: fit(net, X, LABELS, scale=scaler), ShapeError, "4 columns.*3 columns")


def test_an_option_refused_late_leaves_no_scaler() -> None:
    net = regressor()
    stopping = nn.EarlyStopping(monitor="valid_loss")
    refused(net, lambda: fit(net, X, VALUES, scale="standard", early_stopping=stopping),
            ArgumentError, "monitor must be a column")  # fmt: skip
    refused(net, lambda: fit(net, X, VALUES, scale="standard", validation=5.0), ArgumentError,
            "between 0 and 1")  # fmt: skip
    refused(net, lambda: fit(net, X, VALUES, scale="standard", scale_targets=True,
                             validation=(X, VALUES[:3])), ShapeError, "20 rows")  # fmt: skip


def test_masked_arrays_are_accepted_only_if_nothing_is_masked() -> None:
    x = np.arange(8.0).reshape(4, 2)
    net = nn.Network([2, 1], device="numpy")
    plain = net.predict(x)
    np.testing.assert_array_equal(net.predict(np.ma.masked_array(x)), plain)
    with pytest.raises(DataError, match="masked array with 1 masked"):
        net.predict(np.ma.masked_array(x, mask=x == 3.0))


def test_a_nearly_constant_column_is_scaled_without_overflow() -> None:
    x = np.array([[0.0, 0.0], [0.0, 1e-40]] * 4, np.float32)
    model = nn.Model(nn.Network([2, 1], device="numpy"), scale="robust")
    model.fit(x, np.arange(8.0), epochs=1)
    assert np.isfinite(model.predict(x)).all()
