"""Recorded steps of the numba backend train as NumPy does, with any partitioning."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import types
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fitting import fit_model

import nnbackend as nn
from nnbackend.training.optimizers import Optimizer

pytest.importorskip("numba", reason="numba is not installed")

import numba
from numba_runs import (
    TOLERANCE,
    backend_of,
    partition_small_steps,
    random_case,
    random_data,
    recorded_programs,
)

from nnbackend_numba import fingerprints, prediction, program, recorder
from nnbackend_numba import workers as threads_of_programs
from nnbackend_numba.backend import NumbaBackend
from nnbackend_numba.fingerprints import fingerprint


@pytest.fixture(autouse=True)
def _partition_small_steps_too(monkeypatch: pytest.MonkeyPatch) -> None:
    partition_small_steps(monkeypatch)


@pytest.mark.parametrize("case", range(40))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_networks_train_as_on_numpy(
    case: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(case)
    layers, network, options = random_case(rng)
    x, y = random_data(rng, layers, network, options, [np.float64, np.float32, np.uint8][case % 3])
    made = recorded_programs(monkeypatch)

    def trained(device: Any, dtype: str) -> tuple[np.ndarray, list[float]]:
        net = nn.Network(layers, **network, device=device, dtype=dtype, seed=case)
        _, history = fit_model(net, x, y, epochs=3, seed=case, **options)
        return net.backend.to_host(net.theta).astype(np.float64), history["train_loss"]

    theta, losses = trained(backend_of(1 + case % 4), dtype)
    assert made, "the step was not recorded"
    reference, expected = trained("numpy", "float64")
    # Adam turns gradients that are pure rounding error into full steps. So the tolerance also
    # allows a small multiple of NumPy's error in single precision.
    others = np.abs(trained("numpy", dtype)[0] - reference).max()
    allowed = max(TOLERANCE[dtype] * np.abs(reference).max(), 5 * others)
    assert np.abs(theta - reference).max() <= allowed, (layers, options)
    np.testing.assert_allclose(losses, expected, rtol=10 * TOLERANCE[dtype])


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_same_run_gives_the_same_bits(workers: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 30)), rng.integers(0, 3, 60)

    def theta() -> np.ndarray:
        layers = [30, 40, nn.Dropout(0.2), 20, nn.Dense(3, "softmax")]
        net = nn.Network(layers, "cross_entropy", device=backend_of(workers))
        nn.train(net, x, y, epochs=3, batch_size=16, l2=1e-3, clip_norm=1.0)
        return net.backend.to_host(net.theta)

    assert theta().tobytes() == theta().tobytes()


def test_layers_with_many_weights_are_partitioned_by_inputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = recorded_programs(monkeypatch)
    net = nn.Network([400, 50, nn.Dense(3, "softmax")], "cross_entropy", device=backend_of(2))
    rng = np.random.default_rng(0)
    nn.train(net, rng.standard_normal((20, 400)), rng.integers(0, 3, 20), epochs=1, batch_size=10)
    shared = made[0]._step.partitioning.weights
    assert shared
    assert shared[0] is net.weights[0] or np.shares_memory(shared[0], net.weights[0])
    assert made[0].workers == 2


def test_a_step_that_cannot_be_recorded_runs_kernel_by_kernel(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = recorded_programs(monkeypatch)
    own = nn.Loss("own", lambda a, y, xp: (xp.sum((a - y) ** 4, axis=1), 4 * (a - y) ** 3))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 4)), rng.standard_normal((20, 2))
    results = []
    with caplog.at_level("INFO", "nnbackend"):
        for device in (backend_of(2), "numpy"):
            net = nn.Network([4, 5, 2], own, device=device, dtype="float64")
            nn.train(net, x, y, epochs=2, batch_size=8)
            results.append(net.backend.to_host(net.theta))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-11)
    assert not made
    assert "kernel by kernel" in caplog.text


def test_sample_weights_train_as_on_numpy() -> None:
    rng = np.random.default_rng(0)
    x, y, w = rng.standard_normal((20, 4)), rng.integers(0, 2, 20), rng.random(20)
    results = []
    for device in (backend_of(2), "numpy"):
        net = nn.Network([4, 5, nn.Dense(2, "softmax")], device=device, dtype="float64")
        nn.train(net, x, y, epochs=2, batch_size=8, sample_weight=w)
        results.append(net.backend.to_host(net.theta))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-11)


def test_a_custom_activation_is_compiled_into_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    made = recorded_programs(monkeypatch)
    cube = nn.Activation("cube", lambda z: z**3, lambda z: 3 * z**2)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 4)), rng.standard_normal((20, 2))
    results = []
    for device in (backend_of(2), "numpy"):
        net = nn.Network([4, nn.Dense(5, cube), 2], device=device, dtype="float64")
        nn.train(net, x, y, epochs=2, batch_size=8)
        results.append(net.backend.to_host(net.theta))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-11)
    assert made


def test_the_cache_does_not_depend_on_the_module_of_a_formula(tmp_path: Path) -> None:
    """Two modules with the same formula share compiled code, even if the first is missing."""
    text = (
        "import nnbackend as nn\n"
        "cube = nn.Activation('cube', lambda z: z * z * z, lambda z: 3.0 * z * z)\n"
        "net = nn.Network([2, nn.Dense(3, cube), 1], device='numba')\n"
        "print(nn.train(net, [[0.0, 1.0], [1.0, 0.5]], [0.0, 1.0], epochs=1)['train_loss'])\n"
    )
    answers = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / f"{name}.py").write_text(text)
        done = subprocess.run(
            [sys.executable, "-c", f"import {name}"],
            cwd=folder, check=False, capture_output=True, text=True,
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        answers.append(done.stdout)
        # Logged once, and only if something is compiled.
        assert done.stderr.count("numba compiles kernels") == (name == "first")
    assert answers[0] == answers[1]


def bounded(z: Any) -> Any:
    """Apply NumPy functions, to arrays on NumPy and to scalars in compiled loops."""
    bent = np.where(z > 0, z, 0) + np.maximum(z, -1) * np.minimum(0.5, z) + np.clip(z, -2, None)
    return bent + np.abs(z) * np.sign(z) + np.ones_like(z) + np.zeros_like(z) + np.sin(np.pi * z)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numpys_functions_are_compiled_in_a_custom_formula(
    dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    own = nn.Activation("bounded", bounded, lambda z: np.where(z > 0, 1, 0))
    x = np.array([[-3.0], [-0.5], [0.0], [0.7], [np.nan]], dtype)
    backend, W, delta = NumbaBackend(), np.ones((1, 1), dtype), np.ones_like(x)
    z, a = np.empty_like(x), np.empty_like(x)
    with caplog.at_level("INFO", "nnbackend"):
        backend.dense_forward(x, W, np.zeros(1, dtype), own, z, a)
        backend.dense_backward(x, W, z, a, own, delta, W.copy(), np.empty(1, dtype), None)
    assert "numba cannot compile" not in caplog.text
    np.testing.assert_allclose(a, bounded(x), rtol=1e-5)
    np.testing.assert_array_equal(delta, [[0], [0], [0], [1], [0]])


def recursive(z: Any) -> Any:
    return recursive(z / 2.0) if np.all(z > 1.0) else z


def test_a_formula_that_numba_cannot_compile_is_computed_by_numpy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = nn.Activation("recursive", recursive, lambda z: 1.0 + 0.0 * z)
    backend = NumbaBackend()
    x, b, z = np.array([[4.0, 3.0]]), np.zeros(2), np.empty((1, 2))
    with caplog.at_level("INFO", "nnbackend"):
        for _ in range(2):
            backend.dense_forward(x, np.eye(2), b, own, z, z)
            np.testing.assert_array_equal(z, recursive(x))
    assert caplog.text.count("numba cannot compile") == 1  # it does not try again


def test_a_rule_that_numba_cannot_compile_is_computed_by_numpy() -> None:
    factors = {"g": 0.5}

    def recurrence(theta: Any, g: Any, state: Any, c: Any, p: Any, xp: Any) -> Any:
        return theta - factors["g"] * c[0] * g, ()

    class Half(Optimizer):
        @property
        def recurrence(self) -> Any:
            return recurrence

    thetas = []
    for optimizer, device in ((Half(0.2), "numba"), (nn.SGD(0.1), "numpy")):
        net = nn.Network([2, 3, 1], device=device, dtype="float64", seed=1)
        nn.train(net, np.eye(2), np.arange(2.0), epochs=3, batch_size=1, optimizer=optimizer)
        thetas.append(np.array(net.theta))
    np.testing.assert_allclose(*thetas, rtol=1e-12)


def scaled(z: Any, by: float = 2.0) -> Any:
    return by * z


def test_different_formulas_have_different_fingerprints() -> None:
    """Fingerprints are keys of compiled code; np.sin and np.cos once had the same one."""

    def with_table(*values: float) -> Any:
        table = np.array(values)
        return lambda z: table[0] * z

    def by_three(z: Any, by: float = 3.0) -> Any:
        return by * z

    assert fingerprint(lambda z: np.sin(z)) != fingerprint(lambda z: np.cos(z))
    assert fingerprint(lambda z: np.pi * z) != fingerprint(lambda z: np.e * z)
    assert fingerprint(scaled) != fingerprint(by_three)
    assert fingerprint(with_table(*[0.0] * 2000)) != fingerprint(with_table(1.0, *[0.0] * 1999))

    def of_module(scale: float) -> Any:
        """Return a formula that calls a function of a module with a constant in its body."""
        module = types.ModuleType("helpers")
        exec(f"def curve(z): return {scale} * z", vars(module))
        return lambda z: module.curve(z)

    def of_nested(scale: float) -> Any:
        here = {"scale": scale}
        exec("def f(z): return (lambda v: scale * v)(z)", here)
        return here["f"]

    assert fingerprint(with_table(1.0)) == fingerprint(with_table(1.0))
    assert fingerprint(lambda z: z * 1 + 21) != fingerprint(lambda z: z * 11 + 2)
    for make in (of_module, of_nested):
        assert fingerprint(make(2.0)) != fingerprint(make(3.0))
        assert fingerprint(make(2.0)) == fingerprint(make(2.0))
    assert fingerprint(lambda z: np.sin(z)) == fingerprint(lambda z: np.sin(z))


def test_fingerprints_depend_on_types_modules_and_defaults() -> None:
    first = namedtuple("first", "scale shift")(2.0, 3.0)
    second = namedtuple("second", "shift scale")(2.0, 3.0)
    assert fingerprint(lambda z: first.scale * z) != fingerprint(lambda z: second.scale * z)

    def inside(scale: float) -> Any:
        """Return a formula whose inner function reads a number from a module."""
        module = types.ModuleType("helpers")
        vars(module)["scale"] = scale
        return lambda z: (lambda v: module.scale * v)(z)

    def with_default(scale: float) -> Any:
        def formula(z: Any, *, by: float = scale) -> Any:
            return by * z

        return formula

    for make in (inside, with_default):
        assert fingerprint(make(2.0)) != fingerprint(make(3.0))
        assert fingerprint(make(2.0)) == fingerprint(make(2.0))


def test_the_fingerprint_of_a_compiled_function_is_that_of_its_source() -> None:
    def by(scale: float) -> Any:
        return numba.vectorize(lambda z: scale * z)

    assert fingerprint(by(2.0)) == fingerprint(by(2.0))
    assert fingerprint(by(2.0)) != fingerprint(by(3.0))


def test_a_value_that_cannot_be_described_has_no_fingerprint() -> None:
    thing = object()

    def formula(z: Any) -> Any:
        return (z, thing)[0]

    for _ in range(2):  # the second result comes from the cache
        with pytest.raises(NotImplementedError, match="cannot be described"):
            fingerprint(formula)


def test_two_threads_can_compute_the_same_fingerprint_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def formula(z: Any) -> Any:
        return 2.0 * z

    digest, found = fingerprints._digest, []

    def slow(values: Any) -> str:
        if threading.current_thread() is threading.main_thread():
            other = threading.Thread(target=lambda: found.append(fingerprint(formula)))
            other.start()
            other.join()
        return digest(values)

    monkeypatch.setattr(fingerprints, "_digest", slow)
    name = fingerprint(formula)
    assert found == [name]


def test_kernels_of_other_threads_run_while_a_step_is_recorded() -> None:
    backend = NumbaBackend()
    elsewhere = np.zeros(3)

    def step() -> None:
        other = threading.Thread(target=lambda: backend.fill(elsewhere, 7.0))
        other.start()
        other.join()
        backend.fill(here, 1.0)

    here = np.zeros(3)
    calls = recorder.record(backend, step)
    assert [call.kernel for call in calls] == ["fill"]
    assert calls[0].arguments["array"] is here
    assert (elsewhere == 7).all()
    assert (here == 0).all()
    backend.fill(here, 2.0)  # kernels run again after the recording
    assert (here == 2).all()


def test_two_threads_record_at_once() -> None:
    backend, together = NumbaBackend(), threading.Barrier(2)
    found: dict[int, list[recorder.Call]] = {}

    def record(k: int) -> None:
        def step() -> None:
            together.wait(30.0)
            backend.fill(arrays[k], float(k))
            together.wait(30.0)

        found[k] = recorder.record(backend, step)

    arrays = [np.zeros(2), np.zeros(2)]
    threads = [threading.Thread(target=record, args=(k,)) for k in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in (0, 1):
        assert [call.arguments["value"] for call in found[k]] == [float(k)]
    assert not np.any(arrays)


def test_kernels_of_a_subclass_are_recorded_and_replaced_ones_refused() -> None:
    class Own(NumbaBackend):
        def fill(self, array: Any, value: float) -> None:
            super().fill(array, value + 1.0)

    backend, array = Own(), np.zeros(2)
    calls = recorder.record(backend, lambda: backend.fill(array, 1.0))
    assert [call.arguments["value"] for call in calls] == [1.0]
    assert not array.any()
    backend.fill(array, 1.0)
    assert (array == 2.0).all()
    backend.fill = lambda array, value: None  # type: ignore[method-assign]
    with pytest.raises(recorder.NotRecordable, match="fill replaced on this instance"):
        recorder.record(backend, lambda: backend.fill(array, 1.0))


def test_a_step_that_copies_to_the_host_is_not_recorded() -> None:
    backend, array = NumbaBackend(), np.zeros(2)
    with pytest.raises(recorder.NotRecordable):
        recorder.record(backend, lambda: backend.to_host(array) is None)
    assert "to_host" not in backend.__dict__


def test_a_step_runs_on_one_thread_if_no_other_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 8)), rng.integers(0, 2, 20)
    net = nn.Network([8, 9, nn.Dense(2, "softmax")], "cross_entropy", device=backend_of(3))
    reference = nn.Network([8, 9, nn.Dense(2, "softmax")], "cross_entropy", device=backend_of(3))
    nn.train(reference, x, y, epochs=2, batch_size=8)
    start, started = threading.Thread.start, []

    def refuse_the_second(thread: threading.Thread) -> None:
        started.append(thread)
        if len(started) % 2 == 0:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_the_second)
    threads_of_programs._executor.cache_clear()  # start without waiting threads
    nn.train(net, x, y, epochs=2, batch_size=8)
    assert len(started) >= 2
    np.testing.assert_array_equal(net.theta, reference.theta)


@pytest.mark.parametrize("sizes", [(8, 9, 5), (130, 70, 5), (130, 70, 130, 40)])
def test_one_thread_computes_the_results_of_several_workers(
    sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, sizes[0])), rng.integers(0, sizes[-1], 50)

    def train() -> np.ndarray:
        layers = [sizes[0], *sizes[1:-1], nn.Dense(sizes[-1], "softmax")]
        net = nn.Network(layers, "cross_entropy", device=backend_of(3))
        nn.train(net, x, y, epochs=3, batch_size=16, clip_norm=0.5, l1=1e-3)
        return np.array(net.theta)

    expected, calls = train(), list[int]()
    monkeypatch.setattr(program, "MIN_PARALLEL_WORK", 1 << 60)
    monkeypatch.setattr(threads_of_programs, "make_steps", lambda *_: calls.append(1))
    np.testing.assert_array_equal(train(), expected)
    assert not calls


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_starts_new_workers() -> None:
    x, y = np.eye(8), np.arange(8) % 2

    def train() -> None:
        net = nn.Network([8, 9, nn.Dense(2, "softmax")], "cross_entropy", device=backend_of(2))
        nn.train(net, x, y, epochs=2, batch_size=4)

    train()  # leaves a waiting worker in the pool
    child = multiprocessing.get_context("fork").Process(target=train)
    child.start()
    child.join(60.0)
    child.kill()
    assert child.exitcode == 0


def test_recorded_steps_train_on_a_part_of_the_data() -> None:
    """The order of the rows is shorter than the data: the others are for validation."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((120, 4)).astype(np.float32), rng.integers(0, 3, 120)
    found = []
    for device in (backend_of(2), "numpy"):
        net = nn.Network([4, nn.Dense(6, "tanh"), nn.Dense(3, "softmax")], device=device, seed=0)
        options = {"epochs": 2, "batch_size": 16, "validation": 0.1, "seed": 0}
        history = nn.Model(net, scale="standard").fit(x, y, **options)
        found.append(history["valid_loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("workers", [1, 2])
def test_rows_of_any_layout_are_recorded(
    kind: Any, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recorded_programs(monkeypatch)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, (50, 37)).astype(kind), rng.integers(0, 3, 50)
    wide = np.zeros((100, 40), kind)
    wide[::2, 3:] = x
    theta = []
    for rows in (x, np.asfortranarray(x), wide[::2, 3:], x[::-1][::-1]):
        net = nn.Network([37, 20, nn.Dense(3, "softmax")], device=backend_of(workers))
        nn.train(net, rows, y[::-1][::-1], epochs=2, batch_size=16)
        theta.append(np.array(net.theta))
    assert len(made) == 8  # each with a smaller last batch
    for other in theta[1:]:
        np.testing.assert_array_equal(other, theta[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_predictions_of_many_rows_are_numpys(
    dtype: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction, "WORK_PER_THREAD", 1000)
    rng = np.random.default_rng(0)
    layers: list[Any] = [300, nn.Dense(33, "tanh"), 64, nn.Maxout(5), nn.Dense(3, "softmax")]
    ours = nn.Network(layers, device=backend_of(workers), dtype=dtype)
    reference = nn.Network(layers, device="numpy", dtype="float64")
    reference.set_parameters(*ours.get_parameters())
    for rows in (1, 63, 64, 65, 224, 225, 449):
        x = rng.standard_normal((rows, 300)).astype(dtype)
        expected = reference.outputs(x)
        tolerance = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
        np.testing.assert_allclose(ours.outputs(x), expected, **tolerance)
        np.testing.assert_allclose(ours.outputs(np.asfortranarray(x)), expected, **tolerance)
