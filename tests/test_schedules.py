"""Schedules: end points, direction, restarts, plateaus, and their effect in training."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend import schedules
from nnbackend.errors import ArgumentError
from nnbackend.training.optimizers import OPTIMIZERS
from nnbackend.training.schedules import SCHEDULES, ScheduleContext, get_schedule, values_of

STEPS, EPOCHS = 8, 10


def rates(schedule: Any, base: float = 1.0, values: tuple[float, ...] = ()) -> np.ndarray:
    """Return the value of each step of a run of 10 epochs with 8 steps each."""
    steps = np.arange(STEPS * EPOCHS, dtype=np.float64)
    schedule = get_schedule(schedule, "momentum_schedule")
    return values_of(schedule, base, ScheduleContext(steps, STEPS, EPOCHS, values))


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_every_schedule_returns_one_number_per_step(name: str) -> None:
    got = rates(name, 0.5)
    assert got.shape == (80,)
    assert got.dtype == np.float64
    assert (got >= 0).all()
    assert np.isfinite(got).all()
    if name != "ramp":  # returns values, not factors
        assert got.max() <= 0.5
        np.testing.assert_allclose(rates(name, 5.0), 10 * got, rtol=1e-12)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_values_by_epoch_equal_those_of_the_whole_run(name: str) -> None:
    schedule, whole = get_schedule(name, "momentum_schedule"), rates(name)
    parts = [
        values_of(schedule, 1.0, ScheduleContext(np.arange(8.0) + 8 * e, STEPS, EPOCHS))
        for e in range(EPOCHS)
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize(
    "schedule",
    ["step", "exponential", "inverse_scaling", "polynomial", "cosine", schedules.Polynomial(3.0)],
    ids=str,
)
def test_decay_begins_at_the_base_and_never_rises(schedule: Any) -> None:
    got = rates(schedule, 0.3)
    assert got[0] == pytest.approx(0.3, rel=1e-15)
    assert (np.diff(got) <= 0).all()
    assert got[-1] < 0.3 or schedule == "step"  # by default after 10 epochs


def test_constant() -> None:
    assert (rates(None, 0.3) == 0.3).all()
    assert (rates("constant", 0.3) == 0.3).all()


def test_step_decays_every_n_epochs() -> None:
    got = rates(schedules.Step(every=4, gamma=0.5)).reshape(EPOCHS, STEPS)
    np.testing.assert_array_equal(got, got[:, :1] * np.ones(STEPS))
    np.testing.assert_allclose(got[:, 0], [1] * 4 + [0.5] * 4 + [0.25] * 2)


def test_exponential_has_a_floor() -> None:
    got = rates(schedules.Exponential(0.9, floor=0.05))
    np.testing.assert_allclose(got[1:20] / got[:19], 0.9, rtol=1e-12)
    assert (got[40:] == 0.05).all()


def test_inverse_scaling_equals_scikit_learns() -> None:
    got = rates(schedules.InverseScaling(0.5), 0.2)
    # sklearn.neural_network: effective_learning_rate = learning_rate_init / (t + 1) ** power_t
    assert [got[0], got[3], got[24]] == pytest.approx([0.2, 0.1, 0.04])


def test_polynomial_reaches_its_end() -> None:
    got = rates(schedules.Polynomial(power=1.0, end=0.1))
    np.testing.assert_allclose(np.diff(got), -0.9 / 80, rtol=1e-9)
    assert got[-1] == pytest.approx(0.1 + 0.9 / 80)
    early = rates(schedules.Polynomial(power=2.0, end=0.1, epochs=5))
    assert early[20] == pytest.approx(0.1 + 0.9 / 4)  # half of the 5 epochs, squared
    assert (early[40:] == 0.1).all()


def test_cosine_is_halfway_in_the_middle() -> None:
    got = rates(schedules.Cosine(end=0.2))
    assert got[40] == pytest.approx(0.6)
    assert got[20] + got[60] == pytest.approx(1.2)
    assert got[-1] == pytest.approx(0.2, abs=1e-3)


@pytest.mark.parametrize(
    ("growth", "starts"),
    [(1.0, [0, 20, 40, 60]), (3.0, [0, 2, 8, 26]), (2.0, [0, 16 / 3, 16, 112 / 3])],
)
def test_cosine_restarts(growth: float, starts: list[float]) -> None:
    got = rates(schedules.Cosine(restarts=3, growth=growth))
    rises = np.flatnonzero(np.diff(got) > 0) + 1
    np.testing.assert_array_equal(rises, [math.ceil(s) for s in starts[1:]])
    if growth == 1.0:
        np.testing.assert_allclose(got[[0, 20, 40, 60]], 1.0)
        np.testing.assert_allclose(got.reshape(4, 20), got[:20] * np.ones((4, 1)), rtol=1e-9)


def test_one_cycle_rises_and_then_falls() -> None:
    got = rates(schedules.OneCycle(warm=0.25, start=0.1, end=0.01))
    assert got[0] == pytest.approx(0.1)
    assert got[20] == got.max() == 1.0
    assert (np.diff(got[:21]) > 0).all()
    assert (np.diff(got[20:]) < 0).all()
    assert got[-1] == pytest.approx(0.01, abs=2e-3)
    assert got[10] == pytest.approx(0.55)  # a half cosine is halfway in the middle


def test_warm_up_rises_linearly_to_the_next_schedule() -> None:
    got = rates(schedules.WarmUp(2.0))
    np.testing.assert_allclose(got[:16], np.arange(1, 17) / 16)
    assert (got[15:] == 1.0).all()
    then = schedules.Cosine()
    mixed = rates(schedules.WarmUp(2.0, then))
    np.testing.assert_array_equal(mixed[16:], rates(then)[16:])
    assert (mixed[:15] < rates(then)[:15]).all()


def test_plateau_on_a_constructed_history() -> None:
    schedule = schedules.Plateau(gamma=0.5, patience=2, min_delta=0.1, end=0.2)

    def after(*values: float) -> float:
        got = rates(schedule, 1.0, values)
        assert (got == got[0]).all()
        return float(got[0])

    assert after() == 1.0
    assert after(5.0, 4.0, 3.0) == 1.0
    assert after(5.0, 5.0) == 1.0  # one epoch without a fall
    assert after(5.0, 5.0, 5.0) == 0.5
    assert after(5.0, 4.95, 4.95) == 0.5  # falls, but by less than min_delta
    assert after(5.0, 5.0, 4.0, 4.0) == 1.0  # the count restarts
    assert after(5.0, 5.0, 5.0, 5.0) == 0.5
    assert after(5.0, *[5.0] * 4) == 0.25
    assert after(5.0, *[5.0] * 20) == 0.2  # the lower limit
    assert after(5.0, float("nan"), float("nan")) == 0.5


def test_ramp_returns_values() -> None:
    got = rates(schedules.Ramp(0.5, 0.9, epochs=5), base=123.0)
    assert got[0] == 0.5
    assert got[20] == pytest.approx(0.7)
    assert (got[40:] == 0.9).all()


def test_a_plain_function_receives_steps_from_1() -> None:
    np.testing.assert_array_equal(rates(lambda step: 1.0 / step, base=9.0), 1.0 / np.arange(1, 81))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: schedules.Step(every=0), "every must be a number above 0. Received: every=0"),
        (lambda: schedules.Step(gamma=-1.0), "gamma must be a number above 0"),
        (lambda: schedules.Exponential(0.0), "gamma must be a number above 0"),
        (lambda: schedules.InverseScaling(-1.0), "power must be a number above 0"),
        (lambda: schedules.Polynomial(0.0), "power must be a number above 0"),
        (lambda: schedules.Polynomial(epochs=0), "epochs must be a number above 0"),
        (lambda: schedules.Cosine(restarts=-1), "restarts must be .*at least 0"),
        (lambda: schedules.Cosine(restarts=1.5), "restarts must be a whole number"),
        (lambda: schedules.Cosine(growth=0.0), "growth must be a number above 0"),
        (lambda: schedules.OneCycle(warm=0.0), "warm must be a number between 0 and 1"),
        (lambda: schedules.OneCycle(warm=1.0), "warm must be a number between 0 and 1"),
        (lambda: schedules.WarmUp(0.0), "epochs must be a number above 0"),
        (lambda: schedules.Plateau(patience=0), "patience must be a number above 0"),
        (lambda: schedules.Plateau(gamma=0.0), "gamma must be a number above 0"),
        (lambda: schedules.Ramp(epochs=0), "epochs must be a number above 0"),
        (lambda: get_schedule("cosin"), "Received: schedule='cosin'.*Did you mean 'cosine'"),
        (lambda: get_schedule(0.5), "schedule must be a name, a schedule or a function"),
        (lambda: get_schedule("ramp"), "Received: schedule='ramp'. Known: constant, cosine"),
        (lambda: get_schedule("rampe", "momentum_schedule"), "momentum_schedule must be a name"),
    ],
)
def test_invalid_options_are_refused(make: Any, text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        make()


# ---- in training ------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(16, 3))
Y = X[:, 0]


def network() -> nn.Network:
    return nn.Network([3, 4, 1], activation="tanh", device="numpy", dtype="float64")


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"lbfgs"}))
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_every_schedule_works_with_every_rule(schedule: str, name: str) -> None:
    if schedule == "ramp":  # a ramp returns rates, not factors
        chosen: Any = schedules.Ramp(1e-4, 1e-2, 2)
    else:
        chosen = schedule
    history = nn.train(
        network(), X, Y, optimizer=OPTIMIZERS[name](1e-3), epochs=3, batch_size=6, schedule=chosen
    )
    # The history contains the rate of an epoch's last step; 3 steps of 6, 6 and 4 rows.
    steps = np.arange(9.0)
    expected = values_of(
        get_schedule(chosen), 1e-3, ScheduleContext(steps, 3, 3, tuple(history["train_loss"]))
    )
    if schedule == "plateau":
        expected = np.full(9, 1e-3)
    assert history["learning_rate"] == list(expected[[2, 5, 8]])


def test_each_step_uses_its_rate() -> None:
    """Check the weights of a linear unit after three steps of SGD, worked out by hand.

    One row x = 1, y = 0; w and b start at 1 and 0; with s = w + b the
    gradient of both is s, so s <- s (1 - 2 lr): 1, then 0.8, 0.32, 0 for rates 0.1, 0.3, 0.5.
    """
    net = nn.Network([1, nn.Dense(1, "identity", weights=1.0)], device="numpy", dtype="float64")
    given = {1: 0.1, 2: 0.3, 3: 0.5}
    history = nn.train(net, [[1.0]], [0.0], optimizer=nn.SGD(99.0), epochs=3, schedule=given.get)
    assert history["learning_rate"] == [0.1, 0.3, 0.5]
    assert history["train_loss"] == pytest.approx([0.5, 0.32, 0.0512])
    assert net.weights[0][0, 0] + net.biases[0][0] == pytest.approx(0.0, abs=1e-15)


def test_plateau_uses_the_monitor_in_training() -> None:
    net = network()
    schedule = schedules.Plateau(gamma=0.5, patience=1, min_delta=1e9)
    history = nn.train(net, X, Y, optimizer=nn.SGD(0.08), epochs=5, schedule=schedule)
    # The first epoch is always a fall (from infinity); after it none is.
    assert history["learning_rate"] == [0.08, 0.08, 0.04, 0.02, 0.01]


def test_a_momentum_ramp_is_a_momentum() -> None:
    """A constant ramp equals that momentum, and a rising one does not."""
    ends = []
    for momentum, ramp in (
        (0.7, None),
        (0.0, schedules.Ramp(0.7, 0.7)),
        (0.2, schedules.Ramp(0.7, 0.7)),
        (0.0, schedules.Ramp(0.1, 0.9, 2)),
        (0.0, lambda step: 0.7),
    ):
        net = network()
        nn.train(net, X, Y, optimizer=nn.SGD(0.05, momentum=momentum), epochs=4, batch_size=8,
                 momentum_schedule=ramp)  # fmt: skip
        ends.append(net.theta.copy())
    np.testing.assert_array_equal(ends[1], ends[0])
    np.testing.assert_array_equal(ends[2], ends[0])
    np.testing.assert_array_equal(ends[4], ends[0])
    assert np.abs(ends[3] - ends[0]).max() > 1e-4


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.1])
def test_a_schedule_must_return_numbers(bad: float) -> None:
    with pytest.raises(ArgumentError, match="a schedule must return one finite number"):
        nn.train(network(), X, Y, schedule=lambda step: bad, epochs=1)


def test_a_momentum_schedule_needs_sgd() -> None:
    with pytest.raises(ArgumentError, match=r"momentum_schedule needs SGD.*optimizer='adam'"):
        nn.train(network(), X, Y, momentum_schedule="ramp", epochs=1)


def test_cosine_falls_from_epoch_to_epoch() -> None:
    history = nn.train(network(), X, Y, schedule="cosine", epochs=6, batch_size=4)
    assert all(b < a for a, b in pairwise(history["learning_rate"]))
