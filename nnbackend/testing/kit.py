"""Common base of the conformance suites: the backend under test, and the comparison of arrays.

A suite is a class of pytest tests. Subclass it; it brings its own fixtures:

    class TestMine(BackendConformance):
        device = "mine"
        expected_failures = {"test_maxout_forward": "ties go to the last piece"}
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, NoReturn, TypeAlias

import numpy as np
import pytest

from nnbackend.backend import Backend
from nnbackend.backend.formulas import Array
from nnbackend.devices import get_backend
from nnbackend.errors import BackendError, BackendUnavailableError
from nnbackend.testing.error_bounds import BoundedArray, ErrorBoundBackend
from nnbackend.testing.skipping import skip

PROPERTY = "nnbackend"  # the key in a test report of its row and column in the table

MOST_DRAWS = 50  # attempts to draw inputs away from kinks

Arrays: TypeAlias = Mapping[str, np.ndarray]


class Suite:
    """Base class of the suites: the backend under test and its expected failures.

    device: the argument of `get_backend`; or override `make_backend`.
    label: the row's name in the table of results; by default the device.
    expected_failures: {name: reason}, of a test, "test_x", or of one case by pytest's name,
    "test_x[float32-relu]". A named test must fail: if it passes, that is an error.
    seed: of all random numbers; failures print it.
    """

    device: ClassVar[str | Backend] = ""
    label: ClassVar[str] = ""
    expected_failures: ClassVar[Mapping[str, str]] = {}
    seed: ClassVar[int] = 0
    _made: ClassVar[dict[type, Backend | BackendError]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, reason in cls.expected_failures.items():
            if not hasattr(cls, name.partition("[")[0]):
                raise TypeError(f"expected_failures of {cls.__name__}: there is no test {name!r}")
            if not reason.strip():
                raise TypeError(f"expected_failures of {cls.__name__}: {name!r} needs a reason")

    @classmethod
    def make_backend(cls) -> Backend:
        """Return the backend under test."""
        if not cls.device:
            raise TypeError(f"{cls.__name__} must set `device` or override `make_backend`.")
        return get_backend(cls.device)

    @pytest.fixture
    def backend(self) -> Backend:
        """Return the backend under test, made once per class; skip if it is not available."""
        made = Suite._made.get(type(self))
        if made is None:
            try:
                made = self.make_backend()
            except BackendUnavailableError as error:
                made = error
            Suite._made[type(self)] = made
        if isinstance(made, BackendError):
            skip(self.row(), " ".join(str(made).split()))
        return made

    @pytest.fixture(params=["float32", "float64"])
    def dtype(self, request: pytest.FixtureRequest, backend: Backend) -> str:
        """Return each float dtype in turn; skip those that the backend does not list."""
        _skip_without(backend, str(request.param))
        return str(request.param)

    @pytest.fixture(autouse=True)
    def _kind_is_there(self, request: pytest.FixtureRequest) -> None:
        """Skip a case whose data have a dtype that the device lacks."""
        callspec = getattr(request.node, "callspec", None)
        if callspec is not None and "float64" in str(callspec.params.get("kind")):
            _skip_without(request.getfixturevalue("backend"), "float64")

    @pytest.fixture(autouse=True)
    def _expect_failure(self, request: pytest.FixtureRequest) -> None:
        node, case = request.node, request.node.name
        node.user_properties.append((PROPERTY, (self.row(), self.column())))
        test, expected = case.partition("[")[0], self.expected_failures
        cases = [name for name in expected if name.startswith(f"{test}[")]
        if cases and all_were_collected(request.config):
            there = {item.name for item in request.session.items if item.parent is node.parent}
            if missing := sorted(set(cases) - there):
                pytest.fail(
                    f"expected_failures of {type(self).__name__}: {test} has no case "
                    f"{', '.join(missing)}; its cases have names such as {case}"
                )
        reason = expected.get(case) or expected.get(test)
        if reason is not None:
            node.add_marker(pytest.mark.xfail(reason=reason, strict=True))

    @classmethod
    def row(cls) -> str:
        """Return the backend's name in the table of results."""
        return cls.label or getattr(cls.device, "device", str(cls.device)) or cls.__name__

    @classmethod
    def column(cls) -> str:
        """Return the suite's name in the table of results."""
        names = (c.__name__ for c in cls.__mro__ if c.__module__.startswith("nnbackend.testing."))
        suite = next((name for name in names if name.endswith("Conformance")), cls.__name__)
        return suite.removesuffix("Conformance").lower()

    def rng(self, *case: object) -> np.random.Generator:
        """Return the random generator of one case; a seed gives the same numbers."""
        return np.random.default_rng([self.seed, zlib.crc32(repr(case).encode())])

    def compare_kernel(
        self,
        backend: Backend,
        operation: str,
        arrays: Arrays | Callable[[np.random.Generator], Arrays],
        changes: Iterable[str],
        call: Callable[[Backend, Any], None],
        case: str = "",
        *,
        in_vector: Sequence[str] = (),
        strided: Sequence[str] = (),
    ) -> None:
        """Run a kernel on the backend and on the reference; compare every array afterwards.

        call(backend, arrays) calls the kernel. Arrays not in `changes` must stay bit-identical.
        Those in `in_vector` are views of a longer vector at an odd offset, like parameters; those
        in `strided` are every second row of a larger array. If a kernel is not smooth, `arrays` is
        a function that draws inputs until they are away from its kinks.
        """
        arrays, reference = self._away_from_kinks(backend, operation, arrays, call, case)
        shapes = ", ".join(f"{k} {v.shape} {v.dtype}" for k, v in arrays.items())
        report = FailureReport(operation, f"{case}; {shapes}" if case else shapes, self.seed)
        placed = {
            name: Placed(backend, host, name in in_vector, name in strided)
            for name, host in arrays.items()
        }
        call(backend, SimpleNamespace(**{name: p.array for name, p in placed.items()}))
        for name, before in arrays.items():
            got = placed[name].read(report, name)
            report.same_dtype(name, got, before)
            if name not in set(changes):
                report.unchanged(name, got, before)
            else:
                report.within(name, got, reference[name].value, reference[name].bound)

    def _away_from_kinks(
        self,
        backend: Backend,
        operation: str,
        arrays: Arrays | Callable[[np.random.Generator], Arrays],
        call: Callable[[Backend, Any], None],
        case: str,
    ) -> tuple[Arrays, dict[str, BoundedArray]]:
        """Return the inputs, and the arrays of the reference after the call."""
        for attempt in range(MOST_DRAWS):
            drawn = arrays(self.rng(operation, case, attempt)) if callable(arrays) else arrays
            drawn = {name: backend.narrowed(host) for name, host in drawn.items()}  # sums, rates
            bounds = ErrorBoundBackend()
            reference = {name: bounds.to_device(host) for name, host in drawn.items()}
            call(bounds, SimpleNamespace(**reference))
            if not bounds.xp.kinks:
                return drawn, reference
        FailureReport(operation, case, self.seed).fail(
            "its inputs lie at a kink; the kit must draw others"
        )


