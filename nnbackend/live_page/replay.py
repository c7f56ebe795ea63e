"""A run as one HTML file that plays without a server: the page's own drawing code and its data."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from nnbackend.live_page.controls import Controls
from nnbackend.live_page.frames import encode, to_json
from nnbackend.live_page.showing import CURVE, setup

PAGE = Path(__file__).parent / "page"
# The modules of the replay, each after those that it imports.
MODULES = ("text.js", "draw.js", "frames.js", "network.js", "plane.js", "charts.js", "replay.js")


def to_html(controls: Controls) -> str:
    """Return the recorded moments as one self-contained page."""
    frames = [base64.b64encode(frame).decode() for frame in _frames(controls)]
    # "<" would end the script element.
    data = json.dumps({"setup": to_json(setup(controls)), "frames": frames}).replace("<", "\\u003c")
    style = (PAGE / "style.css").read_text(encoding="utf-8")
    script = "\n".join(_plain(name) for name in MODULES)
    body = (PAGE / "replay.html").read_text(encoding="utf-8")
    for name, text in (("STYLE", style), ("DATA", data), ("SCRIPT", script)):
        body = body.replace(f"/*{name}*/", text)
    return body


def _plain(name: str) -> str:
    """Return a module without imports and exports, to stand in one script with the others."""
    text = (PAGE / name).read_text(encoding="utf-8")
    text = re.sub(r"^import [^;]*;\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^export ", "", text, flags=re.MULTILINE)


def _frames(controls: Controls) -> list[bytes]:
    """Return a frame for each recorded moment; the current weights are as before at the end."""
    state, backend = controls.phase.state, controls.phase.net.backend
    now, frames, rows = backend.to_host(state.theta), [], []
    try:
        for moment in controls.recorder.moments:
            if moment.theta.shape != now.shape:
                continue
            backend.to_device(moment.theta, out=state.theta)
            arrays = controls.pictures.arrays() | controls.pictures.weights()
            if moment.row:
                rows.append([moment.row.get(name, np.nan) for name in CURVE])
            arrays["curve"] = np.array(rows, np.float32).reshape(-1, len(CURVE)).T
            facts: dict[str, Any] = {
                "setup": controls.setup_number, "epoch": moment.epoch, "step": moment.step,
            }  # fmt: skip
            frames.append(encode(facts, {k: _small(k, v) for k, v in arrays.items()}))
    finally:
        backend.to_device(now, out=state.theta)
    return frames


def _small(name: str, array: np.ndarray) -> np.ndarray:
    return array
