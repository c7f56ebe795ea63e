"""The plan of a run: settings, data, network and trainer, before anything is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from nnbackend.backend import Backend
from nnbackend.cli.parts import (
    Parts,
    read_data,
    read_more,
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
    parts = split_test(data, settings)
    training, held_out = split_validation(parts.training, settings)
    parts = replace(parts, training=training)
    validation: Any = settings.validation or None
    if held_out is not None:
        validation = held_out.x, held_out.y
    if isinstance(validation, str):
        part = read_more(validation, parts.training, settings)
        validation = part.x, part.y
    if settings.target_accuracy is not None and parts.test is None and validation is None:
        raise ArgumentError(
            "--target-accuracy needs rows that training does not use. Received: no test and no "
            "validation part. Add --test or --validation."
        )
    return Source(resolve_sources(settings, data), data, parts, validation)


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


def fit_fold(source: Source, training: Dataset, backend: Backend) -> Model:
    """Return the model of the settings for other training rows.

    Raises: KeyboardInterrupt if Ctrl-C has ended the training.
    """
    settings = source.settings
    rest, held_out = split_validation(training, settings)
    validation = source.validation
    if isinstance(settings.validation, str):  # its features are fitted to the training rows
        held_out = read_more(settings.validation, rest, settings)
    if held_out is not None:
        validation = held_out.x, held_out.y
    parts = Parts(rest, None)
    run = plan(replace(source, parts=parts, validation=validation), settings, backend)
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
