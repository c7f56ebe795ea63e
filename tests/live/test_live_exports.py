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


def _script(page: Any) -> str:
    return str(page.session.call(lambda: exports.to_script(page.controls)).result(60))


def test_the_exports_say_what_was_changed_during_the_run(new_page: New) -> None:
    page = _trained(new_page, {})
    page.do("set", options={"epochs": "4000"})  # ends the run later, no more
    assert _script(page).startswith('"""The network')
    page.do("set", options={"learning_rate": "0.1"})
    page.do("epoch")
    page.do("weight", layer=3, unit=1, input=4, value=1.0)
    page.do("weight", layer=3, unit=1, input=4, value=-0.5)
    page.do("bias", layer=2, unit=0, value=2.0)
    step = page.controls.phase.step
    for make in (exports.to_script, exports.to_config):
        text = page.session.call(lambda make=make: make(page.controls)).result(60)
        assert "# This is not the run of the page." in text
        assert re.findall("^# - (.*)", text, re.MULTILINE) == [
            f"After epoch 3, step {step * 3 // 4}: learning_rate from 0.01 to 0.1.",
            f"After epoch 4, step {step}: w^3_{{2,5}} = -0.5, edited.",
            f"After epoch 4, step {step}: b^2_1 = 2, edited.",
        ]
    compile(_script(page), "train.py", "exec")
    page.do("back")
    assert "b^2_1" not in _script(page)
    assert "-0.5, edited" in _script(page)
    page.do("goto", step=step - 1)
    assert "edited" not in _script(page)
    assert "learning_rate from" in _script(page)
    assert "steps into epoch 4" in _script(page)
    page.do("goto", step=2)
    assert "learning_rate" not in _script(page).partition('"""')[0]
    page.do("reset")
    page.do("epoch")
    assert _script(page).startswith('"""The network')


def test_the_exports_say_that_a_schedule_was_for_more_epochs(new_page: New) -> None:
    page = _trained(new_page, {"schedule": "cosine", "epochs": "50"})
    assert "# - The schedule of the page was one of 50 epochs." in _script(page)
    page.do("set", options={"epochs": "3"})
    assert "epochs from 50 to 3." in _script(page)
    page.do("reset")
    for _ in range(3):
        page.do("epoch")
    assert _script(page).startswith('"""The network')


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
