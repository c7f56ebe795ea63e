"""The multilayer perceptron: a sequence of layers, one loss, one device.

A network stores its parameters in one flat vector `theta`; `weights` and `biases` are views of it.
`feedforward`, `backprop` and `trace` expect scaled rows, the input of the first layer. `predict`
and `evaluate` expect raw rows and scale them as training did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from nnbackend.backend import Backend, get_backend
from nnbackend.backend.base import LOSS, SCORE, WEIGHT
from nnbackend.backend.formulas import Array
from nnbackend.backend.philox import INITIAL_WEIGHTS, host_generator
from nnbackend.data import validation
from nnbackend.data.scalers import Scaler
from nnbackend.errors import ArgumentError, ShapeError, check
from nnbackend.network import architecture, probing
from nnbackend.network.activations import Activation
from nnbackend.network.architecture import check_seed
from nnbackend.network.layers import IDENTITY, AbstractLayer, Dense, Maxout
from nnbackend.network.losses import Loss, get_loss
from nnbackend.network.parameters import Layout
from nnbackend.network.scores import ACCURACY, BINARY_ACCURACY, SQUARED_ERROR, Score
from nnbackend.network.sums import Sums
from nnbackend.network.workspace import DropoutSource, Workspace

# Infinite outputs for finite rows show in the results; NumPy's warnings would repeat that.
_QUIET = partial(np.errstate, over="ignore", invalid="ignore", divide="ignore")
FEW_ROWS = 16  # up to here allocating a workspace takes longer than the pass: reuse it
ROWS_AT_ONCE = 4096  # evaluation processes the data in parts of at most this many rows


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


class Network:
    """A multilayer perceptron on one device.

    layers: n_in, then layers; a number n means Dense(n, activation), and as the last layer Dense
    with the activation that matches the loss (softmax for cross_entropy, sigmoid for
    binary_cross_entropy, exponential for poisson, else identity).
    loss: by default cross_entropy after a softmax, else quadratic.
    precision: precision of float32 matrix products: "float32" (default), or on some devices "tf32"
    or "bf16", which are faster and less accurate.
    seed: seed of the initial weights, which are the same on every device.
    classes: the labels of the outputs 0, 1, ...
    Raises: ArgumentError for invalid layers or options; BackendError for an unusable device.
    >>> net = Network([2, 3, 1], activation="tanh", device="numpy", seed=1)
    >>> net.feedforward([[0.0, 1.0]]).shape, net.n_parameters
    ((1, 1), 13)
    """

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
        classes: Iterable[Any] | None = None,
    ) -> None:
        backend = get_backend(device)
        self.backend = backend if precision is None else backend.with_precision(precision)
        self.dtype = architecture.check_dtype(dtype, self.backend)
        self.seed = check_seed(seed)
        chosen = None if loss is None else get_loss(loss)
        self.n_in, self.layers = architecture.build_layers(layers, chosen, activation)
        probing.check_activations(self.layers, self.backend)
        self.loss = chosen or architecture.default_loss(self.layers[-1])
        plain = (c.item() if isinstance(c, np.generic) else c for c in classes or ())
        self.classes = None if classes is None else tuple(plain)
        self.scaler: Scaler | None = None
        self.target_scaler: Scaler | None = None
        self.columns: dict[str, Any] | None = None  # how the columns of a table map to x
        self._spare: dict[int, Workspace] = {}  # reusable workspaces by their number of rows

        shapes, widths = [], [self.n_in]
        for layer in self.layers:
            if (shape := layer.parameter_shapes(widths[-1])) is not None:
                shapes.append(shape)
            widths.append(layer.n_outputs(widths[-1]))
        self.n_out = widths[-1]
        probing.check_loss(self.loss, self.n_out, self.backend)
        n_classes = max(self.n_out, 2)
        check(
            "classes",
            self.classes,
            lambda v: v is None or len(v) == len(set(v)) == n_classes,
            f"{n_classes} different labels, one for each class",
        )
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
        other.classes, other.columns = self.classes, self.columns
        other.scaler, other.target_scaler = self.scaler, self.target_scaler
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

    # ---- prediction and evaluation ----------------------------------------------------------

    def outputs(self, x: Any) -> np.ndarray:
        """Return the output activations of raw rows, (n, n_out) on the host."""
        x = validation.finite_rows(x, self.n_in, self.dtype, self.backend)
        result = np.empty((int(x.shape[0]), self.n_out), self.dtype)

        def store(start: int, space: Workspace) -> None:
            result[start : start + space.rows] = self.backend.to_host(space.forward())

        with _QUIET():
            self._pass_over(x, store)
        return result

    def predict(self, x: Any) -> np.ndarray:
        """Return the predictions for raw rows, on the host.

        A classifier returns labels (n,), from `classes` if they are set; a multilabel classifier
        0 or 1 (n, n_out); a regression values (n,) or (n, n_out), in float64 if the targets were
        scaled, because the network's dtype could round them.
        """
        out = self.outputs(x)
        if self._is_binary:
            positive = (out > 0.5).astype(np.int64)
            return self._labels(positive[:, 0]) if self.n_out == 1 else positive
        if self.is_classifier:
            return self._labels(out.argmax(axis=1))
        values: np.ndarray = out
        if self.target_scaler is not None:
            values = self.target_scaler.inverse(out)
        return values[:, 0] if self.n_out == 1 else values

    def predict_proba(self, x: Any) -> np.ndarray:
        """Return the class probabilities for raw rows, (n, n_out) on the host."""
        last = self.layers[-1]
        name = last.activation.name if isinstance(last, Dense) else ""
        if name not in ("softmax", "sigmoid"):
            raise ArgumentError(
                "predict_proba needs a softmax or sigmoid output, which returns probabilities. "
                f"Received: a network that ends in {name or last!r}. Use outputs(x)."
            )
        return self.outputs(x)

    def evaluate(self, x: Any, y: Any, sample_weight: Any = None) -> dict[str, float]:
        """Return the "loss" and the score, "accuracy" or "r2", averaged over raw rows."""
        x = validation.finite_rows(x, self.n_in, self.dtype, self.backend)
        n = int(x.shape[0])
        return self.evaluate_prepared(
            x, self.host_targets(y, n), self.host_weights(sample_weight, n)
        )

    def evaluate_prepared(
        self, x: Array, y: np.ndarray, weight: np.ndarray | None, theta: Array | None = None
    ) -> dict[str, float]:
        """Evaluate with the targets and weights of `host_targets` and `host_weights`.

        theta (P,): other parameters than the network's.
        """
        backend, score = self.backend, self.score_for(y)
        layers, loss = self.for_training()
        running = Sums(backend)
        totals, before = running.totals, backend.zeros((4,), backend.sum_dtype)
        unused: Array | None = None

        def add(start: int, space: Workspace) -> None:
            nonlocal unused
            part = slice(start, start + space.rows)
            backend.copy(totals, before)
            try:
                target = backend.to_device(y[part])
                w = None if weight is None else backend.to_device(weight[part])
                out = space.forward()
                if unused is None or unused.shape != out.shape:
                    unused = None  # frees its memory before the next allocation
                    unused = backend.empty((space.rows, self.n_out), self.dtype)
                backend.add_score(score, self._activations(out, loss), target, w, totals)
                backend.loss_and_delta(loss, out, target, w, unused, totals)
            except MemoryError:  # _pass_over repeats these rows in smaller parts
                unused = None
                backend.copy(before, totals)
                raise
            running.flush()

        with _QUIET():
            self._pass_over(x, add, layers, theta)
        sums = running.read()
        value = float(sums[SCORE] / sums[WEIGHT])
        if score is SQUARED_ERROR:
            value = _r2(value, y, weight)
        return {"loss": float(sums[LOSS] / sums[WEIGHT]), score.name: value}

    @property
    def is_classifier(self) -> bool:
        """True if the outputs represent classes."""
        return self.loss.name == "cross_entropy" or self.classes is not None

    @property
    def _is_binary(self) -> bool:
        """True if each output is an independent yes-or-no decision."""
        return self.loss.name == "binary_cross_entropy" or (self.is_classifier and self.n_out == 1)

    def score_for(self, y: np.ndarray) -> Score:
        """Return the score that `evaluate` reports for targets of `host_targets`."""
        if self._is_binary:
            return BINARY_ACCURACY
        return ACCURACY if y.ndim == 1 or self.is_classifier else SQUARED_ERROR

    # ---- validation of data -----------------------------------------------------------------

    def host_targets(self, y: Any, n_rows: int) -> np.ndarray:
        """Return targets in the form the loss expects: (n,) int32 class labels, or (n, n_out)."""
        if self.target_scaler is None:
            return self._unscaled_targets(y, n_rows, self.dtype)
        target = self._unscaled_targets(y, n_rows, "float64")
        return target if target.ndim == 1 else self.target_scaler.transform(target, self.dtype)

    def _unscaled_targets(self, y: Any, n_rows: int, dtype: str) -> np.ndarray:
        labels_only = self.loss.name == "cross_entropy"
        target = validation.targets(
            y, n_rows, self.n_out, dtype, self.backend, self.classes, labels_only
        )
        if target.ndim == 2:
            validation.check_range(target, self.loss.name)
        return target

    def host_weights(self, sample_weight: Any, n_rows: int) -> np.ndarray | None:
        """Return sample weights (n,) in the network's dtype."""
        return validation.sample_weights(sample_weight, n_rows, self.dtype, self.backend)

    def device_targets(self, y: Any, sample_weight: Any, n_rows: int) -> tuple[Array, Array | None]:
        """Return targets, in the scale of the last layer's output, and weights on the device."""
        weight = self.host_weights(sample_weight, n_rows)
        target = self.backend.to_device(self._unscaled_targets(y, n_rows, self.dtype))
        return target, None if weight is None else self.backend.to_device(weight)

    def device_scaler(self) -> tuple[Array, Array]:
        """Return the scaler's shift and factor on the device, in its `sum_dtype`."""
        assert self.scaler is not None
        # The factor of a nearly constant column may exceed the range of float32.
        factor = np.minimum(self.scaler.factor, np.finfo(self.backend.sum_dtype).max)
        shift, factor = map(self.backend.narrowed, (self.scaler.shift, factor))
        return self.backend.to_device(shift), self.backend.to_device(factor)

    @property
    def scales_on_host(self) -> bool:
        """True if host rows are scaled on the host, because the device has no float64."""
        return self.scaler is not None and "float64" not in self.backend.float_dtypes

    def rows_on_device(self, x: Any) -> Array:
        """Return rows on this device in the network's dtype; raise for arrays of other devices."""
        x = validation.own_rows(x, self.n_in, self.backend)
        return self.backend.cast(x, self.dtype)

    def _pass_over(
        self,
        x: Array,
        use: Callable[[int, Workspace], None],
        layers: Sequence[AbstractLayer] | None = None,
        theta: Array | None = None,
    ) -> None:
        """Call use(first row, workspace) for all rows, in parts that fit in the device's memory.

        Raises: MemoryError when a single row does not fit.
        """
        n, done, size = int(x.shape[0]), 0, ROWS_AT_ONCE

        def proceed() -> None:
            nonlocal done
            offset = done
            for start, space in self._passes(x[offset:, ...] if offset else x, layers, size, theta):
                use(offset + start, space)
                done = offset + start + space.rows

        while done < n:
            try:
                proceed()
                continue
            except MemoryError:
                size = min(size, n - done)
                if size == 1:
                    raise
            # Outside of the handler: the error's frames, which reference the arrays, are freed.
            self._spare.clear()
            self.backend.release_memory()
            size = -(-size // 2)

    def _passes(
        self, x: Array, layers: Sequence[AbstractLayer] | None, size: int, theta: Array | None
    ) -> Iterator[tuple[int, Workspace]]:
        """Yield each part's first row and a workspace that contains the part's scaled rows."""
        n, backend = int(x.shape[0]), self.backend
        size, space, buffer = min(n, size), None, None
        scaler = self.device_scaler() if self.scaler is not None else None
        for start in range(0, n, size):
            rows = min(size, n - start)
            if space is None or space.rows != rows:
                space = buffer = None  # frees its memory before the next allocation
                space = self._spare_workspace(rows, layers, theta)
                buffer = space.x
            part = x[start : start + rows, ...]
            is_on_host = not backend.owns(part)
            if is_on_host and self.scales_on_host and self.scaler is not None:
                backend.to_device(self.scaler.transform(part, self.dtype), out=buffer)
            elif scaler is not None and self.scaler is not None:
                part = backend.to_device(np.ascontiguousarray(part)) if is_on_host else part
                backend.scale_rows(part, *scaler, self.scaler.clip, buffer)
            elif is_on_host:
                backend.to_device(np.ascontiguousarray(part, self.dtype), out=buffer)
            elif _can_be_read_in_place(part, self.dtype):
                space.read(part)
            else:
                backend.copy(backend.cast(part, self.dtype), buffer)
            yield start, space
        if space is not None and layers is None and n <= FEW_ROWS:
            space.read(buffer)  # drops the reference to the caller's rows
            self._spare[n] = space

    def _spare_workspace(
        self, rows: int, layers: Sequence[AbstractLayer] | None, theta: Array | None
    ) -> Workspace:
        """Return the workspace of an earlier pass over as many rows, or a new one.

        The workspace is removed from the cache until the pass ends, so threads never share one.
        """
        space = self._spare.pop(rows, None) if layers is None else None
        if space is not None:
            return space
        x = self.backend.empty((rows, self.n_in), self.dtype)
        return self.workspace(x, layers, theta=theta)

    def _activations(self, out: Array, loss: Loss) -> Array:
        """Return the output activations; with a fused loss, compute them from z."""
        last = self.layers[-1]
        if loss is self.loss or not isinstance(last, Dense):
            return out
        with self.backend.active():
            return last.activation.value(out, self.backend.xp)

    def _labels(self, codes: np.ndarray) -> np.ndarray:
        """Return the labels of class codes."""
        if self.classes is None:
            return codes
        # Labels of one type get an array of that type; mixed labels get an array of objects.
        is_one_type = len({type(c) for c in self.classes}) == 1
        labels = np.asarray(self.classes, dtype=None if is_one_type else object)
        result: np.ndarray = labels[codes]
        return result

    # ---- saving and printing ----------------------------------------------------------------

    def save(self, path: Any) -> None:
        """Write the model to one file; see `nnbackend.persistence`."""
        from nnbackend.persistence import save

        save(self, path)

    def summary(self) -> str:
        """Return a table of layers, units and parameters."""
        table = architecture.summary(self.n_in, self.layers)
        loss = architecture.describe_formula(self.loss)
        return f"{table}\nloss {loss}, {self.dtype} on {self.backend.device}"

    def __repr__(self) -> str:
        inside = ", ".join(architecture.describe(layer) for layer in self.layers)
        return f"<Network {self.n_in} -> {inside}; {self.loss.name}; {self.backend.device}>"


def _can_be_read_in_place(part: Array, dtype: str) -> bool:
    """Return True if rows are a C-contiguous host array in the network's dtype."""
    return isinstance(part, np.ndarray) and part.dtype == dtype and part.flags.c_contiguous


def _r2(mean_square: float, y: np.ndarray, weight: np.ndarray | None) -> float:
    """Return 1 - sum of squares / variance; for constant targets 1 or 0, as in scikit-learn."""
    values = y.astype(np.float64)
    variance = float(
        (
            np.average(
                (values - np.average(values, axis=0, weights=weight)) ** 2, axis=0, weights=weight
            )
        ).sum()
    )
    if variance == 0.0:
        return 1.0 if mean_square == 0.0 else 0.0
    return 1.0 - mean_square / variance
