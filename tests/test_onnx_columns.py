"""ONNX models with an input for each column answer as the model does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli import main
from nnbackend.errors import ArgumentError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pandas = pytest.importorskip("pandas")

N = 240
DAY = pandas.Timestamp("1970-01-01")
NEW_ROWS = {  # gaps of columns without gaps, unknown levels, other words for a gap
    "size": [1.0, None, -3.5, 2.5, 0.0],
    "weight": [None, 1.1, 0.2, -0.4, 0.9],
    "colour": ["pink", None, "red", "NULL", "NA"],
    "member": ["Yes", "NO", None, "maybe", "t"],
    "since": ["2021-05-01", None, "1999-12-31T23:15:00", "2030-01-01", "2022-02-02"],
    "area": ["a3", "never seen", None, "a70", "rare"],
    "code": [7, None, 9, 12345, 8],
}


def frame(seed: int = 0, dates: str = "31h") -> Any:
    """Return a table with columns of all kinds that become features."""
    rng = np.random.default_rng(seed)
    days = pandas.date_range("2021-01-01", periods=N, freq=dates)
    table = pandas.DataFrame({
        "size": rng.normal(size=N),
        "weight": rng.normal(size=N),
        "colour": rng.choice(["red", "green", "blue", None], N),
        "member": rng.choice(["yes", "no"], N),
        "since": days.strftime("%Y-%m-%dT%H:%M:%S"),
        "area": [f"a{i}" for i in rng.integers(0, 90, N)],
        "code": rng.choice([7, 8, 9], N),
    })  # fmt: skip
    table.loc[::7, "size"] = np.nan
    return table


def signal(table: Any) -> np.ndarray:
    values = table["size"].fillna(0) + (table["colour"] == "red") + 0.5 * table["weight"]
    result: np.ndarray = values.to_numpy()
    return result


def answers(path: Path, rows: Any) -> dict[str, np.ndarray]:
    """Return the outputs of onnxruntime for rows, by their names."""
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    entries = {e.key: json.loads(e.value) for e in onnx.load(path).metadata_props}
    kinds, feed = {c["name"]: c["kind"] for c in entries["columns"]}, {}
    assert list(kinds) == [entry.name for entry in session.get_inputs()]
    for entry in session.get_inputs():
        cells = pandas.Series(list(rows[entry.name]), dtype=object)
        assert entry.shape == ["n", 1]
        if entry.type == "tensor(string)":
            values = cells.where(cells.notna(), "").astype(str).to_numpy(object)
        elif kinds[entry.name] == "date":
            days = pandas.to_datetime(cells, format="ISO8601") - DAY
            values = (days.dt.total_seconds() / 86400).to_numpy(np.float64)
        else:
            values = cells.astype(float).to_numpy()
        if entry.type == "tensor(float)":
            values = values.astype(np.float32)
        feed[entry.name] = values[:, None]
    names = [entry.name for entry in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def check(model: nn.Model, path: Path, rows: Any) -> dict[str, np.ndarray]:
    """Compare the answers of an exported classifier, and return those of onnxruntime."""
    nn.export(model, path, raw=True)
    got = answers(path, rows)
    np.testing.assert_allclose(got["probabilities"], model.predict_proba(rows), atol=2e-6)
    np.testing.assert_array_equal(got["label"], model.predict(rows))
    assert np.ptp(got["probabilities"][:, 0]) > 0.01
    return got


@pytest.fixture(scope="module")
def preset() -> nn.Model:
    """Fit a classifier with an encoder, on columns of all kinds."""
    table = frame()
    labels = np.where(signal(table) > 0.4, "high", "low")
    estimator = nn.TabularMLPClassifier(max_iter=4, n_members=2, device="numpy", random_state=0)
    return estimator.fit(table, labels).to_model()


def test_a_preset_with_columns_of_all_kinds(preset: nn.Model, tmp_path: Path) -> None:
    assert preset.preprocessing.encoder is not None
    check(preset, tmp_path / "m.onnx", frame(1))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gaps_and_unseen_levels(preset: nn.Model, tmp_path: Path) -> None:
    check(preset, tmp_path / "m.onnx", NEW_ROWS)
    for i in range(len(NEW_ROWS["size"])):  # one row at a time
        row = {name: [cells[i]] for name, cells in NEW_ROWS.items()}
        got = answers(tmp_path / "m.onnx", row)
        np.testing.assert_allclose(got["probabilities"], preset.predict_proba(row), atol=2e-6)


@pytest.mark.parametrize("classes", ["text", "whole", "flags"])
def test_a_scaled_network_and_its_labels(classes: str, tmp_path: Path) -> None:
    table = frame()[["size", "colour", "member"]]
    codes = (signal(frame()) > 0.3).astype(int)
    values: Any = {"text": np.array(["no", "sí"]), "whole": np.array([10, 20]),
                   "flags": np.array([False, True])}  # fmt: skip
    net = nn.Network([2 + 4 + 1, 8, 2], "cross_entropy", device="numpy", seed=0)
    model = nn.Model(net, scale="standard")
    model.fit(table, values[classes][codes], epochs=3)
    nn.export(model, tmp_path / "m.onnx", raw=True)
    got = answers(tmp_path / "m.onnx", NEW_ROWS)
    np.testing.assert_allclose(got["probabilities"], model.predict_proba(NEW_ROWS), atol=2e-6)
    assert got["label"].astype(str).tolist() == model.predict(NEW_ROWS).astype(str).tolist()


def test_one_output_for_two_classes(tmp_path: Path) -> None:
    table, labels = frame()[["size", "weight"]], np.where(signal(frame()) > 0.3, "b", "a")
    net = nn.Network([3, nn.Dense(1, "sigmoid")], "binary_cross_entropy", device="numpy", seed=0)
    model = nn.Model(net, scale="standard")
    model.fit(table, labels, epochs=3)
    got = check(model, tmp_path / "m.onnx", NEW_ROWS)
    assert set(got["label"]) == {"a", "b"}


def test_values_and_large_numbers(tmp_path: Path) -> None:
    """Unix times need double inputs; columns of days, many categories and no gaps."""
    table = frame(dates="1D")[["area", "since", "weight"]].assign(
        clock=1.7e9 + 600 * np.random.default_rng(2).normal(size=N)
    )
    y = 1e3 * table["weight"] + (table["clock"] - 1.7e9) + 50_000
    model = nn.TabularMLPRegressor(max_iter=4, n_members=2, device="numpy", random_state=0)
    known = model.fit(table, y.to_numpy()).to_model()
    nn.export(model, tmp_path / "m.onnx", raw=True)
    got = answers(tmp_path / "m.onnx", table)["value"]
    assert got.shape == (N, 1)
    np.testing.assert_allclose(got[:, 0], known.predict(table), rtol=1e-5)
    assert np.ptp(got) > 100


def test_mean_targets_of_many_categories(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pandas.DataFrame({"area": [f"a{i}" for i in rng.integers(0, 400, 1500)],
                              "size": rng.normal(size=1500)})  # fmt: skip
    labels = np.where(table["area"].str.len() + table["size"] > 3.5, "long", "short")
    model = nn.TabularMLPClassifier(max_iter=2, n_members=2, device="numpy", random_state=0)
    known = model.fit(table, labels).to_model()
    assert "many categories" in str(known.preprocessing.columns)
    check(known, tmp_path / "m.onnx", {"area": ["a1", "a399", "new", None], "size": [0, 1, 2, 3]})


def test_names_of_the_graph_differ_from_those_of_columns(tmp_path: Path) -> None:
    table = frame()[["size", "weight"]].set_axis(["x", "label"], axis=1)
    net = nn.Network([3, 4, 2], "cross_entropy", device="numpy", seed=0)
    model = nn.Model(net, scale="standard")
    model.fit(table, np.where(signal(frame()) > 0.3, "b", "a"), epochs=2)
    nn.export(model, tmp_path / "m.onnx", raw=True)
    got = answers(tmp_path / "m.onnx", table)
    entries = {e.key: json.loads(e.value) for e in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert entries["outputs"] == {"label": "label (2)", "probabilities": "probabilities"}
    np.testing.assert_array_equal(got["label (2)"], model.predict(table))


def test_the_metadata_describe_the_columns(preset: nn.Model, tmp_path: Path) -> None:
    nn.export(preset, tmp_path / "m.onnx", raw=True)
    file = onnx.load(tmp_path / "m.onnx")
    entries = {e.key: json.loads(e.value) for e in file.metadata_props}
    columns = {c["name"]: c for c in entries["columns"]}
    assert columns["colour"]["levels"] == ["blue", "green", "red"]
    assert "days since 1970-01-01" in columns["since"]["meaning"]
    assert columns["since"]["type"] == "double"
    assert entries["classes"] == ["high", "low"]
    assert entries["versions"]["nnbackend"] == nn.__version__
    assert "days since 1970-01-01" in {i.name: i.doc_string for i in file.graph.input}["since"]


def test_models_without_such_a_graph_are_refused(tmp_path: Path) -> None:
    arrays = nn.Model(nn.Network([2, 1], device="numpy"))
    with pytest.raises(ArgumentError, match="fitted to an array"):
        nn.export(arrays, tmp_path / "m.onnx", raw=True)
    with pytest.raises(ArgumentError, match=r"raw needs an \.onnx file"):
        nn.export(arrays, tmp_path / "m.npz", raw=True)
    assert not list(tmp_path.iterdir())


def test_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    table = frame().assign(good=np.where(signal(frame()) > 0.3, "yes", "no"))
    table.to_csv("t.csv", index=False)
    words = ["--epochs", "2", "--hidden", "6", "--device", "numpy", "--quiet", "--out", "run"]
    assert main(["train", "t.csv", *words]) == 0
    assert main(["export", "run", "--raw"]) == 0
    got = answers(Path("run/model.onnx"), table)
    expected = nn.load("run/model.safetensors", "numpy").predict_proba(table)
    np.testing.assert_allclose(got["probabilities"], expected, atol=2e-6)
    table["remark"] = [f"word{i} " * 9 for i in range(N)]
    table.to_csv("t.csv", index=False)
    words[-1] = "with-text"
    assert main(["train", "t.csv", *words, "--column", "remark=text", "--target", "good"]) == 0
    capsys.readouterr()
    assert main(["export", "with-text", "--raw"]) == 2
    assert "'remark'" in capsys.readouterr().err


@pytest.mark.parametrize("trained", ["{}", "{}.0"])
@pytest.mark.parametrize("n_levels", [4, 150])
def test_whole_numbers_as_categories(trained: str, n_levels: int, tmp_path: Path) -> None:
    """Programs write 2.0 in a column with gaps; requests have 2, 2.0 or text."""
    codes = np.random.default_rng(0).integers(0, n_levels, 900)
    lines = [f"{trained.format(c)},{i % 7},{'ab'[c % 2]}" for i, c in enumerate(codes)]
    (tmp_path / "t.csv").write_text("\n".join(["store,size,good", *lines]))
    words = ["--column", "store=category", "--epochs", "2", "--device", "numpy", "--quiet"]
    assert main(["train", str(tmp_path / "t.csv"), *words, "--out", str(tmp_path / "run")]) == 0
    model = nn.load(tmp_path / "run" / "model.safetensors", "numpy")
    p = model.predict_proba([{"store": trained.format(c), "size": 3} for c in (1, 2)])
    for cells in ([1, 2], [1.0, 2.0], ["1", "2"], ["1.0", "2.0"], [1, "2.0"], [1.0, "2"]):
        rows = [{"store": cell, "size": 3} for cell in cells]
        np.testing.assert_array_equal(model.predict_proba(rows), p)
        np.testing.assert_array_equal(
            model.predict_proba([*rows, {"store": "x", "size": 3}])[:2], p
        )
    nn.export(model, tmp_path / "m.onnx", raw=True)
    assert onnx.load(tmp_path / "m.onnx").producer_version == nn.__version__
    for spelled in ("{}", "{}.0"):
        table = {"store": [spelled.format(c) for c in (1, 2)], "size": [3, 3]}
        got = answers(tmp_path / "m.onnx", table)["probabilities"]
        np.testing.assert_allclose(got, p, atol=2e-6)
    assert np.abs(p[0] - p[1]).max() > 1e-4
