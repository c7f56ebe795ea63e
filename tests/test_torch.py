"""The backend on PyTorch: its devices, errors and refusals. Its kernels are in the matrix."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch_rows import lacking

import nnbackend as nn
from nnbackend.backend.spec import Device
from nnbackend.errors import BackendError, DeviceMemoryError

if lacking():
    pytest.skip(lacking(), allow_module_level=True)

import torch

from nnbackend_torch import probe
from nnbackend_torch.backend import TorchBackend

RNG = np.random.default_rng(3)
X = RNG.normal(size=(90, 5)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(int)


def test_asking_for_devices_imports_pytorch_only_if_there_may_be_a_gpu() -> None:
    code = (
        "import sys, nnbackend as nn, nnbackend_torch.probe as p;"
        "rows = {r.name: r for r in nn.backends()}; assert rows['torch'].usable;"
        "assert 'torch:cpu:0' in rows['torch'].devices;"
        "assert p._may_have_gpus() or 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_devices_of_all_types_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_may_have_gpus", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert probe.devices.__wrapped__() == (
        Device("cuda", "gpu", 0), Device("cuda", "gpu", 1), Device("mps", "gpu", 0),
        Device("cpu", "cpu", 0),
    )  # fmt: skip


@pytest.mark.parametrize("word", ["torch", "torch:cpu", "torch:cpu:0"])
def test_words_for_the_cpu(word: str) -> None:
    if probe.devices()[0].kind == "gpu" and word == "torch":
        pytest.skip("the first device is a GPU here")
    assert nn.get_backend(word).device == "torch:cpu:0"


def test_apples_gpus_have_no_float64() -> None:
    backend = TorchBackend("mps", 0)
    assert (backend.device, backend.sum_dtype) == ("torch:mps:0", "float32")
    assert not backend.owns(torch.zeros(3))


def test_missing_memory_is_an_error_of_the_device() -> None:
    backend = nn.get_backend("torch:cpu")
    with pytest.raises(DeviceMemoryError, match="torch:cpu:0"):
        backend.empty((1 << 45,), "float32")
    with pytest.raises(DeviceMemoryError), backend.active():
        torch.empty(1 << 45)


def test_a_tensor_with_gradients_is_refused_with_the_cure() -> None:
    net = nn.Network([5, 3, 2], "cross_entropy", device="torch:cpu", seed=0)
    x = torch.from_numpy(X).requires_grad_()
    with pytest.raises(nn.NNBackendError, match=r"detach|gradient"):
        net.predict(x)


class Half(nn.Callback):
    """A callback that interrupts a run after some steps."""

    def on_progress(self, trainer: Any, step: int, n_steps: int) -> None:
        if trainer.state.epoch == 2 and step >= 3:
            trainer.interrupt.requested = True


@pytest.mark.parametrize(("first", "second"), [("numpy", "torch:cpu"), ("torch:cpu", "numpy")])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_half_of_a_run_on_each(tmp_path: Path, first: str, second: str, optimizer: str) -> None:
    def new(device: str) -> nn.Network:
        layers = [5, nn.Dense(8, "tanh"), nn.Dropout(0.2), nn.Dense(2, "softmax")]
        return nn.Network(layers, "cross_entropy", device=device, seed=1, dtype="float64")

    options: dict[str, Any] = {
        "optimizer": optimizer, "epochs": 5, "batch_size": 16, "validation": 0.2, "seed": 2,
    }  # fmt: skip
    whole = nn.Model(new("numpy"))
    expected = whole.fit(X, Y, **options)
    callbacks = [Half(), nn.Checkpoints(tmp_path)]
    nn.Model(new(first)).fit(X, Y, **options, callbacks=callbacks)
    model, history = nn.resume(tmp_path, X, Y, device=second)
    assert model.network.backend.name == nn.get_backend(second).name
    assert np.allclose(history["valid_loss"], expected["valid_loss"], rtol=0, atol=1e-12)
    networks = model.network, whole.network
    for got, wanted in zip(*(net.get_parameters()[0] for net in networks), strict=True):
        assert np.allclose(got, wanted, rtol=0, atol=1e-12)


def test_small_networks_run_on_one_thread() -> None:
    backend = nn.get_backend("torch:cpu")
    before = torch.get_num_threads()
    with backend.active(1000):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_a_step_without_a_graph_is_called(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """CUDA graphs themselves need a GPU: only what surrounds them is tried here."""
    from contextlib import nullcontext

    from nnbackend_torch import cuda

    calls: list[str] = []

    class Graph:
        def replay(self) -> None:
            calls.append("replay")

    class Capture:
        def __init__(self, graph: Graph) -> None: ...
        def __enter__(self) -> None:
            calls.append("capture")

        def __exit__(self, *args: object) -> None: ...

    stream = SimpleNamespace(wait_stream=lambda other: None)
    fakes = {
        "device": lambda d: nullcontext(), "Stream": lambda: stream,
        "stream": lambda s: nullcontext(),
        "current_stream": lambda: stream, "CUDAGraph": Graph, "graph": Capture,
        "synchronize": lambda: None,
    }  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    run = cuda.TorchCUDA(0).capture(lambda: calls.append("step"))
    run(3)
    run(2)
    assert calls == ["step", "capture", "step", "replay", "replay", "replay", "replay"]

    def refused() -> None:
        calls.append("step")
        if calls.count("capture") > calls.count("end"):
            calls.append("end")
            raise RuntimeError("operation not permitted when stream is capturing")

    calls.clear()
    run = cuda.TorchCUDA(0).capture(refused)
    run(3)
    assert calls == ["step", "capture", "step", "end", "step", "step"]
    assert "called one by one" in caplog.text


def test_other_errors_stay_what_they_are() -> None:
    backend = nn.get_backend("torch:cpu")
    with pytest.raises(RuntimeError) as error:
        backend.copy(torch.zeros(2), torch.zeros(3))
    assert not isinstance(error.value, BackendError)
