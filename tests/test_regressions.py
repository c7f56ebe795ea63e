"""Regression tests: fixed faults, each with the case that revealed it."""

from __future__ import annotations

import sys
import threading
import types
from typing import Any, ClassVar

import numpy as np
import pytest
from fitting import fit_model
from rows import registered

import nnbackend as nn
from nnbackend.backend import BackendSpec, Probe
from nnbackend.cli import main
from nnbackend.devices import registry
from nnbackend.errors import ArgumentError, DataError, ShapeError
from nnbackend.network.activations import get_activation
from nnbackend.testing import GhostBackend
from nnbackend.training.api import new_trainer
from nnbackend.training.config import TrainConfig
from nnbackend.training.optimizers import get_optimizer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 4))
LABELS = (X[:, 0] > 0).astype(int)
VALUES = X @ np.array([1.0, 2.0, 3.0, 4.0])


def regressor(**options: Any) -> nn.Network:
    return nn.Network([4, 5, 1], device="numpy", **options)


class CtrlC(nn.Callback):
    """A callback that raises Ctrl-C after the second epoch."""

    def on_epoch_end(self, trainer: Any, row: Any) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt


def test_a_run_continues_after_ctrl_c() -> None:
    trainer = new_trainer(regressor(), X, VALUES, TrainConfig(epochs=5), callbacks=[CtrlC()])
    assert trainer.run().stop_reason == "interrupted"
    history = trainer.run()
    assert (history.stop_reason, len(history)) == ("epochs", 5)


def test_a_trainer_runs_in_another_thread() -> None:
    trainer, errors = new_trainer(regressor(), X, VALUES, TrainConfig(epochs=1)), []

    def run() -> None:
        try:
            trainer.run()
        except ValueError as error:  # signal only works in main thread of the main interpreter
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not errors


def test_an_invalid_schedule_leaves_the_model_unchanged() -> None:
    model = nn.Model(regressor(), scale="standard")
    with pytest.raises(ArgumentError, match="a schedule must return"):
        model.fit(X, VALUES, schedule=lambda step: float("nan"))
    assert model.preprocessing.scaler is None
    with pytest.raises(ArgumentError, match="must be fitted before it is used"):
        model.predict(X)


def test_too_many_targets_for_a_target_scaler() -> None:
    net, two = nn.Network([4, 2], device="numpy"), np.stack([VALUES, VALUES], axis=1)
    model, _ = fit_model(net, X, two, scale_targets=True, epochs=1)
    with pytest.raises(ShapeError, match="20 rows"):
        model.evaluate(X, np.concatenate([VALUES, VALUES]))


@pytest.mark.parametrize(
    "options", [{"max_norm": np.float32(1.0)}, {"validation": np.float32(0.25)}], ids=str
)
def test_numpy_numbers_are_accepted(options: dict[str, Any]) -> None:
    nn.train(regressor(), X, VALUES, epochs=1, **options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Adam("0.1"),
        lambda: nn.SGD(momentum="0.9"),
        lambda: nn.Dropout("0.5"),
        lambda: nn.EarlyStopping(patience="3"),
        lambda: nn.LBFGS(memory="3"),
        lambda: nn.losses.huber("1"),
        lambda: get_optimizer(["sgd"]),
    ],
    ids=["Adam", "SGD", "Dropout", "EarlyStopping", "LBFGS", "huber", "a list"],
)
def test_numbers_of_the_wrong_type(make: Any) -> None:
    with pytest.raises(ArgumentError):
        make()


def test_patience_must_be_an_integer() -> None:
    with pytest.raises(ArgumentError, match="patience"):
        nn.EarlyStopping(patience=1.5)


def test_classes_must_be_distinct() -> None:
    with pytest.raises(ArgumentError, match="classes"):
        nn.Model(nn.Network([4, 2], "cross_entropy", device="numpy"), classes=("a", "a"))


def test_classes_keep_their_types() -> None:
    model = nn.Model(nn.Network([4, 2], "cross_entropy", device="numpy"), classes=(0, "a"))
    assert set(model.predict(X).tolist()) <= {0, "a"}


def test_a_version_that_raises_is_isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("plugin_without_version")
    module.SPEC = BackendSpec(  # type: ignore[attr-defined]
        "odd", "cpu", 1, lambda: Probe(1), lambda index: nn.get_backend("numpy"), lambda: str(1 / 0)
    )
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(registry.BUILT_IN, "odd", "plugin_without_version:SPEC")
    registry.refresh()
    try:
        assert "numpy" in {row.name for row in nn.backends()}
    finally:
        monkeypatch.undo()
        registry.refresh()


