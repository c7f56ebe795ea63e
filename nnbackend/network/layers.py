"""The layers, each with its forward pass and, below it, its backward pass.

A layer is a frozen record of sizes and formulas; its arrays are in `LayerBuffers`, which the caller
passes. So layers can be shared, saved and compared, and every z, a and delta can be inspected.
Ordered by rising complexity.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from nnbackend.backend import Backend
from nnbackend.backend.formulas import Array
from nnbackend.network.activations import Activation, get_activation, identity
from nnbackend.network.initializers import Initializer, default_initializer, get_initializer
from nnbackend.options import BELOW_1, Checked, Kind
from nnbackend.validation import check_size

IDENTITY = identity()


@dataclass
class LayerBuffers:
    """The arrays of one layer for one batch: views of the parameters, and buffers for its results.

    delta contains dC/da before `backward` and dC/dz after it.
    """

    a: Array  # (B, O)
    delta: Array = None  # (B, O)
    z: Array = None  # (B, O), or (B, K * O) for maxout
    W: Array = None  # (I, O)
    b: Array = None  # (O,)
    dW: Array = None
    db: Array = None
    which: Array = None  # (B, O), maxout: the winning piece
    dz: Array = None  # (B, K * O), maxout: delta of every piece
    mask: Array = None  # (B, O), dropout: True where a unit is kept
    key: tuple[int, int] = (0, 0)  # dropout: seed, layer
    clock: Array = None  # dropout: the step
    first_row: int = 0  # dropout: the batch row at which this part begins


class AbstractLayer(Checked, ABC):
    """Base class of layers: the interface that a network uses."""

    @abstractmethod
    def n_outputs(self, n_in: int) -> int:
        """Return the number of units, O."""

    @abstractmethod
    def parameter_shapes(self, n_in: int) -> tuple[tuple[int, int], int] | None:
        """Return the shapes of W and b, or None for a layer without parameters."""

    @abstractmethod
    def make_buffers(
        self, backend: Backend, dtype: str, rows: int, n_in: int, keep_z: bool
    ) -> LayerBuffers:
        """Make the arrays of a forward pass; z and a may be one array if the slope needs only a."""

    @abstractmethod
    def forward(self, backend: Backend, x: Array, s: LayerBuffers) -> None:
        """Compute s.a from x."""

    @abstractmethod
    def backward(self, backend: Backend, x: Array, s: LayerBuffers, dx: Array | None) -> None:
        """Compute the gradients from s.delta; write dC/dx into dx unless it is None."""


@dataclass(frozen=True)
class Dropout(AbstractLayer):
    """A layer that sets random units of the layer before it to zero, in training only.

        a = x * mask / (1 - drop_rate)

    Source: Srivastava et al. 2014, with the scale on the training side ("inverted").
    """

    drop_rate: float = 0.5

    limits: ClassVar[Mapping[str, Kind]] = {"drop_rate": BELOW_1}

    def n_outputs(self, n_in: int) -> int:
        return n_in

    def parameter_shapes(self, n_in: int) -> None:
        return None

    def make_buffers(
        self, backend: Backend, dtype: str, rows: int, n_in: int, keep_z: bool
    ) -> LayerBuffers:
        shape = (rows, n_in)
        return LayerBuffers(a=backend.empty(shape, dtype), mask=backend.empty(shape, "bool"))

    def forward(self, backend: Backend, x: Array, s: LayerBuffers) -> None:
        backend.dropout_forward(x, self.drop_rate, s.key, s.clock, s.first_row, s.a, s.mask)

    def backward(self, backend: Backend, x: Array, s: LayerBuffers, dx: Array | None) -> None:
        if dx is not None:
            backend.dropout_backward(s.delta, s.mask, self.drop_rate, dx)


@dataclass(frozen=True)
class Dense(AbstractLayer):
    """A fully connected layer.

        z = x W + b;  a = phi(z)
        delta = dC/da * phi'(z);  dW = x^T delta;  db = sum of delta's rows;  dx = delta W^T

    weights, biases: initializers or their names; "auto" selects one for the activation.
    """

    n_out: int
    activation: Activation
    weights: Initializer
    biases: Initializer

    def __init__(
        self,
        n_out: int,
        activation: str | Activation = "relu",
        weights: str | float | Initializer = "auto",
        biases: str | float | Initializer = "zeros",
    ) -> None:
        phi = get_activation(activation)
        object.__setattr__(self, "n_out", check_size("n_out", n_out))
        object.__setattr__(self, "activation", phi)
        object.__setattr__(self, "weights", _initializer(weights, phi.name))
        object.__setattr__(self, "biases", get_initializer(biases))

    def n_outputs(self, n_in: int) -> int:
        return self.n_out

    def parameter_shapes(self, n_in: int) -> tuple[tuple[int, int], int]:
        return (n_in, self.n_out), self.n_out

    def make_buffers(
        self, backend: Backend, dtype: str, rows: int, n_in: int, keep_z: bool
    ) -> LayerBuffers:
        a = backend.empty((rows, self.n_out), dtype)
        share = self.activation.slope_from_output and not keep_z
        return LayerBuffers(a=a, z=a if share else backend.empty((rows, self.n_out), dtype))

    def forward(self, backend: Backend, x: Array, s: LayerBuffers) -> None:
        backend.dense_forward(x, s.W, s.b, self.activation, s.z, s.a)

    def backward(self, backend: Backend, x: Array, s: LayerBuffers, dx: Array | None) -> None:
        backend.dense_backward(x, s.W, s.z, s.a, self.activation, s.delta, s.dW, s.db, dx)


@dataclass(frozen=True)
class Maxout(AbstractLayer):
    """A layer of units that each return the largest of K affine pieces.

        z_k = x W_k + b_k;  a = max_k z_k;  delta goes to the winning piece

    W is (n_in, K * n_out), piece by piece. Source: Goodfellow et al. 2013, section 3.
    """

    n_out: int
    n_pieces: int
    weights: Initializer
    biases: Initializer

    def __init__(
        self,
        n_out: int,
        n_pieces: int = 2,
        weights: str | float | Initializer = "auto",
        biases: str | float | Initializer = "zeros",
    ) -> None:
        object.__setattr__(self, "n_out", check_size("n_out", n_out))
        object.__setattr__(self, "n_pieces", check_size("n_pieces", n_pieces))
        object.__setattr__(self, "weights", _initializer(weights, "maxout"))
        object.__setattr__(self, "biases", get_initializer(biases))

    def n_outputs(self, n_in: int) -> int:
        return self.n_out

    def parameter_shapes(self, n_in: int) -> tuple[tuple[int, int], int]:
        width = self.n_pieces * self.n_out
        return (n_in, width), width

    def make_buffers(
        self, backend: Backend, dtype: str, rows: int, n_in: int, keep_z: bool
    ) -> LayerBuffers:
        units, pieces = (rows, self.n_out), (rows, self.n_pieces * self.n_out)
        return LayerBuffers(
            a=backend.empty(units, dtype),
            z=backend.empty(pieces, dtype),
            which=backend.empty(units, "int32"),
            dz=backend.empty(pieces, dtype),
        )

    def forward(self, backend: Backend, x: Array, s: LayerBuffers) -> None:
        backend.dense_forward(x, s.W, s.b, IDENTITY, s.z, s.z)
        backend.maxout_forward(s.z, s.a, s.which)

    def backward(self, backend: Backend, x: Array, s: LayerBuffers, dx: Array | None) -> None:
        backend.maxout_backward(s.delta, s.which, s.dz)
        backend.dense_backward(x, s.W, s.z, s.z, IDENTITY, s.dz, s.dW, s.db, dx)


LAYERS: dict[str, type[AbstractLayer]] = {"dense": Dense, "dropout": Dropout, "maxout": Maxout}


def _initializer(choice: str | float | Initializer, activation: str) -> Initializer:
    # The type first: an array that was passed by mistake has no single truth value.
    is_auto = isinstance(choice, str) and choice == "auto"
    return default_initializer(activation) if is_auto else get_initializer(choice)
