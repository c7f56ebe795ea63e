"""Metrics of the validation rows as the monitored value, as scikit-learn computes them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

import nnbackend as nn
from nnbackend.cli import main
from nnbackend.errors import ArgumentError
from nnbackend.metrics import metrics_of


class Weights(nn.Callback):
    """A callback that keeps the weights of each epoch."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def on_epoch_end(self, trainer: Any, row: dict[str, float]) -> None:
        self.seen.append(trainer.net.backend.to_host(trainer.state.weights).copy())


def _trained(net: nn.Network, x: Any, y: Any, monitor: str, **options: Any) -> tuple[Any, Weights]:
    seen = Weights()
    history = nn.train(
        net, x[::2], y[::2], validation=(x[1::2], y[1::2]), epochs=12, batch_size=16,
        early_stopping=nn.EarlyStopping(12, monitor), callbacks=[seen], **options,
    )  # fmt: skip
    return history, seen


def _scaled(load: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = load(return_X_y=True)
    return (x - x.mean(axis=0)) / x.std(axis=0), y


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_the_best_epoch_by_roc_auc(loss: str) -> None:
    x, y = _scaled(load_breast_cancer)
    n_out = 2 if loss == "cross_entropy" else 1
    net = nn.Network([30, 8, n_out], loss=loss, device="numpy", seed=1)
    history, seen = _trained(net, x, y, "valid_roc_auc", optimizer=nn.Adam(0.02))
    expected = []
    for theta in seen.seen:
        p = net.outputs(x[1::2], theta=net.backend.to_device(theta))[:, -1]
        expected.append(metrics.roc_auc_score(y[1::2], p))
    assert history["valid_roc_auc"] == pytest.approx(expected, rel=1e-12)
    assert len(set(expected)) > 3
    best = int(np.argmax(expected))
    assert history.best_index == best
    assert np.array_equal(net.backend.to_host(net.theta), seen.seen[best])


def test_averaged_weights_are_those_measured() -> None:
    x, y = _scaled(load_iris)
    net = nn.Network([4, 8, 3], loss="cross_entropy", device="numpy")
    history, seen = _trained(net, x, y, "valid_f1", ema=0.9)
    labels = net.outputs(x[1::2], theta=net.backend.to_device(seen.seen[3])).argmax(axis=1)
    expected = metrics.f1_score(y[1::2], labels, average="macro", zero_division=0)
    assert history["valid_f1"][3] == pytest.approx(expected)


def test_values_are_measured_in_their_units() -> None:
    x, y = _scaled(load_diabetes)
    model = nn.Model(nn.Network([10, 8, 1], device="numpy"), scale_targets=True)
    history = model.fit(
        x[::2], y[::2], validation=(x[1::2], y[1::2]), epochs=20,
        early_stopping=nn.EarlyStopping(20, "valid_mae"),
    )  # fmt: skip
    expected = metrics.mean_absolute_error(y[1::2], model.predict(x[1::2]))
    assert min(history["valid_mae"]) == pytest.approx(expected, rel=1e-5)
    assert history.best["valid_mae"] == min(history["valid_mae"])


def test_the_loss_of_a_quantile() -> None:
    x, y = _scaled(load_diabetes)
    net = nn.Network([10, 8, 1], loss=nn.losses.quantile(0.9), device="numpy")
    history, seen = _trained(net, x, y, "valid_pinball:0.9", optimizer=nn.Adam(0.5))
    expected = [
        metrics.mean_pinball_loss(
            y[1::2], net.outputs(x[1::2], theta=net.backend.to_device(theta))[:, 0], alpha=0.9
        )
        for theta in seen.seen
    ]
    assert history["valid_pinball:0.9"] == pytest.approx(expected, rel=1e-6)
    assert history.best_index == int(np.argmin(expected))
    for wrong in ("pinball:2", "pinball:x"):
        with pytest.raises(ArgumentError, match="pinball:Q with Q between 0 and 1"):
            metrics_of(y, y, 0, [wrong])


@pytest.mark.parametrize(
    ("layers", "loss", "activation", "monitor", "text"),
    [
        ([4, 3], "cross_entropy", "softmax", "roc_auc", "Did you mean 'valid_roc_auc'"),
        ([4, 3], "cross_entropy", "softmax", "valid_mae", "a column of the history"),
        ([4, 1], "quadratic", "identity", "valid_f1", "a column of the history"),
        ([4, 3], "quadratic", "identity", "valid_f1", "a column of the history"),
    ],
)
def test_metrics_that_do_not_suit(
    layers: list[int], loss: str, activation: str, monitor: str, text: str
) -> None:
    net = nn.Network([*layers[:-1], nn.Dense(layers[-1], activation)], loss=loss, device="numpy")
    x, y = load_iris(return_X_y=True)
    with pytest.raises(ArgumentError, match=text):
        nn.train(net, x, y, validation=0.2, early_stopping=nn.EarlyStopping(3, monitor))


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--monitor roc_auc selects the epoch, also after a resume, and is drawn."""
    out = tmp_path / "run"
    words = f"train breast_cancer --hidden 8 --epochs 3 --device numpy --out {out}"
    assert main([*words.split(), "--monitor", "roc_auc"]) == 0
    assert "valid roc_auc" in capsys.readouterr().err
    assert main(["train", "--resume", str(out), "--epochs", "6"]) == 0
    with (out / "history.csv").open() as file:
        column = [float(row["valid_roc_auc"]) for row in csv.DictReader(file)]
    assert len(column) == 6
    found = capsys.readouterr().out.split()
    assert int(found[found.index("best_epoch") + 1]) == int(np.argmax(column)) + 1
    assert 'monitor = "valid_roc_auc"' in (out / "config.toml").read_text()
