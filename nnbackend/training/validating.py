"""The validation of an epoch."""

from __future__ import annotations

from typing import Protocol

from nnbackend.training.run import Run


class _Runner(Protocol):
    def can_free_memory(self) -> bool: ...

    def free_memory(self) -> None: ...


def validate(run: Run, runner: _Runner) -> dict[str, float]:
    """Evaluate the validation rows, which ranks share; free the memory of steps if needed."""
    data, scaler = run.data, run.data.preprocessing.scaler
    assert data.validation is not None
    ranks = None if run.ranks is None else run.ranks.communicator
    while True:
        try:
            return run.net.evaluate_prepared(
                *data.validation, data.score, scaler=scaler, theta=run.state.weights, ranks=ranks
            ) | data.measured(run.net, run.state.weights, ranks=ranks)
        except MemoryError:
            if ranks is not None or not runner.can_free_memory():
                raise
        runner.free_memory()
