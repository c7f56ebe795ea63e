"""Exact resume: an interrupted and resumed run equals the uninterrupted one bit for bit."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fitting import fit_model
from rows import make_or_skip

import nnbackend as nn
from nnbackend.data.preprocessing import Preprocessing
from nnbackend.errors import ArgumentError, ModelFileError
from nnbackend.persistence.atomic_file import atomic_write
from nnbackend.persistence.checkpoints import checkpoint_paths
from nnbackend.persistence.container import encode, read_model
from nnbackend.testing.ghost import GhostBackend
from nnbackend.training import step_runner
from nnbackend.training.api import new_trainer
from nnbackend.training.config import TrainConfig

RNG = np.random.default_rng(5)
X = RNG.normal(size=(50, 4)).astype(np.float32)
LABELS = (X[:, 0] * X[:, 1] > 0).astype(int)
Y = X @ np.array([[1.0, 0.5], [-2.0, 0.0], [0.5, 1.0], [0.0, 3.0]], np.float32)


class Interrupt(nn.Callback):
    """A callback that requests an interrupt after a number of steps, as a signal does."""

    def __init__(self, step: int) -> None:
        self.at = step

    def on_progress(self, trainer: Any, step: int, n_steps: int) -> None:
        self.on_epoch_end(trainer, {})

    def on_epoch_end(self, trainer: Any, row: Any) -> None:
        if trainer.state.step >= self.at:
            trainer.interrupt.requested = True


class Spy(nn.Callback):
    """A callback that records weights and state at the end, before the best weights return."""

    seen: tuple[Any, ...] = ()

    def on_pause(self, trainer: Any) -> None:
        host = trainer.net.backend.to_host
        vectors = [trainer.net.theta, trainer.state.best, *trainer.state.optimizer.values()]
        vectors += [] if trainer.state.ema_weights is None else [trainer.state.ema_weights]
        self.seen = tuple(host(v).tobytes() for v in vectors)


@pytest.fixture(autouse=True)
def _poll_after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_runner, "POLL_INTERVAL_SECONDS", 0.0)


@pytest.fixture
def _python_handles_ctrl_c() -> Iterator[None]:
    """Install Python's handler of Ctrl-C, which is ignored if the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def classifier(device: Any) -> nn.Network:
    layers = [4, nn.Dense(8, "elu"), nn.Dropout(0.4), nn.Maxout(5, 2), nn.Dense(2, "softmax")]
    return nn.Network(layers, device=device, seed=1)


def regressor(device: Any) -> nn.Network:
    return nn.Network([4, nn.Dense(6, "tanh"), nn.Dropout(0.2), 2], device=device, dtype="float64")


STOP = nn.EarlyStopping(patience=2, min_delta=0.002)
RUNS: dict[str, tuple[Callable[..., nn.Network], Any, dict[str, Any]]] = {
    "adam, cosine, early stopping, dropout": (
        classifier, LABELS,
        {"validation": 0.2, "schedule": "cosine", "early_stopping": STOP, "scale": "standard"},
    ),
    "ema, plateau, nesterov, weights": (
        classifier, LABELS,
        {
            "optimizer": nn.SGD(0.2, 0.9, nesterov=True), "ema": 0.9,
            "schedule": nn.schedules.Plateau(0.5, patience=1),
            "sample_weight": RNG.random(50), "early_stopping": STOP,
        },
    ),
    "momentum schedule, penalties, norms": (
        regressor, Y,
        {
            "optimizer": nn.SGD(0.05), "momentum_schedule": "ramp", "l1": 1e-3, "l2": 1e-3,
            "clip_norm": 0.5, "max_norm": 1.5, "scale": "robust", "scale_targets": True,
            "schedule": nn.schedules.WarmUp(2.0, nn.schedules.Step(2, 0.5)),
        },
    ),
    "own validation, adamw": (
        regressor, Y,
        {"optimizer": nn.AdamW(1e-2), "validation": (X[:9], Y[:9]), "schedule": "one_cycle"},
    ),
    "full batch": (classifier, LABELS, {"optimizer": "adadelta", "batch_size": None}),
    "lbfgs": (
        lambda device: nn.Network([4, 6, 2], activation="tanh", device=device, dtype="float64"),
        Y, {"optimizer": nn.LBFGS(ftol=0.05), "l2": 1e-4, "epochs": 30},
    ),
}  # fmt: skip


def figures(history: nn.History) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


