"""The contenders: this library's two CPU backends and their peers, all doing the same work.

Float32, ReLU layers, softmax with cross-entropy, the row's batch size and optimizer with the same
constants, from the same initial weights. An epoch draws a new order, gathers each batch and steps,
in the way that the library's guide recommends for speed. Ours come first.
"""

from __future__ import annotations

import importlib.util
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

from nnbackend.bench.base import AbstractContender, library
from nnbackend.bench.rows import BETA1, BETA2, EPS, MOMENTUM
from nnbackend.errors import ArgumentError
from nnbackend.suggestions import suggest

if TYPE_CHECKING:
    from nnbackend.bench.rows import Floats, Labels, Parameters


class OursOnNumPy(AbstractContender):
    """nnbackend on its NumPy backend."""

    name, title = "nnbackend-numpy", "nnbackend, NumPy"
    modules: ClassVar[tuple[str, ...]] = ("nnbackend", "numpy")
    device: ClassVar[str] = "numpy"
    is_ours = True
    step_note = "without the loop's clock"

    @classmethod
    def load(cls) -> None:
        super().load()
        library("nnbackend.devices").get_backend(cls.device)
        library("nnbackend.training.api")

    def prepare(self) -> None:
        nn = library("nnbackend")
        if self.row.optimizer == "adam":
            self.rule = nn.Adam(self.learning_rate, BETA1, BETA2, EPS)
        else:
            self.rule = nn.SGD(self.learning_rate, momentum=MOMENTUM)
        n_in, *hidden, n_out = self.row.layers
        layers = [n_in, *hidden, nn.Dense(n_out, "softmax")]
        self.net = nn.Network(layers, "cross_entropy", activation="relu", device=self.device)
        self.stop = _stop_after()
        self.reset()
        self._step = self._new_step()

    def reset(self) -> None:
        api, config = (
            library("nnbackend.training.api"),
            library("nnbackend.training.config"),
        )
        self.net.set_parameters(*self.start)
        options = config.TrainConfig(self.rule, 10**9, self.row.batch, seed=self.seed)
        self.trainer = api.new_trainer(self.net, self.x, self.y, options, callbacks=[self.stop])

    def _new_step(self) -> Any:
        """Return a step on the first batch, built from the trainer's parts."""
        net, backend, rule = self.net, self.net.backend, self.rule
        x, y = self.first_batch
        rows, (targets, _) = backend.to_device(x), net.device_targets(y, None, len(y))
        grad = backend.zeros((net.layout.size,), net.dtype)
        state = [backend.zeros((net.layout.size,), net.dtype) for _ in rule.state]
        sums = backend.sum_dtype
        totals, hyper = backend.zeros((4,), sums), backend.zeros((3,), sums)
        numbers = [self.learning_rate, rule.momentum, 1]
        backend.to_device(library("numpy").array(numbers, sums), out=hyper)
        layers, loss = net.for_training()
        space = net.workspace(rows, layers, grad=grad)

        def step() -> None:
            out = space.forward()
            backend.loss_and_delta(loss, out, targets, None, space.out.delta, totals)
            space.backward()
            backend.optimizer_step(rule, net.theta, grad, state, hyper, 0.0, net.layout.n_weights)

        return backend.capture(step)

    def steps(self, n: int) -> None:
        self._step(n)
        self.net.backend.synchronize()

    def epochs(self, n: int) -> None:
        self.stop.left = n
        self.trainer.run()

    def parameters(self) -> Parameters:
        found: Parameters = self.net.get_parameters()
        return found

    def predict(self, x: Floats) -> Any:
        return self.net.predict(x)


def _stop_after() -> Any:
    """Return a callback that ends training when `left` more epochs are done."""
    from nnbackend.training.callbacks import Callback

    class StopAfter(Callback):
        left = 0

        def on_epoch_end(self, trainer: Any, row: Any) -> bool:
            self.left -= 1
            return self.left <= 0

    return StopAfter()


class OursOnNumba(OursOnNumPy):
    """nnbackend on its numba backend."""

    name, title = "nnbackend-numba", "nnbackend, numba"
    modules = ("nnbackend", "numpy", "numba")
    device = "numba"


