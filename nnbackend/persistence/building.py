"""Construction of a network from plain data, with every name looked up in a fixed table.

A network is built only after all tensors of its description were found in the file, so that false
sizes in a description allocate no memory.
"""

from __future__ import annotations

import inspect
import logging
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nnbackend.backend import Backend
from nnbackend.data.intervals import Intervals
from nnbackend.data.piecewise import PiecewiseEncoder
from nnbackend.data.preprocessing import Preprocessing
from nnbackend.data.scalers import Scaler
from nnbackend.devices import get_backend
from nnbackend.errors import ArgumentError, DataError, ModelFileError, ShapeError
from nnbackend.network.activations import ACTIVATIONS, Activation
from nnbackend.network.initializers import INITIALIZERS, Initializer
from nnbackend.network.layers import LAYERS, AbstractLayer
from nnbackend.network.losses import LOSSES, Loss
from nnbackend.network.network import Network
from nnbackend.persistence.container import Arrays, TensorSpec
from nnbackend.persistence.description import LABEL_TYPES, CustomFormulas, plain_number
from nnbackend.suggestions import suggest
from nnbackend.validation import check_size

ENTRIES = {
    *("format", "versions", "dtype", "seed", "n_in", "layers", "loss"),
    *("classes", "scaler", "target_scaler", "columns"),
}
OPTIONAL = {"precision", "encoder", "intervals", "threshold"}  # in files that need them
DTYPES = ("float32", "float64")
PRECISIONS = ("float32", "tf32", "bf16")

logger = logging.getLogger("nnbackend")


@dataclass(frozen=True)
class Plan:
    """The validated layers and loss of a description, before the network is built."""

    layers: list[AbstractLayer]
    loss: Loss
    n_trainable: int  # layers


def build_network(
    description: Mapping[str, Any],
    arrays: Arrays,
    device: str | Backend | None,
    own: CustomFormulas,
) -> Network:
    """Build the network of a description and its arrays, on a device.

    Raises: ModelFileError when they do not match; BackendError or ArgumentError for the device.
    """
    specs = {name: TensorSpec(a.dtype.name, a.shape) for name, a in arrays.items()}
    with as_model_file_error():
        plan_ = plan(description, specs, own)
    backend, dtype = get_backend(device), description["dtype"]
    if dtype not in backend.float_dtypes:
        raise ArgumentError(
            f"device must compute in {dtype}, the model's dtype. Received: {backend.device}, "
            f"which has {', '.join(backend.float_dtypes)}. Load it on another device."
        )
    precision = description.get("precision", "float32")
    if precision in backend.precisions:
        backend = backend.with_precision(precision)
    else:
        logger.info("%s computes in float32, the model's precision was %s", backend, precision)
    with as_model_file_error():
        net = Network(
            [description["n_in"], *plan_.layers], plan_.loss,
            device=backend, dtype=dtype, seed=description["seed"],
        )  # fmt: skip
        net.set_parameters(
            [arrays[f"weights.{i}"] for i in range(plan_.n_trainable)],
            [arrays[f"biases.{i}"] for i in range(plan_.n_trainable)],
        )
    return net


def build_preprocessing(description: Mapping[str, Any], arrays: Arrays) -> Preprocessing:
    """Build the preprocessing of a description that `plan` has checked."""
    classes = description["classes"]
    with as_model_file_error():
        return Preprocessing(
            _build_scaler("scaler", description, arrays),
            _build_scaler("target_scaler", description, arrays),
            None if classes is None else tuple(classes),
            description["columns"],
            _build_encoder(description),
            Intervals.from_dict(description["intervals"]) if "intervals" in description else None,
            _build_threshold(description.get("threshold")),
        )


def _build_threshold(stored: Any) -> float | None:
    if stored is None or (isinstance(stored, float) and 0.0 < stored < 1.0):
        return stored
    raise ValueError(f"a threshold of {reprlib.repr(stored)}")


