"""The training loop: train, validate, record the metrics, save the best weights, stop."""

from __future__ import annotations

import time
from collections.abc import Sequence

from nnbackend.distributed import Communicator
from nnbackend.network.network import Network
from nnbackend.training.batching import BatchLoader
from nnbackend.training.callbacks import Callback
from nnbackend.training.config import TrainConfig
from nnbackend.training.divergence import check_weights, mean_loss
from nnbackend.training.history import History, Row
from nnbackend.training.lbfgs import LBFGS
from nnbackend.training.lbfgs_runner import LBFGSRunner
from nnbackend.training.preparation import TrainingData
from nnbackend.training.run import Run
from nnbackend.training.step_runner import StepRunner
from nnbackend.training.validating import validate

CHECK_SECONDS = 1.0  # between two checks of the loss within an epoch


class Trainer(Run):
    """One training run: its prepared data, its state, and the loop over epochs.

    data: from `prepare_data`.  config: from `TrainConfig.checked`.
    runner: runs the steps of an epoch.
    Call `run` again to continue an interrupted run; if it has averaged or best weights, which `run`
    puts in place at its end, use `nnbackend.resume`, which continues from the last weights.
    """

    def __init__(
        self,
        net: Network,
        data: TrainingData,
        config: TrainConfig,
        callbacks: Sequence[Callback] = (),
        communicator: Communicator | None = None,
    ) -> None:
        # First, because it needs most of the memory.
        loader = BatchLoader(net, data, config.batch_rows(len(data.rows)), config.shuffle)
        super().__init__(net, data, config, communicator)
        self.callbacks = tuple(callbacks) if self.ranks is None or self.ranks.is_first else ()
        new_runner = LBFGSRunner if isinstance(config.optimizer, LBFGS) else StepRunner
        self.runner: LBFGSRunner | StepRunner = new_runner(
            net, loader, config, self.state, self.ranks
        )

    def run(self) -> History:
        """Train until the last epoch, a stop rule or an interrupt; return the history."""
        state, history, stopping = self.state, self.state.history, self.config.early_stopping
        backend, largest = self.net.backend, self.net.layout.largest_product(history.batch_size)
        history.stop_reason, state.decided = state.decided, ""
        for callback in self.callbacks:
            callback.on_train_begin(self)
        try:
            with self.interrupt, backend.active(largest):
                while self._has_epochs_left():
                    begin = time.perf_counter()
                    metrics = self._train_epoch()
                    if self.interrupt.requested:
                        break
                    if state.epoch == 0 and state.steps_per_epoch > 1:
                        # Without the first step, which compiles kernels.
                        begin = max(begin, self.runner.first_step_end)
                    self._end_epoch(metrics, time.perf_counter() - begin)
                check_weights(self)
                for callback in self.callbacks:
                    callback.on_pause(self)
        except KeyboardInterrupt:
            self.abort()
        if self.interrupt.requested:
            history.stop_reason = "interrupted"
            check_weights(self)
        history.stop_reason = history.stop_reason or "epochs"
        if state.ema_weights is not None:
            backend.copy(state.ema_weights, state.theta)
        if stopping is not None and stopping.restore_best and history.rows:
            state.restore_best()
        for callback in self.callbacks:
            callback.on_train_end(self)
        return history

    def _has_epochs_left(self) -> bool:
        is_stopped = self.state.history.stop_reason or self.interrupt.requested
        return not is_stopped and self.state.epoch < self.config.epochs

    def _train_epoch(self) -> Row:
        """Run the steps of an epoch; return its train_loss and learning_rate."""
        state, checked = self.state, time.perf_counter()
        for _ in self.runner.run_epoch():
            for callback in self.callbacks:
                callback.on_progress(self, state.step_in_epoch, state.steps_per_epoch)
            if self.ranks is not None or time.perf_counter() - checked > CHECK_SECONDS:
                mean_loss(self)
                checked = time.perf_counter()
            if self.interrupt.requested:
                break
        return {"train_loss": mean_loss(self), "learning_rate": self.runner.learning_rate}

    def _end_epoch(self, metrics: Row, seconds: float) -> None:
        """Validate, add a row to the history, save the best weights and check the stop rules."""
        check_weights(self)
        state, history, stopping = self.state, self.state.history, self.config.early_stopping
        state.epoch, state.step_in_epoch = state.epoch + 1, 0
        row: Row = {"epoch": state.epoch, "train_loss": metrics["train_loss"]}
        if self.data.validation is not None:
            row |= {f"valid_{name}": value for name, value in validate(self, self.runner).items()}
        row |= {"learning_rate": metrics["learning_rate"], "seconds": seconds}
        history.rows.append(row := self.agreed(row))
        if history.best_index == len(history) - 1:
            state.save_best()
        if state.lbfgs is not None and state.lbfgs.converged:
            history.stop_reason = "converged"
        if stopping is not None and stopping.should_stop(history):
            history.stop_reason = "early stopping"
        for callback in self.callbacks:  # every callback runs, even after one has stopped the run
            if callback.on_epoch_end(self, row):
                history.stop_reason = history.stop_reason or "callback"
        self.agree_on_stop()
