"""The properties of training runs, each a function of a `RunCase`.

A property returns None, or raises Disagreement, or Unsuitable for a run to which it does not apply.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np

from nnbackend.backend import Backend
from nnbackend.errors import NNBackendError
from nnbackend.model.model import load
from nnbackend.model.resuming import resume
from nnbackend.network.network import Network
from nnbackend.persistence.checkpoints import Checkpoints, checkpoint_paths
from nnbackend.testing.run_bounds import Disagreement, Unsuitable, bounds_of
from nnbackend.testing.run_cases import (
    FAULTS,
    WAVE,
    RunCase,
    RunData,
    RunResult,
    device_of,
    result_of,
)
from nnbackend.training import step_runner
from nnbackend.training.callbacks import Callback

PROPERTIES: dict[str, Callable[[RunCase], None]] = {}


def _enter(check: Callable[[RunCase], None]) -> Callable[[RunCase], None]:
    """Enter a property into the table; numbers that overflow are judged by their results."""

    @wraps(check)
    def quiet(case: RunCase) -> None:
        with np.errstate(all="ignore"):
            check(case)

    PROPERTIES[check.__name__] = quiet
    return quiet


def _devices(case: RunCase) -> list[Backend]:
    """Return the devices of a case that have its dtype. Raises: Unsuitable if none has it."""
    found = [device_of(name) for name in dict.fromkeys(case.devices)]
    found = [device for device in found if case.dtype in device.float_dtypes]
    if not found:
        raise Unsuitable(f"no device of {case.devices} has {case.dtype}")
    return found


def _twin(device: Backend) -> Any:
    """Return a device like another one, whose methods can be replaced."""
    twin = object.__new__(type(device))  # copy.copy returns the registered device itself
    twin.__dict__.update(device.__dict__)
    return twin


def _run(case: RunCase, device: Backend, what: str) -> RunResult:
    """Return a run that the reference accepts. Raises: Disagreement if the device refuses it."""
    try:
        return case.run(device)
    except NNBackendError as error:
        raise Disagreement(f"{what}: refused, but not by the reference: {error}") from error


def _accepted(case: RunCase, device: Backend) -> RunResult:
    try:
        return case.run(device)
    except NNBackendError as error:
        raise Unsuitable(f"refused: {error}") from error


@_enter
def devices_agree(case: RunCase) -> None:
    """Check that each device ends where the reference in float64 ends, within rounding."""
    bounds = bounds_of(case)
    for device in _devices(case):
        bounds.check(device.device, _run(case, device, device.device))


@_enter
def captured_is_eager(case: RunCase) -> None:
    """Check that captured steps train as steps that run kernel by kernel."""
    bounds = bounds_of(case)
    for device in _devices(case):
        eager: Any = _twin(device)
        eager.capture = MethodType(Backend.capture, eager)
        results = [_run(case, each, device.device) for each in (device, eager)]
        bounds.check(f"{device.device}, captured", results[0], results[1])


@_enter
def parts_make_the_whole(case: RunCase) -> None:
    """Check that steps in parts, for lack of memory, train as whole steps do."""
    most = case.part or 1
    bounds = bounds_of(case)
    for device in _devices(case):
        small: Any = _twin(device)

        def empty(shape: tuple[int, ...], dtype: str, _device: Backend = device) -> Any:
            if len(shape) == 2 and shape[0] > most:
                raise MemoryError
            return _device.empty(shape, dtype)

        small.empty = empty
        try:
            result = case.run(small)
        except MemoryError as error:
            raise Unsuitable("the data do not fit the memory") from error
        bounds.check(f"{device.device}, in parts of {most} rows", result)


@_enter
def resumed_is_undisturbed(case: RunCase) -> None:
    """Check that an interrupted and resumed run ends as an undisturbed one, bit for bit."""
    before = step_runner.POLL_INTERVAL_SECONDS
    step_runner.POLL_INTERVAL_SECONDS = 0.0  # single steps, after each of which it may stop
    try:
        for device in _devices(case):
            whole = _accepted(case, device)
            with tempfile.TemporaryDirectory() as folder:
                _same_bits(f"{device.device}, resumed", _interrupted(case, device, folder), whole)
    finally:
        step_runner.POLL_INTERVAL_SECONDS = before


class _Crash(Exception):
    """An exception that ends a run without a last checkpoint."""


class _Stop(Callback):
    """A callback that interrupts a run after a number of steps, or crashes if it is negative."""

    def __init__(self, step: int | None) -> None:
        self.at = step

    def on_progress(self, trainer: Any, step: int, n_steps: int) -> None:
        if self.at is not None and trainer.state.step >= abs(self.at):
            if self.at < 0:
                raise _Crash
            trainer.interrupt.requested = True


def _interrupted(case: RunCase, device: Backend, folder: str) -> RunResult:
    """Return the result of a run with the case's stops, each of which is resumed."""
    data, every = case.draw_data(), {"steps": 2} if min(case.stops, default=0) < 0 else {}
    for stop in [*sorted(case.stops, key=abs), None]:
        try:
            if checkpoint_paths(Path(folder)):
                model, history = resume(
                    folder, data.x, data.y, sample_weight=data.weight, activations=[WAVE],
                    device=device, callbacks=[_Stop(stop)],
                )  # fmt: skip
                result = result_of(model, history, data.x)
            else:
                model = case.model(case.network(device))
                result = case.fit(model, data, [_Stop(stop), Checkpoints(folder, **every)])
        except _Crash:
            continue
        if result.stop_reason != "interrupted":
            break
    return result


