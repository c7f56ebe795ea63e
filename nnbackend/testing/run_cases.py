"""Whole training runs as plain data: a few words and numbers that print as a short program.

`nnbackend.testing.strategies` draws them, `nnbackend.testing.run_properties` checks them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from nnbackend.backend import Backend
from nnbackend.backend.formulas import Array, Namespace
from nnbackend.devices import get_backend
from nnbackend.model.model import Model
from nnbackend.network.activations import Activation
from nnbackend.network.initializers import normal
from nnbackend.network.layers import AbstractLayer, Dense, Dropout, Maxout
from nnbackend.network.network import Network
from nnbackend.testing.ghost import GhostBackend
from nnbackend.testing.reference import ReferenceBackend
from nnbackend.training.callbacks import Callback
from nnbackend.training.early_stopping import EarlyStopping
from nnbackend.training.history import History

# Words of `RunCase.data`, which change the rows drawn from the seed.
DATA_WORDS = ("constant", "duplicates", "far", "large", "one class", "one-hot", "same rows")
# Words of data that a device must refuse.
FAULTS = ("nan", "infinite", "missing row", "extra column", "negative weight", "bad target")
FAR = 1e6  # offset of the first column under "far"
LARGE = 30.0  # factor of the last column under "large"
BIASES = normal(0.3)  # not zero: rows of zeros would be at the kink of relu
TEST_DEVICES = {"reference": ReferenceBackend, "ghost": GhostBackend}


def _wave(z: Array, xp: Namespace) -> Array:
    return xp.sin(z) + 0.5 * z


def _wave_slope(z: Array, a: Array, xp: Namespace) -> Array:
    return xp.cos(z) + 0.5


WAVE = Activation("wave", _wave, _wave_slope)  # stands for custom activations


@dataclass
class RunData:
    """Raw rows x (n, n_in), targets y (n,) or (n, n_out), and sample weights (n,) or None."""

    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None = None


@dataclass(frozen=True)
class RunResult:
    """The result of a run: parameters, history without seconds, and outputs for its rows."""

    theta: np.ndarray
    columns: dict[str, list[float]]
    stop_reason: str
    outputs: np.ndarray


@dataclass(frozen=True)
class RunCase:
    """One training run: a network, data, options and devices.

    layers: "tanh:4" is Dense(4, "tanh"), "maxout:3:2" Maxout(3, n_pieces=2), "dropout:0.3"
    Dropout(0.3), "wave:4" a layer with a custom activation.
    data: words of DATA_WORDS and FAULTS.  weights: "", "random" or "some zero".
    options: keywords of `nnbackend.train`; early_stopping is a dictionary of its parameters.
    devices: the two devices to compare; "reference" and "ghost" are those of nnbackend.testing.
    stops: steps after which the run is interrupted, or crashes if negative.
    part: the most rows of a step that fit the memory.
    >>> RunCase(layers=("tanh:2",), options={"l2": 0.1})
    RunCase(layers=('tanh:2',), options={'l2': 0.1})
    >>> RunCase(layers=("tanh:2",)).run("numpy").theta.shape
    (4,)
    """

    n_in: int = 1
    layers: tuple[str, ...] = ("identity:1",)
    loss: str = "quadratic"
    rows: int = 1
    data: tuple[str, ...] = ()
    weights: str = ""
    seed: int = 0
    dtype: str = "float64"
    scale: str | None = None
    scale_targets: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    devices: tuple[str, str] = ("numpy", "reference")
    stops: tuple[int, ...] = ()
    part: int | None = None

    def __repr__(self) -> str:
        default = RunCase()
        given = ((f.name, getattr(self, f.name)) for f in fields(self))
        shown = [f"{name}={v!r}" for name, v in given if v != getattr(default, name)]
        return f"RunCase({', '.join(shown)})"

    def program(self, check: str) -> str:
        """Return a program of a few lines that checks one property of this run."""
        return (
            "from nnbackend.testing.run_cases import RunCase\n"
            f"from nnbackend.testing.run_properties import {check}\n\n"
            f"{check}({self!r})\n"
        )

    # ---- its parts ------------------------------------------------------------------------------

    @property
    def has_labels(self) -> bool:
        """Whether the targets are class codes."""
        return self.loss.startswith("cross_entropy") and "one-hot" not in self.data

    @property
    def n_out(self) -> int:
        """The number of outputs."""
        return int(self.layers[-1].split(":")[1])

    def network(self, device: str | Backend, dtype: str | None = None) -> Network:
        """Return the untrained network. Raises: NNBackendError for layers that are refused."""
        layers: list[int | AbstractLayer] = [self.n_in, *(layer_of(word) for word in self.layers)]
        return Network(
            layers, self.loss, device=device_of(device), dtype=dtype or self.dtype, seed=self.seed
        )

    def model(self, network: Network) -> Model:
        """Return a model of a network, with the case's scaling."""
        classes = range(max(self.n_out, 2)) if self.has_labels else None
        return Model(network, scale=self.scale, scale_targets=self.scale_targets, classes=classes)

    def draw_data(self) -> RunData:
        """Return the rows, targets and weights, which the seed determines."""
        rng = np.random.Generator(np.random.Philox(self.seed))
        x = rng.standard_normal((self.rows, self.n_in))
        y = self._targets(rng)
        weight = rng.random(self.rows) + 0.5 if self.weights else None
        if weight is not None and self.weights == "some zero":
            weight[1::3] = 0.0
        if "constant" in self.data:
            x[:, 0] = 3.0
        if "large" in self.data:
            x[:, -1] *= LARGE
        if "far" in self.data:
            x[:, 0] += FAR
        if "same rows" in self.data:
            x[...] = x[0]
        if "duplicates" in self.data:
            half = self.rows // 2
            x[half : 2 * half], y[half : 2 * half] = x[:half], y[:half]
        return self._spoiled(RunData(x.astype(self.dtype).astype(float), y, weight))

    def _spoiled(self, data: RunData) -> RunData:
        """Return data with the case's faults."""
        for word in self.data:
            if word == "nan":
                data.x[-1, -1] = np.nan
            elif word == "infinite":
                data.x[0, 0] = -np.inf
            elif word == "missing row":
                data.y = data.y[1:]
            elif word == "extra column":
                data.x = np.ones((self.rows, self.n_in + 1))
            elif word == "negative weight":
                data.weight = np.full(self.rows, -0.5)
            elif word == "bad target":
                data.y = data.y + self.n_out + 5 if self.has_labels else data.y * np.nan
        return data

    def _targets(self, rng: np.random.Generator) -> np.ndarray:
        n, n_out, name = self.rows, self.n_out, self.loss.partition(":")[0]
        if name == "cross_entropy":
            codes = rng.integers(0, max(n_out, 2), n)
            codes = np.zeros_like(codes) if "one class" in self.data else codes
            return codes if self.has_labels else np.eye(n_out)[codes % n_out]
        if name == "binary_cross_entropy":
            ones = rng.integers(0, 2, (n, n_out)).astype(float)
            return np.ones_like(ones) if "one class" in self.data else ones
        counts = rng.integers(0, 4, (n, n_out)).astype(float)
        return counts if name == "poisson" else counts + rng.standard_normal((n, n_out)) / 4

    def keywords(self) -> dict[str, Any]:
        """Return the keywords of `Model.fit`."""
        options = {"epochs": 2, "seed": self.seed, **self.options}
        if "early_stopping" in options:
            options["early_stopping"] = EarlyStopping(**options["early_stopping"])
        return options

    # ---- its run --------------------------------------------------------------------------------

    def run(self, device: str | Backend) -> RunResult:
        """Train on a device. Raises: NNBackendError for a case that is refused."""
        return self.fit(self.model(self.network(device)), self.draw_data())

    def fit(
        self, model: Model, data: RunData, callbacks: Sequence[Callback] = (), **options: Any
    ) -> RunResult:
        """Train a model of this case on data; return the result."""
        given = self.keywords() | options
        history = model.fit(data.x, data.y, sample_weight=data.weight, callbacks=callbacks, **given)
        return result_of(model, history, data.x)

    def changed(self, **parts: Any) -> RunCase:
        """Return a case with some parts changed; `options` are added to those of the case."""
        parts["options"] = self.options | parts.get("options", {})
        return replace(self, **parts)


def result_of(model: Model, history: History, x: np.ndarray) -> RunResult:
    """Return the result of a run that has ended."""
    net = model.network
    names = [name for name in (history.rows[0] if history.rows else ()) if name != "seconds"]
    return RunResult(
        net.backend.to_host(net.theta), {name: history[name] for name in names},
        history.stop_reason, model.outputs(x),
    )  # fmt: skip


def layer_of(word: str) -> AbstractLayer:
    """Return the layer of a word such as "tanh:4"."""
    kind, *numbers = word.split(":")
    if kind == "dropout":
        return Dropout(float(numbers[0]))
    if kind == "maxout":
        return Maxout(int(numbers[0]), int(numbers[1]), biases=BIASES)
    return Dense(int(numbers[0]), WAVE if kind == WAVE.name else kind, biases=BIASES)


def device_of(device: str | Backend) -> Backend:
    """Return the backend of a device, or of a name of TEST_DEVICES."""
    if isinstance(device, str) and device in TEST_DEVICES:
        made: Backend = TEST_DEVICES[device]()
        return made
    return get_backend(device)
