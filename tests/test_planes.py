"""Columns of rows, typical rows, and the plane of a decision boundary between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend import plots
from nnbackend.cli import main
from nnbackend.errors import ArgumentError
from nnbackend.model.columns import as_dates, columns_of, typical_row
from nnbackend.model.tables import code_table
from nnbackend.plots.boundary import _leads
from nnbackend.plots.plane import plane_of

N = 240
CITIES = ["Lima", "Cusco", "Puno"]


def _table() -> dict[str, Any]:
    """Return a table in which each city has a third of the rows: the medians of its features are 0.

    There are too many codes for a feature each.
    """
    rng = np.random.default_rng(0)
    size = rng.normal(50.0, 10.0, N)
    size[:20] = np.nan
    return {
        "city": [CITIES[i % 3] for i in range(N)],
        "size": size,
        "age": rng.integers(18, 80, N).astype(float),
        "day": [f"2023-{1 + i % 12:02d}-{1 + i % 28:02d}" for i in range(N)],
        "member": ["yes" if i % 4 else "no" for i in range(N)],
        "code": [f"c{i if i < 120 else i % 10:03d}" for i in range(N)],
    }


@pytest.fixture(scope="module")
def fitted() -> tuple[nn.Model, dict[str, Any], np.ndarray]:
    """Return a model of two classes, its table, and the class codes."""
    table = _table()
    y = np.array(
        [
            (city == "Lima") == (age > 50)
            for city, age in zip(table["city"], table["age"], strict=True)
        ]
    )
    probe = nn.Model(nn.Network([1, 2], "cross_entropy", device="numpy"))
    with pytest.raises(nn.errors.ShapeError, match="Build the network with n_in=") as fault:
        probe.fit(table, y, epochs=1)
    n_in = int(str(fault.value).rpartition("n_in=")[2].rstrip("."))
    model = nn.Model(
        nn.Network([n_in, 16, 2], "cross_entropy", device="numpy", dtype="float64"),
        scale="standard",
    )
    model.fit(table, y, epochs=30)
    return model, table, y


# --- columns --------------------------------------------------------------------------------------


def test_values_and_features_of_a_column_are_inverse(fitted: Any) -> None:
    model, table, _ = fitted
    x = code_table(table, model.preprocessing.columns)
    columns = columns_of(model)
    assert list(columns) == list(table)
    assert [c.at.stop for c in columns.values()][-1] == x.shape[1]
    for name, column in columns.items():
        values = column.values(x)
        if name == "code":  # rare levels have means of their own, which a level "other" has not
            frequent = values < len(column.levels) - 1
            assert 0 < frequent.sum() < N
            x, values = x[frequent], values[frequent]
        np.testing.assert_allclose(column.features(values), x[:, column.at], err_msg=name)
    assert (
        np.isnan(columns["size"].values(code_table(table, model.preprocessing.columns))).sum() == 20
    )
    assert columns["city"].levels == ("Cusco", "Lima", "Puno")
    assert columns["city"].shown(columns["city"].values(x[-1:])[0]) == table["city"][-1]
    assert columns["day"].shown(19358.0) == "2023-01-01"
    assert str(as_dates(19358.5)) == "2023-01-01T12:00:00"
    assert columns["member"].shown(1.0) == "yes"
    assert columns["size"].shown(np.nan) == "no value"


def test_the_typical_row_is_nearest_to_medians_and_frequent_levels() -> None:
    """By hand: medians 200 and 3, interquartile ranges 200 and 1."""
    net = nn.Network([2, 2], "cross_entropy", device="numpy")
    columns = columns_of(nn.Model(net))
    x = np.array([[0.0, 1.0], [100.0, 3.0], [200.0, 9.0], [300.0, 2.0], [400.0, 3.0]])
    # distances: 1 + 2, 0.5 + 0, 0 + 6, 0.5 + 1, 1 + 0
    assert typical_row(columns, x) == 1
    assert typical_row({"x0": columns["x0"]}, x) == 2
    same = np.ones((4, 2))
    assert typical_row(columns, same) == 0


def test_the_most_frequent_level_is_typical() -> None:
    table = {"a": ["x", "y", "y", "z", "y", "z"], "b": ["no", "no", "no", "yes", "yes", "yes"]}
    model = nn.Model(nn.Network([4, 1], device="numpy"))
    model.fit(table, np.arange(6.0), epochs=1)
    columns = columns_of(model)
    x = code_table(table, model.preprocessing.columns)
    at = typical_row(columns, x)
    assert columns["a"].shown(columns["a"].values(x[at : at + 1])[0]) == "y"


# --- the plane ------------------------------------------------------------------------------------


def test_other_columns_are_those_of_one_row(fitted: Any) -> None:
    """Medians of the features would be a row without a city."""
    model, table, _ = fitted
    x = code_table(table, model.preprocessing.columns)
    cities = columns_of(model)["city"].at
    assert np.median(x[:, cities], axis=0).sum() == 0.0, "the example is no longer one"
    plane = plane_of(model, x, columns=["age", "size"])
    assert plane.row[cities].sum() == 1.0
    assert any(np.array_equal(plane.row, row) for row in x)


@pytest.mark.parametrize("names", [["age", "size"], ["size", "day"]])
def test_points_of_the_plane_are_rows_of_a_table(names: list[str], fitted: Any) -> None:
    """The oracle predicts a table with the two columns changed in the typical row."""
    model, table, _ = fitted
    x = code_table(table, model.preprocessing.columns)
    plane = plane_of(model, x, columns=names)
    (at,) = np.flatnonzero((x == plane.row).all(axis=1))
    cells: dict[str, list[Any]] = {n: [40.0, 55.0, 70.0] for n in names}
    days = np.array([19400.0, 19500.0, 19600.0])
    values = [days if name == "day" else np.array(cells[name]) for name in names]
    if "day" in names:
        cells["day"] = [str(as_dates(day))[:10] for day in days]
    rows = {name: [column[at]] * 3 for name, column in table.items()} | cells
    features = plane.features(*values)
    np.testing.assert_allclose(model.predict_proba(features), model.predict_proba(rows))
    np.testing.assert_allclose(plane.values(features), np.stack(values, axis=1))


def test_columns_are_chosen_by_name_or_position(fitted: Any) -> None:
    model, table, _ = fitted
    x = code_table(table, model.preprocessing.columns)

    def names(**chosen: Any) -> list[str]:
        return [column.name for column in plane_of(model, x, **chosen).columns]

    assert names() == ["size", "age"]
    assert names(columns=["day", "age"]) == ["day", "age"]
    assert names(features=(5, 3)) == ["age", "size"]  # after three features of the city
    for wrong, words in (
        ({"columns": ["age"]}, r"two columns of numbers or dates\. Received: columns=\['age'\]"),
        ({"columns": ["age", "city"]}, r"dates, not category\. .* Columns: size, age, day\."),
        ({"columns": ["age", "sise"]}, r"Did you mean 'size'\?"),
        ({"columns": ["age", "age"]}, "different columns"),
        ({"features": (0, 1)}, r"of different columns of numbers or dates\. Received: features="),
        ({"features": (3, 4)}, "of different columns"),  # a number and its gaps
        ({"features": (3, 999)}, "two features from 0 to"),
    ):
        with pytest.raises(ArgumentError, match=words):
            names(**wrong)


def test_a_plane_needs_two_columns_and_a_row_with_both() -> None:
    one = nn.Model(nn.Network([1, 2], "cross_entropy", device="numpy"))
    with pytest.raises(ArgumentError, match=r"with 1 of 1 columns\. .*\(--kind dependence\)"):
        plane_of(one, np.ones((3, 1)))
    two = nn.Model(nn.Network([2, 2], "cross_entropy", device="numpy"))
    with pytest.raises(ArgumentError, match=r"Received: 0 rows, none with both"):
        plane_of(two, np.empty((0, 2)))


def test_the_note_has_two_lines_at_most(fitted: Any) -> None:
    model, table, _ = fitted
    x = code_table(table, model.preprocessing.columns)
    note = plane_of(model, x).note
    assert note.startswith("others as in a typical row: city = ")
    assert "member = yes" in note
    assert len(note.splitlines()) <= 2
    wide = nn.Model(nn.Network([200, 2], "cross_entropy", device="numpy"))
    note = plane_of(wide, np.random.default_rng(0).normal(size=(9, 200))).note
    assert len(note.splitlines()) == 2
    n_shown = note.count(" = ")
    assert note.endswith(f", … ({198 - n_shown} more)")
    assert n_shown > 5
    narrow = nn.Model(nn.Network([2, 2], "cross_entropy", device="numpy"))
    assert plane_of(narrow, np.ones((4, 2))).note == ""


# --- pictures -------------------------------------------------------------------------------------


def test_the_picture_of_a_table_names_the_typical_row(fitted: Any, tmp_path: Path) -> None:
    model, table, y = fitted
    plots.decision_boundary(model, table, y, tmp_path / "b.svg", columns=["size", "day"])
    text = (tmp_path / "b.svg").read_text(encoding="utf-8")
    assert "others as in a typical row: city = " in text
    assert "<!-- size -->" in text
    assert "<!-- May -->" in text, "dates are dates"
    n_marks = text.count("<use ")
    plots.decision_boundary(model, table, y, tmp_path / "c.svg", columns=["age", "day"])
    more = (tmp_path / "c.svg").read_text(encoding="utf-8").count("<use ") - n_marks
    assert 15 <= more <= 25, "20 rows have no size, and are no points of the first picture"


@pytest.mark.parametrize("n_out", [1, 2])
@pytest.mark.parametrize("threshold", [None, 0.2, 0.7])
def test_regions_are_those_of_the_predicted_classes(n_out: int, threshold: float | None) -> None:
    loss = "binary_cross_entropy" if n_out == 1 else "cross_entropy"
    model = nn.Model(nn.Network([2, 4, n_out], loss, device="numpy"), classes=[0, 1])
    model.threshold = threshold
    x = np.random.default_rng(0).normal(size=(500, 2)) * 3.0
    leads = _leads(model, x)
    np.testing.assert_array_equal(leads.argmax(axis=1), model.predict(x))
    np.testing.assert_allclose(leads[:, 0], -leads[:, 1], atol=1e-6)
    assert 0.3 < leads.max() <= 1.0


def test_a_film_of_a_table_has_the_same_plane_in_each_frame(tmp_path: Path) -> None:
    table = _table()
    y = np.arange(N) % 2
    net = nn.Network([3, 2], "cross_entropy", device="numpy")
    model = nn.Model(net, scale="standard")
    numbers = {name: table[name] for name in ("size", "age")}
    model.fit(numbers, y, epochs=1)
    x = np.asarray(code_table(numbers, model.preprocessing.columns))
    film = plots.BoundaryFilm(x, y, columns=["age", "size"])
    model.fit(numbers, y, epochs=2, callbacks=[film])
    film.save(tmp_path / "film.gif")
    assert film._plane is not None
    assert [column.name for column in film._plane.columns] == ["age", "size"]


def test_the_command_draws_the_most_important_numbers(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 4))
    city = rng.choice(CITIES, 900)
    y = (x[:, 3] - x[:, 1] + np.where(city == "Lima", 2.0, -2.0) > 0).astype(int)
    lines = [",".join([*map(str, row), c, str(t)]) for row, c, t in zip(x, city, y, strict=True)]
    Path("t.csv").write_text("\n".join(["a,b,c,d,city,y", *lines]) + "\n", encoding="utf-8")
    words = ["--epochs", "20", "--hidden", "8", "--task", "classification", "--device", "numpy"]
    assert main(["train", "t.csv", *words, "--learning-rate", "0.02", "--out", "r", "--quiet"]) == 0
    drawn: list[Any] = []
    draw = plots.decision_boundary

    def note(*args: Any, **chosen: Any) -> None:
        drawn.append(chosen["columns"])
        draw(*args, **chosen)

    monkeypatch.setattr(plots, "decision_boundary", note)
    plot = ["plot", "r", "--kind", "boundary", "--device", "numpy"]
    assert main(plot) == 0
    assert sorted(drawn[0]) == ["b", "d"]
    assert main([*plot, "--columns", "a,c"]) == 0
    assert drawn[1] == ["a", "c"]
    capsys.readouterr()
    errors: dict[str, Callable[[], int]] = {
        "Received: --columns a,city": lambda: main([*plot, "--columns", "a,city"]),
        "Received: both": lambda: main([*plot, "--columns", "a,b", "--features", "0,1"]),
        "must be two indices": lambda: main([*plot, "--features", "a,b"]),
    }
    for words_of_error, call in errors.items():
        assert call() == 2
        assert words_of_error in capsys.readouterr().err
    Path("new.csv").write_text("a,b,c,d,city\n1,2,3,4,Lima\n", encoding="utf-8")
    assert main([*plot, "--data", "new.csv"]) == 2
    error = capsys.readouterr().err
    assert "needs a classifier, and rows with a class each. Received: <Model " in error
    assert ">, new." in error
    film = ["plot", "r", "--kind", "film", "--columns", "d,b", "--device", "numpy"]
    assert main(film) == 0
    assert Path("r/film.gif").stat().st_size > 5_000
    assert main([*film, "--columns", "d,city"]) == 2
    assert "Received: --columns d,city" in capsys.readouterr().err


def test_one_number_among_categories_has_no_boundary_and_a_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [f"{i % 7},{CITIES[i % 3]},{'yes' if i % 7 > 3 else 'no'}" for i in range(60)]
    Path("t.csv").write_text("\n".join(["a,city,y", *lines]) + "\n", encoding="utf-8")
    words = ["--epochs", "2", "--hidden", "4", "--device", "numpy", "--quiet", "--out", "r"]
    assert main(["train", "t.csv", *words]) == 0
    for more in ([], ["--columns", "a,city"]):
        assert main(["plot", "r", "--kind", "boundary", "--device", "numpy", *more]) == 2
        assert "with 1 of 2 columns" in capsys.readouterr().err
    assert main(["plot", "r", "--kind", "dependence", "--device", "numpy"]) == 0


def test_rows_in_several_files_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Path("shards").mkdir()
    for i in range(3):
        x = rng.normal(size=(100, 3))
        np.save(f"shards/x-{i}.npy", x)
        np.save(f"shards/y-{i}.npy", (x[:, 0] + x[:, 2] > 0).astype(int))
    words = ["--epochs", "2", "--hidden", "4", "--device", "numpy", "--quiet", "--out", "r"]
    assert main(["train", "shards", "--task", "classification", *words]) == 0
    for kind in ("boundary", "dependence", "importance", "film"):
        assert main(["plot", "r", "--kind", kind, "--device", "numpy"]) == 0, kind
    assert "sample" not in caplog.text
    monkeypatch.setattr("nnbackend.cli.plot.MOST_ROWS", 50)
    assert main(["plot", "r", "--kind", "dependence", "--device", "numpy"]) == 0
    assert "the picture is of 50 of 60 rows, a random sample" in caplog.text
