"""The state of a training run: all that its next steps depend on.

Batches, dropout masks and learning rates follow from the seed and the step, so they are not part
of it. A state that is saved and loaded again continues with the same result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnbackend.backend.base import LOSS, WEIGHT
from nnbackend.backend.formulas import Array
from nnbackend.network.evaluation.sums import Sums
from nnbackend.network.network import Network
from nnbackend.training.history import History
from nnbackend.training.lbfgs import LBFGSSteps, load_vector

DECISIONS = ("early stopping", "converged", "callback")  # stop reasons that are final
PAUSES = ("epochs", "interrupted")  # stop reasons after which a run can be continued


class TrainState:
    """The state between two steps: vectors on the device, counts and the history on the host.

    theta: the parameters, the network's own vector.  optimizer: its vectors by name.
    ema_weights: the running average of theta, or None.  best: the weights of the best epoch.
    clock: (step, batch of the epoch).  sums: loss, weight and penalty of the epoch.
    lbfgs: the state of L-BFGS, or None for other optimizers.
    epoch: completed epochs.  step_in_epoch: completed steps of the current epoch.
    first_step: steps of earlier runs that this one continues; not saved.

    Shapes: theta, optimizer's vectors, ema_weights, best (P,); clock (2,).
    """

    def __init__(
        self,
        net: Network,
        names: Sequence[str],
        history: History,
        steps_per_epoch: int,
        *,
        has_ema: bool = False,
    ) -> None:
        self.backend, self.dtype, self.theta = net.backend, net.dtype, net.theta
        self.optimizer = {n: self.backend.zeros((net.layout.size,), net.dtype) for n in names}
        self.best = self._copy(net.theta)
        self.ema_weights = self._copy(net.theta) if has_ema else None
        self.clock = self.backend.zeros((2,), "int64")
        self.sums = Sums(self.backend, history.batch_size)
        self.history, self.steps_per_epoch = history, steps_per_epoch
        self.lbfgs: LBFGSSteps | None = None
        self.epoch = self.step_in_epoch = self.first_step = 0
        self.decided = ""  # the stop reason of the resumed run, if it had stopped

    @property
    def steps_done(self) -> int:
        """Completed steps before the current epoch, those of earlier runs included."""
        return self.first_step + self.epoch * self.steps_per_epoch

    @property
    def step(self) -> int:
        """Completed steps, those of earlier runs included."""
        return self.steps_done + self.step_in_epoch

    @property
    def weights(self) -> Array:
        """The weights that are evaluated and returned: the average if there is one, else theta."""
        return self.theta if self.ema_weights is None else self.ema_weights

    def vectors(self) -> dict[str, Array]:
        """Return the arrays on the device that `state_dict` saves, by name; theta is apart."""
        vectors = {f"optimizer.{name}": vector for name, vector in self.optimizer.items()}
        vectors |= {"best": self.best, "totals": self.sums.totals}
        return vectors if self.ema_weights is None else vectors | {"ema_weights": self.ema_weights}

    def save_best(self) -> None:
        """Save the current weights as those of the best epoch."""
        self.backend.copy(self.weights, self.best)

    def restore_best(self) -> None:
        """Restore the weights of the best epoch, or the initial ones if no epoch has ended."""
        self.backend.copy(self.best, self.theta)

    def mean_loss(self) -> float:
        """Return the mean loss of the epoch so far."""
        sums = self.sums.read()
        return float(sums[LOSS] / sums[WEIGHT]) if sums[WEIGHT] else 0.0

    def is_finite(self) -> bool:
        """Return True if no weight is infinite or NaN."""
        with np.errstate(over="ignore", invalid="ignore"):
            total = self.backend.xp.sum(self.theta, keepdims=True)
        return math.isfinite(float(self.backend.to_host(total)[0]))

    # ---- saving and loading -----------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state without theta: plain data, and host arrays."""
        state: dict[str, Any] = {
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "steps_per_epoch": self.steps_per_epoch,
            "stop_reason": self.history.stop_reason,
            "monitor": self.history.monitor,
            "columns": self.history.columns(),
        }
        state |= {name: self.backend.to_host(v) for name, v in self.vectors().items()}
        if self.sums.is_short:
            state["sums"] = self.sums.host.copy()
        if self.history.rows:
            state["history"] = np.array(self.history.table())
        return state if self.lbfgs is None else state | self.lbfgs.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the result of `state_dict`, which may be from another device.

        Raises: ValueError, KeyError or TypeError for an invalid state; the run is then unusable.
        """
        counts = [state[name] for name in ("epoch", "step_in_epoch", "steps_per_epoch")]
        if any(type(count) is not int for count in counts):
            raise TypeError("epoch, step_in_epoch and steps_per_epoch must be whole numbers")
        epoch, step_in_epoch, steps_per_epoch = counts
        if steps_per_epoch != self.steps_per_epoch:
            raise ValueError(f"steps_per_epoch={steps_per_epoch}")
        if epoch < 0 or not 0 <= step_in_epoch <= steps_per_epoch:
            raise ValueError(f"epoch={epoch}, step_in_epoch={step_in_epoch}")
        if (reason := state["stop_reason"]) not in ("", *PAUSES, *DECISIONS):
            raise ValueError(f"stop_reason={reason!r}")
        table = state["history"].tolist() if "history" in state else []
        if len(table) != epoch:
            raise ValueError(f"{len(table)} rows of history for {epoch} epochs")
        self.history.load(state["columns"], table)
        self.sums.load(state["totals"], state.get("sums"))
        self._check_names(state)
        for name, vector in self.vectors().items():
            if name != "totals":
                load_vector(self.backend, state[name], vector, name)
        if self.lbfgs is not None:
            self.lbfgs.load_state_dict(state)
        self.epoch, self.step_in_epoch = epoch, step_in_epoch
        self.decided = reason if reason in DECISIONS else ""

    def _check_names(self, state: Mapping[str, Any]) -> None:
        """Raise ValueError if arrays are missing or unknown."""
        if ("lbfgs" in state) != (self.lbfgs is not None):
            raise ValueError("the state of L-BFGS")
        optional = {"sums", "history"}
        names = {name for name, value in state.items() if isinstance(value, np.ndarray)}
        own = {name for name in names - optional if not name.startswith("lbfgs.")}
        if own != self.vectors().keys():
            raise ValueError(f"arrays {sorted(own ^ self.vectors().keys())}")

    def _copy(self, vector: Array) -> Array:
        copy = self.backend.empty(tuple(vector.shape), self.dtype)
        self.backend.copy(vector, copy)
        return copy
