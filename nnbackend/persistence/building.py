"""A network from plain data, every name looked up in a fixed table.

A network is built only after each tensor that its description calls for was found in the file, so
that the sizes a description claims cost nothing.
"""

from __future__ import annotations

import inspect
import logging
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nnbackend.backend import Backend, get_backend
from nnbackend.data.scalers import Scaler
from nnbackend.errors import ArgumentError, DataError, ModelFileError, ShapeError, suggest
from nnbackend.network.activations import ACTIVATIONS, Activation
from nnbackend.network.initializers import INITIALIZERS, Initializer
from nnbackend.network.layers import LAYERS, AbstractLayer, check_size
from nnbackend.network.losses import LOSSES, Loss
from nnbackend.network.network import Network
from nnbackend.persistence.container import Arrays, TensorSpec
from nnbackend.persistence.description import LABEL_TYPES, OwnFormulas, plain_number

ENTRIES = {
    *("format", "versions", "dtype", "seed", "n_in", "layers", "loss"),
    *("classes", "scaler", "target_scaler", "columns"),
}
DTYPES = ("float32", "float64")
PRECISIONS = ("float32", "tf32", "bf16")

logger = logging.getLogger("nnbackend")


@dataclass(frozen=True)
class Plan:
    """What a description says, built and checked, before there is a network."""

    layers: list[AbstractLayer]
    loss: Loss
    n_learning: int


def build_network(
    description: Mapping[str, Any], arrays: Arrays, device: str | Backend | None, own: OwnFormulas
) -> Network:
    """Build the network that a description and arrays stand for.

    Raises: ModelFileError when they do not fit; BackendError or ArgumentError for the device.
    """
    specs = {name: TensorSpec(a.dtype.name, a.shape) for name, a in arrays.items()}
    with refusing():
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
    with refusing():
        net = Network(
            [description["n_in"], *plan_.layers], plan_.loss,
            device=backend, dtype=dtype, seed=description["seed"], classes=description["classes"],
        )  # fmt: skip
        net.set_parameters(
            [arrays[f"weights.{i}"] for i in range(plan_.n_learning)],
            [arrays[f"biases.{i}"] for i in range(plan_.n_learning)],
        )
        net.scaler = _build_scaler("scaler", description, arrays)
        net.target_scaler = _build_scaler("target_scaler", description, arrays)
        net.columns = description["columns"]
    return net


def plan(description: Mapping[str, Any], specs: Mapping[str, TensorSpec], own: OwnFormulas) -> Plan:
    """Build the layers, and check that the tensors are just those they call for.

    Raises: ModelFileError or ArgumentError when they are not.
    """
    if "run" in description:
        raise ModelFileError(
            "The file must be a model. Received: the checkpoint of a run. Go on with it by "
            "nnbackend.resume or `nnbackend train --resume`, or give the model of the run."
        )
    _check_entries("The description", description, ENTRIES | (description.keys() & {"precision"}))
    if description.get("precision", "float32") not in PRECISIONS:
        raise ModelFileError(
            f"The description must give a precision of {', '.join(PRECISIONS)}. "
            f"Received: {reprlib.repr(description['precision'])}."
        )
    dtype, layers = description["dtype"], description["layers"]
    if dtype not in DTYPES or not isinstance(layers, list):
        raise ModelFileError(
            "The description must give dtype (float32 or float64) and a list of layers. "
            f"Received: dtype={reprlib.repr(dtype)}, layers={reprlib.repr(layers)}."
        )
    built = [build_layer(layer, own.activations) for layer in layers]
    width = n_in = check_size("n_in", description["n_in"])
    expected: dict[str, TensorSpec] = {}
    n_learning = 0
    for layer in built:
        if (shapes := layer.parameter_shapes(width)) is not None:
            expected[f"weights.{n_learning}"] = TensorSpec(dtype, shapes[0])
            expected[f"biases.{n_learning}"] = TensorSpec(dtype, (shapes[1],))
            n_learning += 1
        width = layer.n_outputs(width)
    for name, n in (("scaler", n_in), ("target_scaler", width)):
        if description[name] is not None:
            _check_entries(name, description[name], {"kind", "clip"})
            expected[f"{name}.shift"] = expected[f"{name}.factor"] = TensorSpec("float64", (n,))
    _check_tensors(specs, expected)
    _check_plain(description, max(width, 2))
    return Plan(built, _build_formula(description["loss"], LOSSES, own.losses, "loss"), n_learning)


