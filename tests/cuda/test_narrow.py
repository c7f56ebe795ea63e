"""Steps of narrow networks in one kernel give the results of the same steps call by call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from emulator import LACKING, EmulationError
from narrow_runs import ShortRun, differences
from stand_in import STATE, CompileException, CUDADriverError
from stand_in_backend import new_backend

import nnbackend as nn
from nnbackend_cupy import narrow_source
from nnbackend_cupy.narrow import Device, choose_grid
from nnbackend_cupy.narrow_match import match
from nnbackend_cupy.narrow_source import BLOCK, CLUSTER, GRID, Grid, NotNarrow
from nnbackend_cupy.recorder import Call, Recorder, recorded

pytestmark = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))

GRIDS = {"block": Grid(BLOCK, 1, 64), "cluster": Grid(CLUSTER, 8, 64), "grid": Grid(GRID, 3, 64)}
TOLERANCE = 2e-5  # after 4 steps in float32, against float64


def on(grid: str | Grid | None = None, is_narrow: bool = True) -> Any:
    """Return a new backend that runs narrow steps on a grid, or call by call."""
    backend = new_backend()
    backend.uses_narrow = is_narrow
    backend.narrow_grid = GRIDS[grid] if isinstance(grid, str) else grid
    return backend


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "classes": ("block", {}),
    "classes, cluster": ("cluster", {}),
    "classes, grid": ("grid", {}),
    "one layer": ("grid", {"widths": (7, (4, "softmax"))}),
    "one row": ("block", {"rows": 1, "n": 5}),
    "all rows": ("grid", {"rows": 48, "optimizer": nn.SGD(0.05, 0.9, nesterov=True)}),
    "many inputs": ("grid", {"widths": (200, (30, "sigmoid"), (5, "softmax")), "data": "uint8"}),
    "many inputs, cluster": ("cluster", {"widths": (129, (9, "relu"), (2, "softmax"))}),
    "many inputs, block": (
        "block",
        {"widths": (300, (41, "relu"), (2, "softmax")), "data": "int16", "optimizer": "sgd"},
    ),
    "regression": (
        "cluster",
        {
            "widths": (5, (16, "relu"), (20, "leaky_relu"), (1, "identity")),
            "loss": "quadratic",
            "optimizer": nn.SGD(0.05, 0.9),
            "schedule": "cosine",
        },
    ),
    "several outputs": (
        "grid",
        {"widths": (5, (16, "mish"), (4, "sigmoid")), "loss": "huber", "optimizer": "rmsprop"},
    ),
    "z beside a": (
        "grid",
        {
            "widths": (8, (12, "gelu"), (10, "elu"), (3, "sigmoid")),
            "loss": "binary_cross_entropy",
            "optimizer": "adadelta",
        },
    ),
    "penalties": ("grid", {"l1": 1e-3, "l2": 0.02, "optimizer": "adamw", "rows": 11}),
    "weights and scaled inputs": (
        "cluster",
        {"weighted": True, "scale": "robust", "data": "int32", "optimizer": "adagrad"},
    ),
    "weights of all rows": ("block", {"weighted": True, "scale": "standard", "rows": 48}),
    "many rows": (
        Grid(GRID, 5, 64),
        {"widths": (20, (33, "silu"), (33, "softplus"), (2, "softmax")), "n": 850, "rows": 211},
    ),
    "wide layers": (
        Grid(GRID, 2, 128),
        {"widths": (128, (128, "relu"), (128, "selu"), (3, "softmax")), "rows": 24, "n": 100},
    ),
    "ordinary threads": (
        Grid(CLUSTER, 8),
        {"widths": (20, (64, "relu"), (64, "relu"), (2, "softmax"))},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_steps_are_those_of_numpy(case: str) -> None:
    grid, options = CASES[case]
    narrow = ShortRun(on(grid), **options)
    wanted = ShortRun("numpy", dtype="float64", **options)
    parts = [1] * 4 if "all rows" in case else [1, 3]
    narrow.steps(narrow.captured(), *parts)
    assert narrow.backend.narrow_reason is None
    wanted.steps(wanted.captured(), *parts)
    apart = differences(narrow.state(), wanted.state())
    assert {name: d for name, d in apart.items() if not d < TOLERANCE} == {}
    assert not {"clock", "hyper"} & set(apart)


def test_an_epoch_with_a_smaller_last_batch() -> None:
    narrow, wanted = ShortRun(on("grid")), ShortRun("numpy", dtype="float64")
    for run in (narrow, wanted):
        run.steps(run.captured(), 4)
        run.steps(run.captured(8), 1)
    apart = differences(narrow.state(), wanted.state())
    assert {name: d for name, d in apart.items() if not d < TOLERANCE} == {}


def test_a_run_is_that_of_separate_kernels() -> None:
    states, histories = [], []
    for is_narrow in (True, False):
        backend = on(is_narrow=is_narrow)
        rng = np.random.default_rng(0)
        x = rng.standard_normal((48, 6)).astype(np.float32)
        y = (x @ rng.standard_normal((6, 3))).argmax(axis=1)
        net = nn.Network([6, nn.Dense(9, "tanh"), 3], "cross_entropy", device=backend, seed=4)
        launches = STATE.launches
        history = nn.train(net, x, y, epochs=5, batch_size=10, validation=0.25, l2=1e-3)
        assert (STATE.launches == launches) == is_narrow  # of graphs
        states.append({"theta": backend.to_host(net.theta)})
        histories.append([(row["train_loss"], row["valid_loss"]) for row in history.rows])
    assert all(d < TOLERANCE for d in differences(*states).values())
    np.testing.assert_allclose(*histories, rtol=TOLERANCE)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_number_of_steps_per_launch_changes_no_bit(grid: str) -> None:
    options = {"l2": 0.01, "weighted": True, "rows": 7}
    states = []
    for parts in ([6], [1, 5], [2, 0, 1, 3]):
        run = ShortRun(on(grid), **options)
        run.steps(run.captured(), *parts)
        states.append(run.state())
    assert differences(states[1], states[0]) == differences(states[2], states[0]) == {}


def test_totals_clock_and_rates_are_those_of_separate_kernels() -> None:
    options: dict[str, Any] = {"l1": 0.01, "weighted": True, "schedule": "cosine"}
    narrow = ShortRun(on("cluster"), **options)
    wanted = ShortRun(on(is_narrow=False), **options)
    for run in (narrow, wanted):
        run.steps(run.captured(), 3)
    mine, theirs = narrow.state(), wanted.state()
    assert mine["clock"].tolist() == theirs["clock"].tolist() == [3, 2]
    assert mine["hyper"].tolist() == theirs["hyper"].tolist()
    np.testing.assert_allclose(mine["totals"], theirs["totals"], rtol=1e-6)
    np.testing.assert_allclose(
        narrow.backend.to_host(narrow.builder.grad), wanted.backend.to_host(wanted.builder.grad),
        rtol=1e-3, atol=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize("place", ["weight", "input"])
def test_nan_is_detected(place: str) -> None:
    run = ShortRun(on("cluster"), (6, (9, "relu"), (3, "softmax")))
    array = run.net.theta if place == "weight" else run.runner.loader.x
    host = run.backend.to_host(array)
    host.reshape(-1)[3] = np.nan
    run.backend.to_device(host, out=array)
    run.steps(run.captured(), 4)
    state = run.state()
    assert np.isnan(state["totals"][0])
    assert np.isnan(state["theta"]).any()


def test_divergence_raises_an_error() -> None:
    net = nn.Network([6, nn.Dense(9, "relu"), 1], "quadratic", device=on("block"), seed=4)
    x = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
    with pytest.raises(nn.errors.DivergedError), np.errstate(all="ignore"):
        nn.train(net, x, 1e6 * x[:, :1], optimizer=nn.SGD(1e3), epochs=30, batch_size=10)


# ---- what is refused ----------------------------------------------------------------------------


def refused(run: ShortRun, step: Callable[[], None] | None = None) -> str | None:
    """Return why the kernel does not run a step, after two steps that must be correct."""
    run.steps(run.backend.capture(step or run.step()), 1, 1)
    reason: str | None = run.backend.narrow_reason
    return reason


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"widths": (6, (129, "relu"), (3, "softmax"))}, "a layer of 129 units"),
        ({"dtype": "float64"}, "parameters in float64"),
        ({"n": 1100, "rows": 1025}, "1025 rows"),
        ({"clip_norm": 1.0}, "calls of clip_norm"),
        ({"max_norm": 1.0}, "calls of max_norm"),
        ({"ema": 0.9}, "calls of average"),
    ],
)
def test_unsupported_steps_run_call_by_call(options: dict[str, Any], reason: str) -> None:
    run, wanted = ShortRun(on("block"), **options), ShortRun("numpy", **options)
    assert reason in str(refused(run))
    wanted.steps(wanted.captured(), 1, 1)
    assert all(d < 1e-4 for d in differences(run.state(), wanted.state()).values())


def test_a_row_that_exceeds_the_shared_memory() -> None:
    layers = tuple((128, "gelu") for _ in range(60))
    assert "numbers of shared memory" in str(
        refused(ShortRun(on("block"), (6, *layers, (3, "softmax"))))
    )


def test_cublaslt_computes_large_products(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = on()
    monkeypatch.setitem(type(backend._narrow).plan.__globals__, "MAX_WORK", 800)
    assert "810 multiplications, at most 800" in str(refused(ShortRun(backend)))
    assert refused(ShortRun(on("block"))) is None


@pytest.mark.parametrize("error", [CompileException, CUDADriverError])
def test_a_device_that_does_not_support_the_kernel(
    error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    def launch(*args: Any) -> None:
        raise error("too many resources")

    runs = [ShortRun(on("grid")), ShortRun(on(is_narrow=False))]
    runs[0].backend._narrow._compile = lambda *args: launch
    for run in runs:
        run.steps(run.captured(), 2, 2)
    assert differences(runs[0].state(), runs[1].state()) == {}
    assert "too many resources" in runs[0].backend.narrow_reason
    assert "steps do not run in one kernel" in caplog.text


def test_narrow_steps_can_be_disabled() -> None:
    assert refused(ShortRun(on(is_narrow=False))) == "it is disabled"


def calls_of(run: ShortRun) -> list[Call]:
    """Return the calls of a step."""
    step = run.step()
    run.backend._thread_state.recorder = recorder = Recorder()
    try:
        return recorded(step, recorder)
    finally:
        run.backend._thread_state.recorder = None


def _other(name: str, argument: str, value: Any = None, nth: int = 0) -> Any:
    """Return a change of a call's argument: to a value, a copy, or a copy of a dtype."""

    def change(run: ShortRun, calls: list[Call]) -> None:
        i = [i for i, call in enumerate(calls) if call.name == name][nth]
        arguments, backend = calls[i].arguments, run.backend
        before = arguments[argument]
        if callable(value):
            after = value(before)
        else:
            after = backend.to_device(backend.to_host(before).astype(value or before.dtype))
        calls[i] = Call(name, (), {**arguments, argument: after})

    return change


