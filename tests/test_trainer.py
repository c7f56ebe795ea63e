"""Training as a whole: results, stopping, guarantees about weights and seeds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fitting import fit_model
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import Ridge
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPRegressor

import nnbackend as nn
from nnbackend.errors import ArgumentError, DataError, DivergedError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4))
Y = X @ np.array([1.0, -2.0, 0.5, 0.0]) + 0.3
LABELS = (X[:, 0] + X[:, 1] > 0).astype(int)
ROOT = Path(__file__).resolve().parent.parent


def regressor(**options: Any) -> nn.Network:
    options = {"activation": "tanh", "dtype": "float64", "seed": 1, **options}
    return nn.Network([4, 6, 1], device="numpy", **options)


def classifier(layers: Any = (4, 6, 2), **options: Any) -> nn.Network:
    return nn.Network(list(layers), "cross_entropy", device="numpy", **{"seed": 1, **options})


def figures(history: nn.History) -> list[dict[str, float]]:
    """Return the rows without the time measurement."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


class Recorder(nn.Callback):
    """A callback that records every call, and the weights after each epoch."""

    def __init__(self, name: str = "", log: list[Any] | None = None, stop_at: int = 0) -> None:
        self.name, self.log, self.stop_at = name, [] if log is None else log, stop_at
        self.weights: list[np.ndarray] = []

    def on_train_begin(self, trainer: Any) -> None:
        self.log.append((self.name, "begin"))

    def on_progress(self, trainer: Any, step: int, n_steps: int) -> None:
        self.log.append((self.name, "progress", step, n_steps))

    def on_epoch_end(self, trainer: Any, row: Any) -> bool:
        self.log.append((self.name, "epoch", row["epoch"]))
        self.weights.append(trainer.net.theta.copy())
        return row["epoch"] == self.stop_at

    def on_train_end(self, trainer: Any) -> None:
        self.log.append((self.name, "end"))


# ---- reproducibility --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_seed_determines_the_result_bit_for_bit(dtype: str) -> None:
    def run(seed: int) -> tuple[bytes, Any]:
        net = classifier([4, 8, nn.Dropout(0.4), 5, 2], dtype=dtype)
        history = nn.train(net, X, LABELS, epochs=3, batch_size=7, validation=0.25, seed=seed)
        return net.theta.tobytes(), figures(history)

    assert run(3) == run(3)
    assert run(3)[0] != run(4)[0]


def test_the_seed_of_training_is_independent_of_the_networks() -> None:
    net, other = regressor(seed=1), regressor(seed=2)
    other.theta[:] = net.theta
    for n in (net, other):
        nn.train(n, X, Y, epochs=2, batch_size=8, seed=5)
    np.testing.assert_array_equal(net.theta, other.theta)


def test_data_is_not_modified() -> None:
    x, y, weight = X.copy(), Y.copy(), np.ones(60)
    for array in (x, y, weight):
        array.flags.writeable = False
    fit_model(regressor(), x, y, epochs=2, batch_size=9, sample_weight=weight, scale="robust",
              scale_targets=True, validation=(x, y, weight))  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_of_weight_k_equals_k_copies(dtype: str) -> None:
    times = RNG.integers(0, 4, size=60)
    nets = [regressor(dtype=dtype), regressor(dtype=dtype)]
    options: dict[str, Any] = {"epochs": 20, "batch_size": None, "optimizer": nn.SGD(0.1, 0.9)}
    one = nn.train(nets[0], X, Y, sample_weight=times, **options)
    two = nn.train(nets[1], np.repeat(X, times, axis=0), np.repeat(Y, times), **options)
    tolerance = 1e-11 if dtype == "float64" else 1e-4
    np.testing.assert_allclose(nets[0].theta, nets[1].theta, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(one["train_loss"], two["train_loss"], rtol=tolerance)


def test_a_full_batch_does_not_depend_on_the_order() -> None:
    nets = [regressor(), regressor()]
    nn.train(nets[0], X, Y, epochs=5, batch_size=None)
    nn.train(nets[1], X[::-1], Y[::-1], epochs=5, batch_size=60, shuffle=False)
    np.testing.assert_allclose(nets[0].theta, nets[1].theta, rtol=1e-9, atol=1e-12)


def test_float32_follows_float64() -> None:
    nets = [regressor(dtype=dtype) for dtype in ("float32", "float64")]
    for net in nets:
        nn.train(net, X.astype(np.float32), Y.astype(np.float32), epochs=5, batch_size=10)
    np.testing.assert_allclose(nets[0].theta, nets[1].theta, atol=2e-6)


# ---- history and validation -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "y", "validation", "columns"),
    [
        (regressor, Y, None, []),
        (regressor, Y, 0.2, ["valid_loss", "valid_r2"]),
        (classifier, LABELS, 0.2, ["valid_loss", "valid_accuracy"]),
        (classifier, LABELS, (X, LABELS), ["valid_loss", "valid_accuracy"]),
    ],
)
def test_columns(net: Any, y: Any, validation: Any, columns: list[str]) -> None:
    history = nn.train(net(), X, y, epochs=3, batch_size=16, validation=validation)
    assert list(history.rows[0]) == ["epoch", "train_loss", *columns, "learning_rate", "seconds"]
    assert history["epoch"] == [1, 2, 3]
    assert history.stop_reason == "epochs"
    assert all(np.isfinite(list(row.values())).all() for row in history)
    assert history["learning_rate"] == [1e-3] * 3
    assert min(history["seconds"]) > 0


