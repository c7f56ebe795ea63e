"""A device whose memory is short: the same training in parts, the same predictions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.testing.ghost import GhostBackend

RNG = np.random.default_rng(8)
X = RNG.normal(size=(50, 4))
Y = RNG.normal(size=(50, 2))
LABELS = (X[:, 0] > 0).astype(int)
WEIGHT = RNG.random(50) * (np.arange(50) % 3 > 0)


class SmallDevice(GhostBackend):
    """Refuses new arrays of more rows than it has room for; counts the refusals."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows, self.refusals = rows, 0

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        if len(shape) == 2 and shape[0] > self.rows:
            self.refusals += 1
            raise MemoryError
        return super().empty(shape, dtype)


class NoRoomToWork(GhostBackend):
    """Has room for the arrays, but not for what arises within one kernel on many rows."""

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
    """Fails in the midst of an update, as long as more than `rows` rows are held."""

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
    history = nn.train(net, X, LABELS, epochs=3, seed=5, **options)
    rows = [[v for k, v in row.items() if k != "seconds"] for row in history]
    return device.to_host(net.theta), rows


@pytest.mark.parametrize("run", sorted(OPTIONS))
@pytest.mark.parametrize(
    "device",
    [lambda: SmallDevice(5), lambda: SmallDevice(1), lambda: NoRoomToWork("dense_forward", 6),
     lambda: NoRoomToWork("dense_backward", 6), lambda: SmallPool(4)],
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


def test_an_undivided_batch_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    train(GhostBackend(), batch_size=16)
    assert not caplog.text


def test_predictions_are_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = classifier("numpy")
    small = whole.to(SmallDevice(8))
    np.testing.assert_allclose(small.outputs(X), whole.outputs(X), rtol=0, atol=1e-12)
    for device in (SmallDevice(7), NoRoomToWork("dense_forward", 6), NoRoomToWork("add_score", 1)):
        small = whole.to(device)
        found, expected = small.evaluate(X, LABELS, WEIGHT), whole.evaluate(X, LABELS, WEIGHT)
        assert found == pytest.approx(expected, rel=1e-12)
    loss = NoRoomToWork("loss_and_delta", 10)
    loss.loss_and_delta = _with_second_argument(loss.loss_and_delta, 10)  # type: ignore[method-assign]
    assert whole.to(loss).evaluate(X, LABELS) == pytest.approx(whole.evaluate(X, LABELS), rel=1e-12)


def _with_second_argument(kernel: Any, rows: int) -> Any:
    def refusing(loss: Any, out: Any, *rest: Any) -> Any:
        if out.shape[0] > rows:
            raise MemoryError
        return kernel(loss, out, *rest)

    return refusing


def test_no_memory_at_all_is_an_error() -> None:
    with pytest.raises(MemoryError):
        train(SmallDevice(0), batch_size=16)
    net = classifier("numpy").to(SmallDevice(0))
    with pytest.raises(MemoryError):
        net.outputs(X)
    assert math.isfinite(classifier(GhostBackend()).evaluate(X, LABELS)["loss"])
