"""A poor run ends with one sentence on why; a good one with none. The toy sets are solved."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import nnbackend
from nnbackend.cli import main
from nnbackend.cli.hints import SENTENCES, Facts, _of_network, sentence
from nnbackend.cli.plan import Plan, prepare
from nnbackend.config import Settings
from nnbackend.devices import get_backend
from nnbackend.explain import hints

FALLING = list(np.linspace(0.72, 0.60, 40))
FLAT = [0.692, 0.69] * 20
PLAIN = Facts(("test_accuracy", 0.55), 0.5, FLAT, FLAT, "epochs", 20, 0.69, 0.001, 0.001)


@pytest.mark.parametrize("data", ["digits", "iris", "wine", "breast_cancer", "diabetes"])
def test_a_good_run_has_no_hint(
    data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in ("0", "1"):
        words = ["--device", "numpy", "--seed", seed, "--out", str(tmp_path / seed)]
        assert main(["train", data, *words]) == 0
        assert "hint:" not in capsys.readouterr().err


@pytest.mark.parametrize(("data", "target"), [("xor", "1.0"), ("spirals", "0.97")])
@pytest.mark.parametrize("seed", ["0", "1", "2", "3"])
def test_the_toy_sets_are_solved_with_defaults(
    data: str, target: str, seed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--device", "numpy", "--seed", seed, "--out", str(tmp_path / "r")]
    assert main(["train", data, *words, "--target-accuracy", target]) == 0
    assert "hint:" not in capsys.readouterr().err


def test_the_defaults_of_a_data_set_are_printed_and_may_be_overridden(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "spirals", "--device", "numpy", "--epochs", "2"]
    assert main([*words, "--out", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().err
    assert "for spirals: --hidden 32,32 --learning-rate 0.01 --patience 100\n" in said
    assert "epochs     at most 2; stops after 100 without improvement" in said
    config = (tmp_path / "a" / "config.toml").read_text(encoding="utf-8")
    assert "hidden = [32, 32]" in config
    assert "epochs = 2" in config
    assert main([*words, "--optimizer", "sgd", "--hidden", "5", "--out", str(tmp_path / "b")]) == 0
    assert "for spirals: --patience 100\n" in capsys.readouterr().err
    repeat = ["--config", str(tmp_path / "a" / "config.toml"), "--out", str(tmp_path / "c")]
    assert main(["train", *repeat]) == 0
    assert (tmp_path / "c" / "config.toml").read_text(encoding="utf-8") == config
    assert main(["train", "--help"]) == 0
    assert "32,32 for spirals" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({}, "always answering the most frequent class; the loss no longer falls"),
        ({"score": ("test_accuracy", 0.65)}, "the network is too small"),
        ({"losses": FALLING}, "still falling after 40 epochs; try --epochs 120"),
        ({"losses": [0.7], "train_losses": [0.7]}, "one epoch; try --epochs 100"),
        ({"stop_reason": "early stopping"}, "at epoch 40, after 20 epochs without improvement; "
         "try --patience 0 or --learning-rate 0.01"),
        ({"losses": list(np.linspace(0.714, 0.704, 100)), "rate": 1e-6},
         "too small; try --learning-rate 0.001."),
        ({"train_losses": [700.0, *FLAT], "rate": 1.0}, "too large; try --learning-rate 0.001."),
        ({"train_losses": [700.0, *FLAT], "rate": 100.0, "usual_rate": 0.1},
         "too large; try --learning-rate 0.1."),
        ({"train_losses": [700.0, *FLAT], "rate": 0.005}, "try --learning-rate 0.0005."),
        ({"hidden": (4,)}, "try more units or layers, as in --hidden 32,32"),
        ({"hidden": (200,)}, "try more layers, as in --hidden 200,200"),
        ({"hidden": (64, 16), "rate": None, "stop_reason": "early stopping"},
         "or more layers, as in --hidden 64,16,16"),
        ({"found": ({"code": "saturated", "layer": 3, "share": 0.9},)},
         "90% of the outputs of layer 3 are saturated"),
        ({"found": ({"code": "dead", "layer": 2, "count": 3, "of": 4},)},
         "75% of the ReLUs of layer 2 are dead"),
        ({"found": ({"code": "dead", "layer": 2, "count": 1, "of": 4},
                    {"code": "vanishing", "ratio": 1e-5})}, "δ shrinks to 1e-05 of its size"),
        ({"found": ({"code": "dead", "layer": 2, "count": 1, "of": 4},)}, "no longer falls"),
        ({"share": 0.95, "score": ("test_accuracy", 0.95)}, "95% of the rows are of one class"),
        ({"share": 0.95, "score": ("test_accuracy", 0.95)}, "test_accuracy 0.95 says little"),
        ({"train_losses": [0.1] * 40}, "over-fits"),
        ({"train_losses": list(np.linspace(0.7, 0.4, 40)), "losses": [0.69, *FLAT[1:39], 0.75],
          "stop_reason": "early stopping"}, "0.4 on the training rows and 0.75 on others"),
        ({"train_losses": FALLING, "losses": [0.69, *FLAT[1:39], 0.75]}, "too small"),
        ({"share": None, "score": ("test_r2", 0.05)}, "test_r2 0.05 is poor"),
        ({"rate": None, "stop_reason": "early stopping"}, "try --patience 0, or more units"),
    ],
)  # fmt: skip
def test_each_cause_has_its_sentence(changes: dict[str, object], part: str) -> None:
    said = sentence(replace(PLAIN, **changes))  # type: ignore[arg-type]
    assert part in said
    assert said.count("\n") == 0
    assert "  " not in said
    assert said.endswith(".")


def test_good_results_have_no_sentence() -> None:
    found = ({"code": "saturated", "layer": 2, "share": 1.0},)
    bad = replace(PLAIN, found=found, stop_reason="early stopping")
    assert sentence(bad)
    assert not sentence(replace(bad, score=("test_accuracy", 0.9)))
    assert not sentence(replace(bad, share=None, score=("test_r2", 0.3)))


def _plan(activation: str) -> Plan:
    settings = Settings(data="xor", hidden=(8, 6), activation=(activation,))
    return prepare(settings, get_backend("numpy"))


def _codes(plan: Plan) -> list[tuple[str, int]]:
    """Return the hints on layers, without those on a few dead units."""
    found = [hint for hint in _of_network(plan) if "layer" in hint]
    return [(hint["code"], hint["layer"]) for hint in found if hint.get("count", 6) > 3]


def test_saturated_and_dead_units_are_found_by_layer() -> None:
    for activation in ("sigmoid", "tanh", "relu"):
        plan = _plan(activation)
        assert _codes(plan) == []
        plan.net.biases[1][:] = -100.0 if activation == "relu" else 100.0
        assert _codes(plan) == [("dead" if activation == "relu" else "saturated", 3)]
    assert _of_network(plan)[0]["count"] == 6
    assert _codes(_plan("step")) == [("step", 2), ("step", 3)]


def test_both_front_ends_have_a_sentence_for_each_code() -> None:
    """The page in both languages; the command line for all that ends in a poor result."""
    page = Path(nnbackend.__file__).parent / "live_page" / "page" / "text.js"
    in_page = re.findall(r"^    h_(\w+): '", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(in_page) == sorted(2 * hints.CODES)
    of_curves = {"rising", "overfit", "plateau", "majority"}
    assert SENTENCES.keys() == set(hints.CODES) - of_curves
    rules = Path(hints.__file__).read_text(encoding="utf-8")
    assert set(re.findall(r'"code": "(\w+)"', rules)) == set(hints.CODES)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("xor --hidden 4 --activation sigmoid --epochs 300", "early stopping ended the run"),
        ("xor --learning-rate 1e-6", "learning rate is too small"),
        ("xor --optimizer sgd --learning-rate 30", "learning rate is too large"),
        ("diabetes --learning-rate 1e-7", "learning rate is too small"),
    ],
)
def test_a_poor_run_ends_with_a_hint(
    words: str, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", *words.split(), "--device", "numpy", "--out"]
    assert main([*command, str(tmp_path / "r")]) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("nnbackend: hint: ")
    assert part in said[-1]
    assert main([*command, str(tmp_path / "q"), "--quiet"]) == 0
    assert not capsys.readouterr().err


def test_one_row_has_no_r2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "t.csv"
    rows = [f"{i % 3}.5,{i * i}.25" for i in range(40)]
    words = ["--epochs", "2", "--device", "numpy", "--hidden", "3"]
    for n, is_defined in ((8, False), (40, True)):
        table.write_text("\n".join(["a,b", *rows[:n], ""]), encoding="utf-8")
        assert main(["train", str(table), *words, "--out", str(tmp_path / str(n))]) == 0
        said = capsys.readouterr()
        cells = [line.split()[3] for line in said.err.splitlines() if re.match(r" +[12]  ", line)]
        assert len(cells) == 2
        assert all((cell != "-") == is_defined for cell in cells), said.err
        assert ("  -  (needs two rows or more)" in said.out) != is_defined


def test_the_advice_for_a_small_sigmoid_network_works(tmp_path: Path) -> None:
    """Check that what the hint names solves the exclusive or that ended early."""
    words = ["--hidden", "4", "--activation", "sigmoid", "--epochs", "300", "--patience", "0"]
    words += ["--learning-rate", "0.01"]
    command = ["train", "xor", *words, "--device", "numpy", "--quiet", "--out", str(tmp_path / "r")]
    assert main([*command, "--target-accuracy", "0.97"]) == 0