@pytest.mark.parametrize("weight", [None, RNG.random(20)], ids=["alike", "weighted"])
def test_validation_metrics_equal_those_of_evaluate(weight: np.ndarray | None) -> None:
    train, valid = slice(0, 40), slice(40, 60)
    given = (X[valid], LABELS[valid]) + (() if weight is None else (weight,))
    net = classifier()
    history = nn.train(net, X[train], LABELS[train], epochs=2, validation=given)
    figures = net.evaluate(X[valid], LABELS[valid], weight)
    assert history["valid_loss"][-1] == pytest.approx(figures["loss"], rel=1e-12)
    assert history["valid_accuracy"][-1] == figures["accuracy"]


def test_validation_does_not_change_training() -> None:
    nets = [regressor(), regressor()]
    nn.train(nets[0], X[:40], Y[:40], epochs=3, batch_size=8)
    nn.train(nets[1], X[:40], Y[:40], epochs=3, batch_size=8, validation=(X[40:], Y[40:]))
    np.testing.assert_array_equal(nets[0].theta, nets[1].theta)


class Rows(nn.Callback):
    """A callback that records the validation rows, identified by their first column."""

    def on_train_begin(self, trainer: Any) -> None:
        self.validation = trainer.data.validation[0][:, 0].astype(int)


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 1e-9, 0.999])
@pytest.mark.parametrize("labels", [True, False])
def test_a_fraction_is_held_out_and_nothing_leaks(fraction: float, labels: bool) -> None:
    n = 40
    x = np.arange(float(n))[:, None]
    y = (np.arange(n) % 4 == 0).astype(int) if labels else np.arange(n) / n
    trained: list[np.ndarray] = []

    def note(z: np.ndarray) -> np.ndarray:
        trained.append(z[:, 0].copy())
        return z

    spy = nn.Dense(1, nn.Activation("spy", note, np.ones_like), weights=1.0)
    rows = Rows()
    net = nn.Network([1, spy, nn.Dense(2, "softmax") if labels else 1], device="numpy",
                     dtype="float64")  # fmt: skip
    trained.clear()  # the network has tested the activation
    nn.train(net, x, y, epochs=1, batch_size=3, validation=fraction, callbacks=[rows],
             optimizer=nn.SGD(1e-30))  # fmt: skip
    held = rows.validation
    seen = np.concatenate(trained).round().astype(int)
    # The last passes are those of the validation.
    assert set(seen[-len(held) :]) == set(held)
    learnt = seen[: -len(held)]
    assert sorted([*learnt, *held]) == list(range(n))
    assert len(held) == min(max(round(fraction * n), 1), n - 1)
    if labels and 0.01 < fraction < 0.99:  # 10 of class 1, 30 of class 0
        assert abs(y[held].sum() - 10 * fraction) <= 1


@pytest.mark.parametrize("labels", [True, False])
def test_the_split_depends_only_on_the_seed(labels: bool) -> None:
    def held(seed: int, epochs: int) -> list[int]:
        rows, x = Rows(), np.arange(30.0)[:, None]
        net = nn.Network([1, nn.Dense(2, "softmax") if labels else 1], device="numpy")
        nn.train(net, x, np.arange(30) % 2 if labels else x[:, 0], epochs=epochs, validation=0.3,
                 callbacks=[rows], seed=seed, optimizer=nn.SGD(1e-9))  # fmt: skip
        return rows.validation.tolist()

    assert held(0, 1) == held(0, 3)
    assert held(0, 1) != held(1, 1)


def test_weights_are_split_with_their_rows() -> None:
    class Look(nn.Callback):
        def on_train_begin(self, trainer: Any) -> None:
            x, y, weight = trainer.data.validation
            np.testing.assert_allclose(weight, x[:, 0])
            np.testing.assert_allclose(y[:, 0], x[:, 0])
            self.looked = True

    look, x = Look(), np.arange(1.0, 31.0)
    nn.train(nn.Network([1, 1], device="numpy", dtype="float64"), x[:, None], x, sample_weight=x,
             validation=0.3, epochs=1, callbacks=[look], optimizer=nn.SGD(1e-9))  # fmt: skip
    assert look.looked


def test_the_scaler_is_fitted_only_on_the_training_rows() -> None:
    rows, net = Rows(), nn.Network([1, 1], device="numpy", dtype="float64")
    x = np.arange(40.0)[:, None] ** 2
    x[:, 0] = np.arange(40.0)
    model, _ = fit_model(net, x, x[:, 0], validation=0.4, scale="standard", scale_targets=True,
                         epochs=1, callbacks=[rows])  # fmt: skip
    known = model.preprocessing
    assert known.scaler is not None
    assert known.target_scaler is not None
    learnt = np.setdiff1d(np.arange(40.0), rows.validation)
    assert known.scaler.shift[0] == pytest.approx(learnt.mean(), rel=1e-12)
    assert 1 / known.scaler.factor[0] == pytest.approx(learnt.std(), rel=1e-12)
    assert known.target_scaler.shift[0] == pytest.approx(learnt.mean(), rel=1e-12)
    assert abs(learnt.mean() - 19.5) > 1e-3  # all rows together have another mean


