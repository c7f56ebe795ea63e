"""Compare captured training with called steps: the same bits, and steps were captured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.gpu_parts import Answer, Task, how_it_ran, new_backend

PLAIN: Answer = {}
RICH: Answer = {"clip_norm": 1.0, "l2": 1e-3, "ema": 0.9, "max_norm": 2.0}
# Ways to run captured steps: with separate kernels, which give the bits of called steps; with fused
# kernels and with one kernel, which sum in another order.
WAYS: dict[str, dict[str, bool]] = {
    "separate": {"narrow": False, "fused": False},
    "fused": {"narrow": False},
    "narrow": {},
}
TOLERANCE = 1e-3  # of the largest parameter, after hundreds of steps


def tasks(is_emulated: bool, words: list[str]) -> Iterator[Task]:
    """Yield a task for each activation, set of options and way to run steps."""
    for activation in ("relu", "tanh"):
        for name, options in (("plain", PLAIN), ("rich", RICH)):
            for way in WAYS:
                if way != "narrow" or name == "plain":
                    yield (
                        f"capture {activation} {name} {way}",
                        lambda a=activation, o=options, w=way: capture(is_emulated, a, o, w),
                    )


def capture(is_emulated: bool, activation: str, options: Answer, way: str) -> Answer:
    """Train twice, with captured and with called steps; compare the weights."""
    replayed, bits = trained(is_emulated, activation, options, way)
    _, wanted = trained(is_emulated, activation, options, None)
    difference = float(np.abs(bits - wanted).max() / np.abs(wanted).max())
    equal, ran = bits.tobytes() == wanted.tobytes(), how_it_ran(replayed)
    is_good = equal if way == "separate" else difference < TOLERANCE
    return {**ran, "equal": equal, "ok": ran["ok"] and is_good, "difference": difference}


def trained(
    is_emulated: bool, activation: str, options: Answer, way: str | None
) -> tuple[Any, np.ndarray]:
    """Return the backend and the parameters after some epochs with a smaller last batch.

    way: how captured steps run; None: steps are called.
    """
    import nnbackend as nn

    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 20)).astype(np.float32)
    y = (x @ rng.standard_normal((20, 5))).argmax(axis=1)
    backend = new_backend(is_emulated, **WAYS[way or "separate"])
    if way is None:
        backend.capture = lambda step: lambda n: [step() for _ in range(n)]
    dropout = [nn.Dropout(0.2)] if options else []
    layers = [20, nn.Dense(32, activation), *dropout, nn.Dense(16), nn.Dense(5, "softmax")]
    net = nn.Network(layers, "cross_entropy", device=backend, dtype="float32", seed=1)
    epochs = 2 if is_emulated else 8
    nn.train(net, x, y, epochs=epochs, batch_size=16, seed=2, **options)
    return backend, backend.to_host(net.theta)
