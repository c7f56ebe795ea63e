"""Model: raw rows in, labels or values out; tables, labels, scales and errors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import nnbackend as nn
from nnbackend.data import ColumnCoding
from nnbackend.errors import ArgumentError, DataError, DivergedError, NNBackendError, ShapeError

RNG = np.random.default_rng(0)
N = 60
SIZE = RNG.uniform(20, 120, N)
CITY = np.array(["Basel", "Bern", "Chur"])[np.arange(N) % 3]
BALCONY = RNG.random(N) > 0.5
DEAR = np.where(SIZE + 20 * (CITY == "Bern") > 75, "dear", "cheap")
COLUMNS = {"size": SIZE, "city": CITY, "balcony": BALCONY}
FEATURES = 1 + 3 + 1
X = RNG.normal(size=(N, 4))
CODES = (X[:, 0] > 0).astype(int)


def frames() -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Return the functions that turn columns into each kind of table."""

    def pandas(columns: dict[str, Any]) -> Any:
        return pytest.importorskip("pandas").DataFrame(columns)

    def arrow(columns: dict[str, Any]) -> Any:
        return pytest.importorskip("pyarrow").table(columns)

    def polars(columns: dict[str, Any]) -> Any:
        return pytest.importorskip("polars").DataFrame(columns)

    def rows(columns: dict[str, Any]) -> Any:
        lists = {name: np.asarray(column).tolist() for name, column in columns.items()}
        return [dict(zip(lists, cells, strict=True)) for cells in zip(*lists.values(), strict=True)]

    def lists(columns: dict[str, Any]) -> Any:
        return {name: np.asarray(column).tolist() for name, column in columns.items()}

    return {"pandas": pandas, "arrow": arrow, "polars": polars, "rows": rows,
            "lists": lists, "arrays": dict}  # fmt: skip


def classifier(n_in: int = FEATURES, n_out: int = 2, **options: Any) -> nn.Network:
    return nn.Network([n_in, 8, n_out], "cross_entropy", device="numpy", seed=1, **options)


def fitted(**options: Any) -> nn.Model:
    model = nn.Model(classifier(), scale="standard")
    model.fit(COLUMNS, DEAR, epochs=60, batch_size=10, optimizer=nn.Adam(0.02), **options)
    return model


# ---- tables -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(frames()))
def test_every_kind_of_table_gives_the_same_model(kind: str) -> None:
    table = frames()[kind](COLUMNS)
    model, other = (
        nn.Model(classifier(), scale="standard"),
        nn.Model(classifier(), scale="standard"),
    )
    model.fit(table, DEAR, epochs=3, batch_size=10)
    other.fit(COLUMNS, DEAR, epochs=3, batch_size=10)
    np.testing.assert_array_equal(model.network.theta, other.network.theta)
    np.testing.assert_array_equal(model.predict(table), other.predict(COLUMNS))
    assert model.evaluate(table, DEAR) == other.evaluate(COLUMNS, DEAR)


def test_a_table_becomes_one_feature_for_each_category() -> None:
    model = fitted()
    assert model.evaluate(COLUMNS, DEAR)["accuracy"] > 0.9
    x = model.inputs({"size": [SIZE.mean()], "city": ["Bern"], "balcony": [True]})
    city = (np.array([["Basel"], ["Bern"], ["Chur"]]) == CITY).astype(float)
    expected = (np.array([0.0, 1.0, 0.0]) - city.mean(axis=1)) / city.std(axis=1)
    np.testing.assert_allclose(x[0, 1:4], expected, rtol=1e-6)
    np.testing.assert_allclose(x[0, 0], 0.0, atol=1e-6)
    np.testing.assert_allclose(x[0, 4], (1 - BALCONY.mean()) / BALCONY.std(), rtol=1e-6)


def test_one_row_may_be_a_dictionary_with_its_columns_in_any_order() -> None:
    model = fitted()
    row = {"balcony": False, "city": "Bern", "size": 110.0, "further": "ignored"}
    assert model.predict(row).tolist() == ["dear"]
    assert model.predict([row, row]).tolist() == ["dear", "dear"]
    text = {"balcony": "no", "city": " Bern ", "size": "110"}  # as a form or a CSV file sends it
    np.testing.assert_array_equal(model.predict_proba(text), model.predict_proba(row))


