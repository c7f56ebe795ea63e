"""The multilayer perceptron: a sequence of layers, one loss, one device.

A network stores its parameters in one flat vector `theta`; `weights` and `biases` are views of it.
It is mathematics on arrays: rows x are the input of the first layer, targets y are numbers or class
codes. `nnbackend.Model` adds scaling, labels and tables.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnbackend import validation
from nnbackend.backend import Backend
from nnbackend.backend.base import LOSS, WEIGHT
from nnbackend.backend.formulas import Array
from nnbackend.backend.philox import INITIAL_WEIGHTS, host_generator
from nnbackend.devices import get_backend
from nnbackend.errors import ShapeError
from nnbackend.network import architecture, printing, probing
from nnbackend.network.activations import Activation
from nnbackend.network.evaluation.methods import DataSetMethods
from nnbackend.network.layers import IDENTITY, AbstractLayer, Dense, Maxout
from nnbackend.network.losses import Loss, get_loss
from nnbackend.network.parameters import Layout
from nnbackend.network.workspace import DropoutSource, Workspace
from nnbackend.options import all_of, known_keywords
from nnbackend.validation import check_seed

logger = logging.getLogger("nnbackend")


@dataclass(frozen=True)
class Gradient:
    """The result of backpropagation; l counts the trainable layers, from 0.

    loss: the mean loss.  weights[l] (I, O), biases[l] (O,), deltas[l] = dC/dz (B, O).
    vector: the flat gradient (P,), of which weights and biases are views.
    """

    loss: float
    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    deltas: tuple[Array, ...]
    vector: Array


@dataclass(frozen=True)
class Trace:
    """The arrays of a feed-forward pass: z[l] = a[l-1] W[l] + b[l], a[l] = phi(z[l]).

    l counts the trainable layers, from 0; the input of the first is x.
    """

    x: Array
    z: tuple[Array, ...]
    a: tuple[Array, ...]


class Network(DataSetMethods):
    """A multilayer perceptron on one device.

    layers: n_in, then layers; a number n means Dense(n, activation), and as the last layer Dense
    with the activation that matches the loss (softmax for cross_entropy, sigmoid for
    binary_cross_entropy, exponential for poisson, else identity).
    loss: by default cross_entropy after a softmax, else quadratic.
    activation: of the hidden layers that are given as numbers.
    device: where the arrays are, such as "cpu" or "gpu" (see docs/devices.md); None is "auto", or
    the environment variable NNBACKEND_DEVICE if it is set.
    dtype: of weights and rows: "float32" or "float64", or another one of the device.
    precision: precision of float32 matrix products: "float32" (default), or "tf32" (CUDA) or "bf16"
    (CUDA, CPUs with AVX512-BF16), which are faster and less accurate.
    seed: seed of the initial weights, which are the same on every device.
    weights: one array (inputs, outputs) for each layer with weights; weights[0][k, j] leads from
    input k to unit j of the first layer after the input. Write into it to change the network.
    biases: one array (outputs,) for each layer with weights.
    Raises: ArgumentError for invalid layers or options; BackendError for an unusable device.
    >>> net = Network([2, 3, 1], activation="tanh", device="numpy", seed=1)
    >>> net.feedforward([[0.0, 1.0]]).shape, net.n_parameters
    ((1, 1), 13)
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]

    @known_keywords
    def __init__(
        self,
        layers: Sequence[int | AbstractLayer],
        loss: str | Loss | None = None,
        *,
        activation: str | Activation = "relu",
        device: str | Backend | None = None,
        dtype: str = "float32",
        precision: str | None = None,
        seed: int = 0,
    ) -> None:
        backend = get_backend(device)
        self.backend = backend if precision is None else backend.with_precision(precision)
        self.dtype, self.seed, chosen, (self.n_in, self.layers) = all_of(
            lambda: validation.check_dtype(dtype, self.backend),
            lambda: check_seed(seed),
            lambda: _chosen(loss),
            lambda: architecture.build_layers(layers, _chosen(loss), activation),
        )
        if precision not in (None, "float32") and self.dtype != "float32":
            logger.warning("precision=%r has no effect on a %s network", precision, self.dtype)
        probing.check_activations(self.layers, self.backend)
        self.loss = chosen or architecture.default_loss(self.layers[-1])
        self._spare: dict[int, tuple[Workspace, Array]] = {}  # see `RowPasses`

        shapes, widths = [], [self.n_in]
        for layer in self.layers:
            if (shape := layer.parameter_shapes(widths[-1])) is not None:
                shapes.append(shape)
            widths.append(layer.n_outputs(widths[-1]))
        self.n_out = widths[-1]
        probing.check_loss(self.loss, self.n_out, self.backend)
        self.layout = Layout(shapes)
        self.theta = self.backend.empty((self.layout.size,), self.dtype)
        self._make_views()
        self.initialize(self.seed)

    def _make_views(self) -> None:
        views = self.layout.views(self.theta, self.backend.xp)
        self.weights = tuple(W for W, _ in views)
        self.biases = tuple(b for _, b in views)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a pickle or a deep copy, with the parameters as one host array."""
        rebuilt = ("weights", "biases", "_spare")
        state = {name: v for name, v in self.__dict__.items() if name not in rebuilt}
        return state | {"theta": self.backend.to_host(self.theta)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _spare={})
        self.theta = self.backend.empty((self.layout.size,), self.dtype)
        self.backend.to_device(state["theta"], out=self.theta)
        self._make_views()

    # ---- parameters -------------------------------------------------------------------------

    @property
    def n_parameters(self) -> int:
        """P, the number of weights and biases."""
        return self.layout.size

    @property
    def trainable_layers(self) -> tuple[Dense | Maxout, ...]:
        """The layers that have parameters, in the order of `weights` and `biases`."""
        return tuple(layer for layer in self.layers if isinstance(layer, (Dense, Maxout)))

    def initialize(self, seed: int) -> None:
        """Draw the initial weights from `seed`, on the host, layer by layer."""
        self.seed = check_seed(seed)
        pairs: list[tuple[np.ndarray, np.ndarray]] = []
        for index, (layer, (W_shape, n_biases)) in enumerate(
            zip(self.trainable_layers, self.layout.shapes, strict=True)
        ):
            rng = host_generator(self.seed, INITIAL_WEIGHTS, index)
            fans = (W_shape[0], layer.n_out)
            pairs.append(
                (
                    layer.weights.draw(rng, W_shape, *fans),
                    layer.biases.draw(rng, (n_biases,), *fans),
                )
            )
        self.set_parameters([W for W, _ in pairs], [b for _, b in pairs])

    def set_parameters(self, weights: Sequence[Any], biases: Sequence[Any]) -> None:
        """Set all parameters from host arrays, shaped like `weights` and `biases`."""
        for name, arrays, views in (
            ("weights", weights, self.weights),
            ("biases", biases, self.biases),
        ):
            shapes = [np.shape(array) for array in arrays]
            if shapes != [tuple(view.shape) for view in views]:
                raise ShapeError(
                    f"{name} must have the shapes {[tuple(view.shape) for view in views]}. "
                    f"Received: {shapes}."
                )
        for array, view in zip([*weights, *biases], [*self.weights, *self.biases], strict=True):
            self.backend.to_device(np.ascontiguousarray(array, self.dtype), out=view)

    def get_parameters(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return fresh host copies of (weights, biases)."""
        host = self.backend.to_host
        return [host(W) for W in self.weights], [host(b) for b in self.biases]

    def to(self, device: str | Backend) -> Network:
        """Return a copy of the network on another device."""
        layers: list[int | AbstractLayer] = [self.n_in, *self.layers]
        other = Network(layers, self.loss, device=device, dtype=self.dtype, seed=self.seed)
        other.set_parameters(*self.get_parameters())
        return other

    # ---- feed-forward and backpropagation ---------------------------------------------------

    def feedforward(self, x: Any) -> Array:
        """Return the output activations (B, n_out) of rows x (B, n_in) on this device."""
        space = self.workspace(self.rows_on_device(x))
        return space.forward()

    def trace(self, x: Any) -> Trace:
        """Return every z and a of a feed-forward pass."""
        space = self.workspace(self.rows_on_device(x), keep_z=True)
        space.forward()
        return Trace(
            space.x, tuple(s.z for s in space.trainable), tuple(s.a for s in space.trainable)
        )

    def backprop(self, x: Any, y: Any, sample_weight: Any = None) -> Gradient:
        """Return the mean loss of rows x (B, n_in) with targets y, and its gradient.

        y: class labels (B,), or targets (B,) or (B, n_out). Dropout is off.
        """
        x = self.rows_on_device(x)
        target, weight = self.device_targets(y, sample_weight, int(x.shape[0]))
        grad = self.backend.zeros((self.layout.size,), self.dtype)
        totals = self.backend.zeros((4,), self.backend.sum_dtype)
        layers, loss = self.for_training()
        space = self.workspace(x, layers, grad=grad)
        out = space.forward()
        self.backend.loss_and_delta(loss, out, target, weight, space.out.delta, totals)
        space.backward()
        sums = self.backend.to_host(totals)
        deltas = tuple(s.delta if s.dz is None else s.dz for s in space.trainable)
        pairs = self.layout.views(grad, self.backend.xp)
        return Gradient(
            float(sums[LOSS] / sums[WEIGHT]),
            tuple(W for W, _ in pairs),
            tuple(b for _, b in pairs),
            deltas,
            grad,
        )

    def for_training(self) -> tuple[tuple[AbstractLayer, ...], Loss]:
        """Return the layers and the loss as a training step uses them.

        If the output activation is the loss's partner, the output layer returns z and the fused
        loss applies the activation: the same function, with delta = a - y and no overflow.
        """
        last = self.layers[-1]
        if isinstance(last, Dense) and self.loss.partner == last.activation.kernel is not None:
            logits = Dense(last.n_out, IDENTITY, last.weights, last.biases)
            return (*self.layers[:-1], logits), self.loss.fused()
        return self.layers, self.loss

    def workspace(
        self,
        x: Array,
        layers: Sequence[AbstractLayer] | None = None,
        *,
        grad: Array | None = None,
        dropout: DropoutSource | None = None,
        keep_z: bool = False,
        theta: Array | None = None,
    ) -> Workspace:
        """Return a workspace for passes over rows x (B, n_in), which it reads in place."""
        return Workspace(
            self.backend, layers or self.layers, self.layout, x,
            self.theta if theta is None else theta,
            grad=grad, dropout=dropout, keep_z=keep_z,
        )  # fmt: skip

    # ---- validation of data -----------------------------------------------------------------

    def device_targets(self, y: Any, sample_weight: Any, n_rows: int) -> tuple[Array, Array | None]:
        """Return validated targets and weights on the device."""
        weight = validation.sample_weights(sample_weight, n_rows, self.dtype, self.backend)
        target = validation.targets(y, n_rows, self.target_form, self.backend)
        return (
            self.backend.to_device(target),
            None if weight is None else self.backend.to_device(weight),
        )

    def rows_on_device(self, x: Any) -> Array:
        """Return rows on this device in the network's dtype; raise for arrays of other devices."""
        x = validation.own_rows(x, self.n_in, self.backend)
        return self.backend.cast(x, self.dtype)

    # ---- printing ---------------------------------------------------------------------------

    def summary(self) -> str:
        """Return a table of layers, units and parameters."""
        table = printing.summary(self.n_in, self.layers)
        loss = printing.describe_formula(self.loss)
        return f"{table}\nloss {loss}, {printing.describe_device(self.dtype, self.backend)}"

    def __repr__(self) -> str:
        inside = ", ".join(printing.describe(layer) for layer in self.layers)
        return f"<Network {self.n_in} -> {inside}; {self.loss.name}; {self.backend.device}>"


def _chosen(loss: str | Loss | None) -> Loss | None:
    return None if loss is None else get_loss(loss)
