"""Multilayer perceptrons on NumPy, numba or CuPy, selected at run time.

    import nnbackend as nn

    net = nn.Network([784, 100, 10], loss="cross_entropy", device="cpu")
    history = nn.train(net, x, y, epochs=20, validation=0.1)

The names in `__all__` are the public API; each is imported on first access.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_MODULES = {
    "Activation": "network.activations",
    "AdaDelta": "training.optimizers",
    "AdaGrad": "training.optimizers",
    "Adam": "training.optimizers",
    "AdamW": "training.optimizers",
    "Backend": "backend",
    "Callback": "training.callbacks",
    "Checkpoints": "persistence.checkpoints",
    "Dense": "network.layers",
    "DeviceLostError": "errors",
    "DeviceMemoryError": "errors",
    "Dropout": "network.layers",
    "EarlyStopping": "training.early_stopping",
    "Gradient": "network.network",
    "History": "training.history",
    "LBFGS": "training.lbfgs",
    "Loss": "network.losses",
    "MLPClassifier": "estimators",
    "MLPRegressor": "estimators",
    "Maxout": "network.layers",
    "Model": "model.model",
    "NNBackendError": "errors",
    "Network": "network.network",
    "RMSProp": "training.optimizers",
    "SGD": "training.optimizers",
    "TabularMLPClassifier": "estimators",
    "TabularMLPRegressor": "estimators",
    "TensorBoard": "persistence.tensorboard",
    "Trace": "network.network",
    "activations": "network.activations",
    "backends": "devices",
    "check_gradients": "testing.gradient_check",
    "data": "data",
    "distributed": "distributed",
    "errors": "errors",
    "export": "model.exporting",
    "get_backend": "devices",
    "initializers": "network.initializers",
    "live": "live_page.api",
    "load": "model.model",
    "losses": "network.losses",
    "resume": "model.resuming",
    "schedules": "training.schedules",
    "train": "training.api",
    "tune": "search.api",
}

__all__ = sorted(_MODULES)

if TYPE_CHECKING:
    from nnbackend import data as data
    from nnbackend import distributed as distributed
    from nnbackend import errors as errors
    from nnbackend.backend import Backend as Backend
    from nnbackend.devices import backends as backends
    from nnbackend.devices import get_backend as get_backend
    from nnbackend.errors import DeviceLostError as DeviceLostError
    from nnbackend.errors import DeviceMemoryError as DeviceMemoryError
    from nnbackend.errors import NNBackendError as NNBackendError
    from nnbackend.estimators import MLPClassifier as MLPClassifier
    from nnbackend.estimators import MLPRegressor as MLPRegressor
    from nnbackend.estimators import TabularMLPClassifier as TabularMLPClassifier
    from nnbackend.estimators import TabularMLPRegressor as TabularMLPRegressor
    from nnbackend.live_page.api import live as live
    from nnbackend.model.exporting import export as export
    from nnbackend.model.model import Model as Model
    from nnbackend.model.model import load as load
    from nnbackend.model.resuming import resume as resume
    from nnbackend.network import activations as activations
    from nnbackend.network import initializers as initializers
    from nnbackend.network import losses as losses
    from nnbackend.network.activations import Activation as Activation
    from nnbackend.network.layers import Dense as Dense
    from nnbackend.network.layers import Dropout as Dropout
    from nnbackend.network.layers import Maxout as Maxout
    from nnbackend.network.losses import Loss as Loss
    from nnbackend.network.network import Gradient as Gradient
    from nnbackend.network.network import Network as Network
    from nnbackend.network.network import Trace as Trace
    from nnbackend.persistence.checkpoints import Checkpoints as Checkpoints
    from nnbackend.persistence.tensorboard import TensorBoard as TensorBoard
    from nnbackend.search.api import tune as tune
    from nnbackend.testing.gradient_check import check_gradients as check_gradients
    from nnbackend.training import schedules as schedules
    from nnbackend.training.api import train as train
    from nnbackend.training.callbacks import Callback as Callback
    from nnbackend.training.early_stopping import EarlyStopping as EarlyStopping
    from nnbackend.training.history import History as History
    from nnbackend.training.lbfgs import LBFGS as LBFGS
    from nnbackend.training.optimizers import SGD as SGD
    from nnbackend.training.optimizers import AdaDelta as AdaDelta
    from nnbackend.training.optimizers import AdaGrad as AdaGrad
    from nnbackend.training.optimizers import Adam as Adam
    from nnbackend.training.optimizers import AdamW as AdamW
    from nnbackend.training.optimizers import RMSProp as RMSProp


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'nnbackend' has no attribute {name!r}")
    module = importlib.import_module(f"nnbackend.{_MODULES[name]}")
    # The name is the module itself if it is the last part of the path, else an attribute of it.
    is_module = _MODULES[name].rpartition(".")[2] == name and name != "backends"
    value = module if is_module else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