def _without(name: str, nth: int = 0) -> Any:
    """Return a change that removes a call."""

    def change(run: ShortRun, calls: list[Call]) -> None:
        del calls[[i for i, call in enumerate(calls) if call.name == name][nth]]

    return change


def _without_layer_1(run: ShortRun, calls: list[Call]) -> None:
    for change in (
        _without("dense_forward"),
        _without("dense_backward", -1),
        _other("dense_backward", "dx", lambda dx: None),
    ):
        change(run, calls)


LOOK_ALIKES: list[tuple[str, Any]] = [
    ("parameters outside of the layers", _without_layer_1),
    ("targets of int16", _other("loss_and_delta", "y", "int16")),
    ("rows that are converted", _other("gather_rows", "data", "int64", 1)),
    ("rows that are converted", _other("gather_rows", "data", lambda data: data[:, :, None])),
    ("another order of calls", lambda run, calls: calls.reverse()),
    ("another order of calls", _without("tick")),
    ("another order of calls", lambda run, calls: calls.append(calls[-1])),
    ("layers without a backward pass", _without("dense_backward")),
    ("layers that change in the backward pass", _other("dense_backward", "a")),
    ("layers that change in the backward pass", _other("dense_backward", "phi", lambda phi: None)),
    ("layers that do not follow each other", _other("dense_backward", "dx")),
    ("a gradient at the inputs", _other("dense_backward", "dx", lambda dx: STATE, -1)),
    ("a loss of another array than the output", _other("loss_and_delta", "out")),
    ("a loss of another array than the output", _other("loss_and_delta", "delta")),
    ("two arrays of rates", _other("optimizer_step", "hyper")),
    ("parameters outside of the optimizer's vector", _other("optimizer_step", "theta")),
    ("parameters outside of the optimizer's vector", _other("optimizer_step", "gradient")),
    ("biases among the weights", _other("optimizer_step", "n_weights", lambda n: n + 1)),
    ("strided parameters", _other("optimizer_step", "state", lambda state: [state[0][::2]])),
    ("gradients with another layout", _other("dense_backward", "db", lambda db: db[:-1])),
    ("gathered rows that are not the batch", _without("gather_rows", 1)),
    ("gathered rows that are not the batch", _other("gather_rows", "out")),
    ("a batch that the step modifies in place", lambda run, calls: (
        _without("gather_rows")(run, calls), _without("gather_rows")(run, calls))),
    ("rows in several orders", _other("gather_rows", "order")),
    ("rows in several orders", _other("gather_rows", "clock")),
    ("rows in several orders", _other("gather_rows", "batch_size", lambda n: n + 1)),
    ("another scaling of the inputs", _other("scale_rows", "out")),
    ("a penalty on other weights", _other("add_penalty", "weights", lambda w: w[1:])),
    ("a penalty on other weights", _other("add_penalty", "totals")),
]  # fmt: skip