def test_rows_that_overflow_a_network_are_evaluated() -> None:
    net = regressor()
    nn.train(net, X, VALUES, validation=(X * 1e37, VALUES), epochs=1)


def test_an_exponential_that_overflows_is_evaluated() -> None:
    net = nn.Network([4, nn.Dense(1, "exponential", weights=1.0)], "poisson", device="numpy")
    assert net.evaluate(X + 1000.0, np.ones(20))["loss"] == float("inf")


def test_a_held_out_part_of_weight_zero_is_refused() -> None:
    weight = (np.arange(20) < 1).astype(float)
    with pytest.raises(DataError, match="sample_weight"):
        nn.train(regressor(), X, VALUES, validation=0.5, sample_weight=weight, epochs=1)


def test_weights_that_vanish_in_float32_are_refused() -> None:
    with pytest.raises(DataError, match="sample_weight"):
        nn.train(regressor(), X, VALUES, sample_weight=np.full(20, 1e-300), epochs=1)


def test_lbfgs_refuses_an_array_of_norms() -> None:
    with pytest.raises(ArgumentError, match="max_norm"):
        nn.train(regressor(), X, VALUES, optimizer="lbfgs", max_norm=np.array([1.0, 2.0]))


@pytest.mark.parametrize("loss", ["poisson", "binary_cross_entropy"])
def test_targets_of_a_bounded_loss_cannot_be_scaled(loss: str) -> None:
    net = nn.Network([4, 1], loss, device="numpy")
    with pytest.raises(ArgumentError, match="scale_targets"):
        fit_model(net, X, LABELS, scale_targets=True, epochs=1)


def test_relu_propagates_nan() -> None:
    assert np.isnan(get_activation("relu").value(np.array([np.nan]), np)).all()


def test_backprop_expects_targets_in_the_scale_of_the_output() -> None:
    net = regressor(activation="tanh", dtype="float64")
    fit_model(net, X, 100.0 + 50.0 * VALUES, scale_targets=True, epochs=1)
    expected = 0.5 * float(((net.feedforward(X)[:, 0] - VALUES) ** 2).mean())
    assert net.backprop(X, VALUES).loss == pytest.approx(expected)


def test_the_history_of_lbfgs_has_its_batch_size() -> None:
    history = nn.train(regressor(), X, VALUES, optimizer="lbfgs", batch_size=7, epochs=1)
    assert history.batch_size == 20


def test_accuracy_matches_predict() -> None:
    net = nn.Network([4, 3], "binary_cross_entropy", device="numpy", seed=1)
    labels = np.arange(20) % 3
    right = (net.predict(X) == np.eye(3)[labels]).all(axis=1).mean()
    assert net.evaluate(X, labels)["accuracy"] == pytest.approx(right)


class Counted(dict):  # type: ignore[type-arg]
    """A row that counts its reads."""

    reads = 0

    def __getitem__(self, key: str) -> float:
        Counted.reads += 1
        value: float = super().__getitem__(key)
        return value


def test_an_epoch_reads_a_constant_part_of_the_history() -> None:
    class Wrap(nn.Callback):
        reads: ClassVar[list[int]] = []

        def on_epoch_end(self, trainer: Any, row: Any) -> None:
            trainer.state.history.rows[-1] = Counted(row)
            self.reads.append(Counted.reads)

    nn.train(regressor(), X, VALUES, epochs=200, callbacks=[Wrap()])
    late, early = Wrap.reads[-1] - Wrap.reads[-11], Wrap.reads[20] - Wrap.reads[10]
    assert late <= early + 10


def test_a_gradient_check_accepts_host_rows_on_any_device() -> None:
    net = nn.Network([4, 5, 1], activation="tanh", device=GhostBackend())
    assert nn.check_gradients(net, X, VALUES)
    assert nn.check_gradients(net, net.backend.to_device(X), VALUES)


def test_rows_of_foreign_byte_order_are_accepted() -> None:
    nets = [regressor(), regressor()]
    histories = [
        nn.train(n, x, VALUES, epochs=2) for n, x in zip(nets, (X, X.astype(">f8")), strict=True)
    ]
    assert histories[0]["train_loss"] == histories[1]["train_loss"]


@pytest.mark.parametrize("verb", ["devices", "check"])
def test_the_self_tests_pass_on_arrays_of_other_libraries(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with registered("ghost"):
        words = [verb, "--device", "ghost"] if verb == "check" else [verb]
        assert main(words) == 0
    shown = capsys.readouterr().out
    assert "ghost" in shown
    assert "FAILED" not in shown
