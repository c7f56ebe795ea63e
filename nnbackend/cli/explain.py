"""`nnbackend explain`: one step of gradient descent on one row, as text or as a page."""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nnbackend.cli.evaluate import choose_part, read_data_of, read_for
from nnbackend.cli.plot import sample
from nnbackend.cli.run_folder import open_run, write_text
from nnbackend.config import Settings
from nnbackend.data import Dataset
from nnbackend.errors import ArgumentError
from nnbackend.explain import Update, explain, read_network, to_html, to_text
from nnbackend.explain.updates import UNKNOWN, of_config
from nnbackend.explain.words import LANGUAGES, words_of
from nnbackend.model import Model
from nnbackend.model.building import build_config
from nnbackend.network.network import Network
from nnbackend.options import raise_all
from nnbackend.plots import network_diagram
from nnbackend.training.optimizers import SGD

NAMES = 5  # of columns in a sentence
FORMAT = """
FILE is TOML, or JSON with the same keys. Layer 1 is the input, and w2[j][k] is the weight to unit j
of layer 2 from unit k of layer 1:
  x = [0.05, 0.10]
  y = [0.90]
  w2 = [[0.15, 0.20], [0.25, 0.30]]
  b2 = [0.35, 0.35]
  w3 = [[0.40, 0.45]]
  b3 = [0.60]
  activation = "sigmoid"    # or a list, one for each layer after the input (default: sigmoid)
  loss = "quadratic"        # (default: quadratic)
  learning_rate = 0.5       # (default: 0.1)"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `explain`."""
    parser.usage = (
        "nnbackend explain RUN ROW [options]\n"
        "       nnbackend explain --weights FILE [--layers N,N,...] [options]"
    )
    parser.add_argument("run", metavar="RUN", nargs="?", help="a run folder or a model file")
    parser.add_argument("row", metavar="ROW", type=int, nargs="?", help="index of the row, from 0")
    parser.add_argument(
        "--data", metavar="DATA", help="rows with targets (default: the run's test part)"
    )
    parser.add_argument(
        "--weights", metavar="FILE",
        help="explain a network written by hand, instead of a run: a .toml or .json file with its "
        "weights, biases, sample and target; see below",
    )  # fmt: skip
    parser.add_argument(
        "--layers", metavar="N,N,...", type=_sizes,
        help="with --weights: the units of every layer, the input first, as in 2,3,1 (default: "
        "those of the file)",
    )  # fmt: skip
    parser.add_argument(
        "--learning-rate", metavar="X", type=float,
        help="learning rate of the update (default: that of the run or of FILE)",
    )  # fmt: skip
    parser.add_argument(
        "--lang", metavar="LANG", choices=tuple(LANGUAGES), default="en",
        help="language of the text: en or es (default: en)",
    )  # fmt: skip
    parser.add_argument("--html", metavar="FILE", help="also write an HTML page with a diagram")
    parser.add_argument(
        "--device", metavar="DEVICE", help="as for train (default: auto; with --weights: numpy)"
    )
    parser.epilog = f"{parser.epilog}\n{FORMAT}"


def run(args: argparse.Namespace) -> int:
    """Explain one row and return the exit code."""
    _check(args)
    note = ""
    if args.weights is None:
        net, x, y, update, note = _of_run(args)
    else:
        net, x, y, update = _by_hand(args)
    explanation = explain(
        net, x, y, learning_rate=args.learning_rate, update=update, lang=args.lang
    )
    if note:
        first, *others = explanation.steps
        first = replace(first, notes=(note, *first.notes))
        explanation = replace(explanation, steps=(first, *others))
    print(to_text(explanation))
    if args.html:
        with tempfile.TemporaryDirectory() as folder:
            picture = Path(folder) / "diagram.svg"
            network_diagram(net, x, y, picture, lang=args.lang)
            diagram = picture.read_text(encoding="utf-8")
        write_text(Path(args.html), to_html(explanation, diagram))
        print(f"\n{args.html}")
    return 0


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(word) for word in text.split(",")]
    except ValueError:
        sizes = []
    if len(sizes) < 2 or min(sizes) < 1:
        raise argparse.ArgumentTypeError(
            f"expected the units of two or more layers, as in 2,3,1. Received: {text!r}"
        )
    return sizes


def _check(args: argparse.Namespace) -> None:
    """Raise ArgumentError for options that are missing or do not belong together."""
    errors: list[str] = []
    by_hand = args.weights is not None
    if args.layers is not None and not by_hand:
        errors.append("--layers needs the weights. Received: no --weights. Add --weights FILE.")
    elif not by_hand and (args.run is None or args.row is None):
        errors.append(
            "explain needs RUN and ROW, or --weights FILE. Received: "
            f"{'neither' if args.run is None else 'RUN without ROW'}. "
            "Examples: nnbackend explain runs/iris-001 0, nnbackend explain --weights net.toml."
        )
    elif by_hand and (args.run is not None or args.data is not None):
        other = f"RUN {args.run!r}" if args.run is not None else f"--data {args.data}"
        errors.append(f"--weights FILE has its own sample. Received: also {other}. Remove one.")
    rate = args.learning_rate
    if rate is not None and not (rate > 0 and np.isfinite(rate)):
        errors.append(f"--learning-rate must be a number above 0. Received: {rate:g}.")
    raise_all(map(ArgumentError, errors))


def _by_hand(args: argparse.Namespace) -> tuple[Network, Any, Any, Update]:
    """Return network, sample, target and update of --weights."""
    found = read_network(Path(args.weights), args.layers, args.device or "numpy")
    update = Update(optimizer=SGD(found.learning_rate))
    return found.net, found.net.backend.to_device(found.x), found.y, update


def _of_run(args: argparse.Namespace) -> tuple[Network, Any, Any, Update, str]:
    """Return network, sample, target, update and the note on the scaling of a run."""
    found = open_run(args.run)
    model = found.load(args.device)
    if args.data is not None:
        data = read_for(found, model, args.data)
    elif found.settings is not None:
        data = choose_part(found, read_data_of(found), None)[1]
    else:
        raise ArgumentError(
            "explain needs data. Received: a model file, which stores no path of its data. "
            "Add --data DATA."
        )
    x, y = sample(model, data, args.row)
    net, note = model.network, _scaling(model, data, words_of(args.lang))
    return net, net.backend.to_device(x), y, _update_of(found.settings), note


def _scaling(model: Model, data: Dataset, words: dict[str, str]) -> str:
    """Return the sentence on how the columns and the target are scaled; "" if they are not."""
    known, parts = model.preprocessing, []
    if known.encoder is not None:
        parts.append(words["encoded_x"])
    elif known.scaler is not None:
        n, given = data.n_features, data.feature_names or ()
        names = [words["is"].format(k=k, name=name) for k, name in enumerate(given[:NAMES], 1)]
        if n > len(names):
            names.append(words["more_columns"].format(n=n))
        parts.append(words["scaled_x"].format(kind=known.scaler.kind, names=", ".join(names)))
    if known.target_scaler is not None:
        name, kind = (known.columns or {}).get("target"), known.target_scaler.kind
        parts.append(words["scaled_y_of" if name else "scaled_y"].format(name=name, kind=kind))
    return words["scaled"].format(parts="; ".join(parts)) if parts else ""


def _update_of(settings: Settings | None) -> Update:
    """Return the update of a run; plain gradient descent for a model file alone."""
    if settings is None:
        return Update(other=UNKNOWN)
    if settings.preset is not None:
        return Update(other=f"--preset {settings.preset} (adamw)")
    return of_config(build_config(settings))
