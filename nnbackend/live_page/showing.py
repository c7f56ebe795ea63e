"""What the page is sent: the setup after a change of options, and frames of the network."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from nnbackend.live_page import hints
from nnbackend.live_page.controls import Controls
from nnbackend.live_page.frames import encode, to_json
from nnbackend.live_page.options import STRUCTURE, choices
from nnbackend.live_page.pictures import GRID, pieces
from nnbackend.live_page.sources import NOISE, SHOWN_ROWS
from nnbackend.network.layers import Dense, Dropout

SLOW_SECONDS = 0.4  # between two distributions while a run is shown
EVALUATED = 2000  # training rows of the figures
PHI_AT = np.linspace(-6.0, 6.0, 97)  # where activations are drawn
CURVE = ["epoch", "step", "train_loss", "valid_loss", "valid_score"]
# The lesson of the course (docs/course) that explains each hint.
LESSONS = {
    "saturated": 2, "dead": 2, "step": 2, "symmetric": 4, "rising": 6, "plateau": 6, "majority": 6,
    "overfit": 7, "vanishing": 8, "exploding": 8,
}  # fmt: skip


def setup(controls: Controls) -> dict[str, Any]:
    """Return what is shown beside the weights: options, data, layers."""
    source, phase = controls.source, controls.phase
    data, settings = source.data, controls.options.settings
    texts = controls.options.texts()
    if settings.device is None:
        texts["device"] = phase.net.backend.device.partition(":")[0]
    return {
        "number": controls.setup_number,
        "options": texts,
        "choices": choices(data.task or "regression", controls.devices),
        "fixed": list(STRUCTURE) if controls.fixed is not None else [],
        "watched": controls.is_watched,
        "learning_rate": float(getattr(phase.trainer.config.optimizer, "learning_rate", 1.0)),
        "data": {
            "kind": source.kind, "about": dict(source.about), "noise": NOISE, "name": data.name,
            "task": data.task, "classes": [str(c) for c in data.classes or ()],
            "names": list(source.names), "rows": data.n_samples, "columns": list(source.columns),
            "all_names": list((source if source.whole is None else _whole(source)).names),
            "points": _points(controls),
        },
        "layers": _layers(controls),
        "plane": {
            "features": list(controls.pictures.features), "grid": GRID,
            "spans": [list(span) for span in controls.pictures.spans],
            "curve": controls.pictures.is_curve,
        },
        "score": phase.data.score.name,
        "loss": phase.net.loss.name,
        "device": phase.net.backend.device,
        "epochs": settings.epochs,
        "steps_per_epoch": phase.state.steps_per_epoch,
        "curve": CURVE,
        "limits": {"layers": 6, "units": 256},
    }  # fmt: skip


def _whole(source: Any) -> Any:
    return type(source)(source.whole, source.kind)


def _points(controls: Controls) -> dict[str, Any]:
    """Return the drawn rows: indices, coordinates on the plane, targets, and the held-out ones."""
    data, features = controls.source.data, controls.pictures.features
    rows = np.arange(data.n_samples)[:: max(1, -(-data.n_samples // SHOWN_ROWS))]
    held_out = ~np.isin(rows, controls.phase.data.rows)
    assert data.y is not None
    y = data.y[rows] if data.y.ndim == 1 else data.y[rows, 0]
    x = np.asarray(data.x[rows][:, list(features)], np.float64)
    return {"row": rows.tolist(), "x": x.tolist(), "y": np.asarray(y).tolist(),
            "held_out": held_out.astype(int).tolist()}  # fmt: skip


def _layers(controls: Controls) -> list[dict[str, Any]]:
    """Return the layers, the input first: widths, the units that are shown, activations."""
    net, shown = controls.phase.net, controls.pictures.shown
    found: list[dict[str, Any]] = [{"width": net.n_in, "shown": list(shown[0]), "kind": "input"}]
    rate = 0.0
    for layer in reversed(net.layers):
        if isinstance(layer, Dropout):
            rate = layer.drop_rate
            continue
        name = layer.activation.name if isinstance(layer, Dense) else "maxout"
        units = shown[len(net.trainable_layers) - len(found) + 1]
        width = layer.n_outputs(0)
        found.insert(1, {"width": width, "shown": list(units), "activation": name,
                         "dropout": rate, "pieces": pieces(layer), "phi": _phi(layer)})  # fmt: skip
        rate = 0.0
    return found


def _phi(layer: Any) -> dict[str, list[float]] | None:
    """Return an activation and its slope between two limits; None if they need other units too."""
    if not isinstance(layer, Dense) or layer.activation.name == "softmax":
        return None
    with np.errstate(all="ignore"):
        a = np.asarray(layer.activation.value(PHI_AT, np))
        slope = np.asarray(layer.activation.slope(PHI_AT, a, np))
    return {
        "z": PHI_AT.tolist(),
        "a": a.tolist(),
        "slope": np.broadcast_to(slope, a.shape).tolist(),
    }


class Show:
    """Makes the frames of a session; distributions and hints less often than pictures."""

    def __init__(self) -> None:
        self._slow: dict[str, Any] = {}
        self._slow_text = "{}"
        self._time, self._number, self._count = 0.0, 0, 0

    def expire(self) -> None:
        """Make the next frame's distributions and numbers again."""
        self._time = 0.0

    def frame(
        self, controls: Controls, *, is_paused: bool
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the facts and the arrays of a frame at the current weights."""
        phase, now = controls.phase, time.perf_counter()
        if is_paused or now - self._time > SLOW_SECONDS or self._number != controls.setup_number:
            self._time, self._number = now, controls.setup_number
            self._count += 1
            self._slow = {"slow": self._count, **self._less_often(controls)}
            self._slow_text = to_json(self._slow)
        facts = {
            "setup": controls.setup_number, "epoch": phase.epoch, "step": phase.step,
            "first_step": controls.snapshots.items[0].step,
            "step_in_epoch": phase.state.step_in_epoch, "learning_rate": phase.learning_rate,
            "finished": controls.is_finished, "sub": controls.algorithm.sub,
            "can_back": phase.step > controls.snapshots.items[0].step
            or controls.snapshots.items[-1].kind == "edit" or controls.algorithm.sub > 1,
            **self._slow,
        }  # fmt: skip
        arrays = controls.pictures.arrays() | controls.pictures.weights()
        arrays["curve"] = controls.curve.array(CURVE)
        return facts, arrays

    def encoded(self, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
        """Return the frame of facts and arrays; what changes less often is encoded once."""
        fast = {name: value for name, value in facts.items() if name not in self._slow}
        return encode(fast, arrays, self._slow_text)

    def _less_often(self, controls: Controls) -> dict[str, Any]:
        """Return figures, distributions, hints and the numbers of a row."""
        phase, source = controls.phase, controls.source
        with np.errstate(all="ignore"):
            sample, found = hints.signals_of(phase, source), figures(controls)
            return {
                "figures": found,
                "histograms": hints.histograms(sample),
                "hints": [
                    {**hint, "lesson": LESSONS[hint["code"]]}
                    for hint in hints.hints(
                        phase, sample, controls.curve.rows, found["train_score"]
                    )
                ],
                "algorithm": controls.algorithm.facts(),
            }


def figures(controls: Controls) -> dict[str, float]:
    """Return loss and score of the training and the validation rows at the current weights."""
    phase = controls.phase
    data, name = phase.data, phase.data.score.name
    rows = data.rows[:: -(-len(data.rows) // EVALUATED)]
    weight = None if data.weight is None else data.weight[rows]
    train = phase.evaluate(data.x[rows], data.y[rows], weight)
    found = {"train_loss": train["loss"], "train_score": train[name]}
    if data.validation is not None:
        x, y, weight = data.validation
        every = slice(None, None, -(-len(y) // EVALUATED))
        valid = phase.evaluate(x[every], y[every], None if weight is None else weight[every])
        found |= {"valid_loss": valid["loss"], "valid_score": valid[name]}
    return found
