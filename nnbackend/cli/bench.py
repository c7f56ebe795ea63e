"""`nnbackend bench`: time per training step on this machine, and that of other libraries."""

from __future__ import annotations

from nnbackend.bench.cli import add_arguments as configure
from nnbackend.bench.cli import run

__all__ = ["configure", "run"]
