"""The training loop.

`Trainer.new_step` builds one step of gradient descent, from a mini-batch to updated weights.
`Trainer.run` loops over epochs: train, validate, record the metrics, save the best weights, stop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from nnbackend.backend.base import BATCH, LOSS, PENALTY, STEP, WEIGHT
from nnbackend.backend.formulas import Array
from nnbackend.data.scalers import Scaler
from nnbackend.errors import ArgumentError, DivergedError, check
from nnbackend.network.network import Network
from nnbackend.network.sums import Sums
from nnbackend.network.workspace import DropoutSource
from nnbackend.training.batching import BatchLoader, batch_sizes, epoch_order
from nnbackend.training.callbacks import Callback, EarlyStopping
from nnbackend.training.config import TrainConfig
from nnbackend.training.history import History, Row
from nnbackend.training.interrupt import InterruptGuard
from nnbackend.training.lbfgs import LBFGS, LBFGSSteps
from nnbackend.training.micro_batches import (
    Runs,
    halving,
    log_divided,
    new_divided_pass,
)
from nnbackend.training.preparation import TrainingData, Validation, prepare_data
from nnbackend.training.schedules import AnySchedule, ScheduleContext, values_of

POLL_INTERVAL_SECONDS = 0.1  # target time between two checks for Ctrl-C and progress reports


class Trainer:
    """One training run: its state between steps, and the loop over epochs.

    `train` creates a Trainer and runs it. Create one yourself to pause, inspect and continue a run.
    """

    def __init__(
        self,
        net: Network,
        x: Any,
        y: Any,
        config: TrainConfig,
        *,
        sample_weight: Any = None,
        validation: Validation = None,
        scale: str | Scaler | None = None,
        scale_targets: bool = False,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.net, self.backend = net, net.backend
        self.config = config = config.checked(net)
        self.callbacks = _check_callbacks(callbacks)
        check("scale_targets", scale_targets, lambda v: v in (True, False), "True or False")
        self.validation_share = float(validation) if isinstance(validation, Real) else None
        before = net.scaler, net.target_scaler, net.classes
        try:
            data = prepare_data(
                net, x, y, sample_weight, validation,
                scale=scale, scale_targets=scale_targets, seed=config.seed,
                monitor=config.early_stopping.monitor if config.early_stopping else None,
            )  # fmt: skip
            self._prepare(data)
        except Exception:  # invalid data or options leave the network unchanged
            net.scaler, net.target_scaler, net.classes = before
            raise

    def _prepare(self, data: TrainingData) -> None:
        """Create the state of the run."""
        net, config = self.net, self.config
        self.validation = data.validation

        backend, P = net.backend, net.layout.size
        self.n = len(data.rows)
        is_lbfgs = isinstance(config.optimizer, LBFGS)
        self.batch_size = self.n if is_lbfgs else min(config.batch_size or self.n, self.n)
        self.loader = BatchLoader(net, data, self.batch_size)
        self.sizes = batch_sizes(self.n, self.batch_size)
        self.steps_per_epoch = sum(count for count, _ in self.sizes)

        self.grad = backend.zeros((P,), net.dtype)
        names = () if is_lbfgs else config.optimizer.state
        self.state = {name: backend.zeros((P,), net.dtype) for name in names}
        self.clock = backend.zeros((2,), "int64")  # step, batch of the epoch
        self.hyper = backend.zeros((3,), backend.sum_dtype)  # learning rate, momentum, step
        self.rates = backend.zeros((2, self.steps_per_epoch), backend.sum_dtype)  # of each step
        self.sums = Sums(backend, self.batch_size)
        self.totals = self.sums.totals
        self.best = self._copy(net.theta)  # the weights of the best epoch
        self.ema_weights = self._copy(net.theta) if config.ema else None
        is_swapped = self.ema_weights is not None and self.validation is not None
        # Holds theta while validation evaluates the averaged weights.
        self._saved_theta = self._copy(net.theta) if is_swapped else None

        stopping = config.early_stopping
        monitor = "valid_loss" if self.validation is not None else "train_loss"
        self.history = History((stopping and stopping.monitor) or monitor, seed=config.seed)
        self.history.batch_size = self.batch_size
        self.epoch = 0  # completed epochs
        self.first_step = 0  # steps of the earlier run that this run resumes
        self.step_in_epoch = 0  # completed steps of the current epoch
        self.decided = ""  # stop reason of the run that this run resumes, if it had stopped
        self.rows_at_once = self.batch_size  # reduced when the device runs out of memory
        self._first_step_end = 0.0
        self._steps_per_poll = 1
        self.interrupt = InterruptGuard()
        self.lbfgs: LBFGSSteps | None = None
        self._runs = Runs()
        if not is_lbfgs:
            self._epoch_rates()  # raises for an invalid schedule before the first epoch

    @property
    def step(self) -> int:
        """Completed steps since training began."""
        return self.steps_done + self.step_in_epoch

    # ---- one step ---------------------------------------------------------------------------

    @staticmethod  # a reference to the trainer would form a cycle: the trainer stores the pass
    def _new_pass(
        net: Network, loader: BatchLoader, rows: int, at_once: int, *,
        grad: Array, clock: Array, totals: Array, dropout: DropoutSource | None,
    ) -> Callable[[], None]:  # fmt: skip
        """Return the forward and backward pass over `rows` rows, in parts of at most `at_once`."""
        backend = net.backend
        if at_once < rows:
            return new_divided_pass(
                net, loader, rows, at_once, grad=grad, clock=clock, totals=totals, dropout=dropout
            )
        batch = loader.new_batch(rows)
        layers, loss = net.for_training()
        space = net.workspace(batch.x, layers, grad=grad, dropout=dropout)

        def compute() -> None:
            loader.load(batch, clock)  # the rows of this mini-batch
            out = space.forward()  # feed forward
            backend.loss_and_delta(loss, out, batch.y, batch.weight, space.out.delta, totals)
            space.backward()  # backpropagate

        return compute

    def new_step(self, rows: int, at_once: int) -> Callable[[], None]:
        """Return one step of gradient descent on `rows` rows, in parts of at most `at_once`."""
        net, backend, config = self.net, self.backend, self.config
        clock, rates, hyper, totals = self.clock, self.rates, self.hyper, self.totals
        theta, grad, ema_weights, ema = net.theta, self.grad, self.ema_weights, config.ema
        compute = self._new_pass(
            net, self.loader, rows, at_once,
            grad=grad, clock=clock, totals=totals, dropout=DropoutSource(config.seed, clock),
        )  # fmt: skip
        n_weights, state, decay = net.layout.n_weights, list(self.state.values()), config.decay
        l1, l2 = config.penalty(rows)
        limits = [(W, c) for W, c in zip(net.weights, config.norm_limits(net), strict=True) if c]

        def step() -> None:
            backend.tick(clock, rates, hyper)  # count the step, look up its learning rate
            compute()  # feed forward and backpropagate the rows of this mini-batch
            if l1 or l2:
                backend.add_penalty(theta[:n_weights], grad[:n_weights], l1, l2, rows, totals)
            if config.clip_norm:
                backend.clip_norm(grad, config.clip_norm)
            backend.optimizer_step(config.optimizer, theta, grad, state, hyper, decay, n_weights)
            for W, limit in limits:
                backend.max_norm(W, limit)
            if ema_weights is not None and ema is not None:
                backend.average(theta, ema_weights, ema, hyper)

        return step

    # ---- one epoch --------------------------------------------------------------------------

    def _train_epoch(self) -> Row:
        """Run the steps of an epoch; return its train_loss and learning_rate."""
        backend = self.backend
        rates = self._epoch_rates()
        backend.to_device(rates.astype(backend.sum_dtype, copy=False), out=self.rates)
        clock = np.zeros(2, np.int64)
        step_in_epoch = self.step_in_epoch  # above 0 when an interrupted epoch is resumed
        clock[STEP], clock[BATCH] = self.step, step_in_epoch - 1
        backend.to_device(clock, out=self.clock)
        self.loader.begin_epoch(
            epoch_order(self.n, self.config.seed, self.epoch, self.config.shuffle)
        )
        if not step_in_epoch:
            self.sums.clear()

        checked, skipped = time.perf_counter(), step_in_epoch
        for count, rows in self.sizes:
            left = max(count - skipped, 0)
            skipped = max(skipped - count, 0)
            while left and not self.interrupt.requested:
                begin, every = time.perf_counter(), self.sums.every
                n = min(self._steps_per_poll, left, every - step_in_epoch % every)
                self._runs.make(self, rows, n)
                backend.synchronize()
                step_in_epoch, left, now = step_in_epoch + n, left - n, time.perf_counter()
                self.step_in_epoch = step_in_epoch
                if step_in_epoch % every == 0:
                    self.sums.flush()
                if self.epoch == 0 and step_in_epoch == 1:  # compilation happens in the first step
                    self._first_step_end = now
                target = max(1, round(n * POLL_INTERVAL_SECONDS / max(now - begin, 1e-9)))
                self._steps_per_poll = min(target, 2 * self._steps_per_poll)
                for callback in self.callbacks:
                    callback.on_progress(self, step_in_epoch, self.steps_per_epoch)
                if now - checked > 1.0:
                    self._mean_loss()
                    checked = now
        return {
            "train_loss": self._mean_loss(),
            "learning_rate": rates[0, max(step_in_epoch - 1, 0)].item(),
        }

    @property
    def steps_done(self) -> int:
        """Completed steps at the end of the last epoch."""
        return self.first_step + self.epoch * self.steps_per_epoch

    def _epoch_rates(self) -> np.ndarray:
        """Return the learning rate and the momentum of each step of this epoch: (2, steps)."""
        config, done = self.config, self.steps_done
        steps = np.arange(done, done + self.steps_per_epoch, dtype=np.float64)
        context = ScheduleContext(steps, self.steps_per_epoch, config.epochs, self.history.costs)
        rule = config.optimizer
        lr = _rates(config.schedule, rule.learning_rate, context, math.inf)
        return np.stack([lr, _rates(config.momentum_schedule, rule.momentum, context, 1.0)])

    def _lbfgs_epoch(self) -> Row:
        """Run one iteration of L-BFGS on all rows."""
        lbfgs = self.lbfgs_steps()
        if not self.step_in_epoch:
            with np.errstate(over="ignore", invalid="ignore"):  # a trial step may be too long
                lbfgs.iterate()
            self.step_in_epoch = 1
        return {"train_loss": self._mean_loss(), "learning_rate": 1.0}

    def lbfgs_steps(self) -> LBFGSSteps:
        """Return the state of L-BFGS, created on the first call."""
        if self.lbfgs is None:
            theta, objective = self.net.theta, self.new_objective()
            self.lbfgs = LBFGSSteps(
                self.config.optimizer, self.backend, theta, self.grad, objective
            )
        return self.lbfgs

    def new_objective(self) -> Callable[[], float]:
        """Return the function that L-BFGS minimises: mean loss and penalty, and their gradient."""
        net, loader, backend, n, at_once = self.net, self.loader, self.backend, self.n, self.n
        new_pass, grad, clock, totals = self._new_pass, self.grad, self.clock, self.totals
        weights, slopes = net.theta[: net.layout.n_weights], grad[: net.layout.n_weights]
        l1, l2 = self.config.penalty(n)
        passes: dict[int, Callable[[], None]] = {}

        def attempt(most: int) -> None:
            if most not in passes:
                passes.clear()  # releases the memory of larger parts
                passes[most] = new_pass(
                    net, loader, n, most, grad=grad, clock=clock, totals=totals, dropout=None
                )
            backend.fill(totals, 0.0)
            passes[most]()

        def objective() -> float:
            nonlocal at_once
            before = at_once
            _, at_once = halving(backend, before, attempt)
            if at_once < before:
                log_divided(backend, n, at_once)
            if l1 or l2:
                backend.add_penalty(weights, slopes, l1, l2, n, totals)
            sums = backend.to_host(totals)
            return float(sums[LOSS] / sums[WEIGHT] + sums[PENALTY] / n)

        return objective

    # ---- the run ----------------------------------------------------------------------------

    def run(self) -> History:
        """Train until the last epoch, a stop rule or an interrupt; return the history."""
        history, is_lbfgs = self.history, isinstance(self.config.optimizer, LBFGS)
        history.stop_reason, self.decided = self.decided, ""
        for callback in self.callbacks:
            callback.on_train_begin(self)
        try:
            largest = max(W * n for (W, n), _ in self.net.layout.shapes) * self.batch_size
            with self.interrupt, self.backend.active(largest):
                while not history.stop_reason and self.epoch < self.config.epochs:
                    begin = time.perf_counter()
                    metrics = self._lbfgs_epoch() if is_lbfgs else self._train_epoch()
                    if self.interrupt.requested:
                        break
                    if self.epoch == 0 and self.steps_per_epoch > 1:
                        begin = max(begin, self._first_step_end)
                    self._end_epoch(metrics, time.perf_counter() - begin)
                self._check_theta()
                for callback in self.callbacks:
                    callback.on_pause(self)
        except KeyboardInterrupt:
            self.interrupt.requested = True
        if self.interrupt.requested:
            history.stop_reason = "interrupted"
            self._check_theta()
        history.stop_reason = history.stop_reason or "epochs"
        if self.ema_weights is not None:
            self.backend.copy(self.ema_weights, self.net.theta)
        stopping = self.config.early_stopping
        if stopping is not None and stopping.restore_best and history.rows:
            self.restore_best()
        for callback in self.callbacks:
            callback.on_train_end(self)
        return history

    def restore_best(self) -> None:
        """Restore the weights of the best epoch, or the initial ones if no epoch has ended."""
        self.backend.copy(self.best, self.net.theta)

    def _end_epoch(self, metrics: Row, seconds: float) -> None:
        """Validate, add a row to the history, save the best weights and check the stop rules."""
        self._check_theta()
        self.epoch, self.step_in_epoch = self.epoch + 1, 0
        row: Row = {"epoch": self.epoch, "train_loss": metrics["train_loss"]}
        weights = self.net.theta if self.ema_weights is None else self.ema_weights
        if self.validation is not None:
            row.update({f"valid_{k}": v for k, v in self._validate(weights).items()})
        row["learning_rate"] = metrics["learning_rate"]
        row["seconds"] = seconds
        self.history.rows.append(row)
        if self.history.best_index == len(self.history) - 1:
            self.backend.copy(weights, self.best)
        stopping = self.config.early_stopping
        if self.lbfgs is not None and self.lbfgs.converged:
            self.history.stop_reason = "converged"
        if stopping is not None and stopping.should_stop(self.history):
            self.history.stop_reason = "early stopping"
        for callback in self.callbacks:  # every callback runs, even after one has stopped the run
            if callback.on_epoch_end(self, row):
                self.history.stop_reason = self.history.stop_reason or "callback"

    def _validate(self, weights: Array) -> dict[str, float]:
        """Evaluate `weights` on the validation rows; free the memory of steps if it is needed."""
        assert self.validation is not None
        while True:
            try:
                return self._evaluate(weights, *self.validation)
            except MemoryError:  # the recorded steps occupy the rest
                if not self._runs.can_divide(self):
                    raise
            self._runs.divide(self)

    def _evaluate(
        self, weights: Array, x: Array, y: np.ndarray, weight: np.ndarray | None
    ) -> dict[str, float]:
        if weights is self.net.theta:
            return self.net.evaluate_prepared(x, y, weight)
        self.backend.copy(self.net.theta, self._saved_theta)
        self.backend.copy(weights, self.net.theta)
        try:
            return self.net.evaluate_prepared(x, y, weight)
        finally:
            self.backend.copy(self._saved_theta, self.net.theta)

    # ---- divergence -------------------------------------------------------------------------

    def _mean_loss(self) -> float:
        """Return the mean loss of the epoch so far."""
        sums = self.sums.read()
        loss = float(sums[LOSS] / sums[WEIGHT]) if sums[WEIGHT] else 0.0
        if not math.isfinite(loss):
            self._raise_diverged(f"the training loss became {loss}")
        return loss

    def _check_theta(self) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            total = self.backend.xp.sum(self.net.theta, keepdims=True)
        if not math.isfinite(float(self.backend.to_host(total)[0])):
            self._raise_diverged("weights became infinite or not a number")

    def _raise_diverged(self, what: str) -> None:
        """Restore the best weights and raise DivergedError with advice."""
        self.restore_best()
        rule = self.config.optimizer
        lr = getattr(rule, "learning_rate", None)
        advice = f"a smaller learning rate than {lr:g}, " if lr else ""
        if self.net.scaler is None:
            advice += "scaled inputs (scale='standard'), "
        advice += "clip_norm=1.0, or fewer layers"
        restored = f"epoch {self.history.best['epoch']}" if self.history.rows else "the beginning"
        error = DivergedError(
            f"training diverged in epoch {self.epoch + 1}: {what}. The network has the weights of "
            f"{restored} again. Try {advice}."
        )
        error.add_note(f"optimizer: {rule}")
        error.history = self.history
        raise error

    def _copy(self, vector: Array) -> Array:
        copy = self.backend.empty(tuple(vector.shape), self.net.dtype)
        self.backend.copy(vector, copy)
        return copy


def _check_callbacks(callbacks: Sequence[Callback]) -> tuple[Callback, ...]:
    if not isinstance(callbacks, (list, tuple)) or not all(
        isinstance(callback, Callback) for callback in callbacks
    ):
        raise ArgumentError(
            f"callbacks must be a list of nnbackend.Callback objects. Received: {callbacks!r}."
        )
    return tuple(callbacks)


def _rates(schedule: Any, base: float, context: ScheduleContext, below: float) -> np.ndarray:
    """Return a schedule's validated value for each step."""
    values = values_of(schedule, base, context)
    if values.shape != context.step.shape or not ((values >= 0) & (values < below)).all():
        raise ArgumentError(
            "a schedule must return one finite number, at least 0, for each step"
            f"{f', below {below:g} for a momentum' if below == 1.0 else ''}. "
            f"Received: {schedule!r}, which returned {values!r}."
        )
    return values


