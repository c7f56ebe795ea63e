"""The precision of matrix products: an explicit option of some devices, stored in model files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backend import Backend
from nnbackend.cli import main
from nnbackend.cli.building import build_network, complete
from nnbackend.config import Settings
from nnbackend.errors import ArgumentError
from nnbackend.persistence.description import describe_network
from nnbackend.testing.ghost import GhostBackend


class PreciseDevice(GhostBackend):
    """A fake device with several precisions."""

    precisions = ("float32", "tf32")

    def __init__(self, index: int = 0, precision: str = "float32") -> None:
        super().__init__(index)
        self.precision = precision

    def with_precision(self, precision: str) -> Backend:
        super().with_precision(precision)
        return PreciseDevice(0, precision)


@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_a_cpu_refuses_other_precisions(device: str) -> None:
    with pytest.raises(ArgumentError, match=r"float32.* on .*Received: precision='tf32'.*CUDA"):
        nn.Network([2, 1], device=device, precision="tf32")
    assert nn.Network([2, 1], device=device, precision="float32").backend.precision == "float32"


def test_the_precision_is_passed_to_the_device() -> None:
    device = PreciseDevice()
    assert nn.Network([2, 1], device=device).backend is device
    assert nn.Network([2, 1], device=device, precision="tf32").backend.precision == "tf32"
    with pytest.raises(ArgumentError, match="one of float32, tf32"):
        nn.Network([2, 1], device=device, precision="bf16")


def test_the_precision_is_stored_and_restored_if_available(tmp_path: Path) -> None:
    net = nn.Network([2, 1], device=PreciseDevice(), precision="tf32")
    path = tmp_path / "model.safetensors"
    nn.Model(net).save(path)
    assert nn.load(path, device=PreciseDevice()).network.backend.precision == "tf32"
    on_cpu = nn.load(path, device="numpy").network
    assert on_cpu.backend.precision == "float32"
    np.testing.assert_array_equal(on_cpu.weights[0], net.backend.to_host(net.weights[0]))


def test_float32_is_the_default() -> None:
    described: dict[str, Any] = describe_network(nn.Network([2, 1], device="numpy"))
    assert "precision" not in json.loads(json.dumps(described))


def test_the_command_line_sets_and_records_the_precision() -> None:
    data = nn.data.load("xor")
    for given, expected in (("tf32", "tf32"), (None, "float32")):
        settings = complete(Settings(data="xor", precision=given), data, PreciseDevice())
        assert settings.precision == expected
        assert build_network(settings, data, PreciseDevice()).backend.precision == expected


def test_the_command_line_refuses_an_unavailable_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "xor", "--device", "numpy", "--precision", "tf32"]) == 2
    assert "one of float32 on numpy:0" in capsys.readouterr().err
    assert not Path("runs").exists()
