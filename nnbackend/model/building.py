"""Build a network and its trainer from settings and data, and fill in data-dependent defaults.

The command line and the search for settings use it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from nnbackend.backend import Backend
from nnbackend.config import SETTINGS, Settings
from nnbackend.data import Dataset, default_scaler_kind
from nnbackend.data.preprocessing import Preprocessing
from nnbackend.distributed import Communicator
from nnbackend.errors import ArgumentError, Fault, Mention
from nnbackend.metrics import METRICS, is_pinball
from nnbackend.model.class_weights import class_weights
from nnbackend.model.model import Model
from nnbackend.model.thresholds import as_number, choose_threshold
from nnbackend.named import FAMILIES, Family, make_named
from nnbackend.network.activations import ACTIVATIONS, get_activation
from nnbackend.network.layers import AbstractLayer, Dense, Dropout, Maxout
from nnbackend.network.losses import OUTPUT_ACTIVATIONS, get_loss
from nnbackend.network.network import Network
from nnbackend.options import all_of, raise_all
from nnbackend.training.api import new_trainer
from nnbackend.training.config import TrainConfig
from nnbackend.training.early_stopping import EarlyStopping
from nnbackend.training.loop import Trainer
from nnbackend.training.optimizers import get_optimizer
from nnbackend.training.preparation import TrainingData, Validation

# Valid losses of each task; the first is the default.
LOSSES_OF: dict[str, tuple[str, ...]] = {
    "classification": ("cross_entropy", "binary_cross_entropy", "quadratic", "absolute", "huber"),
    "regression": (
        *("quadratic", "absolute", "huber", "quantile", "poisson"),
        "binary_cross_entropy",  # several yes-or-no targets per row
    ),
}
# Losses of distances in the target's units: scaling the target helps and keeps their meaning.
SCALES_TARGETS = ("quadratic", "absolute", "huber", "quantile")
NEVER = 10**9  # patience that disables early stopping
WIDE, WIDE_RATE = 128, 0.2  # least units of a layer with dropout by default, and its rate


def parse(name: str, text: str) -> Any:
    """Return the value of an option's text. Raises: ArgumentError."""
    kind = SETTINGS[name].kind
    expected = kind.in_text or kind.expected
    try:
        return kind.parse(text)
    except ArgumentError as error:  # of a name with parameters
        raise_all(
            replace(fault, option=name, expected=expected) if fault.option in FAMILIES else fault
            for fault in error.faults
        )
        raise
    except ValueError as error:
        # Messages of int() and float() are about Python; only our messages are shown.
        why = (str(error),) if str(error).startswith("Known") else ()
        raise ArgumentError(Fault(name, expected, text, why)) from None


def complete(settings: Settings, data: Dataset, backend: Backend) -> Settings:
    """Fill in the data-dependent defaults, so that the settings alone define the run.

    Raises: ArgumentError for incompatible settings.
    """
    assert data.task is not None
    loss = settings.loss or LOSSES_OF[data.task][0]
    name = _name_of_optimizer(settings)
    _, _, _, _, rate, momentum = all_of(
        lambda: _check_loss(loss, data),
        lambda: class_weights(settings.class_weight, data.y, data.classes),
        lambda: check_threshold(settings, data),
        lambda: _check_hyperparameters(name, settings.learning_rate, settings.momentum),
        lambda: None if name == "lbfgs" else _given_or_own("learning_rate", settings),
        lambda: _given_or_own("momentum", settings) if name == "sgd" else None,
    )
    return replace(
        settings,
        task=data.task,
        loss=loss,
        output_activation=settings.output_activation or _output_activation(loss, data),
        learning_rate=rate,
        momentum=momentum,
        schedule=settings.schedule or ("constant" if name == "lbfgs" else "cosine"),
        batch_size=None if name == "lbfgs" else settings.batch_size,
        scale=_scale(data) if settings.scale in (None, "auto") else settings.scale,
        dropout=_dropout(settings) if settings.dropout is None else settings.dropout,
        monitor=_monitor(settings),
        device=backend.device,
        precision=settings.precision or backend.precision,
    )


