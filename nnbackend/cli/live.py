"""`nnbackend live`: a local web page on which a network learns step by step."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnbackend.cli.parts import read_data
from nnbackend.cli.plan import Plan, prepare
from nnbackend.cli.run_folder import CONFIG, HISTORY, LAST, MODEL, read_history, relocated_config
from nnbackend.cli.settings import resolve
from nnbackend.config import SETTINGS, Settings
from nnbackend.data.toys import TOYS
from nnbackend.devices import get_backend
from nnbackend.errors import ArgumentError
from nnbackend.live_page.options import PageOptions
from nnbackend.live_page.server import in_background, serve
from nnbackend.live_page.session import Session
from nnbackend.live_page.sources import Source, toy
from nnbackend.live_page.watching import LiveView, RunReader, WatchedControls, WatchSession
from nnbackend.model.model import load
from nnbackend.options import all_of, check
from nnbackend.serving.sockets import PORTS

# Options of `train` that the page has too; those of the data are for a file.
TRAINING = (
    *("hidden", "activation", "dropout", "loss", "optimizer", "learning_rate", "momentum"),
    *("schedule", "batch_size", "epochs", "l1", "l2", "weight_decay", "scale", "validation"),
    *("device", "dtype", "seed"),
)
DATA = ("target", "task", "missing", "decimal", "encoding", "ignore")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `live`."""
    absent: Any = argparse.SUPPRESS
    parser.add_argument(
        "data", metavar="DATA|RUN", nargs="?", default=absent,
        help="a built-in set or a file, as for train, or circles, blobs or wave; or a run folder, "
        "to watch a run under way or ended (default: spirals)",
    )  # fmt: skip
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS",
        help="address to serve (default: 127.0.0.1, this machine only)",
    )  # fmt: skip
    parser.add_argument(
        "--port", type=int, default=0, metavar="N", help="port (default: 0, a free one)"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    group = parser.add_argument_group("as for train; the page can change them")
    for name in (*DATA, *TRAINING):
        group.add_argument(
            f"--{name.replace('_', '-')}", dest=name, metavar=SETTINGS[name].metavar,
            default=absent, help=SETTINGS[name].help_text().replace("%", "%%"),
        )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C or SIGTERM, and return the exit code."""
    given = {name: text for name, text in vars(args).items() if name in SETTINGS}
    settings, _ = all_of(
        lambda: resolve(given, None),
        lambda: check("port", args.port, lambda n: 0 <= n <= PORTS, f"from 0 to {PORTS}"),
    )
    if not isinstance(settings.validation, float):
        raise ArgumentError(
            f"--validation must be a fraction here. Received: {settings.validation}."
        )
    if (Path(settings.data or ".") / CONFIG).is_file() and settings.data:
        serve(_watch(settings.data), args.host, args.port, open_browser=not args.no_browser)
        return 0
    source = _source(settings)
    texts = {name: text for name, text in given.items() if name in TRAINING}
    if source.kind == "file":
        texts.setdefault("scale", "standard")
    devices = (settings.device,) if settings.device else ()
    options = PageOptions().changed(texts, devices)
    session = Session(source, options, devices=devices)
    serve(session, args.host, args.port, open_browser=not args.no_browser)
    return 0


def _source(settings: Settings) -> Source:
    """Return a toy set by its name, or the data of a file or a built-in set."""
    name = settings.data or "spirals"
    if name in TOYS and not Path(name).exists():
        return toy(name, seed=settings.seed)
    return Source(read_data(settings), "file")


def _watch(path: str) -> Session:
    """Return a session that watches a run folder."""
    folder = Path(path)
    settings = relocated_config(resolve({}, str(folder / CONFIG)), folder)
    if settings.preset is not None:
        raise ArgumentError(
            f"The page shows runs of one network. Received: {path}, a run of --preset "
            f"{settings.preset}. See: nnbackend summary {path}"
        )
    plan = prepare(settings, get_backend(settings.device))
    controls = WatchedControls(plan.trainer, Source(plan.parts.training, "file"), plan.settings)
    history, files = folder / HISTORY, (folder / LAST, folder / MODEL)

    def weights() -> Any:
        newest = next((file for file in files if file.is_file()), None)
        if newest is None:
            return None
        return load(newest, device=plan.net.backend).network.get_parameters()

    reader = RunReader(
        controls,
        lambda: read_history(history) if history.is_file() else [],
        weights,
        lambda: [file.stat().st_mtime_ns if file.is_file() else 0 for file in (history, *files)],
    )
    reader.poll()
    return WatchSession(controls, reader.poll)


@contextmanager
def shown(plan: Plan) -> Iterator[None]:
    """Show the run of a plan on a live page inside the context, for `train --live`."""
    source = Source(plan.parts.training, "file")
    session = WatchSession(WatchedControls(plan.trainer, source, plan.settings))
    plan.trainer.callbacks = (LiveView(session),)
    with in_background(session, open_browser=sys.stderr.isatty()):
        yield


def refuse(is_live: bool, what: str) -> None:
    """Raise ArgumentError if --live is given for a run that has no page."""
    if is_live:
        raise ArgumentError(
            f"--live shows the run of one network in one process. Received: {what}."
        )
