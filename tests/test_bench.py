"""The speed comparison: all contenders do the same work, and the statistics are correct.

No test depends on measured times: figures come from fixed results, or only their type is checked.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import cpu, cpu_extras, cpu_report, fma
from benchmarks.peers import CONTENDERS, JAX
from nnbackend import machine
from nnbackend.bench import process, report, runner, worker
from nnbackend.bench.base import AbstractContender
from nnbackend.bench.contenders import OURS
from nnbackend.bench.rows import Row, make_data, make_parameters, mean_loss, parse_row
from nnbackend.cli import bench
from nnbackend.errors import ArgumentError
from nnbackend_numba.tiles import lanes

ROOT = Path(__file__).resolve().parent.parent
TINY = ("12-24-4:20:adam:30", "12-24-4:20:momentum:30")
# Each loss, kind of layer and number of outputs that the contenders have code for.
OTHERS = (
    *("12-24-1:20:quadratic:40", "12-24-3:20:quadratic:40", "12-24-4:20:maxout3:30"),
    *("12-24-24-4:20:dropout0.25:60", "12-24-2:20:momentum:30"),
)
SECONDS = 0.01


@pytest.fixture(scope="module")
def measured() -> Iterator[Callable[[str, str], dict[str, Any]]]:
    """Yield a function that measures a tiny row in a contender's process, once."""
    with runner.Workers(threads=1) as workers, contextlib.chdir(ROOT):  # finds `benchmarks` there
        yield cache(lambda name, row: workers(("train", CONTENDERS[name].path(), row), SECONDS))


# --- rows -----------------------------------------------------------------------------------------


def test_flops_counted_by_hand() -> None:
    # 3-4-2, 5 rows. Forward: 2*5*3*4 + 2*5*4*2 = 120 + 80. The same again for dW.
    # dx of the second layer only: 2*5*4*2 = 80. In total 200 + 200 + 80.
    assert Row((3, 4, 2), 5).flops == 480
    # 3-4-2, hidden units of 2 pieces: W is 3 x 8 and 4 x 2. Forward: 2*5*3*8 + 2*5*4*2 = 320.
    # The same again for dW. dx of the second layer only: 80.
    assert Row((3, 4, 2), 5, n_pieces=2).flops == 2 * 320 + 80
    assert Row((3, 4, 4, 2), 1, n_pieces=3).flops == 2 * 2 * (36 + 48 + 8) + 2 * (48 + 8)
    # Dropout and the loss add no products.
    assert Row((3, 4, 2), 5, is_regression=True, drop_rate=0.5).flops == 480
    # One layer: no layer below it, so only forward and dW.
    assert Row((7, 3), 2).flops == 2 * (2 * 2 * 7 * 3)


def test_the_rows_of_the_plan() -> None:
    assert [row.title for row in cpu.ROWS[:2]] == ["784-100-10 b128", "784-30-10 b10"]
    titles = [row.title for row in cpu.ROWS]
    assert titles[-3:] == [
        "32-256-256-1 b256, quadratic",
        "784-512-512-10 b128, dropout 0.5",
        "784-256-10 b128, maxout 2",
    ]
    assert len(set(titles)) == len(titles)
    assert [row.layers for row in cpu.ROWS if row.optimizer == "momentum"] == [
        (784, 100, 10), (784, 512, 512, 10), (20, 64, 64, 2),
    ]  # fmt: skip
    for row in cpu.ROWS:
        assert parse_row(row.name) == row
        assert row.n_samples == row.steps * row.batch
        assert row.n_samples * row.layers[0] * 4 <= 41e6


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("4-3-2:8", Row((4, 3, 2), 8)),
        ("4-3-2:8:adam", Row((4, 3, 2), 8)),
        ("4-3-2:8:momentum:7", Row((4, 3, 2), 8, "momentum", 7)),
        ("4-3-1:8:quadratic", Row((4, 3, 1), 8, is_regression=True)),
        ("4-3-2:8:dropout.25", Row((4, 3, 2), 8, drop_rate=0.25)),
        ("4-3-2:8:7:dropout0.5:maxout12", Row((4, 3, 2), 8, "adam", 7, False, 12, 0.5)),
    ],
)
def test_the_text_form_of_a_row(text: str, row: Row) -> None:
    assert parse_row(text) == row
    assert parse_row(row.name) == row


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *((text, "layer sizes and a batch size") for text in ("", "784", "784-10", "784:10")),
        *((text, "layer sizes and a batch size") for text in ("784-x:10", "784-10:0", "4--2:8")),
        *((f"4-3-2:8:{word}", f"An option of a row must be .*Received: '{word}'")
          for word in ("x", "lbfgs", "0", "-3", "maxout1", "maxout", "dropout0", "dropout1.5", "")),
        ("4-3-2:8:adam:momentum", "each option once"),
        ("4-3-2:8:3:maxout2:4", "each option once"),
        ("4-2:8:maxout2", "need a hidden layer"),
        ("4-2:8:dropout0.5", "need a hidden layer"),
        ("4-1:8:momentum", "at least 2 classes.* write 4-1:8:momentum:quadratic"),
    ],
)  # fmt: skip
def test_an_invalid_row_raises(text: str, reason: str) -> None:
    with pytest.raises(ArgumentError, match=reason):
        parse_row(text)


