"""Any stack of layers and any input: one of our errors, or finite results and exact files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nnbackend as nn
from nnbackend.errors import NNBackendError
from nnbackend.network.activations import ACTIVATIONS
from nnbackend.network.losses import LOSSES

SETTINGS = settings(
    max_examples=60, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
WIDTHS = st.integers(1, 7)
LAYERS = st.one_of(
    st.builds(nn.Dense, WIDTHS, st.sampled_from(sorted(ACTIVATIONS))),
    st.builds(nn.Maxout, WIDTHS, st.integers(1, 3)),
    st.builds(nn.Dropout, st.floats(0.0, 0.9)),
    WIDTHS,
)
NUMBERS = st.floats(width=32) | st.sampled_from([0.0, -0.0, 1e38, -1e38, 1e-40, float("nan")])


@SETTINGS
@given(
    stack=st.lists(LAYERS, min_size=1, max_size=5),
    n_in=st.integers(1, 5),
    loss=st.sampled_from([None, *sorted(LOSSES)]),
    optimizer=st.sampled_from(["sgd", "adam", "rmsprop", "adadelta", "lbfgs"]),
    batch_size=st.none() | st.integers(1, 9),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_stack_trains_and_loads_unchanged_or_is_refused(
    stack: list[Any], n_in: int, loss: str | None, optimizer: str, batch_size: int | None, seed: int
) -> None:
    rng = np.random.default_rng(seed % 1000)
    x = rng.normal(size=(8, n_in))
    try:
        net = nn.Network([n_in, *stack], loss, device="numpy", seed=seed)
    except NNBackendError:
        return
    is_labels = net.loss.name == "cross_entropy"
    y = rng.integers(0, max(net.n_out, 2), 8) if is_labels else rng.random((8, net.n_out))
    try:
        history = nn.train(net, x, y, epochs=2, batch_size=batch_size, optimizer=optimizer)
    except NNBackendError:
        return
    assert np.isfinite(history["train_loss"]).all()
    with tempfile.TemporaryDirectory() as folder:
        nn.Model(net).save(Path(folder) / "model")
        again = nn.load(Path(folder) / "model", "numpy").network
    assert again.theta.tobytes() == net.theta.tobytes()
    assert again.layers == net.layers
    np.testing.assert_array_equal(again.outputs(x), net.outputs(x))


@SETTINGS
@given(
    rows=st.lists(st.lists(NUMBERS, min_size=2, max_size=2), min_size=0, max_size=6),
    dtype=st.sampled_from(["f2", "f4", "f8", ">f8", "i1", "u8", "?", "O", "c8", "S3"]),
    layout=st.sampled_from(["C", "F", "reversed", "read-only", "masked", "strided", "0-d", "list"]),
)
def test_any_input_is_accepted_or_refused(rows: Any, dtype: str, layout: str) -> None:
    with np.errstate(all="ignore"):
        x: Any = np.array(rows, "f8").reshape(len(rows), 2)
        x = (np.nan_to_num(x) if np.dtype(dtype).kind in "iub" else x).astype(dtype)
    if layout == "F":
        x = np.asfortranarray(x)
    elif layout == "reversed":
        x = x[::-1, ::-1]
    elif layout == "read-only":
        x.flags.writeable = False
    elif layout == "masked":
        x = np.ma.masked_array(x, mask=np.arange(x.size).reshape(x.shape) == 3)
    elif layout == "strided":
        x = np.repeat(x, 2, axis=0)[::2]
    elif layout == "0-d":
        x = x[0, 0] if len(rows) else x
    elif layout == "list":
        x = x.tolist()
    net = nn.Network([2, 3, 2], "cross_entropy", device="numpy")
    labels = np.arange(len(rows)) % 2
    try:
        model = nn.Model(net, scale="robust")
        model.fit(x, labels, epochs=1, batch_size=3)
        proba = model.predict_proba(x)
    except NNBackendError:
        return
    assert proba.shape == (len(rows), 2)
