"""The history of a run: columns, best epoch, CSV, early stopping."""

from __future__ import annotations

import copy
import csv
import io
import pickle

import pytest

import nnbackend as nn
from nnbackend.errors import ArgumentError

NAN = float("nan")


def history(*values: float, monitor: str = "valid_loss") -> nn.History:
    return nn.History(monitor, [{"epoch": i, monitor: v} for i, v in enumerate(values, start=1)])


def test_columns_rows_and_length() -> None:
    h = history(3.0, 1.0, 2.0)
    assert h["valid_loss"] == [3.0, 1.0, 2.0]
    assert h["epoch"] == [1, 2, 3]
    assert len(h) == 3
    assert [row["epoch"] for row in h] == [1, 2, 3]


def test_an_unknown_column_suggests_the_closest() -> None:
    with pytest.raises(ArgumentError, match=r"no column 'valid_los'.*Did you mean 'valid_loss'"):
        history(1.0)["valid_los"]


@pytest.mark.parametrize(
    ("values", "epoch"),
    [
        ((3.0, 1.0, 2.0), 2),
        ((1.0, 1.0, 1.0), 1),  # the first of equals
        ((NAN, 2.0, 3.0), 2),  # never NaN
        ((2.0, NAN, float("-inf"), 1.0), 4),
    ],
)
def test_the_best_epoch(values: tuple[float, ...], epoch: int) -> None:
    assert history(*values).best["epoch"] == epoch
    assert history(*values).best_index == epoch - 1


@pytest.mark.parametrize("monitor", ["valid_accuracy", "valid_r2", "valid_roc_auc", "valid_f1"])
def test_the_largest_score_is_best(monitor: str) -> None:
    h = history(0.5, 0.9, 0.7, monitor=monitor)
    assert h.best["epoch"] == 2
    assert list(h.costs) == [-0.5, -0.9, -0.7]


def test_an_empty_history_has_no_best() -> None:
    with pytest.raises(ArgumentError, match="history is empty: no epoch has ended yet"):
        _ = history().best


def test_csv() -> None:
    file = io.StringIO()
    history(0.1, 1 / 3).write_csv(file)
    lines = file.getvalue().splitlines()
    assert lines[0] == "epoch,valid_loss"
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert [float(row["valid_loss"]) for row in rows] == [0.1, 1 / 3]  # to the last bit
    assert "\r" not in file.getvalue()
    empty = io.StringIO()
    history().write_csv(empty)
    assert empty.getvalue() == "epoch\n"


def test_histories_can_be_pickled() -> None:
    h = history(3.0, 1.0)
    h.stop_reason = "callback"
    assert pickle.loads(pickle.dumps(h)) == h == copy.deepcopy(h)


@pytest.mark.parametrize(
    ("values", "stops"),
    [
        ((), False),
        ((1.0,), False),
        ((3.0, 2.0, 1.0), False),
        ((1.0, 2.0), False),
        ((1.0, 2.0, 3.0), True),
        ((1.0, 1.0, 1.0), True),  # an equal value is no improvement
        ((5.0, 6.0, 4.0, 5.0), False),  # the count restarts
        ((5.0, 6.0, 4.0, 5.0, 5.0), True),
        ((NAN, NAN), True),
        ((NAN, 1.0, NAN), False),
    ],
)
def test_early_stopping_is_a_function_of_the_history(
    values: tuple[float, ...], stops: bool
) -> None:
    assert nn.EarlyStopping(patience=2).should_stop(history(*values)) is stops


def test_an_improvement_below_min_delta_does_not_count() -> None:
    stopping = nn.EarlyStopping(patience=2, min_delta=0.5)
    assert stopping.should_stop(history(3.0, 2.8, 2.6))
    assert not stopping.should_stop(history(3.0, 2.8, 2.4))