@pytest.mark.parametrize("i", range(len(LOOK_ALIKES)))
def test_steps_that_are_only_similar_are_refused(i: int) -> None:
    reason, change = LOOK_ALIKES[i]
    run = ShortRun(on("block"), l2=0.1, scale="standard")
    calls = calls_of(run)
    match(calls)
    change(run, calls)
    with pytest.raises(NotNarrow, match=reason):
        match(calls)


def test_a_method_that_is_not_a_kernel_ends_the_recording_without_effect() -> None:
    run, wanted = ShortRun(on("block")), ShortRun(on("block", is_narrow=False))
    seen = []

    def reading(of: ShortRun) -> Callable[[], None]:
        step = of.step()

        def both() -> None:
            step()
            seen.append(of.backend.to_host(of.trainer.state.clock)[0])

        return both

    for of in (run, wanted):
        of.steps(of.backend.capture(reading(of)), 3)
    assert run.backend.narrow_reason == "the step calls to_host"
    assert seen == [1, 2, 3] * 2
    assert differences(run.state(), wanted.state()) == {}


# ---- grids --------------------------------------------------------------------------------------


def test_the_grid_depends_on_the_work() -> None:
    hopper, ampere = Device(132, 90), Device(108, 80)
    assert choose_grid(10_000, hopper) == Grid(CLUSTER, 8)
    assert choose_grid(10_000, ampere) == Grid(GRID, 108)
    assert choose_grid(10_000_000, hopper) == Grid(GRID, 132)


