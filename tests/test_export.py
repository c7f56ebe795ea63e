"""Exported networks compute the same in onnxruntime and NumPy as here."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import sklearn.neural_network as theirs
from fitting import fit_model
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import nnbackend as nn
from nnbackend.cli import main
from nnbackend.errors import ArgumentError
from nnbackend.network.activations import ACTIVATIONS, get_activation
from nnbackend.persistence import onnx_graph

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

X = np.random.default_rng(3).normal(size=(64, 5)).astype(np.float32) * 2.0
TOLERANCE = 1e-6  # of the largest output, at least of 1


def run(path: Path, x: np.ndarray) -> np.ndarray:
    """Check the file with onnx and compute with onnxruntime."""
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    wide = session.get_inputs()[0].type == "tensor(double)"
    (y,) = session.run(["y"], {"x": x.astype(np.float64) if wide else x})
    result: np.ndarray = y
    return result


def check(
    net: nn.Network | nn.Model, expected: np.ndarray, tmp_path: Path, x: np.ndarray = X
) -> None:
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
    x = X * 0.2 if name == "exponential" else X  # e^e^z magnifies rounding errors
    check(net, net.outputs(x), tmp_path, x)


@pytest.mark.parametrize(("name", "number"), [("leaky_relu", 0.3), ("elu", 2.0)])
def test_an_activation_with_a_parameter(name: str, number: float, tmp_path: Path) -> None:
    net = nn.Network([5, nn.Dense(9, get_activation(name, number)), 2], device="numpy")
    check(net, net.outputs(X), tmp_path)


@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_maxout_and_dropout(pieces: int, tmp_path: Path) -> None:
    layers = [5, nn.Maxout(7, pieces), nn.Dropout(0.5), nn.Dense(6, "tanh"), nn.Maxout(3, pieces)]
    net = nn.Network(layers, device="numpy")
    check(net, net.outputs(X), tmp_path)


@pytest.mark.parametrize("scale", ["standard", "robust", "unit"])
@pytest.mark.parametrize("scale_targets", [True, False])
def test_exports_take_raw_rows_and_return_values(
    scale: str, scale_targets: bool, tmp_path: Path
) -> None:
    x = X * np.array([1.0, 100.0, 0.01, 5.0, 1.0], np.float32) + 3.0
    net = nn.Network([5, 8, 1], device="numpy", activation="gelu")
    y, options = X[:, 0] * 40.0 + 300.0, {"scale": scale, "scale_targets": scale_targets}
    model, _ = fit_model(net, x, y, epochs=3, **options)
    check(model, model.predict(x), tmp_path, x)


def test_unscaled_rows_of_a_float64_network_keep_their_digits(tmp_path: Path) -> None:
    """Unix times without a scale: the differences of two columns decide."""
    x = 1.7e9 + 100.0 * X.astype(np.float64)[:, :2]
    for activations in (["tanh", "identity"], ["identity"], ["tanh", "sigmoid"]):
        layers: list[Any] = [
            2,
            *(nn.Dense(n, a) for n, a in zip((6, 1), activations, strict=False)),
        ]
        net = nn.Network(layers, device="numpy", dtype="float64", seed=1)
        W, b = net.get_parameters()
        W[0][1] = -W[0][0]
        net.set_parameters([1e-2 * W[0], *W[1:]], b)
        check(net, net.outputs(x), tmp_path, x)


def test_a_file_beyond_the_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unscaled float64 networks have wide first and last layers: 8 bytes a weight."""
    nets = {d: nn.Network([300, 500, 300], device="numpy", dtype=d) for d in ("float32", "float64")}
    monkeypatch.setattr(onnx_graph, "LARGEST", 1_000_000 + 6 * nets["float32"].n_parameters)
    nn.export(nets["float32"], tmp_path / "narrow.onnx")
    with pytest.raises(ArgumentError, match="holds at most 2 GB of weights"):
        nn.export(nets["float64"], tmp_path / "wide.onnx")
    assert not (tmp_path / "wide.onnx").exists()


def test_a_trained_classifier(tmp_path: Path) -> None:
    model = nn.Model(nn.Network([5, 16, 3], "cross_entropy", device="numpy"), scale="robust")
    model.fit(X, np.array(["a", "b", "c"])[np.arange(64) % 3], epochs=5)
    check(model, model.predict_proba(X), tmp_path)
    props = onnx.load(tmp_path / "model.onnx").metadata_props
    assert json.loads({p.key: p.value for p in props}["classes"]) == ["a", "b", "c"]


