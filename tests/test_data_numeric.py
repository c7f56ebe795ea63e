"""Tables, sparse matrices and objects as rows and targets: numbers are accepted, others refused."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from rows import registered
from sklearn.exceptions import ConvergenceWarning

import nnbackend as nn
from nnbackend.data import numeric
from nnbackend.errors import ArgumentError, DataError, NNBackendError, ShapeError
from nnbackend.training.rate_finder import find_learning_rate

RNG = np.random.default_rng(0)
NUMBERS = {
    "age": RNG.integers(18, 90, 30), "size": RNG.normal(1.7, 0.1, 30),
    "smokes": RNG.random(30) < 0.3, "bytes": RNG.integers(0, 256, 30).astype(np.uint8),
}  # fmt: skip
X = np.stack([np.asarray(column, np.float64) for column in NUMBERS.values()], axis=1) / 8.0
X[:, 3] = NUMBERS["bytes"]
TABLE = {**NUMBERS, "age": X[:, 0], "size": X[:, 1]}
X[:, 2] = NUMBERS["smokes"]
LABELS = (X[:, 0] > 7).astype(int)


def _pandas() -> Any:
    return pytest.importorskip("pandas", reason="pandas is not installed")


def _polars() -> Any:
    return pytest.importorskip("polars", reason="polars is not installed")


def _arrow() -> Any:
    return pytest.importorskip("pyarrow", reason="pyarrow is not installed")


def _dummies() -> Any:
    table = _pandas().DataFrame({**TABLE, "smokes": np.where(TABLE["smokes"], "yes", "no")})
    return _pandas().get_dummies(table)[["age", "size", "smokes_yes", "bytes"]]


TABLES: dict[str, Callable[[], Any]] = {
    "pandas": lambda: _pandas().DataFrame(TABLE),
    "numbers only": lambda: _pandas().DataFrame(X),
    "get_dummies": _dummies,
    "nullable": lambda: _pandas().DataFrame(TABLE).convert_dtypes(),
    "Arrow in pandas": lambda: (
        _arrow() and _pandas().DataFrame(TABLE).convert_dtypes(dtype_backend="pyarrow")
    ),
    "objects": lambda: _pandas().DataFrame(TABLE).astype(object),
    "categories": lambda: _pandas().DataFrame(TABLE).astype({"bytes": "category"}),
    "equal names": lambda: _pandas().DataFrame(TABLE).set_axis(["a", "a", "b", "b"], axis=1),
    "sparse columns": lambda: _pandas().DataFrame(TABLE).astype({"age": "Sparse[float]"}),
    "Arrow": lambda: _arrow().table(TABLE),
    "polars": lambda: _polars().DataFrame(TABLE),
    "polars, one dtype": lambda: _polars().DataFrame(X, schema=list("abcd")),
    "csr_array": lambda: scipy.sparse.csr_array(X),
    "coo_matrix": lambda: scipy.sparse.coo_matrix(X),
    "csc_array of float32": lambda: scipy.sparse.csc_array(X.astype(np.float32)),
    "rows of objects": lambda: [[Decimal(a), Fraction(b), bool(c), int(d)] for a, b, c, d in X],
}


def _net(device: str = "numpy", **options: Any) -> nn.Network:
    return nn.Network([4, 5, 2], "cross_entropy", dtype="float64", device=device, **options)


@pytest.mark.parametrize("device", ["numpy", "numba"])
@pytest.mark.parametrize("title", TABLES)
def test_tables_of_numbers_are_rows(title: str, device: str) -> None:
    table, nets = TABLES[title](), [_net(device), _net(device)]
    options: dict[str, Any] = {"epochs": 2, "batch_size": 8, "validation": 0.2}
    for net, x in zip(nets, (table, X), strict=True):
        nn.train(net, x, LABELS, **options)
        nn.train(net, X, LABELS, epochs=1, validation=(x, LABELS))
    tolerance = 1e-5 if title == "csc_array of float32" else 1e-12
    np.testing.assert_allclose(nets[0].theta, nets[1].theta, rtol=tolerance)
    np.testing.assert_allclose(nets[0].outputs(table), nets[1].outputs(X), rtol=tolerance)
    assert nets[0].evaluate(table, LABELS) == pytest.approx(nets[1].evaluate(X, LABELS), rel=1e-5)
    if not scipy.sparse.issparse(table):
        found = nets[0].backprop(table, LABELS).vector
        np.testing.assert_allclose(found, nets[1].backprop(X, LABELS).vector, rtol=1e-9)


@pytest.mark.parametrize("title", ["get_dummies", "nullable", "polars", "csr_array"])
def test_estimators_accept_the_same_tables(title: str) -> None:
    table, model = TABLES[title](), nn.MLPClassifier(5, max_iter=5, device="numpy")
    with pytest.warns(ConvergenceWarning):
        model.fit(table, LABELS)
    np.testing.assert_allclose(model.predict_proba(table), model.predict_proba(TABLES[title]()))
    net = _net()
    nn.train(net, table, LABELS, epochs=1)


def test_a_plain_table_is_not_copied() -> None:
    table = _pandas().DataFrame(X.astype(np.float32))
    assert np.shares_memory(numeric.as_array(table, "x"), np.asarray(table))


def test_a_mixed_table_has_the_common_dtype_of_its_columns() -> None:
    table = _pandas().DataFrame({"a": np.ones(3, np.float32), "b": [True, False, True]})
    assert numeric.as_array(table, "x").dtype == np.float32


# ---- invalid data -------------------------------------------------------------------------------


def _check_refused(x: Any, kind: type[Exception], said: str, **options: Any) -> None:
    net = _net()
    before = net.theta.copy()
    with pytest.raises(kind, match=said) as caught:
        nn.train(net, x, LABELS, epochs=1, **options)
    assert isinstance(caught.value, NNBackendError)
    np.testing.assert_array_equal(net.theta, before)


@pytest.mark.parametrize(
    "make",
    [
        lambda: _pandas().DataFrame(TABLE | {"age": ["a"] * 30, "smokes": ["b"] * 30}),
        lambda: (
            _pandas()
            .DataFrame(TABLE | {"age": ["1"] * 30, "smokes": ["b"] * 30})
            .astype("category")
        ),
        lambda: _polars().DataFrame(TABLE | {"age": ["a"] * 30, "smokes": ["b"] * 30}),
        lambda: _arrow().table(TABLE | {"age": ["a"] * 30, "smokes": ["b"] * 30}),
    ],
    ids=["pandas", "categories", "polars", "Arrow"],
)
def test_columns_of_text_are_named(make: Callable[[], Any]) -> None:
    table = make()
    _check_refused(
        table, ShapeError,
        rf"x must hold real numbers. Received: a {type(table).__name__} with text in the "
        r"columns 'age', 'smokes'. Use nnbackend.Model.*get_dummies"
    )  # fmt: skip


def test_all_invalid_columns_are_named_with_their_cures() -> None:
    day = datetime.date(2024, 5, 1)
    table = _pandas().DataFrame({
        "when": np.array(["2024-05-01"] * 30, "M8[s]"), "who": ["a", None, 3] * 10,
        "day": [day] * 30, "n": 1, "how long": np.ones(30, "m8[s]"), 7: [1j] * 30,
    })  # fmt: skip
    said = "dates in the columns 'when', 'day' and text in the column 'who' and durations in the "
    _check_refused(
        table, ShapeError, said + "column 'how long' and complex numbers in the column 7"
    )
    for cure in (
        "encode them as numbers",
        r"timedelta64\(1, 'D'\)",
        r"timedelta64\(1, 's'\)",
        "x.imag",
    ):
        _check_refused(table, ShapeError, cure)


def test_only_some_of_many_columns_are_named() -> None:
    table = _pandas().DataFrame({f"c{i}": ["a"] * 30 for i in range(500)})
    _check_refused(
        table, ShapeError, r"in the columns 'c0', .*'c9' and 490 more. Use nnbackend.Model"
    )


@pytest.mark.parametrize("dtype", ["Float64", "float64[pyarrow]", "object", "boolean"])
def test_missing_values_are_named_with_their_position(dtype: str) -> None:
    pandas = _pandas()
    table = pandas.DataFrame(TABLE)
    column = "smokes" if dtype == "boolean" else "size"
    values = table[column].astype(dtype)
    values[5] = pandas.NA
    table[column] = values
    said = f"nan in row 5, column {list(table).index(column)}. Drop such rows or fill in the values"
    _check_refused(table, DataError, said)


@pytest.mark.parametrize("gap", [None, float("nan")])
def test_missing_values_of_lists_are_named_with_their_position(gap: Any) -> None:
    _check_refused([*X[:3].tolist(), [1.0, gap, 2.0, 3.0]], DataError, "nan in row 3, column 1")


def test_a_missing_value_of_polars_is_named_with_its_position() -> None:
    table = _polars().DataFrame(TABLE | {"smokes": [None] + [True] * 29})
    _check_refused(table, DataError, "nan in row 0, column 2")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: (row for row in X), "builtins.generator. .*numpy.array.list"),
        (lambda: iter(X.tolist()), "list_iterator. Convert it to an array first"),
        (lambda: _polars().LazyFrame(TABLE), r"LazyFrame. Collect it first: .collect\(\)"),
        (lambda: nn.data.load("iris"), "Dataset. Give its arrays: data.x and data.y"),
        (lambda: "iris.csv", r"builtins.str. Read a file first: .*nnbackend.data.load"),
        (lambda: Path("iris.csv"), "Path. Read a file first"),
        (lambda: TABLE, r"builtins.dict. .*numpy.column_stack"),
        (lambda: {1, 2}, r"builtins.set. Convert it to an array first"),
        (lambda: None, "builtins.NoneType"),
        (lambda: object(), "builtins.object"),
        (lambda: [[1.0, 2.0], [1.0]], "builtins.list"),
    ],
    ids=["generator", "iterator", "LazyFrame", "Dataset", "str", "Path", "dict", "set", "None",
         "object", "ragged"],
)  # fmt: skip
def test_other_objects_are_refused_with_the_cure(make: Callable[[], Any], said: str) -> None:
    _check_refused(make(), ShapeError, "x must be an array of numbers. Received: .*" + said)
    net = nn.Network([4, 1], device="numpy")
    with pytest.raises(ShapeError, match="y must be an array of numbers. Received: .*" + said):
        net.evaluate(X, make())


def test_a_column_of_arrays_is_refused_with_the_cure() -> None:
    rows = np.empty(30, object)
    rows[:] = list(X)
    _check_refused(rows, ShapeError, r"x.dtype=object \(arrays\). .*numpy.stack\(x\)")


def test_custom_objects_are_refused() -> None:
    _check_refused(
        [[1.0, object(), 2.0, 3.0]], ShapeError, r"\(objects of type object\). Give numbers"
    )


def test_a_whole_number_beyond_float64_is_refused() -> None:
    _check_refused([[1, 2, 3, 10**400]], DataError, "must be finite in float64")


def test_an_error_of_array_conversion_is_reported() -> None:
    class NeedsGradient:
        def __array__(self, *args: Any, **options: Any) -> Any:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad")

    _check_refused(NeedsGradient(), ShapeError, "NeedsGradient .Can't call numpy")


def test_longdouble_numbers_beyond_float64_are_refused_with_their_position() -> None:
    x = X.astype(np.longdouble)
    if np.finfo(np.longdouble).max == np.finfo(np.float64).max:
        pytest.skip("longdouble is float64 on this machine")
    x[4, 1] = np.longdouble("1e4000")
    _check_refused(x, DataError, "inf in row 4, column 1")


# ---- sparse -------------------------------------------------------------------------------------


def test_sparse_rows_are_refused_if_dense_rows_are_needed() -> None:
    x = scipy.sparse.csr_array(X)
    with pytest.raises(ArgumentError, match=r"scale must be None for a sparse matrix. .*toarray"):
        nn.Model(_net(), scale="standard").fit(x, LABELS)
    _check_refused(x.astype(complex), ShapeError, "x must hold real numbers. .*complex128")
    with pytest.raises(
        ShapeError, match=r"csr_array. Convert the sparse matrix to a dense array: .toarray"
    ):
        _net().backprop(x, LABELS)
    with pytest.raises(ShapeError, match=r"y must be an array of numbers. .*toarray"):
        nn.Network([4, 4], device="numpy").evaluate(X, x)
    x.data[7] = np.nan
    _check_refused(x, DataError, "x must be finite in float64. Received: nan in row")


def test_a_run_on_sparse_rows_is_resumed(tmp_path: Path) -> None:
    x, whole = scipy.sparse.csr_array(X), _net()
    nn.train(whole, x, LABELS, epochs=4)
    nn.train(_net(), x, LABELS, epochs=2, callbacks=[nn.Checkpoints(tmp_path)])
    model, history = nn.resume(tmp_path, x, LABELS, epochs=4, device="numpy")
    assert len(history) == 4
    np.testing.assert_array_equal(model.network.theta, whole.theta)
    with pytest.raises(ArgumentError, match="data must be those of the run"):
        nn.resume(tmp_path, x * 2.0, LABELS, epochs=5, device="numpy")


def test_the_rate_finder_accepts_sparse_rows() -> None:
    trials = [
        find_learning_rate(_net(), x, LABELS, steps=12) for x in (X, scipy.sparse.csr_array(X))
    ]
    np.testing.assert_array_equal(trials[0].losses, trials[1].losses)


# ---- targets and weights ------------------------------------------------------------------------


def _labels() -> list[Any]:
    pandas = _pandas()
    series = pandas.Series(LABELS)
    return [
        series.astype("Int64"), series.astype("boolean"), series.astype("int64[pyarrow]"),
        LABELS.astype(bool).astype(object), LABELS.astype(np.longdouble), LABELS.astype(">i4"),
        pandas.DataFrame({"y": series.astype("boolean")}), pandas.get_dummies(series),
        pandas.DataFrame({0: 1 - LABELS, 1: LABELS.astype(bool)}),
    ]  # fmt: skip


def test_labels_of_tables_are_accepted() -> None:
    _arrow()
    nets = [_net() for _ in range(10)]
    nn.train(nets[0], X, LABELS, epochs=1)
    for net, y in zip(nets[1:], _labels(), strict=True):
        nn.train(net, X, y, epochs=1)
        np.testing.assert_array_equal(net.theta, nets[0].theta)


def test_values_and_weights_of_tables_are_accepted() -> None:
    table, weight = TABLES["nullable"](), _pandas().Series(np.arange(30)).astype("Int64")
    nets = [nn.Network([4, 4], device="numpy") for _ in range(2)]
    models = [nn.Model(net, scale_targets=True) for net in nets]
    models[0].fit(X, table, epochs=1, sample_weight=weight)
    models[1].fit(X, X, epochs=1, sample_weight=np.arange(30))
    np.testing.assert_array_equal(nets[0].theta, nets[1].theta)


def test_targets_that_are_neither_numbers_nor_labels_are_refused() -> None:
    net, pandas = nn.Network([4, 2], "cross_entropy", device="numpy"), _pandas()
    gap = pandas.Series(LABELS).astype("Int64")
    gap[3] = pandas.NA
    for y, kind, said in (
        (gap, DataError, "y must be finite in float32. Received: nan in row 3"),
        (pandas.Series(["2024-05-01"] * 30).astype("M8[s]"), ShapeError, "dates.*timedelta64"),
        ([datetime.date(2024, 5, 1)] * 30, ShapeError, "dates.*timedelta64"),
        (["a", None] * 15, DataError, "y must hold numbers.*text"),
        ("species", ShapeError, "y must be an array of numbers"),
    ):
        with pytest.raises(kind, match=said):
            nn.train(net, X, y, epochs=1)


@pytest.mark.parametrize("device", ["numpy", "ghost", "strict"])
@pytest.mark.parametrize("form", [np.asarray, scipy.sparse.csr_array])
def test_infinity_in_float32_is_refused_for_float64(form: Any, device: str) -> None:
    x = X.astype(np.float32)
    x[6, 1] = np.inf
    with registered("ghost", "strict"):
        net = _net(device)
        rows = form(x) if form is not np.asarray else net.backend.to_device(x)
        with pytest.raises(DataError, match="inf in row 6, column 1"):
            net.predict(rows)