def test_a_scaler_can_be_passed() -> None:
    scaler = nn.data.fit_scaler("unit", X)
    model, _ = fit_model(regressor(), X, Y, epochs=1, scale=scaler)
    assert model.preprocessing.scaler is scaler


def test_scaling_in_training_equals_scaling_before() -> None:
    x = X * [1, 10, 100, 1000] + 7
    nets = [regressor(), regressor()]
    fit_model(nets[0], x, Y, epochs=3, batch_size=8, scale="standard")
    nn.train(nets[1], (x - x.mean(axis=0)) / x.std(axis=0), Y, epochs=3, batch_size=8)
    np.testing.assert_allclose(nets[0].theta, nets[1].theta, rtol=1e-9, atol=1e-12)


# ---- stopping ---------------------------------------------------------------------------------


class Script(nn.Callback):
    """A callback that sets the weights after every epoch, and so the monitored value."""

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def on_train_begin(self, trainer: Any) -> None:
        trainer.net.theta[:] = self.values[0]

    def on_epoch_end(self, trainer: Any, row: Any) -> None:
        trainer.net.theta[:] = self.values[min(int(row["epoch"]), len(self.values) - 1)]


def scripted(values: list[float], stopping: nn.EarlyStopping | None, epochs: int = 20) -> Any:
    """Train a net whose output is its bias: the valid_loss of epoch k is values[k-1]^2 / 2."""
    net = nn.Network([1, nn.Dense(1, "identity", weights=0.0)], device="numpy", dtype="float64")
    history = nn.train(net, [[0.0]], [0.0], validation=([[0.0]], [0.0]), epochs=epochs,
                       optimizer=nn.SGD(1e-30), callbacks=[Script(values)],
                       early_stopping=stopping)  # fmt: skip
    return net, history


def test_early_stopping_on_a_scripted_run() -> None:
    net, history = scripted([5, 4, 3, 3, 4, 2, 6, 6, 6, 6, 1], nn.EarlyStopping(patience=3))
    # Best at epoch 6 (value 2), then three epochs without a fall.
    assert history.stop_reason == "early stopping"
    assert len(history) == 9
    assert history.best["epoch"] == 6
    assert history["valid_loss"] == pytest.approx([12.5, 8, 4.5, 4.5, 8, 2, 18, 18, 18])
    assert net.biases[0][0] == pytest.approx(2.0)


def test_without_restore_best_the_last_weights_stay() -> None:
    stopping = nn.EarlyStopping(patience=2, restore_best=False)
    net, history = scripted([5, 4, 6, 7, 8], stopping)
    assert len(history) == 4
    assert net.biases[0][0] == pytest.approx(8.0)  # what the script set after epoch 4


def test_the_best_weights_are_restored_after_the_last_epoch_too() -> None:
    net, history = scripted([5, 2, 6, 7, 8], nn.EarlyStopping(patience=10), epochs=4)
    assert history.stop_reason == "epochs"
    assert net.biases[0][0] == pytest.approx(2.0)


def test_the_first_of_equals_is_the_best() -> None:
    _, history = scripted([5, 2, 2, 2], nn.EarlyStopping(patience=2))
    assert (history.best["epoch"], len(history)) == (2, 4)


def test_min_delta_requires_a_larger_improvement() -> None:
    # Losses 12.5, 12.005, 11.52: decreasing, but by less than 1 from the best.
    _, history = scripted([5, 4.9, 4.8, 1], nn.EarlyStopping(patience=2, min_delta=1.0))
    assert len(history) == 3
    assert history.best["epoch"] == 3


def test_a_larger_accuracy_is_better() -> None:
    """Training that monitors valid_accuracy stops when it has not increased."""

    class Turn(nn.Callback):
        shares = (0.5, 0.75, 1.0, 0.75, 0.75, 0.75)

        def on_train_begin(self, trainer: Any) -> None:
            self.set(trainer, 0)

        def on_epoch_end(self, trainer: Any, row: Any) -> None:
            self.set(trainer, int(row["epoch"]))

        def set(self, trainer: Any, epoch: int) -> None:
            # Class 1 where x > bias; the rows are 1, 2, 3, 4 and all of class 1.
            trainer.net.theta[:] = [0.0, 1.0, 4.0 * (1 - self.shares[epoch]) + 0.5, 0.0]

    net = classifier([1, 2], dtype="float64")
    x, y = np.arange(1.0, 5.0)[:, None], np.ones(4, dtype=int)
    stopping = nn.EarlyStopping(patience=2, monitor="valid_accuracy")
    history = nn.train(net, x, y, validation=(x, y), epochs=6, optimizer=nn.SGD(1e-30),
                       callbacks=[Turn()], early_stopping=stopping)  # fmt: skip
    assert history["valid_accuracy"] == [0.5, 0.75, 1.0, 0.75, 0.75]
    assert history.stop_reason == "early stopping"
    assert net.evaluate(x, y)["accuracy"] == 1.0


