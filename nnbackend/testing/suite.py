"""The suites of the conformance kit, and how to make a test class of each for one backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nnbackend.backend import Backend
from nnbackend.testing.array_checks import ArrayChecks
from nnbackend.testing.captures import CaptureConformance
from nnbackend.testing.gradients import GradientConformance
from nnbackend.testing.kit import Suite
from nnbackend.testing.layer_checks import LayerChecks
from nnbackend.testing.loss_checks import LossChecks
from nnbackend.testing.registrations import RegistrationConformance
from nnbackend.testing.trajectories import TrainingConformance
from nnbackend.testing.update_checks import BatchChecks, UpdateChecks


class BackendConformance(ArrayChecks, LayerChecks, LossChecks, UpdateChecks, BatchChecks):
    """The six methods, and every kernel against the base class's default in float64."""


SUITES: tuple[type[Suite], ...] = (
    BackendConformance,
    GradientConformance,
    TrainingConformance,
    CaptureConformance,
    RegistrationConformance,
)

__all__ = [
    "SUITES",
    "BackendConformance",
    "CaptureConformance",
    "GradientConformance",
    "RegistrationConformance",
    "TrainingConformance",
    "conformance_classes",
]


def conformance_classes(
    label: str,
    make_backend: Callable[[], Backend] | None = None,
    *,
    expected_failures: Mapping[str, str] | None = None,
) -> dict[str, type[Suite]]:
    """Make one test class per suite, by name, for a test module to take into its globals.

    label: the device to ask for, or with make_backend any name for the row.
    expected_failures: {name of a test or of one case: reason}, each given to the suite that has
    the test.
    Raises: TypeError for a name that no suite has.
    >>> sorted(conformance_classes("mine"))[:2]
    ['TestMineBackend', 'TestMineCapture']
    """
    classes: dict[str, type[Suite]] = {}
    for test in expected_failures or {}:
        if not any(hasattr(suite, test.partition("[")[0]) for suite in SUITES):
            raise TypeError(f"expected_failures of {label}: there is no test {test!r}")
    for suite in SUITES:
        name = "".join(word.capitalize() for word in label.replace(":", "_").split("_"))
        name = f"Test{name}{suite.__name__.removesuffix('Conformance')}"
        expected = {
            test: reason
            for test, reason in (expected_failures or {}).items()
            if hasattr(suite, test.partition("[")[0])
        }
        body: dict[str, object] = {
            "label": label,
            "expected_failures": expected,
            "__doc__": suite.__doc__,
        }
        body["device" if make_backend is None else "make_backend"] = (
            label if make_backend is None else staticmethod(make_backend)
        )
        classes[name] = type(name, (suite,), body)
    return classes