def test_data_are_reproducible_and_begin_with_every_class() -> None:
    row = parse_row(TINY[0])
    (x, y), (x2, y2) = make_data(row), make_data(row)
    assert np.array_equal(x, x2)
    assert np.array_equal(y, y2)
    assert x.dtype == np.float32
    assert x.shape == (600, 12)
    assert y[:4].tolist() == [0, 1, 2, 3]
    assert not np.array_equal(make_data(row, seed=1)[0], x)


def test_mean_loss_by_hand() -> None:
    # z = x W + b = [0, log 3] for every row, so p = [1/4, 3/4].
    parameters = [np.zeros((1, 2), np.float32)], [np.log([1, 3]).astype(np.float32)]
    loss = mean_loss(Row((1, 2), 2), parameters, np.ones((2, 1), np.float32), np.array([0, 1]))
    assert loss == pytest.approx((np.log(4) + np.log(4 / 3)) / 2)


def test_mean_loss_of_a_regression_with_maxout_by_hand() -> None:
    # One input 2, 2 units of 2 pieces: z = [2, -2 | -4, 6], so a = [2, 6], outputs [8, -4].
    W = np.array([[1, -1, -2, 3]], np.float32), np.array([[1, 1], [1, -1]], np.float32)
    parameters = list(W), [np.zeros(4, np.float32), np.zeros(2, np.float32)]
    row = Row((1, 2, 2), 1, is_regression=True, n_pieces=2)
    loss = mean_loss(row, parameters, np.array([[2]], np.float32), np.array([[7, 0]], np.float32))
    assert loss == pytest.approx(0.5 * (1 + 16))


def test_numbers_to_learn_have_a_teacher_and_noise() -> None:
    row = parse_row("12-24-3:20:quadratic:100")
    x, y = make_data(row)
    assert (y.shape, y.dtype) == ((2000, 3), np.float32)
    assert y.var() == pytest.approx(1.0, abs=0.3)
    teacher = np.linalg.lstsq(x, y, rcond=None)[0]
    assert (y - x @ teacher).var() == pytest.approx(0.1, rel=0.1)


# --- contenders -----------------------------------------------------------------------------------


# Compiling PyTorch takes up to a minute: one row is enough for it.
@pytest.mark.parametrize(
    ("name", "row"),
    [
        (name, row)
        for name, kind in CONTENDERS.items()
        for row in (*TINY, *OTHERS)[: 1 if name == "torch-compile" else None]
        if not kind.lacks(parse_row(row))
    ],
)
def test_every_contender_reaches_our_loss(
    name: str, row: str, measured: Callable[[str, str], dict[str, Any]]
) -> None:
    if why := CONTENDERS[name].missing():
        pytest.skip(why)
    answer = measured(name, row)
    ours = measured("nnbackend-numpy", row)
    assert answer["loss_before"] == pytest.approx(ours["loss_before"])
    assert answer["loss"] < 0.95 * answer["loss_before"]
    assert answer["loss"] == pytest.approx(ours["loss"], rel=0.1 if "dropout" in row else 0.05)
    assert answer["steps_before_loss"] == 2 * parse_row(row).steps
    for figure in ("us_per_step", "us_per_resident_step"):
        assert 0 < answer[figure]["min"] <= answer[figure]["median"] <= answer[figure]["max"]
    assert answer["peak_memory"] > 1e6
    assert (answer["threads_set"], answer["cpus"]) == ("1", 1)


