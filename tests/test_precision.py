"""The precision of matrix products: an explicit option of some devices, stored in model files."""

from __future__ import annotations

import json
import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backend import Backend
from nnbackend.cli import main
from nnbackend.cli.progress import RunWriter
from nnbackend.config import Settings
from nnbackend.devices import get_backend
from nnbackend.errors import ArgumentError
from nnbackend.model.building import build_network, complete
from nnbackend.persistence.description import describe_network
from nnbackend.testing.ghost import GhostBackend
from nnbackend.training.loop import Trainer


class PreciseDevice(GhostBackend):
    """A fake device with several precisions."""

    precisions = ("float32", "tf32")

    def __init__(self, index: int = 0, precision: str = "float32") -> None:
        super().__init__(index)
        self.precision = precision

    def with_precision(self, precision: str) -> Backend:
        super().with_precision(precision)
        return PreciseDevice(0, precision)


@pytest.fixture(params=[False, True], ids=["without pairs", "with pairs"])
def numba_device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Return the backend numba of a CPU without AVX512-BF16, and of one with it."""
    pytest.importorskip("numba", reason="numba is not installed")
    from nnbackend_numba import pairs
    from nnbackend_numba.backend import NumbaBackend

    monkeypatch.setattr(pairs, "is_available", lambda: request.param)
    return NumbaBackend()


def test_a_cpu_with_avx512_bf16_has_bf16(numba_device: Backend) -> None:
    has_pairs = numba_device.precisions != ("float32",)
    with pytest.raises(
        ArgumentError,
        match=r"precision must be float32( or bf16)? on numba:0\. "
        r"Received: precision='tf32'\. tf32 needs device='gpu', bf16 that or device='cpu' if the "
        r"CPU has AVX512-BF16 and numba is installed\.$",
    ) as refused:
        nn.Network([2, 1], device=numba_device, precision="tf32")
    assert ("bf16 on numba" in str(refused.value)) == has_pairs
    if has_pairs:
        assert nn.Network([2, 1], device=numba_device, precision="bf16").backend.precision == "bf16"
    else:
        with pytest.raises(ArgumentError, match=r"must be float32 on numba:0.*'bf16'"):
            nn.Network([2, 1], device=numba_device, precision="bf16")


def test_another_precision_keeps_the_class_and_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba", reason="numba is not installed")
    from nnbackend_numba import pairs
    from nnbackend_numba.backend import NumbaBackend

    class Special(NumbaBackend):
        pass

    monkeypatch.setattr(pairs, "is_available", lambda: True)
    device = Special()
    device._threads = 7
    other = device.with_precision("bf16")
    assert (type(other), other._threads, other.precision) == (Special, 7, "bf16")  # type: ignore[attr-defined]
    assert device.precision == "float32"
    assert device.with_precision("float32") is device


@pytest.fixture
def with_bf16() -> Backend:
    """Return the best CPU's backend; skip the test if it has no bf16."""
    device = get_backend("cpu")
    if "bf16" not in device.precisions:
        pytest.skip(f"{device.device} has {', '.join(device.precisions)} only")
    return device


@pytest.mark.parametrize("device", ["numpy", "cpu"])
def test_a_cpu_refuses_other_precisions(device: str) -> None:
    with pytest.raises(ArgumentError, match=r"precision='tf32'\. tf32 needs device='gpu'"):
        nn.Network([2, 1], device=device, precision="tf32")
    with pytest.raises(ArgumentError, match=r"must be float32 on numpy:0.*'bf16'"):
        nn.Network([2, 1], device="numpy", precision="bf16")
    assert nn.Network([2, 1], device=device, precision="float32").backend.precision == "float32"


def test_the_precision_is_passed_to_the_device() -> None:
    device = PreciseDevice()
    assert nn.Network([2, 1], device=device).backend is device
    assert nn.Network([2, 1], device=device, precision="tf32").backend.precision == "tf32"
    with pytest.raises(ArgumentError, match="must be float32 or tf32"):
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
    assert "--precision must be float32 on numpy:0" in (said := capsys.readouterr().err)
    assert "tf32 needs --device gpu, bf16 that or --device cpu if the CPU has" in said
    assert not Path("runs").exists()


# ---- bf16 on a CPU ------------------------------------------------------------------------------


