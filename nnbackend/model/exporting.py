"""Export of models: ONNX for runtimes, NPZ for programs that read NumPy arrays.

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

from nnbackend.data.preprocessing import Preprocessing
from nnbackend.errors import ArgumentError
from nnbackend.model.model import Model, as_model
from nnbackend.network.network import Network
from nnbackend.persistence.atomic_file import atomic_write
from nnbackend.persistence.description import describe_model, model_tensors
from nnbackend.persistence.onnx_columns import raw_onnx_bytes
from nnbackend.persistence.onnx_graph import onnx_bytes
from nnbackend.suggestions import suggest


def export(model: Any, path: str | os.PathLike[str], *, raw: bool = False) -> None:
    """Export a model, a network or a fitted estimator to `.onnx` or `.npz`, chosen by the suffix.

    ONNX: input "x" (n, n_in) of raw rows, the features of a table, and output "y" (n, n_out): the
    result of `predict` for a regression, of `predict_proba` for an MLPClassifier, else of
    `outputs`. Both are float32, or float64 where float32 lacks digits: for raw values or targets
    far from zero (such as Unix time), and in a float64 network without a scaler. The metadata have
    `classes` and `feature_names`, if known. ONNX needs an extra: pip install "nnbackend[onnx]".
    raw: True for an ONNX model with an input (n, 1) for each column of the table that the model was
    fitted to, and outputs "label" and "probabilities", or "value": see docs/deploy.md.
    NPZ: the arrays weights.0, biases.0, ..., scaler.shift, scaler.factor, and `description`, a JSON
    text; z = a W + b.

    Raises: ArgumentError for another file type or model, a custom activation, a missing extra, or
    columns that raw cannot describe; scikit-learn's NotFittedError; OSError when writing fails, in
    which case an older file is unchanged.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in (".onnx", ".npz"):
        raise ArgumentError(
            f"The file must be .onnx or .npz. Received: {target.name!r}. "
            f"{suggest(target.suffix, ['.onnx', '.npz'])}"
        )
    if raw and suffix == ".npz":
        raise ArgumentError("raw needs an .onnx file. Received: .npz. Leave raw out.")
    known = as_model(model) if isinstance(model, (Network, Model)) else _model_of(model)
    known.check_fitted()
    to_bytes = npz_bytes if suffix == ".npz" else raw_onnx_bytes if raw else onnx_bytes
    atomic_write(target, to_bytes(known.network, known.preprocessing))


def _model_of(model: Any) -> Model:
    """Return the model of an estimator."""
    if hasattr(model, "to_models") and not isinstance(model, type):
        found: Model
        (found,) = model.to_models()
        return found
    steps = getattr(model, "steps", None)
    cure = "Export its last step, pipeline[-1]; its input is the output of the steps before."
    raise ArgumentError(
        "model must be a Model or Network, or a fitted MLPClassifier or MLPRegressor of nnbackend. "
        f"Received: {model if isinstance(model, type) else type(model).__name__}."
        + (f" {cure}" if steps else "")
    )


def npz_bytes(net: Network, known: Preprocessing) -> bytes:
    """Return the arrays and the description of a network and its preprocessing as an archive."""
    text = json.dumps(describe_model(net, known), allow_nan=False)
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, description=np.array(text), **model_tensors(net, known))
    return content.getvalue()