def test_without_validation_the_training_loss_is_monitored() -> None:
    net = regressor()
    history = nn.train(net, X, Y, epochs=300, optimizer=nn.SGD(0.01), batch_size=None,
                       early_stopping=nn.EarlyStopping(patience=2, min_delta=0.05))  # fmt: skip
    assert history.monitor == "train_loss"
    assert history.stop_reason == "early stopping"


@pytest.mark.parametrize(
    ("stopping", "validation", "text"),
    [
        (
            {"monitor": "valid_loss"},
            None,
            r"monitor must be a column.*'valid_loss'.*Pass validation",
        ),
        ({"monitor": "valid_acuracy"}, 0.2, "Did you mean 'valid_accuracy'"),
        ({"monitor": "valid_r2"}, 0.2, "monitor must be a column of the history"),
    ],
)
def test_a_monitor_must_be_a_column(stopping: Any, validation: Any, text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        nn.train(classifier(), X, LABELS, validation=validation,
                 early_stopping=nn.EarlyStopping(**stopping))  # fmt: skip


@pytest.mark.parametrize("options", [{"patience": 0}, {"patience": -1}, {"min_delta": -0.1}])
def test_patience_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=r"must be a (whole )?number, at least"):
        nn.EarlyStopping(**options)


# ---- callbacks --------------------------------------------------------------------------------


def test_callbacks_are_called_in_order() -> None:
    log: list[Any] = []
    nn.train(regressor(), X, Y, epochs=2, batch_size=60,
             callbacks=[Recorder("a", log), Recorder("b", log)])  # fmt: skip
    epoch = [("a", "progress", 1, 1), ("b", "progress", 1, 1)]
    assert log == [
        ("a", "begin"), ("b", "begin"),
        *epoch, ("a", "epoch", 1), ("b", "epoch", 1),
        *epoch, ("a", "epoch", 2), ("b", "epoch", 2),
        ("a", "end"), ("b", "end"),
    ]  # fmt: skip


def test_a_callback_ends_training_after_all_callbacks_of_the_epoch() -> None:
    log: list[Any] = []
    history = nn.train(regressor(), X, Y, epochs=9,
                       callbacks=[Recorder("a", log, stop_at=3), Recorder("b", log)])  # fmt: skip
    assert history.stop_reason == "callback"
    assert len(history) == 3
    assert log[-4:] == [("a", "epoch", 3), ("b", "epoch", 3), ("a", "end"), ("b", "end")]


@pytest.mark.parametrize("size", [1, 7])
def test_progress_counts_up_to_the_last_step(size: int) -> None:
    recorder = Recorder()
    nn.train(regressor(), X, Y, epochs=2, batch_size=size, callbacks=[recorder])
    total, steps = -(-60 // size), [e[2:] for e in recorder.log if e[1] == "progress"]
    assert {n for _, n in steps} == {total}
    assert [s for s, _ in steps].count(total) == 2
    half = steps[: steps.index((total, total)) + 1]
    assert half == sorted(set(half))


def test_an_error_in_a_callback_propagates() -> None:
    class Broken(nn.Callback):
        def on_epoch_end(self, trainer: Any, row: Any) -> bool:
            raise ZeroDivisionError("mine")

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError, match="mine"):
        nn.train(regressor(), X, Y, epochs=2, callbacks=[Broken()])
    assert signal.getsignal(signal.SIGINT) is handler


# ---- interruption -----------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["on_epoch_end", "on_progress"])
def test_ctrl_c_from_a_callback_leaves_consistent_weights(moment: str) -> None:
    class Impatient(Recorder):
        def on_epoch_end(self, trainer: Any, row: Any) -> bool:
            super().on_epoch_end(trainer, row)
            if moment == "on_epoch_end" and row["epoch"] == 2:
                raise KeyboardInterrupt
            return False

        def on_progress(self, trainer: Any, step: int, n_steps: int) -> None:
            if moment == "on_progress" and trainer.state.epoch == 2:
                self.cut = trainer.net.theta.copy()
                raise KeyboardInterrupt

    callback, net = Impatient(), regressor()
    history = nn.train(net, X, Y, epochs=10, batch_size=10, callbacks=[callback])
    assert history.stop_reason == "interrupted"
    assert len(history) == 2
    assert callback.log[-1] == ("", "end")
    expected = callback.weights[-1] if moment == "on_epoch_end" else callback.cut
    np.testing.assert_array_equal(net.theta, expected)


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_ctrl_c_ends_after_the_current_step_and_restores_the_handler() -> None:
    handler = signal.getsignal(signal.SIGINT)
    inside = []

    class Interrupt(nn.Callback):
        def on_progress(self, trainer: Any, step: int, n_steps: int) -> None:
            inside.append(signal.getsignal(signal.SIGINT))
            if trainer.state.epoch == 1:
                os.kill(os.getpid(), signal.SIGINT)

    history = nn.train(regressor(), X, Y, epochs=5, batch_size=60, callbacks=[Interrupt()])
    assert history.stop_reason == "interrupted"
    assert len(history) == 1
    assert inside[0] is not handler
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_programs_signal_handler_is_not_replaced() -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: got.append(number))
    try:

        class Interrupt(nn.Callback):
            def on_epoch_end(self, trainer: Any, row: Any) -> None:
                os.kill(os.getpid(), signal.SIGINT)

        history = nn.train(regressor(), X, Y, epochs=2, callbacks=[Interrupt()])
    finally:
        signal.signal(signal.SIGINT, before)
    assert history.stop_reason == "epochs"
    assert got == [signal.SIGINT] * 2


