"""The first minute on a GPU: the device, the result of every product, and the raw rates."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.gpu_parts import Answer, Task, measured, new_backend
from benchmarks.gpu_rows import TABLE, TINY, Form, parse_row

# Of the norm of the exact result; each entry of a product is a sum of up to 8192 rounded terms.
MOST_ERROR = {"float32": 1e-5, "tf32": 3e-3, "bf16": 3e-2, "float64": 1e-12}
ODD_SHAPES = ((5, 7, 3), (33, 19, 21), (128, 784, 100), (128, 64, 64), (100, 500, 10))
OFFSETS = ((1, "float32"), (2, "float32"), (4, "float32"), (1, "float64"), (2, "float64"))


def tasks(is_emulated: bool, words: list[str]) -> Iterator[Task]:
    """Yield the tasks, the most informative first."""
    yield "facts", lambda: facts(is_emulated)
    yield "alignment", lambda: alignment(is_emulated)
    for precision in ("float32", "tf32", "bf16"):
        yield f"products {precision}", lambda precision=precision: products(is_emulated, precision)
    yield "launches", lambda: launches(is_emulated)
    for precision in ("float32", "tf32", "bf16"):
        yield f"rate {precision}", lambda precision=precision: rate(is_emulated, precision)
    yield "copies", lambda: copies(is_emulated)


def facts(is_emulated: bool) -> Answer:
    """Return the device and the versions."""
    found: Answer = {"python": platform.python_version(), "numpy": np.__version__}
    if is_emulated:
        return {**found, "device": "none: NumPy and g++ stand in for the GPU"}
    import cupy

    probe = importlib.import_module("nnbackend_cupy.probe")
    found |= {"cupy": cupy.__version__, **dict(probe.probe().details)}
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    found |= {
        "device": properties["name"].decode(),
        "multiprocessors": properties["multiProcessorCount"],
        "l2_bytes": properties["l2CacheSize"],
        "memory_bytes": properties["totalGlobalMem"],
        "driver_cuda": cupy.cuda.runtime.driverGetVersion(),
        "runtime_cuda": cupy.cuda.runtime.runtimeGetVersion(),
    }
    library = importlib.import_module("nnbackend_cupy.blaslt").load()
    return {**found, "cublasLt": library.cublasLtGetVersion()}


# ---- products -----------------------------------------------------------------------------------


def alignment(is_emulated: bool) -> Answer:
    """Compute products whose weights, biases and gradients begin at odd addresses."""
    backend, cases = new_backend(is_emulated), {}
    for offset, dtype in OFFSETS:
        for shape in ODD_SHAPES[:2] if is_emulated else ODD_SHAPES:
            cases[f"{dtype} +{offset} {shape}"] = product(backend, *shape, dtype, offset)
    return judged(cases, {"float32": 1e-5, "float64": 1e-12})


def products(is_emulated: bool, precision: str) -> Answer:
    """Compute each layer's products of every row."""
    backend, cases = new_backend(is_emulated, precision), {}
    for widths, batch in map(parse_row, TINY if is_emulated else TABLE[:-1]):
        for n_in, n_out in pairwise(widths):
            case = product(backend, batch, n_in, n_out, "float32", 0)
            cases[f"{batch} x {n_in} x {n_out}"] = case
    answer = judged(cases, {"float32": MOST_ERROR[precision]})
    refused = [p for p in backend.report()["products"] if "refused" in p]
    return {**answer, "refused": refused, "ok": answer["ok"] and not refused}


def judged(cases: dict[str, Answer], most: dict[str, float]) -> Answer:
    """Return the largest error, and the cases that are wrong or without their epilogue."""
    wrong = {}
    for name, case in cases.items():
        limit = most.get(name.split()[0], next(iter(most.values())))
        if not max(case["errors"]) < limit:
            wrong[name] = case
    unfused = [name for name, case in cases.items() if not (case["bias"] and case["db"])]
    largest = max(max(case["errors"]) for case in cases.values())
    return {"ok": not wrong, "cases": len(cases), "largest_error": largest,
            "wrong": wrong, "without_epilogue": unfused}  # fmt: skip


def product(backend: Any, rows: int, n_in: int, n_out: int, dtype: str, offset: int) -> Answer:
    """Compute relu(x W + b), x^T delta with its column sums, and delta W^T; return their errors."""
    rng = np.random.default_rng(rows + n_in)
    draw = lambda *shape: rng.standard_normal(shape).astype(dtype)  # noqa: E731
    x, W, b, delta = draw(rows, n_in), draw(n_in, n_out), draw(n_out), draw(rows, n_out)
    on = lambda host: _at(backend, host, offset)  # noqa: E731
    unset = lambda *shape: on(np.full(shape, np.nan, dtype))  # noqa: E731
    x_, W_, b_, delta_ = backend.to_device(x), on(W), on(b), backend.to_device(delta)
    z, dW, db, dx = unset(rows, n_out), unset(n_in, n_out), unset(n_out), unset(rows, n_in)
    has_bias = backend._multiply(x_, W_, z, bias=b_, relu=True)
    has_sums = backend._multiply(x_.T, delta_, dW, bias_gradient=db)
    backend._multiply(delta_, W_.T, dx)
    x, W, b, delta = (host.astype(np.float64) for host in (x, W, b, delta))
    wanted = np.maximum(x @ W + b, 0) if has_bias else x @ W
    errors = [_error(backend, z, wanted), _error(backend, dW, x.T @ delta),
              _error(backend, dx, delta @ W.T)]  # fmt: skip
    if has_sums:
        errors.append(_error(backend, db, delta.sum(axis=0)))
    return {"errors": errors, "bias": has_bias, "db": has_sums}


