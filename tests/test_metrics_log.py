"""The log of metrics has the history's rows, as they come, in both formats."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.errors import ArgumentError
from nnbackend.persistence.metrics_log import MetricsLog

X = np.random.default_rng(0).normal(size=(40, 3))
Y = (X[:, 0] > 0).astype(int)


def _read(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    rows = csv.DictReader(text.splitlines())
    return [{name: float(value) for name, value in row.items()} for row in rows]


class Reader(nn.Callback):
    """Reads the file after each epoch, as another program would."""

    def __init__(self, path: Path) -> None:
        self.path, self.lengths = path, []

    def on_epoch_end(self, trainer: Any, row: Any) -> None:
        self.lengths.append(len(_read(self.path)))


def _train(*callbacks: nn.Callback, epochs: int = 3) -> nn.History:
    net = nn.Network([3, 4, 2], "cross_entropy", device="numpy")
    return nn.train(net, X, Y, epochs=epochs, validation=0.25, callbacks=list(callbacks))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_the_file_has_each_epoch_as_it_ends(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "logs" / f"metrics{suffix}"
    reader = Reader(path)
    history = _train(MetricsLog(path), reader)
    assert _read(path) == history.rows
    assert reader.lengths == [1, 2, 3]
    again = _train(MetricsLog(path), epochs=1)
    assert _read(path) == again.rows


def test_a_resumed_run_has_all_epochs_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    _train(MetricsLog(path), nn.Checkpoints(tmp_path / "points", epochs=1), epochs=2)
    path.write_text("unfinished", encoding="utf-8")
    _, history = nn.resume(
        tmp_path / "points", X, Y, validation=0.25, epochs=4, callbacks=[MetricsLog(path)]
    )
    assert [row["epoch"] for row in _read(path)] == [1, 2, 3, 4]
    assert _read(path) == history.rows


def test_values_without_a_number_in_json_are_null(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "m.jsonl")
    for value in (math.inf, math.nan):
        log.on_epoch_end(None, {"epoch": 1, "train_loss": value})  # type: ignore[arg-type]
    assert [row["train_loss"] for row in _read(log.path)] == [None, None]


def test_another_suffix_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"\.csv or \.jsonl\. Received: path='metrics\.txt'"):
        MetricsLog("metrics.txt")
