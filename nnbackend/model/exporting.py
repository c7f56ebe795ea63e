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
from nnbackend.persistence.onnx_graph import onnx_bytes
from nnbackend.persistence.onnx_mean import mean_bytes
from nnbackend.suggestions import suggest


def export(model: Any, path: str | os.PathLike[str]) -> None:
    """Export a model, a network or a fitted estimator to `.onnx` or `.npz`, chosen by the suffix.

    ONNX: input "x" (n, n_in) of raw rows, the features of a table, and output "y" (n, n_out): the
    result of `predict` for a regression, of `predict_proba` for an MLPClassifier, else of
    `outputs`. Both are float32, or float64 where float32 lacks digits: for raw values or targets
    far from zero (such as Unix time), and in a float64 network without a scaler. The metadata have
    `classes` and `feature_names`, if known. ONNX needs an extra: pip install "nnbackend[onnx]".
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
    models = [as_model(model)] if isinstance(model, (Network, Model)) else _models_of(model)
    for each in models:
        each.check_fitted()
    to_bytes = onnx_bytes if suffix == ".onnx" else npz_bytes
    if len(models) == 1:
        content = to_bytes(models[0].network, models[0].preprocessing)
    elif suffix == ".onnx":
        content = mean_bytes([onnx_bytes(m.network, m.preprocessing) for m in models])
    else:
        raise ArgumentError(
            f"An NPZ file holds one network. Received: an ensemble of {len(models)}. Export it to "
            ".onnx, or export each member: for member in model.to_models()."
        )
    atomic_write(target, content)


def _models_of(model: Any) -> list[Model]:
    """Return the models of an estimator; their mean output is its prediction."""
    if hasattr(model, "to_models") and not isinstance(model, type):
        models: list[Model] = model.to_models()
        return models
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
