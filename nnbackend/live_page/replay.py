"""A run as one HTML file that plays without a server: the page's own drawing code and its data."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from nnbackend.live_page.controls import Controls
from nnbackend.live_page.frames import encode_packed, to_json
from nnbackend.live_page.recorder import MOST
from nnbackend.live_page.showing import CURVE, setup

PAGE = Path(__file__).parent / "page"
LANGUAGES = ("en", "es")
# The modules of the replay, each after those that it imports.
MODULES = ("text.js", "draw.js", "frames.js", "network.js", "plane.js", "charts.js", "replay.js")


def to_html(controls: Controls, most: int = MOST, language: str = "") -> str:
    """Return the recorded moments, at most `most` of them, as one self-contained page.

    The first moments are kept and later ones thinned out, as a network changes most at first.
    language: one of LANGUAGES, in which it opens; "" for that of the browser.
    """
    frames, curve = _frames(controls, _kept(len(controls.recorder.moments), most))
    packed = base64.b64encode(zlib.compress(b"".join(frames), 9)).decode()
    parts = {
        "setup": to_json(setup(controls)), "sizes": [len(frame) for frame in frames],
        "frames": packed, "curve": to_json(curve),
        "language": language if language in LANGUAGES else "",
    }  # fmt: skip
    data = json.dumps(parts).replace("<", "\\u003c")  # which would end the script element
    style = (PAGE / "style.css").read_text(encoding="utf-8")
    script = "\n".join(_plain(name) for name in MODULES)
    body = (PAGE / "replay.html").read_text(encoding="utf-8")
    places = {"STYLE": style, "DATA": data, "SCRIPT": script}
    # In one pass, as a label of the data may look like one of the places.
    return re.sub(r"/\*(STYLE|DATA|SCRIPT)\*/", lambda match: places[match[1]], body)


def _plain(name: str) -> str:
    """Return a module without imports and exports, to stand in one script with the others."""
    text = (PAGE / name).read_text(encoding="utf-8")
    text = re.sub(r"^import [^;]*;\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^export ", "", text, flags=re.MULTILINE)


def _kept(n: int, most: int) -> set[int]:
    """Return at most `most` of n indices, denser at the start, with the first and the last."""
    if n <= most:
        return set(range(n))
    return {round((n - 1) * (i / (most - 1)) ** 2) for i in range(most)}


def _frames(controls: Controls, kept: set[int]) -> tuple[list[bytes], list[list[float]]]:
    """Return a frame for each kept moment, and the curve: a list for each of its columns.

    The current weights are as before at the end. The number of the curve's rows up to a moment is
    in its frame.
    """
    state, backend = controls.phase.state, controls.phase.net.backend
    now, frames, rows = backend.to_host(state.theta), [], []
    try:
        for i, moment in enumerate(controls.recorder.moments):
            if moment.theta.shape != now.shape:
                continue
            if moment.row:
                rows.append([moment.row.get(name, np.nan) for name in CURVE])
            if i not in kept:
                continue
            backend.to_device(moment.theta, out=state.theta)
            arrays = controls.pictures.arrays() | controls.pictures.weights()
            facts: dict[str, Any] = {
                "setup": controls.setup_number, "epoch": moment.epoch, "step": moment.step,
                "rows": len(rows),
            }  # fmt: skip
            arrays["units"] = _coarse(arrays["units"])
            frames.append(encode_packed(facts, arrays))
    finally:
        backend.to_device(now, out=state.theta)
    return frames, np.array(rows, np.float64).reshape(-1, len(CURVE)).T.tolist()


def _coarse(units: np.ndarray) -> np.ndarray:
    """Return the pictures of units (U, points) at every second point of each side."""
    side = round(units.shape[1] ** 0.5)
    if side * side != units.shape[1] or not units.size:
        return units  # along a curve, or no hidden layer
    return units.reshape(-1, side, side)[:, ::2, ::2].reshape(len(units), -1)
