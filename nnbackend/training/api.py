"""`nnbackend.train`: check options and data once, then run the training loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from nnbackend.config import TrainOptions
from nnbackend.data.preprocessing import Preprocessing
from nnbackend.data.row_order import shuffle_for
from nnbackend.data.scalers import Scaler
from nnbackend.data.stream import Stream
from nnbackend.distributed import as_communicator
from nnbackend.errors import ArgumentError
from nnbackend.network.network import Network
from nnbackend.options import keywords_of
from nnbackend.training.callbacks import Callback, check_callbacks
from nnbackend.training.config import TrainConfig
from nnbackend.training.history import History
from nnbackend.training.loop import Trainer
from nnbackend.training.preparation import Validation, prepare_data
from nnbackend.training.streaming import check_stream_options, prepare_stream


@dataclass(kw_only=True)
class FitOptions(TrainOptions):
    """The keywords of `train` and of `Model.fit`."""

    validation: Validation = None
    sample_weight: Any = None
    callbacks: Sequence[Callback] = ()
    communicator: Any = None


@keywords_of(FitOptions)
def train(net: Network, x: Any, y: Any, options: FitOptions) -> History:
    """Train a network on rows x (n, n_in) with targets y; return the history.

    For text labels, scaling and tables with text use `nnbackend.Model`.
    x: an array, a table of numbers (pandas, polars, Arrow), a SciPy sparse matrix, rows of files
    from `nnbackend.data.load`, or an `nnbackend.data.Stream`, for which y is None.
    y: class codes (n,), from 0; or targets (n,) or (n, n_out).
    validation: (x, y), (x, y, sample_weight), or the fraction of the rows to hold out.
    sample_weight: (n,).  callbacks: a list of `nnbackend.Callback`.
    communicator: `nnbackend.distributed.world()` or one of mpi4py, for a run on several processes,
    all of which make this call; only the first one calls the callbacks.
    {options}
    Names of formulas may be objects too, and a schedule a function of the step.
    The history's train_loss is the mean over the epoch's steps, without penalties.
    Ctrl-C ends training after the current step, with history.stop_reason "interrupted".
    Raises: DataError or ShapeError for invalid data; ArgumentError for invalid options, all at
    once; DivergedError, with the best weights restored, when the loss is no longer finite.
    >>> net = Network([2, 8, 1], activation="tanh", device="numpy")
    >>> history = train(net, [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0], epochs=2)
    >>> len(history), history.stop_reason
    (2, 'epochs')
    """
    return new_trainer(
        net, x, y, TrainConfig.of(options),
        sample_weight=options.sample_weight, validation=options.validation,
        callbacks=options.callbacks, communicator=options.communicator,
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
    communicator: Any = None,
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
    monitor = config.early_stopping.monitor if config.early_stopping else None
    if isinstance(x, Stream):
        check_stream_options(y, sample_weight, validation, config)
        data = prepare_stream(
            net, x, validation, preprocessing=preprocessing, scale=scale,
            scale_targets=scale_targets, monitor=monitor,
        )  # fmt: skip
    else:
        data = prepare_data(
            net, x, y, sample_weight, validation, preprocessing=preprocessing, scale=scale,
            scale_targets=scale_targets, seed=config.seed, monitor=monitor,
        )  # fmt: skip
    config = replace(config, shuffle=shuffle_for(config.shuffle, data.stream or data.x, net.n_in))
    return Trainer(net, data, config, callbacks, as_communicator(communicator))
