"""`nnbackend bench`: steps per second on this machine, beside other libraries where asked."""

from __future__ import annotations

from nnbackend.bench.cli import add_arguments as configure
from nnbackend.bench.cli import run

__all__ = ["configure", "run"]