class ScikitLearn(AbstractContender):
    """scikit-learn's MLPClassifier.

    Its Adam adds epsilon before the bias correction, and two classes share one logistic output.
    """

    name, title = "sklearn", "scikit-learn"
    modules = ("sklearn.neural_network",)
    step_note = "a call of partial_fit, with its input checks"

    def prepare(self) -> None:
        solver = "adam" if self.row.optimizer == "adam" else "sgd"
        self.model = library("sklearn.neural_network").MLPClassifier(
            self.row.layers[1:-1], activation="relu", solver=solver, alpha=0.0,
            batch_size=self.row.batch, learning_rate_init=self.learning_rate,
            momentum=MOMENTUM, nesterovs_momentum=False,
            beta_1=BETA1, beta_2=BETA2, epsilon=EPS, shuffle=True, random_state=self.seed,
            early_stopping=False, tol=0.0, n_iter_no_change=10**9, warm_start=True, max_iter=1,
        )  # fmt: skip
        n = max(self.row.batch, self.row.layers[-1])  # these rows show it every class
        self._fit(self.x[:n], self.y[:n])
        self.reset()

    def reset(self) -> None:
        weights, biases = self.start
        if self._is_logistic:
            weights = [*weights[:-1], weights[-1][:, 1:] - weights[-1][:, :1]]
            biases = [*biases[:-1], biases[-1][1:] - biases[-1][:1]]
        for own, given in zip(
            [*self.model.coefs_, *self.model.intercepts_], [*weights, *biases], strict=True
        ):
            own[...] = given
        self.model.__dict__.pop("_optimizer", None)  # the next call makes a new one

    @property
    def _is_logistic(self) -> bool:
        return self.row.layers[-1] == 2

    def steps(self, n: int) -> None:
        x, y = self.first_batch
        for _ in range(n):
            self.model.partial_fit(x, y)

    def epochs(self, n: int) -> None:
        self.model.set_params(max_iter=n)
        self._fit(self.x, self.y)

    def _fit(self, x: Floats, y: Labels) -> None:
        category = library("sklearn.exceptions").ConvergenceWarning
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category)
            self.model.fit(x, y)

    def parameters(self) -> Parameters:
        weights = [W.copy() for W in self.model.coefs_]
        biases = [b.copy() for b in self.model.intercepts_]
        if self._is_logistic:
            pad = library("numpy").pad
            weights[-1] = pad(weights[-1], ((0, 0), (1, 0)))
            biases[-1] = pad(biases[-1], (1, 0))
        return weights, biases

    def predict(self, x: Floats) -> Any:
        return self.model.predict(x)


class PyTorch(AbstractContender):
    """PyTorch as in its guide, with the fused optimizer."""

    name, title = "torch", "PyTorch"
    modules = ("torch",)

    def prepare(self) -> None:
        self.torch = torch = library("torch")
        torch.manual_seed(self.seed)
        layers: list[Any] = []
        for n_in, n_out in zip(self.row.layers, self.row.layers[1:], strict=False):
            layers += [torch.nn.Linear(n_in, n_out), torch.nn.ReLU()]
        self.model = torch.nn.Sequential(*layers[:-1])
        parameters = self.model.parameters()
        if self.row.optimizer == "adam":
            self.optimizer = torch.optim.Adam(
                parameters, self.learning_rate, (BETA1, BETA2), EPS, fused=True
            )
        else:
            self.optimizer = torch.optim.SGD(parameters, self.learning_rate, MOMENTUM, fused=True)
        self.rows, self.labels = torch.from_numpy(self.x), torch.from_numpy(self.y)
        self.loss = self.compiled(self._loss)
        self.reset()

    def compiled(self, function: Any) -> Any:
        """Return the function unchanged; a compiling subclass compiles it."""
        return function

    def _loss(self, x: Any, y: Any) -> Any:
        return self.torch.nn.functional.cross_entropy(self.model(x), y)

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
        x, y = self.rows[:batch], self.labels[:batch]
        for _ in range(n):
            self._step(x, y)

    def epochs(self, n: int) -> None:
        for _ in range(n):
            total = self.torch.zeros(())
            order = self.torch.randperm(len(self.rows))
            for rows in order.split(self.row.batch):
                x, y = self.rows.index_select(0, rows), self.labels.index_select(0, rows)
                total += self._step(x, y)
            float(total)

    def parameters(self) -> Parameters:
        with self.torch.no_grad():
            weights = [layer.weight.T.contiguous().numpy().copy() for layer in self._linear]
            return weights, [layer.bias.numpy().copy() for layer in self._linear]

    def predict(self, x: Floats) -> Any:
        with self.torch.inference_mode():
            return self.model(self.torch.from_numpy(x)).argmax(1).numpy()


