"""Mini-batches: their number, the order of the rows, each row once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fitting import fit_model

import nnbackend as nn
from nnbackend.training.batching import batch_sizes, epoch_order

X = np.random.default_rng(0).normal(size=(23, 3)).astype(np.float32)


@pytest.mark.parametrize("n", [1, 2, 10, 1001])
def test_an_epochs_order_is_a_permutation(n: int) -> None:
    order = epoch_order(n, 7, 3, True)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    np.testing.assert_array_equal(epoch_order(n, 7, 3, False), np.arange(n))


def test_the_order_depends_only_on_seed_and_epoch() -> None:
    np.testing.assert_array_equal(epoch_order(50, 1, 2, True), epoch_order(50, 1, 2, True))
    orders = {tuple(epoch_order(50, s, e, True)) for s in range(3) for e in range(4)}
    assert len(orders) == 12


def test_every_row_comes_first_about_as_often() -> None:
    firsts = np.bincount([epoch_order(5, 0, e, True)[0] for e in range(2000)], minlength=5)
    assert np.abs(firsts - 400).max() < 5 * np.sqrt(2000 * 0.2 * 0.8)


@pytest.mark.parametrize(
    ("n", "size", "expected"),
    [(10, 10, [(1, 10)]), (10, 5, [(2, 5)]), (10, 3, [(3, 3), (1, 1)]), (10, 1, [(10, 1)]),
     (1, 1, [(1, 1)]), (7, 4, [(1, 4), (1, 3)])],
)  # fmt: skip
def test_sizes(n: int, size: int, expected: list[tuple[int, int]]) -> None:
    assert batch_sizes(n, size) == expected
    assert sum(count * rows for count, rows in expected) == n


class Seen:
    """An activation that records its input rows."""

    def __init__(self) -> None:
        self.batches: list[np.ndarray] = []

    def network(self, **options: Any) -> nn.Network:
        def note(z: np.ndarray) -> np.ndarray:
            self.batches.append(z.copy())
            return z

        spy = nn.Activation("spy", note, np.ones_like)
        layer = nn.Dense(3, spy, weights="zeros")
        net = nn.Network([3, layer, 1], device="numpy", **options)
        net.weights[0][:] = np.eye(3)
        self.batches.clear()  # the network has tested the activation
        return net

    def train(self, x: Any, **options: Any) -> list[np.ndarray]:
        fit_model(self.network(), x, np.zeros(len(x)), optimizer=nn.SGD(1e-30), **options)
        return self.batches


@pytest.mark.parametrize("size", [None, 1, 4, 5, 22, 23, 24, 1000])
def test_every_row_once_in_every_epoch(size: int | None) -> None:
    batches = Seen().train(X, batch_size=size, epochs=2, seed=5)
    per_epoch = -(-23 // min(size or 23, 23))
    assert len(batches) == 2 * per_epoch
    assert [len(b) for b in batches[: per_epoch - 1]] == [min(size or 23, 23)] * (per_epoch - 1)
    for epoch in range(2):
        rows = np.concatenate(batches[epoch * per_epoch : (epoch + 1) * per_epoch])
        if per_epoch > 1:
            np.testing.assert_array_equal(rows, X[epoch_order(23, 5, epoch, True)])
        np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(X, axis=0))


def test_without_shuffling_rows_keep_their_order() -> None:
    batches = Seen().train(X, batch_size=6, epochs=2, shuffle=False)
    np.testing.assert_array_equal(np.concatenate(batches), np.concatenate([X, X]))


def test_batches_are_scaled() -> None:
    x = X.astype(np.float64) * 10 + 3
    batches = Seen().train(x, batch_size=6, epochs=1, shuffle=False, scale="standard")
    rows = np.concatenate(batches)
    np.testing.assert_allclose(rows.mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(rows.std(axis=0), 1.0, rtol=1e-5)
    np.testing.assert_allclose(rows, (x - x.mean(axis=0)) / x.std(axis=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [None, 5, 23])
def test_targets_and_weights_match_their_rows(size: int | None) -> None:
    """Labels, weights and rows contain the same number; a mismatch would change the loss."""
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def formula(a: Any, y: Any, xp: Any) -> Any:
        seen.append((a.copy(), y.copy()))
        return xp.sum((a - y) ** 2, axis=1), 2 * (a - y)

    layer = nn.Dense(1, "identity", weights=1.0)
    net = nn.Network([1, layer], nn.Loss("spy", formula), device="numpy", dtype="float64")
    seen.clear()  # the network has tested the loss
    x = np.arange(23.0)
    history = nn.train(net, x[:, None], x, optimizer=nn.SGD(1e-30), batch_size=size, epochs=2,
                       sample_weight=x + 1)  # fmt: skip
    assert all(np.array_equal(a, y) for a, y in seen)
    assert history["train_loss"] == [0.0, 0.0]


@pytest.mark.parametrize("size", [None, 1, 5, 23])
def test_the_training_loss_is_the_weighted_mean_of_all_rows(size: int | None) -> None:
    rng = np.random.default_rng(1)
    y, weight = rng.normal(size=23), rng.random(23)
    net = nn.Network([3, 4, 1], device="numpy", dtype="float64", seed=2)
    expected = net.evaluate(X, y, weight)["loss"]
    history = nn.train(net, X, y, optimizer=nn.SGD(1e-30), batch_size=size, epochs=1,
                       sample_weight=weight)  # fmt: skip
    assert history["train_loss"][0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("size", [1, 4])
def test_a_batch_of_weight_zero_changes_nothing(size: int) -> None:
    weight = np.zeros(8)
    weight[-1] = 1.0
    net = nn.Network([3, 4, 1], device="numpy", seed=2)
    history = nn.train(net, X[:8], np.ones(8), batch_size=size, epochs=2, shuffle=False,
                       sample_weight=weight, optimizer=nn.SGD(0.1))  # fmt: skip
    assert np.isfinite(net.theta).all()
    assert history["train_loss"][1] < history["train_loss"][0]