@pytest.mark.parametrize("name", ["nnbackend-numpy", "nnbackend-numba", "sklearn"])
@pytest.mark.parametrize("text", ["5-6-3:8:4", "5-6-2:8:4", "5-6-1:8:quadratic:4"])
def test_reset_restores_the_initial_weights(name: str, text: str) -> None:
    row = parse_row(text)
    x, y = make_data(row)
    start = make_parameters(row)
    contender = CONTENDERS[name](row, x, y, start)
    contender.steps(3)
    contender.epochs(2)
    moved = contender.parameters()
    contender.reset()
    again = contender.parameters()
    loss = mean_loss(row, start, x, y)
    assert mean_loss(row, moved, x, y) != pytest.approx(loss)
    # Two classes share one output in scikit-learn: other weights, the same function.
    assert mean_loss(row, again, x, y) == pytest.approx(loss, rel=1e-6)
    assert len(contender.predict(x)) == 32


@pytest.mark.parametrize("name", [name for name in CONTENDERS if name != "torch-compile"])
@pytest.mark.parametrize("text", ["12-9-4:20", "12-9-7-3:20:quadratic", "12-9-7-4:20:maxout3"])
def test_contenders_agree_after_steps_on_one_batch(name: str, text: str) -> None:
    row, kind = parse_row(f"{text}:momentum:4"), CONTENDERS[name]
    if why := kind.missing() or kind.lacks(row):
        pytest.skip(why)
    data, start = make_data(row), make_parameters(row)
    results = []
    for one in (CONTENDERS["nnbackend-numpy"], kind):
        contender = one(row, *data, start)
        contender.reset()
        contender.steps(10)
        results.append(contender.parameters())
    ours, theirs = results
    assert np.abs(ours[0][0] - start[0][0]).max() > 0.01
    for a, b in zip([*ours[0], *ours[1]], [*theirs[0], *theirs[1]], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["nnbackend-numpy", "nnbackend-numba"])
def test_our_resident_step_applies_dropout(name: str) -> None:
    # Adam moves the weights of a unit only if it has a gradient: it is active and was not dropped.
    moved = []
    for text in ("5-64-64-3:1:4", "5-64-64-3:1:dropout0.5:4"):
        row = parse_row(text)
        start = make_parameters(row)
        contender = CONTENDERS[name](row, *make_data(row), start)
        contender.reset()
        contender.steps(1)
        moved.append((contender.parameters()[0][2] != start[0][2]).any(axis=1).sum())
    assert 0 < moved[1] < 0.75 * moved[0]


def test_what_a_library_lacks_is_refused() -> None:
    row = parse_row("5-6-3:8:maxout2:dropout0.5")
    assert CONTENDERS["sklearn"].lacks(row) == "maxout layers and dropout"
    with pytest.raises(ArgumentError, match="scikit-learn has no maxout layers and dropout"):
        CONTENDERS["sklearn"](row, *make_data(row), make_parameters(row))


def test_a_contender_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert JAX.missing() == "jax is not installed"
    with pytest.raises(ArgumentError, match="torch"):
        bench.chosen("toch", CONTENDERS)


def test_the_wheel_has_no_peer_but_scikit_learn() -> None:
    assert bench.PEERS.keys() == {"sklearn"}
    shipped = {*OURS, *bench.PEERS.values()}
    for kind in CONTENDERS.values():
        assert kind.__module__.startswith("nnbackend.") == (kind in shipped)
    for path in (ROOT / "nnbackend" / "bench").glob("*.py"):
        assert not re.search(r"^(import|from) (torch|jax)|library\(.(torch|jax)", path.read_text())


# --- the worker -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (("sgemm",), {"gflops", "rates"}),
        (("facts",), {"blas", "pools"}),
        (("benchmarks.cpu_extras:time_import", "import nnbackend"), {"seconds"}),
        (("benchmarks.fma:peak",), {"gflops", "threads"}),
    ],
)
def test_the_other_measurements(
    words: tuple[str, ...], keys: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with runner.Workers(threads=1) as workers:
        assert keys <= workers(words, SECONDS).keys()


def test_prediction_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_extras, "MANY_ROWS", 2000)
    answer = cpu_extras.predict(CONTENDERS["nnbackend-numpy"].path(), SECONDS)
    assert answer["one_us"]["median"] > 0 < answer["many_ms"]["median"]


