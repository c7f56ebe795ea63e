"""The explanation of a sample has the network's numbers, and its sums add up."""

from __future__ import annotations

import json
import math
import re
import runpy
import signal
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli import main
from nnbackend.errors import ArgumentError
from nnbackend.explain import Update, explain, read_network, to_html, to_text
from nnbackend.explain.words import ENGLISH, SPANISH
from nnbackend.network.layers import AbstractLayer
from nnbackend.training.loop import Trainer

X, Y = np.array([[0.05, -0.1]]), np.array([[0.01, 0.99]])
LAYERS: list[AbstractLayer] = [nn.Dense(2, "sigmoid"), nn.Dense(2, "sigmoid")]
KINDS = [
    ([nn.Dense(2, "sigmoid"), nn.Dense(2, "sigmoid")], "quadratic"),
    ([nn.Dense(7, "relu"), nn.Dropout(0.5), nn.Maxout(5, 3), nn.Dense(2, "identity")], "quadratic"),
    ([nn.Dense(40, "tanh"), nn.Dense(30, "elu"), nn.Dense(2, "softmax")], "cross_entropy"),
    ([nn.Dense(3, "leaky_relu"), nn.Dense(2, "softmax")], "quadratic"),
    ([nn.Dense(3, "gelu"), nn.Dense(2, "sigmoid")], "binary_cross_entropy"),
    ([nn.Maxout(2, 3)], "huber"),
    ([nn.Dense(2, "softmax")], nn.losses.cross_entropy(0.1)),
]  # fmt: skip


def _value(text: str) -> float | None:
    """Return the value of a part with numbers; None for symbols and names."""
    text = text.replace("·", "*").replace("²", "**2").replace("½", "0.5*")
    text = text.replace("exp(", "2.718281828459045**(")
    if re.search(r"[^\d\s.()*/+e√-]", text):
        return None
    return float(eval(text.replace("√", "sqrt"), {"__builtins__": {}, "sqrt": math.sqrt}))


@pytest.mark.parametrize(("layers", "loss"), KINDS)
def test_every_number_written_out_is_correct(layers: list[AbstractLayer], loss: Any) -> None:
    net = nn.Network([2, *layers], loss, dtype="float64", device="numpy", seed=5)
    explanation = explain(net, X, Y)
    checked = 0
    for line in explanation.lines:
        for part in line.parts:
            if part and (value := _value(part)) is not None:
                checked += 1
                assert value == pytest.approx(line.value, rel=1e-4, abs=1e-6), line
    names = [line.name for line in explanation.lines]
    assert checked >= 6 * len(net.trainable_layers)
    assert not re.search(r"[\s(]-0[\s)]", to_text(explanation)), "a minus before 0"
    for level in range(2, len(net.trainable_layers) + 2):
        assert any(name.startswith(f"δ^{level}_") for name in names)


@pytest.mark.parametrize(("layers", "loss"), KINDS)
def test_the_lines_have_the_numbers_of_backprop(layers: list[AbstractLayer], loss: Any) -> None:
    """Check every shown number against the arrays by the indices that the page names."""
    net = nn.Network([2, *layers], loss, dtype="float64", device="numpy", seed=5)
    trace, gradient = net.trace(X), net.backprop(X, Y)
    lines = {f"{line.name} {line.sign}": line.value for line in explain(net, X, Y).lines}
    is_maxout = [isinstance(layer, nn.Maxout) for layer in net.trainable_layers]
    for name, value in lines.items():
        if found := re.fullmatch(r"([azδ]|∂C/∂b)\^(\d+)_(\d+) =", name):
            symbol, level, j = found[1], int(found[2]), int(found[3])
            if level > 1 and (symbol == "a" or not is_maxout[level - 2]):
                arrays = {"a": trace.a, "z": trace.z, "δ": gradient.deltas,
                          "∂C/∂b": gradient.deltas}[symbol]  # fmt: skip
                assert value == arrays[level - 2][0, j - 1], name
        elif found := re.fullmatch(r"(∂C/∂w|w)\^(\d+)_(\d+),(\d+) [=←]", name):
            level, j, k = (int(v) for v in found.groups()[1:])
            if not is_maxout[level - 2]:
                W, dW = net.weights[level - 2], gradient.weights[level - 2]
                slope = dW[k - 1, j - 1]
                new = slope if found[1] != "w" else W[k - 1, j - 1] - 0.1 * slope
                assert value == pytest.approx(new, rel=1e-12), name
    assert lines["C ="] == gradient.loss