def outcome(net: nn.Network, history: nn.History, spy: Spy) -> tuple[Any, ...]:
    theta = net.backend.to_host(net.theta).tobytes()
    return theta, spy.seen, figures(history), history.stop_reason, history.monitor


def again(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a run that `resume` needs: its data only."""
    given = {name: options[name] for name in ("sample_weight",) if name in options}
    if isinstance(options.get("validation"), tuple):
        given["validation"] = options["validation"]
    return given


@pytest.mark.parametrize("device", ["numpy", "numba", "ghost"])
@pytest.mark.parametrize("run", sorted(RUNS))
def test_interrupted_anywhere_and_resumed(run: str, device: str, tmp_path: Path) -> None:
    build, y, options = RUNS[run]
    backend = GhostBackend() if device == "ghost" else make_or_skip(device)
    options = {"epochs": 6, "batch_size": 12, **options}
    whole_spy = Spy()
    net = build(backend)
    _, history = fit_model(net, X, y, callbacks=[whole_spy], seed=3, **options)
    expected = outcome(net, history, whole_spy)
    per_epoch = 1 if run in ("lbfgs", "full batch") else 5 - ("early stopping, dropout" in run)
    n_steps = len(history) * per_epoch

    for step in range(1, n_steps + 1, 1 if device == "numpy" else 4):
        folder = tmp_path / str(step)
        first = [Interrupt(step), nn.Checkpoints(folder)]
        _, before = fit_model(build(backend), X, y, callbacks=first, seed=3, **options)
        assert before.stop_reason == "interrupted"
        spy = Spy()
        given = again(options)
        model, history = nn.resume(folder, X, y, device=backend, callbacks=[spy], **given)
        assert outcome(model.network, history, spy) == expected, f"interrupted after step {step}"


def test_many_interruptions_of_one_run(tmp_path: Path) -> None:
    build, y, options = RUNS["ema, plateau, nesterov, weights"]
    options = {"epochs": 6, "batch_size": 12, **options}
    spy, net = Spy(), build("numpy")
    expected = outcome(net, nn.train(net, X, y, callbacks=[spy], seed=3, **options), spy)

    stops = [Interrupt(2), nn.Checkpoints(tmp_path)]
    history = nn.train(build("numpy"), X, y, callbacks=stops, seed=3, **options)
    step = 2
    while history.stop_reason == "interrupted":
        step += 2
        spy = Spy()
        ends = [Interrupt(step), spy]
        model, history = nn.resume(tmp_path, X, y, device="numpy", callbacks=ends, **again(options))
    assert step > 10
    assert outcome(model.network, history, spy) == expected


def test_a_killed_run_resumes_from_its_last_checkpoint(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    class Kill(nn.Callback):
        def on_progress(self, trainer: Any, step: int, n_steps: int) -> None:
            if trainer.state.step == 13:
                raise Killed

    options: dict[str, Any] = {"epochs": 4, "batch_size": 10, "seed": 2, "validation": 0.2}
    net = classifier("numpy")
    expected = figures(nn.train(net, X, LABELS, **options))
    with pytest.raises(Killed):
        nn.train(classifier("numpy"), X, LABELS,
                 callbacks=[nn.Checkpoints(tmp_path, steps=3), Kill()], **options)  # fmt: skip
    # Written after steps 3, 6, 9 and 12, the last at the end of an epoch; the newest two are kept.
    assert [p.name for p in checkpoint_paths(tmp_path)] == [
        "checkpoint-000000000009.safetensors", "checkpoint-000000000012.safetensors"
    ]  # fmt: skip
    model, history = nn.resume(tmp_path, X, LABELS, device="numpy")
    assert figures(history) == expected
    np.testing.assert_array_equal(model.network.theta, net.theta)


def test_a_model_fitted_to_a_table_is_resumed(tmp_path: Path) -> None:
    """The checkpoint holds the coding of the columns, the scales and the labels."""
    table = {"size": X[:, 0], "kind": np.where(X[:, 1] > 0, "round", "flat")}
    words = np.where(LABELS, "yes", "no")
    options: dict[str, Any] = {"epochs": 4, "batch_size": 12, "validation": 0.2, "seed": 5}

    def build() -> nn.Model:
        return nn.Model(nn.Network([3, 5, 2], "cross_entropy", device="numpy"), scale="standard")

    whole = build()
    expected = whole.fit(table, words, **options)
    build().fit(table, words, callbacks=[Interrupt(6), nn.Checkpoints(tmp_path)], **options)
    model, history = nn.resume(tmp_path, table, words, device="numpy")
    assert figures(history) == figures(expected)
    assert model.classes == ("no", "yes")
    row = {"kind": "flat", "size": 0.25}
    np.testing.assert_array_equal(model.predict_proba(row), whole.predict_proba(row))
    other = {**table, "size": table["size"] + 1.0}
    with pytest.raises(ArgumentError, match="data must be those of the run"):
        nn.resume(tmp_path, other, words, device="numpy")


# ---- checkpoints ------------------------------------------------------------------------------


def fit(folder: Path, *more: nn.Callback, **options: Any) -> nn.History:
    options = {"epochs": 3, "batch_size": 25, **options}
    every = options.pop("every", {"epochs": 1})
    return nn.train(classifier("numpy"), X, LABELS,
                    callbacks=[*more, nn.Checkpoints(folder, **every)], **options)  # fmt: skip


def test_a_finished_run_is_returned_unchanged_and_can_be_extended(tmp_path: Path) -> None:
    fit(tmp_path, early_stopping=nn.EarlyStopping(patience=9))
    _, history = nn.resume(tmp_path, X, LABELS, device="numpy")
    assert (len(history), history.stop_reason) == (3, "epochs")
    _, longer = nn.resume(tmp_path, X, LABELS, device="numpy", epochs=5)
    assert figures(longer)[:3] == figures(history)
    reference = classifier("numpy")
    expected = nn.train(reference, X, LABELS, epochs=5, batch_size=25)
    assert figures(longer) == figures(expected)
    with pytest.raises(ArgumentError, match="epochs must be at least 5"):
        nn.resume(tmp_path, X, LABELS, device="numpy", epochs=4)
    for wrong in (0, 5.5, "6"):
        with pytest.raises(ArgumentError, match="epochs must be"):
            nn.resume(tmp_path, X, LABELS, device="numpy", epochs=wrong)  # type: ignore[arg-type]


def test_a_decided_stop_is_final(tmp_path: Path) -> None:
    """Early stopping at epoch 2, and a failure before the run has ended."""

    class Fail(nn.Callback):
        def on_pause(self, trainer: Any) -> None:
            raise ZeroDivisionError

    stop = nn.EarlyStopping(patience=1, min_delta=100.0)
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path, Fail(), epochs=9, early_stopping=stop)
    for same in ({}, {"epochs": 9}):
        _, history = nn.resume(tmp_path, X, LABELS, device="numpy", **same)
        assert (len(history), history.stop_reason) == (2, "early stopping")
    with pytest.raises(
        ArgumentError, match=r"epochs=12 for a run that stopped after epoch 2 \(early"
    ):
        nn.resume(tmp_path, X, LABELS, device="numpy", epochs=12)


def test_a_damaged_checkpoint_is_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = figures(fit(tmp_path))
    older, newest = checkpoint_paths(tmp_path)
    data = bytearray(newest.read_bytes())
    data[-5] ^= 1
    newest.write_bytes(data)
    _, history = nn.resume(tmp_path, X, LABELS, device="numpy")
    assert figures(history) == expected
    assert "skipping a damaged checkpoint" in caplog.text
    assert checkpoint_paths(tmp_path) == [older, newest]  # both complete again

    for path in checkpoint_paths(tmp_path):
        path.write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"checkpoint-000000000006.*checkpoint-000000000004"):
        nn.resume(tmp_path, X, LABELS, device="numpy")


def test_temporary_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    for name in (".checkpoint-000000000002.safetensors.00ff.tmp", ".other.tmp", "notes.txt"):
        (tmp_path / name).write_text("half")
    fit(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir() if "safetensors" not in path.name)
    assert names == [".other.tmp", "notes.txt"]


def test_a_failed_periodic_checkpoint_warns_and_a_failed_last_one_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    seen: list[int] = []

    class Note(nn.Callback):
        def on_epoch_end(self, trainer: Any, row: Any) -> None:
            seen.append(trainer.state.epoch)

    monkeypatch.setattr("nnbackend.persistence.checkpoints.atomic_write", fail)
    net = classifier("numpy")
    stop = nn.EarlyStopping(patience=1, min_delta=100.0)
    callbacks = [Note(), nn.Checkpoints(tmp_path, epochs=1)]
    with pytest.raises(OSError, match="No space left") as caught:
        nn.train(net, X, LABELS, epochs=3, batch_size=25, early_stopping=stop, callbacks=callbacks)
    assert seen == [1, 2]
    assert caplog.text.count("training continues") == 2
    # No result is lost: the network has the best weights, the error has the history.
    reference = classifier("numpy")
    expected = nn.train(reference, X, LABELS, epochs=3, batch_size=25, early_stopping=stop)
    np.testing.assert_array_equal(net.theta, reference.theta)
    history = caught.value.history  # type: ignore[attr-defined]
    assert (figures(history), history.stop_reason) == (figures(expected), "early stopping")


def test_checkpoints_by_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a fake clock each step takes 20 seconds, and every second checkpoint 15."""
    clock = SimpleNamespace(now=1000.0, written=[])

    class Work(nn.Callback):
        def on_progress(self, trainer: Any, step: int, n_steps: int) -> None:
            clock.now += 20.0

    def write(path: Path, data: bytes) -> None:
        clock.written.append(int(path.name[11:23]))
        clock.now += 15.0 * (len(clock.written) % 2 == 0)
        atomic_write(path, data)

    watch = SimpleNamespace(monotonic=lambda: clock.now)
    monkeypatch.setattr("nnbackend.persistence.checkpoints.time", watch)
    monkeypatch.setattr("nnbackend.persistence.checkpoints.atomic_write", write)
    fit(tmp_path, Work(), epochs=6, batch_size=10, every={"minutes": 0.9})
    # 54 seconds after the end of the last one; counted from its beginning, step 8 would follow 6.
    assert clock.written == [3, 6, 9, 12, 15, 18, 21, 24, 27, 30]


def test_disk_space_is_checked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 10_000

    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage)
    with pytest.raises(OSError, match=r"need 0\.31 MB of free disk. Received: 0\.01 MB"):
        fit(tmp_path)
    assert not checkpoint_paths(tmp_path)


