"""A device with little memory: the same training and predictions in parts."""

from __future__ import annotations

import gc
import math
from typing import Any

import numpy as np
import pytest
from fitting import fit_model

import nnbackend as nn
from nnbackend.errors import DeviceMemoryError
from nnbackend.testing.ghost import GhostBackend
from nnbackend.training.api import new_trainer
from nnbackend.training.config import TrainConfig
from nnbackend.training.rate_finder import find_learning_rate

RNG = np.random.default_rng(8)
X = RNG.normal(size=(50, 4))
Y = RNG.normal(size=(50, 2))
LABELS = (X[:, 0] > 0).astype(int)
WEIGHT = RNG.random(50) * (np.arange(50) % 3 > 0)


class SmallDevice(GhostBackend):
    """A device that refuses arrays of more than `rows` rows and counts the refusals."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows, self.refusals = rows, 0

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        if len(shape) == 2 and shape[0] > self.rows:
            self.refusals += 1
            raise MemoryError
        return super().empty(shape, dtype)


class NoWorkMemory(GhostBackend):
    """A device with memory for the arrays, but not for one kernel's temporaries on many rows."""

    def __init__(self, kernel: str, rows: int) -> None:
        super().__init__()
        self.refusals = 0
        whole = getattr(self, kernel)

        def refusing(*args: Any) -> Any:
            if any(getattr(a, "ndim", 0) == 2 and a.shape[0] > rows for a in args[:1]):
                self.refusals += 1
                raise MemoryError
            return whole(*args)

        setattr(self, kernel, refusing)