def train(
    net: Network,
    x: Any,
    y: Any,
    *,
    optimizer: Any = "adam",
    epochs: int = 20,
    batch_size: int | None = 128,
    validation: Validation = None,
    shuffle: bool = True,
    sample_weight: Any = None,
    scale: str | Scaler | None = None,
    scale_targets: bool = False,
    l1: float = 0.0,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    max_norm: float | Sequence[float | None] | None = None,
    clip_norm: float | None = None,
    ema: float | None = None,
    schedule: str | AnySchedule | None = None,
    momentum_schedule: str | AnySchedule | None = None,
    early_stopping: EarlyStopping | None = None,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
) -> History:
    """Train a network on rows x (n, n_in) with targets y; return the history.

    x: an array, a table of numbers (pandas, polars, Arrow) or a SciPy sparse matrix.
    y: class labels (n,), codes from 0 or text of net.classes; or targets (n,) or (n, n_out).
    optimizer: a name or an object: sgd, adagrad, rmsprop, adadelta, adam, adamw, lbfgs.
    batch_size: rows per step; None for all rows, 1 for stochastic gradient descent.
    validation: (x, y), (x, y, sample_weight), or the fraction of the rows to hold out.
    scale: fit a scaler on the training rows ("standard", "robust", "unit"), stored in net.scaler.
    scale_targets: the same for the targets of a regression.
    l1, l2: penalties in the loss, l1 sum |w| + l2/2 sum w^2.
    weight_decay: decoupled decay in each step, w *= 1 - lr weight_decay.
    max_norm: limit on the norm of each unit's incoming weights, one number or one per layer.
    clip_norm: limit on the norm of the gradient.
    ema: decay of a running average of the weights, which is validated and returned.
    schedule, momentum_schedule: names or objects of `nnbackend.schedules`, or functions of a step.
    seed: seed of the shuffling, the validation split and dropout.
    The history's train_loss is the mean over the epoch's steps, without penalties.
    Ctrl-C ends training after the current step, with history.stop_reason "interrupted".
    Raises: DataError or ShapeError for invalid data; ArgumentError for invalid options;
    DivergedError, with the best weights restored, when the loss is no longer finite.
    >>> net = Network([2, 8, 1], activation="tanh", device="numpy")
    >>> history = train(net, [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0], epochs=2)
    >>> len(history), history.stop_reason
    (2, 'epochs')
    """
    config = TrainConfig(
        optimizer, epochs, batch_size, shuffle, l1, l2, weight_decay, max_norm, clip_norm, ema,
        schedule, momentum_schedule, early_stopping, seed,
    )  # fmt: skip
    return Trainer(
        net, x, y, config,
        sample_weight=sample_weight, validation=validation, scale=scale,
        scale_targets=scale_targets, callbacks=callbacks,
    ).run()  # fmt: skip