def build_layer(described: Any, own: Mapping[str, Activation]) -> AbstractLayer:
    """Build the layer that `describe_layer` described.

    Raises: ModelFileError or ArgumentError when it describes none.
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
    """Look an activation or a loss up, in the table or in what the caller gave."""
    name, params = _read_formula(described, what)
    if not described["own"]:
        return _make(name, params, table, what)
    plural = {"activation": "activations", "loss": "losses"}[what]
    if name not in own:
        raise ModelFileError(
            f"The model uses the {what} {name!r} of its author's own, and the file knows its name "
            f"only. Received: {plural}={sorted(own)}. Load with {plural}=[...] that holds it."
        )
    formula = own[name]
    if [plain_number(p) for p in formula.params] != described["params"]:
        raise ModelFileError(
            f"The {what} {name!r} must have the numbers it was saved with, {tuple(params)}. "
            f"Received: params={formula.params}."
        )
    return formula


def _build_initializer(described: Any, otherwise: str) -> str | Initializer:
    name, params = _read_formula(described, "initializer")
    if not described["own"]:
        initializer: Initializer = _make(name, params, INITIALIZERS, "initializer")
        return initializer
    logger.info("initializer %r is not nnbackend's; %r takes its place", name, otherwise)
    return otherwise


def _read_formula(described: Any, what: str) -> tuple[str, list[float]]:
    """Return name and numbers of a stored formula."""
    _check_entries(f"The {what}", described, {"name", "params", "own"})
    name, params, own = described["name"], described["params"], described["own"]
    if not isinstance(name, str) or not isinstance(params, list) or not isinstance(own, bool):
        raise ModelFileError(
            f"The {what} must have a name, a list of numbers, and true or false for own. "
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
            f"The {what} must be a known one. Received: {reprlib.repr(name)}. "
            + suggest(name[:50], table)
        )
    try:
        return table[name](*params)
    except TypeError as error:
        raise ModelFileError(
            f"The {what} {name!r} must have its own numbers. Received: {params}."
        ) from error


def _build_scaler(name: str, description: Mapping[str, Any], arrays: Arrays) -> Scaler | None:
    stored = description[name]
    if stored is None:
        return None
    if stored["clip"] is not None:
        _check_numbers(f"clip of {name}", [stored["clip"]])
    shift, factor = arrays[f"{name}.shift"].copy(), arrays[f"{name}.factor"].copy()
    return Scaler(stored["kind"], shift, factor, stored["clip"])


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
    """Check what the network takes as it is."""
    classes, columns = description["classes"], description["columns"]
    if columns is not None and not isinstance(columns, dict):
        raise ModelFileError(f"columns must be an object. Received: {reprlib.repr(columns)}.")
    if classes is not None and (
        not isinstance(classes, list)
        or len(classes) != n_classes
        or any(type(label) not in LABEL_TYPES for label in classes)
    ):
        raise ModelFileError(
            f"classes must be {n_classes} labels, text, numbers or booleans. "
            f"Received: {reprlib.repr(classes)}."
        )


def _check_tensors(specs: Mapping[str, TensorSpec], expected: Mapping[str, TensorSpec]) -> None:
    absent, extra = sorted(expected.keys() - specs.keys()), sorted(specs.keys() - expected.keys())
    if absent or extra:
        raise ModelFileError(
            "The tensors must be those of the described network. "
            f"Received: {reprlib.repr(absent)} missing, {reprlib.repr(extra)} too many."
        )
    for name, spec in expected.items():
        if specs[name] != spec:
            raise ModelFileError(
                f"The tensor {name} must be {spec.dtype} of shape {spec.shape}, as the described "
                f"network has it. Received: {specs[name].dtype} of shape {specs[name].shape}."
            )


@contextmanager
def refusing() -> Iterator[None]:
    """Turn the engine's refusals of what a file describes into the file's."""
    try:
        yield
    except (ArgumentError, DataError, ShapeError) as error:
        raise ModelFileError(
            f"The file must describe a network that can be built. Received: {error}"
        ) from error
