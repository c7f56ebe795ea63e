"""The peers of the CPU comparison that are not installed with this library: PyTorch and JAX.

Each trains in the way that its guide recommends for speed. Our own contenders and scikit-learn's
are in `nnbackend.bench.contenders`.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, ClassVar

from nnbackend.bench.base import AbstractContender, library
from nnbackend.bench.contenders import OURS, OursOnNumPy, ScikitLearn
from nnbackend.bench.rows import BETA1, BETA2, EPS, MOMENTUM

if TYPE_CHECKING:
    from nnbackend.bench.rows import Floats, Parameters


class PyTorch(AbstractContender):
    """PyTorch as in its guide, with the fused optimizer."""

    name, title = "torch", "PyTorch"
    modules = ("torch",)
    distributions = ("torch",)
    imports: ClassVar[dict[str, str]] = {"PyTorch": "import torch"}

    def prepare(self) -> None:
        self.torch = torch = library("torch")
        torch.manual_seed(self.seed)
        *hidden, last = self.row.shapes
        layers: list[Any] = []
        for shape in hidden:
            layers += [torch.nn.Linear(*shape), self._activation()]
            layers += [torch.nn.Dropout(self.row.drop_rate)] * bool(self.row.drop_rate)
        self.model = torch.nn.Sequential(*layers, torch.nn.Linear(*last))
        parameters = self.model.parameters()
        if self.row.optimizer == "adam":
            self.optimizer = torch.optim.Adam(
                parameters, self.learning_rate, (BETA1, BETA2), EPS, fused=True
            )
        else:
            self.optimizer = torch.optim.SGD(parameters, self.learning_rate, MOMENTUM, fused=True)
        self.rows, self.targets = torch.from_numpy(self.x), torch.from_numpy(self.y)
        self.loss = self.compiled(self._loss)
        self.reset()

    def _activation(self) -> Any:
        torch, n_pieces = self.torch, self.row.n_pieces
        if n_pieces == 1:
            return torch.nn.ReLU()

        class Maxout(torch.nn.Module):  # type: ignore[misc, name-defined]
            def forward(self, z: Any) -> Any:
                return z.unflatten(1, (n_pieces, -1)).max(1).values

        return Maxout()

    def compiled(self, function: Any) -> Any:
        """Return the function unchanged; a compiling subclass compiles it."""
        return function

    def _loss(self, x: Any, y: Any) -> Any:
        functional = self.torch.nn.functional
        if self.row.is_regression:
            return 0.5 / len(x) * functional.mse_loss(self.model(x), y, reduction="sum")
        return functional.cross_entropy(self.model(x), y)

    @property
    def _linear(self) -> list[Any]:
        return [layer for layer in self.model if hasattr(layer, "weight")]

    def reset(self) -> None:
        torch = self.torch
        with torch.no_grad():
            for layer, W, b in zip(self._linear, *self.start, strict=True):
                layer.weight.copy_(torch.from_numpy(W.T.copy()))
                layer.bias.copy_(torch.from_numpy(b))
            for state in self.optimizer.state.values():
                for tensor in state.values():
                    tensor.zero_()

    def _step(self, x: Any, y: Any) -> Any:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(x, y)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def steps(self, n: int) -> None:
        batch = self.row.batch
        x, y = self.rows[:batch], self.targets[:batch]
        for _ in range(n):
            self._step(x, y)

    def epochs(self, n: int) -> None:
        for _ in range(n):
            total = self.torch.zeros(())
            order = self.torch.randperm(len(self.rows))
            for rows in order.split(self.row.batch):
                x, y = self.rows.index_select(0, rows), self.targets.index_select(0, rows)
                total += self._step(x, y)
            float(total)

    def parameters(self) -> Parameters:
        with self.torch.no_grad():
            weights = [layer.weight.T.contiguous().numpy().copy() for layer in self._linear]
            return weights, [layer.bias.numpy().copy() for layer in self._linear]

    def predict(self, x: Floats) -> Any:
        if self.row.drop_rate:
            self.model.eval()
        with self.torch.inference_mode():
            found = self.model(self.torch.from_numpy(x))
        self.model.train()
        return (found if self.row.is_regression else found.argmax(1)).numpy()


class OursOnPyTorch(OursOnNumPy):
    """nnbackend on PyTorch's CPU: what the seam costs, beside PyTorch itself."""

    name, title = "nnbackend-torch", "nnbackend, PyTorch"
    modules = ("nnbackend", "torch", "array_api_compat")
    device = "torch:cpu"
    imports: ClassVar[dict[str, str]] = {}


class CompiledPyTorch(PyTorch):
    """The same with the network and its loss, forward and backward, compiled."""

    name, title = "torch-compile", "PyTorch, compiled"

    def compiled(self, function: Any) -> Any:
        return self.torch.compile(function)