def test_the_target_may_be_a_column() -> None:
    table = COLUMNS | {"price": DEAR}
    model, other = (
        nn.Model(classifier(), scale="standard"),
        nn.Model(classifier(), scale="standard"),
    )
    valid = {name: column[:20] for name, column in table.items()}
    model.fit(table, "price", validation=(valid, "price"), epochs=3)
    other.fit(COLUMNS, DEAR, validation=({k: v[:20] for k, v in COLUMNS.items()}, DEAR[:20]),
              epochs=3)  # fmt: skip
    np.testing.assert_array_equal(model.network.theta, other.network.theta)
    np.testing.assert_array_equal(model.predict(table), other.predict(COLUMNS))
    assert model.evaluate(table) == model.evaluate(table, "price") == other.evaluate(COLUMNS, DEAR)
    with pytest.raises(ArgumentError, match="evaluate needs targets"):
        model.evaluate(COLUMNS)


def test_a_numeric_target_column_is_a_regression() -> None:
    table = {"size": SIZE, "city": CITY, "price": 10.0 * SIZE + 100.0}
    model = nn.Model(nn.Network([4, 8, 1], device="numpy"), scale="standard", scale_targets=True)
    model.fit(table, "price", epochs=200, batch_size=10, optimizer=nn.Adam(0.02))
    assert model.classes is None
    assert model.evaluate(table)["r2"] > 0.98
    predicted = model.predict({"size": 100.0, "city": "Chur"})
    assert predicted.dtype == np.float64
    assert predicted[0] == pytest.approx(1100.0, rel=0.1)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"city": ["Zug"] * N}, "'city' has an unknown level in 60 of 60 rows, such as 'Zug'"),
        ({"city": [None] * N}, "column 'city' has no value in 60 of 60 rows"),
        ({"size": np.where(np.arange(N) == 3, np.nan, SIZE)}, "in 1 of 60 rows, in data row 4"),
        ({"size": ["big"] * N}, "column 'size' has no number in 60 of 60 rows, such as 'big'"),
        ({"balcony": ["maybe"] * N}, "column 'balcony' has neither yes nor no in 60 of 60 rows"),
    ],
    ids=["category", "no category", "gap", "text", "boolean"],
)  # fmt: skip
def test_unusual_cells_have_answers_and_notes(
    change: dict[str, Any], note: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = fitted()
    assert np.isfinite(model.predict_proba(COLUMNS | change)).all()
    assert note in caplog.text


def test_gaps_of_the_fit_have_features_of_their_own() -> None:
    rng = np.random.default_rng(0)
    size = np.where(rng.random(N) < 0.3, np.nan, SIZE)
    city = [None if rng.random() < 0.3 else c for c in CITY]
    table = {"size": size, "city": city}
    net = nn.Network([6, 2], "cross_entropy", device="numpy")
    model = nn.Model(net, scale="standard")
    model.fit(table, DEAR, epochs=1)
    names = ColumnCoding.from_dict(model.preprocessing.columns).feature_names
    assert names == (
        "size", "size: no value", "city=Basel", "city=Bern", "city=Chur", "city: no value"
    )  # fmt: skip
    assert np.isfinite(model.predict_proba({"size": [None], "city": [None]})).all()


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"city": None}, DataError, "no column 'city'"),
        ({"size": [np.inf, *SIZE[1:]]}, DataError, "infinity .*'size', data row 1"),
        ({"size": SIZE[:5]}, ShapeError, "columns of one length"),
        ({"size": SIZE + 1j}, DataError, "column 'size'.*complex numbers"),
        ({"size": SIZE[:, None]}, ShapeError, "one value for each row"),
    ],
    ids=["no column", "infinite", "short", "complex", "two-dimensional"],
)  # fmt: skip
def test_rows_unlike_those_of_the_fit_are_refused(
    change: dict[str, Any], kind: type[Exception], text: str
) -> None:
    model = fitted()
    table = {name: v for name, v in (COLUMNS | change).items() if v is not None}
    for call in (model.predict, model.outputs, lambda x: model.evaluate(x, DEAR)):
        with pytest.raises(kind, match=text) as caught:
            call(table)
        assert isinstance(caught.value, NNBackendError)


