"""A backend from another distribution: installation, discovery, training, every interface."""

from __future__ import annotations

import json

import pytest
from plugin_runs import ROOT, Run, install


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Install the sample; return a function that runs Python in its environment."""
    return install(ROOT / "tests" / "plugin_sample", tmp_path_factory.mktemp("plugin"))


def test_it_is_listed_with_its_distribution(run: Run) -> None:
    code = (
        "import nnbackend, json; print(json.dumps("
        "{row.name: [row.usable, row.distribution] for row in nnbackend.backends()}))"
    )
    rows = json.loads(run("-c", code).stdout)
    assert rows["sample"] == [True, "nnbackend-sample 0.1.0"]
    assert rows["numpy"][0] is True


def test_it_trains_by_name_and_agrees_with_numpy(run: Run) -> None:
    code = """
import numpy as np, nnbackend as nn
data = nn.data.load("digits")
vectors = []
for device in ("sample", "numpy"):
    layers = [64, nn.Dense(32, "tanh"), nn.Dropout(0.2), nn.Maxout(16), nn.Dense(10, "softmax")]
    net = nn.Network(layers, device=device, dtype="float64")
    options = dict(epochs=8, batch_size=32, validation=0.2)
    history = nn.Model(net, scale="standard").fit(data.x, data.y, **options)
    assert net.backend.device == f"{device}:0"
    vectors.append(net.backend.to_host(net.theta))
print(np.abs(vectors[0] - vectors[1]).max() / np.abs(vectors[1]).max())
print(history["valid_accuracy"][-1])
"""
    difference, accuracy = map(float, run("-c", code).stdout.split())
    assert difference < 1e-9
    assert accuracy > 0.9


def test_the_command_line_accepts_its_name(run: Run) -> None:
    done = run(
        *("-m", "nnbackend", "train", "iris", "--device", "sample", "--epochs", "30"),
        *("--out", "iris-run", "--json", "--quiet"),
    )
    final = json.loads(done.stdout.splitlines()[-1])
    assert final["device"] == "sample:0"
    assert final["test_accuracy"] > 0.6
    refused = run("-m", "nnbackend", "train", "iris", "--device", "sample:1", code=2)
    assert "sample has 1 device (sample:0)" in refused.stderr


def test_it_passes_the_kit_with_one_command(run: Run) -> None:
    done = run(
        *("-m", "pytest", "-q", "-p", "nnbackend.testing.plugin", "--pyargs", "nnbackend.testing"),
        *("--nnb-backend", "sample", "-p", "no:cacheprovider"),
    )
    assert " passed" in done.stdout
    assert "failed" not in done.stdout