def _same_bits(what: str, got: RunResult, wanted: RunResult) -> None:
    for part in ("stop_reason", "columns", "theta", "outputs"):
        ours, theirs = getattr(got, part), getattr(wanted, part)
        is_array = isinstance(ours, np.ndarray)
        if (ours.tobytes() != theirs.tobytes()) if is_array else repr(ours) != repr(theirs):
            raise Disagreement(f"{what}: {part} is {ours!r}, expected bit for bit {theirs!r}")


@_enter
def loaded_is_saved(case: RunCase) -> None:
    """Check that a model, saved and loaded, has the same parameters and outputs bit for bit."""
    devices = _devices(case)
    data, model = case.draw_data(), case.model(case.network(devices[0]))
    try:
        result = case.fit(model, data)
    except NNBackendError as error:
        raise Unsuitable(f"refused: {error}") from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        model.save(path)
        for device in devices:
            loaded = load(path, device, activations=[WAVE])
            theta = loaded.network.backend.to_host(loaded.network.theta)
            if theta.tobytes() != result.theta.tobytes():
                raise Disagreement(f"loaded on {device.device}: theta differs")
            if device is devices[0] and (outputs := loaded.outputs(data.x)).tobytes() != (
                result.outputs.tobytes()
            ):
                raise Disagreement(f"loaded on {device.device}: outputs {outputs!r}")


# ---- symmetries ---------------------------------------------------------------------------------


@_enter
def columns_may_be_permuted(case: RunCase) -> None:
    """Check that a run with permuted columns and rows of the first W has permuted results."""
    if case.layers[0].startswith("dropout"):
        raise Unsuitable("a dropout mask belongs to columns")
    bounds, order = bounds_of(case), _order(case.seed, case.n_in)

    def permute(net: Network) -> list[int]:
        weights, biases = net.get_parameters()
        weights[0] = weights[0][order]
        return _moved(net, weights, biases)

    data = case.draw_data()
    data.x = np.ascontiguousarray(data.x[:, order])
    _check_permuted(case, bounds, data, permute, slice(None))


@_enter
def classes_may_be_permuted(case: RunCase) -> None:
    """Check that a run with permuted outputs and units of the last layer has permuted results."""
    last = case.layers[-1].split(":")
    if last[0] == "maxout" or (case.has_labels and case.n_out == 1):
        raise Unsuitable("the last layer has other units than classes")
    if case.has_labels and "validation" in case.options:
        raise Unsuitable("the validation rows are drawn class by class")
    bounds, order = bounds_of(case), _order(case.seed, case.n_out)

    def permute(net: Network) -> list[int]:
        weights, biases = net.get_parameters()
        weights[-1], biases[-1] = weights[-1][:, order], biases[-1][order]
        return _moved(net, weights, biases)

    data = case.draw_data()
    data.y = np.argsort(order)[data.y] if case.has_labels else data.y[:, order]
    _check_permuted(case, bounds, data, permute, order)


def _order(seed: int, n: int) -> np.ndarray:
    return np.roll(np.random.default_rng(seed).permutation(n), 1)


