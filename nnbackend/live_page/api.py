"""`nnbackend.live`: the live page of a network that was built in Python."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnbackend.config import SETTINGS
from nnbackend.errors import ArgumentError, DataError
from nnbackend.live_page.options import NEW_WEIGHTS, STRUCTURE, PageOptions
from nnbackend.live_page.server import serve
from nnbackend.live_page.session import Session
from nnbackend.live_page.sources import Source, from_arrays
from nnbackend.network.network import Network
from nnbackend.options import raise_all, unknown_keywords

CLASS_LOSSES = ("cross_entropy", "binary_cross_entropy")
LIKE_TRAIN = tuple(name for name in NEW_WEIGHTS if name not in STRUCTURE)


def live(
    net: Network,
    x: Any,
    y: Any,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    open_browser: bool = True,
    **options: Any,
) -> None:
    """Train a network on a local web page, step by step, until Ctrl-C.

    The page shows the network, its answer over a plane of two features, and the numbers of
    backpropagation for any row. The network is trained in place; its layers stay as they are.
    x: rows (n, n_in).  y: class codes (n,), from 0; or targets (n,) or (n, n_out).
    port: 0 for a free one.  open_browser: whether to open the address, which is printed.
    options: as for the page: optimizer="sgd", learning_rate=0.1, schedule, batch_size, epochs, l1,
    l2, weight_decay, momentum, scale and validation, a fraction.
    Raises: DataError or ArgumentError for invalid data or options, or without the extra `live`.
    """
    session = Session(source_of(net, x, y), options_of(options), fixed=net)
    serve(session, host, port, open_browser=open_browser)


def source_of(net: Network, x: Any, y: Any) -> Source:
    """Return validated arrays as the data of a page."""
    if not isinstance(net, Network):
        raise ArgumentError(
            f"net must be an nnbackend.Network. Received: {type(net).__name__}. Pass model.network."
        )
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or not len(x) or x.dtype.kind not in "biuf":
        raise DataError(
            f"x must be a table of numbers with at least one row. Received: x.shape={x.shape}, "
            f"dtype {x.dtype}."
        )
    is_classes = net.loss.name in CLASS_LOSSES and y.ndim == 1
    return from_arrays(x, y, max(net.n_out, 2) if is_classes else None)


def options_of(given: dict[str, Any]) -> PageOptions:
    """Return the page's options of keywords. Raises: ArgumentError, for all at once."""
    raise_all(unknown_keywords("live", given, LIKE_TRAIN))
    texts = {
        name: value if isinstance(value, str) else SETTINGS[name].kind.text(value)
        for name, value in given.items()
    }
    return PageOptions().changed(texts, ())
