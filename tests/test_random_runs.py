"""Random training runs have the properties of `nnbackend.testing.run_properties`.

`python -m nnbackend.testing.soak --minutes 60` draws new ones; here they are always the same.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nnbackend.devices import get_backend
from nnbackend.errors import BackendError
from nnbackend.testing.run_bounds import Disagreement, Unsuitable
from nnbackend.testing.run_cases import RunCase
from nnbackend.testing.run_properties import PROPERTIES, devices_agree
from nnbackend.testing.soak import Tally, check_random_runs, main
from nnbackend.training.state import TrainState

EXAMPLES = 40
NumPy = type(get_backend("numpy"))


def devices() -> tuple[str, ...]:
    try:
        get_backend("numba")
    except BackendError:
        return "numpy", "reference", "ghost"
    return "numpy", "reference", "ghost", "numba"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # losses that overflow are among the runs
@pytest.mark.parametrize("name", list(PROPERTIES))
def test_property(name: str) -> None:
    tally = Tally()
    check_random_runs(name, devices(), tally, examples=EXAMPLES)
    assert not tally.failures, "\n".join(tally.failures[0])
    assert tally.runs - tally.skipped >= EXAMPLES


# ---- planted faults -----------------------------------------------------------------------------

Plant = Callable[[pytest.MonkeyPatch], None]


def second_step_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the second step of RMSProp go up."""
    step = NumPy.optimizer_step

    def wrong(self: Any, rule: Any, theta: Any, gradient: Any, state: Any, hyper: Any, *rest: Any):  # type: ignore
        before = theta.copy()
        step(self, rule, theta, gradient, state, hyper, *rest)
        if rule.kernel == "rmsprop" and hyper[2] == 2:
            theta[...] = 2 * before - theta

    monkeypatch.setattr(NumPy, "optimizer_step", wrong)


def last_batch_begins_a_row_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a partial last batch begin with the last row of the batch before."""
    gather = NumPy.gather_rows

    def wrong(self: Any, data: Any, order: Any, clock: Any, batch_size: int, out: Any) -> None:
        gather(self, data, order, clock, batch_size, out)
        first, n = int(clock[1]) * batch_size, len(out)
        if first and n < batch_size:
            out[...] = data[order[first - 1 : first - 1 + n]]

    monkeypatch.setattr(NumPy, "gather_rows", wrong)


def resume_loses_the_average(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a resumed run restart its average of the weights."""
    load = TrainState.load_state_dict

    def wrong(self: TrainState, *args: Any) -> None:
        load(self, *args)
        if self.ema_weights is not None:
            self.backend.copy(self.theta, self.ema_weights)

    monkeypatch.setattr(TrainState, "load_state_dict", wrong)


def sums_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sum the gradients of the biases in float32."""
    backward = NumPy.dense_backward

    def wrong(self: Any, x, W, z, a, phi, delta, dW, db, dx) -> None:  # type: ignore
        backward(self, x, W, z, a, phi, delta, dW, db, dx)
        db[...] = delta.astype("float32").sum(axis=0)

    monkeypatch.setattr(NumPy, "dense_backward", wrong)


def biases_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decay the biases too."""
    step = NumPy.optimizer_step

    def wrong(self: Any, rule, theta, gradient, state, hyper, decay, n_weights) -> None:  # type: ignore
        step(self, rule, theta, gradient, state, hyper, decay, theta.size)

    monkeypatch.setattr(NumPy, "optimizer_step", wrong)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("plant", "name", "word"),
    [
        (second_step_turns, "devices_agree", "rmsprop"),
        (last_batch_begins_a_row_early, "devices_agree", "batch_size"),
        (resume_loses_the_average, "resumed_is_undisturbed", "ema"),
        (sums_in_float32, "devices_agree", "RunCase(devices=('numpy', 'numpy'))"),
        (biases_decay, "devices_agree", "weight_decay"),
    ],
)
def test_planted_fault(plant: Plant, name: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    tally = Tally()
    check_random_runs(name, ("numpy",), tally, examples=500)
    ((message, program),) = tally.failures
    assert word in program
    assert len(program.splitlines()) == 4
    with pytest.raises(Disagreement) as raised:  # the printed program finds it too
        exec(program, {})
    assert str(raised.value) in message
    monkeypatch.undo()
    exec(program, {})


# ---- the pieces ---------------------------------------------------------------------------------


def test_a_case_prints_as_the_program_that_makes_it() -> None:
    case = RunCase(layers=("wave:3", "softmax:2"), loss="cross_entropy", options={"l2": 0.1})
    assert eval(repr(case)) == case
    assert repr(RunCase()) == "RunCase()"


def test_a_run_that_rounding_decides_is_not_compared() -> None:
    with pytest.raises(Unsuitable, match="L-BFGS"):
        devices_agree(RunCase(options={"optimizer": "lbfgs"}))
    # Two epochs without a change have equal costs.
    idle = {"optimizer": "sgd:learning_rate=1e-30", "early_stopping": {"patience": 2}}
    with pytest.raises(Unsuitable, match="which epoch is the best"):
        devices_agree(RunCase(rows=4, options=idle))


def test_data_words_change_the_data() -> None:
    plain = RunCase(n_in=2, rows=6).draw_data()
    far = RunCase(n_in=2, rows=6, data=("far", "duplicates")).draw_data()
    assert far.x[:, 0].min() > 9e5
    assert np.array_equal(far.x[:3], far.x[3:])
    assert np.array_equal(far.y[:3], far.y[3:])
    assert np.array_equal(plain.x[:3, 1], far.x[:3, 1])


def test_soak_prints_counts_and_programs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--minutes", "0.01", "--seed", "3", "--property", "loss_decreases"]
    assert main([*arguments, "--devices", "numpy"]) == 0
    assert "loss_decreases" in capsys.readouterr().out
    sums_in_float32(monkeypatch)
    arguments[-1] = "devices_agree"
    assert main([*arguments, "--devices", "numpy"]) == 1
    printed = capsys.readouterr().out
    assert "devices_agree(RunCase(devices=('numpy', 'numpy')))" in printed
    runs, _, disagreements, _ = printed.splitlines()[-1].split()[1:]
    assert int(runs) >= int(disagreements) >= 1


def test_without_hypothesis_the_error_names_it() -> None:
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "import nnbackend.testing.run_properties\n"
        "import nnbackend.testing.strategies"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'nnbackend[kit]'" in done.stderr