def _monitor(settings: Settings) -> str:
    """Return the column that selects the best epoch; roc_auc means valid_roc_auc."""
    if settings.monitor is None:
        return "train_loss" if settings.validation == 0.0 else "valid_loss"
    is_metric = settings.monitor in METRICS or is_pinball(settings.monitor)
    return f"valid_{settings.monitor}" if is_metric else settings.monitor


def _check_hyperparameters(optimizer: str, rate: float | None, momentum: float | None) -> None:
    """Raise ArgumentError for hyperparameters that the optimizer does not have."""
    if optimizer == "lbfgs" and rate is not None:
        raise ArgumentError(
            "L-BFGS has no learning rate: it finds its step lengths by line search. Received: ",
            Mention("learning_rate", rate), ". Omit it.",
        )  # fmt: skip
    if optimizer != "sgd" and momentum is not None:
        raise ArgumentError(
            Mention("momentum"), " is for sgd. Received: ", Mention("momentum", momentum), " with ",
            Mention("optimizer", optimizer), ". Omit it, or use ", Mention("optimizer", "sgd"), ".",
        )  # fmt: skip


def _name_of_optimizer(settings: Settings) -> str:
    """Return the optimizer's name without its parameters."""
    name: str = settings.optimizer.partition(":")[0]
    return name


def _given_or_own(option: str, settings: Settings) -> float:
    """Return a hyperparameter: the option's, or else that of the optimizer's text.

    Raises: ArgumentError if both have one, and they differ.
    """
    given, optimizer = getattr(settings, option), settings.optimizer
    own: float = getattr(get_optimizer(optimizer), option)
    default: float = getattr(get_optimizer(_name_of_optimizer(settings)), option)
    if given not in (None, own) and own != default:
        raise ArgumentError(
            Mention(option), " must be given once. Received: ", Mention(option, given), " and ",
            Mention("optimizer", optimizer), ". Remove one of them.",
        )  # fmt: skip
    return own if given is None else given


def _scale(data: Dataset) -> str:
    """Return "unit" for images of bytes, else "robust", which resists outliers."""
    return "unit" if default_scaler_kind(data.x) == "unit" else "robust"


def _dropout(settings: Settings) -> tuple[float, ...]:
    """Return the default rate of each hidden layer: only wide layers get dropout."""
    if _name_of_optimizer(settings) == "lbfgs" or not settings.hidden:
        return (0.0,)
    return tuple(WIDE_RATE if width >= WIDE else 0.0 for width in settings.hidden)


def _check_loss(loss: str, data: Dataset) -> None:
    """Raise ArgumentError for a loss that does not suit the target."""
    assert data.task is not None
    name, known = loss.partition(":")[0], LOSSES_OF[data.task]
    if name not in known:
        cure = "Set ", Mention("task"), " if the detected task is wrong."
        expected = f"one for a {data.task} target: {', '.join(known)}"
        raise ArgumentError(Fault("loss", expected, loss, cure))
    if name == "binary_cross_entropy" and (data.n_classes or 2) > 2:
        raise ArgumentError(
            Mention("loss", name), " needs two classes, or several yes-or-no targets per row. "
            f"Received: one label of {data.n_classes} classes per row. Use cross_entropy.",
        )  # fmt: skip


def _output_activation(loss: str, data: Dataset) -> str:
    """Return the output activation that suits a loss."""
    name = loss.partition(":")[0]
    if name in OUTPUT_ACTIVATIONS:
        return OUTPUT_ACTIVATIONS[name]
    # Distances to one-hot rows: outputs between 0 and 1.
    return "sigmoid" if data.task == "classification" else "identity"


def build_network(settings: Settings, data: Dataset, backend: Backend) -> Network:
    """Build the network of completed settings."""
    n = len(settings.hidden)
    activations, rates = all_of(
        lambda: _one_for_each(settings.activation, n, "activation"),
        lambda: _one_for_each(settings.dropout or (0.0,), n, "dropout"),
    )
    layers: list[int | AbstractLayer] = [data.n_features]
    for width, activation, rate in zip(settings.hidden, activations, rates, strict=True):
        layers.append(_hidden_layer(width, activation))
        if rate:
            layers.append(Dropout(rate))
    loss, output = get_loss(settings.loss or ""), get_activation(settings.output_activation or "")
    layers.append(Dense(_n_outputs(data, loss.name), output))
    return Network(
        layers, loss,
        device=backend, dtype=settings.dtype, precision=settings.precision, seed=settings.seed,
    )  # fmt: skip


