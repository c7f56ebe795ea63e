"""The model file: a network with all that is needed to use it again, in one safetensors file.

The architecture is stored as data and looked up in fixed tables, so that reading a file never runs
code from it; there is no pickle. A file is written whole or not at all, and read with distrust: it
is either the model that was saved, bit for bit, or a ModelFileError.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from nnbackend.backend import Backend
from nnbackend.errors import ArgumentError, ModelFileError
from nnbackend.network.activations import Activation
from nnbackend.network.losses import Loss
from nnbackend.network.network import Network
from nnbackend.persistence.atomic_file import atomic_write
from nnbackend.persistence.building import build_network, plan
from nnbackend.persistence.container import encode, read_header, read_model
from nnbackend.persistence.description import (
    OwnFormulas,
    describe_network,
    network_tensors,
    own_formulas,
)

Formula = TypeVar("Formula", Activation, Loss)


def save(net: Network, path: str | os.PathLike[str]) -> None:
    """Write a network to one file, in a folder that exists; an older file is replaced at once.

    The file holds weights, biases, architecture, loss, scalers, classes, columns and seed. An
    activation or a loss of your own is stored by name. A link at `path` is replaced, not followed.

    Raises: ArgumentError for a network or a path that cannot be saved; OSError when writing fails,
    after which the older file is as it was.
    """
    data = encode(describe_network(net), network_tensors(net))
    try:  # what could not be read back is not written
        header = read_header(io.BytesIO(data), len(data))
        plan(header.description, header.tensors, own_formulas(net))
    except (ModelFileError, ArgumentError) as error:
        message = f"A network must load again to be saved. Received: {net!r}. {error}"
        raise ArgumentError(message) from error
    atomic_write(Path(path), data)


def load(
    path: str | os.PathLike[str],
    device: str | Backend | None = None,
    activations: Iterable[Activation] = (),
    losses: Iterable[Loss] = (),
) -> Network:
    """Return the network that `save` wrote, on any device, with the same values bit for bit.

    activations, losses: those of your own that the network uses; the file knows their names only.
    An initializer of your own is not asked for, as its work is done: `initialize` would then draw
    as "auto" for weights, and zeros for biases.

    Raises: ModelFileError for whatever is wrong with the file; BackendError for a device.
    """
    own = OwnFormulas(
        _by_name(activations, Activation, "activations"), _by_name(losses, Loss, "losses")
    )
    try:
        return build_network(*read_model(Path(path)), device, own)
    except ModelFileError as error:
        raise ModelFileError(f"{os.fspath(path)}: {error}") from error


def _by_name(given: Iterable[Formula], kind: type[Formula], argument: str) -> dict[str, Formula]:
    items = list(given) if isinstance(given, Iterable) else [given]
    for item in items:
        if not isinstance(item, kind):
            raise ArgumentError(
                f"{argument} must be a list of nnbackend.{kind.__name__} objects. "
                f"Received: {item!r} in it."
            )
    return {item.name: item for item in items}
