"""The plan of a run: settings, data, network and trainer, before anything is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from nnbackend.backend import Backend
from nnbackend.cli.parts import (
    Parts,
    read_data,
    resolve_sources,
    split_test,
    split_validation,
)
from nnbackend.config import Settings
from nnbackend.data import Dataset
from nnbackend.distributed import Communicator
from nnbackend.errors import ArgumentError
from nnbackend.model.building import build_trainer, complete, with_threshold
from nnbackend.model.model import Model
from nnbackend.network.network import Network
from nnbackend.training.loop import Trainer
from nnbackend.training.preparation import Validation


@dataclass
class Plan:
    """The validated parts of a run, before anything is written."""

    settings: Settings
    data: Dataset
    parts: Parts
    net: Network
    trainer: Trainer

    @property
    def model(self) -> Model:
        """The model: the network, and the preprocessing and threshold of the run."""
        data, rule = self.trainer.data, self.settings.threshold
        model = Model.from_parts(self.net, data.preprocessing)
        return model if rule is None else with_threshold(model, rule, data)


@dataclass(frozen=True)
class Source:
    """The data of a run, read once, and the settings that name it."""

    settings: Settings
    data: Dataset
    parts: Parts
    validation: Validation


def read(settings: Settings) -> Source:
    """Read the data of settings and split it."""
    data = read_data(settings)
    source = source_of(data, split_test(data, settings), settings)
    has_others = source.parts.test is not None or source.validation is not None
    if settings.target_accuracy is not None and not has_others:
        raise ArgumentError(
            "--target-accuracy needs rows that training does not use. Received: no test and no "
            "validation part. Add --test or --validation."
        )
    return replace(source, settings=resolve_sources(settings, data))


def source_of(data: Dataset, parts: Parts, settings: Settings) -> Source:
    """Return the source of a run on parts of data, whose training rows it divides."""
    training, held_out = split_validation(parts.training, settings)
    share: Any = settings.validation or None
    validation = share if held_out is None else (held_out.x, held_out.y)
    return Source(settings, data, replace(parts, training=training), validation)


def plan(
    source: Source,
    settings: Settings,
    backend: Backend,
    communicator: Communicator | None = None,
) -> Plan:
    """Return the plan of a run on data already read; settings name the same data."""
    training = source.parts.training
    settings = complete(settings, training, backend)
    trainer = build_trainer(settings, training, source.validation, backend, communicator)
    return Plan(settings, source.data, source.parts, trainer.net, trainer)


def fit_fold(training: Dataset, settings: Settings, backend: Backend) -> Model:
    """Return the model of settings for the rows of a fold.

    Raises: KeyboardInterrupt if Ctrl-C has ended the training.
    """
    run = plan(source_of(training, Parts(training, None), settings), settings, backend)
    history = run.trainer.run()
    if history.stop_reason == "interrupted":
        raise KeyboardInterrupt
    if history.rows:
        run.trainer.state.restore_best()
    return run.model


def prepare(settings: Settings, backend: Backend, communicator: Communicator | None = None) -> Plan:
    """Read the data and build network and trainer; raises the errors of all settings."""
    source = read(settings)
    return plan(source, source.settings, backend, communicator)