class Placed:
    """A host array copied to a device, optionally between guard elements."""

    def __init__(
        self, backend: Backend, host: np.ndarray, in_vector: bool = False, strided: bool = False
    ) -> None:
        self.backend, self.n = backend, host.size
        self.whole: Array = None
        if in_vector:
            vector = np.concatenate([[7] * 3, host.ravel(), [7] * 2]).astype(host.dtype)
            self.whole = backend.to_device(vector)
            self.array = backend.xp.reshape(self.whole[3 : 3 + self.n], host.shape)
        elif strided:
            self.array = backend.to_device(np.repeat(host, 2, axis=0))[::2, ...]
        else:
            self.array = fresh(backend, host)

    def read(self, report: FailureReport, name: str) -> np.ndarray:
        """Return the array's content after a check of the guard elements."""
        if self.whole is not None:
            guards = np.delete(self.backend.to_host(self.whole), slice(3, 3 + self.n))
            if (guards != 7).any():
                report.fail(f"{name}: wrote outside its array")
        return self.backend.to_host(self.array)


class FailureReport:
    """The context of a failure: operation, case and seed."""

    def __init__(self, operation: str, case: str, seed: int) -> None:
        self.operation, self.case, self.seed = operation, case, seed

    def fail(self, what: str, *lines: str) -> NoReturn:
        """Raise the failure."""
        __tracebackhide__ = True
        head = f"{self.operation}: {what}"
        raise AssertionError("\n  ".join([head, f"case: {self.case}", *lines, f"seed {self.seed}"]))

    def same_dtype(self, name: str, got: np.ndarray, before: np.ndarray) -> None:
        """Fail if the dtype has changed."""
        if got.dtype != before.dtype:
            self.fail(f"{name} changed its dtype from {before.dtype} to {got.dtype}")

    def unchanged(self, name: str, got: np.ndarray, before: np.ndarray) -> None:
        """Fail if an input was modified."""
        __tracebackhide__ = True
        if got.tobytes() != before.tobytes():
            place = tuple(int(i) for i in np.argwhere((got != before) | (got != got))[0])
            self.fail(
                f"its input {name} was modified",
                f"at {place}: was {before[place]}, became {got[place]}",
            )

    def close(self, name: str, got: Any, expected: Any, tolerance: float) -> None:
        """Fail unless each float agrees within tolerance * |expected|, all else exactly."""
        __tracebackhide__ = True
        expected = np.asarray(expected)
        relative = tolerance if expected.dtype.kind == "f" else 0.0
        self.within(name, got, expected, relative * np.abs(expected.astype(np.float64)))

    def alike(self, name: str, got: Any, expected: Any, tolerance: float) -> None:
        """Fail unless two results of one backend agree within tolerance * max|expected|."""
        __tracebackhide__ = True
        expected = np.asarray(expected)
        relative = tolerance if expected.dtype.kind == "f" else 0.0
        self.within(name, got, expected, relative * np.abs(expected).max(initial=0))

    def within(self, name: str, got: Any, expected: Any, bound: Any) -> None:
        """Fail unless each element is within its bound of the expected value, NaN for NaN."""
        __tracebackhide__ = True
        got, expected = np.asarray(got), np.asarray(expected)
        if got.shape != expected.shape:
            self.fail(f"{name} has shape {got.shape}, expected {expected.shape}")
        a, b = got.astype(np.float64), expected.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            error = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
            error = np.where(np.isnan(error), np.inf, error)
            excess = np.where(error > 0, error / bound, 0.0)
        beyond = ~(excess <= 1.0)
        if not beyond.any():
            return
        place = tuple(int(i) for i in np.unravel_index(int(excess.argmax()), error.shape))
        allowed = np.broadcast_to(bound, error.shape)[place]
        self.fail(
            f"{name} is wrong",
            f"worst at {place}: got {got[place]}, expected {expected[place]}",
            f"|a - ref| = {error[place]:.3g}, allowed {allowed:.3g} by its terms; "
            f"{int(beyond.sum())} of {error.size} elements are beyond",
        )


def all_were_collected(config: pytest.Config) -> bool:
    """Return True if no command-line option deselected a test."""
    options = config.option
    chosen = options.keyword or options.markexpr or options.deselect
    failed_before = getattr(options, "lf", False)  # of a pytest plug-in that may be disabled
    return not (chosen or failed_before or any("::" in word for word in config.args))


def fresh(backend: Backend, host: np.ndarray) -> Array:
    """Return a new device array with a host array's content."""
    host = backend.narrowed(host)
    array = backend.empty(host.shape, host.dtype.name)
    backend.to_device(np.ascontiguousarray(host), out=array)
    return array


def _skip_without(backend: Backend, dtype: str) -> None:
    """Skip a case in a dtype that the device lacks; a missing float64 is not a fault."""
    if dtype in backend.float_dtypes:
        return
    if dtype == "float64":
        pytest.skip("the device has no float64")
    skip(backend.name, f"{dtype} is not in float_dtypes of {backend.name}")