INTERRUPTED = """
import signal
import numpy as np
import nnbackend as nn

signal.signal(signal.SIGINT, signal.default_int_handler)

class Ready(nn.Callback):
    def on_progress(self, trainer, step, n_steps):
        if trainer.state.epoch == 1:
            print("ready", flush=True)

x = np.random.default_rng(0).normal(size=(4000, 20))
net = nn.Network([20, 50, 1], device="numpy")
history = nn.train(net, x, x[:, 0], epochs=100_000, batch_size=20, callbacks=[Ready()], {options})
print(history.stop_reason, len(history) >= 1, bool(np.isfinite(net.theta).all()),
      net.evaluate(x, x[:, 0])["loss"] < history["train_loss"][0])
"""


@pytest.mark.parametrize("options", ["", "ema=0.9", "early_stopping=nn.EarlyStopping(10**6)"])
def test_a_real_ctrl_c_in_a_separate_process(options: str) -> None:
    program = textwrap.dedent(INTERRUPTED).format(options=options)
    path = os.pathsep.join([str(ROOT), str(ROOT / "backends")])
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == "interrupted True True True"
    assert err == ""


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_training_outside_the_main_thread() -> None:
    """Python delivers no signals to other threads; concurrent runs do not affect each other."""

    def run(seed: int, ends: dict[int, np.ndarray]) -> None:
        net = classifier([4, 30, nn.Dropout(0.3), 20, 2], seed=seed)
        nn.train(net, X, LABELS, epochs=15, batch_size=8, seed=seed, l2=1e-3)
        ends[seed] = net.theta.copy()

    alone: dict[int, np.ndarray] = {}
    together: dict[int, np.ndarray] = {}
    for seed in range(4):
        run(seed, alone)
    threads = [threading.Thread(target=run, args=(seed, together)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(together) == [0, 1, 2, 3]
    for seed in range(4):
        np.testing.assert_array_equal(together[seed], alone[seed])


# ---- divergence -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, None])
@pytest.mark.parametrize(
    "rule", [nn.SGD(1e6), nn.SGD(1e6, momentum=0.9), nn.SGD(1e6, 0.9, nesterov=True)], ids=str
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_divergence_raises_diverged_error(rule: Any, size: int | None, dtype: str) -> None:
    net = nn.Network([4, 5, 1], device="numpy", dtype=dtype)
    before = net.theta.copy()
    with pytest.raises(DivergedError, match=r"training diverged in epoch \d+: .*the beginning|"
                       r"training diverged in epoch \d+: .*weights of epoch \d+"):  # fmt: skip
        nn.train(net, X, 1e3 * Y, optimizer=rule, epochs=200, batch_size=size)
    assert np.isfinite(net.theta).all()
    if size == 4:  # in the first epoch, so that the initial weights are restored
        np.testing.assert_array_equal(net.theta, before)


def test_divergence_restores_the_best_weights_and_suggests_cures() -> None:
    class Explode(Recorder):
        def on_epoch_end(self, trainer: Any, row: Any) -> bool:
            super().on_epoch_end(trainer, row)
            if row["epoch"] == 3:
                trainer.net.theta[:] = 1e300
            return False

    net, callback = regressor(activation="relu"), Explode()
    with pytest.raises(DivergedError) as caught:
        nn.train(net, X, Y, epochs=9, batch_size=10, optimizer=nn.SGD(0.01), callbacks=[callback])
    np.testing.assert_array_equal(net.theta, callback.weights[2])
    text = str(caught.value)
    for words in ("diverged in epoch 4", "weights of epoch 3", "smaller learning rate than 0.01",
                  "scale='standard'", "clip_norm"):  # fmt: skip
        assert words in text
    assert isinstance(caught.value, ArithmeticError)


def test_lbfgs_from_infinite_outputs_raises_diverged_error() -> None:
    net = regressor(activation="relu")
    net.theta[:] = 1e200
    with pytest.raises(DivergedError):
        nn.train(net, X, Y, epochs=9, optimizer="lbfgs")


# ---- regularisation ---------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["lbfgs", nn.SGD(0.2, momentum=0.9)], ids=str)
def test_l2_on_a_linear_network_is_ridge_regression(optimizer: Any) -> None:
    """1/2n |Xw - y|^2 + l2/2 |w|^2 is scikit-learn's ridge with alpha = n l2; b is free."""
    net = nn.Network([4, 1], device="numpy", dtype="float64")
    nn.train(net, X, Y, optimizer=optimizer, epochs=600, batch_size=None, l2=0.3)
    ridge = Ridge(alpha=60 * 0.3).fit(X, Y)
    np.testing.assert_allclose(net.weights[0][:, 0], ridge.coef_, atol=1e-5)
    assert net.biases[0][0] == pytest.approx(ridge.intercept_, abs=1e-5)


def test_l1_drives_useless_weights_to_zero() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 10))
    y = 2.0 * x[:, 0] - x[:, 1] + 0.05 * rng.normal(size=200)
    nets = {l1: nn.Network([10, 1], device="numpy", dtype="float64") for l1 in (0.0, 0.1)}
    for l1, net in nets.items():
        nn.train(net, x, y, optimizer=nn.SGD(0.01), epochs=400, batch_size=None, l1=l1)
    plain, sparse = (np.abs(net.weights[0][:, 0]) for net in nets.values())
    # Subgradients oscillate within one step of l1 * lr around 0; the plain fit stays away from it.
    assert sparse[2:].max() <= 0.1 * 0.01 * 1.5
    assert plain[2:].max() > 2e-3
    # With nearly independent columns the others shrink by l1, as in soft thresholding.
    np.testing.assert_allclose(sparse[:2], [1.9, 0.9], atol=0.05)


def test_penalties_do_not_apply_to_biases() -> None:
    net = nn.Network([1, nn.Dense(1, "identity", weights=1.0)], device="numpy", dtype="float64")
    nn.train(net, [[0.0]], [5.0], optimizer=nn.SGD(0.5), epochs=100, l2=0.5)
    assert net.weights[0][0, 0] == pytest.approx(0.75**100, rel=1e-9)  # 1 - 0.5 * 0.5 a step
    assert net.biases[0][0] == pytest.approx(5.0)


@pytest.mark.parametrize("size", [7, None])
def test_l2_and_weight_decay_are_equal_for_sgd_but_not_for_adam(size: int | None) -> None:
    def end(rule: Any, **options: float) -> np.ndarray:
        net = regressor()
        nn.train(net, X, Y, optimizer=rule, epochs=3, batch_size=size, **options)
        return net.theta.copy()

    np.testing.assert_allclose(
        end(nn.SGD(0.1), l2=0.2), end(nn.SGD(0.1), weight_decay=0.2), rtol=1e-9, atol=1e-12
    )
    apart = np.abs(end(nn.Adam(0.1), l2=0.2) - end(nn.Adam(0.1), weight_decay=0.2)).max()
    assert apart > 1e-2


@pytest.mark.parametrize("limit", [0.5, [0.5, None, 0.2], (None, 0.3, None)], ids=str)
def test_max_norm_holds_after_training(limit: Any) -> None:
    net = nn.Network([4, 8, nn.Dropout(0.2), nn.Maxout(5, 2), 1], device="numpy", seed=1)
    free = nn.Network([4, 8, nn.Dropout(0.2), nn.Maxout(5, 2), 1], device="numpy", seed=1)
    options: dict[str, Any] = {"epochs": 5, "optimizer": nn.SGD(0.05), "batch_size": 10}
    nn.train(net, X, Y, max_norm=limit, **options)
    nn.train(free, X, Y, **options)
    limits = limit if isinstance(limit, (list, tuple)) else [limit] * 3
    for W, other, most in zip(net.weights, free.weights, limits, strict=True):
        if most is not None:
            norms = np.linalg.norm(W, axis=0)
            assert norms.max() <= most * (1 + 1e-6)
            assert norms.max() >= most * (1 - 1e-6)
            assert np.linalg.norm(other, axis=0).max() > most


def test_max_norm_keeps_the_direction() -> None:
    net = nn.Network([2, nn.Dense(2, "identity")], device="numpy", dtype="float64")
    net.set_parameters([[[3.0, 0.1], [4.0, 0.2]]], [[0.0, 0.0]])
    nn.train(net, [[0.0, 0.0]], [[0.0, 0.0]], epochs=1, optimizer=nn.SGD(0.1), max_norm=1.0)
    np.testing.assert_allclose(net.weights[0], [[0.6, 0.1], [0.8, 0.2]], rtol=1e-12)


def test_clip_norm_bounds_the_step_and_keeps_its_direction() -> None:
    moves = {}
    for clip in (None, 1e9, 0.01):
        net = regressor()
        before = net.theta.copy()
        nn.train(net, X, 100 * Y, epochs=1, batch_size=None, optimizer=nn.SGD(1.0), clip_norm=clip)
        moves[clip] = net.theta - before
    np.testing.assert_array_equal(moves[None], moves[1e9])
    assert np.linalg.norm(moves[0.01]) == pytest.approx(0.01, rel=1e-9)
    np.testing.assert_allclose(
        moves[0.01] / 0.01, moves[None] / np.linalg.norm(moves[None]), rtol=1e-9, atol=1e-12
    )


def test_ema_matches_an_average_by_hand() -> None:
    """After step t, ema = d ema + (1 - d) theta with d = min(decay, (1 + t) / (10 + t))."""
    recorder, averaged, plain = Recorder(), regressor(), regressor()
    ema_weights = plain.theta.copy()
    nn.train(plain, X, Y, epochs=30, batch_size=None, callbacks=[recorder])
    for t, theta in enumerate(recorder.weights, start=1):
        d = min(0.7, (1 + t) / (10 + t))
        ema_weights = d * ema_weights + (1 - d) * theta
    history = nn.train(averaged, X, Y, epochs=30, batch_size=None, ema=0.7, validation=(X, Y))
    np.testing.assert_allclose(averaged.theta, ema_weights, rtol=1e-10, atol=1e-13)
    assert history["valid_loss"][-1] == pytest.approx(averaged.evaluate(X, Y)["loss"], rel=1e-12)
    assert np.abs(averaged.theta - plain.theta).max() > 1e-4


def test_dropout_is_for_training_only() -> None:
    def build(rate: float) -> nn.Network:
        return nn.Network([4, 20, nn.Dropout(rate), 1], activation="tanh", device="numpy", seed=1)

    none, some, plain = build(0.0), build(0.5), nn.Network([4, 20, 1], activation="tanh",
                                                           device="numpy", seed=1)  # fmt: skip
    for net in (none, some, plain):
        nn.train(net, X, Y, epochs=3, batch_size=10)
    np.testing.assert_array_equal(none.theta, plain.theta)
    assert np.abs(some.theta - plain.theta).max() > 1e-3
    np.testing.assert_array_equal(some.predict(X), some.predict(X))
    np.testing.assert_allclose(some.outputs(X[:7]), some.outputs(X)[:7], rtol=1e-5)


# ---- options ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"epochs": 0}, "epochs must be a whole number, at least 1. Received: epochs=0"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"epochs": True}, "epochs must be a whole number"),
        (
            {"batch_size": 0},
            "batch_size must be a whole number, at least 1, or None. Received: batch_size=0",
        ),
        ({"batch_size": -5}, "batch_size must be a whole number"),
        ({"batch_size": 2.0}, "batch_size must be a whole number"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"seed": 1 << 64}, "seed must be a whole number from 0"),
        ({"l1": -0.1}, r"l1 must be a number, at least 0. Received: l1=-0.1"),
        ({"l2": float("nan")}, "l2 must be a number, at least 0"),
        ({"weight_decay": -1.0}, "weight_decay must be a number, at least 0"),
        (
            {"clip_norm": 0.0},
            r"clip_norm must be a number above 0, or None. Received: clip_norm=0.0",
        ),
        ({"ema": 1.0}, "ema must be a number between 0 and 1"),
        ({"ema": 0.0}, "ema must be a number between 0 and 1"),
        ({"shuffle": "no"}, "'window', 'window:ROWS', or a function of the epoch"),
        ({"max_norm": 0.0}, "max_norm must be a number above 0"),
        ({"max_norm": -1.0}, "max_norm must be a number above 0"),
        (
            {"max_norm": [1.0]},
            r"one \(or None\) for each of the 2 trainable layers. Received: max_norm=",
        ),
        ({"max_norm": [1.0, -1.0]}, "max_norm must be a number above 0"),
        ({"max_norm": [1.0, 2.0, 3.0]}, "for each of the 2 trainable layers"),
        ({"optimizer": "adma"}, "Did you mean 'adam'"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"validation": 0.0}, "between 0 and 1"),
        ({"validation": 1.0}, "between 0 and 1"),
        ({"validation": -0.5}, "between 0 and 1"),
        ({"validation": True}, "validation must be"),
        ({"validation": (X,)}, r"validation must be \(x, y\)"),
        ({"validation": X}, "validation must be"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_invalid_options_are_refused(options: dict[str, Any], text: str) -> None:
    net = regressor()
    before = net.theta.copy()
    with pytest.raises(ArgumentError, match=text):
        nn.train(net, X, Y, **{"epochs": 1, **options})
    np.testing.assert_array_equal(net.theta, before)
    model = nn.Model(net, scale="standard")
    with pytest.raises(ArgumentError, match=text):
        model.fit(X, Y, **{"epochs": 1, **options})
    assert model.preprocessing.scaler is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"scale_targets": "no"}, "scale_targets must be True or False"),
        ({"scale": "standart"}, "Did you mean 'standard'"),
    ],
)
def test_invalid_options_of_a_model_are_refused(options: dict[str, Any], text: str) -> None:
    net = regressor()
    before = net.theta.copy()
    with pytest.raises(ArgumentError, match=text):
        fit_model(net, X, Y, epochs=1, **options)
    np.testing.assert_array_equal(net.theta, before)