def test_a_call_that_is_long_enough_is_a_sample_too() -> None:
    calls: list[int] = []

    def work(n: int) -> None:
        calls.append(n)
        time.sleep(0.01 * n)

    samples = worker.sample(work, 0.02)
    assert calls == [1, 1, 1]
    assert len(samples) == 3
    assert min(samples) >= 0.01


def test_the_peak_is_measured_without_memory_accesses() -> None:
    loop, flops = fma.compiled()
    (assembly,) = loop.inspect_asm().values()
    rounds = re.findall(r"^\s*(v?f?n?m\S*add\w*)\s+(.*)$", assembly, re.MULTILINE)
    fused = [operands for name, operands in rounds if "fm" in name]
    if not fused:
        pytest.skip("this processor has no fused multiply-add of vectors")
    assert not [operands for operands in fused if "(" in operands or "[" in operands]
    assert len(fused) * 2 * lanes("float32") == flops
    out = np.zeros(lanes("float32"), np.float32)
    loop(100, np.float32(0.5), np.float32(1.0), out.ctypes.data)
    np.testing.assert_allclose(out, 2.0 * len(fused))  # every register converged to 2


def test_sample_sizes_fit_the_duration() -> None:
    calls: list[int] = []

    def work(n: int) -> None:
        calls.append(n)
        sum(range(1000 * n))

    samples = worker.sample(work, 1e-3)
    assert worker.FEWEST_SAMPLES <= len(samples) <= worker.SAMPLES
    assert len(set(calls[-len(samples) :])) == 1


def test_worker_and_runner_import_no_array_library() -> None:
    code = (
        "import sys, nnbackend.bench.worker, nnbackend.cli.bench; "
        "print([m for m in ('numpy', 'matplotlib', 'numba', 'torch', 'jax') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


# --- the machine ----------------------------------------------------------------------------------


def test_every_contender_gets_the_same_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    given = process.environment(3)
    assert {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}.isdisjoint(given)
    assert {given[name] for name in machine.THREAD_VARIABLES} == {"3"}
    assert process.environment(3, "SkylakeX")["OPENBLAS_CORETYPE"] == "SkylakeX"


@pytest.mark.parametrize(
    ("flags", "core", "expected"),
    [
        (machine.AVX512 | {"avx2"}, "Haswell", "SkylakeX"),
        (machine.AVX512, "Zen", "SkylakeX"),
        (machine.AVX512, "SkylakeX", ""),
        (machine.AVX512, "", ""),
        ({"avx2", "avx512f"}, "Haswell", ""),
        ({"avx2"}, "Haswell", ""),
    ],
)
def test_unused_kernels_are_requested(flags: set[str], core: str, expected: str) -> None:
    assert machine.choose_coretype(flags, core) == expected


# --- the runner -----------------------------------------------------------------------------------


class FakeWorkers:
    """Returns results without work: a contender's speed, half of it in the second round."""

    def __init__(
        self, us: dict[str, float], crashing: str = "", flags_core: str = "Haswell"
    ) -> None:
        self.us, self.crashing, self.core = us, crashing, flags_core
        self.losses: dict[str, float] = {}
        self.calls: list[tuple[str, ...]] = []
        self.coretypes: list[str] = []

    def __call__(self, words: Sequence[str], seconds: float, coretype: str) -> dict[str, Any]:
        what, *rest = words
        if what == "train":  # the contender's name
            what = next(name for name, kind in CONTENDERS.items() if kind.path() == rest[0])
            words = (what, *rest[1:])
        self.calls.append(tuple(words))
        self.coretypes.append(coretype)
        if what == self.crashing:
            raise runner.WorkerError("exit code 1: it crashed")
        pools = [{"internal_api": "openblas", "architecture": coretype or self.core}]
        if what == "facts":
            return {"blas": "openblas 1", "pools": pools}
        if what == "sgemm":
            return {"gflops": 200.0 if coretype else 100.0, "rates": {}, "pools": pools}
        if what.endswith("time_import"):
            return {"seconds": 0.5}
        if what.endswith("fma:peak"):
            return {"gflops": 250.0, "threads": 2}
        if what.endswith("predict"):
            return {"one_us": spread(5.0), "many_ms": spread(7.0), "many": 1000}
        turn = self.calls.count(tuple(words))
        return {
            "us_per_step": spread(self.us[what] * (2 if turn == 2 else 1)),
            "us_per_resident_step": spread(self.us[what] / 2),
            "loss_before": 2.3, "loss": self.losses.get(what, 1.0), "steps_before_loss": 60,
            "import_s": 0.1,
            "first_step_s": 9.0 if turn == 1 else 1.0,
            "peak_memory": 2**20, "pools": pools,
        }  # fmt: skip


def spread(value: float) -> dict[str, float]:
    return {"median": value, "min": value, "max": value}


SPEEDS = {"nnbackend-numba": 100.0, "sklearn": 400.0, "jax": 200.0}
PLAN = runner.Plan(
    (parse_row("784-100-10:128"), parse_row("20-64-64-2:32")),
    tuple(CONTENDERS[name] for name in SPEEDS),
    threads=2,
)


@pytest.fixture
def all_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AbstractContender, "missing", lambda: "")


