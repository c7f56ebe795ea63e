"""One sentence at the end of a run with poor results: why, and what to try.

A good run has no hint. The rules look at the curves of the loss and at the units of the hidden
layers on some training rows, from the clearest cause to the least clear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.cli.console import print_message
from nnbackend.cli.plan import Plan
from nnbackend.network.layers import Dense
from nnbackend.training.optimizers import get_optimizer

ROWS = 512  # on which the units are examined
# Results below are poor: shares of the way from the simplest answer to a perfect one.
POOR, POOR_R2 = 0.5, 0.2
MOST = 0.5  # of a layer's units
FLAT = 0.05  # of the largest slope, below which a sigmoid or tanh is saturated
STEEPEST = {"sigmoid": 0.25, "tanh": 1.0}
LARGE, HUGE = 2.0, 10.0  # times the loss of a constant answer, at the end and at any epoch
SLOW, STEADY = 0.05, 0.8  # fall of the loss in all epochs; share of the epochs in which it fell
OVERFIT = 0.5  # training loss at the best epoch, of the validation loss
LEARNED = 0.75  # training loss of a network that has learned its rows, of a constant answer's
APART = 0.9  # training loss at the end, of the best epoch's and of the validation loss
UNBALANCED = 0.8  # share of the most frequent class
FEW_EPOCHS, STILL_FALLING = 10, 0.01


@dataclass(frozen=True)
class Facts:
    """What the rules look at.

    score: its name and value.  share: of the most frequent class, None for a regression.
    losses: the validation loss of each epoch, or the training loss without validation rows.
    constant: the loss of a constant answer, or None if unknown.
    rate, usual_rate: the learning rate, None for lbfgs, and the optimizer's default.
    saturated, dead: (layer, share of its units), layer 2 being the first hidden one.
    """

    score: tuple[str, float]
    share: float | None
    train_losses: list[float]
    losses: list[float]
    stop_reason: str
    patience: int
    constant: float | None
    rate: float | None
    usual_rate: float | None = None
    saturated: tuple[int, float] = (0, 0.0)
    dead: tuple[int, float] = (0, 0.0)

    @property
    def faster(self) -> str:
        """The option for a larger learning rate."""
        assert self.rate is not None
        return f"--learning-rate {max(10 * self.rate, self.usual_rate or 0.0):g}"

    @property
    def may_be_faster(self) -> bool:
        """Whether a larger learning rate is still a usual one."""
        return self.rate is not None and self.rate <= 2 * (self.usual_rate or self.rate)

    @property
    def is_poor(self) -> bool:
        """Whether the score is far from good."""
        value = self.score[1]
        if self.share is None:
            return value < POOR_R2
        return value - self.share < POOR * (1.0 - self.share)


def print_hint(plan: Plan, results: Mapping[str, Any], is_quiet: bool) -> None:
    """Print the hint of a run to stderr, if it has one."""
    if not is_quiet and (text := hint(plan, results)):
        print_message(f"hint: {text}")


def hint(plan: Plan, results: Mapping[str, Any]) -> str:
    """Return one sentence on why the results of a run are poor and what to try, or ""."""
    names = (f"{part}_{score}" for part in ("test", "valid") for score in ("accuracy", "r2"))
    name = next((name for name in names if name in results), None)
    history, y = plan.trainer.state.history, plan.parts.training.y
    if name is None or y is None or not history.rows or not np.isfinite(results[name]):
        return ""
    if name.endswith("accuracy") and plan.parts.training.n_classes is None:
        return ""  # several yes-or-no targets in each row
    counts = np.bincount(y.astype(np.int64)) / len(y) if name.endswith("accuracy") else None
    facts = Facts(
        (name, float(results[name])),
        None if counts is None else float(counts.max()),
        history["train_loss"],
        history["valid_loss" if "valid_loss" in history.columns() else "train_loss"],
        history.stop_reason,
        plan.settings.patience,
        _constant_loss(plan, counts),
        plan.settings.learning_rate,
        getattr(get_optimizer(plan.settings.optimizer.partition(":")[0]), "learning_rate", None),
    )
    if not facts.is_poor:
        return ""
    return sentence(Facts(**{**vars(facts), **_units(plan)}))


def sentence(facts: Facts) -> str:
    """Return the sentence for a run; "" for good results."""
    if not facts.is_poor:
        return ""
    name, value = facts.score
    if why := _step_size(facts) or _of_units(facts):
        return f"{name} {value:.2f} is poor: {why}"
    if facts.share is not None and facts.share >= UNBALANCED:
        return (
            f"{name} {value:.2f} says little: {facts.share:.0%} of the rows are of one class, and "
            "always answering it has that accuracy; judge by roc_auc or balanced_accuracy, and try "
            "--class-weight balanced."
        )
    return f"{name} {value:.2f} is poor: {_of_fit(facts) or _of_length(facts)}"


def _step_size(facts: Facts) -> str:
    """Return whether the learning rate is too large or too small."""
    if facts.rate is None:
        return ""
    train, losses = np.array(facts.train_losses), np.array(facts.losses)
    fell = np.mean(np.diff(losses) < 0) if len(losses) > FEW_EPOCHS else 0.0
    if fell >= STEADY and losses[0] - losses.min() < SLOW * losses[0]:
        return (
            f"the loss fell in nearly every epoch, but only from {losses[0]:.3g} to "
            f"{losses.min():.3g}, so the learning rate is too small; try {facts.faster}."
        )
    constant = facts.constant
    if constant and (train[-1] > LARGE * constant or train.max() > HUGE * constant):
        return (
            f"the loss reached {train.max():.3g}, where a constant answer has {constant:.2g}, so "
            f"the learning rate is too large; try --learning-rate {facts.rate / 10:g}."
        )
    return ""


def _of_units(facts: Facts) -> str:
    """Return whether units are saturated or dead."""
    level, share = facts.saturated
    if share > MOST:
        return (
            f"{share:.0%} of the outputs of layer {level} are saturated, where the slope is nearly "
            "0 and the layers up to it hardly learn; try --activation relu or a smaller "
            "--learning-rate."
        )
    level, share = facts.dead
    if share > MOST:
        return (
            f"{share:.0%} of the ReLUs of layer {level} are dead (0 for every row) and cannot "
            "learn; try a smaller --learning-rate or --activation leaky_relu."
        )
    return ""


def _of_fit(facts: Facts) -> str:
    """Return whether the network fits its training rows only."""
    train, losses = facts.train_losses, facts.losses
    best = int(np.argmin(losses))
    is_far = facts.constant is not None and train[best] < OVERFIT * min(
        losses[best], facts.constant
    )
    constant = facts.constant or np.inf
    parts = train[-1] < APART * min(train[best], losses[-1]) and train[-1] < LEARNED * constant
    if is_far or (parts and losses[-1] > losses[best]):
        at = best if is_far else -1
        return (
            f"the loss is {train[at]:.3g} on the training rows and {losses[at]:.3g} on others, so "
            "the network over-fits; try more rows or other features, fewer units, --l2 0.001 or "
            "--dropout 0.3."
        )
    return ""


def _of_length(facts: Facts) -> str:
    """Return how the run ended, for a run without a clearer cause."""
    n, losses = len(facts.losses), np.array(facts.losses)
    if facts.stop_reason == "early stopping":
        faster = f" or {facts.faster}" if facts.may_be_faster else ""
        return (
            f"early stopping ended the run at epoch {n}, after {facts.patience} epochs without "
            f"improvement; try --patience 0{faster}, or more units, as in --hidden 32,32, unless "
            "the features do not determine the target."
        )
    fall = losses[-max(2, n // 4) :]
    if n <= FEW_EPOCHS or fall[0] - fall[-1] > STILL_FALLING * abs(fall[0]):
        ended = (
            "the run had one epoch" if n == 1 else f"the loss was still falling after {n} epochs"
        )
        return f"{ended}; try --epochs {max(100, 3 * n)}."
    same = ""
    if facts.share is not None and facts.score[1] <= facts.share + 0.05:
        same = "the accuracy is that of always answering the most frequent class; "
    faster = f", or {facts.faster}" if facts.may_be_faster else ""
    return (
        f"{same}the loss no longer falls, so the network is too small, or the features do not "
        f"determine the target; try more units or layers, as in --hidden 32,32{faster}."
    )


def _constant_loss(plan: Plan, shares: np.ndarray | None) -> float | None:
    """Return the loss of the best constant answer: the entropy, or half the variance."""
    loss = plan.net.loss.name
    if shares is not None and loss in ("cross_entropy", "binary_cross_entropy"):
        known = shares[shares > 0]
        return float(-(known * np.log(known)).sum())
    # Targets of a regression are scaled to a variance near 1.
    return 0.5 * plan.net.n_out if shares is None and loss == "quadratic" else None


def _units(plan: Plan) -> dict[str, tuple[int, float]]:
    """Return the hidden layers with the most saturated outputs and the most dead ReLUs."""
    net, training = plan.net, plan.parts.training
    rows = training.rows(np.arange(min(ROWS, training.n_samples)))
    trace = net.trace(net.backend.to_device(plan.model.inputs(rows.x)))
    worst = {"saturated": (0, 0.0), "dead": (0, 0.0)}
    for level, (layer, a) in enumerate(
        zip(net.trainable_layers[:-1], trace.a[:-1], strict=True), start=2
    ):
        kernel = layer.activation.kernel if isinstance(layer, Dense) else None
        values = net.backend.to_host(a)
        if kernel in STEEPEST:
            slope = values * (1.0 - values) if kernel == "sigmoid" else 1.0 - values**2
            share = float((slope < FLAT * STEEPEST[kernel]).mean())
            worst["saturated"] = max(worst["saturated"], (level, share), key=lambda e: e[1])
        elif kernel == "relu":
            share = float((values.max(axis=0) == 0).mean())
            worst["dead"] = max(worst["dead"], (level, share), key=lambda e: e[1])
    return worst
