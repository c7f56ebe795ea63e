"""Export of networks: ONNX for runtimes, NPZ for programs that read NumPy arrays.

Exports include the scalers, so they take raw rows. They cannot be loaded by nnbackend: save the
model as well to load it or to continue training.
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
    """Export a network or a fitted estimator to `.onnx` or `.npz`, chosen by the suffix.

    ONNX: input "x" (n, n_in) of raw rows and output "y" (n, n_out): the result of `predict` for a
    regression, of `predict_proba` for an MLPClassifier, else of `outputs`. Both are float32, or
    float64 where float32 lacks digits: for raw values or targets far from zero (such as Unix time),
    and in a float64 network without a scaler. The metadata have `classes` and `feature_names`, if
    known. ONNX needs an extra: pip install "nnbackend[onnx]".
    NPZ: the arrays weights.0, biases.0, ..., scaler.shift, scaler.factor, and `description`, a JSON
    text; z = a W + b.

    Raises: ArgumentError for another file type or model, an ensemble as NPZ, a custom activation or
    a missing extra; scikit-learn's NotFittedError; OSError when writing fails, in which case an
    older file is unchanged.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in (".onnx", ".npz"):
        raise ArgumentError(
            f"The file must be .onnx or .npz. Received: {target.name!r}. "
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
            ".onnx, or export each member: for net in model.to_networks()."
        )
    atomic_write(target, content)


def _networks_of(model: Any) -> list[Network]:
    """Return the networks of an estimator; their mean output is its prediction."""
    if hasattr(model, "to_networks") and not isinstance(model, type):
        nets: list[Network] = model.to_networks()
        return nets
    steps = getattr(model, "steps", None)
    cure = "Export its last step, pipeline[-1]; its input is the output of the steps before."
    raise ArgumentError(
        "model must be a Network, or a fitted MLPClassifier or MLPRegressor of nnbackend. "
        f"Received: {model if isinstance(model, type) else type(model).__name__}."
        + (f" {cure}" if steps else "")
    )


def npz_bytes(net: Network) -> bytes:
    """Return the arrays and the description of a network as an .npz archive."""
    text = json.dumps(describe_network(net), allow_nan=False)
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, description=np.array(text), **network_tensors(net))
    return content.getvalue()
