"""`nnbackend serve`: answers of a trained network over HTTP."""

from __future__ import annotations

import argparse
import importlib
import ipaddress
import socket
import sys
from typing import Any

from nnbackend.cli.parts import Known, read_known
from nnbackend.cli.run_folder import MODEL, open_run
from nnbackend.errors import ArgumentError
from nnbackend.options import all_of, check
from nnbackend.serving.sockets import (
    CONNECTIONS,
    LOCAL,
    PORTS,
    STOP_SECONDS,
    address,
    listen,
    stopping,
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `serve`."""
    parser.add_argument("run", metavar="RUN", help="a run folder or a model file")
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS",
        help="address to serve (default: 127.0.0.1, this machine only; 0.0.0.0: all networks)",
    )  # fmt: skip
    parser.add_argument(
        "--port", type=int, default=8000, metavar="N", help="port (default: 8000; 0: a free one)"
    )
    parser.add_argument(
        "--max-rows", type=int, default=10_000, metavar="N",
        help="rows of one request at most (default: 10000)",
    )  # fmt: skip
    parser.add_argument(
        "--max-bytes", type=int, default=10_000_000, metavar="N",
        help="bytes of one request at most (default: 10000000)",
    )  # fmt: skip
    parser.add_argument(
        "--device", default="cpu", metavar="DEVICE", help="as for train (default: cpu)"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM, and return the exit code."""
    all_of(
        lambda: check("port", args.port, lambda n: 0 <= n <= PORTS, f"from 0 to {PORTS}"),
        lambda: check("max_rows", args.max_rows, lambda n: n > 0, "at least 1"),
        lambda: check("max_bytes", args.max_bytes, lambda n: n > 0, "at least 1"),
    )
    try:
        uvicorn: Any = importlib.import_module("uvicorn")
        serving: Any = importlib.import_module("nnbackend.serving.app")
    except ImportError as error:
        raise ArgumentError(
            f"serve needs the packages starlette and uvicorn. Received: {error}. "
            'Install them with: pip install "nnbackend[serve]"'
        ) from error
    found = open_run(args.run)
    model = found.load(args.device)
    model.check_fitted()
    known = Known(model.n_features, model.classes, model.preprocessing.columns)

    def read_csv(path: str) -> Any:
        return read_known(path, known, found.settings, "fill", with_target=False)

    name = found.folder.resolve().name if found.model.name == MODEL else found.model.stem
    with listen(args.host, args.port) as listener:
        is_local = ipaddress.ip_address(listener.getsockname()[0]).is_loopback
        service = serving.Service(
            model, name, read_csv, args.max_rows, args.max_bytes, LOCAL if is_local else None
        )
        config = uvicorn.Config(
            serving.new_app(service), log_level="warning", access_log=False, server_header=False,
            proxy_headers=False, lifespan="off", ws="none", http="h11", loop="asyncio",
            limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=STOP_SECONDS,
        )  # fmt: skip
        _announce(name, listener, is_local)
        server = uvicorn.Server(config)
        # uvicorn's own context would repeat the signal after a clean stop.
        server.capture_signals = lambda: stopping(server)
        server.run(sockets=[listener])
    return 0


def _announce(name: str, listener: socket.socket, is_local: bool) -> None:
    print(f"serving {name} at http://{address(listener)} (Ctrl-C ends it)", flush=True)
    if not is_local:
        print(
            "nnbackend: note: other machines can send requests. The server knows no passwords and "
            "no encryption: put a web server in front of it that does",
            file=sys.stderr, flush=True,
        )  # fmt: skip