def flags(monkeypatch: pytest.MonkeyPatch, found: set[str]) -> None:
    monkeypatch.setattr(machine, "cpu_flags", lambda: sorted(found))


@pytest.mark.usefixtures("all_installed")
def test_contenders_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    flags(monkeypatch, {"avx2"})
    workers, said = FakeWorkers(SPEEDS), list[str]()
    runner.run(PLAN, workers, said.append)
    turns = [words for words in workers.calls if words[0] in SPEEDS]
    one_round = [(name, row.name) for row in PLAN.rows for name in SPEEDS]
    assert turns == one_round * 3
    assert set(workers.coretypes) == {""}
    assert any("round 2 of 3" in line for line in said)


@pytest.mark.usefixtures("all_installed")
def test_medians_ratios_and_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    flags(monkeypatch, {"avx2"})
    result = runner.run(PLAN, FakeWorkers(SPEEDS), lambda line: None)
    row = result["rows"][0]
    ours, sklearn, jax = row["contenders"]
    assert ours["us_per_step"] == {
        "median": 100.0, "min": 100.0, "max": 200.0, "rounds": [100.0, 200.0, 100.0],
    }  # fmt: skip
    # All contenders were slow in the slow round, so the ratios do not change.
    assert ours["of_fastest_peer"] == spread(0.5)
    assert (sklearn["of_fastest_peer"]["median"], jax["of_fastest_peer"]["median"]) == (2.0, 1.0)
    gflops = row["flops_per_step"] / 100e-6 * 1e-9
    assert ours["gflops"] == pytest.approx(gflops)
    assert ours["of_ceiling"] == pytest.approx(gflops / 100.0)
    assert ours["first_step_s"] == [9.0, 1.0, 1.0]


@pytest.mark.usefixtures("all_installed")
def test_a_crash_is_reported_and_not_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    flags(monkeypatch, {"avx2"})
    workers = FakeWorkers(SPEEDS, crashing="sklearn")
    result = runner.run(PLAN, workers, lambda line: None)
    ours, sklearn, _ = result["rows"][0]["contenders"]
    assert sklearn["error"] == "exit code 1: it crashed"
    assert ours["of_fastest_peer"]["median"] == 0.5
    assert workers.calls.count(("sklearn", "784-100-10:128")) == 1
    text = report.times_table(result)
    assert "| failed |" in text
    assert "scikit-learn on 784-100-10 b128 failed: exit code 1: it crashed" in text


