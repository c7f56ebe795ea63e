"""Thresholds and weights of two unequal classes, on the command line and in Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

import nnbackend as nn
from nnbackend.cli import main
from nnbackend.errors import ArgumentError
from nnbackend.model.class_weights import class_weights
from nnbackend.model.thresholds import choose_threshold

SKLEARN = {
    "accuracy": metrics.accuracy_score,
    "balanced_accuracy": metrics.balanced_accuracy_score,
    "f1": metrics.f1_score,
    "mcc": metrics.matthews_corrcoef,
}


def _rare(n: int = 900, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and classes, of which the second has about a tenth of the rows."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    p = 1 / (1 + np.exp(3.0 - 2.0 * x[:, 0] + x[:, 1]))
    return x, (rng.random(n) < p).astype(np.int64)


def _table(path: Path, n: int = 900, seed: int = 0) -> Path:
    x, y = _rare(n, seed)
    frame = pd.DataFrame(x, columns=["a", "b", "c"]).assign(left=np.where(y == 1, "yes", "no"))
    frame.to_csv(path, index=False)
    return path


# ---- choosing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SKLEARN)
@pytest.mark.parametrize("digits", [1, 8])  # with ties, and without
def test_the_best_threshold_by_a_metric(name: str, digits: int) -> None:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 200)
    p = np.clip(rng.normal(0.3 + 0.2 * y, 0.15), 0.01, 0.99).round(digits).astype(np.float32)
    found = choose_threshold(y, p, name)
    every = np.concatenate([[0.0], np.unique(p).astype(float)])  # other thresholds give the same
    values = [SKLEARN[name](y, p.astype(float) > t) for t in every]
    assert SKLEARN[name](y, p.astype(float) > found) == pytest.approx(max(values), abs=1e-12)
    assert 0.0 < found < 1.0


def test_the_least_cost_worked_by_hand() -> None:
    y, p = np.array([0, 0, 1, 0, 1]), np.array([0.1, 0.2, 0.3, 0.6, 0.9])
    # A false alarm for 0.6 costs 1, a miss of 0.3 costs 5: from 0.2 to 0.3 the cost is 1.
    assert choose_threshold(y, p, "cost:miss=5,alarm=1") == pytest.approx(0.25)
    # A false alarm costs 5: from 0.6 to 0.9 the cost is that of one miss.
    assert choose_threshold(y, p, "cost:alarm=5") == pytest.approx(0.75)
    assert choose_threshold(y, p, "0.4") == choose_threshold(y, p, 0.4) == 0.4


@pytest.mark.parametrize("rule", ["f2", "cost:wrong=1", "cost:miss=0", 0.0, 1.0, "1.5", None])
def test_rules_that_do_not_exist(rule: Any) -> None:
    with pytest.raises(ArgumentError, match=r"threshold|miss"):
        choose_threshold(np.array([0, 1]), np.array([0.2, 0.7]), rule)


# ---- models -------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_a_model_with_a_threshold(loss: str, tmp_path: Path) -> None:
    x, y = _rare()
    labels = np.where(y == 1, "yes", "no")
    net = nn.Network([3, 8, 2 if loss == "cross_entropy" else 1], loss=loss, device="numpy")
    model = nn.Model(net)
    model.fit(x, labels, epochs=5)
    before = model.evaluate(x, labels)
    model.threshold = 0.12
    above = np.where(model.predict_proba(x)[:, 1] > 0.12, "yes", "no")
    assert (model.predict(x) == above).all()
    assert (above == "yes").mean() > 0.2  # other answers than before
    after = model.evaluate(x, labels)
    assert after["accuracy"] == pytest.approx((above == labels).mean())
    assert after["loss"] == before["loss"]
    weight = 1.0 + y
    assert model.evaluate(x, labels, weight)["accuracy"] == pytest.approx(
        np.average(above == labels, weights=weight)
    )
    model.save(tmp_path / "m.safetensors")
    again = nn.load(tmp_path / "m.safetensors", "numpy")
    assert again.threshold == 0.12
    assert (again.predict(x) == above).all()
    again.threshold = None
    assert again.evaluate(x, labels) == before


def test_thresholds_that_a_model_cannot_have() -> None:
    three = nn.Model(nn.Network([3, 3], loss="cross_entropy", device="numpy"))
    values = nn.Model(nn.Network([3, 1], device="numpy"))
    labels = nn.Model(nn.Network([3, 2], loss="binary_cross_entropy", device="numpy"))
    for model in (three, values, labels):
        with pytest.raises(ArgumentError, match="probabilities of two classes"):
            model.threshold = 0.3
    two = nn.Model(nn.Network([3, 2], loss="cross_entropy", device="numpy"))
    for wrong in (0.0, 1, "0.3", float("nan")):
        with pytest.raises(ArgumentError, match="threshold must be a number between"):
            two.threshold = wrong  # type: ignore[assignment]


def test_onnx_gives_the_same_labels(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    out, path = tmp_path / "run", _table(tmp_path / "rare.csv")
    words = f"train {path} --hidden 8 --epochs 3 --device numpy --out {out} --threshold f1"
    assert main(words.split()) == 0
    assert main(["export", str(out), "--raw", "--out", str(tmp_path / "m.onnx")]) == 0
    frame = pd.read_csv(path).drop(columns="left")
    session = runtime.InferenceSession(str(tmp_path / "m.onnx"))
    feed = {name: frame[[name]].to_numpy(np.float32) for name in frame}
    model = nn.load(out / "model.safetensors", "numpy")
    found = session.run(["label"], feed)[0]
    assert (found == model.predict(frame)).all()
    assert (found == "yes").sum() > 0
    assert (found != model.predict_proba(frame).argmax(axis=1).astype(str)).any()


# ---- the command line ---------------------------------------------------------------------------


def _results(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "extra", ["--hidden 8 --epochs 30", "--preset tabular --members 2 --epochs 10"]
)
def test_train_chooses_a_threshold(
    extra: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _table(tmp_path / "rare.csv", 2000)
    base = f"train {path} --device numpy --json {extra}"
    assert main([*base.split(), "--out", str(tmp_path / "plain")]) == 0
    plain = _results(capsys)
    assert main([*base.split(), "--out", str(tmp_path / "run"), "--threshold", "f1"]) == 0
    chosen = _results(capsys)
    assert "threshold" not in plain
    assert 0.0 < chosen["threshold"] < 0.5
    assert chosen["test_loss"] == plain["test_loss"]
    assert main(["evaluate", str(tmp_path / "plain"), str(path), "--part", "all", "--json"]) == 0
    before = _results(capsys)
    assert main(["evaluate", str(tmp_path / "run"), str(path), "--part", "all", "--json"]) == 0
    after = _results(capsys)
    assert after["f1"] > before["f1"] + 0.05
    assert after["threshold"] == chosen["threshold"]
    assert after["log_loss"] == before["log_loss"]


def test_predict_and_evaluate_with_another_threshold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, path = tmp_path / "run", _table(tmp_path / "rare.csv")
    words = f"train {path} --hidden 8 --epochs 5 --device numpy --out {out} --threshold 0.3"
    assert main(words.split()) == 0
    capsys.readouterr()
    counts = []
    for more in ([], ["--threshold", "0.3"], ["--threshold", "0.1"]):
        assert main(["predict", str(out), str(path), *more]) == 0
        counts.append(capsys.readouterr().out.count("yes"))
    assert counts[0] == counts[1] < counts[2]
    words = f"evaluate {out} {path} --part all --threshold 0.1 --json"
    assert main(words.split()) == 0
    found = _results(capsys)
    assert found["classes"]["yes"]["recall"] > found["classes"]["yes"]["precision"]
    rows = sum(found["classes"][name]["rows"] for name in ("no", "yes"))
    hits = sum(f["rows"] * f["recall"] for f in found["classes"].values())
    assert found["accuracy"] == pytest.approx(hits / rows)
    assert main(["predict", str(out), str(path), "--threshold", "much"]) == 2
    assert "--threshold must be a number between 0 and 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("iris --threshold f1", "--threshold is for two classes"),
        ("diabetes --threshold 0.3", "--threshold is for two classes"),
        ("breast_cancer --threshold f1 --validation 0", "--threshold f1 needs validation rows"),
        ("breast_cancer --threshold f7", "--threshold must be"),
        ("breast_cancer --threshold 1.2", "--threshold must be"),
        ("diabetes --class-weight balanced", "--class-weight must be none for a regression"),
        ("breast_cancer --class-weight benin=3", "Did you mean 'benign'"),
        ("breast_cancer --class-weight benign=-3", "weights above 0"),
        ("iris --threshold f1 --preset tabular", "--threshold is for two classes"),
        ("diabetes --class-weight balanced --preset tabular", "none for a regression"),
    ],
)
def test_options_that_do_not_suit(
    words: str, text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["train", *words.split(), "--out", str(tmp_path / "run")]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "extra", ["--hidden 8 --epochs 20", "--preset tabular --members 2 --epochs 10"]
)
def test_the_positive_class_is_chosen(
    extra: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures and threshold are of the rare class, also if its name is the first in order."""
    path = _table(tmp_path / "rare.csv", 2000)
    frame = pd.read_csv(path)
    frame["left"] = frame["left"].map({"yes": "gone", "no": "here"})
    frame.to_csv(tmp_path / "names.csv", index=False)
    found = {}
    for name, data, more in (
        ("yes", path, []),
        ("gone", tmp_path / "names.csv", ["--positive", "gone"]),
    ):
        out = tmp_path / name
        words = f"train {data} --device numpy --json --threshold cost:miss=10 {extra} --out {out}"
        assert main([*words.split(), *more]) == 0
        captured = capsys.readouterr()
        found[name] = json.loads(captured.out.splitlines()[-1])
        assert found[name]["positive"] == name
        assert main(["evaluate", str(out), str(data), "--json"]) == 0
        found[name] |= _results(capsys)
    for figure in ("threshold", "test_f1", "average_precision", "roc_auc", "f1"):
        assert found["yes"][figure] == pytest.approx(found["gone"][figure], abs=1e-6)
    assert found["gone"]["classes"]["gone"]["recall"] > 0.5
    assert not [line for line in captured.err.splitlines() if "--positive" in line]