class JAX(AbstractContender):
    """JAX with a whole epoch compiled as one scan over its batches; Adam written by hand."""

    name, title = "jax", "JAX"
    modules = ("jax", "jax.numpy")
    distributions = ("jax", "jaxlib")
    imports: ClassVar[dict[str, str]] = {"JAX": "import jax.numpy"}

    def prepare(self) -> None:
        self.jax, self.jnp = library("jax"), library("jax.numpy")
        self.rng = library("numpy").random.default_rng(self.seed)
        self.rows = self.jnp.asarray(self.x)
        if not self.row.is_regression:
            self.y = self.y.astype("int32")
        self.targets = self.jnp.asarray(self.y)
        self.batch = tuple(self.jnp.asarray(part) for part in self.first_batch)
        self._step = self.jax.jit(self._update, donate_argnums=0)
        self._epoch = self.jax.jit(self._scan, donate_argnums=0)
        self._predict = self.jax.jit(self._outputs if self.row.is_regression else self._labels)
        self.reset()

    def reset(self) -> None:
        parameters = [
            (self.jnp.array(W), self.jnp.array(b)) for W, b in zip(*self.start, strict=True)
        ]
        n_vectors = 2 if self.row.optimizer == "adam" else 1
        zeros = self.jnp.zeros_like
        vectors = tuple(self.jax.tree.map(zeros, parameters) for _ in range(n_vectors))
        key = self.jax.random.key(self.seed)
        self.state = parameters, vectors, self.jnp.zeros((), "int32"), key

    def _outputs(self, parameters: Any, x: Any, key: Any = None) -> Any:
        """Return the outputs; with a key for random masks also apply dropout."""
        jnp, random, kept = self.jnp, self.jax.random, 1.0 - self.row.drop_rate
        for W, b in parameters[:-1]:
            z, n_pieces = x @ W + b, self.row.n_pieces
            # Measured 3 % faster in a step than max over an axis of the pieces.
            x = reduce(jnp.maximum, jnp.split(z, n_pieces, axis=1) if n_pieces > 1 else [z, 0.0])
            if key is not None:
                key, now = random.split(key)
                x = jnp.where(random.bernoulli(now, kept, x.shape), x / kept, 0.0)
        W, b = parameters[-1]
        return x @ W + b

    def _labels(self, parameters: Any, x: Any) -> Any:
        return self._outputs(parameters, x).argmax(1)

    def _loss(self, parameters: Any, x: Any, y: Any, key: Any) -> Any:
        outputs = self._outputs(parameters, x, key)
        if self.row.is_regression:
            return 0.5 * self.jnp.square(outputs - y).sum() / len(x)
        logs = self.jax.nn.log_softmax(outputs)
        return -self.jnp.take_along_axis(logs, y[:, None], axis=1).mean()

    def _update(self, state: Any, x: Any, y: Any) -> tuple[Any, Any]:
        parameters, vectors, t, key = state
        key, now = self.jax.random.split(key) if self.row.drop_rate else (key, None)
        loss, g = self.jax.value_and_grad(self._loss)(parameters, x, y, now)
        rule, tree = self._adam if self.row.optimizer == "adam" else self._momentum, self.jax.tree
        t = t + 1
        leaves = zip(*(tree.leaves(part) for part in (parameters, g, *vectors)), strict=True)
        moved = zip(*(rule(t, *arrays) for arrays in leaves), strict=True)
        new, *new_vectors = (tree.unflatten(tree.structure(parameters), part) for part in moved)
        return (new, tuple(new_vectors), t, key), loss

    def _adam(self, t: Any, p: Any, g: Any, m: Any, v: Any) -> tuple[Any, ...]:
        m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g * g
        root = self.jnp.sqrt(v / (1 - BETA2**t)) + EPS
        return p - self.learning_rate * (m / (1 - BETA1**t)) / root, m, v

    def _momentum(self, t: Any, p: Any, g: Any, velocity: Any) -> tuple[Any, ...]:
        velocity = MOMENTUM * velocity - self.learning_rate * g
        return p + velocity, velocity

    def _scan(self, state: Any, x: Any, y: Any, order: Any) -> tuple[Any, Any]:
        def gather(data: Any, rows: Any) -> Any:
            return data.at[rows].get(mode="promise_in_bounds", unique_indices=True)

        def body(state: Any, rows: Any) -> tuple[Any, Any]:
            return self._update(state, gather(x, rows), gather(y, rows))

        return self.jax.lax.scan(body, state, order)  # type: ignore[no-any-return]

    def steps(self, n: int) -> None:
        for _ in range(n):
            self.state, _ = self._step(self.state, *self.batch)
        self.jax.block_until_ready(self.state)

    def epochs(self, n: int) -> None:
        shape = self.row.steps, self.row.batch
        for _ in range(n):
            order = self.rng.permutation(len(self.x)).astype("int32").reshape(shape)
            self.state, losses = self._epoch(self.state, self.rows, self.targets, order)
            float(losses.sum())

    def parameters(self) -> Parameters:
        numpy = library("numpy")
        found = [(numpy.array(W), numpy.array(b)) for W, b in self.state[0]]
        return [W for W, _ in found], [b for _, b in found]

    def predict(self, x: Floats) -> Any:
        return library("numpy").asarray(self._predict(self.state[0], x))


CONTENDERS: dict[str, type[AbstractContender]] = {
    contender.name: contender
    for contender in (*OURS, OursOnPyTorch, ScikitLearn, PyTorch, CompiledPyTorch, JAX)
}
