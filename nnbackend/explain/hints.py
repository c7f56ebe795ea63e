"""What hinders learning: rules on the curves of a run and on the signals of its network.

The live page applies them while a network learns, `nnbackend train` at the end of a poor run; each
has its own sentences. A hint is a code with its numbers, the most urgent first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend.network.layers import Dense
from nnbackend.network.network import Network

CODES = ("saturated", "dead", "step", "vanishing", "exploding", "symmetric", "rising", "overfit",
         "plateau", "majority")  # fmt: skip
ROWS = 256  # on which the units are examined
MOST = 0.5  # of a layer's outputs
FLAT = 0.05  # of the largest slope, below which a sigmoid or tanh is saturated
STEEPEST = {"sigmoid": 0.25, "tanh": 1.0}
VANISHING, EXPLODING = 1e-3, 1e3  # ratio of the means of |delta|, first to last layer
LEARNT = 1e-3  # median of |delta| at the output, below which slow learning is no fault
LARGE, HUGE = 2.0, 10.0  # times the loss of a constant answer, at the end and at any epoch
SLOW, STEADY = 0.05, 0.8  # fall of the loss in all epochs; share of the epochs in which it fell
FEW_EPOCHS, STILL_FALLING = 10, 0.01
FAR = 0.5  # training loss at the best epoch, of the validation loss
FITTED = 0.75  # training loss of a network that has learned its rows, of a constant answer's
APART = 0.9  # training loss at the end, of the best epoch's and of the validation loss
RISEN = 1.3  # validation loss, of its least value, while a network is learning
WINDOW, FALLEN = 20, 0.985  # epochs of a plateau; loss at its end, of that at its beginning
POOR = 0.5  # of the errors of a constant answer, above which a result is poor
UNBALANCED = 0.8  # share of the most frequent class
Hint = dict[str, Any]
Losses = Sequence[float]


@dataclass(frozen=True)
class Signals:
    """z, a, delta and the slopes of some rows, by trainable layer: (rows, units).

    answers: the class codes of a classifier's outputs, else None.
    constant: the score of the best constant answer: the share of the largest class, or 0 for r2.
    """

    z: list[np.ndarray]
    a: list[np.ndarray]
    delta: list[np.ndarray]
    slope: list[np.ndarray | None]
    answers: np.ndarray | None
    constant: float = 0.0

    @classmethod
    def of(cls, net: Network, x: Any, y: Any, is_classes: bool) -> Signals:
        """Return the signals of rows x, on the device, with targets y as `backprop` takes them."""
        trace, gradient, host = net.trace(x), net.backprop(x, y), net.backend.to_host
        z, a = ([host(v) for v in part] for part in (trace.z, trace.a))
        delta = [len(y) * host(d) for d in gradient.deltas]  # of each row, not of the mean
        slopes = [
            np.asarray(layer.activation.slope(z[i], a[i], np)) if isinstance(layer, Dense) else None
            for i, layer in enumerate(net.trainable_layers)
        ]
        has_codes = is_classes and net.n_out > 1
        answers = a[-1].argmax(axis=1) if has_codes else None
        counts = _counts(np.asarray(y)) if is_classes else np.zeros(1)
        return cls(z, a, delta, slopes, answers, float(counts.max() / max(len(y), 1)))

    @property
    def is_learnt(self) -> bool:
        """Whether the outputs are so close to the targets that slow learning is no fault."""
        return float(np.median(np.abs(self.delta[-1]))) < LEARNT


def _counts(y: np.ndarray) -> np.ndarray:
    """Return how often each class occurs in targets: codes, or one column a class."""
    return y.sum(axis=0) if y.ndim == 2 and y.shape[1] > 1 else np.unique(y, return_counts=True)[1]


def some_rows(n: int) -> np.ndarray:
    """Return the positions of at most ROWS evenly spaced rows of n."""
    return np.arange(n)[:: -(-n // ROWS)]


# ---- the network --------------------------------------------------------------------------------


def of_network(net: Network, signals: Signals) -> list[Hint]:
    """Return hints on units, on delta and on the weights."""
    found: list[Hint] = []
    for i, layer in enumerate(net.trainable_layers[:-1]):
        if isinstance(layer, Dense):
            found += _of_units(i, layer, signals)
    return found + ([] if signals.is_learnt else _of_deltas(signals)) + _of_weights(net)


def _of_units(i: int, layer: Dense, signals: Signals) -> list[Hint]:
    kernel, slope, found = layer.activation.kernel, signals.slope[i], []
    if kernel in STEEPEST and slope is not None and not signals.is_learnt:
        share = float((np.abs(slope) < FLAT * STEEPEST[kernel]).mean())
        if share > MOST:
            found.append({"code": "saturated", "layer": i + 2, "share": share})
    dead = int((signals.a[i] == 0.0).all(axis=0).sum()) if kernel == "relu" else 0
    if dead:
        found.append({"code": "dead", "layer": i + 2, "count": dead, "of": layer.n_out})
    if layer.activation.name == "step":
        found.append({"code": "step", "layer": i + 2})
    return found


def _of_deltas(signals: Signals) -> list[Hint]:
    """Return a hint if delta vanishes or explodes on its way back."""
    if len(signals.delta) < 3:
        return []
    # Means, as half of the values behind ReLU are 0.
    sizes = [float(np.abs(d).mean()) for d in signals.delta]
    if not sizes[-1] or not np.isfinite(sizes).all():
        return []
    ratio = sizes[0] / sizes[-1]
    if ratio < VANISHING:
        return [{"code": "vanishing", "ratio": ratio}]
    return [{"code": "exploding", "ratio": ratio}] if ratio > EXPLODING else []


def _of_weights(net: Network) -> list[Hint]:
    """Return a hint if all units of a hidden layer are the same."""
    weights, _ = net.get_parameters()
    for i, W in enumerate(weights[:-1]):
        if W.shape[1] > 1 and np.ptp(W, axis=1).max() == 0.0:
            return [{"code": "symmetric", "layer": i + 2}]
    return []


def of_answers(signals: Signals) -> list[Hint]:
    """Return a hint if all rows get one class."""
    is_one = signals.answers is not None and len(set(signals.answers)) == 1
    return [{"code": "majority"}] if is_one else []


# ---- curves while a network learns --------------------------------------------------------------


def of_curves(epochs: Losses, train: Losses, valid: Losses) -> list[Hint]:
    """Return hints on the losses so far; valid is empty without held-out rows."""
    if len(train) < FEW_EPOCHS:
        return []
    recent, before = np.mean(train[-5:]), np.mean(train[-10:-5])
    if recent > 1.2 * before and recent > 1.2 * min(train) and recent > 0.05 * train[0]:
        return [{"code": "rising"}]
    if len(valid) > 20:
        best = int(np.argmin(valid))
        is_worse = np.mean(valid[-5:]) > RISEN * valid[best] > 0 and best < len(valid) - 10
        if is_worse and recent <= before * 1.02:
            return [{"code": "overfit", "epoch": epochs[best]}]
    if len(train) >= 30 and train[-30] - recent < 0.005 * abs(train[0]) and recent > 0.8 * train[0]:
        return [{"code": "plateau"}]
    return []


def of_poor(train: Losses, score: float, constant: float) -> list[Hint]:
    """Return a hint if the result is poor and the loss has not fallen for many epochs.

    score, constant: accuracy or r2 of the training rows, now and with the best constant answer.
    """
    if len(train) < WINDOW or not 1.0 - score > POOR * (1.0 - constant):
        return []
    before, recent = np.mean(train[-WINDOW : 5 - WINDOW]), np.mean(train[-5:])
    return [{"code": "plateau"}] if recent > before - (1.0 - FALLEN) * abs(before) else []


# ---- curves of a run that has ended with a poor result ------------------------------------------


def is_slow(losses: Losses) -> bool:
    """Whether the loss fell in nearly every epoch, but only a little."""
    fell = np.mean(np.diff(losses) < 0) if len(losses) > FEW_EPOCHS else 0.0
    return bool(fell >= STEADY and losses[0] - min(losses) < SLOW * losses[0])


def is_too_fast(train: Losses, constant: float | None) -> bool:
    """Whether the loss went far above that of a constant answer."""
    return bool(constant) and (
        train[-1] > LARGE * (constant or 0.0) or max(train) > HUGE * (constant or 0.0)
    )


def overfit_at(train: Losses, losses: Losses, constant: float | None) -> int | None:
    """Return the epoch, as a position, at which the losses show over-fitting; None if none does."""
    best, least = int(np.argmin(losses)), np.inf if constant is None else constant
    if constant is not None and train[best] < FAR * min(losses[best], constant):
        return best
    parts = train[-1] < APART * min(train[best], losses[-1]) and train[-1] < FITTED * least
    return -1 if parts and losses[-1] > losses[best] else None


def is_falling(losses: Losses) -> bool:
    """Whether the loss still falls at the end."""
    n = len(losses)
    end = losses[-max(2, n // 4) :]
    return n <= FEW_EPOCHS or end[0] - end[-1] > STILL_FALLING * abs(end[0])