class SmallPool(GhostBackend):
    """A device that fails during an update of a batch of more than `rows` rows."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows, self.most, self.refusals = rows, 0, 0

    def loss_and_delta(self, loss: Any, out: Any, *rest: Any) -> None:
        self.most = out.shape[0]
        super().loss_and_delta(loss, out, *rest)

    def optimizer_step(self, rule: Any, theta: Any, gradient: Any, *rest: Any) -> None:
        super().optimizer_step(rule, theta, gradient, *rest)
        if self.most > self.rows:
            self.refusals += 1
            raise MemoryError


OPTIONS: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": "adam", "batch_size": 16},
    "weights and penalties": {"batch_size": 21, "sample_weight": WEIGHT, "l1": 1e-3, "l2": 1e-2,
                              "optimizer": nn.SGD(0.1, 0.9), "clip_norm": 0.3, "ema": 0.5},
    "full batch": {"batch_size": None, "optimizer": nn.SGD(0.3), "max_norm": 1.0},
    "scaled, validated": {"batch_size": 20, "validation": 0.3, "scale": "robust"},
}  # fmt: skip


def classifier(device: Any) -> nn.Network:
    layers = [4, nn.Dense(7, "tanh"), nn.Dropout(0.4), nn.Maxout(5), nn.Dense(2, "softmax")]
    return nn.Network(layers, device=device, dtype="float64", seed=3)


def train(device: GhostBackend, **options: Any) -> tuple[np.ndarray, list[list[float]]]:
    net = classifier(device)
    _, history = fit_model(net, X, LABELS, epochs=3, seed=5, **options)
    rows = [[v for k, v in row.items() if k != "seconds"] for row in history]
    return device.to_host(net.theta), rows


@pytest.mark.parametrize("run", sorted(OPTIONS))
@pytest.mark.parametrize(
    "device",
    [lambda: SmallDevice(5), lambda: SmallDevice(1), lambda: NoWorkMemory("dense_forward", 6),
     lambda: NoWorkMemory("dense_backward", 6), lambda: SmallPool(4)],
    ids=["arrays of 5", "arrays of 1", "forward", "backward", "update"],
)  # fmt: skip
def test_a_divided_batch_has_the_same_gradient(
    device: Any, run: str, caplog: pytest.LogCaptureFixture
) -> None:
    small = device()
    theta, rows = train(small, **OPTIONS[run])
    expected, expected_rows = train(GhostBackend(), **OPTIONS[run])
    assert small.refusals > 0
    np.testing.assert_allclose(theta, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(rows, expected_rows, rtol=1e-9)
    assert caplog.text.count("has no memory for a batch") == 1


def test_an_undivided_batch_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    train(GhostBackend(), batch_size=16)
    assert not caplog.text


def test_predictions_are_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = classifier("numpy")
    small = whole.to(SmallDevice(8))
    np.testing.assert_allclose(small.outputs(X), whole.outputs(X), rtol=0, atol=1e-12)
    for device in (SmallDevice(7), NoWorkMemory("dense_forward", 6), NoWorkMemory("add_score", 1)):
        small = whole.to(device)
        found, expected = small.evaluate(X, LABELS, WEIGHT), whole.evaluate(X, LABELS, WEIGHT)
        assert found == pytest.approx(expected, rel=1e-12)
    loss = NoWorkMemory("loss_and_delta", 10)
    loss.loss_and_delta = _with_second_argument(loss.loss_and_delta, 10)  # type: ignore[method-assign]
    assert whole.to(loss).evaluate(X, LABELS) == pytest.approx(whole.evaluate(X, LABELS), rel=1e-12)


def _with_second_argument(kernel: Any, rows: int) -> Any:
    def refusing(loss: Any, out: Any, *rest: Any) -> Any:
        if out.shape[0] > rows:
            raise MemoryError
        return kernel(loss, out, *rest)

    return refusing


def test_no_memory_for_one_row_raises() -> None:
    with pytest.raises(MemoryError):
        train(SmallDevice(0), batch_size=16)
    net = classifier("numpy").to(SmallDevice(0))
    with pytest.raises(MemoryError):
        net.outputs(X)
    assert math.isfinite(classifier(GhostBackend()).evaluate(X, LABELS)["loss"])


# ---- a device that runs out at a chosen byte ----------------------------------------------------

ONE_FIT: dict[str, dict[str, Any]] = {
    "adam": {"batch_size": 40},
    "all rows": {"batch_size": None, "optimizer": nn.SGD(0.3), "validation": 0.2},
    "ema, weights": {"batch_size": 30, "ema": 0.9, "validation": 0.2, "sample_weight": WEIGHT},
    "lbfgs": {"optimizer": nn.LBFGS(), "l2": 1e-2},
}


def network(device: GhostBackend, run: str) -> nn.Network:
    if run != "lbfgs":
        return classifier(device)
    layers = [4, nn.Dense(7, "tanh"), nn.Maxout(5), nn.Dense(2, "softmax")]
    return nn.Network(layers, device=device, dtype="float64", seed=3)


def fitted(device: GhostBackend, run: str) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """Train, predict and evaluate; on the host."""
    net, options = network(device, run), ONE_FIT[run]
    nn.train(net, X, LABELS, epochs=3, seed=5, **options)
    return device.to_host(net.theta), net.outputs(X), net.evaluate(X, LABELS)


@pytest.mark.parametrize("run", sorted(ONE_FIT))
@pytest.mark.parametrize("share", [0.5, 0.7])
def test_a_small_memory_limit_gives_the_same_training(run: str, share: float) -> None:
    generous = GhostBackend()
    expected = fitted(generous, run)
    tight = GhostBackend(limit=int(share * generous.peak))
    theta, outputs, figures = fitted(tight, run)
    assert tight.n_refused > 0
    assert tight.peak <= (tight.limit or 0) < generous.peak
    np.testing.assert_allclose(theta, expected[0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(outputs, expected[1], rtol=0, atol=1e-9)
    assert figures == pytest.approx(expected[2], rel=1e-9)


@pytest.mark.parametrize("run", sorted(ONE_FIT))
def test_a_too_small_memory_limit_leaves_weights_and_device_unchanged(run: str) -> None:
    device = GhostBackend()
    net = network(device, run)
    before, live = device.to_host(net.theta), device.live
    for spare in (1000, 2 * before.nbytes + X.nbytes, 4 * before.nbytes + X.nbytes):
        device.limit = live + spare
        with pytest.raises(DeviceMemoryError, match=r"ghost:0 .* memory"):
            nn.train(net, X, LABELS, epochs=3, seed=5, **ONE_FIT[run])
        np.testing.assert_array_equal(device.to_host(net.theta), before)
    device.limit = None
    nn.train(net, X, LABELS, epochs=3, seed=5, **ONE_FIT[run])
    expected, _, _ = fitted(GhostBackend(), run)
    np.testing.assert_array_equal(device.to_host(net.theta), expected)


@pytest.mark.parametrize("run", ["adam", "ema, weights"])
def test_every_memory_limit_gives_the_same_result_or_raises(run: str) -> None:
    """Also if the last batch or a validation pass runs out of memory beside earlier steps."""
    generous = GhostBackend()
    expected, _, _ = fitted(generous, run)
    floor = 0
    for limit in range(generous.peak // 20, generous.peak, generous.peak // 20):
        device = GhostBackend(limit=limit)
        try:
            theta, _, _ = fitted(device, run)
        except DeviceMemoryError:
            floor = limit
        else:
            np.testing.assert_allclose(theta, expected, rtol=0, atol=1e-9)
    assert 0 < floor < 0.7 * generous.peak


def test_data_that_does_not_fit_raises_with_its_size() -> None:
    device = GhostBackend()
    net = classifier(device)
    device.limit = device.live + X.nbytes
    with pytest.raises(DeviceMemoryError) as raised:
        nn.train(net, X, LABELS)
    # x and the labels as int32, and the order of the rows as int64
    wanted = f"{X.nbytes + 4 * 50 + 8 * 50:,} bytes"
    for words in ("ghost:0", "x (50, 4) float64", wanted, "fewer rows", "float32", "device='cpu'"):
        assert words in str(raised.value)


def test_the_rate_finder_divides_a_batch() -> None:
    generous = GhostBackend()
    net = nn.Network([4, 30, nn.Dense(2, "softmax")], device=generous, dtype="float64", seed=3)
    base = generous.live
    expected = find_learning_rate(net, X, LABELS, batch_size=50, steps=12)
    generous.limit = int(base + 0.6 * (generous.peak - base))
    found = find_learning_rate(net, X, LABELS, batch_size=50, steps=12)
    assert generous.n_refused > 0
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-9)
    assert found.suggestion == pytest.approx(expected.suggestion)


def test_backprop_without_memory_changes_nothing() -> None:
    device = GhostBackend()
    net = classifier(device)
    before, device.limit = device.to_host(net.theta), device.live + 500
    x = GhostBackend().to_device(X)
    with pytest.raises(DeviceMemoryError):
        net.backprop(x, LABELS)
    device.limit = None
    np.testing.assert_array_equal(device.to_host(net.theta), before)
    assert math.isfinite(net.backprop(x, LABELS).loss)


@pytest.mark.parametrize("run", sorted(ONE_FIT))
def test_a_training_run_frees_all_its_arrays(run: str) -> None:
    device = GhostBackend()
    net = network(device, run)
    live = device.live
    gc.collect()
    gc.disable()  # arrays of a reference cycle stay alive, and the test detects them
    try:
        nn.train(net, X, LABELS, epochs=2, seed=5, **ONE_FIT[run])
        assert device.live == live
        net.evaluate(X, LABELS)
        assert device.live == live
    finally:
        gc.enable()


def test_running_out_of_memory_later_raises_and_the_run_can_continue() -> None:
    """Only the failed step is repeated."""
    device = NoWorkMemory("dense_forward", 99)
    net = classifier(device)
    trainer = new_trainer(
        net, X, LABELS, TrainConfig(epochs=2, batch_size=10, seed=5, shuffle=True)
    )
    whole, calls = device.dense_forward, 0

    def fails_once(*args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3 * 4 + 2:  # in step 5: a step has 3 calls
            raise MemoryError
        whole(*args)

    device.dense_forward = fails_once  # type: ignore[method-assign]
    with pytest.raises(MemoryError):
        trainer.run()
    assert trainer.state.step == 4
    trainer.run()
    expected = classifier(GhostBackend())
    nn.train(expected, X, LABELS, epochs=2, batch_size=10, seed=5)
    wanted = expected.backend.to_host(expected.theta)
    np.testing.assert_array_equal(device.to_host(net.theta), wanted)
