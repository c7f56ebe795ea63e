"""Networks for other programs: ONNX for runtimes, NPZ for anything that reads NumPy's arrays.

Both take raw rows: the scaling of training is part of them. They are for use, not for keeping: to
train on, or to load with nnbackend, save the model.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from nnbackend.errors import ArgumentError, suggest
from nnbackend.network.network import Network
from nnbackend.persistence.atomic_file import atomic_write
from nnbackend.persistence.description import describe_network, network_tensors
from nnbackend.persistence.onnx_graph import onnx_bytes
from nnbackend.persistence.onnx_mean import mean_bytes


def export(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a network or a fitted estimator for other programs: to `.onnx` or `.npz`, by the name.

    ONNX: input "x" (n, n_in) of raw rows and output "y" (n, n_out): what `predict` gives for a
    regression, `predict_proba` of an MLPClassifier, else `outputs`. Both are float32. They are
    float64 where float32 lacks digits: where the scale shows raw values far from zero (as Unix
    time), and in a float64 network without a scale. The metadata have `classes` and
    `feature_names`, where they are known. It needs the extra: pip install "nnbackend[onnx]".
    NPZ: the arrays weights.0, biases.0, ..., scaler.shift, scaler.factor, and `description`, a text
    of JSON; z = a W + b.

    Raises: ArgumentError for another kind of file or model, an ensemble as NPZ, an activation of
    your own or an absent extra; scikit-learn's NotFittedError; OSError when writing fails, after
    which an older file is as it was.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in (".onnx", ".npz"):
        raise ArgumentError(
            f"A network is exported to .onnx or .npz. Received: {target.name!r}. "
            f"{suggest(target.suffix, ['.onnx', '.npz'])}"
        )
    nets = [model] if isinstance(model, Network) else _networks_of(model)
    if len(nets) == 1:
        content = onnx_bytes(nets[0]) if suffix == ".onnx" else npz_bytes(nets[0])
    elif suffix == ".onnx":
        content = mean_bytes([onnx_bytes(net) for net in nets])
    else:
        raise ArgumentError(
            f"An NPZ file holds one network. Received: an ensemble of {len(nets)}. Export it to "
            ".onnx, or each member: for net in model.to_networks()."
        )
    atomic_write(target, content)


def _networks_of(model: Any) -> list[Network]:
    """Return the networks whose mean output is an estimator's answer."""
    if hasattr(model, "to_networks") and not isinstance(model, type):
        nets: list[Network] = model.to_networks()
        return nets
    steps = getattr(model, "steps", None)
    cure = "Export its last step, pipeline[-1]; it takes rows as the steps before give them."
    raise ArgumentError(
        "export takes an nnbackend Network, or a fitted MLPClassifier or MLPRegressor of "
        f"nnbackend. Received: {model if isinstance(model, type) else type(model).__name__}."
        + (f" {cure}" if steps else "")
    )


def npz_bytes(net: Network) -> bytes:
    """Return the arrays and the description of a network as an .npz archive."""
    text = json.dumps(describe_network(net), allow_nan=False)
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, description=np.array(text), **network_tensors(net))
    return content.getvalue()
