"""The exports of the live page repeat the run: script, config file, data and replay."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
import tomllib
import zlib
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli import main
from nnbackend.errors import ArgumentError
from nnbackend.live_page import exports
from nnbackend.live_page.frames import decode
from nnbackend.live_page.replay import to_html

New = Callable[..., Any]
ROOT = Path(__file__).resolve().parent.parent.parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")]),
}
CASES = [
    {},
    {
        "activation": "maxout:2,leaky_relu:0.2",
        "optimizer": "sgd:momentum=0.9",
        "l2": "0.01",
        "seed": "7",
    },
    {"data": "wave", "schedule": "step:every=1,gamma=0.5"},
    {"data": "blobs", "scale": "standard", "batch_size": "full", "dropout": "0.1,0"},
    {"hidden": "none", "loss": "quadratic", "dtype": "float64"},
]


def _trained(new_page: New, case: dict[str, str]) -> Any:
    """Return a page after three epochs."""
    page = new_page()
    options = dict(case)
    if data := options.pop("data", None):
        page.do("data", set=data, rows=90, noise=0.1, seed=2)
    page.do("set", options=options)
    for _ in range(3):
        page.do("epoch")
    return page


def _write(page: Any, folder: Path, *names: str) -> None:
    for name in names:
        text = page.session.call(lambda n=name: exports.EXPORTS[n][1](page.controls)).result(60)
        (folder / name).write_text(text)


@pytest.mark.parametrize("case", CASES)
def test_the_script_trains_the_same_network(
    new_page: New, case: dict[str, str], tmp_path: Path
) -> None:
    page = _trained(new_page, case)
    _write(page, tmp_path, "live.csv", "train.py")
    subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, env=ENVIRONMENT, check=True,
        capture_output=True,
    )  # fmt: skip
    model = nn.load(tmp_path / "model.safetensors", device="numpy")
    np.testing.assert_array_equal(model.network.theta, page.theta)


# `train` scales the targets of a regression.
@pytest.mark.parametrize("case", [case for case in CASES if case.get("data") != "wave"])
def test_the_config_trains_the_same_network(
    new_page: New, case: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = _trained(new_page, case)
    _write(page, tmp_path, "live.csv", "config.toml")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", "config.toml", "--out", "run", "--quiet"]) == 0
    model = nn.load(tmp_path / "run" / "last.safetensors", device="numpy")
    np.testing.assert_array_equal(model.network.theta, page.theta)


def test_a_config_is_read_again(new_page: New) -> None:
    page = _trained(new_page, CASES[1])
    text = page.session.call(lambda: exports.to_config(page.controls)).result(60)
    other = new_page()
    other.session.call(lambda: exports.use_config(other.session, text.encode())).result(60)
    mine, its = page.outlet.setup["options"], other.outlet.setup["options"]
    assert its == {**mine, "epochs": "3"}
    for content in (b"\xff", b"x = ", b"data = 'x'", b"hidden = ['/etc/passwd']"):
        with pytest.raises(ArgumentError):
            other.session.call(lambda c=content: exports.use_config(other.session, c)).result(60)
    assert other.outlet.setup["options"] == its
    assert tomllib.loads(text)["data"] == "live.csv"


def test_the_data_read_back(new_page: New) -> None:
    page = new_page()
    text = page.session.call(lambda: exports.to_csv(page.controls.source.data)).result(60)
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["x1", "x2", "target"]
    data = page.controls.source.data
    np.testing.assert_array_equal(np.array([r[:2] for r in rows[1:]], float), data.x)
    np.testing.assert_array_equal(np.array([r[2] for r in rows[1:]], int), data.y)


def _frames(stored: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """Return the recorded frames, decoded."""
    data, ends = zlib.decompress(b64decode(stored["frames"])), np.cumsum(stored["sizes"])
    assert ends[-1] == len(data)
    return [decode(data[end - n : end]) for n, end in zip(stored["sizes"], ends, strict=True)]


def test_the_replay_is_one_file_with_the_recorded_run(new_page: New) -> None:
    page = _trained(new_page, {})
    before = page.theta
    text = page.session.call(lambda: exports.to_html(page.controls)).result(60)
    np.testing.assert_array_equal(page.theta, before)
    assert not re.search(r'(src|href)="', text)  # nothing from elsewhere
    assert "import " not in text.split('<script type="module">')[1].split("</script>")[0]
    found = re.search(r'<script type="application/json" id="recorded">(.*?)</script>', text, re.S)
    assert found is not None
    stored = json.loads(found[1])
    frames = _frames(stored)
    assert [facts["epoch"] for facts, _ in frames] == [0, 1, 2, 3]
    last = page.controls.phase.net.weights[0]
    step = (last.max() - last.min()) / 255
    np.testing.assert_allclose(frames[-1][1]["w2"][0], last.T, rtol=0, atol=0.51 * step)
    assert len(text) < 400_000
    assert json.loads(stored["setup"])["layers"][0]["width"] == 2


def test_a_short_replay_has_the_ends_and_the_whole_curve(new_page: New) -> None:
    page = _trained(new_page, {})
    for _ in range(27):
        page.do("epoch")
    text = page.session.call(lambda: to_html(page.controls, 9)).result(60)
    found = re.search(r'id="recorded">(.*?)</script>', text, re.S)
    assert found is not None
    stored = json.loads(found[1])
    epochs = [facts["epoch"] for facts, _ in _frames(stored)]
    assert epochs[0] == 0
    assert epochs[-1] == 30
    assert len(epochs) <= 9
    steps = np.diff(epochs)
    assert steps[0] < steps[-1]
    assert json.loads(stored["curve"])[0] == list(range(1, 31))
    assert [facts["rows"] for facts, _ in _frames(stored)] == epochs


def test_a_network_without_hidden_layers_has_a_replay(new_page: New) -> None:
    page = _trained(new_page, {"hidden": "none"})
    text = page.session.call(lambda: to_html(page.controls)).result(60)
    assert '"sizes"' in text