def test_the_numbers_are_those_of_the_computation_by_hand() -> None:
    """Compare with examples/backprop_by_hand.py: each of its numbers, by its name."""
    path = Path(__file__).resolve().parent.parent / "examples" / "backprop_by_hand.py"
    example = runpy.run_path(str(path))
    steps = example["by_hand"](
        example["X1"], example["X2"], example["Y"], example["START"], example["ETA"]
    )
    p = example["START"]
    net = nn.Network(
        [2, nn.Dense(2, "sigmoid"), nn.Dense(1, "sigmoid")], "quadratic", dtype="float64",
        device="numpy",
    )  # fmt: skip
    net.set_parameters(
        [[[p["w2_11"], p["w2_21"]], [p["w2_12"], p["w2_22"]]], [[p["w3_11"]], [p["w3_12"]]]],
        [[p["b2_1"], p["b2_2"]], [p["b3_1"]]],
    )
    x = np.array([[example["X1"], example["X2"]]])
    explanation = explain(net, x, np.array([[example["Y"]]]), learning_rate=example["ETA"])
    text, lines = to_text(explanation), {}
    for line in explanation.lines:
        name = re.sub(r"\^(\d)_(\d)(?:,(\d))?", r"\1_\2\3", line.name)
        name = name.replace("δ", "delta").replace("∂", "d")
        lines[f"new {name}" if line.sign == "←" else name] = line.value
        assert line.text in text
    for name, _, value in steps:
        assert f"{lines[name]:.10f}" == f"{value:.10f}", name
    assert len(steps) == 28


def test_the_cost_after_the_update_is_that_of_a_step_of_sgd() -> None:
    net = nn.Network([2, *LAYERS], "quadratic", dtype="float64", device="numpy", seed=5)
    explanation = explain(net, X, Y, learning_rate=0.5)
    nn.train(net, X, Y, optimizer=nn.SGD(0.5), epochs=1, batch_size=1)
    assert f"C = {net.backprop(X, Y).loss:.6g}, before" in explanation.conclusion


UPDATES: list[dict[str, Any]] = [
    {"optimizer": nn.SGD(0.3), "l2": 0.05, "l1": 0.02},
    {"optimizer": nn.SGD(0.3, momentum=0.9)},
    {"optimizer": nn.SGD(0.3, momentum=0.9, nesterov=True), "l2": 0.1},
    {"optimizer": nn.Adam(0.01, beta1=0.8)},
    {"optimizer": nn.AdamW(0.01, weight_decay=0.5), "l1": 0.03},
    {"optimizer": nn.AdaGrad(0.2)},
    {"optimizer": nn.RMSProp(0.02)},
    {"optimizer": nn.AdaDelta(0.5)},
]


@pytest.mark.parametrize("options", UPDATES)
def test_the_update_is_the_first_step_of_the_engine(options: dict[str, Any]) -> None:
    """The new values are those after one step of training; what is written out adds up to them."""
    net = nn.Network([2, *LAYERS], "quadratic", dtype="float64", device="numpy", seed=5)
    decay = options["optimizer"].weight_decay
    update = Update(**options, decay=decay, is_of_run=True)
    explanation = explain(net, X, Y, update=update)
    nn.train(net, X, Y, epochs=1, batch_size=1, **options)
    steps = [line for line in explanation.lines if line.sign == "←"]
    assert len(steps) == 12
    for line in steps:
        letter, level, j, *k = re.split(r"[_^,]", line.name)
        weights, biases = net.weights[int(level) - 2], net.biases[int(level) - 2]
        new = weights[int(k[0]) - 1, int(j) - 1] if letter == "w" else biases[int(j) - 1]
        assert line.value == pytest.approx(float(new), rel=1e-12), line
    for step in explanation.steps[4:]:
        for line in (line for block in step.blocks for line in block.lines):
            values = [v for part in line.parts if (v := _value(part)) is not None]
            assert values or "δ" in line.parts[0], line
            assert values == pytest.approx([line.value] * len(values), rel=2e-5, abs=1e-12), line
    assert f"C = {net.backprop(X, Y).loss:.6g}, before" in explanation.conclusion
    text = to_text(explanation)
    assert f"The run uses {type(options['optimizer']).__name__.lower()}" in text
    assert ("m, v = 0" in text) == isinstance(options["optimizer"], nn.Adam)
    assert "<math>" in to_html(explanation)