def plan(
    description: Mapping[str, Any], specs: Mapping[str, TensorSpec], own: CustomFormulas
) -> Plan:
    """Build the layers, and check that the tensors are exactly theirs.

    Raises: ModelFileError or ArgumentError for an invalid description or other tensors.
    """
    if "run" in description:
        raise ModelFileError(
            "The file must be a model. Received: the checkpoint of a run. Resume it with "
            "nnbackend.resume or `nnbackend train --resume`, or load the model of the run."
        )
    _check_entries("The description", description, ENTRIES | (description.keys() & OPTIONAL))
    if description.get("precision", "float32") not in PRECISIONS:
        raise ModelFileError(
            f"The precision must be one of {', '.join(PRECISIONS)}. "
            f"Received: {reprlib.repr(description['precision'])}."
        )
    dtype, layers = description["dtype"], description["layers"]
    if dtype not in DTYPES or not isinstance(layers, list):
        raise ModelFileError(
            "The description must have dtype (float32 or float64) and a list of layers. "
            f"Received: dtype={reprlib.repr(dtype)}, layers={reprlib.repr(layers)}."
        )
    built = [build_layer(layer, own.activations) for layer in layers]
    width = n_in = check_size("n_in", description["n_in"])
    expected: dict[str, TensorSpec] = {}
    n_trainable = 0
    for layer in built:
        if (shapes := layer.parameter_shapes(width)) is not None:
            expected[f"weights.{n_trainable}"] = TensorSpec(dtype, shapes[0])
            expected[f"biases.{n_trainable}"] = TensorSpec(dtype, (shapes[1],))
            n_trainable += 1
        width = layer.n_outputs(width)
    for name, n in (("scaler", n_in), ("target_scaler", width)):
        if description[name] is not None:
            _check_entries(name, description[name], {"kind", "clip"})
            expected[f"{name}.shift"] = expected[f"{name}.factor"] = TensorSpec("float64", (n,))
    _check_tensors(specs, expected)
    _check_plain(description, max(width, 2))
    return Plan(built, _build_formula(description["loss"], LOSSES, own.losses, "loss"), n_trainable)


def build_layer(described: Any, own: Mapping[str, Activation]) -> AbstractLayer:
    """Build a layer from the result of `describe_layer`.

    Raises: ModelFileError or ArgumentError for an invalid description.
    """
    kind = described.get("kind") if isinstance(described, dict) else None
    if not isinstance(kind, str) or kind not in LAYERS:
        raise ModelFileError(
            f"A layer must be of a known kind. Received: kind={reprlib.repr(kind)}. "
            + suggest(str(kind)[:50], LAYERS)
        )
    names = inspect.signature(LAYERS[kind]).parameters
    _check_entries(f"A {kind} layer", described, {"kind", *names})
    arguments: dict[str, Any] = {}
    for name in names:
        value = described[name]
        if name == "activation":
            value = _build_formula(value, ACTIVATIONS, own, "activation")
        elif name in ("weights", "biases"):
            value = _build_initializer(value, "auto" if name == "weights" else "zeros")
        else:
            _check_numbers(name, [value])
        arguments[name] = value
    return LAYERS[kind](**arguments)


def _build_formula(
    described: Any, table: Mapping[str, Callable[..., Any]], own: Mapping[str, Any], what: str
) -> Any:
    """Return an activation or a loss, from the table or from the custom ones of the caller."""
    name, params = _read_formula(described, what)
    if not described["own"]:
        return _make(name, params, table, what)
    plural = {"activation": "activations", "loss": "losses"}[what]
    if name not in own:
        raise ModelFileError(
            f"The model uses the custom {what} {name!r}, of which the file stores only the name. "
            f"Received: {plural}={sorted(own)}. In Python: nnbackend.load(path, {plural}=[...])."
        )
    formula = own[name]
    if [plain_number(p) for p in formula.params] != described["params"]:
        raise ModelFileError(
            f"The {what} {name!r} must have the saved parameters {tuple(params)}. "
            f"Received: params={formula.params}."
        )
    return formula


def _build_initializer(described: Any, otherwise: str) -> str | Initializer:
    name, params = _read_formula(described, "initializer")
    if not described["own"]:
        initializer: Initializer = _make(name, params, INITIALIZERS, "initializer")
        return initializer
    logger.info("the custom initializer %r is replaced by %r", name, otherwise)
    return otherwise


