"""Captured training against training step by step: the same bits, and really recorded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.gpu_parts import Answer, Task, how_it_ran, new_backend

PLAIN: Answer = {}
RICH: Answer = {"clip_norm": 1.0, "l2": 1e-3, "ema": 0.9, "max_norm": 2.0}


def tasks(is_emulated: bool, words: list[str]) -> Iterator[Task]:
    """Give one task for each network and set of options."""
    for activation in ("relu", "tanh"):
        for name, options in (("plain", PLAIN), ("rich", RICH)):
            yield (
                f"capture {activation} {name}",
                lambda a=activation, o=options: capture(is_emulated, a, o),
            )


def capture(is_emulated: bool, activation: str, options: Answer) -> Answer:
    """Train twice, replaying and calling the steps; compare the weights' bits."""
    replayed, bits = trained(is_emulated, activation, options, is_captured=True)
    _, wanted = trained(is_emulated, activation, options, is_captured=False)
    equal, ran = bits.tobytes() == wanted.tobytes(), how_it_ran(replayed)
    return {**ran, "equal": equal, "ok": ran["ok"] and equal,
            "difference": float(np.abs(bits - wanted).max())}  # fmt: skip


def trained(
    is_emulated: bool, activation: str, options: Answer, is_captured: bool
) -> tuple[Any, np.ndarray]:
    """Return the backend and the parameters after some epochs with a rest batch in each."""
    import nnbackend as nn

    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 20)).astype(np.float32)
    y = (x @ rng.standard_normal((20, 5))).argmax(axis=1)
    # The narrow kernel adds up in another order: it is compared by the kit, within tolerance.
    backend = new_backend(is_emulated, narrow=False)
    if not is_captured:
        backend.capture = lambda step: lambda n: [step() for _ in range(n)]
    dropout = [nn.Dropout(0.2)] if options else []
    layers = [20, nn.Dense(32, activation), *dropout, nn.Dense(16), nn.Dense(5, "softmax")]
    net = nn.Network(layers, "cross_entropy", device=backend, dtype="float32", seed=1)
    epochs = 2 if is_emulated else 8
    nn.train(net, x, y, epochs=epochs, batch_size=16, seed=2, **options)
    return backend, backend.to_host(net.theta)
