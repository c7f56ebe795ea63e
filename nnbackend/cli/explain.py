"""`nnbackend explain`: feed-forward and backpropagation of one row, as text or as a page."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from nnbackend.cli.evaluate import choose_part, read_data_of, read_for
from nnbackend.cli.plot import sample
from nnbackend.cli.run_folder import open_run, write_text
from nnbackend.errors import ArgumentError
from nnbackend.explain import explain, to_html, to_text
from nnbackend.plots import network_diagram


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `explain`."""
    parser.add_argument("run", metavar="RUN", help="a run folder or a model file")
    parser.add_argument("row", metavar="ROW", type=int, help="index of the row, from 0")
    parser.add_argument(
        "--data", metavar="DATA", help="rows with targets (default: the run's test part)"
    )
    parser.add_argument("--html", metavar="FILE", help="also write an HTML page with a diagram")
    parser.add_argument("--device", metavar="DEVICE", help="as for train (default: auto)")


def run(args: argparse.Namespace) -> int:
    """Explain one row and return the exit code."""
    found = open_run(args.run)
    model = found.load(args.device)
    net = model.network
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
    rows = net.backend.to_device(x)
    explanation = explain(net, rows, y)
    print(to_text(explanation))
    if args.html:
        with tempfile.TemporaryDirectory() as folder:
            picture = Path(folder) / "diagram.svg"
            network_diagram(net, rows, y, picture)
            diagram = picture.read_text(encoding="utf-8")
        write_text(Path(args.html), to_html(explanation, diagram))
        print(f"\n{args.html}")
    return 0
