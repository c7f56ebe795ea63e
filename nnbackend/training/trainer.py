"""The story: how a network learns.

`Trainer.new_step` is one step of gradient descent, from a mini-batch to moved weights;
`Trainer.run` goes through the epochs: train, validate, note down, keep the best, perhaps stop.
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
from nnbackend.training.batching import Feed, batch_sizes, epoch_order
from nnbackend.training.callbacks import Callback, EarlyStopping
from nnbackend.training.history import History, Row
from nnbackend.training.intake import TrainingData, Validation, take_in
from nnbackend.training.interrupt import InterruptGuard
from nnbackend.training.lbfgs import LBFGS, LBFGSSteps
from nnbackend.training.micro_batches import (
    Runs,
    halving,
    new_divided_pass,
    say_divided,
)
from nnbackend.training.recipe import Recipe
from nnbackend.training.schedules import AnySchedule, When, values_of

GLANCE_SECONDS = 0.1  # how long steps run on before Ctrl-C, progress and the loss are looked at


class Trainer:
    """One training run: what it carries from step to step, and the loop over epochs.

    Made by `train`; by itself it is of use to whoever wants to stop, look and go on.
    """

    def __init__(
        self,
        net: Network,
        x: Any,
        y: Any,
        recipe: Recipe,
        *,
        sample_weight: Any = None,
        validation: Validation = None,
        scale: str | Scaler | None = None,
        scale_targets: bool = False,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.net, self.backend = net, net.backend
        self.recipe = recipe = recipe.checked(net)
        self.callbacks = _check_callbacks(callbacks)
        check("scale_targets", scale_targets, lambda v: v in (True, False), "True or False")
        self.validation_share = float(validation) if isinstance(validation, Real) else None
        before = net.scaler, net.target_scaler, net.classes
        try:
            data = take_in(
                net, x, y, sample_weight, validation,
                scale=scale, scale_targets=scale_targets, seed=recipe.seed,
                monitor=recipe.early_stopping.monitor if recipe.early_stopping else None,
            )  # fmt: skip
            self._prepare(data)
        except Exception:  # what is refused leaves the network as it was
            net.scaler, net.target_scaler, net.classes = before
            raise

    def _prepare(self, data: TrainingData) -> None:
        """Make everything that the run carries from step to step."""
        net, recipe = self.net, self.recipe
        self.validation = data.validation

        backend, P = net.backend, net.layout.size
        self.n = len(data.rows)
        is_lbfgs = isinstance(recipe.optimizer, LBFGS)
        self.batch_size = self.n if is_lbfgs else min(recipe.batch_size or self.n, self.n)
        self.feed = Feed(net, data, self.batch_size)
        self.sizes = batch_sizes(self.n, self.batch_size)
        self.steps_per_epoch = sum(count for count, _ in self.sizes)

        self.grad = backend.zeros((P,), net.dtype)
        names = () if is_lbfgs else recipe.optimizer.state
        self.state = {name: backend.zeros((P,), net.dtype) for name in names}
        self.clock = backend.zeros((2,), "int64")
        self.hyper = backend.zeros((3,), backend.sum_dtype)
        self.rates = backend.zeros((2, self.steps_per_epoch), backend.sum_dtype)
        self.sums = Sums(backend, self.batch_size)
        self.totals = self.sums.totals
        self.best = self._copy(net.theta)
        self.shadow = self._copy(net.theta) if recipe.ema else None
        is_swapped = self.shadow is not None and self.validation is not None
        self._swapped = self._copy(net.theta) if is_swapped else None  # while the shadow is served

        stopping = recipe.early_stopping
        monitor = "valid_loss" if self.validation is not None else "train_loss"
        self.history = History((stopping and stopping.monitor) or monitor, seed=recipe.seed)
        self.history.batch_size = self.batch_size
        self.epoch = 0  # epochs done
        self.first_step = 0  # steps made in an earlier run, whose state this one goes on with
        self.made = 0  # steps made of the epoch under way
        self.decided = ""  # why a run that is gone on with had stopped already
        self.rows_at_once = self.batch_size  # fewer where the device's memory is short
        self._prepared_at = 0.0
        self._at_once = 1  # steps between two glances at the clock
        self.interrupt = InterruptGuard()
        self.lbfgs: LBFGSSteps | None = None
        self._runs = Runs()
        if not is_lbfgs:
            self._epoch_rates()  # a schedule that cannot be meant is refused before the first epoch

    @property
    def step(self) -> int:
        """Steps made since training began."""
        return self.steps_done + self.made

    # ---- one step ---------------------------------------------------------------------------

    @staticmethod  # for who keeps a pass must not keep the trainer, which keeps it
    def _new_pass(
        net: Network, feed: Feed, rows: int, at_once: int, *,
        grad: Array, clock: Array, totals: Array, dropout: DropoutSource | None,
    ) -> Callable[[], None]:  # fmt: skip
        """Return the pass over `rows` rows to their gradient, at_once at a time, with arrays."""
        backend = net.backend
        if at_once < rows:
            return new_divided_pass(
                net, feed, rows, at_once, grad=grad, clock=clock, totals=totals, dropout=dropout
            )
        batch = feed.new_batch(rows)
        layers, loss = net.for_training()
        space = net.workspace(batch.x, layers, grad=grad, dropout=dropout)

        def compute() -> None:
            feed.load(batch, clock)  # the rows of this mini-batch
            out = space.forward()  # feed forward
            backend.loss_and_delta(loss, out, batch.y, batch.weight, space.out.delta, totals)
            space.backward()  # backpropagate

        return compute

    def new_step(self, rows: int, at_once: int) -> Callable[[], None]:
        """Give one step of gradient descent on `rows` rows, in passes of at most so many."""
        net, backend, recipe = self.net, self.backend, self.recipe
        clock, rates, hyper, totals = self.clock, self.rates, self.hyper, self.totals
        theta, grad, shadow, ema = net.theta, self.grad, self.shadow, recipe.ema
        compute = self._new_pass(
            net, self.feed, rows, at_once,
            grad=grad, clock=clock, totals=totals, dropout=DropoutSource(recipe.seed, clock),
        )  # fmt: skip
        n_weights, state, decay = net.layout.n_weights, list(self.state.values()), recipe.decay
        l1, l2 = recipe.penalty(rows)
        limits = [(W, c) for W, c in zip(net.weights, recipe.norm_limits(net), strict=True) if c]

        def step() -> None:
            backend.tick(clock, rates, hyper)  # count the step, look up its learning rate
            compute()  # feed forward and backpropagate the rows of this mini-batch
            if l1 or l2:
                backend.add_penalty(theta[:n_weights], grad[:n_weights], l1, l2, rows, totals)
            if recipe.clip_norm:
                backend.clip_norm(grad, recipe.clip_norm)
            backend.optimizer_step(recipe.optimizer, theta, grad, state, hyper, decay, n_weights)
            for W, limit in limits:
                backend.max_norm(W, limit)
            if shadow is not None and ema is not None:
                backend.average(theta, shadow, ema, hyper)

        return step

    # ---- one epoch --------------------------------------------------------------------------

    def _train_epoch(self) -> Row:
        """Make the steps of an epoch; give its train_loss and learning_rate."""
        backend = self.backend
        rates = self._epoch_rates()
        backend.to_device(rates.astype(backend.sum_dtype, copy=False), out=self.rates)
        clock = np.zeros(2, np.int64)
        made = self.made  # not 0 where an interrupted epoch is gone on with
        clock[STEP], clock[BATCH] = self.step, made - 1
        backend.to_device(clock, out=self.clock)
        self.feed.begin_epoch(
            epoch_order(self.n, self.recipe.seed, self.epoch, self.recipe.shuffle)
        )
        if not made:
            self.sums.clear()

        checked, skipped = time.perf_counter(), made
        for count, rows in self.sizes:
            left = max(count - skipped, 0)
            skipped = max(skipped - count, 0)
            while left and not self.interrupt.requested:
                begin, every = time.perf_counter(), self.sums.every
                n = min(self._at_once, left, every - made % every)
                self._runs.make(self, rows, n)
                backend.synchronize()
                made, left, now = made + n, left - n, time.perf_counter()
                self.made = made
                if made % every == 0:
                    self.sums.bring()
                if self.epoch == 0 and made == 1:  # a device prepares itself in its first step
                    self._prepared_at = now
                suited = max(1, round(n * GLANCE_SECONDS / max(now - begin, 1e-9)))
                self._at_once = min(suited, 2 * self._at_once)
                for callback in self.callbacks:
                    callback.on_progress(self, made, self.steps_per_epoch)
                if now - checked > 1.0:
                    self._mean_loss()
                    checked = now
        return {"train_loss": self._mean_loss(), "learning_rate": rates[0, max(made - 1, 0)].item()}

    @property
    def steps_done(self) -> int:
        """Steps made by the end of the last epoch."""
        return self.first_step + self.epoch * self.steps_per_epoch

    def _epoch_rates(self) -> np.ndarray:
        """Give the learning rate and the momentum of each step of this epoch: (2, steps)."""
        recipe, done = self.recipe, self.steps_done
        steps = np.arange(done, done + self.steps_per_epoch, dtype=np.float64)
        when = When(steps, self.steps_per_epoch, recipe.epochs, self.history.costs)
        rule = recipe.optimizer
        lr = _rates(recipe.schedule, rule.learning_rate, when, math.inf)
        return np.stack([lr, _rates(recipe.momentum_schedule, rule.momentum, when, 1.0)])

    def _lbfgs_epoch(self) -> Row:
        """Make one iteration of L-BFGS on all rows."""
        lbfgs = self.lbfgs_steps()
        if not self.made:
            with np.errstate(over="ignore", invalid="ignore"):  # the search may look too far
                lbfgs.iterate()
            self.made = 1
        return {"train_loss": self._mean_loss(), "learning_rate": 1.0}

    def lbfgs_steps(self) -> LBFGSSteps:
        """Give L-BFGS under way, which is begun when it is first asked for."""
        if self.lbfgs is None:
            theta, objective = self.net.theta, self.new_objective()
            self.lbfgs = LBFGSSteps(
                self.recipe.optimizer, self.backend, theta, self.grad, objective
            )
        return self.lbfgs

    def new_objective(self) -> Callable[[], float]:
        """Give the function that L-BFGS minimises: mean loss and penalty, and their gradient."""
        net, feed, backend, n, at_once = self.net, self.feed, self.backend, self.n, self.n
        new_pass, grad, clock, totals = self._new_pass, self.grad, self.clock, self.totals
        weights, slopes = net.theta[: net.layout.n_weights], grad[: net.layout.n_weights]
        l1, l2 = self.recipe.penalty(n)
        passes: dict[int, Callable[[], None]] = {}

        def attempt(most: int) -> None:
            if most not in passes:
                passes.clear()  # gives back what larger parts held
                passes[most] = new_pass(
                    net, feed, n, most, grad=grad, clock=clock, totals=totals, dropout=None
                )
            backend.fill(totals, 0.0)
            passes[most]()

        def objective() -> float:
            nonlocal at_once
            before = at_once
            _, at_once = halving(backend, before, attempt)
            if at_once < before:
                say_divided(backend, n, at_once)
            if l1 or l2:
                backend.add_penalty(weights, slopes, l1, l2, n, totals)
            sums = backend.to_host(totals)
            return float(sums[LOSS] / sums[WEIGHT] + sums[PENALTY] / n)

        return objective

    # ---- the run ----------------------------------------------------------------------------

    def run(self) -> History:
        """Train until the epochs are done or a reason comes to stop; give the history."""
        history, is_lbfgs = self.history, isinstance(self.recipe.optimizer, LBFGS)
        history.stop_reason, self.decided = self.decided, ""
        for callback in self.callbacks:
            callback.on_train_begin(self)
        try:
            largest = max(W * n for (W, n), _ in self.net.layout.shapes) * self.batch_size
            with self.interrupt, self.backend.active(largest):
                while not history.stop_reason and self.epoch < self.recipe.epochs:
                    begin = time.perf_counter()
                    figures = self._lbfgs_epoch() if is_lbfgs else self._train_epoch()
                    if self.interrupt.requested:
                        break
                    if self.epoch == 0 and self.steps_per_epoch > 1:
                        begin = max(begin, self._prepared_at)
                    self._note(figures, time.perf_counter() - begin)
                self._check_theta()
                for callback in self.callbacks:
                    callback.on_pause(self)
        except KeyboardInterrupt:
            self.interrupt.requested = True
        if self.interrupt.requested:
            history.stop_reason = "interrupted"
            self._check_theta()
        history.stop_reason = history.stop_reason or "epochs"
        if self.shadow is not None:
            self.backend.copy(self.shadow, self.net.theta)
        stopping = self.recipe.early_stopping
        if stopping is not None and stopping.restore_best and history.rows:
            self.restore_best()
        for callback in self.callbacks:
            callback.on_train_end(self)
        return history

    def restore_best(self) -> None:
        """Put back the weights of the best epoch; before the first has ended, the initial ones."""
        self.backend.copy(self.best, self.net.theta)

    def _note(self, figures: Row, seconds: float) -> None:
        """End an epoch: validate, write the row, keep the best, decide whether to go on."""
        self._check_theta()
        self.epoch, self.made = self.epoch + 1, 0
        row: Row = {"epoch": self.epoch, "train_loss": figures["train_loss"]}
        served = self.net.theta if self.shadow is None else self.shadow
        if self.validation is not None:
            row.update({f"valid_{k}": v for k, v in self._validate(served).items()})
        row["learning_rate"] = figures["learning_rate"]
        row["seconds"] = seconds
        self.history.rows.append(row)
        if self.history.best_index == len(self.history) - 1:
            self.backend.copy(served, self.best)
        stopping = self.recipe.early_stopping
        if self.lbfgs is not None and self.lbfgs.converged:
            self.history.stop_reason = "converged"
        if stopping is not None and stopping.should_stop(self.history):
            self.history.stop_reason = "early stopping"
        for callback in self.callbacks:  # all see every epoch: none hides behind one that stops
            if callback.on_epoch_end(self, row):
                self.history.stop_reason = self.history.stop_reason or "callback"

    def _validate(self, served: Array) -> dict[str, float]:
        """Evaluate on the validation rows, with the averaged weights where there are such."""
        assert self.validation is not None
        while True:
            try:
                return self._evaluate(served, *self.validation)
            except MemoryError:  # beside what the steps keep
                if not self._runs.can_divide(self):
                    raise
            self._runs.divide(self)

    def _evaluate(
        self, served: Array, x: Array, y: np.ndarray, weight: np.ndarray | None
    ) -> dict[str, float]:
        if served is self.net.theta:
            return self.net.evaluate_prepared(x, y, weight)
        self.backend.copy(self.net.theta, self._swapped)
        self.backend.copy(served, self.net.theta)
        try:
            return self.net.evaluate_prepared(x, y, weight)
        finally:
            self.backend.copy(self._swapped, self.net.theta)

    # ---- divergence -------------------------------------------------------------------------

    def _mean_loss(self) -> float:
        """Give the mean loss of the epoch so far."""
        sums = self.sums.read()
        loss = float(sums[LOSS] / sums[WEIGHT]) if sums[WEIGHT] else 0.0
        if not math.isfinite(loss):
            self._diverged(f"the training loss became {loss}")
        return loss

    def _check_theta(self) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            total = self.backend.xp.sum(self.net.theta, keepdims=True)
        if not math.isfinite(float(self.backend.to_host(total)[0])):
            self._diverged("weights became infinite or not a number")

    def _diverged(self, what: str) -> None:
        """Put the best weights back and say what to try."""
        self.restore_best()
        rule = self.recipe.optimizer
        lr = getattr(rule, "learning_rate", None)
        advice = f"a smaller learning rate than {lr:g}, " if lr else ""
        if self.net.scaler is None:
            advice += "scaled inputs (scale='standard'), "
        advice += "clip_norm=1.0, or fewer layers"
        kept = f"epoch {self.history.best['epoch']}" if self.history.rows else "the beginning"
        error = DivergedError(
            f"training diverged in epoch {self.epoch + 1}: {what}. The network has the weights of "
            f"{kept} again. Try {advice}."
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


def _rates(schedule: Any, base: float, when: When, below: float) -> np.ndarray:
    """Give a schedule's value for each step, checked."""
    values = values_of(schedule, base, when)
    if values.shape != when.step.shape or not ((values >= 0) & (values < below)).all():
        raise ArgumentError(
            "a schedule must give one finite number, at least 0, for each step"
            f"{f', below {below:g} for a momentum' if below == 1.0 else ''}. "
            f"Received: {schedule!r}, which gave {values!r}."
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
    """Train a network on rows x (n, n_in) with targets y; give the history.

    x: an array, a table of numbers (pandas, polars, Arrow) or a SciPy sparse matrix.
    y: class labels (n,), codes from 0 or text of net.classes; or targets (n,) or (n, n_out).
    optimizer: a name or a rule: sgd, adagrad, rmsprop, adadelta, adam, adamw, lbfgs.
    batch_size: rows per step; None for all of them, 1 for stochastic gradient descent.
    validation: (x, y), (x, y, sample_weight), or the fraction of the rows to split off.
    scale: fit a scaler on the training rows ("standard", "robust", "unit"), kept in net.scaler;
    scale_targets: the same for the targets of a regression.
    l1, l2: penalties in the loss, l1 sum |w| + l2/2 sum w^2; weight_decay: in the step,
    w *= 1 - lr weight_decay; max_norm: of the incoming weights of a unit, one number or one per
    layer; clip_norm: of the gradient; ema: decay of a running average of the weights, which is
    what is validated and kept.
    schedule, momentum_schedule: names or objects of `nnbackend.schedules`, or functions of a step.
    seed: of the order of the rows, the split and dropout.
    The history's train_loss is the mean over the epoch's steps, without penalties.
    Ctrl-C ends training after the step under way; the history then says "interrupted".
    Raises: DataError, ShapeError for the data; ArgumentError for options; DivergedError when the
    loss leaves the finite numbers, with the best weights put back.
    >>> net = Network([2, 8, 1], activation="tanh", device="numpy")
    >>> history = train(net, [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0], epochs=2)
    >>> len(history), history.stop_reason
    (2, 'epochs')
    """
    recipe = Recipe(
        optimizer, epochs, batch_size, shuffle, l1, l2, weight_decay, max_norm, clip_norm, ema,
        schedule, momentum_schedule, early_stopping, seed,
    )  # fmt: skip
    return Trainer(
        net, x, y, recipe,
        sample_weight=sample_weight, validation=validation, scale=scale,
        scale_targets=scale_targets, callbacks=callbacks,
    ).run()  # fmt: skip
