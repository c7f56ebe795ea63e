"""Networks for other programs: what they compute there is what they compute here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli import main
from nnbackend.errors import ArgumentError
from nnbackend.network.activations import ACTIVATIONS, get_activation

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

X = np.random.default_rng(3).normal(size=(64, 5)).astype(np.float32) * 2.0
TOLERANCE = 1e-6  # of the largest output, at least of 1


def run(path: Path, x: np.ndarray) -> np.ndarray:
    """Compute with onnxruntime, after the checker has had its look at the file."""
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (y,) = session.run(["y"], {"x": x})
    result: np.ndarray = y
    return result


def check(net: nn.Network, expected: np.ndarray, tmp_path: Path, x: np.ndarray = X) -> None:
    nn.export(net, tmp_path / "model.onnx")
    y = run(tmp_path / "model.onnx", x)
    expected = expected.reshape(y.shape)
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.abs(y - expected).max() <= TOLERANCE * scale
    assert np.ptp(y) > 0.01 * scale


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_activation(name: str, dtype: str, tmp_path: Path) -> None:
    hidden = [nn.Dense(9, name)] if name != "softmax" else []
    net = nn.Network([5, *hidden, nn.Dense(4, name)], device="numpy", dtype=dtype, seed=2)
    x = X * 0.2 if name == "exponential" else X  # e^e^z magnifies whatever is in the last bit
    check(net, net.outputs(x), tmp_path, x)


@pytest.mark.parametrize(("name", "number"), [("leaky_relu", 0.3), ("elu", 2.0)])
def test_an_activations_number(name: str, number: float, tmp_path: Path) -> None:
    net = nn.Network([5, nn.Dense(9, get_activation(name, number)), 2], device="numpy")
    check(net, net.outputs(X), tmp_path)


@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_maxout_and_dropout(pieces: int, tmp_path: Path) -> None:
    layers = [5, nn.Maxout(7, pieces), nn.Dropout(0.5), nn.Dense(6, "tanh"), nn.Maxout(3, pieces)]
    net = nn.Network(layers, device="numpy")
    check(net, net.outputs(X), tmp_path)


@pytest.mark.parametrize("scale", ["standard", "robust", "unit"])
@pytest.mark.parametrize("scale_targets", [True, False])
def test_raw_rows_go_in_and_values_come_out(
    scale: str, scale_targets: bool, tmp_path: Path
) -> None:
    x = X * np.array([1.0, 100.0, 0.01, 5.0, 1.0], np.float32) + 3.0
    net = nn.Network([5, 8, 1], device="numpy", activation="gelu")
    nn.train(net, x, X[:, 0] * 40.0 + 300.0, epochs=3, scale=scale, scale_targets=scale_targets)
    check(net, net.predict(x), tmp_path, x)


def test_a_trained_classifier(tmp_path: Path) -> None:
    net = nn.Network([5, 16, 3], "cross_entropy", device="numpy", classes=["a", "b", "c"])
    nn.train(net, X, np.array(["a", "b", "c"])[np.arange(64) % 3], epochs=5, scale="robust")
    check(net, net.predict_proba(X), tmp_path)
    props = onnx.load(tmp_path / "model.onnx").metadata_props
    assert json.loads({p.key: p.value for p in props}["classes"]) == ["a", "b", "c"]


def test_any_number_of_rows(tmp_path: Path) -> None:
    net = nn.Network([5, nn.Maxout(3), 2], device="numpy")
    nn.export(net, tmp_path / "model.onnx")
    for n in (1, 7, 64):
        assert run(tmp_path / "model.onnx", X[:n]).shape == (n, 2)


def test_npz_holds_all_that_is_needed(tmp_path: Path) -> None:
    net = nn.Network([5, nn.Dense(6, "tanh"), 2], device="numpy")
    nn.train(net, X, X[:, :2], epochs=1, scale="standard")
    nn.export(net, tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz", allow_pickle=False) as stored:
        described = json.loads(str(stored["description"]))
        assert [layer["activation"]["name"] for layer in described["layers"]] == [
            "tanh", "identity"
        ]  # fmt: skip
        a = (X - stored["scaler.shift"]) * stored["scaler.factor"]
        a = np.tanh(a @ stored["weights.0"] + stored["biases.0"])
        a = a @ stored["weights.1"] + stored["biases.1"]
    np.testing.assert_allclose(a, net.outputs(X), rtol=0, atol=1e-5)


def test_what_cannot_be_exported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own: Any = nn.Activation("relu", lambda z: z**3, lambda z: 3 * z**2)
    net = nn.Network([5, nn.Dense(2, own)], device="numpy")
    with pytest.raises(ArgumentError, match="Only activations of nnbackend"):
        nn.export(net, tmp_path / "model.onnx")

    class Doubled(nn.Dense):
        """A layer of one's own, which would silently count as a dense one."""

    with pytest.raises(ArgumentError, match="Only layers of nnbackend"):
        nn.export(nn.Network([5, Doubled(2)], device="numpy"), tmp_path / "model.onnx")
    with pytest.raises(ArgumentError, match=r"exported to \.onnx or \.npz"):
        nn.export(net, tmp_path / "model.onx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ArgumentError, match=r'pip install "nnbackend\[onnx\]"'):
        nn.export(nn.Network([5, 2], device="numpy"), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_the_verb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--epochs", "2", "--hidden", "6", "--device", "numpy", "--quiet", "--out", "run"]
    assert main(["train", "iris", *words]) == 0
    capsys.readouterr()
    assert main(["export", "run"]) == 0
    assert capsys.readouterr().out == f"{Path('run') / 'model.onnx'}\n"
    x = nn.data.load("iris").x.astype(np.float32)
    net = nn.load("run/model.safetensors", "numpy")
    assert np.abs(run(Path("run/model.onnx"), x) - net.predict_proba(x)).max() < TOLERANCE
    assert main(["export", "run/last.safetensors", "--out", "last.npz"]) == 0
    assert Path("last.npz").is_file()
    assert main(["export", "run", "--out", "model.txt"]) == 2
    assert main(["export", "absent"]) == 2