def _moved(net: Network, weights: list[Any], biases: list[Any]) -> list[int]:
    """Set permuted parameters; return the place in theta of each permuted one."""
    before = net.backend.to_host(net.theta)
    net.set_parameters(weights, biases)
    after = net.backend.to_host(net.theta)
    places = np.argsort(np.argsort(after, kind="stable"), kind="stable")
    return [int(i) for i in np.argsort(before, kind="stable")[places]]


def _check_permuted(
    case: RunCase, bounds: Any, data: RunData, permute: Callable[[Network], list[int]], outputs: Any
) -> None:
    for device in _devices(case):
        net = case.network(device)
        places = permute(net)
        try:
            got = case.fit(case.model(net), data)
        except NNBackendError as error:
            raise Disagreement(f"{device.device}: refused when permuted: {error}") from error
        plain = bounds.wanted
        wanted = replace(plain, theta=plain.theta[places], outputs=plain.outputs[:, outputs])
        moved = replace(bounds, theta=bounds.theta[places], outputs=bounds.outputs[:, outputs])
        moved.check(f"{device.device}, permuted", got, wanted)


@_enter
def weights_are_counts(case: RunCase) -> None:
    """Check that a row of weight 2 counts as two equal rows, where a batch holds all rows."""
    if any(word.startswith("dropout") for word in case.layers):
        raise Unsuitable("dropout masks belong to rows")
    case = case.changed(
        weights="", scale=None, scale_targets=False,
        options={"batch_size": None, "shuffle": False},
    )  # fmt: skip
    if "validation" in case.options:
        raise Unsuitable("the validation rows would differ")
    data = case.draw_data()
    counts = np.random.default_rng(case.seed).integers(1, 4, case.rows)
    bounds = bounds_of(case, RunData(data.x, data.y, counts.astype(float)))
    many = RunData(data.x.repeat(counts, axis=0), data.y.repeat(counts, axis=0))
    for device in _devices(case):
        got = case.fit(case.model(case.network(device)), many)
        first = np.cumsum(counts) - counts
        bounds.check(f"{device.device}, repeated rows", replace(got, outputs=got.outputs[first]))


@_enter
def loss_decreases(case: RunCase) -> None:
    """Check that a small enough step against the gradient lowers the loss as its slope predicts."""
    case = case.changed(dtype="float64")
    if any(word.startswith(("dropout", "step")) for word in case.layers):
        raise Unsuitable("the loss of a step is not that of the evaluation")
    for device in _devices(case):
        try:
            net = case.network(device)
            data = case.draw_data()
            x = net.backend.to_device(data.x)
            gradient = net.backprop(x, data.y, data.weight)
        except NNBackendError as error:
            raise Unsuitable(f"refused: {error}") from error
        slope = net.backend.to_host(gradient.vector)
        theta = net.backend.to_host(net.theta)
        square = float(slope @ slope)
        if not 1e-12 < square < 1e12 or not abs(gradient.loss) < 1e6:
            raise Unsuitable("the slope is too small or too large for differences")
        falls = []
        for power in range(4, 30, 2):
            share = 2.0**-power / max(1.0, np.sqrt(square))
            net.backend.to_device(theta - share * slope, out=net.theta)
            fall = gradient.loss - net.backprop(x, data.y, data.weight).loss
            falls.append(fall / (share * square))
            if abs(falls[-1] - 1.0) < 0.1:
                break
        else:
            if share * square < 1e-9 * (1.0 + abs(gradient.loss)):
                raise Unsuitable("the slope is too small for differences")
            raise Disagreement(
                f"{device.device}: the loss falls by {falls} of what the gradient says"
            )


@_enter
def refused_alike(case: RunCase) -> None:
    """Check that both devices refuse a run with the same words, or both accept it."""
    said = []
    for device in _devices(case):
        try:
            case.run(device)
            said.append("accepted")
        except NNBackendError as error:
            text = str(error).replace(device.device, "DEVICE")
            said.append(f"{type(error).__name__}: {text}")
        except Exception as error:
            raise Disagreement(f"{device.device}: {type(error).__name__}: {error}") from error
    if set(case.data).intersection(FAULTS) and "accepted" in said:
        raise Disagreement(f"data with {case.data} are accepted")
    if len(set(said)) > 1:
        raise Disagreement(f"{case.devices}: " + "\n    but ".join(said))