def test_an_unknown_option_of_fit_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"no option 'epoch'.*Did you mean 'epochs'"):
        nn.Model(regressor()).fit(X, Y, epoch=3)


def test_training_continues_from_the_current_weights() -> None:
    """SGD without momentum has no state: two unshuffled runs of one epoch equal one of two."""
    nets = [regressor(), regressor()]
    options: dict[str, Any] = {"optimizer": nn.SGD(0.05), "batch_size": 8, "shuffle": False}
    nn.train(nets[0], X, Y, epochs=2, **options)
    for _ in range(2):
        nn.train(nets[1], X, Y, epochs=1, **options)
    np.testing.assert_array_equal(nets[0].theta, nets[1].theta)


# ---- real learning ----------------------------------------------------------------------------


def test_digits() -> None:
    x, y = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=0.25, random_state=0,
                                                        stratify=y)  # fmt: skip
    net = classifier([64, 100, 10])
    model, history = fit_model(
        net, train_x, train_y, epochs=40, batch_size=32, scale="unit", validation=0.1,
        early_stopping=nn.EarlyStopping(patience=8),
    )  # fmt: skip
    assert model.evaluate(test_x, test_y)["accuracy"] >= 0.97
    assert history.best["train_loss"] < 0.05


@pytest.mark.parametrize(
    "hidden", [nn.Dense(8, "tanh"), nn.Dense(8, "sigmoid"), nn.Dense(8, "relu"), nn.Maxout(4, 2)],
    ids=["tanh", "sigmoid", "relu", "maxout"],
)  # fmt: skip
@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "quadratic"])
def test_the_exclusive_or(hidden: Any, loss: str) -> None:
    x, y = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
    net = nn.Network([2, hidden, 2 if loss == "cross_entropy" else 1], loss, device="numpy", seed=1)
    nn.train(net, x, y, epochs=400, batch_size=4, optimizer=nn.Adam(0.05))
    assert np.array_equal(np.round(net.predict(x)), y)
    assert net.evaluate(x, y)["loss"] < 0.05


