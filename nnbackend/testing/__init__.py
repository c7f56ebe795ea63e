"""Gradient checks for users, and the conformance kit for authors of backends.

    from nnbackend.testing import BackendConformance, GradientConformance

    class TestMine(BackendConformance):
        device = "mine"

docs/conformance.md describes the suites. Only the suites need pytest.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

_HOME = {
    "BackendConformance": "suite",
    "CaptureConformance": "suite",
    "GhostArray": "ghost",
    "GhostBackend": "ghost",
    "GhostError": "ghost",
    "GradientConformance": "suite",
    "ReferenceBackend": "reference",
    "RegistrationConformance": "suite",
    "TrainingConformance": "suite",
    "check_gradients": "gradient_check",
    "conformance_classes": "suite",
    "ghost_spec": "ghost",
}
_WITH_ASSERTS = ("suite", "kit", "array_checks", "layer_checks", "loss_checks", "update_checks",
                 "gradients", "trajectories", "captures", "registrations")  # fmt: skip

__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from nnbackend.testing.ghost import GhostArray as GhostArray
    from nnbackend.testing.ghost import GhostBackend as GhostBackend
    from nnbackend.testing.ghost import GhostError as GhostError
    from nnbackend.testing.ghost import ghost_spec as ghost_spec
    from nnbackend.testing.gradient_check import check_gradients as check_gradients
    from nnbackend.testing.reference import ReferenceBackend as ReferenceBackend
    from nnbackend.testing.suite import BackendConformance as BackendConformance
    from nnbackend.testing.suite import CaptureConformance as CaptureConformance
    from nnbackend.testing.suite import GradientConformance as GradientConformance
    from nnbackend.testing.suite import RegistrationConformance as RegistrationConformance
    from nnbackend.testing.suite import TrainingConformance as TrainingConformance
    from nnbackend.testing.suite import conformance_classes as conformance_classes


def register_assert_rewrite() -> None:
    """Enable pytest's rewriting of the kit's asserts; call it before importing the suites.

    Raises: ModuleNotFoundError without pytest.
    """
    try:
        import pytest
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "The suites of nnbackend.testing are tests for pytest. "
            f"Received: {error}. Install it with: pip install 'nnbackend[kit]'",
            name="pytest",
        ) from error
    modules = [f"{__name__}.{name}" for name in _WITH_ASSERTS]
    pytest.register_assert_rewrite(*(name for name in modules if name not in sys.modules))


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if _HOME[name] == "suite":
        register_assert_rewrite()
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "register_assert_rewrite"]