def test_any_number_of_rows(tmp_path: Path) -> None:
    net = nn.Network([5, nn.Maxout(3), 2], device="numpy")
    nn.export(net, tmp_path / "model.onnx")
    for n in (1, 7, 64):
        assert run(tmp_path / "model.onnx", X[:n]).shape == (n, 2)


def test_npz_is_sufficient_to_compute_outputs(tmp_path: Path) -> None:
    net = nn.Network([5, nn.Dense(6, "tanh"), 2], device="numpy")
    model, _ = fit_model(net, X, X[:, :2], epochs=1, scale="standard")
    nn.export(model, tmp_path / "model.npz")
    with np.load(tmp_path / "model.npz", allow_pickle=False) as stored:
        described = json.loads(str(stored["description"]))
        assert [layer["activation"]["name"] for layer in described["layers"]] == [
            "tanh", "identity"
        ]  # fmt: skip
        a = (X - stored["scaler.shift"]) * stored["scaler.factor"]
        a = np.tanh(a @ stored["weights.0"] + stored["biases.0"])
        a = a @ stored["weights.1"] + stored["biases.1"]
    np.testing.assert_allclose(a, model.outputs(X), rtol=0, atol=1e-5)


def test_networks_that_cannot_be_exported_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own: Any = nn.Activation("relu", lambda z: z**3, lambda z: 3 * z**2)
    net = nn.Network([5, nn.Dense(2, own)], device="numpy")
    with pytest.raises(ArgumentError, match="Only activations of nnbackend"):
        nn.export(net, tmp_path / "model.onnx")

    class Doubled(nn.Dense):
        """A custom layer, which must not be exported as a dense one."""

    with pytest.raises(ArgumentError, match="Only layers of nnbackend"):
        nn.export(nn.Network([5, Doubled(2)], device="numpy"), tmp_path / "model.onnx")
    with pytest.raises(ArgumentError, match=r"file must be \.onnx or \.npz"):
        nn.export(net, tmp_path / "model.onx")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ArgumentError, match=r'pip install "nnbackend\[onnx\]"'):
        nn.export(nn.Network([5, 2], device="numpy"), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_the_export_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--epochs", "2", "--hidden", "6", "--device", "numpy", "--quiet", "--out", "run"]
    assert main(["train", "iris", *words]) == 0
    capsys.readouterr()
    assert main(["export", "run"]) == 0
    assert capsys.readouterr().out == f"{Path('run') / 'model.onnx'}\n"
    x = nn.data.load("iris").x.astype(np.float32)
    model = nn.load("run/model.safetensors", "numpy")
    assert np.abs(run(Path("run/model.onnx"), x) - model.predict_proba(x)).max() < TOLERANCE
    assert main(["export", "run/last.safetensors", "--out", "last.npz"]) == 0
    assert Path("last.npz").is_file()
    assert main(["export", "run", "--out", "model.txt"]) == 2
    assert main(["export", "absent"]) == 2


# ---- estimators ---------------------------------------------------------------------------------

SMALL: dict[str, Any] = {"hidden_layer_sizes": 6, "max_iter": 5, "random_state": 0,
                         "device": "numpy"}  # fmt: skip
CODES = (X[:, 0] > 0.3).astype(int) + (X[:, 1] > 0)
FITS: dict[str, tuple[Any, dict[str, Any], Any]] = {
    "classes": (nn.MLPClassifier, {"activation": "tanh"}, np.array(["a", "b", "c"])[CODES]),
    "two classes": (nn.MLPClassifier, {"label_smoothing": 0.1}, np.array(["no", "yes"])[CODES % 2]),
    "numbers as classes": (nn.MLPClassifier, {}, CODES * 2.0),
    "several labels": (nn.MLPClassifier, {}, np.stack([CODES > 0, CODES > 1, CODES < 1], axis=1)),
    "layers": (
        nn.MLPClassifier,
        {"hidden_layer_sizes": [nn.Maxout(4, 3), nn.Dropout(0.2), 5], "dropout": 0.1},
        CODES,
    ),
    "values": (nn.MLPRegressor, {"dtype": "float64"}, X[:, 0] - X[:, 1]),
    "several values": (nn.MLPRegressor, {"loss": "huber"}, X[:, :3]),
    "counts": (nn.MLPRegressor, {"loss": "poisson"}, CODES),
    "no hidden layer": (nn.MLPRegressor, {"hidden_layer_sizes": ()}, X[:, :2]),
    "ensemble": (nn.TabularMLPClassifier, {}, CODES),
    "ensemble of two classes": (nn.TabularMLPClassifier, {"n_members": 2}, CODES > 0),
    "ensemble of values": (nn.TabularMLPRegressor, {}, 1e3 * X[:, :2] + 1e4),
    "ensemble of far values": (nn.TabularMLPRegressor, {}, X[:, 0] + 1.7e9),
    "ensemble of counts": (nn.TabularMLPRegressor, {"loss": "poisson"}, CODES),
}  # fmt: skip


def fitted(kind: str) -> Any:
    make, own, y = FITS[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make(**{**SMALL, **own}).fit(X, y)


@pytest.mark.parametrize("kind", FITS)
def test_an_exported_estimator_predicts_the_same(kind: str, tmp_path: Path) -> None:
    model = fitted(kind)
    model.set_params(activation="relu", hidden_layer_sizes=3)  # for the next fit
    is_classifier = hasattr(model, "predict_proba")
    expected = model.predict_proba(X) if is_classifier else model.predict(X)
    nn.export(model, tmp_path / "m.onnx")
    y = run(tmp_path / "m.onnx", X)
    np.testing.assert_allclose(y, expected.reshape(y.shape), rtol=1e-4, atol=1e-5)
    members = model.to_models()
    mean = np.mean([m.predict_proba(X) if is_classifier else m.predict(X) for m in members], 0)
    np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-5)
    entries = {e.key: json.loads(e.value) for e in onnx.load(tmp_path / "m.onnx").metadata_props}
    if is_classifier and kind != "several labels":
        assert entries["classes"] == model.classes_.tolist()
        labels = np.asarray(entries["classes"])[y.argmax(axis=1)]
        np.testing.assert_array_equal(labels, model.predict(X))
    if len(members) == 1:
        np.testing.assert_array_equal(members[0].predict(X), model.predict(X))


def test_the_models_of_an_estimator_can_be_saved_and_exported(tmp_path: Path) -> None:
    model = fitted("two classes")
    nn.export(model, tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz", allow_pickle=False) as stored:
        a = np.maximum(X @ stored["weights.0"] + stored["biases.0"], 0.0)
        z = a @ stored["weights.1"] + stored["biases.1"]
    np.testing.assert_allclose(np.diff(z)[:, 0] > 0, model.predict(X) == "yes")
    model.to_models()[0].save(tmp_path / "m.safetensors")
    again = nn.load(tmp_path / "m.safetensors", device="numpy")
    np.testing.assert_allclose(again.predict_proba(X), model.predict_proba(X), rtol=1e-5)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_an_ensemble_fitted_to_sparse_rows_has_no_scaler(tmp_path: Path) -> None:
    sparse = scipy.sparse.csr_array(X * (X > 0.5))
    model = nn.TabularMLPClassifier(n_members=2, **SMALL).fit(sparse, CODES)
    nn.export(model, tmp_path / "m.onnx")
    y = run(tmp_path / "m.onnx", sparse.toarray())
    np.testing.assert_allclose(y, model.predict_proba(sparse), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "kind", "said"),
    [
        (lambda: nn.MLPClassifier(), NotFittedError, "This MLPClassifier instance is not fitted"),
        (
            lambda: nn.MLPClassifier(**SMALL, tol=9.0).fit(X, np.ones(64, int)),
            ArgumentError,
            r"at least two classes. Received: a fit to array\(\[1\]\) alone",
        ),
        (
            lambda: make_pipeline(StandardScaler(), nn.MLPClassifier()),
            ArgumentError,
            r"Received: Pipeline. Export its last step, pipeline\[-1\]",
        ),
        (lambda: nn.MLPClassifier, ArgumentError, "or a fitted MLPClassifier or .* Received: .*"),
        (lambda: theirs.MLPClassifier(), ArgumentError, "of nnbackend. Received: MLPClassifier"),
        (lambda: None, ArgumentError, "Received: NoneType"),
    ],
    ids=["not fitted", "one class", "pipeline", "class", "scikit-learn's", "None"],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_models_other_than_fitted_estimators_are_refused(
    make: Any, kind: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=said):
        nn.export(make(), tmp_path / "m.npz")
    assert not list(tmp_path.iterdir())