def _at(backend: Any, host: np.ndarray, offset: int) -> Any:
    """Return a device copy that starts at element `offset` of a longer vector."""
    whole = backend.zeros((host.size + offset + 3,), host.dtype.name)
    part = backend.xp.reshape(whole[offset : offset + host.size], host.shape)
    return backend.to_device(host, out=part)


def _error(backend: Any, array: Any, wanted: np.ndarray) -> float:
    error = np.linalg.norm(backend.to_host(array) - wanted) / np.linalg.norm(wanted)
    return float(error)


# ---- rates --------------------------------------------------------------------------------------


def timed(backend: Any, work: Callable[[], Any], is_emulated: bool, steps: int = 1) -> float:
    """Return the microseconds per call of many calls, with one synchronization at the end."""
    return measured(Form("", steps, work), backend, is_emulated, 0.1)[0]["us"]


def launches(is_emulated: bool) -> Answer:
    """Measure a launch, a recorded launch, small copies, and whether cuBLASLt's ReLU keeps NaN."""
    backend = new_backend(is_emulated)
    n = 32 if is_emulated else 3200
    clock, hyper = backend.zeros((2,), "int64"), backend.zeros((3,), "float64")
    rates = backend.zeros((2, n), "float64")
    replay = backend.capture(lambda: backend.tick(clock, rates, hyper))

    def reset() -> None:
        backend.to_device(np.array([0, -1]), out=clock)  # the clock must stay within the rates

    def called() -> None:
        reset()
        for _ in range(n):
            backend.tick(clock, rates, hyper)

    def replayed() -> None:
        reset()
        replay(n)

    order, totals = np.arange(1000 if is_emulated else 60_000), backend.zeros((4,), "float64")
    place = backend.to_device(order)
    found: Answer = {
        "launch_us": timed(backend, called, is_emulated, n),
        "graph_node_us": timed(backend, replayed, is_emulated, n),
        "order_to_device_us": timed(backend, lambda: backend.to_device(order, place), is_emulated),
        "read_totals_us": timed(backend, lambda: backend.to_host(totals), is_emulated),
        "relu_epilogue_keeps_nan": relu_keeps_nan(backend),
    }
    recorded = backend.report()
    return {**found, "nodes": recorded["recorded"], "ok": not recorded["not_recorded"]}


def relu_keeps_nan(backend: Any) -> bool | None:
    """Return True if cuBLASLt's ReLU propagates NaN, as ours does; None without that epilogue."""
    x, W = (backend.to_device(np.full((8, 8), value, np.float32)) for value in (np.nan, 1.0))
    bias, out = backend.zeros((8,), "float32"), backend.empty((8, 8), "float32")
    is_fused = backend._multiply(x, W, out, bias=bias, relu=True)
    return bool(np.isnan(backend.to_host(out)).all()) if is_fused else None


def rate(is_emulated: bool, precision: str) -> Answer:
    """Measure a large product of random numbers."""
    size = 32 if is_emulated else 8192
    backend = new_backend(is_emulated, precision)
    rng = np.random.default_rng(0)
    a, b = (backend.to_device(rng.standard_normal((size, size), np.float32)) for _ in range(2))
    out = backend.empty((size, size), "float32")
    took = timed(backend, lambda: backend._multiply(a, b, out), is_emulated)
    return {"size": size, "tflops": 2 * size**3 / took / 1e6}


def copies(is_emulated: bool) -> Answer:
    """Measure copies of an array that is much larger than the caches."""
    n = 1 << (10 if is_emulated else 28)  # float32: 1 GiB
    backend = new_backend(is_emulated)
    host = np.random.default_rng(0).standard_normal(n // 64, np.float32)
    a, b = backend.zeros((n,), "float32"), backend.empty((n,), "float32")
    part = a[: n // 64]
    copy = timed(backend, lambda: backend.copy(a, b), is_emulated)
    there = timed(backend, lambda: backend.to_device(host, part), is_emulated)
    back = timed(backend, lambda: backend.to_host(part), is_emulated)
    return {
        "device_gbps": 8 * n / copy / 1e3,
        "to_device_gbps": host.nbytes / there / 1e3,
        "to_host_gbps": host.nbytes / back / 1e3,
    }