def test_a_threshold_of_the_frequent_class_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = _table(tmp_path / "rare.csv")
    frame = pd.read_csv(path)
    frame["left"] = frame["left"].map({"yes": "gone", "no": "here"})
    frame.to_csv(tmp_path / "names.csv", index=False)
    words = f"train {tmp_path / 'names.csv'} --device numpy --epochs 1 --threshold f1"
    assert main([*words.split(), "--out", str(tmp_path / "run")]) == 0
    assert "pass --positive gone" in capsys.readouterr().err + caplog.text


def test_positive_classes_that_do_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for words, text in {
        "iris --positive setosa": "--positive must be one of two classes. Received: 3 classes",
        "diabetes --positive 3": "Received: a regression",
        "breast_cancer --positive bening": "Received: 'bening', and the classes",
    }.items():
        assert main(["train", *words.split()]) == 2
        assert text in capsys.readouterr().err


# ---- weights of classes -------------------------------------------------------------------------


def test_weights_worked_by_hand() -> None:
    y = np.array([0, 0, 0, 1])
    assert class_weights(("balanced",), y, ("no", "yes")) == pytest.approx([4 / 6, 4 / 2])
    assert class_weights(("yes=10",), y, ("no", "yes")) == pytest.approx([1, 10])
    assert class_weights((), y, ("no", "yes")) is None
    with pytest.raises(ArgumentError, match=r"'maybe=2'.*|.*yes=x") as error:
        class_weights(("maybe=2", "yes=x"), y, ("no", "yes"))
    assert "yes=x" in str(error.value)


