"""The explanation of a sample has the network's numbers, and its sums add up."""

from __future__ import annotations

import re
import signal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli import main
from nnbackend.explain import explain, to_html, to_text
from nnbackend.network.layers import AbstractLayer
from nnbackend.training.loop import Trainer

X, Y = np.array([[0.05, -0.1]]), np.array([[0.01, 0.99]])
LAYERS: list[list[AbstractLayer]] = [
    [nn.Dense(2, "sigmoid"), nn.Dense(2, "sigmoid")],
    [nn.Dense(7, "relu"), nn.Dropout(0.5), nn.Maxout(5, 3), nn.Dense(2, "identity")],
]


@pytest.mark.parametrize("layers", LAYERS)
def test_every_sum_written_out_is_correct(layers: list[AbstractLayer]) -> None:
    net = nn.Network([2, *layers], "quadratic", dtype="float64", device="numpy", seed=5)
    text = to_text(explain(net, X, Y))
    sums = re.findall(r"> \S+ = (?:\S+ \S+ = )?([^=\n]*·[^=\n]*) = ([-+.e\d]+)", text)
    assert len(sums) >= 2 * len(net.trainable_layers)
    assert not re.search(r"\s-0(\s|$)", text), "a minus before 0"
    for left, right in sums:
        if "smaller terms" not in left:
            value = eval(left.replace("·", "*"), {"__builtins__": {}})
            assert value == pytest.approx(float(right), rel=5e-3, abs=1e-4)


def test_the_explanation_has_every_delta_and_both_ends() -> None:
    net = nn.Network([2, *LAYERS[0]], "quadratic", dtype="float64", device="numpy", seed=5)
    explanation, gradient = explain(net, X, Y), net.backprop(X, Y)
    assert [step.title[:7] for step in explanation.backward] == ["Layer 2", "Layer 1"]
    np.testing.assert_array_equal(explanation.backward[0].values[0][1], gradient.deltas[1][0])
    np.testing.assert_array_equal(explanation.backward[1].values[0][1], gradient.deltas[0][0])
    assert f"C = {gradient.loss:.6g}" in to_text(explanation)
    assert "∂C/∂a[2] ⊙ φ'(z[2])" in to_text(explanation)  # sigmoid and quadratic are not fused


class Outside(HTMLParser):
    """Collects the resources that a page would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            f"{tag} {name}={value}"
            for name, value in attrs
            if name in ("src", "href", "xlink:href")
            and not (value or "").startswith(("#", "data:"))
        ]


def test_the_command_prints_and_writes_one_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--hidden", "4", "--epochs", "2", "--out", "r", "--quiet", "--device", "numpy"]
    assert main(["train", "iris", *words]) == 0
    assert main(["explain", "r", "3", "--html", "page.html"]) == 0
    assert "δ[2] = a[2] - y" in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    outside = Outside()
    outside.feed(page)
    assert outside.found == []
    assert page.count("<svg") == 1
    assert "z<sup>1</sup>" in page
    assert main(["explain", "r", "99"]) == 2
    assert "ROW must be from 0 to 29" in capsys.readouterr().err
    for kind in ("boundary", "film", "confusion", "weights", "diagram", "signals", "rates"):
        assert main(["plot", "r", "--kind", kind, "--features", "2,3"]) == 0
        assert list((tmp_path / "r").glob(f"{kind}.*"))


@pytest.mark.usefixtures("python_handles_ctrl_c")
@pytest.mark.parametrize("kind", ["film", "signals"])
def test_an_interrupted_training_draws_no_picture(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--hidden", "4", "--epochs", "3", "--out", "r", "--quiet", "--device", "numpy"]
    assert main(["train", "iris", *words]) == 0

    def note(self: Trainer, *args: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        end_epoch(self, *args)

    end_epoch = Trainer._end_epoch
    monkeypatch.setattr(Trainer, "_end_epoch", note)
    assert main(["plot", "r", "--kind", kind, "--features", "2,3"]) == 130
    assert not list((tmp_path / "r").glob(f"{kind}.*"))


def test_a_page_without_a_diagram_has_none() -> None:
    net = nn.Network([2, 2], "quadratic", device="numpy")
    assert "<figure>" not in to_html(explain(net, X.astype(np.float32), Y))
