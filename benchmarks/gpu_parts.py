"""The parts of `benchmarks.gpu_check`: each prints one line of JSON, from a process of its own."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import platform
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Answer = dict[str, Any]


def backend_of(is_emulated: bool, precision: str = "float32") -> Any:
    """Give the CuPy backend, of a real device or over the stand-in."""
    if is_emulated:
        return importlib.import_module("stand_in_backend").new_backend(precision)
    from nnbackend.backend import get_backend

    checked = get_backend("cupy")  # says what is missing
    return checked if precision == "float32" else type(checked)(0, precision)


def facts(is_emulated: bool) -> Answer:
    """Give the device and the versions."""
    found: Answer = {"python": platform.python_version(), "numpy": np.__version__}
    if is_emulated:
        return {**found, "device": "none: NumPy and g++ stand in for the GPU"}
    import cupy

    probe = importlib.import_module("nnbackend_cupy.probe")
    found |= {"cupy": cupy.__version__, **dict(probe.probe().details)}
    blaslt = importlib.import_module("nnbackend_cupy.blaslt")
    library = blaslt.load()
    return {**found, "cublasLt": library.cublasLtGetVersion()}


def capture(is_emulated: bool) -> Answer:
    """Train twice, replaying and calling the steps; tell whether the weights are the same bits."""
    import nnbackend as nn

    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 20)).astype(np.float32)
    y = (x @ rng.standard_normal((20, 5))).argmax(axis=1)
    equal = {}
    for activation in ("relu", "tanh"):
        bits = []
        for is_captured in (True, False):
            backend = backend_of(is_emulated)
            replaced = backend.capture
            if not is_captured:
                backend.capture = lambda step: lambda n: [step() for _ in range(n)]
            layers = [20, nn.Dense(32, activation), nn.Dropout(0.2), nn.Dense(5, "softmax")]
            net = nn.Network(layers, "cross_entropy", device=backend, dtype="float32", seed=1)
            options: Answer = {"clip_norm": 1.0, "l2": 1e-3, "ema": 0.9}
            nn.train(net, x, y, epochs=8, batch_size=16, seed=2, **options)
            bits.append(backend.to_host(net.theta).tobytes())
            backend.capture = replaced
        equal[activation] = bits[0] == bits[1]
    return {"equal": all(equal.values()), "activations": equal}


def numbers(is_emulated: bool) -> Answer:
    """Measure launches, a graph's gap between kernels, products and copies; ask cuBLASLt of NaN."""
    backend = backend_of(is_emulated)
    clock, hyper = backend.zeros((2,), "int64"), backend.zeros((3,), "float64")
    rates, n = backend.zeros((2, 10), "float64"), 32 if is_emulated else 3200
    clock_step = backend.capture(lambda: backend.tick(clock, rates, hyper))
    found: Answer = {
        "launch_us": 1e6 * seconds(backend, lambda: backend.tick(clock, rates, hyper), n),
        "graph_node_us": 1e6 * seconds(backend, lambda: clock_step(n), 1) / n,
    }
    size = 32 if is_emulated else 4096
    host = np.ones((size, size), np.float32)
    a, b, out = (backend.to_device(host) for _ in range(3))
    for precision in ("float32", "tf32", "bf16"):
        other = backend_of(is_emulated, precision)
        took = seconds(other, lambda other=other: other._multiply(a, b, out), 10)
        found[f"gemm_{precision}_tflops"] = 2 * size**3 / took / 1e12
    found["to_device_gbps"] = (
        host.nbytes / seconds(backend, lambda: backend.to_device(host), 5) / 1e9
    )
    found["to_host_gbps"] = host.nbytes / seconds(backend, lambda: backend.to_host(a), 5) / 1e9
    order, totals = (
        np.zeros(1000 if is_emulated else 60_000, np.int64),
        backend.zeros((4,), "float64"),
    )
    place = backend.to_device(order)
    send = seconds(backend, lambda: backend.to_device(order, out=place), 50)
    found["order_to_device_us"] = 1e6 * send  # through pinned memory: what an epoch begins with
    found["read_totals_us"] = 1e6 * seconds(backend, lambda: backend.to_host(totals), 50)
    found["relu_epilogue_keeps_nan"] = relu_keeps_nan(backend)
    found["copy_gbps"] = 2 * host.nbytes / seconds(backend, lambda: backend.copy(a, b), 20) / 1e9
    return found


def relu_keeps_nan(backend: Any) -> bool | None:
    """Tell whether cuBLASLt's ReLU keeps NaN, as ours does; None where it has no such epilogue."""
    x, W = (backend.to_device(np.full((8, 8), value, np.float32)) for value in (np.nan, 1.0))
    bias, out = backend.zeros((8,), "float32"), backend.empty((8, 8), "float32")
    is_fused = backend._multiply(x, W, out, bias=bias, relu=True)
    return bool(np.isnan(backend.to_host(out)).all()) if is_fused else None


def seconds(backend: Any, work: Callable[[], Any], n: int) -> float:
    """Give the seconds of one call among n, after one that does not count."""
    work()
    backend.synchronize()
    begin = time.perf_counter()
    for _ in range(n):
        work()
    backend.synchronize()
    return (time.perf_counter() - begin) / n


def made_up(row: str) -> tuple[list[int], int, np.ndarray, np.ndarray]:
    """Give a row's sizes, batch and data: rows for some batches, targets of the output's width."""
    sizes, batch = row.split(":")
    layers = [int(size) for size in sizes.split("-")]
    n = max(int(batch) * 4, min(60_000, int(batch) * 400))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, layers[0]), np.float32)
    y = rng.standard_normal((n, layers[-1]), np.float32)
    return layers, int(batch), x, y


def speed(is_emulated: bool, row: str, contender: str) -> Answer:
    """Give the microseconds of a step: ReLU layers, squared error, momentum, data on the device."""
    layers, batch, x, y = made_up(row)
    if is_emulated:
        x, y = x[: 8 * batch], y[: 8 * batch]
    if contender.startswith("ours"):
        return {"us_per_step": ours(is_emulated, contender, layers, batch, x, y)}
    library = "jax" if contender == "jax" else "torch"
    if importlib.util.find_spec(library) is None:
        return {"left_out": f"{library} is not installed"}
    peers = importlib.import_module("benchmarks.gpu_peers")
    answer: Answer = getattr(peers, library)(is_emulated, contender, layers, batch, x, y)
    return answer


def ours(
    is_emulated: bool, contender: str, layers: list[int], batch: int, x: np.ndarray, y: np.ndarray
) -> float:
    """Train some epochs; give the fastest after the first, by the step."""
    import nnbackend as nn

    backend = backend_of(is_emulated, "tf32" if contender == "ours-tf32" else "float32")
    net = nn.Network(layers, "quadratic", activation="relu", device=backend, dtype="float32")
    rule = nn.SGD(1e-4, momentum=0.9)
    history = nn.train(net, x, y, optimizer=rule, epochs=4, batch_size=batch)
    fastest = min(row["seconds"] for row in history.rows[1:])
    return 1e6 * float(fastest) / -(-len(x) // batch)


def main() -> int:
    """Run the part that is named and print its answer."""
    parts: dict[str, Callable[..., Answer]] = {
        "facts": facts, "capture": capture, "numbers": numbers, "speed": speed,
    }  # fmt: skip
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_parts")
    parser.add_argument("part", choices=parts)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--emulated", action="store_true")
    args = parser.parse_args()
    print("ANSWER " + json.dumps(parts[args.part](args.emulated, *args.words)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