@pytest.mark.parametrize(
    ("table", "y", "kind", "text"),
    [
        (COLUMNS | {"more": SIZE}, DEAR, ShapeError, "4 columns.*6 features.*n_in=6"),
        (COLUMNS, "price", DataError, "one of the columns.*'price'"),
        (np.zeros((N, FEATURES)), "price", ArgumentError, "name a column of a table only"),
        ({"price": DEAR}, "price", DataError, "a column besides the target"),
        (COLUMNS | {"price": [None, *DEAR[1:]]}, "price", DataError, "'price' in 1 of 60 rows"),
        (COLUMNS | {"size": SIZE.astype("m8[s]")}, DEAR, DataError, "'size'.*durations"),
        (COLUMNS, DEAR[:7], ShapeError, "one target for each of the 60 rows"),
        (COLUMNS, [None, *DEAR[1:]], DataError, "a label in every row"),
        (COLUMNS, np.arange(N), DataError, "2 classes.*60 different labels.*0, 1, 2"),
        ({}, DEAR, ShapeError, "an empty table"),
        (COLUMNS, None, ArgumentError, "fit needs targets"),
    ],
    ids=range(11),
)
def test_a_table_that_cannot_be_fitted_leaves_the_model_unfitted(
    table: Any, y: Any, kind: type[Exception], text: str
) -> None:
    model = nn.Model(classifier(), scale="standard")
    before = model.network.theta.copy()
    with pytest.raises(kind, match=text):
        model.fit(table, y, epochs=1)
    np.testing.assert_array_equal(model.network.theta, before)
    assert model.preprocessing.columns is model.preprocessing.scaler is model.classes is None
    model.fit(COLUMNS, DEAR, epochs=1)  # the model is as new


@pytest.mark.parametrize(
    "further",
    [
        {"price": [None] * N}, {"price": [""] * N}, {"price": np.arange(N).astype("M8[D]")},
        {"when": np.arange(N).astype("M8[D]")}, {"": [1] * N}, {"objects": [object()] * N},
    ],
    ids=["no target", "empty target", "dates as target", "dates", "no name", "objects"],
)  # fmt: skip
def test_other_columns_are_ignored(further: dict[str, Any]) -> None:
    model = nn.Model(classifier(), scale="standard")
    model.fit(COLUMNS | {"price": DEAR}, "price", epochs=2)
    expected = model.predict_proba(COLUMNS)
    np.testing.assert_array_equal(model.predict_proba(COLUMNS | further), expected)


def test_numbered_columns_and_another_target() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.c_[X, CODES])
    model = nn.Model(classifier(4))
    model.fit(frame, 4, epochs=1)
    assert model.predict(frame).shape == (N,)
    assert model.evaluate(frame) == model.evaluate(frame, 4) == model.evaluate(frame, CODES)
    with pytest.raises(ArgumentError, match="y must be the target of the fit, '4'"):
        model.evaluate(frame, 0)
    with pytest.raises(DataError, match="must have the target column '4'"):
        model.evaluate(frame.iloc[:, :4], 4)


def test_decimals_are_numbers() -> None:
    table = COLUMNS | {"size": [Decimal(f"{size:.3f}") for size in SIZE]}
    model = nn.Model(classifier())
    model.fit(table, DEAR, epochs=1)
    np.testing.assert_allclose(model.inputs(table)[:, 0], SIZE, atol=1e-3)
    with pytest.raises(DataError, match="'size' must be finite in float64"):
        model.predict({"size": 10**400, "city": "Bern", "balcony": True})


def test_an_array_has_no_names() -> None:
    model = nn.Model(classifier(4))
    model.fit(X, CODES, epochs=1)
    for rows in ({"a": 1, "b": 2, "c": 3, "d": 4}, [{"a": 1, "b": 2, "c": 3, "d": 4}]):
        with pytest.raises(DataError, match="was fitted to an array"):
            model.predict(rows)


# ---- labels -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array(["no", "yes"])[CODES], ("no", "yes")),
        (np.array(["no", "yes"], object)[CODES], ("no", "yes")),
        (CODES, (0, 1)),
        (CODES.astype(np.uint8), (0, 1)),
        (CODES.astype(float), (0, 1)),
        (2 * CODES - 1, (-1, 1)),
        (CODES + 7.0, (7, 8)),
        (CODES > 0, (False, True)),
        (CODES[:, None] + 1, (1, 2)),
    ],
    ids=["text", "objects", "codes", "bytes", "floats", "signs", "numbers", "booleans", "column"],
)
@pytest.mark.parametrize("n_out", [1, 2])
def test_labels_of_any_kind_are_learned(labels: Any, classes: tuple[Any, ...], n_out: int) -> None:
    loss = "binary_cross_entropy" if n_out == 1 else "cross_entropy"
    model = nn.Model(nn.Network([4, n_out], loss, device="numpy"))
    history = model.fit(
        X, labels, epochs=100, batch_size=10, validation=(X, labels), optimizer=nn.Adam(0.05)
    )
    assert model.classes == classes
    assert [type(label) for label in model.classes] == [type(label) for label in classes]
    predicted = model.predict(X)
    assert (predicted == np.ravel(labels)).mean() > 0.9
    assert model.evaluate(X, labels)["accuracy"] == pytest.approx(history["valid_accuracy"][-1])
    proba = model.predict_proba(X)
    assert proba.shape == (N, 2)
    np.testing.assert_array_equal(np.asarray(classes)[proba.argmax(axis=1)], predicted)


