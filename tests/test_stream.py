"""Streams: batches that a function makes, divided into the mini-batches of the training."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.data import Stream
from nnbackend.errors import ArgumentError, DataError, ShapeError
from nnbackend.persistence.checkpoints import Checkpoints

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 5)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(np.int64)
WEIGHT = RNG.random(300)
VALID = X[:50], Y[:50]


def _of(*arrays: np.ndarray, sizes: tuple[int, ...] = (7, 100, 1)) -> Callable[[int], Any]:
    """Return a function that makes batches of the arrays, of several sizes."""

    def make_batches(epoch: int) -> Iterator[tuple[np.ndarray, ...]]:
        start, lengths = 0, itertools.cycle(sizes)
        while start < len(arrays[0]):
            stop = start + next(lengths)
            yield tuple(a[start:stop] for a in arrays)
            start = stop

    return make_batches


def _net(n_out: int = 2, **options: Any) -> nn.Network:
    loss = "cross_entropy" if n_out > 1 else "quadratic"
    return nn.Network([5, 8, n_out], loss=loss, device="numpy", seed=1, **options)


def _trained(x: Any, y: Any = None, **options: Any) -> tuple[np.ndarray, Any]:
    net = _net()
    options = {"epochs": 3, "batch_size": 32, "validation": VALID, "shuffle": False, **options}
    history = nn.train(net, x, y, **options)
    return net.theta.copy(), [
        {k: v for k, v in row.items() if k != "seconds"} for row in history.rows
    ]


@pytest.mark.parametrize("sizes", [(300,), (1,), (7, 100, 1), (32,)])
@pytest.mark.parametrize("n_rows", [None, 300])
def test_a_stream_trains_as_its_rows(sizes: tuple[int, ...], n_rows: int | None) -> None:
    stream = Stream(_of(X, Y, sizes=sizes), n_rows)
    assert stream.n_rows == 300
    expected, found = _trained(X, Y), _trained(stream)
    assert np.array_equal(expected[0], found[0])
    assert expected[1] == found[1]


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": None}, {"batch_size": 1000}, {"shuffle": "window:64"},
        {"communicator": nn.distributed.Alone()}, {"validation": None},
    ],
)  # fmt: skip
def test_other_options_give_the_bits_of_the_rows(options: dict[str, Any]) -> None:
    if "shuffle" not in options:
        expected = _trained(X, Y, **options)
    else:  # a stream is one chunk
        order = nn.data.row_order.RowOrder

        def shuffled(epoch: int) -> np.ndarray:
            return np.asarray(order(300, 0, epoch, 64).within(np.array([300])))

        expected = _trained(X, Y, shuffle=shuffled)
        assert not np.array_equal(expected[0], _trained(X, Y)[0])
    found = _trained(Stream(_of(X, Y)), **options)
    assert np.array_equal(expected[0], found[0])


def test_weights_of_a_stream() -> None:
    expected = _trained(X, Y, sample_weight=WEIGHT)
    assert np.array_equal(expected[0], _trained(Stream(_of(X, Y, WEIGHT)))[0])
    some = np.where(np.arange(300) < 200, 0.0, 1.0)  # whole batches of weight 0
    expected = _trained(X, Y, sample_weight=some)
    assert np.array_equal(expected[0], _trained(Stream(_of(X, Y, some)))[0])


def test_each_epoch_asks_for_its_batches() -> None:
    asked = []

    def make_batches(epoch: int) -> list[Any]:
        asked.append(epoch)
        x = np.roll(X, epoch, axis=0)
        return [(x[:150], Y[:150]), (x[150:], Y[150:])]

    stream = Stream(make_batches, n_rows=300)
    assert not asked
    rows = _trained(stream, epochs=3)[1]
    assert asked[-3:] == [0, 1, 2]
    assert rows[1]["train_loss"] != _trained(X, Y, epochs=3)[1][1]["train_loss"]
    for size in (32, None):
        net = _net()
        nn.train(net, stream, None, epochs=2, batch_size=size, shuffle=False)
        assert asked[-1] == 1


def test_an_endless_stream_is_left_after_its_rows() -> None:
    def make_batches(epoch: int) -> Iterator[Any]:
        while True:
            yield from _of(X, Y)(epoch)

    assert np.array_equal(_trained(Stream(make_batches, 300))[0], _trained(X, Y)[0])


def test_an_array_that_is_used_again_for_the_next_batch() -> None:
    def make_batches(epoch: int) -> Iterator[Any]:
        x, y = np.empty((20, 5), np.float32), np.empty(20, np.int64)
        for start in range(0, 300, 20):
            x[:], y[:] = X[start : start + 20], Y[start : start + 20]
            yield x, y

    assert np.array_equal(_trained(Stream(make_batches))[0], _trained(X, Y)[0])


@pytest.mark.parametrize("shuffle", [False, "window:64"])
def test_a_resumed_run_gives_the_same_bits(tmp_path: Path, shuffle: Any) -> None:
    expected = _trained(Stream(_of(X, Y)), shuffle=shuffle)

    class Stop(nn.Callback):
        def on_progress(self, run: Any, done: int, n: int) -> None:
            run.interrupt.requested |= run.state.epoch == 1 and done >= 5

    writer = Checkpoints(tmp_path)
    stopped = _trained(Stream(_of(X, Y)), shuffle=shuffle, callbacks=[Stop(), writer])
    assert not np.array_equal(stopped[0], expected[0])
    model, history = nn.resume(tmp_path, Stream(_of(X, Y)), None, validation=VALID)
    assert np.array_equal(model.network.theta, expected[0])
    assert history["train_loss"] == [row["train_loss"] for row in expected[1]]
    with pytest.raises(ArgumentError, match="data must be those of the run"):
        nn.resume(tmp_path, Stream(_of(X + 1, Y)), None, validation=VALID)


def test_a_model_scales_a_stream_and_knows_its_labels(tmp_path: Path) -> None:
    words = np.array(["low", "high"])[Y]
    stream = Stream(_of(10 * X + 3, words))
    model = nn.Model(_net(), scale="standard", classes=["low", "high"])
    model.fit(stream, None, epochs=30, optimizer=nn.Adam(0.01), validation=(10 * X + 3, words))
    assert model.evaluate(10 * X + 3, words)["accuracy"] > 0.9
    assert set(model.predict(X)) <= {"low", "high"}
    scaler = model.preprocessing.scaler
    assert scaler is not None
    assert np.allclose(scaler.shift, (10 * X + 3).mean(axis=0), atol=1e-4)
    model.save(tmp_path / "m.safetensors")
    model.fit(stream, None, epochs=1)  # continues
    codes = nn.Model(_net())
    codes.fit(Stream(_of(X, Y)), None, epochs=1)
    assert codes.classes == (0, 1)
    with pytest.raises(DataError, match=r"Received: 'high'. Pass Model\(..., classes"):
        nn.Model(_net()).fit(stream, None, epochs=1)


def test_targets_of_a_regression_are_scaled() -> None:
    y = 1000 + 50 * X[:, 0].astype(np.float64)
    model = nn.Model(_net(1), scale_targets=True)
    model.fit(Stream(_of(X, y)), None, epochs=20, optimizer=nn.Adam(0.01))
    assert model.evaluate(X, y)["r2"] > 0.9


def _later(change: Callable[[int, Any, Any], Any]) -> Stream:
    def make_batches(epoch: int) -> Iterator[Any]:
        for number, (x, y) in enumerate(_of(X, Y, sizes=(100,))(epoch)):
            yield change(10 * epoch + number, x, y)

    return Stream(make_batches, 300)


def _nan(x: np.ndarray) -> np.ndarray:
    return np.where(x > 2, np.nan, x)


@pytest.mark.parametrize(
    ("stream", "error", "text"),
    [
        (_later(lambda i, x, y: (x[:, : 4 if i == 1 else 5], y)), ShapeError,
         "batch 1 of epoch 0 of the stream: x must have 5 columns"),
        (_later(lambda i, x, y: (_nan(x) if i == 12 else x, y)), DataError,
         "batch 2 of epoch 1 of the stream: x must be finite"),
        (_later(lambda i, x, y: (x, y + (i == 11))), DataError,
         "batch 1 of epoch 1 of the stream: y must hold class labels"),
        (_later(lambda i, x, y: (x, y[1:] if i == 1 else y)), ShapeError,
         "batch 1 of epoch 0 of the stream: y must have one target"),
        (_later(lambda i, x, y: (x, y, y + 1.0) if i else (x, y)), DataError, "or none"),
        (_later(lambda i, x, y: (x, y, y - 1.0)), DataError, "must not be negative"),
        (_later(lambda i, x, y: x), DataError, "must be \\(x, y\\) or"),
        (_later(lambda i, x, y: (x, y) if i < 10 else (x[:9], y[:9])), DataError,
         "must have 300 rows in each epoch. Received: 27 in epoch 1"),
        (Stream(lambda epoch: 3, 5), DataError, "must return an iterable"),  # type: ignore
        (Stream(_of(X, Y), 400), DataError, "400 rows in each epoch. Received: 300"),
    ],
)  # fmt: skip
def test_bad_batches_are_named(stream: Stream, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        _trained(stream, epochs=2)


def test_an_iterator_that_is_used_up() -> None:
    batches = _of(X, Y)(0)
    stream = Stream(lambda epoch: batches, 300)
    with pytest.raises(DataError, match="a new iterable"):
        _trained(stream)
    with pytest.raises(DataError, match="Received: none in epoch 0"):
        Stream(lambda epoch: batches)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"y": Y}, "y must be None for a stream"),
        ({"sample_weight": WEIGHT}, r"Yield \(x, y, sample_weight\)"),
        ({"validation": 0.1}, "of which no rows can be held out"),
        ({"optimizer": "lbfgs"}, "L-BFGS needs all rows"),
        ({"shuffle": lambda epoch: np.arange(300)}, "Use False, or window"),
    ],
)
def test_options_that_a_stream_does_not_have(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        _trained(Stream(_of(X, Y)), **options)


@pytest.mark.parametrize(
    ("made", "text"),
    [(_of(X, Y)(0), "Pass the generator function itself"), (X, "a function of the epoch")],
)
def test_a_stream_needs_a_function(made: Any, text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        Stream(made)


def test_a_number_of_rows_is_checked() -> None:
    with pytest.raises(ArgumentError, match="n_rows must be a whole number"):
        Stream(_of(X, Y), 0)
