"""Common code of the scripts: options, data, a loop over seeds, a JSON file of results.

The JSON is written after every seed, and finished seeds are not run again: a stopped script resumes
at the seed it was in. The scripts that take hours also resume within that seed, from checkpoints
beside the JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import nnbackend as nn
from nnbackend.machine import cpu_name

RESULTS = Path("runs/published")
QUICK_ROWS = 400


@dataclass(frozen=True)
class Result:
    """A published result: its accuracy as a fraction, its source, and the number of seeds."""

    name: str
    published: float
    source: str
    seeds: int


@dataclass(frozen=True)
class Digits:
    """Both parts of MNIST or Fashion-MNIST, pixels from 0 to 1."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def accuracy(model: nn.Model | nn.Network, x: np.ndarray, y: np.ndarray) -> float:
    """Return the fraction of rows whose largest output is the correct class."""
    return float((model.outputs(x).argmax(axis=1) == y).mean())


class TestAccuracy(nn.Callback):
    """A callback that measures the accuracy on the test rows after every epoch."""

    def __init__(self, data: Digits) -> None:
        self.data, self.values = data, list[float]()

    def on_epoch_end(self, trainer: Any, row: Any) -> None:
        model = nn.Model.from_parts(trainer.net, trainer.data.preprocessing)
        self.values.append(accuracy(model, self.data.x_test, self.data.y_test))
        print(f"  epoch {trainer.state.epoch:4}  loss {row['train_loss']:.4f}  "
              f"test {self.values[-1]:.4f}  {row['seconds']:.1f} s", flush=True)  # fmt: skip


def options(about: str) -> argparse.Namespace:
    """Read the options of every script."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--data", type=Path, required=True, help="folder of the IDX files")
    parser.add_argument("--device", default="cpu", help="cpu or gpu (default: cpu)")
    parser.add_argument("--only", help="run only results whose name contains this")
    parser.add_argument(
        "--seeds", type=int, help="number of seeds (default: depends on the result)"
    )
    parser.add_argument(
        "--epochs", type=int, help="fewer epochs than published; the result is marked"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"default: {RESULTS}")
    parser.add_argument("--quick", action="store_true", help="few rows and epochs: only a trial")
    return parser.parse_args()


def load(folder: Path, quick: bool) -> Digits:
    """Read the four files of a folder."""
    data = nn.data.load(str(folder))
    if data.test is None or data.y is None or data.test.y is None:
        raise SystemExit(f"{folder} must hold train-* and t10k-* files with their labels")
    parts = [data.x, data.y, data.test.x, data.test.y]
    if quick:
        parts = [part[:QUICK_ROWS] for part in parts]
    x, y, x_test, y_test = parts
    unit = np.float32(1 / 255)
    return Digits(x.astype(np.float32) * unit, y, x_test.astype(np.float32) * unit, y_test)


def epochs(args: argparse.Namespace, published: int) -> int:
    """Return how many epochs to run."""
    return args.epochs or (2 if args.quick else published)


def finished(history: nn.History) -> nn.History:
    """Return the history of a run. Exit if Ctrl-C has stopped the run."""
    if history.stop_reason == "interrupted":
        raise SystemExit("stopped; the same command resumes")
    return history


def train_or_resume(
    folder: Path,
    net: nn.Network,
    x: np.ndarray,
    y: np.ndarray,
    callbacks: list[nn.Callback],
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    **config: Any,
) -> tuple[nn.Network, nn.History]:
    """Train with checkpoints in a folder, or resume from existing ones."""
    if any(folder.glob("checkpoint-*")):
        model, history = nn.resume(
            folder, x, y, validation=validation, callbacks=callbacks, device=net.backend
        )
        net = model.network
    else:
        callbacks = [*callbacks, nn.Checkpoints(folder)]
        history = nn.train(net, x, y, validation=validation, callbacks=callbacks, **config)
    return net, finished(history)


def reproduce(
    args: argparse.Namespace, result: Result, train: Callable[[int, Path], tuple[float, int]]
) -> None:
    """Run the seeds that are not finished.

    train(seed, folder) returns (accuracy, epochs done); then the folder is removed.
    """
    if args.only and args.only not in result.name:
        return
    path = args.out / f"{result.name.replace(' ', '_').replace('/', '-')}.json"
    shortened = "quick trial" if args.quick else f"{args.epochs} epochs" if args.epochs else ""
    facts: dict[str, Any] = {
        "name": result.name, "published": result.published, "source": result.source,
        "shortened": shortened, "device": nn.get_backend(args.device).device,
        "processor": cpu_name(), "runs": [],
    }  # fmt: skip
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        same = ("published", "shortened", "device")
        if all(before[key] == facts[key] for key in same):
            facts["runs"] = before["runs"]
    done = {run["seed"] for run in facts["runs"]}
    for seed in range(1 if args.quick else args.seeds or result.seeds):
        if seed in done:
            continue
        print(f"{result.name}, seed {seed}", flush=True)
        begin = time.perf_counter()
        unfinished = path.with_suffix("") / f"{shortened or 'whole'} {seed}".replace(" ", "-")
        reached, n_epochs = train(seed, unfinished)
        facts["runs"].append({"seed": seed, "reached": reached, "epochs": n_epochs,
                              "seconds": round(time.perf_counter() - begin, 1)})  # fmt: skip
        args.out.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        part.replace(path)
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    reached = [run["reached"] for run in facts["runs"]]
    print(f"{result.name}: published {result.published:.4f}, best {max(reached):.4f}, "
          f"mean {np.mean(reached):.4f}, {sum(run['seconds'] for run in facts['runs']):.0f} s"
          f"{f' ({shortened} only)' if shortened else ''}")  # fmt: skip