@pytest.mark.usefixtures("all_installed")
@pytest.mark.parametrize("loss", [1.2, 0.8, float("nan")])
def test_a_contender_that_learns_something_else_has_failed(
    loss: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags(monkeypatch, {"avx2"})
    workers = FakeWorkers(SPEEDS)
    workers.losses["jax"] = loss
    ours, sklearn, jax = runner.run(PLAN, workers, lambda line: None)["rows"][0]["contenders"]
    assert jax["error"] == f"its loss is {loss:.4f}, the median of all 1.0000"
    assert "us_per_step" not in jax
    assert ours["of_fastest_peer"]["median"] == 0.25  # compared with scikit-learn
    assert not sklearn["error"]
    workers.losses["jax"] = 1.05
    assert not runner.run(PLAN, workers, lambda line: None)["rows"][0]["contenders"][2]["error"]


@pytest.mark.usefixtures("all_installed")
def test_a_row_that_a_library_cannot_train_is_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    flags(monkeypatch, {"avx2"})
    rows = tuple(map(parse_row, ("9-8-3:8", "9-8-3:8:dropout0.5", "9-8-3:8:dropout0.2")))
    workers = FakeWorkers(SPEEDS)
    result = runner.run(runner.Plan(rows, PLAN.contenders), workers, lambda line: None)
    assert [row for name, *row in workers.calls if name == "sklearn"] == [["9-8-3:8"]] * 3
    lines = report.times_table(result).splitlines()
    assert lines[3] == (
        "| 9-8-3 b8, dropout 0.5 | **100 (100–200)** | — | 200 (200–400) | 0.500 (0.500–0.500) |"
    )
    reason = "- — scikit-learn has no dropout: 9-8-3 b8, dropout 0.5; 9-8-3 b8, dropout 0.2"
    assert lines[5:] == ["", reason]
    assert bench.our_failures(result) == []
    assert cpu_report.picture(result).startswith(b"\x89PNG")


@pytest.mark.usefixtures("all_installed")
def test_unused_kernels_are_requested_for_all_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    flags(monkeypatch, machine.AVX512 | {"avx2"})
    workers = FakeWorkers(SPEEDS)
    result = runner.run(PLAN, workers, lambda line: None)
    used = {
        c for words, c in zip(workers.calls, workers.coretypes, strict=True) if words[0] in SPEEDS
    }
    assert used == {"SkylakeX"}
    assert result["settings"]["openblas_coretype"] == "SkylakeX"
    assert [c["gflops"] for c in result["ceilings"]] == [100.0, 200.0]
    ours = result["rows"][0]["contenders"][0]
    assert ours["of_ceiling"] == pytest.approx(ours["gflops"] / 200.0)
    assert "OPENBLAS_CORETYPE=SkylakeX set for all" in report.facts(result)


def test_missing_contenders_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AbstractContender, "missing", lambda: "")
    monkeypatch.setattr(JAX, "missing", lambda: "no jax here")
    workers = FakeWorkers(SPEEDS)
    result = runner.run(PLAN, workers, lambda line: None)
    assert result["settings"]["left_out"] == {"jax": "no jax here"}
    assert not [words for words in workers.calls if words[0] == "jax"]


def test_a_failing_worker_reports_the_reason() -> None:
    with (
        runner.Workers(threads=1) as workers,
        pytest.raises(runner.WorkerError, match="No module named 'nobody'"),
    ):
        workers(("train", "nobody:Library", TINY[0]), SECONDS)


def test_a_hanging_worker_times_out() -> None:
    with (
        runner.Workers(threads=1, patience=0.01) as workers,
        pytest.raises(runner.WorkerError, match="no answer after"),
    ):
        workers(("facts",), SECONDS)


# --- the report -----------------------------------------------------------------------------------


def workers_for(threads: int) -> contextlib.AbstractContextManager[FakeWorkers]:
    return contextlib.nullcontext(FakeWorkers(SPEEDS))


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch, all_installed: None) -> dict[str, Any]:
    """Return a result as read back from its file."""
    flags(monkeypatch, {"avx2"})
    result = cpu.measure([PLAN], False, workers_for, lambda line: None)
    (run,) = result["runs"]
    run["machine"] |= {"cpu": "AMD EPYC (family 25, model 1)", "load_average": [0.1, 0.1, 0.1]}
    run["date"] = "2026-01-02T03:04:05+00:00"
    back: dict[str, Any] = json.loads(json.dumps(result))
    return back


def test_the_table(stored: dict[str, Any]) -> None:
    stored = stored["runs"][0]
    lines = report.times_table(stored).splitlines()
    assert lines[0].startswith("| layers, batch | nnbackend, numba | scikit-learn | JAX |")
    assert lines[2] == (
        "| 784-100-10 b128 | **100 (100–200)** | 400 (400–800) | 200 (200–400) "
        "| 0.500 (0.500–0.500) |"
    )
    assert "not quiet" not in report.facts(stored)
    stored["machine"]["load_average"][0] = 3.0
    assert "not quiet" in report.facts(stored)


