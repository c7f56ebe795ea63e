"""`benchmarks.gpu_peers`: rows, data sizes and answers, with a stand-in for PyTorch and JAX."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks import gpu_peers, gpu_rows
from benchmarks.gpu_peer_libraries import LeftOut
from benchmarks.gpu_peers import main
from benchmarks.gpu_rows import Form, Work, data_size, make_work, measure, parse_row


class Peer:
    """A stand-in whose loss falls at each step, except for networks of one input."""

    version = "stand-in 1"

    def __init__(self, contender: str, work: Work, precision: str, is_emulated: bool) -> None:
        if work.layers[0] == 13:
            raise RuntimeError("no memory\nfor it")
        if work.layers[0] == 14:
            raise LeftOut("no GPU here")
        self.work, self.n_steps = work, 0

    def reset(self) -> None:
        self.n_steps = 0

    def forms(self) -> Iterator[Form]:
        yield Form("one", 1, self.step)
        yield Form("two", 2, lambda: (self.step(), self.step(), None)[-1])

    def step(self) -> None:
        self.n_steps += self.work.layers[0] > 1

    def loss(self) -> float:
        return 1 / (1 + self.n_steps)

    def multiply(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a @ b

    def wait(self) -> None:
        pass


Answers = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Answers:
    """Return a function that returns the stand-in's answers for rows."""
    monkeypatch.setitem(gpu_peers.CONTENDERS, "jax", ("json", Peer))

    def run(*rows: str) -> list[dict[str, Any]]:
        assert main(["jax", *rows, "--emulated", "--seconds", "1e-4"]) == 0
        lines = capsys.readouterr().out.splitlines()
        return [json.loads(line.removeprefix("ANSWER ")) for line in lines]

    return run


def test_a_row_is_widths_and_batch() -> None:
    assert parse_row("784-100-10:128") == ([784, 100, 10], 128)


@pytest.mark.parametrize(
    "row", ["784:128", "784-10", "784-10:", "784-x:1", "784-0:1", "", "1-2:-3"]
)
def test_other_rows_are_refused(row: str) -> None:
    with pytest.raises(ValueError, match=r"like 784-100-10:128\. row="):
        parse_row(row)


@pytest.mark.parametrize(
    ("row", "n"),
    [
        ("784-100-10:128", 51_200),
        ("784-512-512-10:1024", 60_000),
        ("64-64-1:65536", 131_072),
        ("4096-4096:8192", 16_384),
        ("2048-10:16", 32),
    ],
)
def test_data_size(row: str, n: int) -> None:
    assert data_size(*parse_row(row)) == n


@pytest.mark.parametrize(
    ("row", "steps"), [("3-2:16", 400), ("3-2:1100", 48), ("3-2:40000", 16), ("2048-2:8", 4)]
)
def test_batches_are_parts_of_one_permutation(row: str, steps: int) -> None:
    work = make_work(row)
    assert work.windows.shape == (steps, work.batch)
    n_different = min(steps, len(work.x) // work.batch) * work.batch
    assert len(np.unique(work.windows)) == n_different
    assert work.x.dtype == work.y.dtype == work.theta[0][0].dtype == np.float32
    assert np.array_equal(work.windows, make_work(row).windows)


def test_every_row_has_an_answer_and_errors_affect_one_row(answers: Answers) -> None:
    first, broken, misspelt, left_out, last = answers("4-3:2", "13-3:2", "4:2", "14-3:2", "5-3:2")
    assert first["us_per_step"].keys() == first["spread"].keys() == {"float32", "tf32"}
    assert first["spread"]["tf32"]["min"] <= first["us_per_step"]["tf32"]
    assert first["form"]["float32"] in ("one", "two")
    assert first["steps"] >= 1
    assert first["version"] == "stand-in 1"
    assert first["loss"]["float32"]["after_16_steps"] == pytest.approx(1 / 17)
    assert first["product_error"]["float32"] < 1e-6
    assert broken["error"].startswith("RuntimeError: no memory for it (")
    assert "4:2" in misspelt["error"]
    assert left_out == {"row": "14-3:2", "contender": "jax", "left_out": "no GPU here"}
    assert (last["row"], last["contender"]) == ("5-3:2", "jax")
    assert "us_per_step" in last


def test_a_peer_that_learns_nothing_is_an_error(answers: Answers) -> None:
    (answer,) = answers("1-3:2")
    assert "did not fall" in answer["error"]
    assert "us_per_step" not in answer


@pytest.mark.parametrize("contender", gpu_peers.CONTENDERS)
def test_without_the_library_every_row_is_left_out(
    contender: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main([contender, "4-3:2", "5-3:2", "--emulated"]) == 0
    found = [json.loads(line[7:]) for line in capsys.readouterr().out.splitlines()]
    assert [answer["row"] for answer in found] == ["4-3:2", "5-3:2"]
    assert all("is not installed" in answer["left_out"] for answer in found)


def test_measurements_have_the_requested_length(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, waits = [0.0], []

    def run() -> None:
        # Slow for the first second.
        clock[0] += 1e-3 if clock[0] < 1 else 1e-4

    monkeypatch.setattr(gpu_rows.time, "perf_counter", lambda: clock[0])
    found, steps = measure(Form("f", 2, run), lambda: waits.append(clock[0]), 0.3, 1.0)
    assert found == pytest.approx([5e-5] * 5)
    assert steps * 5e-5 >= 0.3
    assert waits[-6] > 1.0
    assert min(np.diff(waits[-6:])) >= 0.3
