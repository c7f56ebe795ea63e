"""Our two CPU backends, and scikit-learn: the peer that every installation has.

`benchmarks/peers.py` adds PyTorch and JAX, which are not installed with this library.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, ClassVar

from nnbackend.bench.base import AbstractContender, library
from nnbackend.bench.rows import BETA1, BETA2, EPS, MOMENTUM

if TYPE_CHECKING:
    from nnbackend.bench.rows import Floats, Parameters, Row, Targets


class OursOnNumPy(AbstractContender):
    """nnbackend on its NumPy backend."""

    name, title = "nnbackend-numpy", "nnbackend, NumPy"
    modules: ClassVar[tuple[str, ...]] = ("nnbackend", "numpy")
    imports: ClassVar[dict[str, str]] = {
        "numpy": "import numpy",
        "nnbackend": "import nnbackend",
        "nnbackend, ready to train": "from nnbackend import Network, train",
    }
    device: ClassVar[str] = "numpy"
    is_ours = True

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
        layers, loss = self._layers(nn), "quadratic" if self.row.is_regression else "cross_entropy"
        self.net = nn.Network(layers, loss, activation="relu", device=self.device)
        self.stop = _stop_after()
        self.reset()
        self._step = self._new_step()

    def _layers(self, nn: Any) -> list[Any]:
        n_in, *hidden, n_out = self.row.layers
        layers = [n_in]
        for n in hidden:
            layers.append(nn.Maxout(n, self.row.n_pieces) if self.row.n_pieces > 1 else n)
            if self.row.drop_rate:
                layers.append(nn.Dropout(self.row.drop_rate))
        return [*layers, nn.Dense(n_out, "identity" if self.row.is_regression else "softmax")]

    def reset(self) -> None:
        api, config = (
            library("nnbackend.training.api"),
            library("nnbackend.training.config"),
        )
        self.net.set_parameters(*self.start)
        options = config.TrainConfig(
            optimizer=self.rule, epochs=10**9, batch_size=self.row.batch, seed=self.seed
        )
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
        clock = backend.to_device(library("numpy").zeros(2, "int64"))
        dropout = library("nnbackend.network.workspace").DropoutSource(self.seed, clock)
        space = net.workspace(rows, layers, grad=grad, dropout=dropout)

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
    """scikit-learn's MLPClassifier, or MLPRegressor.

    Its Adam adds epsilon before the bias correction, and two classes share one logistic output.
    """

    name, title = "sklearn", "scikit-learn"
    modules = ("sklearn.neural_network",)
    imports: ClassVar[dict[str, str]] = {
        "scikit-learn's MLPClassifier": "from sklearn.neural_network import MLPClassifier"
    }

    @classmethod
    def lacks(cls, row: Row) -> str:
        missing = {"maxout layers": row.n_pieces > 1, "dropout": row.drop_rate > 0.0}
        return " and ".join(what for what, is_needed in missing.items() if is_needed)

    def prepare(self) -> None:
        solver = "adam" if self.row.optimizer == "adam" else "sgd"
        kind = "MLPRegressor" if self.row.is_regression else "MLPClassifier"
        if self.row.is_regression and self.row.layers[-1] == 1:
            self.y = self.y[:, 0]  # a column is not accepted without a warning
        self.model = getattr(library("sklearn.neural_network"), kind)(
            hidden_layer_sizes=self.row.layers[1:-1], activation="relu", solver=solver, alpha=0.0,
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
        return self.row.layers[-1] == 2 and not self.row.is_regression

    def steps(self, n: int) -> None:
        x, y = self.first_batch
        for _ in range(n):
            self.model.partial_fit(x, y)

    def epochs(self, n: int) -> None:
        self.model.set_params(max_iter=n)
        self._fit(self.x, self.y)

    def _fit(self, x: Floats, y: Targets) -> None:
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


OURS: tuple[type[AbstractContender], ...] = (OursOnNumPy, OursOnNumba)
