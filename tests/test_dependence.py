"""Partial dependence: against scikit-learn, against changed tables, and as a picture."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.inspection import partial_dependence as theirs

import nnbackend as nn
from nnbackend import plots
from nnbackend.cli import main
from nnbackend.errors import ArgumentError
from nnbackend.model.dependence import Dependence, partial_dependence
from nnbackend.model.importance import most_important
from nnbackend.plots.dependence import _limits

N = 240
CITIES = ["Lima", "Cusco", "Puno"]


def _table(n: int = N, seed: int = 0) -> dict[str, Any]:
    """Return a column of each kind; numbers and cities have gaps."""
    rng = np.random.default_rng(seed)
    size = np.round(rng.normal(50.0, 10.0, n))
    size[rng.random(n) < 0.1] = np.nan
    city: list[Any] = rng.choice(CITIES, n, p=[0.6, 0.3, 0.1]).tolist()
    city[3] = None
    days = np.datetime64("2023-01-01") + rng.integers(0, 700, n)
    return {
        "size": size,
        "city": city,
        "day": [str(day) for day in days],
        "member": rng.choice(["yes", "no"], n).tolist(),
    }


@pytest.fixture(scope="module")
def regression() -> tuple[nn.Model, dict[str, Any]]:
    table = _table()
    price = 3.0 * np.nan_to_num(table["size"], nan=20.0) + 40.0 * np.array(
        [city == "Lima" for city in table["city"]]
    )
    net = nn.Network([12, 12, 1], device="numpy", dtype="float64")
    model = nn.Model(net, scale="standard", scale_targets=True)
    model.fit({**table, "price": price}, "price", epochs=15)
    return model, table


@pytest.fixture(scope="module")
def ensemble() -> tuple[nn.Model, dict[str, Any]]:
    table = _table()
    y = np.where(np.array(table["city"], object) == "Lima", "in", "out")
    estimator = nn.TabularMLPClassifier(
        n_members=2, hidden_layer_sizes=(8,), max_iter=6, device="numpy", dtype="float64"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(table, y)
    return estimator.to_model(), table


# --- values ---------------------------------------------------------------------------------------


def test_the_curves_of_a_linear_network_have_its_weights_as_slopes() -> None:
    net = nn.Network([3, nn.Dense(1, "identity")], device="numpy", dtype="float64")
    net.set_parameters([[[2.0], [-1.0], [0.5]]], [[10.0]])
    x = np.random.default_rng(0).normal(size=(60, 3))
    found = partial_dependence(nn.Model(net), x, ["x1"], points=9, curves=5)["x1"]
    rest = 2.0 * x[:, 0] + 0.5 * x[:, 2] + 10.0
    np.testing.assert_allclose(found.mean[:, 0], rest.mean() - found.grid, rtol=1e-10)
    np.testing.assert_allclose(
        np.diff(found.curves[:, :, 0]), -np.diff(found.grid)[None].repeat(5, 0)
    )
    assert found.curves.shape == (5, 9, 1)
    assert found.grid[0] == np.sort(x[:, 1])[0]  # a value of the data, not one between
    assert found.outputs == ("output 0",)
    np.testing.assert_allclose(found.deciles[4], np.median(x[:, 1]))


class Fitted(BaseEstimator):
    """A model as an estimator of scikit-learn."""

    def __init__(self, model: Any, kind: str) -> None:
        self.model, self._estimator_type = model, kind
        self.fitted_ = True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type = self._estimator_type
        return tags

    def fit(self, x: Any, y: Any) -> Any:
        raise NotImplementedError

    def predict(self, x: Any) -> Any:
        return self.model.predict(x)

    def predict_proba(self, x: Any) -> Any:
        return self.model.predict_proba(x)

    @property
    def classes_(self) -> Any:
        return np.arange(len(self.model.classes))


@pytest.mark.parametrize("n_classes", [0, 2, 3])
def test_the_means_and_curves_are_those_of_scikit_learn(n_classes: int) -> None:
    rng = np.random.default_rng(1)
    x = np.round(rng.normal(size=(120, 3)), 1)
    y = x[:, 0] * x[:, 1]
    loss = "cross_entropy" if n_classes else "quadratic"
    net = nn.Network([3, 8, max(n_classes, 1)], loss, device="numpy", dtype="float64")
    model = nn.Model(net, scale="standard")
    labels = np.digitize(y, [0.0, 0.5][: n_classes - 1]) if n_classes else y
    model.fit(x, labels, epochs=20)
    kind = "classifier" if n_classes else "regressor"
    oracle = theirs(
        Fitted(model, kind), x, [1], method="brute", kind="both", grid_resolution=200,
        percentiles=(0.0, 1.0), response_method="predict_proba" if n_classes else "auto",
    )  # fmt: skip
    found = partial_dependence(model, x, ["x1"], points=200, curves=120)["x1"]
    np.testing.assert_allclose(found.grid, oracle["grid_values"][0])
    np.testing.assert_allclose(found.mean.T, oracle["average"], rtol=1e-9)
    np.testing.assert_allclose(np.moveaxis(found.curves, 2, 0), oracle["individual"], rtol=1e-9)
    assert np.ptp(found.mean, axis=0).max() > 0.05
    assert len(found.outputs) == max(1, n_classes if n_classes > 2 else 1)


@pytest.mark.parametrize("what", ["regression", "ensemble"])
def test_a_column_of_a_table_changes_as_in_a_changed_table(
    what: str, request: pytest.FixtureRequest
) -> None:
    """The oracle predicts the whole table with the same cell in all rows."""
    model, table = request.getfixturevalue(what)

    def mean(name: str, cell: Any) -> float:
        changed = {**table, name: [cell] * N}
        out = model.predict(changed) if what == "regression" else model.predict_proba(changed)[:, 1]
        return float(out.mean())

    found = partial_dependence(model, table)
    assert list(found) == ["size", "city", "day", "member"]
    for name, each in found.items():
        assert each.n_rows == N
        cells = [None if cell == "no value" else cell for cell in each.grid.tolist()]
        if name == "day":
            cells = [str(day)[:10] for day in each.grid]
        expected = [mean(name, cell) for cell in cells]
        np.testing.assert_allclose(each.mean[:, 0], expected, rtol=1e-6, err_msg=name)
    assert found["city"].grid.tolist() == ["Lima", "Cusco", "Puno", "no value"]
    assert found["city"].shares.sum() == pytest.approx(1.0)
    assert found["member"].grid.tolist() == ["no", "yes"]
    assert found["city"].what == (
        "predicted price" if what == "regression" else "probability of 'out'"
    )
    assert np.ptp(found["city"].mean) > 2.0 * np.ptp(found["member"].mean)


def test_dates_over_a_long_time_are_of_one_day_of_the_week(regression: Any) -> None:
    model, table = regression
    grid = partial_dependence(model, table, ["day"])["day"].grid
    assert grid.dtype == "datetime64[s]"
    days = grid.astype("datetime64[D]").astype(int)
    assert len(set(days % 7)) == 1
    assert (np.diff(days) > 0).all()
    assert str(grid[0]) < "2023-02" < "2024-11" < str(grid[-1])
    soon = {**table, "day": [f"2023-01-{1 + i % 20:02d}" for i in range(N)]}
    short = partial_dependence(model, soon, ["day"])["day"].grid
    assert [str(day)[:10] for day in short] == sorted(set(soon["day"]))


def test_rare_levels_are_left_to_the_most_frequent() -> None:
    rng = np.random.default_rng(0)
    code = rng.choice([f"c{i:02d}" for i in range(19)], 400, p=np.arange(1, 20) / 190)
    net = nn.Network([19, 1], device="numpy")
    model = nn.Model(net)
    model.fit({"code": code}, rng.normal(size=400), epochs=1)
    found = partial_dependence(model, {"code": code})["code"]
    assert len(found.grid) == 12
    assert found.n_levels == 19
    counts = [np.sum(code == level) for level in found.grid]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == max(np.unique(code, return_counts=True)[1])


def test_rows_are_a_sample_and_the_curves_some_of_them(regression: Any) -> None:
    model, table = regression
    some = partial_dependence(model, table, ["size"], rows=30, curves=7, points=5)["size"]
    assert some.n_rows == 30
    assert some.curves.shape[0] == 7
    again = partial_dependence(model, table, ["size"], rows=30, curves=30, points=5)["size"]
    np.testing.assert_allclose(again.curves.mean(axis=0), some.mean, rtol=1e-9)
    assert {tuple(c) for c in some.curves[:, :, 0]} <= {tuple(c) for c in again.curves[:, :, 0]}
    assert partial_dependence(model, table, ["size"], curves=0)["size"].curves.shape[0] == 0


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (["sise"], r"Did you mean 'size'\?"),
        (["size", "size"], "different columns of the model"),
        ([], "different columns of the model"),
    ],
)
def test_unsuitable_columns_raise(columns: list[str], words: str, regression: Any) -> None:
    with pytest.raises(ArgumentError, match=words):
        partial_dependence(*regression, columns)


def test_no_rows_and_no_points_raise(regression: Any) -> None:
    model, table = regression
    with pytest.raises(ArgumentError, match=r"a row at least\. Received: none"):
        partial_dependence(model, np.empty((0, 12)))
    with pytest.raises(ArgumentError, match="points must be at least 1"):
        partial_dependence(model, table, points=0)


def test_free_text_has_no_dependence(tmp_path: Path) -> None:
    lines = [f"{i % 7},word{i} and word{i * 7},{i % 3}.5" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["a,note,y", *lines]) + "\n", encoding="utf-8")
    data = nn.data.load(str(tmp_path / "t.csv"), column={"note": "text"}, target="y")
    assert data.columns is not None
    net = nn.Network([data.n_features, 1], device="numpy")
    known = replace(nn.Model(net).preprocessing, columns=data.columns.to_dict())
    model = nn.Model.from_parts(net, known)
    assert list(partial_dependence(model, data.x)) == ["a"]
    with pytest.raises(ArgumentError, match=r"categories, not text\. Received: columns=\['note'"):
        partial_dependence(model, data.x, ["note"])


# --- the choice of columns ------------------------------------------------------------------------


def test_the_most_important_columns_are_the_default(regression: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 8))
    net = nn.Network([8, nn.Dense(1, "identity")], device="numpy", dtype="float64")
    weights = np.array([0, 0, 3.0, 0, 0.1, 0, 0, 5.0])
    net.set_parameters([weights[:, None]], [[0.0]])
    model, y, names = nn.Model(net), x @ weights, [f"x{i}" for i in range(8)]
    assert most_important(model, x, y, 3, names) == (["x7", "x2", "x4"], "")
    assert most_important(model, x, y, 1, ["x0", "x4", "x3"]) == (["x4"], "")
    assert most_important(model, x, None, 2, names[:2]) == (["x0", "x1"], "")
    first, note = most_important(model, x, None, 2, names)
    assert first == ["x0", "x1"]
    assert (
        note == "the first 2 of 8 columns are drawn: without targets none can be called important"
    )
    assert "same target" in most_important(model, x, np.ones(300), 2, names)[1]
    assert "one value per row" in most_important(model, x, np.ones((300, 2)), 2, names)[1]


def test_many_columns_are_not_compared() -> None:
    net = nn.Network([130, 2], "cross_entropy", device="numpy")
    model = nn.Model(net, classes=["a", "b"])
    x, y = np.random.default_rng(0).normal(size=(50, 130)), np.arange(50) % 2
    names = [f"x{i}" for i in range(130)]
    first, note = most_important(model, x, y, 4, names)
    assert first == names[:4]
    assert note == "the first 4 of 130 columns are drawn: more than 100 take long to compare"


# --- the picture ----------------------------------------------------------------------------------


def _texts(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_the_picture_has_a_panel_for_each_column(regression: Any, tmp_path: Path) -> None:
    found = partial_dependence(*regression)
    plots.dependence_plot(found, tmp_path / "a.svg")
    text = _texts(tmp_path / "a.svg")
    for shown in ("size", "city", "day", "member", "predicted price", "2024"):
        assert f"<!-- {shown} -->" in text, shown
    assert (
        "<!-- Mean prediction of 240 rows (thin: 40 single rows; ticks inside: deciles) -->" in text
    )
    share = f"{found['city'].shares[1]:.0%}"
    assert f"<!-- Cusco ({share}) -->" in text
    assert "<!-- no value (&lt;1%) -->" in text or "<!-- no value (<1%) -->" in text


def _made(n_outputs: int, n_levels: int = 0) -> Dependence:
    n = n_levels or 15
    slope = np.arange(n_outputs) / 10.0
    mean = np.linspace(0.0, 1.0, n)[:, None] * slope
    grid = np.array([f"level {i}" for i in range(n)], object) if n_levels else np.arange(15.0)
    return Dependence(
        "c", grid, mean, mean[None].repeat(9, 0), np.arange(9.0)[: 0 if n_levels else 9],
        np.full(n_levels, 0.01), tuple(f"class {i}" for i in range(n_outputs)), "probability",
        50, 3 * n_levels,
    )  # fmt: skip


def test_of_many_outputs_those_that_change_most_are_drawn(tmp_path: Path) -> None:
    plots.dependence_plot({"c": _made(10)}, tmp_path / "a.svg")
    text = _texts(tmp_path / "a.svg")
    assert "<!-- the 6 of 10 that change most -->" in text
    assert [i for i in range(10) if f"<!-- class {i} -->" in text] == [4, 5, 6, 7, 8, 9]
    assert "single rows" not in text
    plots.dependence_plot({"c": _made(3)}, tmp_path / "b.svg")
    text = _texts(tmp_path / "b.svg")
    assert "thin: 9 single rows" in text
    assert "change most" not in text
    plots.dependence_plot({"c": _made(2, n_levels=12)}, tmp_path / "c.svg")
    assert "<!-- the 12 most frequent of 36 levels -->" in _texts(tmp_path / "c.svg")


def test_extreme_curves_do_not_set_the_scale() -> None:
    each = _made(1)
    mean = np.linspace(0.2, 0.4, 15)[:, None]
    curves = mean[None].repeat(100, 0)
    curves[0] = 50.0
    low, high = _limits({"c": replace(each, mean=mean, curves=curves)}, [0])
    assert -0.1 < low < 0.2
    assert 0.4 < high < 0.6
    low, high = _limits({"c": replace(each, mean=curves[0], curves=curves)}, [0])
    assert high > 50.0, "all means are inside"


def test_too_many_panels_raise(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"1 to 12 columns\. Received: 13"):
        plots.dependence_plot({str(i): _made(1) for i in range(13)}, tmp_path / "a.png")
    with pytest.raises(ArgumentError, match="Received: 0"):
        plots.dependence_plot({}, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


# --- the command ----------------------------------------------------------------------------------


def test_the_command_draws_tables_and_says_what_is_wrong(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    table = _table()
    lines = [
        f"{'' if size != size else size},{city or ''},{day},{yes},{i % 5},{int(city == 'Lima')}"
        for i, (size, city, day, yes) in enumerate(zip(*table.values(), strict=True))
    ]
    text = "\n".join(["size,city,day,member,fifth,in Lima", *lines]) + "\n"
    Path("t.csv").write_text(text, encoding="utf-8")
    words = ["--epochs", "30", "--hidden", "6", "--task", "classification", "--device", "numpy"]
    assert main(["train", "t.csv", *words, "--learning-rate", "0.02", "--out", "r", "--quiet"]) == 0
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "dependence_plot", lambda found, path: drawn.append(found))
    plot = ["plot", "r", "--kind", "dependence", "--device", "numpy"]
    assert main(plot) == 0
    assert next(iter(drawn[0])) == "city"
    assert len(drawn[0]) == 4
    assert drawn[0]["city"].what == "probability of in Lima = 1"
    assert main([*plot, "--columns", "day, fifth"]) == 0
    assert list(drawn[1]) == ["day", "fifth"]
    capsys.readouterr()
    assert main([*plot, "--columns", "town"]) == 2
    assert "Received: --columns town. Columns: size, city, day, member, fifth." in (
        capsys.readouterr().err
    )
    Path("new.csv").write_text(
        "\n".join(line.rpartition(",")[0] for line in text.splitlines()) + "\n", encoding="utf-8"
    )
    assert main([*plot, "--data", "new.csv"]) == 0
    assert list(drawn[2]) == ["size", "city", "day", "member"]
    assert "note: the first 4 of 5 columns are drawn: without targets" in caplog.text