def test_a_model_of_a_cpu_keeps_bf16(with_bf16: Backend, tmp_path: Path) -> None:
    data, path = nn.data.load("iris"), tmp_path / "model.safetensors"
    options: dict[str, Any] = {"epochs": 2, "batch_size": 16, "seed": 0}

    def new(precision: str) -> nn.Model:
        layers = [4, 9, nn.Dense(3, "softmax")]
        return nn.Model(nn.Network(layers, device=with_bf16, precision=precision, seed=0))

    model, exact = new("bf16"), new("float32")
    for each in (model, exact):
        each.fit(data.x, data.y, **options)
    assert (model.network.theta != exact.network.theta).any()
    assert with_bf16.precision == "float32"
    model.save(path)
    copies = [nn.load(path, device="cpu"), pickle.loads(pickle.dumps(model)), deepcopy(model)]
    model.fit(data.x, data.y, **options)
    for copy in copies:  # each continues in bf16
        assert copy.network.backend.precision == "bf16"
        copy.fit(data.x, data.y, **options)
        np.testing.assert_array_equal(copy.network.theta, model.network.theta)
    assert nn.load(path, device="numpy").network.backend.precision == "float32"


@pytest.mark.filterwarnings("ignore:.*Maximum iterations")
def test_estimators_take_a_device_with_a_precision(with_bf16: Backend) -> None:
    x, y = nn.data.load("iris").x, nn.data.load("iris").y
    fitted = [
        nn.MLPClassifier(
            (9,), device=with_bf16.with_precision(precision), max_iter=3, random_state=0,
            dtype="float32",
        ).fit(x, y)
        for precision in ("bf16", "float32", "bf16")
    ]  # fmt: skip
    weights = [np.concatenate([w.ravel() for w in model.coefs_]) for model in fitted]
    np.testing.assert_array_equal(weights[0], weights[2])
    assert (weights[0] != weights[1]).any()
    np.testing.assert_allclose(weights[0], weights[1], atol=0.05)


def test_the_command_line_trains_and_resumes_in_bf16(
    with_bf16: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def interrupt(writer: RunWriter, trainer: Trainer, row: object) -> None:
        trainer.interrupt.requested = True

    common = ["train", "iris", "--device", "cpu", "--seed", "1", "--epochs", "3", "--quiet"]
    with monkeypatch.context() as during:
        during.setattr(RunWriter, "on_epoch_end", interrupt)
        assert main([*common, "--precision", "bf16", "--out", "resumed"]) == 130
    assert main(["train", "--resume", "resumed", "--quiet"]) == 0
    assert main([*common, "--precision", "bf16", "--out", "whole"]) == 0
    assert main([*common, "--out", "exact"]) == 0
    resumed, whole, exact = (
        nn.load(Path(run) / "model.safetensors").network for run in ("resumed", "whole", "exact")
    )
    assert resumed.backend.precision == whole.backend.precision == "bf16"
    np.testing.assert_array_equal(resumed.theta, whole.theta)
    assert (exact.theta != whole.theta).any()


def test_a_precision_is_seen_and_noted_where_it_has_no_effect(
    with_bf16: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    net = nn.Network([4, 3], device=with_bf16, precision="bf16")
    assert repr(net.backend) == "<backend numba:0, float32 products in bf16>"
    assert net.summary().endswith("float32 on numba:0, products in bf16")
    assert not caplog.records
    wide = nn.Network([4, 3], device=with_bf16, precision="bf16", dtype="float64")
    assert wide.summary().endswith("float64 on numba:0")
    assert caplog.messages == ["precision='bf16' has no effect on a float64 network"]
    caplog.clear()
    x, weight = np.ones((6, 4), np.float32), np.ones(6, np.float32)
    nn.train(net, x, np.zeros((6, 3)), epochs=1, sample_weight=weight)
    (message,) = caplog.messages
    assert "steps run kernel by kernel, with products in float32, not bf16: sample" in message


def test_a_run_resumed_otherwise_names_what_rounds_differently(
    with_bf16: Backend, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    x, y = np.random.default_rng(0).standard_normal((40, 4)), np.arange(40) % 3
    net = nn.Network([4, 3], "cross_entropy", device=with_bf16, precision="bf16", seed=0)
    nn.train(net, x, y, epochs=2, callbacks=[nn.Checkpoints(tmp_path)])
    nn.resume(tmp_path, x, y, epochs=3)
    assert not caplog.records
    nn.resume(tmp_path, x, y, epochs=4, device="numpy")
    assert "precision bf16, now float32" in caplog.text
    caplog.clear()
    fewer = with_bf16.with_precision("float32")
    fewer = type(fewer)()
    fewer._threads += 1  # type: ignore[attr-defined]
    nn.resume(tmp_path, x, y, epochs=5, device=fewer)
    n = with_bf16.threads
    assert f"threads 1, now {n + 1}" in caplog.text or f"threads {n}, now {n + 1}" in caplog.text
