"""The JAX backend of examples/plugins: installation, training, and its conformance.

Without --long a part of the kit runs: captured steps, registration, arrays, and one kernel of each
kind. The whole takes some minutes, because JAX compiles each operation for each shape.
"""

from __future__ import annotations

import importlib.util
import json

import pytest
from plugin_runs import ROOT, Run, install

PLUGIN = ROOT / "examples" / "plugins" / "nnbackend_jax"
PART = (
    "test_boxes or Registration or Capture and float32 or Backend and (view or round or owns"
    " or memory or gather_rows or optimizer_step and adam)"
)

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="JAX is not installed (pip install jax)"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Install the plug-in; return a function that runs Python in its environment."""
    return install(PLUGIN, tmp_path_factory.mktemp("plugin"))


def test_it_is_listed_with_its_devices(run: Run) -> None:
    code = """
import json, sys, nnbackend
row = next(row for row in nnbackend.backends() if row.name == "jax")
print(json.dumps([row.usable, row.distribution, row.devices[-1], "jax" in sys.modules]))
"""
    usable, distribution, device, is_imported = json.loads(run("-c", code).stdout)
    assert usable
    assert (distribution, device) == ("nnbackend-jax 0.1.0", "jax:cpu:0")
    if importlib.util.find_spec("jax_plugins") is None:
        assert not is_imported, "without an accelerator the probe needs no import of JAX"


def test_it_trains_as_numpy_does(run: Run) -> None:
    code = """
import jax.numpy as jnp, nnbackend as nn, numpy as np
data = nn.data.load("digits")
vectors = []
for device in ("jax", "numpy"):
    layers = [64, nn.Dense(32, "tanh"), nn.Dropout(0.2), nn.Maxout(16), nn.Dense(10, "softmax")]
    net = nn.Network(layers, device=device, dtype="float64")
    model = nn.Model(net, scale="standard")
    history = model.fit(data.x, data.y, epochs=4, batch_size=32, validation=0.2)
    vectors.append(net.backend.to_host(net.theta))
print(np.abs(vectors[0] - vectors[1]).max() / np.abs(vectors[1]).max())
print(history["valid_accuracy"][-1], jnp.zeros(1).dtype)
"""
    difference, accuracy, dtype = run("-c", code).stdout.split()
    assert float(difference) < 1e-9
    assert float(accuracy) > 0.85
    assert dtype == "float32", "64-bit types were enabled for the whole process"


def test_it_passes_the_kit(run: Run, request: pytest.FixtureRequest) -> None:
    part = [] if request.config.getoption("--long") else ["-k", PART]
    done = run(
        *("-m", "pytest", "-q", "-W", "error", "-p", "nnbackend.testing.plugin"),
        *("-p", "no:cacheprovider", str(PLUGIN / "tests"), *part),
    )
    assert " passed" in done.stdout
    assert "failed" not in done.stdout