@pytest.mark.parametrize(
    ("words", "english", "spanish"),
    [
        ("--optimizer sgd --momentum 0.9 --l2 0.01", "uses sgd, μ = 0.9, L2 λ = 0.01. Shown is",
         "usa sgd, μ = 0.9, L2 λ = 0.01. Se muestra"),
        ("--clip-norm 1", "adam, β1 = 0.9, β2 = 0.999. Shown is its first step, before which m, v",
         "No se muestra: schedule cosine, clip_norm 1."),
        ("--optimizer lbfgs", "The run uses lbfgs; shown is plain gradient descent.",
         "usa lbfgs; se muestra el descenso"),
        ("--optimizer sgd --schedule constant", "The run uses sgd. Layer", "usa sgd. Capa"),
    ],
)  # fmt: skip
def test_the_optimizer_of_a_run_is_named(
    words: str, english: str, spanish: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "r")
    train = ["train", "iris", "--hidden", "3", "--epochs", "2", "--quiet", "--device", "numpy"]
    assert main([*train, "--out", run, *words.split()]) == 0
    capsys.readouterr()
    for lang, expected in (("en", english), ("es", spanish)):
        assert main(["explain", run, "3", "--lang", lang]) == 0
        assert expected in " ".join(capsys.readouterr().out.split())
    model = tmp_path / "model.safetensors"  # without its run
    model.write_bytes((tmp_path / "r" / "model.safetensors").read_bytes())
    assert main(["explain", str(model), "3", "--data", "iris"]) == 0
    assert "A model file alone does not say which optimizer" in capsys.readouterr().out


def test_large_layers_show_the_units_that_the_cost_depends_on_most() -> None:
    net = nn.Network([2, 40, 2], "quadratic", dtype="float64", device="numpy", seed=5)
    gradient, trace = net.backprop(X, Y), net.trace(X)
    size = np.abs(trace.a[0] * (gradient.deltas[1] @ net.weights[1].T))[0]
    explanation = explain(net, X, Y)
    shown = [line.name for line in explanation.steps[3].blocks[0].lines]
    largest = {f"δ^2_{i + 1}" for i in np.argsort(-size)[:5]}
    assert {name for name in shown if name.startswith("δ")} == largest
    assert "5 of 40 units" in to_text(explanation)
    assert "35 left out" in to_text(explanation)
    assert "8 of 80 weights" in to_text(explanation)
    assert max(map(len, to_text(explanation).splitlines())) <= 110


def test_both_languages_have_the_same_numbers_and_all_texts() -> None:
    net = nn.Network([2, *LAYERS], "quadratic", dtype="float64", device="numpy", seed=5)
    english, spanish = explain(net, X, Y), explain(net, X, Y, lang="es")
    assert [line.value for line in english.lines] == [line.value for line in spanish.lines]
    assert ENGLISH.keys() == SPANISH.keys()
    for key, text in ENGLISH.items():
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", SPANISH[key])), key
        assert text != SPANISH[key]
    assert "4. Backpropagation (retropropagación)" in to_html(spanish)
    assert '<html lang="es">' in to_html(spanish)
    with pytest.raises(ArgumentError, match="en, es"):
        explain(net, X, Y, lang="fr")


HAND = """
x = [0.05, 0.10]
y = [0.90]
w2 = [[0.15, 0.20], [0.25, 0.30], [0.1, 0.0]]
b2 = [0.35, 0.35, 0]
w3 = [[0.40, 0.45, -1]]
b3 = [0.60]
activation = ["tanh", "sigmoid"]
learning_rate = 0.5
"""


