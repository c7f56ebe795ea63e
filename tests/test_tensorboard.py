"""Event files for TensorBoard have the figures of the history."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import ArgumentError

X = np.random.default_rng(0).normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)


def _events(folder: Path) -> list[Any]:
    """Return the events of all files: each is a length, a checksum, the event, a checksum."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for path in sorted(folder.glob("events*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (n,) = struct.unpack("<Q", content[at : at + 8])
            found.append(event_pb2.Event.FromString(content[at + 12 : at + 12 + n]))
            at += 16 + n
    return found


def _train(folder: Path, **options: Any) -> nn.History:
    net = nn.Network([3, 4, 2], "cross_entropy", device="numpy")
    writer = nn.TensorBoard(folder, **options)
    return nn.train(net, X, Y, epochs=3, validation=0.25, callbacks=[writer])


def test_scalars_are_those_of_the_history(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="the extra tensorboard is not installed")
    history = _train(tmp_path / "logs")
    found: dict[str, dict[int, float]] = {}
    for event in _events(tmp_path / "logs"):
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
    names = {"train_loss": "loss/train", "valid_loss": "loss/valid",
             "valid_accuracy": "accuracy/valid", "learning_rate": "learning_rate",
             "seconds": "seconds"}  # fmt: skip
    assert found.keys() == set(names.values())
    for column, tag in names.items():
        assert list(found[tag]) == [1, 2, 3]
        assert list(found[tag].values()) == pytest.approx(history[column], rel=1e-6)


def test_histograms_of_each_layer(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="the extra tensorboard is not installed")
    _train(tmp_path / "logs", histograms=True)
    counts = {
        (value.tag, event.step): value.histo.num
        for event in _events(tmp_path / "logs")
        for value in event.summary.value
        if value.HasField("histo")
    }
    assert counts["weights/layer_2", 3] == 12
    assert counts["biases/layer_3", 1] == 2
    assert len(counts) == 4 * 3


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ArgumentError, match=r'pip install "nnbackend\[tensorboard\]"'):
        _train(tmp_path / "logs")
    assert not (tmp_path / "logs").exists()