def test_a_folder_holds_checkpoints_of_one_run(tmp_path: Path) -> None:
    fit(tmp_path)
    with pytest.raises(ArgumentError, match="a folder without those of another run"):
        fit(tmp_path)


@pytest.mark.usefixtures("_python_handles_ctrl_c")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_ends_the_run_with_a_checkpoint(number: int, tmp_path: Path) -> None:
    class Send(nn.Callback):
        def on_progress(self, trainer: Any, step: int, n_steps: int) -> None:
            if trainer.state.step == 3:
                os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    history = fit(tmp_path, Send(), every={"minutes": 60})
    assert history.stop_reason == "interrupted"
    assert [path.name for path in checkpoint_paths(tmp_path)] == [
        "checkpoint-000000000003.safetensors"
    ]
    assert signal.getsignal(number) is before


@pytest.mark.usefixtures("_python_handles_ctrl_c")
def test_partially_updated_weights_are_not_saved(tmp_path: Path) -> None:
    """A second Ctrl-C may interrupt within a step."""

    class Twice(nn.Callback):
        def on_progress(self, trainer: Any, step: int, n_steps: int) -> None:
            if trainer.state.step == 3:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)

    history = fit(tmp_path, Twice(), every={"minutes": 60})
    assert history.stop_reason == "interrupted"
    assert not checkpoint_paths(tmp_path)