def test_a_network_written_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.toml"
    path.write_text(HAND, encoding="utf-8")
    found = read_network(path, [2, 3, 1], "numpy")
    assert found.net.weights[0][1, 0] == 0.2  # w^2_1,2: to unit 1 from unit 2
    page = tmp_path / "page.html"
    assert main(["explain", "--layers", "2,3,1", "--weights", str(path), "--html", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "z^2_1 = w^2_1,1 a^1_1 + w^2_1,2 a^1_2 + b^2_1 = 0.15·0.05 + 0.2·0.1" in printed
    assert "with η = 0.5" in printed
    assert page.read_text(encoding="utf-8").count("<svg") == 1
    as_json = tmp_path / "net.json"
    as_json.write_text(json.dumps(tomllib.loads(HAND)), encoding="utf-8")
    assert main(["explain", "--weights", str(as_json), "--lang", "es"]) == 0
    printed = capsys.readouterr().out
    titles = [line for line in printed.splitlines() if re.match(r"\d[ab]?\. ", line)]
    assert [title.partition(".")[0] for title in titles] == ["1", "2", "3", "4", "5a", "5b"]
    assert titles[1].startswith("2. Feed forward")
    assert titles[2].startswith("3. Gradiente local de la capa de salida")
    assert "escalado" not in printed  # a network by hand has no scale


def test_all_faults_of_a_network_by_hand_are_reported_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.toml"
    faulty = HAND.replace("0.90", "0.9, 1").replace("[0.60]", '["a"]').replace("tanh", "tanhh")
    path.write_text(faulty + "eta = 1\nw4 = [[nan]]\n", encoding="utf-8")
    assert main(["explain", "--layers", "2,3,1", "--weights", str(path)]) == 2
    said = capsys.readouterr().err
    for part in (
        "y must be a list of 1 number. Received: a list of 2", "b3 must be", "'tanhh'",
        "unknown key 'eta'", "unknown key 'w4'",
    ):  # fmt: skip
        assert part in said
    assert main(["explain", "--weights", str(path)]) == 2
    assert "w4 must be a list of 1 list of 1 number. Received: [[nan]]" in capsys.readouterr().err
    for words, part in (
        (["--layers", "2,1"], "--layers needs the weights"),
        (["run"], "RUN without ROW"),
        ([], "Received: neither"),
        (["run", "0", "--weights", "x.toml"], "Remove one"),
        (["--weights", str(tmp_path / "none.toml")], "readable file"),
        (["--weights", __file__], "must be TOML"),
        (["--layers", "2", "--weights", str(path)], "two or more layers"),
        (["--weights", str(path), "--learning-rate", "-1"], "above 0"),
    ):
        assert main(["explain", *words]) == 2, words
        assert part in capsys.readouterr().err


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
    assert "δ^3_j = a^3_j - y_j" in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    outside = Outside()
    outside.feed(page)
    assert outside.found == []
    assert page.count("<svg") == 1
    assert "<math><msubsup><mi>z</mi><mrow><mn>1</mn></mrow><mrow><mn>2</mn></mrow>" in page
    assert main(["explain", "r", "99"]) == 2
    assert "ROW must be from 0 to 29" in capsys.readouterr().err
    for kind in ("boundary", "film", "confusion", "weights", "diagram", "signals", "rates"):
        assert main(["plot", "r", "--kind", kind, "--features", "2,3"]) == 0
        assert list((tmp_path / "r").glob(f"{kind}.*"))


@pytest.mark.parametrize(
    ("scale", "x_en", "y_en"),
    [
        ("robust", "columns of x by robust (x_1 is size, x_2 is city=A, x_3 is city=B)",
         "; the target y (price) by standard."),
        ("none", "", "not those of the data: the target y (price) by standard."),
    ],
)  # fmt: skip
def test_the_scaling_of_a_run_is_named(
    scale: str, x_en: str, y_en: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, run = tmp_path / "t.csv", str(tmp_path / "r")
    rows = [f"{i}.5,{'ABA'[i % 3]},{i * i}.25" for i in range(40)]
    table.write_text("\n".join(["size,city,price", *rows, ""]), encoding="utf-8")
    words = ["--hidden", "3", "--epochs", "1", "--quiet", "--device", "numpy", "--scale", scale]
    assert main(["train", str(table), "--target", "price", "--out", run, *words]) == 0
    capsys.readouterr()
    page = tmp_path / "page.html"
    assert main(["explain", run, "0", "--html", str(page)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert x_en in said
    assert y_en in said
    assert ("columns of x" in said) == (scale != "none")
    assert "by standard." in page.read_text(encoding="utf-8")
    assert main(["explain", run, "0", "--lang", "es"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "después del escalado" in said
    assert "el objetivo y (price) con standard." in said


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
