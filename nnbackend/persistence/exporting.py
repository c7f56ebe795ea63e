"""Networks for other programs: ONNX for runtimes, NPZ for anything that reads NumPy's arrays.

Both take raw rows: the scaling of training is part of them. They are for use, not for keeping: to
train on, or to load with nnbackend, save the model.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np

from nnbackend.errors import ArgumentError, suggest
from nnbackend.network.network import Network
from nnbackend.persistence.description import describe_network, network_tensors
from nnbackend.persistence.onnx_graph import onnx_bytes
from nnbackend.persistence.whole_file import write_whole


def export(net: Network, path: str | os.PathLike[str]) -> None:
    """Write a network for other programs: to `.onnx` or `.npz`, by the name of the file.

    ONNX: input "x" (n, n_in) of raw rows and output "y" (n, n_out): what `predict` gives for a
    regression, else `outputs`. Both are float32; float64 where raw values or targets lie so far
    from zero that float32 lacks their digits, as Unix time. The metadata have `classes` and
    `feature_names`, where the network knows them.
    It needs the extra: pip install "nnbackend[onnx]".
    NPZ: the arrays weights.0, biases.0, ..., scaler.shift, scaler.factor, and `description`, a text
    of JSON; z = a W + b.

    Raises: ArgumentError for another kind of file, an activation of your own or an absent extra;
    OSError when writing fails, after which an older file is as it was.
    """
    writers = {".onnx": onnx_bytes, ".npz": npz_bytes}
    target = Path(path)
    if target.suffix.lower() not in writers:
        raise ArgumentError(
            f"A network is exported to .onnx or .npz. Received: {target.name!r}. "
            f"{suggest(target.suffix, writers)}"
        )
    write_whole(target, writers[target.suffix.lower()](net))


def npz_bytes(net: Network) -> bytes:
    """Give the arrays and the description of a network as an .npz archive."""
    text = json.dumps(describe_network(net), allow_nan=False)
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, description=np.array(text), **network_tensors(net))
    return content.getvalue()