def build_config(settings: Settings) -> TrainConfig:
    """Return the TrainConfig of completed settings. The caller restores the best weights."""
    optimizer: Any = get_optimizer(settings.optimizer)
    own = {"learning_rate": settings.learning_rate, "momentum": settings.momentum}
    optimizer = replace(optimizer, **{k: v for k, v in own.items() if v is not None})
    # Without patience, training does not stop early, but the monitor still selects the best epoch.
    patience = settings.patience or NEVER
    return replace(
        TrainConfig.of(settings),
        optimizer=optimizer,
        schedule=None if settings.schedule == "constant" else settings.schedule,
        early_stopping=EarlyStopping(patience, settings.monitor, restore_best=False),
    )


def build_trainer(
    settings: Settings,
    data: Dataset,
    validation: Validation,
    backend: Backend,
    communicator: Communicator | None = None,
) -> Trainer:
    """Return the trainer of completed settings for training rows."""
    net = build_network(settings, data, backend)
    weights = class_weights(settings.class_weight, data.y, data.classes)
    if weights is not None and isinstance(validation, tuple) and len(validation) == 2:
        validation = (*validation, weights[validation[1]])
    return new_trainer(
        net, data.x, data.y, build_config(settings),
        sample_weight=None if weights is None or data.y is None else weights[data.y],
        validation=validation,
        preprocessing=Preprocessing(
            classes=data.classes, columns=None if data.columns is None else data.columns.to_dict()
        ),
        scale=settings.scale,
        scale_targets=settings.task == "regression" and net.loss.name in SCALES_TARGETS,
        communicator=communicator,
    )  # fmt: skip


def check_threshold(settings: Settings, data: Dataset) -> None:
    """Raise ArgumentError for a threshold that cannot be chosen, or of other than two classes."""
    rule = settings.threshold
    if rule is None:
        return
    if data.n_classes != 2:
        what = f"{data.n_classes} classes" if data.n_classes else "values"
        raise ArgumentError(
            Mention("threshold"), f" is for two classes. Received: a target of {what}. Omit it."
        )
    if as_number(rule) is None and settings.validation == 0.0:
        raise ArgumentError(
            Mention("threshold", rule), " needs validation rows. Received: none. Use a number, or "
            "omit ", Mention("validation"), ".",
        )  # fmt: skip


def with_threshold(model: Model, rule: str, data: TrainingData) -> Model:
    """Return a model with a threshold: a number, or the best by a rule for the validation rows."""
    number = as_number(rule)
    if number is None:
        assert data.validation is not None
        x, y, _ = data.validation
        codes = y if y.ndim == 1 else y[:, -1]
        number = choose_threshold(codes.astype(np.int64), model.predict_proba(x)[:, 1], rule)
    model.threshold = number
    return model


def _hidden_layer(width: int, activation: str) -> AbstractLayer:
    made = make_named("hidden_activation", activation)
    return made(width) if isinstance(made, partial) else Dense(width, made)


def _maxout(n_pieces: int = 2) -> partial[Maxout]:
    return partial(Maxout, n_pieces=n_pieces)


HIDDEN = {name: make for name, make in ACTIVATIONS.items() if name != "softmax"}
FAMILIES["hidden_activation"] = Family({**HIDDEN, "maxout": _maxout}, "names of activations")


def _n_outputs(data: Dataset, loss: str) -> int:
    if data.n_classes is not None:
        return 1 if loss == "binary_cross_entropy" else data.n_classes
    assert data.y is not None
    return 1 if data.y.ndim == 1 else int(data.y.shape[1])


def _one_for_each(given: tuple[Any, ...], n: int, option: str) -> tuple[Any, ...]:
    if len(given) == 1:
        return given * n
    if len(given) != n:
        expected = f"one value, or one for each of the {n} hidden layers"
        raise ArgumentError(Fault(option, expected, given))
    return given