def _read_formula(described: Any, what: str) -> tuple[str, list[float]]:
    """Return name and parameters of a stored formula."""
    _check_entries(f"The {what}", described, {"name", "params", "own"})
    name, params, own = described["name"], described["params"], described["own"]
    if not isinstance(name, str) or not isinstance(params, list) or not isinstance(own, bool):
        raise ModelFileError(
            f"The {what} must have a name, a list of numbers params, and true or false for own. "
            f"Received: {reprlib.repr(described)}."
        )
    params = [float(p) if p in ("inf", "-inf", "nan") else p for p in params]
    _check_numbers(f"params of {what}", params)
    return name, params


def _make(
    name: str, params: Sequence[float], table: Mapping[str, Callable[..., Any]], what: str
) -> Any:
    if name not in table:
        raise ModelFileError(
            f"The {what} must be a known name. Received: {reprlib.repr(name)}. "
            + suggest(name[:50], table)
        )
    try:
        return table[name](*params)
    except TypeError as error:
        raise ModelFileError(
            f"The {what} {name!r} must have valid parameters. Received: {params}."
        ) from error


def _build_scaler(name: str, description: Mapping[str, Any], arrays: Arrays) -> Scaler | None:
    stored = description[name]
    if stored is None:
        return None
    if stored["clip"] is not None:
        _check_numbers(f"clip of {name}", [stored["clip"]])
    shift, factor = arrays[f"{name}.shift"].copy(), arrays[f"{name}.factor"].copy()
    return Scaler(stored["kind"], shift, factor, stored["clip"])


def _build_encoder(description: Mapping[str, Any]) -> PiecewiseEncoder | None:
    """Return the encoder, whose features must be the network's inputs."""
    if "encoder" not in description:
        return None
    encoder = PiecewiseEncoder.from_dict(description["encoder"])
    if encoder.n_features != description["n_in"]:
        raise ModelFileError(
            f"The encoder must have {description['n_in']} features, the first layer's n_in. "
            f"Received: {encoder.n_features}."
        )
    return encoder


def _check_entries(what: str, given: Any, expected: set[str]) -> None:
    if not isinstance(given, dict) or set(given) != expected:
        raise ModelFileError(
            f"{what} must have the entries {', '.join(sorted(expected))}. "
            f"Received: {reprlib.repr(sorted(given) if isinstance(given, dict) else given)}."
        )


def _check_numbers(what: str, values: Sequence[Any]) -> None:
    if any(type(value) not in (int, float) for value in values):
        raise ModelFileError(f"{what} must be numbers. Received: {reprlib.repr(values)}.")


def _check_plain(description: Mapping[str, Any], n_classes: int) -> None:
    """Check classes and columns, which the network does not check."""
    classes, columns = description["classes"], description["columns"]
    if columns is not None and not isinstance(columns, dict):
        raise ModelFileError(f"columns must be an object. Received: {reprlib.repr(columns)}.")
    if classes is not None and (
        not isinstance(classes, list)
        or len(classes) != n_classes
        or any(type(label) not in LABEL_TYPES for label in classes)
        or len(set(classes)) != n_classes
    ):
        raise ModelFileError(
            f"classes must be {n_classes} different labels: text, numbers or booleans. "
            f"Received: {reprlib.repr(classes)}."
        )


def _check_tensors(specs: Mapping[str, TensorSpec], expected: Mapping[str, TensorSpec]) -> None:
    absent, extra = sorted(expected.keys() - specs.keys()), sorted(specs.keys() - expected.keys())
    if absent or extra:
        raise ModelFileError(
            "The tensors must be those of the described network. "
            f"Received: {reprlib.repr(absent)} missing, {reprlib.repr(extra)} unexpected."
        )
    for name, spec in expected.items():
        if specs[name] != spec:
            raise ModelFileError(
                f"The tensor {name} must be {spec.dtype} of shape {spec.shape} for the described "
                f"network. Received: {specs[name].dtype} of shape {specs[name].shape}."
            )


@contextmanager
def as_model_file_error() -> Iterator[None]:
    """Raise ModelFileError for errors of the engine on the contents of a file."""
    try:
        yield
    except (ArgumentError, DataError, ShapeError) as error:
        raise ModelFileError(
            f"The file must describe a network that can be built. Received: {error}"
        ) from error