def test_a_class_that_is_absent_needs_no_mention_if_labels_are_codes() -> None:
    model = nn.Model(classifier(4, 3))
    model.fit(X, CODES, epochs=1)
    assert model.classes == (0, 1, 2)
    named = nn.Model(classifier(4, 3), classes=["a", "b", "c"])
    named.fit(X, np.array(["a", "c"])[CODES], epochs=1)
    assert named.predict_proba(X).shape == (N, 3)


def test_one_hot_targets_and_several_answers_have_no_labels() -> None:
    model = nn.Model(classifier(4))
    model.fit(X, np.eye(2)[CODES], epochs=60, batch_size=10, optimizer=nn.Adam(0.05))
    assert model.classes is None
    assert (model.predict(X) == CODES).mean() > 0.8
    several = nn.Model(nn.Network([4, 3], "binary_cross_entropy", device="numpy"))
    several.fit(X, X[:, :3] > 0, epochs=100)
    assert several.predict(X).shape == (N, 3)
    assert several.predict_proba(X).shape == (N, 3)


@pytest.mark.parametrize("labels", [DEAR == "dear", np.where(DEAR == "dear", 7, 3)], ids=str)
@pytest.mark.parametrize("form", ["column", "array"])
def test_labels_of_a_table_survive_a_file(labels: Any, form: str, tmp_path: Path) -> None:
    """A boolean label is text in the coding of the columns and a boolean in the model."""
    table, y = (COLUMNS | {"y": labels}, "y") if form == "column" else (COLUMNS, labels)
    model = nn.Model(classifier())
    model.fit(table, y, epochs=30, batch_size=10, optimizer=nn.Adam(0.02))
    model.save(tmp_path / "m.safetensors")
    for each in (model, nn.load(tmp_path / "m.safetensors", "numpy"), copy.deepcopy(model)):
        predicted = each.predict(COLUMNS)
        assert predicted.dtype.kind == labels.dtype.kind
        assert each.evaluate(table, y) == model.evaluate(COLUMNS, labels)
        assert (predicted == labels).mean() == pytest.approx(each.evaluate(table, y)["accuracy"])


def test_one_answer_without_labels_is_a_vector() -> None:
    net = nn.Network([4, 1], "binary_cross_entropy", device="numpy")
    np.testing.assert_array_equal(nn.Model(net).predict(X), net.predict(X))
    assert nn.Model(net).predict(X).shape == (N,)


def test_one_label_for_several_answers_is_refused() -> None:
    model = nn.Model(nn.Network([4, 2], "binary_cross_entropy", device="numpy"))
    with pytest.raises(ShapeError, match=r"2 columns of 0 and 1.*use cross_entropy"):
        model.fit(X, CODES)


@pytest.mark.parametrize("classes", ["ab", {"a", "b"}, {"a": 1, "b": 2}, ["a", None], ["a"]])
def test_classes_must_be_a_list_of_labels(classes: Any) -> None:
    with pytest.raises(ArgumentError, match="classes must be"):
        nn.Model(classifier(4), classes=classes)


def test_the_labels_of_a_data_set_are_those_of_its_codes() -> None:
    data = nn.data.load("iris")
    assert data.labels is not None
    assert set(data.labels) == {"setosa", "versicolor", "virginica"}
    model = nn.Model(classifier(4, 3), scale="standard")
    model.fit(data.x, data.labels, epochs=40, batch_size=16, optimizer=nn.Adam(0.02))
    assert model.evaluate(data.x, data.labels)["accuracy"] > 0.9
    values = nn.data.load("diabetes")
    assert values.labels is values.y


# ---- the whole ----------------------------------------------------------------------------------


def test_a_second_fit_continues_with_the_preprocessing_of_the_first() -> None:
    model = fitted()
    known, theta = model.preprocessing, model.network.theta.copy()
    moved = COLUMNS | {"size": SIZE + 500.0}
    model.fit(moved, DEAR, epochs=1)
    assert model.preprocessing.scaler is known.scaler
    assert model.preprocessing.columns == known.columns
    assert not np.array_equal(model.network.theta, theta)
    with pytest.raises(DataError, match="'costly'"):
        model.fit(COLUMNS, ["costly"] * N, epochs=1)


