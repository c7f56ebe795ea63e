"""A model: preprocessing, network and labels, for raw rows and tables."""

from nnbackend.model.model import Model
from nnbackend.model.resuming import resume

__all__ = ["Model", "resume"]