def test_tiles_are_of_equal_width() -> None:
    widths = [narrow_source.tile_width(n) for n in (1, 10, 30, 36, 64, 100, 128)]
    assert widths == [4, 12, 32, 36, 32, 36, 32]


def test_a_block_that_does_not_reach_the_barrier_is_reported() -> None:
    backend = on("grid")
    run = ShortRun(backend)
    compile = backend._narrow._compile
    backend._narrow._compile = lambda text, name, _: compile(
        text.replace("step++;", "if (blockIdx.x == 2) return;\n    step++;"),
        name,
        True,
    )
    with pytest.raises(EmulationError, match="blocks wait for each other in a barrier"):
        run.steps(run.captured(), 1)


@pytest.mark.parametrize("kind", ["strided", "transposed", "float16"])
def test_rows_that_the_kernel_cannot_read_are_trained_call_by_call(kind: str) -> None:
    backend = on()
    host = np.random.default_rng(0).standard_normal((32, 6)).astype(np.float32)
    x: Any = host.astype(np.float16)
    if kind == "strided":
        x = backend.to_device(np.repeat(host, 2, axis=1))[:, ::2]
    elif kind == "transposed":
        x = backend.to_device(np.ascontiguousarray(host.T)).T
    net = nn.Network([6, 5, nn.Dense(2, "identity")], "quadratic", device=backend, dtype="float32")
    history = nn.train(net, x, host[:, :2], epochs=2, batch_size=8)
    assert history.rows[1]["train_loss"] < history.rows[0]["train_loss"]
    assert backend.narrow_reason is not None
