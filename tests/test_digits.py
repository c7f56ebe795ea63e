"""Columns and targets far from zero, as Unix time and UTM metres, keep their precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from fitting import fit_model
from rows import make_or_skip

import nnbackend as nn
from nnbackend.cli import main
from nnbackend.data.preprocessing import Preprocessing
from nnbackend.data.scalers import Scaler, fit_scaler
from nnbackend.data.sparse import SparseRows

RNG = np.random.default_rng(0)
SECONDS = RNG.uniform(0, 240, 600)  # four minutes of a log
UNIX = np.c_[1_760_000_000 + SECONDS, RNG.normal(size=600)]
WAVE = np.sin(2 * np.pi * SECONDS / 240) + 0.1 * UNIX[:, 1]
UTM = RNG.uniform(0, 2, (600, 2)) + np.array([5_812_345.0, 412_345.0])  # a plot of land
ARRIVAL = 1_760_000_000 + 40 * UNIX[:, 1]


DEVICES = ["numpy", "numba", "strict", "cupy_emulated", "ghost32"]


def trained(x: Any, y: Any, word: str, layers: tuple[int, ...] = (16,), **options: Any) -> Any:
    net = nn.Network([2, *layers, 1], activation="tanh", device=make_or_skip(word), seed=0)
    return fit_model(net, x, y, **{"epochs": 2, "batch_size": 64, **options})[0]


def theta(model: nn.Model) -> np.ndarray:
    return model.network.backend.to_host(model.network.theta)


@pytest.mark.parametrize("word", DEVICES)
@pytest.mark.parametrize("kind", ["standard", "robust", "unit"])
@pytest.mark.parametrize("x", [UNIX, UTM, UNIX.astype(np.int64)], ids=["unix", "utm", "int64"])
def test_scaling_in_training_equals_scaling_before(x: np.ndarray, kind: str, word: str) -> None:
    scaler = fit_scaler(kind, x)
    assert scaler is not None
    before = trained(scaler.transform(x), WAVE, word)
    whole = trained(x, WAVE, word, scale=kind)
    np.testing.assert_allclose(theta(whole), theta(before), rtol=2e-4, atol=2e-6)
    np.testing.assert_allclose(
        whole.outputs(x), before.outputs(scaler.transform(x)), rtol=1e-3, atol=1e-5
    )


WAYS = {
    "all rows at once": {"batch_size": None},
    "L-BFGS": {"optimizer": "lbfgs", "batch_size": None, "epochs": 5},
    "wide layers": {"layers": (300,)},
    "validated": {"validation": 0.2},
}


@pytest.mark.parametrize("word", ["numpy", "numba"])
@pytest.mark.parametrize("way", sorted(WAYS))
def test_every_training_option(way: str, word: str) -> None:
    scaler = fit_scaler("standard", UNIX)
    assert scaler is not None
    before = trained(scaler.transform(UNIX), WAVE, word, **WAYS[way])
    whole = trained(UNIX, WAVE, word, scale=scaler, **WAYS[way])
    np.testing.assert_allclose(theta(whole), theta(before), rtol=2e-4, atol=2e-6)


def test_rows_of_a_memory_map_and_of_a_sparse_matrix(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", UNIX)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    whole = trained(UNIX, WAVE, "numpy", scale="standard")
    np.testing.assert_array_equal(
        theta(trained(mapped, WAVE, "numpy", scale="standard")), theta(whole)
    )
    np.testing.assert_array_equal(whole.outputs(mapped), whole.outputs(UNIX))
    sparse = SparseRows(scipy.sparse.csr_array(UNIX))
    scaler = fit_scaler("standard", UNIX)
    np.testing.assert_array_equal(theta(trained(sparse, WAVE, "numpy", scale=scaler)), theta(whole))


def test_rows_on_the_device() -> None:
    scaler = fit_scaler("robust", UNIX)
    on_host = trained(UNIX, WAVE, "cupy_emulated", scale=scaler)
    backend = on_host.network.backend
    net = nn.Network([2, 16, 1], activation="tanh", device=backend, seed=0)
    x = backend.to_device(UNIX)
    model, _ = fit_model(net, x, WAVE, epochs=2, batch_size=64, scale=scaler)
    np.testing.assert_array_equal(theta(model), theta(on_host))
    np.testing.assert_array_equal(model.outputs(x), model.outputs(UNIX))


@pytest.mark.parametrize("word", DEVICES)
def test_targets_far_from_zero(word: str) -> None:
    options = {"scale_targets": True, "scale": "standard", "validation": 0.2, "epochs": 40}
    model = trained(UNIX, ARRIVAL, word, optimizer=nn.Adam(0.01), **options)
    predicted = model.predict(UNIX)
    assert predicted.dtype == np.float64
    assert len(np.unique(predicted)) > 500
    assert 1 - np.mean((predicted - ARRIVAL) ** 2) / ARRIVAL.var() > 0.95
    assert model.evaluate(UNIX, ARRIVAL)["r2"] > 0.95


@pytest.mark.parametrize("word", DEVICES)
def test_a_value_far_beyond_the_clip_becomes_the_clip(word: str) -> None:
    net = nn.Network([2, 1], device=make_or_skip(word))
    net.set_parameters([[[1.0], [1.0]]], [[0.0]])
    scaler = Scaler("robust", np.zeros(2), np.array([1e300, 1.0]), 3.0)
    model = nn.Model.from_parts(net, Preprocessing(scaler=scaler))
    assert model.outputs(np.array([[1.0, 0.0], [-1.0, 0.0]])).ravel().tolist() == [3.0, -3.0]


def test_the_tabular_regressor_on_float32_rows() -> None:
    model = nn.TabularMLPRegressor(hidden_layer_sizes=(8,), n_members=1, max_iter=8, random_state=0)
    x = np.c_[UNIX[:, 1], UNIX[:, 1] ** 2].astype(np.float32)
    assert len(np.unique(model.fit(x, ARRIVAL).predict(x))) > 500


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    y = ARRIVAL + 20 * np.sin(SECONDS / 40)
    table = "".join(
        f"{a!r},{b!r},{c!r}\n" for (a, b), c in zip(UNIX.tolist(), y.tolist(), strict=True)
    )
    (tmp_path / "log.csv").write_text("when,size,arrival\n" + table, encoding="utf-8")
    run = str(tmp_path / "run")
    words = ["train", str(tmp_path / "log.csv"), "--epochs", "60", "--learning-rate", "0.01"]
    assert (
        main([*words, "--hidden", "32", "--out", run, "--quiet", "--json", "--device", "numpy"])
        == 0
    )
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["valid_r2"] > 0.95
    assert main(["predict", run, str(tmp_path / "log.csv")]) == 0
    answers = capsys.readouterr().out.splitlines()[1:]
    assert len(set(answers)) > 500


def test_onnx_keeps_the_precision_of_raw_rows(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    for x, y, dtypes in (
        (UNIX, ARRIVAL, (np.float64, np.float64)),
        (UNIX, WAVE, (np.float64, np.float32)),
        (UNIX - [1_760_000_000, 0], WAVE, (np.float32, np.float32)),
    ):
        for kind in ("standard", "robust"):
            model = trained(x, y, "numpy", scale=kind, scale_targets=True)
            nn.export(model, tmp_path / "model.onnx")
            session = runtime.InferenceSession(str(tmp_path / "model.onnx"))
            (out,) = session.run(["y"], {"x": x.astype(dtypes[0])})
            assert out.dtype == dtypes[1]
            np.testing.assert_allclose(out[:, 0] - y.mean(), model.predict(x) - y.mean(), atol=1e-3)


def test_onnx_names_its_features(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    cells = "".join(
        f"{'Bern' if i % 2 else 'Basel'},{i},{'dear' if i > 9 else 'cheap'}\n" for i in range(20)
    )
    (tmp_path / "flats.csv").write_text("city,size,price\n" + cells, encoding="utf-8")
    data = nn.data.load(tmp_path / "flats.csv")
    assert data.columns is not None
    known = Preprocessing(classes=data.classes, columns=data.columns.to_dict())
    net = nn.Network([data.n_features, 2], "cross_entropy", device="numpy")
    nn.export(nn.Model.from_parts(net, known), tmp_path / "m.onnx")
    stored = {p.key: json.loads(p.value) for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert stored == {
        "classes": ["cheap", "dear"], "feature_names": ["city=Basel", "city=Bern", "size"],
    }  # fmt: skip
