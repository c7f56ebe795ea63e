"""What can be taken from the page: data, settings, a Python script, and a replay.

`train.py` and `config.toml` read `live.csv` beside them, and repeat the run. If something was
changed during the run, they have the last settings, and say at their head what was changed.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nnbackend.config import SETTINGS
from nnbackend.errors import ArgumentError
from nnbackend.live_page.controls import Controls
from nnbackend.live_page.options import NEW_WEIGHTS
from nnbackend.live_page.replay import to_html
from nnbackend.live_page.sources import to_csv
from nnbackend.network.initializers import default_initializer
from nnbackend.network.layers import AbstractLayer, Dense, Dropout, Maxout
from nnbackend.network.losses import Loss
from nnbackend.training.schedules import Schedule, ScheduleContext, get_schedule

if TYPE_CHECKING:
    from nnbackend.live_page.session import Session

CSV = "live.csv"


def to_config(controls: Controls) -> str:
    """Return the settings as a config.toml of `nnbackend train`."""
    phase, data = controls.phase, controls.source.data
    lines = [
        f"# Settings of the live page. Save {CSV} beside it, and run:",
        "# nnbackend train --config config.toml", *_warning(controls),
        f'data = "{CSV}"', 'target = "target"', f'task = "{data.task}"', "header = true",
        "test = 0", "patience = 0",
    ]  # fmt: skip
    if controls.options.initializer != "auto":
        lines.append(f"# initial weights of the page: {controls.options.initializer}")
    if data.task == "regression" and phase.data.preprocessing.target_scaler is None:
        lines.append("# the page trained on the targets as they are; nnbackend train scales them")
    for name in NEW_WEIGHTS:
        value = getattr(controls.options.settings, name, None)
        if name == "epochs":
            value = phase.epoch or value
        if name == "initializer" or (value is None and SETTINGS[name].kind.none is None):
            continue
        lines.append(f"{name} = {_toml(name, value)}")
    return "\n".join(lines) + "\n"


def _warning(controls: Controls) -> list[str]:
    """Return comments on why the run is another than the page's; none if it is the same."""
    phase, settings = controls.phase, controls.options.settings
    found, epochs = list(controls.changes.lines()), phase.epoch or settings.epochs
    if phase.state.step_in_epoch:
        found.append(f"The page is {phase.state.step_in_epoch} steps into epoch {phase.epoch + 1}.")
    schedule, per_epoch = get_schedule(settings.schedule or "constant"), phase.state.steps_per_epoch
    assert isinstance(schedule, Schedule)  # the page has only names
    steps = np.arange(epochs + 1, dtype=np.float64) * per_epoch
    here, there = (
        schedule.factor(ScheduleContext(steps, per_epoch, n)) for n in (settings.epochs, epochs)
    )
    if not np.array_equal(here, there):
        found.append(f"The schedule of the page was one of {settings.epochs} epochs.")
    if not found:
        return []
    return [
        "# This is not the run of the page. It has the page's initial weights and last settings,",
        f"# for {epochs} epochs. On the page:",
        *(f"# - {text}" for text in found),
    ]


def _toml(name: str, value: Any) -> str:
    if value is None:
        value = SETTINGS[name].kind.none
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def use_config(session: Session, content: bytes) -> None:
    """Set the options that a config.toml has in common with the page.

    Raises: ArgumentError for other content, or invalid values.
    """
    try:
        stored = tomllib.loads(content.decode())
    except (ValueError, RecursionError):
        raise ArgumentError("The file must be a config.toml. Received: other content.") from None
    texts = {}
    for name in NEW_WEIGHTS:
        if name in stored and name != "initializer":
            items = stored[name] if isinstance(stored[name], list) else [stored[name]]
            texts[name] = ",".join(map(str, items))
    if not texts:
        raise ArgumentError(f"The file must have one of {', '.join(NEW_WEIGHTS)}. Received: none.")
    session.controls.set({"options": texts})
    session.show()


def to_script(controls: Controls) -> str:
    """Return a Python script that builds and trains the same network."""
    phase, data = controls.phase, controls.source.data
    settings, net, config = controls.options.settings, phase.net, phase.trainer.config
    layers = ", ".join([str(net.n_in), *map(_layer, net.layers)])
    given = {
        "optimizer": f"nn.{config.optimizer!r}",
        "epochs": phase.epoch or settings.epochs,
        "batch_size": config.batch_size,
        "validation": settings.validation or None,
        "seed": config.seed,
    }
    given |= {k: v for k in ("l1", "l2", "weight_decay") if (v := getattr(config, k))}
    if settings.schedule not in (None, "constant"):
        given["schedule"] = repr(settings.schedule)
    options = "".join(f"    {name}={value},\n" for name, value in given.items())
    scales = phase.data.preprocessing.target_scaler is not None
    warning = "".join(f"{line}\n" for line in _warning(controls))
    return (
        f'{warning}"""The network of the live page. Run it beside {CSV}."""\n\n'
        "import nnbackend as nn\n\n"
        f'data = nn.data.load("{CSV}", target="target", task="{data.task}", header=True)\n'
        f"net = nn.Network(\n    [{layers}],\n    loss={_named(net.loss)},\n"
        f"    device={net.backend.device!r},\n    dtype={net.dtype!r},\n    seed={net.seed},\n)\n"
        f"model = nn.Model(net, scale={settings.scale!r}, scale_targets={scales})\n"
        f"history = model.fit(\n    data.x,\n    data.y,\n{options})\n"
        "print(history.rows[-1])\n"
        'model.save("model.safetensors")\n'
    )


def _layer(layer: AbstractLayer) -> str:
    if isinstance(layer, Dropout):
        return f"nn.Dropout({layer.drop_rate})"
    if isinstance(layer, Maxout):
        return f"nn.Maxout({layer.n_out}, {layer.n_pieces}{_initial(layer, 'maxout')})"
    assert isinstance(layer, Dense)
    return (
        f"nn.Dense({layer.n_out}, {_named(layer.activation)}"
        f"{_initial(layer, layer.activation.name)})"
    )


def _initial(layer: Dense | Maxout, activation: str) -> str:
    """Return the argument of a layer's initial weights, if they are not its activation's own."""
    given = layer.weights
    return "" if given == default_initializer(activation) else f", weights={_named(given)}"


def _named(item: Any | Loss) -> str:
    """Return the name of a formula, with its parameter if it is not 0."""
    first = item.params[0] if item.params else 0
    return repr(f"{item.name}:{first:g}" if first else item.name)


EXPORTS: dict[str, tuple[str, Callable[[Controls], str]]] = {
    "live.csv": ("text/csv", lambda controls: to_csv(controls.source.data)),
    "config.toml": ("application/toml", to_config),
    "train.py": ("text/x-python", to_script),
    "replay.html": ("text/html", to_html),
}
