"""Backends with one fault each, and the test of the conformance kit that must find it.

Not collected by itself: tests/test_kit_bites.py runs the classes made at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.backend import Backend
from nnbackend.backend.base import LOSS, STEP, WEIGHT
from nnbackend.testing import GhostBackend, ReferenceBackend
from nnbackend.testing.kit import Suite
from nnbackend.testing.suite import SUITES

KERNELS, GRADIENTS, TRAINING, CAPTURE, REGISTRATION = SUITES


@dataclass(frozen=True)
class Mutant:
    """A faulty backend, the suite and test that must fail, and the expected message.

    test: the test's name, optionally followed by words of its parameters.
    """

    make: Callable[[], Backend]
    suite: type[Suite]
    test: str
    says: str


MUTANTS: dict[str, Mutant] = {}


def bites(suite: type[Suite], test: str, says: str) -> Callable[[type[Backend]], type[Backend]]:
    """Enter a faulty backend into the table, once for each test that must find it."""

    def enter(kind: type[Backend]) -> type[Backend]:
        count = sum(name.startswith(kind.__name__) for name in MUTANTS)
        MUTANTS[kind.__name__ + str(count or "")] = Mutant(kind, suite, test, says)
        return kind

    return enter


# ---- memory and transfer ------------------------------------------------------------------------


@bites(KERNELS, "test_to_device_into_out float32", "returned NoneType instead of out")
class MissingReturn(ReferenceBackend):
    def to_device(self, host: np.ndarray, out: Any = None) -> Any:
        if out is None:
            return np.array(host)
        out[...] = host


@bites(KERNELS, "test_round_trip float64", "returned NoneType, but owns")
class MissingReturnWithoutOut(ReferenceBackend):
    def to_device(self, host: np.ndarray, out: Any = None) -> Any:
        if out is not None:
            out[...] = host
            return out


@bites(KERNELS, "test_to_host_is_a_fresh_copy int32", "it is a view")
class AliasingToHost(ReferenceBackend):
    def to_host(self, array: Any) -> np.ndarray:
        return np.asarray(array)


@bites(KERNELS, "test_round_trip float64", "changed its dtype from float64 to float32")
class LosesPrecision(ReferenceBackend):
    def to_device(self, host: np.ndarray, out: Any = None) -> Any:
        return super().to_device(host.astype("f") if host.dtype == "d" else host, out)


@bites(KERNELS, "test_owns", "is True for a foreign")
class OwnsEveryArray(ReferenceBackend):
    def owns(self, array: object) -> bool:
        return hasattr(array, "shape")


@bites(KERNELS, "test_memory_that_there_is_none_of", "empty raised RuntimeError")
class RaisesAnotherMemoryError(ReferenceBackend):
    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        try:
            return super().empty(shape, dtype)
        except MemoryError as error:
            raise RuntimeError("allocator error") from error


@bites(KERNELS, "test_memory_that_there_is_none_of", r"returned an array of 2\^60 bytes")
class ReturnsLessMemory(ReferenceBackend):
    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        return super().empty(tuple(min(n, 99) for n in shape), dtype)


# ---- layers -------------------------------------------------------------------------------------


@bites(KERNELS, "test_dense_backward float32-relu", "dense_backward: dW is wrong")
@bites(GRADIENTS, "test_layers four 13 float64", r"backprop: weights\[\d\] is wrong")
@bites(GRADIENTS, "test_differences_of_layers maxout", "FAILED: largest error")
@bites(TRAINING, "test_100_steps float32-sgd", "train: train_loss")
class WrongSign(ReferenceBackend):
    def dense_backward(self, x, W, z, a, phi, delta, dW, db, dx):  # type: ignore
        super().dense_backward(x, W, z, a, phi, delta, dW, db, dx)
        dW *= -1.0


@bites(KERNELS, "test_dense_backward float32-relu", "dense_backward: db is wrong")
@bites(GRADIENTS, "test_layers four 13 float64", r"backprop: biases\[\d\] is wrong")
class ForgottenBiasGradient(ReferenceBackend):
    def dense_backward(self, x, W, z, a, phi, delta, dW, db, dx):  # type: ignore
        super().dense_backward(x, W, z, a, phi, delta, dW, np.empty_like(db), dx)


@bites(KERNELS, "test_dense_backward float32-relu", "delta is wrong")
class SlopeAtZero(ReferenceBackend):
    def dense_backward(self, x, W, z, a, phi, delta, dW, db, dx):  # type: ignore
        if phi.kernel == "relu":
            a = np.where(a >= 0, 1.0, a).astype(a.dtype)
        super().dense_backward(x, W, z, a, phi, delta, dW, db, dx)


@bites(KERNELS, "test_dense_forward float64-tanh", "its input x was modified")
class MutatedInput(ReferenceBackend):
    def dense_forward(self, x, W, b, phi, z, a):  # type: ignore
        x *= 1.0 + np.finfo(x.dtype).eps
        super().dense_forward(x, W, b, phi, z, a)


@bites(KERNELS, "test_dense_backward float32-relu", "wrote outside its array")
class OutOfBounds(ReferenceBackend):
    def dense_backward(self, x, W, z, a, phi, delta, dW, db, dx):  # type: ignore
        super().dense_backward(x, W, z, a, phi, delta, dW, db, dx)
        if db.base is not None:
            np.lib.stride_tricks.as_strided(db, (db.size + 1,), db.strides)[-1] = 0.0


@bites(KERNELS, "test_maxout_forward float32-3", "which is wrong")
class LastPieceWins(ReferenceBackend):
    def maxout_forward(self, z: Any, a: Any, which: Any) -> None:
        super().maxout_forward(z, a, which)
        pieces = z.reshape(z.shape[0], -1, a.shape[1])
        which[...] = pieces.shape[1] - 1 - pieces[:, ::-1].argmax(axis=1)


@bites(KERNELS, "test_dropout_forward float32 0.3-17", "must be philox.host_mask")
@bites(KERNELS, "test_dropout_masks_of_parts_make_the_whole float32", "the parts' mask is wrong")
class UnaddressedMask(ReferenceBackend):
    def dropout_forward(self, x, rate, key, clock, first_row, a, mask):  # type: ignore
        mask[...] = np.random.default_rng(int(clock[STEP])).random(x.shape) > rate
        a[...] = x * mask / (1.0 - rate)


@bites(KERNELS, "test_dropout_forward float32 0.3-17", "dropout_forward: a is wrong")
class UnscaledDropout(ReferenceBackend):
    def dropout_forward(self, x, rate, key, clock, first_row, a, mask):  # type: ignore
        super().dropout_forward(x, rate, key, clock, first_row, a, mask)
        a[...] = x * mask


# ---- loss ---------------------------------------------------------------------------------------


@bites(KERNELS, "test_loss_and_delta float32-quadratic weighted", "delta is wrong")
@bites(KERNELS, "test_the_mean_over_the_batch_is_in_delta float64", "includes 1/B")
class ForgottenMean(ReferenceBackend):
    def loss_and_delta(self, loss, out, y, weight, delta, totals):  # type: ignore
        super().loss_and_delta(loss, out, y, weight, delta, totals)
        delta *= out.shape[0]


@bites(KERNELS, "test_loss_and_delta float32-quadratic weighted", "totals is wrong")
class SinglePrecisionTotals(ReferenceBackend):
    def loss_and_delta(self, loss, out, y, weight, delta, totals):  # type: ignore
        before = totals.copy()
        super().loss_and_delta(loss, out, y, weight, delta, totals)
        for slot in (LOSS, WEIGHT):
            added = np.float32(totals[slot] - before[slot])
            totals[slot] = np.float32(before[slot]) + added


@bites(KERNELS, "test_loss_and_delta float32-quadratic weighted", "totals is wrong")
class WeightsAddedInSinglePrecision(ReferenceBackend):
    def loss_and_delta(self, loss, out, y, weight, delta, totals):  # type: ignore
        before = float(totals[WEIGHT])
        super().loss_and_delta(loss, out, y, weight, delta, totals)
        if weight is not None:
            totals[WEIGHT] = before + float(weight.astype("float32").sum())


# ---- small faults, which too large a tolerance would hide ---------------------------------------


@bites(KERNELS, "test_dense_backward float32-identity", "dense_backward: db is wrong")
class OneBiasGradientALittleWrong(ReferenceBackend):
    def dense_backward(self, x, W, z, a, phi, delta, dW, db, dx):  # type: ignore
        super().dense_backward(x, W, z, a, phi, delta, dW, db, dx)
        if len(x) > 100:
            db[-1] += 1e-4 * np.abs(delta[:, -1]).sum()


@bites(KERNELS, "test_dense_backward float64-identity", "dense_backward: db is wrong")
@bites(GRADIENTS, "test_layers four 13 float64", r"backprop: biases\[\d\] is wrong")
class SumsInSinglePrecision(ReferenceBackend):
    def dense_backward(self, x, W, z, a, phi, delta, dW, db, dx):  # type: ignore
        super().dense_backward(x, W, z, a, phi, delta, dW, db, dx)
        db[...] = delta.astype("float32").sum(axis=0)


@bites(KERNELS, "test_dense_backward_of_many_rows float32", "dense_backward: dW is wrong")
@bites(GRADIENTS, "test_layers four 13 float32", r"backprop: weights\[\d\] is wrong")
class OneTermMissing(ReferenceBackend):
    def dense_backward(self, x, W, z, a, phi, delta, dW, db, dx):  # type: ignore
        super().dense_backward(x, W, z, a, phi, delta, dW, db, dx)
        dW[0, -1] -= x[-1, 0] * delta[-1, -1]


@bites(KERNELS, "test_dense_forward float32-tanh", "dense_forward: z is wrong")
class OneColumnWithoutItsBias(ReferenceBackend):
    def dense_forward(self, x, W, b, phi, z, a):  # type: ignore
        most = b.copy()
        most[0] *= 0.999
        super().dense_forward(x, W, most, phi, z, a)


@bites(KERNELS, "test_dense_backward float32-tanh", "dense_backward: delta is wrong")
class SlopeALittleWrong(ReferenceBackend):
    def dense_backward(self, x, W, z, a, phi, delta, dW, db, dx):  # type: ignore
        delta *= 1.0 + 1e-5
        super().dense_backward(x, W, z, a, phi, delta, dW, db, dx)


@bites(KERNELS, "test_optimizer_step float32-adam-0.1", "theta is wrong")
@bites(TRAINING, "test_100_steps float32-adamw", "train: theta is wrong")
class OneWeightDecaysFaster(ReferenceBackend):
    def optimizer_step(self, rule, theta, gradient, state, hyper, weight_decay, n_weights):  # type: ignore
        if weight_decay and n_weights:
            theta[0] *= 1.0 - 0.1 * hyper[0]
        super().optimizer_step(rule, theta, gradient, state, hyper, weight_decay, n_weights)


@bites(KERNELS, "test_optimizer_step float64-adam-", "theta is wrong")
@bites(KERNELS, "test_update_rule_as_in_its_paper float64-adam", "against its paper")
class EpsUnderTheRoot(ReferenceBackend):
    def optimizer_step(self, rule, theta, gradient, state, hyper, weight_decay, n_weights):  # type: ignore
        before, eps = theta.copy(), getattr(rule, "eps", 0.0)
        super().optimizer_step(rule, theta, gradient, state, hyper, weight_decay, n_weights)
        if rule.kernel == "adam":
            root = np.sqrt(state[1] / (1.0 - rule.beta2 ** hyper[2]))
            theta[...] = before + (theta - before) * (root + eps) / np.sqrt(root**2 + eps)


# ---- update and batches -------------------------------------------------------------------------


@bites(KERNELS, "test_optimizer_step float32-adam-", "theta is wrong")
@bites(KERNELS, "test_update_rule_as_in_its_paper float32-adam", "against its paper, step 1")
class NoBiasCorrection(ReferenceBackend):
    def optimizer_step(self, rule, theta, gradient, state, hyper, weight_decay, n_weights):  # type: ignore
        late = np.array([hyper[0], hyper[1], 1e9])
        super().optimizer_step(rule, theta, gradient, state, late, weight_decay, n_weights)


@bites(KERNELS, "test_optimizer_step float32-sgd-0.1", "weight_decay=0.1")
class DecaysBiases(ReferenceBackend):
    def optimizer_step(self, rule, theta, gradient, state, hyper, weight_decay, n_weights):  # type: ignore
        super().optimizer_step(rule, theta, gradient, state, hyper, weight_decay, theta.size)


@bites(KERNELS, "test_add_penalty float32", "gradient is wrong")
class PenaltyWithoutHalf(ReferenceBackend):
    def add_penalty(self, weights, gradient, l1, l2, rows, totals):  # type: ignore
        super().add_penalty(weights, gradient, l1, 2.0 * l2, rows, totals)


@bites(KERNELS, "test_max_norm float32", "max_norm: W is wrong")
class NormOfRows(ReferenceBackend):
    def max_norm(self, W: Any, limit: float) -> None:
        super().max_norm(W.T, limit)


@bites(KERNELS, "test_gather_rows float32-uint8", "gather_rows: out is wrong")
@bites(KERNELS, "test_gather_rows_in_their_order float64", "order 4 2 0 3 1")
class IgnoresTheOrder(ReferenceBackend):
    def gather_rows(self, data, order, clock, batch_size, out):  # type: ignore
        super().gather_rows(data, np.arange(len(order)), clock, batch_size, out)


# ---- capture ------------------------------------------------------------------------------------


@bites(CAPTURE, "test_every_optimizer adam", "hidden host read: bool")
@bites(KERNELS, "test_clip_norm float32-1.1", "hidden host read: bool")
class HiddenRead(GhostBackend):
    def clip_norm(self, gradient: Any, max_norm: float) -> None:
        norm = self.xp.sqrt(self.xp.sum(gradient * gradient))
        if norm > max_norm:
            gradient *= max_norm / norm


@bites(CAPTURE, "test_replays_equal_steps float32", "zeros inside capture")
class AllocatesInCapture(GhostBackend):
    def clip_norm(self, gradient: Any, max_norm: float) -> None:
        self.zeros(gradient.shape, "float32")
        super().clip_norm(gradient, max_norm)


@bites(CAPTURE, "test_nothing_is_read_back_or_allocated float64", "to_host was called inside")
class ReadsInCapture(ReferenceBackend):
    def clip_norm(self, gradient: Any, max_norm: float) -> None:
        norm = np.linalg.norm(self.to_host(gradient))
        if norm > max_norm:
            gradient *= max_norm / norm


@bites(CAPTURE, "test_replays_equal_steps float32", "after capture alone")
class StepsWhileCapturing(ReferenceBackend):
    def capture(self, step: Callable[[], None]) -> Callable[[int], None]:
        step()
        return super().capture(step)


@bites(CAPTURE, "test_a_new_learning_rate_is_seen float32", "learning rate 0.5")
class FrozenLearningRate(ReferenceBackend):
    def __init__(self) -> None:
        self.rate: float | None = None

    def capture(self, step: Callable[[], None]) -> Callable[[int], None]:
        def run(n: int) -> None:
            for _ in range(n):
                self.recording = True
                step()
                self.recording = False

        self.recording = False
        return run

    def tick(self, clock: Any, rates: Any, hyper: Any) -> None:
        super().tick(clock, rates, hyper)
        if getattr(self, "recording", False):
            self.rate = self.rate or float(hyper[0])
            hyper[0] = self.rate


# ---- registration -------------------------------------------------------------------------------


@bites(REGISTRATION, "test_signatures_equal_the_base_class", r"drift: clip_norm\(self, grad,")
class SignatureDrift(ReferenceBackend):
    def clip_norm(self, grad: Any, max_norm: float) -> None:  # type: ignore[override]
        super().clip_norm(grad, max_norm)


@bites(REGISTRATION, "test_attributes", "unknown capabilities")
class InventedCapability(ReferenceBackend):
    capabilities = frozenset({"uint64", "telepathy"})


for _name, _mutant in MUTANTS.items():
    # Without the other tests: to collect all of them takes longer than to run these.
    _others = {test for test in dir(_mutant.suite) if test.startswith("test_")}
    _others.remove(_mutant.test.split()[0])
    globals()[f"Test{_name}"] = type(
        f"Test{_name}",
        (_mutant.suite,),
        {"make_backend": staticmethod(_mutant.make), **dict.fromkeys(_others)},
    )
