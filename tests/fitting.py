"""One call for tests that train with any options, those of `nnbackend.Model` included."""

from __future__ import annotations

from typing import Any

import nnbackend as nn


def fit_model(
    net: nn.Network,
    x: Any,
    y: Any,
    *,
    scale: Any = None,
    scale_targets: bool = False,
    **options: Any,
) -> tuple[nn.Model, nn.History]:
    """Train a network inside a Model; return the model and the history."""
    model = nn.Model(net, scale=scale, scale_targets=scale_targets)
    return model, model.fit(x, y, **options)
