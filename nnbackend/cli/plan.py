"""The plan of a run: settings, data, network and trainer, before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nnbackend.backend import Backend
from nnbackend.cli.building import SCALES_TARGETS, build_config, build_network, complete
from nnbackend.cli.parts import Parts, read_data, read_more, resolve_sources, split_test
from nnbackend.config import Settings
from nnbackend.data import Dataset
from nnbackend.data.preprocessing import Preprocessing
from nnbackend.errors import ArgumentError
from nnbackend.model.model import Model
from nnbackend.network.network import Network
from nnbackend.training.api import new_trainer
from nnbackend.training.loop import Trainer


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
        """The model: the network, and the preprocessing of the run."""
        return Model.from_parts(self.net, self.trainer.data.preprocessing)


def prepare(settings: Settings, backend: Backend) -> Plan:
    """Read the data and build network and trainer; raises the errors of all settings."""
    data = read_data(settings)
    parts = split_test(data, settings)
    validation: Any = settings.validation or None
    if isinstance(validation, str):
        part = read_more(validation, parts.training, settings)
        validation = part.x, part.y
    if settings.target_accuracy is not None and parts.test is None and validation is None:
        raise ArgumentError(
            "--target-accuracy needs rows that training does not use. Received: no test and no "
            "validation part. Add --test or --validation."
        )
    settings = complete(resolve_sources(settings, data), parts.training, backend)
    net = build_network(settings, parts.training, backend)
    trainer = new_trainer(
        net, parts.training.x, parts.training.y, build_config(settings),
        validation=validation,
        preprocessing=Preprocessing(
            classes=data.classes, columns=None if data.columns is None else data.columns.to_dict()
        ),
        scale=settings.scale,
        scale_targets=settings.task == "regression" and net.loss.name in SCALES_TARGETS,
    )  # fmt: skip
    return Plan(settings, data, parts, net, trainer)
