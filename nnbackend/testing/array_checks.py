"""The six methods of every backend: memory, transfer, ownership."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnbackend.backend import Backend
from nnbackend.testing.ghost import GhostBackend
from nnbackend.testing.kit import FailureReport, Suite, fresh

HUGE = (1 << 57,)
DTYPES = ("bool", "uint8", "int32", "int64", "float32", "float64")


class ArrayChecks(Suite):
    """Memory and transfer."""

    def report(self, operation: str, case: object = "") -> FailureReport:
        """Return the context of a failure."""
        return FailureReport(operation, str(case), self.seed)

    def sample(self, dtype: str, shape: tuple[int, ...] = (5, 3)) -> np.ndarray:
        """Return a host array with content."""
        return self.rng(dtype, shape).integers(0, 99, shape).astype(dtype)

    @pytest.mark.parametrize("kind", DTYPES)
    def test_empty_and_zeros(self, backend: Backend, kind: str) -> None:
        for shape in ((1,), (7,), (3, 5), (0, 4)):
            for make in (backend.empty, backend.zeros):
                array, report = make(shape, kind), self.report(make.__name__, (shape, kind))
                if not backend.owns(array):
                    report.fail(
                        f"returned a {type(array).__qualname__}, but owns() is False for it"
                    )
                if tuple(array.shape) != shape:
                    report.fail(f"returned shape {tuple(array.shape)}")
                host = backend.to_host(array)
                report.same_dtype("the array", host, np.empty(0, kind))
            if host.any():
                report.fail("is not all zero")

    @pytest.mark.parametrize("kind", DTYPES)
    def test_round_trip(self, backend: Backend, kind: str) -> None:
        whole = self.sample(kind, (6, 8))
        frozen = whole.copy()
        frozen.flags.writeable = False
        for name, host in (
            ("contiguous", whole), ("every second row", whole[::2]), ("transposed", whole.T),
            ("read-only", frozen), ("reversed", whole[::-1]), ("a vector", whole[0]),
            ("a scalar", np.asarray(whole[0, 0])), ("no rows", whole[:0]),
        ):  # fmt: skip
            report = self.report("to_device", f"{name}, {kind}")
            array = backend.to_device(host)
            if not backend.owns(array):
                report.fail(f"returned {type(array).__name__}, but owns() is False for it")
            back = backend.to_host(array)
            report.same_dtype("the array", back, host)
            report.close("the array read back", back, host, 0.0)

    @pytest.mark.parametrize("kind", DTYPES)
    def test_to_device_into_out(self, backend: Backend, kind: str) -> None:
        host, report = self.sample(kind), self.report("to_device(out=)", kind)
        wanted = host.copy()
        out = backend.zeros(host.shape, kind)
        given = backend.to_device(host, out=out)
        if given is None or not backend.owns(given):
            report.fail(f"returned {type(given).__name__} instead of out")
        backend.synchronize()
        host[...] = 0
        report.close("out", backend.to_host(out), wanted, 0.0)
        report.close("the returned array", backend.to_host(given), wanted, 0.0)

    def test_to_device_into_a_view(self, backend: Backend, dtype: str) -> None:
        vector, part = backend.zeros((9,), dtype), self.sample(dtype, (2, 3))
        backend.to_device(part, out=backend.xp.reshape(vector[2:8], (2, 3)))
        wanted = np.concatenate([[0, 0], part.ravel(), [0]])
        report = self.report("to_device(out=a view)", dtype)
        report.close("the vector", backend.to_host(vector), wanted, 0.0)

    @pytest.mark.parametrize("kind", DTYPES)
    def test_to_host_is_a_fresh_copy(self, backend: Backend, kind: str) -> None:
        host, report = self.sample(kind), self.report("to_host", kind)
        array = fresh(backend, host)
        for name, part in (("an array", array), ("a row", array[1, :]), ("rows", array[::2, :])):
            first = backend.to_host(part)
            if not isinstance(first, np.ndarray):
                report.fail(f"returned a {type(first).__name__}, not a NumPy array")
            if not first.flags.writeable:
                report.fail(f"of {name}: the copy is read-only")
            kept = first.copy()
            first[...] = 0
            report.close(
                f"the device after its host copy was written to ({name}): it is a view, and",
                backend.to_host(part), kept, 0.0,
            )  # fmt: skip
        before = backend.to_host(array)
        backend.copy(backend.zeros(host.shape, kind), array)
        report.close(
            "the host copy after a change on the device: it is a view, and", before, host, 0.0
        )

    def test_slices_and_reshapes_are_views(self, backend: Backend, dtype: str) -> None:
        vector, report = backend.zeros((12,), dtype), self.report("views of an array", dtype)
        matrix = backend.xp.reshape(vector[2:8], (2, 3))
        matrix[...] = 5.0
        wanted = np.array([0, 0, 5, 5, 5, 5, 5, 5, 0, 0, 0, 0])
        report.close("the vector under a reshaped slice", backend.to_host(vector), wanted, 0.0)
        vector[3:4] = 7.0
        wanted = np.array([[5, 7, 5], [5, 5, 5]])
        report.close("the reshaped slice of a vector", backend.to_host(matrix), wanted, 0.0)
        report.close("its transpose", backend.to_host(matrix.T), wanted.T, 0.0)

    def test_memory_is_not_shared(self, backend: Backend, dtype: str) -> None:
        first, second = backend.zeros((8,), dtype), backend.zeros((8,), dtype)
        backend.fill(first, 3.0)
        self.report("zeros").close("a second array", backend.to_host(second), np.zeros(8), 0.0)

    def test_memory_that_there_is_none_of(self, backend: Backend) -> None:
        # 2^60 bytes: more than a process can address.
        report = self.report("memory", (HUGE, "float64"))
        for make in (backend.empty, backend.zeros):
            try:
                make(HUGE, "float64")
            except MemoryError:
                pass
            except Exception as error:
                report.fail(
                    f"{make.__name__} raised {type(error).__name__}, expected DeviceMemoryError or "
                    "MemoryError, after which the engine retries with smaller parts"
                )
            else:
                report.fail(
                    f"{make.__name__} returned an array of 2^60 bytes, expected MemoryError"
                )
        host = self.sample("float32")
        report.close("an array made after it", backend.to_host(fresh(backend, host)), host, 0.0)

    def test_owns(self, backend: Backend) -> None:
        array, report = backend.zeros((2, 2), "float32"), self.report("owns")
        for name, mine in (
            ("an array", array),
            ("a slice", array[:1, :]),
            ("a transpose", array.T),
        ):
            if backend.owns(mine) is not True:
                report.fail(f"is False for {name} of the backend")
        foreign = [None, 1.0, [1.0], "array", object(), (array,)]
        foreign += [] if isinstance(array, np.ndarray) else [np.zeros(2)]
        foreign += [GhostBackend(index).zeros((2,), "float32") for index in (7, 8)]
        for thing in foreign:
            if backend.owns(thing) is not False:
                report.fail(f"is True for a foreign {type(thing).__name__}")

    def test_dtype_names_and_casts(self, backend: Backend, dtype: str) -> None:
        report, host = self.report("cast", dtype), self.sample(dtype)
        array = fresh(backend, host)
        if backend.dtype_name(array) != dtype:
            report.fail(f"dtype_name returns {backend.dtype_name(array)!r}")
        if backend.cast(array, dtype) is not array:
            report.fail("an array that has the dtype already was copied")
        for kind in backend.float_dtypes:
            for part, wanted in ((array, host), (array[::2, :], host[::2])):
                cast = backend.to_host(backend.cast(part, kind))
                report.same_dtype("the array", cast, np.empty(0, kind))
                report.close("the array", cast, wanted, 1e-7)

    def test_copy_and_fill(self, backend: Backend, dtype: str) -> None:
        host = self.sample(dtype, (6, 5))
        self.compare_kernel(
            backend, "copy", {"source": host, "target": np.zeros_like(host)}, ["target"],
            lambda b, a: b.copy(a.source, a.target),
        )  # fmt: skip
        self.compare_kernel(
            backend, "copy", {"source": host, "target": np.zeros_like(host)}, ["target"],
            lambda b, a: b.copy(a.source, a.target), "every second row", strided=["source"],
        )  # fmt: skip
        for value in (0.0, -2.5):

            def fill(b: Backend, a: Any, value: float = value) -> None:
                b.fill(a.array, value)

            self.compare_kernel(
                backend, "fill", {"array": host}, ["array"], fill, f"{value=}", in_vector=["array"]
            )
