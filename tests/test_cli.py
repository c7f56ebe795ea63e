"""The command line, in this process: all commands, wrong usage, and the files of a run."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import struct
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import nnbackend as nn
from nnbackend import machine
from nnbackend.backend import BackendRow
from nnbackend.cli import COMMANDS, main
from nnbackend.cli.settings import read_config, to_toml
from nnbackend.config import SETTINGS, Settings

FILES = {
    *("model.safetensors", "last.safetensors", "config.toml", "history.csv", "curves.png"),
    *("environment.json", "checkpoints"),
}
FAST = ("--hidden", "8", "--epochs", "3", "--device", "numpy")


class Done(NamedTuple):
    """Result of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.out.splitlines()[-1])
        return result


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run_command(*words: str | Path) -> Done:
        capsys.readouterr()
        code = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run_command


@pytest.fixture
def flowers(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Return a table with a column of text and classes of text."""
    path = tmp_path / "flowers.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["length", "color", "kind"])
        for i in range(90):
            kind = ("daisy", "rose", "tulip")[i % 3]
            color = ("white", "red", "red")[i % 3]
            writer.writerow([f"{i % 3 + 0.1 * rng.standard_normal():.6f}", color, kind])
    return path


@pytest.fixture
def images(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Return a folder of IDX files, as MNIST: 120 images to train, 40 to test."""
    folder = tmp_path / "images"
    folder.mkdir()
    for part, n in (("train", 120), ("t10k", 40)):
        labels = np.arange(n, dtype=np.uint8) % 4
        x = rng.integers(0, 60, (n, 3, 3)).astype(np.uint8)
        x[np.arange(n), labels % 3, labels // 3] += 180
        for what, values in (("images", x), ("labels", labels)):
            name = f"{part}-{what}-idx{values.ndim}-ubyte.gz"
            head = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
            (folder / name).write_bytes(gzip.compress(head + values.tobytes()))
    return folder


# ---- train --------------------------------------------------------------------------------------


def test_train_writes_a_run_folder(run: Run) -> None:
    done = run("train", "iris", *FAST, "--json")
    assert done.code == 0, done.err
    folder = Path("runs/iris-001")
    assert {path.name for path in folder.iterdir()} == FILES
    assert len(list((folder / "checkpoints").iterdir())) == 1
    names = [
        "train_loss",
        "valid_loss",
        "valid_accuracy",
        "test_accuracy",
        "seconds",
        "device",
        "model",
        "curves",
    ]
    assert set(names) <= done.json.keys()
    assert done.json["device"] == "numpy:0"
    assert Path(done.json["model"]) == folder / "model.safetensors"
    model = nn.load(done.json["model"], device="numpy")
    assert model.classes == ("setosa", "versicolor", "virginica")
    rows = list(csv.DictReader((folder / "history.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    best = rows[done.json["best_epoch"] - 1]
    assert float(best["valid_loss"]) == done.json["valid_loss"]
    facts = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    assert facts["data"]["rows"] == 150
    assert facts["data"]["rows_test"] == 30
    assert facts["results"]["test_accuracy"] == done.json["test_accuracy"]
    assert facts["versions"] == machine.versions()
    assert (facts["cpu"], facts["cpus"]) == (machine.cpu_name(), os.cpu_count())
    assert facts["cpus_allowed"] == len(machine.usable_cpus())
    assert facts["threads"].items() >= {v: os.environ[v] for v in machine.THREAD_VARIABLES
                                        if v in os.environ}.items()  # fmt: skip
    assert run("train", "iris", *FAST).code == 0
    assert Path("runs/iris-002").is_dir()


def test_progress_goes_to_stderr_and_results_to_stdout(run: Run) -> None:
    done = run("train", "iris", *FAST)
    lines = [line for line in done.err.splitlines() if not line.startswith("nnbackend: ")]
    assert [line.split()[0] for line in lines[-3:]] == ["1", "2", "3"]
    title = lines[-4]
    for name in [
        "epoch",
        "train loss",
        "valid loss",
        "valid accuracy",
        "learning rate",
        "samples/s",
        "time left",
    ]:
        assert name in title
    assert "\r" not in done.err
    assert lines[-1].endswith("*")
    assert "train loss" not in done.out
    assert [line.split()[0] for line in done.out.splitlines()][-3:] == ["device", "model", "curves"]
    quiet = run("train", "iris", *FAST, "--quiet")
    assert quiet.err == ""
    assert "test_accuracy" in quiet.out


def test_a_run_can_be_repeated_from_its_config(run: Run) -> None:
    options = [*FAST, "--activation", "tanh", "--dropout", "0.1", "--seed", "7", "--l2", "1e-4"]
    first = run("train", "wine", *options, "--schedule", "step:every=2,gamma=0.5", "--json").json
    again = run("train", "--config", "runs/wine-001/config.toml", "--json").json
    changing = {"seconds", "model", "curves"}
    assert {k: v for k, v in first.items() if k not in changing} == {
        k: v for k, v in again.items() if k not in changing
    }
    assert Path("runs/wine-001/config.toml").read_text() == (
        Path("runs/wine-002/config.toml").read_text()
    )
    other = run("train", "--config", "runs/wine-001/config.toml", "--epochs", "1", "--json").json
    assert other["epochs"] == 1
    assert tomllib.loads(Path("runs/wine-003/config.toml").read_text())["seed"] == 7


def test_a_config_has_every_value_and_accepts_any_text(tmp_path: Path) -> None:
    settings = Settings(
        data='odd "name"\\ \x7f \t ü 😀', hidden=(), activation=("relu", "maxout:3"), l2=1e-22
    )
    path = tmp_path / "config.toml"
    path.write_text(to_toml(settings), encoding="utf-8")
    assert Settings(**read_config(path)) == settings
    assert set(tomllib.loads(path.read_text(encoding="utf-8"))) <= SETTINGS.keys()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hiden = [3]", "Did you mean 'hidden'"),
        ("epochs = 0", "epochs must be a whole number"),
        ("epochs = true", "must be text, a number or a list"),
        ("epochs = 2.5", "epochs must be a whole number"),
        ("[data]\nname = 1", "must be text, a number or a list"),
        ("epochs = ", "must be TOML"),
        ("epochs = " + "[" * 20_000, "must be TOML"),
        ("epochs = " + "9" * 5_000, "must be TOML"),
        ("epochs = 0x" + "f" * 5_000, "must be a 64-bit number"),
    ],
    ids=lambda value: value[:20],
)
def test_an_invalid_config_is_refused(run: Run, text: str, why: str) -> None:
    Path("c.toml").write_text(text, encoding="utf-8")
    done = run("train", "iris", "--config", "c.toml")
    assert done.code == 2
    assert why in done.err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("train digist", "Did you mean 'digits'"),
        ("train nowhere.csv", "must exist"),
        ("train", "DATA is missing"),
        ("trian iris", "Did you mean 'train'"),
        ("train iris --hiden 3", "Did you mean '--hidden'"),
        ("train iris --lr 0.1", "Did you mean '--learning-rate'"),
        ("train iris --batch 9", "Did you mean '--batch-size'"),
        ("train iris --hidden 10 5", "with commas and no blanks, as in 100,50"),
        ("train iris --hidden 10,-3", "Received: --hidden 10,-3"),
        ("train iris --hidden 10.5", "whole numbers"),
        ("train iris --activation rellu", "Did you mean 'relu'"),
        ("train iris --activation relu,tanh --hidden 5", "one for each of the 1 hidden"),
        ("train iris --activation tanh:2", "has no parameters"),
        ("train iris --activation leaky_relu:-1", "alpha"),
        ("train iris --optimizer adan", "Did you mean 'adam'"),
        ("train iris --loss crossentropy", "Did you mean 'cross_entropy'"),
        ("train iris --loss poisson", "must be one for a classification target"),
        ("train iris --loss binary_cross_entropy", "two classes"),
        ("train diabetes --loss cross_entropy", "must be one for a regression target"),
        ("train iris --schedule cosin", "Did you mean 'cosine'"),
        ("train iris --schedule step:evry=3", "Did you mean 'every'"),
        ("train iris --schedule step:every=x", "step needs a whole number for every"),
        ("train iris --momentum 0.9", "is for sgd"),
        ("train iris --optimizer lbfgs --learning-rate 1", "line search"),
        ("train iris --optimizer lbfgs --dropout 0.5", "L-BFGS"),
        ("train iris --learning-rate 0", "above 0"),
        ("train iris --learning-rate nan", "above 0"),
        ("train iris --batch-size 0", "or full"),
        ("train iris --epochs", "expected one argument"),
        ("train iris --dropout 1", "below 1"),
        ("train iris --validation 2", "fraction"),
        ("train iris --validation nowhere.csv", "must exist"),
        ("train iris --test own", "has none"),
        ("train iris --metric auc", "nnbackend evaluate RUN DATA --metric NAME"),
        ("train iris --search", "nnbackend tune DATA"),
        ("train iris --delimiter ;", "is detected"),
        ("train iris --monitor acuracy", "Did you mean 'valid_accuracy'"),
        ("train iris --validation 0 --monitor valid_loss", "monitor"),
        ("train iris --validation 0 --test 0 --target-accuracy 0.5", "--target-accuracy needs"),
        ("train iris --target kind", "--target has no effect"),
        ("train iris --task regression", "classification"),
        ("train iris --scale big", "Known: auto"),
        ("train iris --dtype float16", "Known: float32"),
        ("train iris --seed -1", "whole number"),
        ("train iris --device cpu:x", "gpu:0"),
        ("train iris --device nump", "Did you mean 'numpy'"),
        ("train iris --config nowhere.toml", "--config must be a readable file"),
        ("evaluate", "required"),
        ("evaluate nowhere iris", "which does not exist"),
        ("predict . iris", "without model.safetensors"),
        ("predict nowhere iris --out answers.txt", ".csv or .npy"),
        ("evaluate . iris --part tset", "Did you mean 'test'"),
        ("train iris --device cuda", "Did you mean 'cupy'"),
        ("plot .", "has no history.csv"),
        ("check --device nump", "Did you mean 'numpy'"),
    ],
)
def test_wrong_usage_names_the_cure(run: Run, words: str, why: str) -> None:
    done = run(*words.split())
    assert done.code == 2
    assert done.err.startswith("nnbackend: error: ")
    assert why in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    assert not Path("runs").exists()


def test_a_missing_gpu_is_refused_with_the_reason(run: Run) -> None:
    usable = [row for row in nn.backends() if row.kind == "gpu" and row.usable]
    if usable:
        pytest.skip("this machine has a GPU")
    done = run("train", "iris", "--device", "gpu")
    assert done.code == 2
    reason = next(row.reason for row in nn.backends() if row.kind == "gpu")
    assert reason in done.err


def test_a_folder_that_is_not_empty_is_not_changed(run: Run, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    done = run("train", "iris", *FAST, "--out", full)
    assert done.code == 2
    assert "new or empty folder" in done.err
    assert [path.name for path in full.iterdir()] == ["mine.txt"]
    done = run("train", "iris", *FAST, "--out", full / "mine.txt")
    assert done.code == 2
    assert run("train", "iris", *FAST, "--out", tmp_path / "a" / "b").code == 0
    assert {path.name for path in (tmp_path / "a" / "b").iterdir()} == FILES


def _table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_invalid_training_data_is_refused(run: Run, tmp_path: Path) -> None:
    gap = _table(tmp_path / "gap.csv", "a,b", "1,0", ",1", "3,0", "4,1", "5,0", "2,1")
    done = run("train", gap, "--missing", "error")
    assert done.code == 2
    assert "a: 1" in done.err
    assert run("train", gap, "--missing", "drop", "--epochs", "1", "--device", "numpy").code == 0
    infinite = _table(tmp_path / "inf.csv", "a,b", "1,0", "inf,1")
    assert "infinity in data row 2" in run("train", infinite).err
    one_class = _table(tmp_path / "one.csv", "a,b", "1,7", "2,7", "3,7")
    assert "at least two classes" in run("train", one_class).err
    equal = _table(tmp_path / "equal.csv", "a,b", "1,7.5", "2,7.5", "3,7.5")
    assert "at least two values. Received: 7.5 in all rows" in run("train", equal).err
    one_row = _table(tmp_path / "row.csv", "a,b,c", "1,2,0.5")
    assert "at least 2 rows" in run("train", one_row).err
    absent = run("train", gap, "--target", "c")
    assert absent.code == 2
    assert "Columns: a, b" in absent.err
    np.savez(tmp_path / "x.npz", x=np.ones((4, 2)))
    assert "needs a target" in run("train", tmp_path / "x.npz").err


def test_training_on_one_row(run: Run, tmp_path: Path) -> None:
    one_row = _table(tmp_path / "row.csv", "a,b,c", "1,2,0.5")
    done = run("train", one_row, "--test", "0", "--validation", "0", *FAST, "--json")
    assert done.code == 0, done.err
    assert "valid_loss" not in done.json


@pytest.mark.parametrize(
    "options",
    [
        "--batch-size 100000",
        "--batch-size full --optimizer sgd --momentum 0.9",
        "--optimizer lbfgs",
        "--hidden none",
        "--hidden 6,5,4 --activation relu,maxout:3,tanh --dropout 0.1,0,0.2 --max-norm 2",
        "--loss quadratic",
        "--loss huber:0.5 --output-activation softmax",
        "--scale robust --dtype float64",
        "--scale none --l1 1e-4 --weight-decay 0.1 --clip-norm 1 --optimizer rmsprop",
        "--schedule warm_up:epochs=2 --patience 0 --monitor valid_accuracy",
        "--validation 0 --patience 1",
        "--test 0",
        "--test 0.5 --validation 0.5",
    ],
)
def test_options_of_train(run: Run, options: str) -> None:
    base = [] if "--hidden" in options else ["--hidden", "6"]
    words = [*base, "--epochs", "2", "--device", "numpy", "--quiet", *options.split(), "--json"]
    done = run("train", "iris", *words)
    assert done.code == 0, done.err
    part = "valid" if options == "--test 0" else "test"
    assert done.json[f"{part}_accuracy"] >= 0.0
    config = read_config(Path("runs/iris-001/config.toml"))
    assert run("evaluate", "runs/iris-001", "iris", "--device", "numpy").code == 0
    assert config["epochs"] == 2


@pytest.mark.parametrize("loss", ["quadratic", "absolute", "huber:2", "quantile:0.9", "poisson"])
def test_losses_of_a_regression(run: Run, loss: str) -> None:
    done = run("train", "diabetes", *FAST, "--loss", loss, "--json")
    assert done.code == 0, done.err
    assert done.json["valid_r2"] <= 1.0
    shown = run("evaluate", "runs/diabetes-001", "diabetes", "--device", "numpy", "--json")
    assert shown.json["r2"] == done.json["test_r2"]
    assert shown.json["mae"] <= shown.json["rmse"]


def test_two_classes_and_several_yes_or_no_targets(run: Run, tmp_path: Path, rng: Any) -> None:
    done = run("train", "xor", *FAST, "--loss", "binary_cross_entropy", "--json")
    assert done.code == 0, done.err
    proba = run("predict", "runs/xor-001", "xor", "--proba", "--device", "numpy").out.splitlines()
    assert proba[0] == "0,1"
    assert sum(map(float, proba[1].split(","))) == pytest.approx(1.0)
    x = rng.standard_normal((80, 2))
    np.savez(tmp_path / "many.npz", x=x, y=(x[:, [0, 1, 0]] > [0, 0, 1]).astype(float))
    words = ["--loss", "binary_cross_entropy", "--task", "regression", "--json"]
    done = run("train", "many.npz", *FAST, *words)
    assert done.code == 0, done.err
    assert "test_accuracy" in done.json
    answers = run("predict", "runs/many-001", "many.npz", "--device", "numpy").out.splitlines()
    assert answers[0] == "prediction_0,prediction_1,prediction_2"
    assert run("evaluate", "runs/many-001", "many.npz", "--confusion").code == 2


def test_a_missed_target_accuracy_fails_the_run(run: Run) -> None:
    done = run("train", "iris", *FAST, "--target-accuracy", "1", "--learning-rate", "1e-9")
    assert done.code == 1
    assert "below 1" in done.err
    assert run("train", "iris", *FAST, "--target-accuracy", "0").code == 0


def test_a_diverged_run_keeps_its_results(run: Run) -> None:
    words = ["--optimizer", "sgd", "--learning-rate", "1e6", "--device", "numpy", "--hidden", "9"]
    done = run("train", "diabetes", *words)
    assert done.code == 1
    assert "failed: training diverged" in done.err
    folder = Path("runs/diabetes-001")
    assert {"config.toml", "history.csv", "environment.json", "model.safetensors"} <= {
        path.name for path in folder.iterdir()
    }
    model = nn.load(folder / "model.safetensors", device="numpy")
    weights, _ = model.network.get_parameters()
    assert all(np.isfinite(W).all() for W in weights)


def test_files_for_validation_and_test(run: Run, flowers: Path, tmp_path: Path) -> None:
    lines = flowers.read_text().splitlines()
    few = _table(tmp_path / "few.csv", lines[0], *lines[1:7])
    words = ["--validation", few, "--test", few, "--json"]
    done = run("train", flowers, *FAST, *words)
    assert done.code == 0, done.err
    assert done.json["valid_accuracy"] == done.json["test_accuracy"]
    facts = json.loads(Path("runs/flowers-001/environment.json").read_text())["data"]
    assert (facts["rows_train"], facts["rows_validation"], facts["rows_test"]) == (90, 6, 6)
    shown = run("evaluate", "runs/flowers-001", flowers, "--device", "numpy", "--json").json
    assert shown["part"] == "test"
    assert shown["accuracy"] == done.json["test_accuracy"]
    features = _table(tmp_path / "features.csv", "length,color", "1,red")
    done = run("train", flowers, *FAST, "--test", features)
    assert done.code == 2
    assert "must have the target" in done.err


# ---- evaluate and predict -----------------------------------------------------------------------


def test_evaluate_uses_the_rows_that_training_held_out(run: Run) -> None:
    trained = run("train", "iris", *FAST, "--seed", "3", "--json").json
    shown = run("evaluate", "runs/iris-001", "iris", "--device", "numpy", "--json").json
    assert (shown["part"], shown["rows"]) == ("test", 30)
    assert shown["loss"] == trained["test_loss"]
    assert shown["accuracy"] == trained["test_accuracy"]
    for part, rows in (("train", 120), ("all", 150)):
        words = ["runs/iris-001", "iris", "--part", part, "--device", "numpy", "--json"]
        assert run("evaluate", *words).json["rows"] == rows


def test_evaluate_prints_classes_and_the_confusion_matrix(run: Run) -> None:
    run("train", "iris", *FAST)
    words = ["runs/iris-001", "iris", "--confusion", "--confusion-plot", "c.png", "--json"]
    done = run("evaluate", *words)
    assert done.code == 0, done.err
    assert "precision" in done.out
    counts = np.array(done.json["confusion"])
    assert counts.sum() == done.json["rows"]
    assert np.trace(counts) / counts.sum() == pytest.approx(done.json["accuracy"])
    setosa = done.json["classes"]["setosa"]
    assert setosa["rows"] == counts[0].sum()
    assert Path("c.png").stat().st_size > 1000


def test_other_data_is_evaluated_in_full(run: Run, flowers: Path, tmp_path: Path) -> None:
    run("train", flowers, *FAST)
    lines = flowers.read_text().splitlines()
    changed = _table(tmp_path / "flowers2.csv", *lines, "0.5,white,rose")
    shown = run("evaluate", "runs/flowers-001", changed, "--device", "numpy", "--json").json
    assert (shown["part"], shown["rows"]) == ("all", 91)
    done = run("evaluate", "runs/flowers-001", changed, "--part", "test")
    assert done.code == 2
    assert "not the rows" in done.err
    model = Path("runs/flowers-001/model.safetensors").rename(tmp_path / "alone.safetensors")
    shown = run("evaluate", model, flowers, "--device", "numpy", "--json").json
    assert (shown["part"], shown["rows"]) == ("all", 90)


def test_images_have_a_distributed_test_part(run: Run, images: Path) -> None:
    words = ["--epochs", "15", "--device", "numpy", "--json"]
    trained = run("train", images, *words)
    assert trained.code == 0, trained.err
    assert "train 108, validation 12, test 40 rows" in trained.err
    assert trained.json["test_accuracy"] > 0.5
    assert read_config(Path("runs/images-001/config.toml"))["test"] == "own"
    shown = run("evaluate", "runs/images-001", images, "--device", "numpy", "--json").json
    assert shown["rows"] == 40
    assert shown["accuracy"] == trained.json["test_accuracy"]
    assert shown["loss"] == trained.json["test_loss"]
    answers = run("predict", "runs/images-001", images, "--part", "test").out.splitlines()
    assert len(answers) == 41
    assert len(run("predict", "runs/images-001", images).out.splitlines()) == 161


def test_predict_reads_rows_as_training_did(
    run: Run, flowers: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["--epochs", "60", "--device", "numpy", "--learning-rate", "0.01"]
    trained = run("train", flowers, *words)
    new = _table(tmp_path / "new.csv", "color,length", "red,2.0", "white,0.0", "red,1.0")
    assert "3 classes of 'kind'" in trained.err
    done = run("predict", "runs/flowers-001", new, "--device", "numpy")
    assert done.out.splitlines() == ["prediction", "tulip", "daisy", "rose"]
    assert done.err == ""
    proba = run("predict", "runs/flowers-001", new, "--proba").out.splitlines()
    assert proba[0] == "daisy,rose,tulip"
    values = np.array([line.split(",") for line in proba[1:]], dtype=float)
    assert values.argmax(axis=1).tolist() == [2, 0, 1]
    assert run("predict", "runs/flowers-001", new, "--out", "answers.csv").out == ""
    assert Path("answers.csv").read_text() == done.out
    run("predict", "runs/flowers-001", new, "--out", "answers.npy")
    assert np.load("answers.npy").tolist() == ["tulip", "daisy", "rose"]
    unknown = _table(tmp_path / "unknown.csv", "color,length", "blue,2.0")
    done = run("predict", "runs/flowers-001", unknown)
    assert len(done.out.splitlines()) == 2
    assert "'blue' in data row 1" in caplog.text


def test_predicted_values_are_in_the_targets_units(run: Run) -> None:
    run("train", "diabetes", "--epochs", "30", "--device", "numpy", "--hidden", "20")
    lines = run("predict", "runs/diabetes-001", "diabetes", "--device", "numpy").out.splitlines()
    values = np.array(lines[1:], dtype=float)
    assert len(values) == 442
    assert 100 < values.mean() < 200
    done = run("predict", "runs/diabetes-001", "diabetes", "--proba")
    assert done.code == 2
    assert "--proba needs" in done.err


def test_a_table_for_a_network_trained_on_arrays(run: Run, tmp_path: Path, rng: Any) -> None:
    x = rng.standard_normal((60, 3))
    np.savez(tmp_path / "a.npz", x=x, y=(x[:, 0] > 0).astype(int))
    assert run("train", "a.npz", *FAST).code == 0
    bare = _table(tmp_path / "bare.csv", "p,q,r", *(",".join(map(str, row)) for row in x[:5]))
    full = _table(
        tmp_path / "full.csv",
        "p,q,r,t",
        *(",".join(map(str, [*row, int(row[0] > 0)])) for row in x[:5]),
    )
    expected = run("predict", "runs/a-001", "a.npz", "--device", "numpy").out.splitlines()[:6]
    assert run("predict", "runs/a-001", bare, "--device", "numpy").out.splitlines() == expected
    assert run("predict", "runs/a-001", full, "--device", "numpy").out.splitlines() == expected
    assert run("evaluate", "runs/a-001", full, "--device", "numpy").code == 0
    done = run("evaluate", "runs/a-001", bare)
    assert done.code == 2
    assert "needs the target" in done.err
    narrow = _table(tmp_path / "narrow.csv", "p", "1")
    assert "must have 3 columns" in run("predict", "runs/a-001", narrow).err
    assert "must have the 3 features" in run("predict", "runs/a-001", "iris").err


# ---- the other commands -------------------------------------------------------------------------


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("name", "text", "code", "shown"),
    [
        ("environment.json", DEEP, 0, "best of 2 epochs by valid_loss"),
        ("environment.json", '{"results": [], "data": 3}', 0, "best of 2 epochs by valid_loss"),
        ("config.toml", 'monitor = "other"', 0, "best of 2 epochs by valid_loss"),
        ("config.toml", f"epochs = {DEEP}", 2, "must be TOML"),
        ("history.csv", "a,b\n1,2\n", 2, "must be the history of a run"),
        ("history.csv", "epoch,train_loss\n1,0.5\n2,0.25\n", 0, "of 2 epochs by train_loss"),
    ],
    ids=range(6),
)
def test_invalid_files_beside_a_model(
    run: Run, name: str, text: str, code: int, shown: str
) -> None:
    """Untrusted or edited files are ignored or refused (the fuzzer found some)."""
    folder = Path("run")
    folder.mkdir()
    net = nn.Network([2, 3, 2], "cross_entropy", device="numpy")
    nn.Model(net).save(folder / "model.safetensors")
    config = to_toml(Settings(data="digits", monitor="valid_loss"))
    (folder / "config.toml").write_text(config, encoding="utf-8")
    (folder / "history.csv").write_text("epoch,train_loss,valid_loss\n1,0.5,0.5\n2,0.4,nan\n")
    (folder / name).write_text(text, encoding="utf-8")
    done = run("summary", "run", "--device", "numpy")
    assert done.code == code, done.err
    assert shown in done.out + done.err


def test_summary_shows_network_settings_and_best_epoch(run: Run) -> None:
    run("train", "iris", *FAST, "--seed", "5")
    out = run("summary", "runs/iris-001").out
    for text in ("dense 8 relu", "setosa", "seed               5", "best of 3 epochs", "norm"):
        assert text in out
    assert "test_accuracy" in out
    alone = run("summary", "runs/iris-001/last.safetensors")
    assert alone.code == 0


def test_plot_draws_again(run: Run) -> None:
    run("train", "iris", *FAST)
    folder = Path("runs/iris-001")
    (folder / "curves.png").unlink()
    with (folder / "history.csv").open("a", encoding="utf-8") as file:
        file.write("4,0.")  # cut off while it was written
    assert run("plot", folder).out.strip() == str(folder / "curves.png")
    assert (folder / "curves.png").stat().st_size > 1000
    assert run("plot", folder, "--out", "c.svg").code == 0
    assert "<svg" in Path("c.svg").read_text(encoding="utf-8")
    assert run("plot", folder, "--out", "c.odd").code == 2


def test_devices_names_the_blas_and_a_faster_setting(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = {"user_api": "blas", "internal_api": "openblas", "version": "0.3.1", "num_threads": 2}
    monkeypatch.setattr(machine, "thread_pools", lambda: [{**pool, "architecture": "Haswell"}])
    monkeypatch.setattr(machine, "cpu_flags", lambda: sorted(machine.AVX512))
    text = run("devices").out
    assert "openblas 0.3.1 Haswell kernels, 2 threads" in text
    assert "export OPENBLAS_CORETYPE=SkylakeX" in text
    monkeypatch.setattr(machine, "cpu_flags", lambda: ["avx2"])
    assert "OPENBLAS_CORETYPE" not in run("devices").out


@pytest.mark.parametrize(
    ("vendor", "flags", "loaded", "own", "expected"),
    [
        ("AuthenticAMD", machine.AVX512, False, None, "SkylakeX"),
        ("AuthenticAMD", machine.AVX512, False, "Zen", "Zen"),
        ("AuthenticAMD", machine.AVX512, True, None, None),
        ("AuthenticAMD", {"avx2"}, False, None, None),
        ("GenuineIntel", machine.AVX512, False, None, None),
    ],
)
def test_the_command_line_selects_the_best_kernels(
    vendor: str,
    flags: set[str],
    loaded: bool,
    own: str | None,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "_cpu_lines", lambda: {"vendor_id": vendor})
    monkeypatch.setattr(machine, "cpu_flags", lambda: sorted(flags))
    modules = {name: m for name, m in sys.modules.items() if loaded or name != "numpy"}
    monkeypatch.setattr(sys, "modules", modules)
    monkeypatch.setenv("OPENBLAS_CORETYPE", own or "")
    if own is None:
        monkeypatch.delenv("OPENBLAS_CORETYPE")
    machine.ask_for_best_kernels()
    assert os.environ.get("OPENBLAS_CORETYPE") == expected


def test_devices_lists_every_backend(run: Run) -> None:
    done = run("devices", "--json")
    assert done.code == 0
    rows = {row["name"]: row for row in done.json["backends"]}
    assert rows["numpy"]["self_test"] == "passed"
    assert rows.keys() == {row.name for row in nn.backends()}
    text = " ".join(done.out.split())
    for row in rows.values():
        assert row["usable"] or all(cause in text for cause in row["reason"].split("; "))
        assert all(f"{cure}\n" in done.out for cure in filter(None, row["cure"].split(", then ")))
        assert len(row["kinds"]) == len(row["devices"])
    assert re.search(r"^numpy +cpu +usable .*\n    numpy:0  cpu  self-test passed$", done.out, re.M)
    assert done.json["auto"] == nn.get_backend("auto").device


def test_devices_names_the_default_and_what_devices_offer(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNBACKEND_DEVICE", "numpy")
    numpy = type(nn.get_backend("numpy"))
    monkeypatch.setattr(numpy, "precisions", ("float32", "tf32"))
    monkeypatch.setattr(numpy, "threads", 3)
    text = run("devices").out
    assert "numpy:0  cpu  self-test passed  precision float32 or tf32  at most 3 threads" in text
    assert "NNBACKEND_DEVICE is 'numpy': the default" in text
    assert f"cores that can be used: {len(machine.usable_cpus())}\n" in text


def test_devices_breaks_long_reasons_into_lines(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    causes = ["no driver is visible (libcuda.so.1)", "a wheel is missing: " + "words " * 40]
    cures = ["install the driver " + "R580 " * 30, 'pip install "nvidia-cublas==13.*"']
    row = BackendRow(
        "slow", "gpu", False, "; ".join(causes), ", then ".join(cures), "", (), "plug 1.0"
    )
    monkeypatch.setattr("nnbackend.cli.devices.backends", lambda: [row])
    lines = run("devices").out.splitlines()
    assert lines[0] == "slow    gpu  not usable"
    assert lines[1] == f"    why: {causes[0]}"
    shown = [line.strip() for line in lines]
    assert [f"cure: {cure}".strip() for cure in cures] == [s for s in shown if s.startswith("cure")]
    assert all(len(line) <= 100 for line in lines if not line.strip().startswith("cure"))


def test_devices_fails_if_a_usable_device_computes_wrongly(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = type(nn.get_backend("numpy"))
    right = backend.dense_forward

    def wrong(self: Any, *args: Any) -> None:
        right(self, *args)
        args[-1][...] *= 1.01

    monkeypatch.setattr(backend, "dense_forward", wrong)
    done = run("devices", "--json")
    assert done.code == 1
    assert "numpy:0  cpu  self-test FAILED: a " in done.out
    assert re.search(
        r"^the self-test of .*numpy:0.* FAILED: do not use these devices", done.out, re.M
    )
    (row,) = (row for row in done.json["backends"] if row["name"] == "numpy")
    assert row["self_test"].startswith("FAILED")


def test_check_passes_on_numpy_and_fails_for_a_wrong_gradient(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("check", "--device", "numpy")
    assert done.code == 0, done.out
    assert "FAILED" not in done.out
    for name in (*nn.losses.LOSSES, "maxout", "dropout", "relu", "mish"):
        assert name in done.out
    backend = type(nn.get_backend("numpy"))
    right = backend.maxout_backward

    def wrong(self: Any, delta: Any, which: Any, dz: Any) -> None:
        right(self, delta, which, dz)
        dz *= 1.01

    monkeypatch.setattr(backend, "maxout_backward", wrong)
    done = run("check", "--device", "numpy")
    assert done.code == 1
    assert done.out.count("FAILED") == 2


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_shows_an_example(run: Run, command: str) -> None:
    done = run(*[command] if command else [], "--help")
    assert done.code == 0
    assert f"nnbackend {command}" in done.out.partition("example:")[2]


def test_help_of_train_shows_every_option_and_default(run: Run) -> None:
    out = " ".join(run("train", "--help").out.split())
    for name in SETTINGS:
        if name != "data":
            assert f"--{name.replace('_', '-')} " in out
    assert out.count("(default: ") >= len(SETTINGS) - 1
    assert "(default: 0.1)" in out


def test_version_and_no_command(run: Run) -> None:
    assert run("help", "train").out == run("train", "--help").out
    assert run("--version").out == f"nnbackend {nn.__version__}\n"
    done = run()
    assert done.code == 2
    assert "train" in done.out