def test_a_single_layer_cannot_learn_the_exclusive_or() -> None:
    x, y = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
    net = classifier([2, 2])
    nn.train(net, x, y, epochs=300, optimizer=nn.Adam(0.05))
    assert net.evaluate(x, y)["loss"] == pytest.approx(np.log(2), abs=1e-3)


def test_diabetes_about_as_well_as_scikit_learn() -> None:
    x, y = load_diabetes(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=0.25, random_state=0)
    net = nn.Network([10, 20, 1], device="numpy", seed=0)
    model, _ = fit_model(
        net, train_x, train_y, epochs=60, batch_size=32, scale="standard", scale_targets=True,
        l2=0.03, optimizer=nn.Adam(3e-3),
    )  # fmt: skip
    mean, std = train_x.mean(axis=0), train_x.std(axis=0)
    theirs = MLPRegressor(
        hidden_layer_sizes=(20,), alpha=1.0, batch_size=32, learning_rate_init=3e-3, max_iter=60,
        random_state=0, n_iter_no_change=100,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="Maximum iterations"):
        theirs.fit((train_x - mean) / std, (train_y - train_y.mean()) / train_y.std())
    expected = theirs.score((test_x - mean) / std, (test_y - train_y.mean()) / train_y.std())
    got = model.evaluate(test_x, test_y)["r2"]
    assert got > 0.25
    assert got > expected - 0.1


