"""The validation of an epoch."""

from __future__ import annotations

from typing import Protocol

from nnbackend.training.run import Run


class _Runner(Protocol):
    def can_free_memory(self) -> bool: ...

    def free_memory(self) -> None: ...


def validate(run: Run, runner: _Runner) -> dict[str, float]:
    """Evaluate the validation rows; free the memory of prepared steps if it is needed."""
    data, scaler = run.data, run.data.preprocessing.scaler
    assert data.validation is not None
    while True:
        try:
            return run.net.evaluate_prepared(
                *data.validation, data.score, scaler=scaler, theta=run.state.weights
            ) | data.measured(run.net, run.state.weights)
        except MemoryError:
            if not runner.can_free_memory():
                raise
        runner.free_memory()
