"""The model file: a network and its preprocessing in one safetensors file.

The architecture is stored as data and its names are looked up in fixed tables, so that reading a
file never runs code from it; there is no pickle. Files are written atomically and treated as
untrusted: loading returns the saved model, bit for bit, or raises ModelFileError.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from nnbackend.backend import Backend
from nnbackend.data.preprocessing import Preprocessing
from nnbackend.errors import ArgumentError, ModelFileError
from nnbackend.network.activations import Activation
from nnbackend.network.losses import Loss
from nnbackend.network.network import Network
from nnbackend.persistence.atomic_file import atomic_write
from nnbackend.persistence.building import build_network, build_preprocessing, plan
from nnbackend.persistence.container import encode, read_header, read_model
from nnbackend.persistence.description import (
    CustomFormulas,
    custom_formulas,
    describe_model,
    model_tensors,
)

Formula = TypeVar("Formula", Activation, Loss)


def write_model_file(net: Network, known: Preprocessing, path: str | os.PathLike[str]) -> None:
    """Write a network and its preprocessing to one file; an older file is replaced atomically.

    Raises: ArgumentError for a network that cannot be saved or an invalid path; OSError when
    writing fails, in which case the older file is unchanged.
    """
    data = encode(describe_model(net, known), model_tensors(net, known))
    try:  # refuse to write a file that could not be loaded
        header = read_header(io.BytesIO(data), len(data))
        plan(header.description, header.tensors, custom_formulas(net))
    except (ModelFileError, ArgumentError) as error:
        message = f"The saved network could not be loaded again. Received: {net!r}. {error}"
        raise ArgumentError(message) from error
    atomic_write(Path(path), data)


def read_model_file(
    path: str | os.PathLike[str],
    device: str | Backend | None = None,
    activations: Iterable[Activation] = (),
    losses: Iterable[Loss] = (),
) -> tuple[Network, Preprocessing]:
    """Return what `write_model_file` wrote, with the network on any device.

    activations, losses: the custom ones, of which the file stores only the names.
    Raises: ModelFileError for a file that is not a valid model; BackendError for a device.
    """
    own = CustomFormulas(
        _by_name(activations, Activation, "activations"), _by_name(losses, Loss, "losses")
    )
    try:
        description, arrays = read_model(Path(path))
        net = build_network(description, arrays, device, own)
        return net, build_preprocessing(description, arrays)
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
