"""Comparison of two devices: it reports agreement and detects faults."""

from __future__ import annotations

from typing import Any

import pytest

from nnbackend.devices import get_backend
from nnbackend.errors import UnknownBackendError
from nnbackend.testing import GhostBackend
from nnbackend.testing.agreement import compare_devices


@pytest.mark.parametrize("device", ["numba", "ghost"])
def test_our_backends_agree_with_numpy(device: str) -> None:
    if device == "numba":
        pytest.importorskip("numba", reason="numba is not installed")
    backend = GhostBackend() if device == "ghost" else get_backend(device)
    result = compare_devices(backend, "numpy")
    assert result, str(result)
    assert {d.dtype for d in result.differences} == {"float32", "float64"}
    assert "agree" in str(result)
    bitwise = [d for d in result.differences if d.what in ("initial weights", "dropout mask")]
    assert len(bitwise) == 4
    assert all(d.error == 0.0 for d in bitwise)


def test_a_wrong_gradient_is_detected() -> None:
    numpy = type(get_backend("numpy"))

    class Wrong(numpy):  # type: ignore[misc, valid-type]
        def dense_backward(self, *args: Any) -> None:
            super().dense_backward(*args)
            args[6][...] *= 1.001  # dW

    result = compare_devices(Wrong(), "numpy")
    assert not result
    failed = {d.what for d in result.differences if not d.passed}
    assert "gradient" in failed
    assert "initial weights" not in failed
    assert "DISAGREE" in str(result)
    assert "FAILED" in str(result)


def test_an_unknown_device_raises() -> None:
    with pytest.raises(UnknownBackendError, match="Did you mean 'numpy'"):
        compare_devices("numpi")


def test_the_command_compares_two_devices(capsys: pytest.CaptureFixture[str]) -> None:
    from nnbackend.cli import main

    assert main(["check", "--device", "numpy", "--against", "numpy"]) == 0
    assert "numpy:0 and numpy:0 agree" in capsys.readouterr().out