def test_multilabel_classification() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(600, 3))
    y = np.stack([x[:, 0] > 0, x[:, 1] * x[:, 2] > 0], axis=1).astype(int)
    net = nn.Network([3, 24, 2], "binary_cross_entropy", device="numpy", seed=1)
    nn.train(net, x[:400], y[:400], epochs=60, batch_size=20, optimizer=nn.Adam(0.01))
    predicted = net.predict(x[400:])
    assert predicted.shape == (200, 2)
    assert (predicted == y[400:]).mean(axis=0).min() > 0.93


def test_poisson_regression() -> None:
    rng = np.random.default_rng(4)
    x = rng.uniform(-1, 1, size=(3000, 1))
    rate = np.exp(0.5 + 1.2 * x[:, 0])
    y = rng.poisson(rate)
    net = nn.Network([1, 1], "poisson", device="numpy", dtype="float64")
    nn.train(net, x, y, optimizer="lbfgs", epochs=100)
    # The maximum likelihood estimate; standard errors are about 0.02.
    assert net.biases[0][0] == pytest.approx(0.5, abs=0.08)
    assert net.weights[0][0, 0] == pytest.approx(1.2, abs=0.1)
    assert net.predict(x).mean() == pytest.approx(y.mean(), rel=1e-4)


@pytest.mark.parametrize("q", [0.1, 0.5, 0.9])
def test_a_quantile_has_its_coverage(q: float) -> None:
    rng = np.random.default_rng(5)
    x = rng.uniform(0, 1, size=(2000, 1))
    y = x[:, 0] + (0.2 + x[:, 0]) * rng.normal(size=2000)
    net = nn.Network([1, 16, 1], nn.losses.quantile(q), activation="tanh", device="numpy", seed=1)
    nn.train(net, x, y, epochs=60, batch_size=50, optimizer=nn.Adam(0.01), schedule="cosine")
    for part in (x[:, 0] < 0.5, x[:, 0] >= 0.5):  # the spread and the quantile grow with x
        covered = (y[part] <= net.predict(x[part])).mean()
        assert covered == pytest.approx(q, abs=0.05)


def test_a_deep_network_over_fits_and_regularisation_helps() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(60, 10))
    y = (x[:, 0] + 0.8 * rng.normal(size=60) > 0).astype(int)
    far = rng.normal(size=(2000, 10))
    truth = (far[:, 0] > 0).astype(int)
    losses = []
    for options in ({}, {"l2": 0.1}):
        net = classifier([10, 60, 60, 2])
        nn.train(net, x, y, epochs=150, batch_size=20, **options)
        losses.append(net.evaluate(far, truth)["loss"])
    assert losses[1] < 0.8 * losses[0]


def test_one_row_and_one_class() -> None:
    net = classifier()
    nn.train(net, X[:1], [1], epochs=30, optimizer=nn.Adam(0.05))
    assert net.predict(X[:1])[0] == 1
    net = classifier()
    history = nn.train(
        net, X, np.zeros(60, int), epochs=30, optimizer=nn.Adam(0.05), validation=0.2
    )
    assert (net.predict(X) == 0).all()
    assert history["valid_accuracy"][-1] == 1.0
    with pytest.raises(DataError, match="at least 2 rows"):
        nn.train(net, X[:1], [1], validation=0.5)
