"""`nnbackend.train`: check options and data once, then run the training loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnbackend.data.preprocessing import Preprocessing
from nnbackend.data.scalers import Scaler
from nnbackend.errors import ArgumentError
from nnbackend.network.network import Network
from nnbackend.training.callbacks import Callback, check_callbacks
from nnbackend.training.config import TrainConfig
from nnbackend.training.early_stopping import EarlyStopping
from nnbackend.training.history import History
from nnbackend.training.loop import Trainer
from nnbackend.training.preparation import Validation, prepare_data
from nnbackend.training.schedules import AnySchedule


def train(
    net: Network,
    x: Any,
    y: Any,
    *,
    optimizer: Any = "adam",
    epochs: int = 20,
    batch_size: int | None = 128,
    validation: Validation = None,
    shuffle: bool = True,
    sample_weight: Any = None,
    l1: float = 0.0,
    l2: float = 0.0,
    weight_decay: float = 0.0,
    max_norm: float | Sequence[float | None] | None = None,
    clip_norm: float | None = None,
    ema: float | None = None,
    schedule: str | AnySchedule | None = None,
    momentum_schedule: str | AnySchedule | None = None,
    early_stopping: EarlyStopping | None = None,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
) -> History:
    """Train a network on rows x (n, n_in) with targets y; return the history.

    For text labels, scaling and tables with text use `nnbackend.Model`.
    x: an array, a table of numbers (pandas, polars, Arrow) or a SciPy sparse matrix.
    y: class codes (n,), from 0; or targets (n,) or (n, n_out).
    optimizer: a name or an object: sgd, adagrad, rmsprop, adadelta, adam, adamw, lbfgs.
    batch_size: rows per step; None for all rows, 1 for stochastic gradient descent.
    validation: (x, y), (x, y, sample_weight), or the fraction of the rows to hold out.
    l1, l2: penalties in the loss, l1 sum |w| + l2/2 sum w^2.
    weight_decay: decoupled decay in each step, w *= 1 - lr weight_decay.
    max_norm: limit on the norm of each unit's incoming weights, one number or one per layer.
    clip_norm: limit on the norm of the gradient.
    ema: decay of a running average of the weights, which is validated and returned.
    schedule, momentum_schedule: names or objects of `nnbackend.schedules`, or functions of a step.
    seed: seed of the shuffling, the validation split and dropout.
    The history's train_loss is the mean over the epoch's steps, without penalties.
    Ctrl-C ends training after the current step, with history.stop_reason "interrupted".
    Raises: DataError or ShapeError for invalid data; ArgumentError for invalid options;
    DivergedError, with the best weights restored, when the loss is no longer finite.
    >>> net = Network([2, 8, 1], activation="tanh", device="numpy")
    >>> history = train(net, [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0], epochs=2)
    >>> len(history), history.stop_reason
    (2, 'epochs')
    """
    config = TrainConfig(
        optimizer=optimizer, epochs=epochs, batch_size=batch_size, shuffle=shuffle, l1=l1, l2=l2,
        weight_decay=weight_decay, max_norm=max_norm, clip_norm=clip_norm, ema=ema,
        schedule=schedule, momentum_schedule=momentum_schedule, early_stopping=early_stopping,
        seed=seed,
    )  # fmt: skip
    return new_trainer(
        net, x, y, config,
        sample_weight=sample_weight, validation=validation, callbacks=callbacks,
    ).run()  # fmt: skip


def new_trainer(
    net: Network,
    x: Any,
    y: Any,
    config: TrainConfig,
    *,
    sample_weight: Any = None,
    validation: Validation = None,
    preprocessing: Preprocessing | None = None,
    scale: str | Scaler | None = None,
    scale_targets: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Trainer:
    """Return the Trainer of a run, with options and data checked.

    preprocessing, scale, scale_targets: see `prepare_data`; the others: see `train`.
    """
    if not isinstance(net, Network):
        raise ArgumentError(
            f"net must be an nnbackend.Network. Received: {type(net).__name__}. A Model and an "
            "estimator have a method fit."
        )
    config, callbacks = config.checked(net), check_callbacks(callbacks)
    data = prepare_data(
        net, x, y, sample_weight, validation,
        preprocessing=preprocessing, scale=scale, scale_targets=scale_targets, seed=config.seed,
        monitor=config.early_stopping.monitor if config.early_stopping else None,
    )  # fmt: skip
    return Trainer(net, data, config, callbacks)