@pytest.mark.parametrize(
    "options",
    [{"epochs": 0}, {"steps": 1.5}, {"minutes": -1}, {"minutes": 0}, {"minutes": float("inf")},
     {"minutes": float("nan")}, {"minutes": "5"}],
)  # fmt: skip
def test_invalid_intervals_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match="Received"):
        nn.Checkpoints("unused", **options)


def test_intervals_may_be_numpy_numbers(tmp_path: Path) -> None:
    fit(tmp_path, Interrupt(3), every={"steps": np.int64(2), "minutes": np.float32(5.0)})
    _, history = nn.resume(tmp_path, X, LABELS, device="numpy")
    assert len(history) == 3


def test_options_that_cannot_be_saved_are_refused_before_training(tmp_path: Path) -> None:
    begun: list[int] = []

    class Note(nn.Callback):
        def on_progress(self, trainer: Any, step: int, n_steps: int) -> None:
            begun.append(step)

    def backwards(epoch: int) -> np.ndarray:
        return np.arange(50)[::-1]

    with pytest.raises(ArgumentError, match="must be numbers or names"):
        fit(tmp_path / "shuffle", Note(), shuffle=backwards)
    known = Preprocessing(columns={"columns": {1, 2}})
    callbacks = [Note(), nn.Checkpoints(tmp_path / "columns")]
    trainer = new_trainer(
        classifier("numpy"), X, LABELS, TrainConfig(), preprocessing=known, callbacks=callbacks
    )
    with pytest.raises(ArgumentError, match="plain data for JSON"):
        trainer.run()
    model, names = nn.Model(classifier("numpy")), np.array([b"no", b"yes"])
    with pytest.raises(ArgumentError, match="classes must be text, numbers or booleans"):
        model.fit(X, names[LABELS], callbacks=[Note(), nn.Checkpoints(tmp_path / "classes")])
    assert not begun


