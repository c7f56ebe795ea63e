"""One sentence at the end of a run with poor results: why, and what to try.

A good run has no hint. The rules are those of `explain.hints`, from the clearest cause to the least
clear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nnbackend.cli.console import print_message
from nnbackend.cli.plan import Plan
from nnbackend.explain import hints
from nnbackend.explain.hints import Hint, Signals
from nnbackend.training.optimizers import get_optimizer

# Results below are poor: shares of the way from the simplest answer to a perfect one.
POOR, POOR_R2 = 0.5, 0.2
UNITS = 32  # of a hidden layer that is advised instead of a smaller one
TEN = 10.0  # times a rate


@dataclass(frozen=True)
class Facts:
    """What the rules look at.

    score: its name and value.  share: of the most frequent class, None for a regression.
    losses: the validation loss of each epoch, or the training loss without validation rows.
    constant: the loss of a constant answer, or None if unknown.
    rate, usual_rate: the learning rate, None for lbfgs, and the optimizer's default.
    found: the hints on the network, see `explain.hints`.
    hidden: the units of each hidden layer.
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
    found: tuple[Hint, ...] = ()
    hidden: tuple[int, ...] = ()

    @property
    def faster(self) -> str:
        """The option for a larger learning rate."""
        assert self.rate is not None
        return f"--learning-rate {max(10 * self.rate, self.usual_rate or 0.0):g}"

    @property
    def slower(self) -> str:
        """The option for a smaller learning rate: a tenth, or the default if far below."""
        assert self.rate is not None
        usual = self.usual_rate or self.rate
        return f"--learning-rate {usual if self.rate > TEN * usual else self.rate / TEN:g}"

    @property
    def larger(self) -> str:
        """The option for a larger network than this one."""
        if max(self.hidden, default=0) < UNITS:
            return f"more units or layers, as in --hidden {UNITS},{UNITS}"
        wider = (*self.hidden, self.hidden[-1])
        return f"more layers, as in --hidden {','.join(map(str, wider))}"

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
        hidden=plan.settings.hidden,
    )
    if not facts.is_poor:
        return ""
    return sentence(replace(facts, found=tuple(_of_network(plan))))


def sentence(facts: Facts) -> str:
    """Return the sentence for a run; "" for good results."""
    if not facts.is_poor:
        return ""
    name, value = facts.score
    if why := _step_size(facts) or _of_units(facts):
        return f"{name} {value:.2f} is poor: {why}"
    if facts.share is not None and facts.share >= hints.UNBALANCED:
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
    losses, most = facts.losses, max(facts.train_losses)
    if hints.is_slow(losses):
        return (
            f"the loss fell in nearly every epoch, but only from {losses[0]:.3g} to "
            f"{min(losses):.3g}, so the learning rate is too small; try {facts.faster}."
        )
    if hints.is_too_fast(facts.train_losses, facts.constant):
        return (
            f"the loss reached {most:.3g}, where a constant answer has {facts.constant:.2g}, so "
            f"the learning rate is too large; try {facts.slower}."
        )
    return ""


SENTENCES = {
    "saturated": "{share:.0%} of the outputs of layer {layer} are saturated, where the slope is "
    "nearly 0 and the layers up to it hardly learn; try --activation relu or a smaller "
    "--learning-rate.",
    "dead": "{dead:.0%} of the ReLUs of layer {layer} are dead (0 for every row) and cannot learn; "
    "try a smaller --learning-rate or --activation leaky_relu.",
    "step": "the slope of the step function of layer {layer} is 0, so the layers up to it do not "
    "learn; try --activation relu.",
    "vanishing": "δ shrinks to {ratio:.1g} of its size on the way back, so the first layers hardly "
    "learn; try --activation relu or fewer layers.",
    "exploding": "δ grows {ratio:.1g} times on the way back; try a smaller --learning-rate or "
    "fewer layers.",
    "symmetric": "all units of layer {layer} have the same weights, so they stay the same; draw "
    "the initial weights at random.",
}


def _of_units(facts: Facts) -> str:
    """Return the first hint on the network; a few dead units do no harm."""
    for hint in facts.found:
        dead = hint.get("count", 0) / hint.get("of", 1)
        if hint["code"] != "dead" or dead > hints.MOST:
            return SENTENCES[hint["code"]].format(**hint, dead=dead)
    return ""


def _of_fit(facts: Facts) -> str:
    """Return whether the network fits its training rows only."""
    at = hints.overfit_at(facts.train_losses, facts.losses, facts.constant)
    if at is None:
        return ""
    return (
        f"the loss is {facts.train_losses[at]:.3g} on the training rows and "
        f"{facts.losses[at]:.3g} on others, so the network over-fits; try more rows or other "
        "features, fewer units, --l2 0.001 or --dropout 0.3."
    )


def _of_length(facts: Facts) -> str:
    """Return how the run ended, for a run without a clearer cause."""
    n = len(facts.losses)
    if facts.stop_reason == "early stopping":
        faster = f" or {facts.faster}" if facts.may_be_faster else ""
        return (
            f"early stopping ended the run at epoch {n}, after {facts.patience} epochs without "
            f"improvement; try --patience 0{faster}, or {facts.larger}, unless the "
            "features do not determine the target."
        )
    if hints.is_falling(facts.losses):
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
        f"determine the target; try {facts.larger}{faster}."
    )


def _constant_loss(plan: Plan, shares: np.ndarray | None) -> float | None:
    """Return the loss of the best constant answer: the entropy, or half the variance."""
    loss = plan.net.loss.name
    if shares is not None and loss in ("cross_entropy", "binary_cross_entropy"):
        known = shares[shares > 0]
        return float(-(known * np.log(known)).sum())
    # Targets of a regression are scaled to a variance near 1.
    return 0.5 * plan.net.n_out if shares is None and loss == "quadratic" else None


def _of_network(plan: Plan) -> list[Hint]:
    """Return the hints on the network, from some training rows."""
    net, rows = plan.net, hints.some_rows(plan.parts.training.n_samples)
    x = net.backend.to_device(plan.model.inputs(plan.parts.training.rows(rows).x))
    is_classes = plan.parts.training.n_classes is not None
    signals = Signals.of(net, x, plan.trainer.data.y[rows], is_classes)
    return hints.of_network(net, signals)