def test_the_files(stored: dict[str, Any], tmp_path: Path) -> None:
    paths = cpu_report.write(stored, tmp_path / "results")
    names = [path.name for path in paths]
    assert names == [f"cpu-amd-epyc-25-model-1-2026-01-02{s}" for s in (".json", ".md", ".png")]
    assert json.loads(paths[0].read_text(encoding="utf-8")) == stored
    text = paths[1].read_text(encoding="utf-8")
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| 784-100-10")}
    assert "## Loss after the same number of steps" in text
    assert "| PyTorch" not in text
    assert "| JAX | 5.00 (5.00–5.00) | 7.00 (7.00–7.00) |" in text
    assert "| JAX | 0.500 (0.500–0.500) |" in text
    assert widths
    assert not re.search(r"\bnan\b|\binf\b|None", text)
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_the_shares_of_two_ceilings(stored: dict[str, Any]) -> None:
    # 784-100-10, 128 rows: 2 * 128 * (2 * (78400 + 1000) + 1000) = 40.9 million in 100 us, which is
    # 409 GFLOP/s; sgemm reaches 100, the cores 250.
    assert "in registers: 250 GFLOP/s" in cpu_report.markdown(stored)
    line = "| 784-100-10 b128 | nnbackend, numba | 40.9 | 409 | 409% | {} |"
    assert line.format("164%") in cpu_report.rates_table(stored["runs"][0])
    stored["runs"][0]["peak"] = None
    assert line.format("—") in cpu_report.rates_table(stored["runs"][0])


def test_each_number_of_threads_has_its_tables(
    monkeypatch: pytest.MonkeyPatch, all_installed: None, tmp_path: Path
) -> None:
    flags(monkeypatch, {"avx2"})
    started: list[int] = []

    def start(threads: int) -> contextlib.AbstractContextManager[FakeWorkers]:
        started.append(threads)
        return workers_for(threads)

    plans = [replace(PLAN, rounds=1, threads=threads) for threads in cpu.thread_counts("1,2,1")]
    result = cpu.measure(plans, False, start, lambda line: None)
    assert started == [1, 2]
    paths = cpu_report.write(result, tmp_path, "both")
    endings = (".json", ".md", "-threads1.png", "-threads2.png")
    assert [path.name for path in paths] == [f"both{ending}" for ending in endings]
    text = paths[1].read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Threads: 1", "## Threads: 2", "## Import, in seconds",
    ]  # fmt: skip
    assert text.count("### Time of a training step") == 2
    assert len(cpu.measure(plans[:1], True, start, lambda line: None)["imports"]) == 0


def test_the_option_threads(capsys: pytest.CaptureFixture[str]) -> None:
    assert cpu.thread_counts("") == (0,)
    for words, reason in (("1,x", "separated by commas"), ("-1", "at least 1")):
        assert cpu.main([f"--threads={words}"]) == 2
        assert reason in capsys.readouterr().err


def test_the_published_result_can_still_be_read() -> None:
    """Its page is what the report makes of its file."""
    (path,) = (ROOT / "benchmarks" / "results").glob("cpu-*.json")
    result = json.loads(path.read_text(encoding="utf-8"))
    assert path.with_suffix(".md").read_text(encoding="utf-8") == cpu_report.markdown(result)


# --- the command line -----------------------------------------------------------------------------


def test_the_verb(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stored: dict[str, Any]
) -> None:
    plans: list[runner.Plan] = []

    def carry_out(plan: runner.Plan) -> dict[str, Any]:
        plans.append(plan)
        return stored

    stored = stored["runs"][0]
    monkeypatch.setattr(bench, "carry_out", carry_out)
    parser = argparse.ArgumentParser()
    bench.configure(parser)
    words = ["--compare", "sklearn", "--rows", "4-3-2:8", "--rounds", "1", "--json"]
    assert bench.run(parser.parse_args(words)) == 0
    names = [kind.name for kind in plans[0].contenders]
    assert names == ["nnbackend-numpy", "nnbackend-numba", "sklearn"]
    assert plans[0].rows == (Row((4, 3, 2), 8),)
    out = capsys.readouterr().out
    assert json.loads(out.splitlines()[-1]) == stored
    stored["rows"][0]["contenders"][0]["error"] = "broken"
    assert bench.run(parser.parse_args(words)) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["--compare", "keras"],
        ["--compare", "torch"],
        ["--rows", "x"],
        ["--rounds", "0"],
        ["--seconds", "nan"],
        ["--threads", "-1"],
    ],
)
def test_invalid_usage_is_an_error(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    bench.configure(parser)
    with pytest.raises(ArgumentError):
        bench.run(parser.parse_args(words))