# ---- other data and invalid files --------------------------------------------------------------


def test_other_data_is_refused(tmp_path: Path) -> None:
    fit(tmp_path, Interrupt(2), validation=0.2)
    other = X.copy()
    other[7, 2] += 1e-6
    for x, y, more in (
        (other, LABELS, {}),
        (X[::-1], LABELS[::-1], {}),
        (X, 1 - LABELS, {}),
        (X.astype(np.float64), LABELS, {}),
        (X, LABELS, {"sample_weight": np.ones(50)}),
        (X, LABELS, {"validation": 0.3}),
        (X, LABELS, {"validation": (X, LABELS)}),
    ):
        with pytest.raises(ArgumentError, match="data must be those of the run"):
            nn.resume(tmp_path, x, y, device="numpy", **more)


def test_custom_code_must_be_passed_again(tmp_path: Path) -> None:
    def halves(step: int) -> float:
        return 0.5**step

    expected = figures(fit(tmp_path / "whole", schedule=halves))
    fit(tmp_path / "cut", Interrupt(3), schedule=halves)
    with pytest.raises(ArgumentError, match="schedule must be passed again"):
        nn.resume(tmp_path / "cut", X, LABELS)
    with pytest.raises(ArgumentError, match="stores its optimizer"):
        nn.resume(tmp_path / "cut", X, LABELS, schedule=halves, optimizer="adam")
    _, history = nn.resume(tmp_path / "cut", X, LABELS, schedule=halves, device="numpy")
    assert figures(history) == expected


def test_a_custom_stopping_rule_must_be_passed_again(tmp_path: Path) -> None:
    class Second(nn.EarlyStopping):
        def should_stop(self, history: nn.History) -> bool:
            return len(history) == 2

    fit(tmp_path, Interrupt(1), epochs=9, early_stopping=Second())
    with pytest.raises(ArgumentError, match="early_stopping must be passed again"):
        nn.resume(tmp_path, X, LABELS, device="numpy")
    _, history = nn.resume(tmp_path, X, LABELS, device="numpy", early_stopping=Second())
    assert (len(history), history.stop_reason) == (2, "early stopping")


def test_models_and_checkpoints_are_distinguished(tmp_path: Path) -> None:
    fit(tmp_path)
    with pytest.raises(ModelFileError, match=r"checkpoint of a run.*nnbackend\.resume"):
        nn.load(checkpoint_paths(tmp_path)[0])
    model = nn.Model(classifier("numpy"))
    model.save(tmp_path / "checkpoint-999999999999.safetensors")
    _, history = nn.resume(tmp_path, X, LABELS, device="numpy")  # the one before is used
    assert len(history) == 3
    for folder in (tmp_path / "absent", tmp_path.parent):
        with pytest.raises(ModelFileError, match=r"no such folder|no checkpoint in it"):
            nn.resume(folder, X, LABELS)


