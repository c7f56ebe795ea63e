"""`nnbackend serve`: answer requests over HTTP with a trained model."""

from __future__ import annotations

import argparse
import importlib
import socket
import sys
from pathlib import Path
from typing import Any

from nnbackend.cli.run_folder import open_run
from nnbackend.errors import ArgumentError
from nnbackend.serving import Limits, new_app

LOCAL = ("127.0.0.1", "localhost", "::1")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `serve`."""
    parser.add_argument("run", metavar="RUN", help="a run folder or a model file")
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS",
        help="address to listen at; 0.0.0.0 for all of this machine, without any protection "
        "(default: 127.0.0.1, this machine alone)",
    )  # fmt: skip
    parser.add_argument(
        "--port", type=int, default=8000, metavar="N", help="port; 0 for a free one (default: 8000)"
    )
    parser.add_argument(
        "--max-rows", type=int, default=Limits.rows, metavar="N",
        help=f"most rows of a request (default: {Limits.rows:,})",
    )  # fmt: skip
    parser.add_argument(
        "--max-bytes", type=int, default=Limits.size, metavar="N",
        help=f"most bytes of a request (default: {Limits.size:,})",
    )  # fmt: skip
    parser.add_argument(
        "--device", metavar="DEVICE", default="cpu", help="as for train (default: cpu)"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C, and return the exit code."""
    if args.max_rows < 1 or args.max_bytes < 1 or not 0 <= args.port < 1 << 16:
        raise ArgumentError(
            "--max-rows and --max-bytes must be at least 1, --port from 0 to 65535. Received: "
            f"{args.max_rows}, {args.max_bytes}, {args.port}."
        )
    try:
        uvicorn: Any = importlib.import_module("uvicorn")
    except ImportError as error:
        raise ArgumentError(
            "Serving needs Starlette and uvicorn. Received: uvicorn is not installed. "
            'Install them with: pip install "nnbackend[serve]"'
        ) from error
    found = open_run(args.run)
    is_local = args.host in LOCAL
    title = found.folder.name if Path(args.run).is_dir() else found.model.stem
    app = new_app(
        found.load(args.device), title, Limits(args.max_rows, args.max_bytes),
        [*LOCAL, "[::1]"] if is_local else ["*"],
    )  # fmt: skip
    listener = _listener(args.host, args.port)
    host, port = listener.getsockname()[:2]
    print(
        f"serving {args.run} at http://{host}:{port} (Ctrl-C ends it)", file=sys.stderr, flush=True
    )
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    server.run(sockets=[listener])
    return 0


def _listener(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises: ArgumentError for an address that cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # so that a client may connect as soon as the address is printed
    except OSError as error:
        listener.close()
        raise ArgumentError(
            f"--host and --port must be a free address. Received: {host}, {port}: {error}. "
            "Choose another port; 0 takes a free one."
        ) from error
    return listener