@pytest.mark.parametrize("extra", ["--hidden 8", "--preset tabular --members 2"])
def test_class_weights_of_a_run(extra: str, tmp_path: Path) -> None:
    """A weight of 9 gives the mean probability that nine copies of the rows give."""
    path = _table(tmp_path / "rare.csv", 1200)
    frame = pd.read_csv(path)
    base = f"train {path} --device numpy {extra} --epochs 20 --learning-rate 0.01 --test 0"
    mean = {}
    for name, more in {"plain": [], "nine": ["--class-weight", "yes=9"]}.items():
        assert main([*base.split(), "--out", str(tmp_path / name), *more]) == 0
        model = nn.load(tmp_path / name / "model.safetensors", "numpy")
        mean[name] = float(model.predict_proba(frame.drop(columns="left"))[:, 1].mean())
    share = float((frame["left"] == "yes").mean())
    assert mean["plain"] == pytest.approx(share, abs=0.03)
    assert mean["nine"] > 2 * share


def test_weighted_rows_equal_weights_in_python(tmp_path: Path) -> None:
    out, path = tmp_path / "run", _table(tmp_path / "rare.csv")
    words = f"train {path} --hidden 4 --epochs 2 --device numpy --out {out} --class-weight yes=3"
    assert main([*words.split(), "--test", "0", "--validation", "0", "--scale", "none"]) == 0
    x, y = _rare()
    net = nn.Network([3, 4, 2], loss="cross_entropy", device="numpy", seed=0)
    nn.train(
        net, x, y, epochs=2, batch_size=32, schedule="cosine", sample_weight=np.where(y, 3.0, 1.0)
    )
    given = nn.load(out / "model.safetensors", "numpy").network
    assert np.allclose(given.theta, net.theta, atol=1e-6)