def test_on_another_device_it_resumes_within_rounding(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net = classifier("numpy")
    nn.train(net, X, LABELS, epochs=3, batch_size=25)
    fit(tmp_path, Interrupt(3))
    model, _ = nn.resume(tmp_path, X, LABELS, device=GhostBackend())
    theta = model.network.backend.to_host(model.network.theta)
    np.testing.assert_allclose(theta, net.theta, rtol=0, atol=1e-5)
    assert "within rounding" in caplog.text


def test_it_resumes_on_the_device_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NNBACKEND_DEVICE", "numba")  # the device of a new run
    fit(tmp_path, Interrupt(3))
    model, _ = nn.resume(tmp_path, X, LABELS)
    assert model.network.backend.device == "numpy:0"
    assert not caplog.records


@pytest.mark.parametrize("word", ["torch:mps:0", "numpy:7", "a:b:c:d", "", None, 3])
def test_without_the_device_of_the_run_it_uses_another_and_warns(
    word: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NNBACKEND_DEVICE", "numpy")
    fit(tmp_path, Interrupt(3), every={"minutes": 60})
    (path,) = checkpoint_paths(tmp_path)
    description, arrays = read_model(path)
    description.pop("format")
    description["run"]["device"] = word
    path.write_bytes(encode(description, arrays))
    model, history = nn.resume(tmp_path, X, LABELS)
    assert model.network.backend.device == "numpy:0"
    assert len(history) == 3
    assert f"the run was on {word!r}, which cannot be used here; it is resumed on numpy:0" in (
        caplog.text
    )


FORGED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "epoch beyond the run": lambda run: run.update(epoch=10**6),
    "epoch of text": lambda run: run.update(epoch="1"),
    "epoch below 0": lambda run: run.update(epoch=-1),
    "more steps than an epoch has": lambda run: run.update(step_in_epoch=99),
    "an epoch without history": lambda run: run.update(epoch=2, step_in_epoch=1),
    "an earlier version": lambda run: run.update(recipe=run.pop("config")),
    "a version without TrainState": lambda run: run.update(lbfgs=None),
    "no config": lambda run: run.pop("config"),
    "config of text": lambda run: run.update(config="adam"),
    "unknown optimizer": lambda run: run["config"]["optimizer"].update(kind="os.system"),
    "optimizer's number": lambda run: run["config"]["optimizer"].update(eps="evil"),
    "optimizer's extra": lambda run: run["config"]["optimizer"].update(x=1),
    "schedule for an optimizer": lambda run: run["config"].update(optimizer={"kind": "cosine"}),
    "endless epochs": lambda run: run["config"].update(epochs=-5),
    "deep schedule": lambda run: run["config"].update(schedule={"kind": {"kind": {}}}),
    "columns of lists": lambda run: run.update(columns=[[], []]),
    "columns of text": lambda run: run.update(columns="ab"),
    "another column": lambda run: run["columns"].__setitem__(1, "evil"),
    "the same column": lambda run: run["columns"].__setitem__(1, "epoch"),
    "unknown reason": lambda run: run.update(stop_reason="because"),
    "no data": lambda run: run.pop("data"),
    "validation above 1": lambda run: run.update(validation=3),
    "validation of text": lambda run: run.update(validation="half"),
    "curvature of a rule without": lambda run: run.update(
        lbfgs={"converged": False, "loss": 1.0, "curvatures": []}
    ),
    "intervals": lambda run: run.update(every={"epochs": 0, "steps": None, "minutes": None}),
    "intervals of text": lambda run: run.update(every="often"),
    "more intervals": lambda run: run["every"].update(seconds=1),
}


@pytest.mark.parametrize("what", sorted(FORGED))
def test_forged_checkpoints_are_refused(what: str, tmp_path: Path) -> None:
    """The checksum is valid: an attacker can compute it too."""
    fit(tmp_path, Interrupt(3), every={"minutes": 60})
    (path,) = checkpoint_paths(tmp_path)
    description, arrays = read_model(path)
    description.pop("format")
    FORGED[what](description["run"])
    path.write_bytes(encode(description, arrays))
    with pytest.raises((ModelFileError, ArgumentError)) as caught:
        nn.resume(tmp_path, X, LABELS, device="numpy")
    if what != "no data":
        assert isinstance(caught.value, ModelFileError), caught.value


@pytest.mark.parametrize(
    "name", ["run.best", "run.optimizer.m", "run.history", "run.totals", "run.x"]
)
@pytest.mark.parametrize("how", ["absent", "shape", "dtype"])
def test_forged_arrays_are_refused(name: str, how: str, tmp_path: Path) -> None:
    fit(tmp_path, Interrupt(3), every={"minutes": 60})
    (path,) = checkpoint_paths(tmp_path)
    description, arrays = read_model(path)
    description.pop("format")
    array = arrays.pop(name, np.zeros(3))
    if how == "shape":
        arrays[name] = np.concatenate([array, array])
    elif how == "dtype":
        arrays[name] = array.astype("float32" if array.dtype == np.float64 else "float64")
    if name != "run.x" or how != "absent":
        path.write_bytes(encode(description, arrays))
        if (name, how) != ("run.history", "dtype"):
            with pytest.raises(ModelFileError, match="must have the state of a run"):
                nn.resume(tmp_path, X, LABELS, device="numpy")