class CompiledPyTorch(PyTorch):
    """The same with the network and its loss, forward and backward, compiled."""

    name, title = "torch-compile", "PyTorch, compiled"

    def compiled(self, function: Any) -> Any:
        return self.torch.compile(function)


class JAX(AbstractContender):
    """JAX with a whole epoch compiled as one scan over its batches; Adam written by hand."""

    name, title = "jax", "JAX"
    modules = ("jax", "jax.numpy")

    def prepare(self) -> None:
        self.jax, self.jnp = library("jax"), library("jax.numpy")
        self.rng = library("numpy").random.default_rng(self.seed)
        self.rows = self.jnp.asarray(self.x)
        self.labels = self.jnp.asarray(self.y.astype("int32"))
        x, y = self.first_batch
        self.batch = self.jnp.asarray(x), self.jnp.asarray(y.astype("int32"))
        self._step = self.jax.jit(self._update, donate_argnums=0)
        self._epoch = self.jax.jit(self._scan, donate_argnums=0)
        self._labels = self.jax.jit(lambda p, x: self._logits(p, x).argmax(1))
        self.reset()

    def reset(self) -> None:
        parameters = [
            (self.jnp.array(W), self.jnp.array(b)) for W, b in zip(*self.start, strict=True)
        ]
        n_vectors = 2 if self.row.optimizer == "adam" else 1
        zeros = self.jnp.zeros_like
        vectors = tuple(self.jax.tree.map(zeros, parameters) for _ in range(n_vectors))
        self.state = parameters, vectors, self.jnp.zeros((), "int32")

    def _logits(self, parameters: Any, x: Any) -> Any:
        for W, b in parameters[:-1]:
            x = self.jnp.maximum(x @ W + b, 0.0)
        W, b = parameters[-1]
        return x @ W + b

    def _loss(self, parameters: Any, x: Any, y: Any) -> Any:
        logs = self.jax.nn.log_softmax(self._logits(parameters, x))
        return -self.jnp.take_along_axis(logs, y[:, None], axis=1).mean()

    def _update(self, state: Any, x: Any, y: Any) -> tuple[Any, Any]:
        parameters, vectors, t = state
        loss, g = self.jax.value_and_grad(self._loss)(parameters, x, y)
        rule, tree = self._adam if self.row.optimizer == "adam" else self._momentum, self.jax.tree
        t = t + 1
        leaves = zip(*(tree.leaves(part) for part in (parameters, g, *vectors)), strict=True)
        moved = zip(*(rule(t, *arrays) for arrays in leaves), strict=True)
        new, *new_vectors = (tree.unflatten(tree.structure(parameters), part) for part in moved)
        return (new, tuple(new_vectors), t), loss

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
            self.state, losses = self._epoch(self.state, self.rows, self.labels, order)
            float(losses.sum())

    def parameters(self) -> Parameters:
        numpy = library("numpy")
        found = [(numpy.array(W), numpy.array(b)) for W, b in self.state[0]]
        return [W for W, _ in found], [b for _, b in found]

    def predict(self, x: Floats) -> Any:
        return library("numpy").asarray(self._labels(self.state[0], x))


CONTENDERS: dict[str, type[AbstractContender]] = {
    contender.name: contender
    for contender in (OursOnNumPy, OursOnNumba, ScikitLearn, PyTorch, CompiledPyTorch, JAX)
}


def get_contender(name: str) -> type[AbstractContender]:
    """Return the contender of a name.

    Raises: ArgumentError for an unknown one.
    """
    if name not in CONTENDERS:
        raise ArgumentError(f"unknown contender {name!r}. {suggest(name, CONTENDERS)}")
    return CONTENDERS[name]


def missing(name: str) -> str:
    """Return why a contender cannot run here, or the empty string."""
    for module in get_contender(name).modules:
        root = module.partition(".")[0]
        if importlib.util.find_spec(root) is None:
            return f"{root} is not installed"
    return ""
