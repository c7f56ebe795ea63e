"""`nnbackend summary`: show the contents of a run folder or a model file."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from nnbackend.cli.run_folder import Run, open_run
from nnbackend.config import SETTINGS
from nnbackend.network.network import Network
from nnbackend.training.history import History


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `summary`."""
    parser.add_argument("run", metavar="RUN", help="a run folder or a model file")
    parser.add_argument(
        "--device", metavar="DEVICE", default="cpu", help="as for train (default: cpu)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the summary and return the exit code."""
    found = open_run(args.run)
    model = found.load(args.device)
    net, scaler, classes = model.network, model.preprocessing.scaler, model.classes
    print(f"model    {found.model}")
    print(f"scale    {scaler.kind if scaler else 'none'}")
    if classes is not None:
        shown = ", ".join(str(label) for label in classes[:20])
        more = f", ... ({len(classes)} in total)" if len(classes) > 20 else ""
        print(f"classes  {shown}{more}")
    if model.threshold is not None:
        print(f"threshold {model.threshold:.4g}")
    print(f"\n{net.summary()}\n")
    print(_norms(net))
    if found.settings is not None:
        print(f"\n{_settings(found)}")
    if found.history:
        print(f"\n{_best(found)}")
    return 0


def _norms(net: Network) -> str:
    """Return a table of the shapes and norms of the parameters, one line per layer."""
    lines = ["layer   weights      norm  largest |w|  largest |b|"]
    weights, biases = net.get_parameters()
    for i, (W, b) in enumerate(zip(weights, biases, strict=True)):
        shape = f"{W.shape[0]}x{W.shape[1]}"
        lines.append(
            f"{i:>5}  {shape:>8}  {np.linalg.norm(W):>8.4g}  {np.abs(W).max():>11.4g}  "
            f"{np.abs(b).max():>11.4g}"
        )
    return "\n".join(lines)


def _settings(found: Run) -> str:
    """Return the settings of the run, by topic."""
    lines, topic = [], ""
    for name, about in SETTINGS.items():
        value: Any = getattr(found.settings, name)
        if value is None and about.kind.none is None:
            continue
        if about.topic != topic:
            topic = about.topic
            lines.append(topic)
        lines.append(f"  {name:<17}  {about.kind.text(value)}")
    return "\n".join(lines)


def _best(found: Run) -> str:
    """Return the results of the best epoch, and those of the test part at the end of training."""
    names = [found.settings.monitor if found.settings else None, "valid_loss", "train_loss"]
    monitor = next(name for name in names if name in found.history[0])
    history = History(monitor, found.history)
    results = found.environment.get("results", {})
    reason = f"; stop reason: {results['stop_reason']}" if results.get("stop_reason") else ""
    lines = [f"best of {len(history)} epochs by {monitor}{reason}"]
    for name, value in history.best.items():
        lines.append(f"  {name:<17}  {value:.6g}")
    for name, value in results.items():
        if name.startswith("test_") and isinstance(value, float):
            lines.append(f"  {name:<17}  {value:.6g}")
    return "\n".join(lines)
