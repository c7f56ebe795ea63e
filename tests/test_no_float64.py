"""A device without float64, as Apple's GPUs: training, sums, estimators, checks, resumed runs.

`GhostBackend(has_float64=False)` refuses every float64 array, also results of expressions.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fitting import fit_model
from rows import registered

import nnbackend as nn
from nnbackend.backend import BackendSpec, Probe
from nnbackend.backend.base import LOSS, WEIGHT
from nnbackend.cli import main
from nnbackend.data.scalers import Scaler
from nnbackend.devices import registry
from nnbackend.errors import ArgumentError
from nnbackend.network.evaluation.sums import Sums
from nnbackend.testing import GhostBackend, GhostError, check_gradients
from nnbackend.testing.agreement import compare_devices
from nnbackend.training.rate_finder import find_learning_rate

RNG = np.random.default_rng(5)
X = RNG.standard_normal((60, 4)).astype(np.float32)
LABELS = (X[:, 0] > 0).astype(int)


@pytest.fixture(autouse=True)
def _ghost32() -> Iterator[None]:
    with registered("ghost32"):
        yield


def ghost32() -> Any:
    return GhostBackend(has_float64=False)


def network(device: Any, rate: float = 0.2, **options: Any) -> nn.Network:
    layers = [4, nn.Dense(6, "tanh"), nn.Dropout(rate), nn.Dense(2, "softmax")]
    layers = layers if rate else [layer for layer in layers if not isinstance(layer, nn.Dropout)]
    return nn.Network(layers, device=device, **options)


def theta(net: nn.Network) -> np.ndarray:
    return net.backend.to_host(net.theta)


# ---- the device ---------------------------------------------------------------------------------


def test_the_device_refuses_float64_of_any_origin() -> None:
    device = ghost32()
    assert device.sum_dtype == "float32"
    assert GhostBackend().sum_dtype == "float64"
    x = device.zeros((2,), "float32")
    for make in (
        lambda: device.empty((2,), "float64"),
        lambda: device.zeros((2,), "float64"),
        lambda: device.to_device(np.zeros(2)),
        lambda: device.xp.astype(x, device.xp.float64),
        lambda: device.xp.zeros((2,)),
        lambda: device.xp.sum(x, dtype=device.xp.float64),
    ):
        with pytest.raises(GhostError, match="ghost32:0 has no float64"):
            make()


def test_dtype_float64_is_refused_with_the_cure() -> None:
    for make in (
        lambda: network("ghost32", dtype="float64"),
        lambda: nn.MLPClassifier(device="ghost32", dtype="float64", max_iter=1).fit(X, LABELS),
    ):
        with pytest.raises(ArgumentError, match=r"no float64. Use dtype='float32', or dev"):
            make()


# ---- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs", nn.SGD(0.1, 0.9)], ids=str)
def test_training_matches_numpy(optimizer: Any) -> None:
    options: dict[str, Any] = {"optimizer": optimizer, "epochs": 6, "validation": 0.25, "l2": 1e-3}
    if optimizer != "lbfgs":
        options |= {"batch_size": 8, "ema": 0.9, "clip_norm": 1.0, "sample_weight": X[:, 1] ** 2}
    rate = 0.0 if optimizer == "lbfgs" else 0.2
    nets = [network(device, rate) for device in ("ghost32", "numpy")]
    histories = [nn.train(net, X, LABELS, **options) for net in nets]
    tolerance = 1e-2 if optimizer == "lbfgs" else 1e-5  # a line search amplifies rounding
    for name in ("train_loss", "valid_loss", "valid_accuracy"):
        np.testing.assert_allclose(histories[0][name], histories[1][name], rtol=tolerance)
    if optimizer != "lbfgs":
        np.testing.assert_allclose(theta(nets[0]), theta(nets[1]), atol=1e-5)
    assert nets[0].evaluate(X, LABELS) == pytest.approx(nets[1].evaluate(X, LABELS), rel=tolerance)


def test_lists_of_numbers_are_valid_rows() -> None:
    rows = [[0.0, 1.0, 2.0, 3.0]]
    ours, theirs = (network(device).feedforward(rows) for device in ("ghost32", "numpy"))
    np.testing.assert_allclose(nn.get_backend("ghost32").to_host(ours), theirs, rtol=1e-6)


def test_a_learning_rate_is_found() -> None:
    found = find_learning_rate(network("ghost32"), X, LABELS, steps=20)
    assert len(found.losses) > 5


# ---- long sums ----------------------------------------------------------------------------------


def test_counts_above_2_to_the_24_are_exact() -> None:
    sums = Sums(ghost32(), 1)
    one = sums.backend.to_device(np.array([0, 1, 0, 0], np.float32))
    sums.load(np.array([0, 2**24, 0, 0], np.float32), np.zeros(4))
    for _ in range(3):
        sums.flush()
        sums.backend.copy(sums.totals + one, sums.totals)
    assert sums.read().tolist() == [0, 2**24 + 3, 0, 0]
    sums.clear()
    assert sums.read().tolist() == [0, 0, 0, 0]


def test_an_evaluation_of_many_rows_is_exact() -> None:
    # 4096 rows without loss have a total weight of 2^24; the last has weight and loss 1.
    net = nn.Network([1, 1], "quadratic", device="ghost32")
    net.set_parameters([np.zeros((1, 1))], [np.zeros(1)])
    y = np.zeros(4097, np.float32)
    y[-1] = np.float32(2.0)
    weight = np.full(4097, 4096, np.float32)
    weight[-1] = 1.0
    found = net.evaluate(np.ones((4097, 1), np.float32), y, weight)
    assert found["loss"] == 2.0 / (2**24 + 1)


def test_the_sums_of_an_epoch_are_exact() -> None:
    weight, n, seen = 2**18 + 1, 400, []

    class Look(nn.Callback):
        def on_epoch_end(self, trainer: Any, row: Any) -> None:
            seen.append(trainer.state.sums.read())

    net = nn.Network([1, 1], "quadratic", device="ghost32")
    net.set_parameters([np.zeros((1, 1))], [np.zeros(1)])
    nn.train(
        net, np.zeros((n, 1), np.float32), np.ones(n, np.float32), batch_size=1, epochs=2,
        sample_weight=np.full(n, weight, np.float32), optimizer="sgd", callbacks=[Look()],
        schedule=lambda step: 0.0,
    )  # fmt: skip
    assert [sums[WEIGHT] for sums in seen] == [n * weight] * 2
    assert [sums[LOSS] for sums in seen] == [n * weight / 2] * 2


# ---- resuming and moving runs -------------------------------------------------------------------


class Interrupt(nn.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_progress(self, trainer: Any, step: int, n_steps: int) -> None:
        if trainer.state.step >= self.step:
            trainer.interrupt.requested = True


def start_run(folder: Path, device: Any, x: np.ndarray = X, **options: Any) -> None:
    checkpoints = nn.Checkpoints(folder, minutes=60)
    fit_model(network(device), x, LABELS, callbacks=[Interrupt(70), checkpoints], **options)


# More than 64 steps per epoch, so that some sums are on the host at the interruption.
LONG: dict[str, Any] = {"epochs": 3, "batch_size": 1, "validation": (X, LABELS)}


def test_resumed_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnbackend.network.evaluation.sums.MAX_STEPS", 7)
    whole = network("ghost32")
    wanted = nn.train(whole, X, LABELS, **LONG)
    start_run(tmp_path, "ghost32", **LONG)
    model, history = nn.resume(tmp_path, X, LABELS, validation=(X, LABELS))
    net = model.network
    assert net.backend.device == "ghost32:0"
    assert theta(net).tobytes() == theta(whole).tobytes()
    assert history["train_loss"] == wanted["train_loss"]


@pytest.mark.parametrize("kind", ["float32", "float64, scaled"])
@pytest.mark.parametrize(("first", "second"), [("ghost32", "numpy"), ("numpy", "ghost32")])
def test_a_run_moves_between_devices_within_an_epoch(
    first: str, second: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnbackend.network.evaluation.sums.MAX_STEPS", 7)
    is_scaled = kind != "float32"
    x = X.astype(np.float64) + 1.76e9 if is_scaled else X
    options = LONG | {"validation": (x, LABELS), "scale": "standard" if is_scaled else None}
    whole = network("numpy")
    _, wanted = fit_model(whole, x, LABELS, **options)
    start_run(tmp_path, first, x, **options)
    model, history = nn.resume(tmp_path, x, LABELS, validation=(x, LABELS), device=second)
    np.testing.assert_allclose(theta(model.network), theta(whole), atol=1e-5)
    np.testing.assert_allclose(history["train_loss"], wanted["train_loss"], rtol=1e-5)


def test_models_move_between_devices(tmp_path: Path) -> None:
    model, _ = fit_model(network("ghost32"), X, LABELS, epochs=2)
    model.save(tmp_path / "m.safetensors")
    for other in (model.to("numpy"), nn.load(tmp_path / "m.safetensors", device="numpy")):
        np.testing.assert_allclose(other.outputs(X), model.outputs(X), rtol=1e-5)
        back = other.to("ghost32").network
        assert theta(back).tobytes() == theta(model.network).tobytes()


# ---- estimators ---------------------------------------------------------------------------------


def test_a_fit_in_float64_continues_on_the_device() -> None:
    model = nn.MLPClassifier((5,), device="numpy", max_iter=3, random_state=0)
    model.partial_fit(X.astype(np.float64), LABELS, classes=[0, 1])
    assert model.coefs_[0].dtype == np.float64
    before = model.predict_proba(X)
    model.set_params(device="ghost32")
    np.testing.assert_allclose(model.predict_proba(X), before, rtol=1e-5)
    model.partial_fit(X, LABELS)
    assert model.coefs_[0].dtype == np.float32


def test_an_estimator_converts_float64_rows_to_float32() -> None:
    rows, values = X.astype(np.float64), (X @ [1.0, -2.0, 0.5, 0.0]).astype(np.float64)
    fits = [
        nn.MLPClassifier((5,), max_iter=4, random_state=0, early_stopping=True),
        nn.MLPClassifier((5,), max_iter=4, random_state=0, solver="lbfgs"),
        nn.MLPRegressor(hidden_layer_sizes=(5,), max_iter=4, random_state=0, batch_size=16),
    ]
    for model, y in zip(fits, (LABELS, LABELS, values), strict=True):
        with warnings.catch_warnings(action="ignore"):  # it does not converge in so few epochs
            model.set_params(device="ghost32").fit(rows, y)
        assert {w.dtype for w in model.coefs_} == {np.dtype(np.float32)}
        assert np.isfinite(model.predict(rows)).all()
        assert model.transform(rows).shape == (60, 5)


@pytest.mark.parametrize("where", ["host", "device"])
def test_wide_rows_are_scaled_and_trained_on(where: str) -> None:
    wide = X.astype(np.float64) + (1.76e9 if where == "host" else 0.0)
    options: dict[str, Any] = {"epochs": 3, "batch_size": 8, "scale": "standard"}
    models = []
    for device in ("ghost32", "numpy"):
        net = network(device)
        rows = wide if where == "host" else net.backend.to_device(wide.astype(np.float32))
        models.append(fit_model(net, rows, LABELS, validation=0.25, **options)[0])
    first, second = models
    np.testing.assert_allclose(theta(first.network), theta(second.network), atol=1e-5)
    np.testing.assert_allclose(first.outputs(wide), second.outputs(wide), rtol=1e-4)


def test_a_factor_beyond_float32_is_clipped() -> None:
    net = nn.Network([2, 1], device="ghost32")
    net.set_parameters([[[1.0], [1.0]]], [[0.0]])
    scaler = Scaler("robust", np.zeros(2), np.array([1e300, 1.0]), 3.0)
    x = net.backend.to_device(np.array([[0.0, 1.0], [1.0, 0.0]], np.float32))
    np.testing.assert_allclose(net.outputs(x, scaler)[:, 0], [3 / 10**0.5, 3.0], rtol=1e-6)


# ---- checks -------------------------------------------------------------------------------------


def test_gradients_are_checked_against_float64_differences() -> None:
    net = network("ghost32")
    verdict = check_gradients(net, X[:8], LABELS[:8])
    assert verdict, str(verdict)
    assert verdict.tolerance == 1e-4
    assert "float32 on ghost32:0" in str(verdict)
    right = net.backend.dense_backward

    def wrong(*args: Any) -> None:
        right(*args)
        net.backend.copy(args[6] * 1.01, args[6])

    net.backend.dense_backward = wrong  # type: ignore[method-assign]
    try:
        assert not check_gradients(net, X[:8], LABELS[:8])
    finally:
        del net.backend.dense_backward


def test_the_check_commands_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--device", "ghost32"]) == 0
    assert "passed, in float32 on ghost32:0" in capsys.readouterr().out
    assert main(["devices"]) == 0
    assert "ghost32:0  gpu  self-test passed" in capsys.readouterr().out
    assert compare_devices("ghost32", "numpy")


def test_auto_selects_the_device(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spec = BackendSpec("ghost32", "gpu", 99, lambda: Probe(1), lambda n: ghost32())
    monkeypatch.setattr("nnbackend.testing.ghost.SPEC32", spec)
    registry.refresh()
    with caplog.at_level(logging.WARNING, logger="nnbackend"):
        net = nn.Network([4, 2], "cross_entropy")
    assert net.backend.device == "ghost32:0"
    assert not caplog.records
    nn.train(net, X, LABELS, epochs=1)
