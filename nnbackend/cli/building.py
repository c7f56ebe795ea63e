"""Build a network and a TrainConfig from settings and data, and fill in data-dependent defaults."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nnbackend.backend import Backend
from nnbackend.cli.settings import SCHEDULE_NAMES, Settings
from nnbackend.data import Dataset, default_scaler_kind
from nnbackend.errors import ArgumentError
from nnbackend.network.activations import get_activation
from nnbackend.network.layers import AbstractLayer, Dense, Dropout, Maxout
from nnbackend.network.losses import OUTPUT_ACTIVATIONS, get_loss
from nnbackend.network.network import Network
from nnbackend.suggestions import suggest
from nnbackend.training.config import TrainConfig
from nnbackend.training.early_stopping import EarlyStopping
from nnbackend.training.optimizers import get_optimizer
from nnbackend.training.schedules import SCHEDULES, Schedule

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


def complete(settings: Settings, data: Dataset, backend: Backend) -> Settings:
    """Fill in the data-dependent defaults, so that the settings alone define the run.

    Raises: ArgumentError for incompatible settings.
    """
    assert data.task is not None
    loss = settings.loss or LOSSES_OF[data.task][0]
    _check_loss(loss, data)
    optimizer = settings.optimizer
    rate, schedule = settings.learning_rate, settings.schedule
    if optimizer == "lbfgs" and rate is not None:
        raise ArgumentError(
            "--optimizer lbfgs has no learning rate: it finds its step lengths by line search. "
            f"Received: --learning-rate {rate:g}. Omit it."
        )
    if optimizer != "sgd" and settings.momentum is not None:
        raise ArgumentError(
            f"--momentum is for sgd. Received: --momentum with --optimizer {optimizer}. "
            "Omit --momentum, or use --optimizer sgd."
        )
    if rate is None:
        rate = getattr(get_optimizer(optimizer), "learning_rate", None)
    return replace(
        settings,
        task=data.task,
        loss=loss,
        output_activation=settings.output_activation or _output_activation(loss, data),
        learning_rate=rate,
        momentum=settings.momentum or 0.0 if optimizer == "sgd" else None,
        schedule=schedule or ("constant" if optimizer == "lbfgs" else "cosine"),
        batch_size="full" if optimizer == "lbfgs" else settings.batch_size,
        scale=_scale(data) if settings.scale in (None, "auto") else settings.scale,
        dropout=_dropout(settings) if settings.dropout is None else settings.dropout,
        monitor=settings.monitor or ("train_loss" if settings.validation == 0.0 else "valid_loss"),
        device=backend.device,
        precision=settings.precision or backend.precision,
    )


def _scale(data: Dataset) -> str:
    """Return "unit" for images of bytes, else "robust", which resists outliers."""
    return "unit" if default_scaler_kind(data.x) == "unit" else "robust"


def _dropout(settings: Settings) -> tuple[float, ...]:
    """Return the default rate of each hidden layer: only wide layers get dropout."""
    if settings.optimizer == "lbfgs" or not settings.hidden:
        return (0.0,)
    return tuple(WIDE_RATE if width >= WIDE else 0.0 for width in settings.hidden)


def _check_loss(loss: str, data: Dataset) -> None:
    """Raise ArgumentError for a loss that does not suit the target."""
    assert data.task is not None
    name, known = loss.partition(":")[0], LOSSES_OF[data.task]
    if name not in known:
        raise ArgumentError(
            f"--loss must suit a {data.task} target: {', '.join(known)}. Received: {loss!r}."
            " Set --task if the detected task is wrong."
        )
    if name == "binary_cross_entropy" and (data.n_classes or 2) > 2:
        raise ArgumentError(
            "--loss binary_cross_entropy needs two classes, or several yes-or-no targets per row. "
            f"Received: one label of {data.n_classes} classes per row. Use cross_entropy."
        )


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
    activations = _one_for_each(settings.activation, n, "--activation")
    rates = _one_for_each(settings.dropout or (0.0,), n, "--dropout")
    layers: list[int | AbstractLayer] = [data.n_features]
    for width, activation, rate in zip(settings.hidden, activations, rates, strict=True):
        layers.append(_hidden_layer(width, activation))
        if rate:
            layers.append(Dropout(rate))
    loss = get_loss(*_with_number(settings.loss or ""))
    output = get_activation(*_with_number(settings.output_activation or ""))
    layers.append(Dense(_n_outputs(data, loss.name), output))
    return Network(
        layers, loss,
        device=backend, dtype=settings.dtype, precision=settings.precision, seed=settings.seed,
    )  # fmt: skip


def build_config(settings: Settings) -> TrainConfig:
    """Return the TrainConfig of completed settings. The caller restores the best weights."""
    options: dict[str, Any] = {}
    if settings.learning_rate is not None:
        options["learning_rate"] = settings.learning_rate
    if settings.momentum:
        options["momentum"] = settings.momentum
    # Without patience, training does not stop early, but the monitor still selects the best epoch.
    patience = settings.patience or NEVER
    return TrainConfig(
        optimizer=get_optimizer(settings.optimizer, **options),
        epochs=settings.epochs,
        batch_size=None if isinstance(settings.batch_size, str) else settings.batch_size,
        l1=settings.l1,
        l2=settings.l2,
        weight_decay=settings.weight_decay,
        max_norm=settings.max_norm or None,
        clip_norm=settings.clip_norm or None,
        schedule=build_schedule(settings.schedule or "constant"),
        early_stopping=EarlyStopping(patience, settings.monitor, restore_best=False),
        seed=settings.seed,
    )


def build_schedule(text: str) -> Schedule | None:
    """Return the schedule of NAME or NAME:KEY=VALUE,...; None for constant.

    >>> build_schedule("step:every=5,gamma=0.5")
    Step(every=5, gamma=0.5)
    """
    name, _, numbers = text.partition(":")
    if name not in SCHEDULE_NAMES:
        raise ArgumentError(
            f"--schedule must be a known name. Received: {name!r}. {suggest(name, SCHEDULE_NAMES)}"
        )
    kind: Any = SCHEDULES[name]
    known = {
        key: about.default
        for key, about in kind.__dataclass_fields__.items()
        if not isinstance(about.default, Schedule)
    }
    options: dict[str, float] = {}
    for item in filter(None, numbers.split(",")):
        key, _, value = item.partition("=")
        if key not in known:
            choices = suggest(key, known) if known else "It has no parameters."
            raise ArgumentError(f"--schedule {name} has no parameter {key!r}. {choices}")
        try:
            options[key] = int(value) if isinstance(known[key], int) else float(value)
        except ValueError:
            raise ArgumentError(
                f"--schedule {name}: {key} must be a number. Received: {value!r}."
            ) from None
    schedule: Schedule = kind(**options)
    return None if name == "constant" else schedule


def _hidden_layer(width: int, activation: str) -> AbstractLayer:
    name, *numbers = _with_number(activation)
    if name == "maxout":
        pieces = numbers[0] if numbers else 2
        return Maxout(width, int(pieces) if float(pieces).is_integer() else pieces)
    return Dense(width, get_activation(name, *numbers))


def _with_number(text: str) -> tuple[Any, ...]:
    """Return ("huber", 2.0) for "huber:2", and ("huber",) for "huber"."""
    name, colon, number = text.partition(":")
    return (name, float(number)) if colon else (name,)


def _n_outputs(data: Dataset, loss: str) -> int:
    if data.n_classes is not None:
        return 1 if loss == "binary_cross_entropy" else data.n_classes
    assert data.y is not None
    return 1 if data.y.ndim == 1 else int(data.y.shape[1])


def _one_for_each(given: tuple[Any, ...], n: int, option: str) -> tuple[Any, ...]:
    if len(given) == 1:
        return given * n
    if len(given) != n:
        raise ArgumentError(
            f"{option} must be one value, or one for each of the {n} hidden layers. "
            f"Received: {len(given)} values."
        )
    return given