def test_an_error_before_the_first_step_leaves_the_model_unfitted(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-000000000001.safetensors").write_bytes(b"")
    model = nn.Model(classifier(), scale="standard")
    with pytest.raises(ArgumentError, match="holds checkpoints"):
        model.fit(COLUMNS, DEAR, callbacks=[nn.Checkpoints(tmp_path)])
    assert model.classes is model.preprocessing.scaler is model.preprocessing.columns is None
    with pytest.raises(ArgumentError, match="must be fitted before it is used"):
        model.predict(COLUMNS)


def test_a_run_that_diverges_at_once_leaves_the_model_unfitted() -> None:
    model = nn.Model(nn.Network([4, 8, 1], device="numpy"), scale="standard")
    before = model.network.theta.copy()
    with np.errstate(all="ignore"), pytest.raises(DivergedError, match="the beginning"):
        model.fit(1e3 * X, 1e18 * X[:, 0], optimizer=nn.SGD(1e9), epochs=2, batch_size=2)
    np.testing.assert_array_equal(model.network.theta, before)
    assert model.preprocessing.scaler is None


def test_an_unfitted_model_is_not_saved_without_its_scales(tmp_path: Path) -> None:
    for options in ({"scale": "standard"}, {"scale_targets": True}):
        model = nn.Model(nn.Network([4, 1], device="numpy"), **options)
        with pytest.raises(ArgumentError, match="must be fitted before it is used"):
            model.save(tmp_path / "m")
        with pytest.raises(ArgumentError, match="must be fitted before it is used"):
            nn.export(model, tmp_path / "m.npz")
        with pytest.raises(ArgumentError, match="must be fitted before it is used"):
            model.inputs(X)
    assert not list(tmp_path.iterdir())
    scaler = nn.data.fit_scaler("standard", 100.0 * X)
    model = nn.Model(classifier(4), scale=scaler)
    model.save(tmp_path / "m.safetensors")
    loaded = nn.load(tmp_path / "m.safetensors", "numpy")
    np.testing.assert_array_equal(loaded.outputs(100.0 * X), model.outputs(100.0 * X))
    loaded.fit(X, np.array(["a", "b"])[CODES], epochs=1)  # labels are learned later, too
    assert loaded.classes == ("a", "b")


def test_train_takes_networks_only() -> None:
    with pytest.raises(ArgumentError, match=r"net must be an nnbackend.Network.*method fit"):
        nn.train(nn.Model(classifier(4)), X, CODES)  # type: ignore[arg-type]


def test_the_models_of_an_estimator_know_its_columns() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcd"))
    estimator = nn.MLPClassifier((5,), max_iter=2, tol=9.0, n_iter_no_change=1, device="numpy")
    with pytest.warns(ConvergenceWarning):
        (model,) = estimator.fit(frame, CODES).to_models()
    expected = estimator.predict(frame)
    np.testing.assert_array_equal(model.predict(frame[["d", "b", "a", "c"]]), expected)
    assert model.predict({"d": X[3, 3], "b": X[3, 1], "a": X[3, 0], "c": X[3, 2]}) == expected[3]


def test_validation_rows_do_not_change_the_scales() -> None:
    model = nn.Model(classifier(4), scale="standard")
    model.fit(X, CODES, validation=(100.0 * X, CODES), epochs=1)
    assert model.preprocessing.scaler is not None
    np.testing.assert_allclose(model.preprocessing.scaler.shift, X.mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_answer_alike(copied: Callable[[nn.Model], nn.Model]) -> None:
    model = fitted()
    other = copied(model)
    np.testing.assert_array_equal(other.predict_proba(COLUMNS), model.predict_proba(COLUMNS))
    assert other.classes == model.classes


def test_the_network_inside_computes_on_the_inputs() -> None:
    model = fitted()
    x, y = model.inputs(COLUMNS), model.targets(DEAR)
    np.testing.assert_allclose(model.network.outputs(x), model.outputs(COLUMNS), rtol=1e-5)
    assert model.network.evaluate(x, y) == pytest.approx(model.evaluate(COLUMNS, DEAR), rel=1e-5)
    assert model.network.backprop(x, y).loss > 0


def test_summary_and_repr() -> None:
    model = fitted()
    assert "scale standard" in model.summary()
    assert "classes cheap, dear" in model.summary()
    assert repr(model).startswith("<Model scale='standard' <Network 5 -> dense 8 relu")


def test_only_a_network_can_be_inside() -> None:
    with pytest.raises(ArgumentError, match=r"must be an nnbackend\.Network"):
        nn.Model([4, 2])  # type: ignore[arg-type]
