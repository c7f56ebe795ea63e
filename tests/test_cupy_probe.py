"""The probe reports the correct reason and cure for every cause of a missing CUDA GPU.

No test needs a GPU: fakes simulate machines. The last tests use the real CuPy, if installed.
"""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nnbackend.backend import Probe
from nnbackend.devices import get_backend, registry
from nnbackend.errors import BackendUnavailableError
from nnbackend_cupy import SPEC
from nnbackend_cupy import probe as cupy_probe

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("pip ", "nvidia-smi", "unset ", "set ", "mv ", "python ")

needs_cupy = pytest.mark.skipif(not cupy_probe.distributions(), reason="CuPy is not installed")


def fail(message: str, kind: type[Exception] = RuntimeError) -> Callable[..., Any]:
    def raiser(*args: Any, **kwargs: Any) -> Any:
        raise kind(message)

    return raiser


class FakeDevice:
    def __init__(self, index: int) -> None:
        self.index = index

    def __enter__(self) -> FakeDevice:
        return self

    def __exit__(self, *args: object) -> None:
        pass


class HostArray(np.ndarray):
    def get(self) -> np.ndarray:
        return np.array(self)


class FakeCuda(SimpleNamespace):
    """cupy.cuda, where cublas is loaded, or fails to load, at its first use."""

    @property
    def cublas(self) -> Any:
        return self.load_cublas()


def fake_cupy(**runtime: Any) -> Any:
    """Return a CuPy 14.2 for CUDA 13 on a working machine with two GPUs; change it by keyword."""
    healthy = {
        "driverGetVersion": lambda: 13000,
        "runtimeGetVersion": lambda: 13020,
        "getDeviceCount": lambda: 2,
        "getDeviceProperties": lambda index: {
            "name": b"Fake H%d00" % (index + 1),
            "totalGlobalMem": 80 << 30,
            "major": 9,
            "minor": 0,
        },
    }
    cuda = FakeCuda(
        runtime=SimpleNamespace(**{**healthy, **runtime}),
        nvrtc=SimpleNamespace(getVersion=lambda: (13, 2)),
        load_cublas=lambda: object(),
        Device=FakeDevice,
    )
    core = SimpleNamespace(assemble_cupy_compiler_options=lambda options: options)
    return SimpleNamespace(
        __version__="14.2.0",
        ndarray=np.ndarray,
        cuda=cuda,
        _core=SimpleNamespace(core=core),
        arange=lambda n, dtype: np.arange(n, dtype=dtype).view(HostArray),
    )


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that simulates a machine for the probe."""

    def put(
        names: tuple[str, ...] = ("cupy-cuda13x",),
        cupy: Any = None,
        importable: bool = True,
        driver: int = 13000,
    ) -> Any:
        cupy = fake_cupy() if cupy is None else cupy
        give = cupy if callable(cupy) else lambda: cupy
        monkeypatch.setattr(cupy_probe, "distributions", lambda: list(names))
        monkeypatch.setattr(cupy_probe, "is_importable", lambda: importable)
        monkeypatch.setattr(cupy_probe, "driver_version", lambda: driver)
        monkeypatch.setattr(cupy_probe, "import_cupy", give)
        return cupy

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return put


def expect(found: Probe | None, *reason: str, cure: str) -> None:
    assert found is not None
    assert found.device_count == 0
    for part in reason:
        assert part in found.reason
    assert found.cure.startswith(cure)
    assert found.cure.startswith(COMMANDS)
    assert "\n" not in found.reason + found.cure


# ---- a complete machine -------------------------------------------------------------------------


def test_a_working_machine(machine: Callable[..., Any]) -> None:
    machine()
    found = cupy_probe.probe()
    assert (found.device_count, found.reason, found.cure) == (2, "", "")
    details = dict(found.details)
    assert details["CUDA driver"] == "13.0"
    assert details["cupy:1"] == "Fake H200, 80 GiB, compute 9.0"


def test_failed_queries_do_not_disable_the_gpu(machine: Callable[..., Any]) -> None:
    machine(cupy=fake_cupy(getDeviceProperties=fail("not today")))
    assert cupy_probe.probe().device_count == 2


def test_a_newer_driver_supports_an_older_cupy(machine: Callable[..., Any]) -> None:
    machine(("cupy-cuda12x",), fake_cupy(runtimeGetVersion=lambda: 12090))
    assert cupy_probe.probe().device_count == 2


# ---- the installation ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "reason", "cure"),
    [
        (13000, "CuPy is not installed", 'pip install "nnbackend[cuda13]"'),
        (12040, "CuPy is not installed", 'pip install "nnbackend[cuda12]"'),
        (0, "no NVIDIA driver is visible either", "nvidia-smi"),
        (11080, "the NVIDIA driver (CUDA 11.8) is too old", "nvidia-smi"),
    ],
)
def test_no_cupy(machine: Callable[..., Any], driver: int, reason: str, cure: str) -> None:
    machine((), fail("must not be imported"), importable=False, driver=driver)
    expect(cupy_probe.probe(), "CuPy is not installed", reason, cure=cure)


def test_a_cupy_without_metadata_is_usable(machine: Callable[..., Any]) -> None:
    machine((), importable=True)
    assert cupy_probe.probe().device_count == 2


def test_two_cupys(machine: Callable[..., Any]) -> None:
    machine(("cupy-cuda12x", "cupy-cuda13x"), fail("must not be imported"))
    expect(
        cupy_probe.probe(),
        "2 CuPy distributions",
        "cupy-cuda12x, cupy-cuda13x",
        cure='pip uninstall -y cupy-cuda12x cupy-cuda13x && pip install "nnbackend[cuda13]"',
    )


def test_a_cupy_for_rocm(machine: Callable[..., Any]) -> None:
    machine(("cupy-rocm-7-0",))
    expect(cupy_probe.probe(), "ROCm", cure="pip uninstall -y cupy-rocm-7-0 && pip install")


def test_import_fails(machine: Callable[..., Any]) -> None:
    message = (
        "\n======\nFailed to import CuPy.\n\nOriginal error:\n  ImportError: bad ELF\n======\n"
    )
    machine(cupy=fail(message, ImportError))
    expect(
        cupy_probe.probe(),
        "cannot be imported: ImportError: bad ELF",
        cure="pip install --force-reinstall cupy-cuda13x",
    )


def test_something_else_called_cupy(machine: Callable[..., Any]) -> None:
    machine(cupy=SimpleNamespace(__path__=["/site-packages/cupy"]))
    expect(cupy_probe.probe(), "/site-packages/cupy", cure="pip install --force-reinstall")
    machine(cupy=SimpleNamespace(__file__="/home/me/cupy.py"))
    expect(cupy_probe.probe(), "/home/me/cupy.py", cure='mv "/home/me/cupy.py"')


def test_an_old_cupy(machine: Callable[..., Any]) -> None:
    cupy = fake_cupy()
    cupy.__version__ = "13.6.0"
    machine(cupy=cupy)
    expect(cupy_probe.probe(), "13.6.0", "14.0", cure="pip install --upgrade")
    for version in ("14.0.0rc1", "15.1.0", "unknown"):
        cupy.__version__ = version
        assert cupy_probe.too_old(cupy, []) is None


def test_distributions_are_found_by_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"cupy-cuda12x": "14.1.0", "numpy": "2.0"}

    def distribution(name: str) -> Any:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return SimpleNamespace(version=installed[name])

    monkeypatch.setattr(metadata, "distribution", distribution)
    assert cupy_probe.distributions() == ["cupy-cuda12x"]
    assert cupy_probe.version() == "CuPy 14.1.0"
    del installed["cupy-cuda12x"]
    assert cupy_probe.distributions() == []
    assert cupy_probe.version() == ""


# ---- the driver and the device ------------------------------------------------------------------


def test_no_driver(machine: Callable[..., Any]) -> None:
    machine(cupy=fake_cupy(driverGetVersion=lambda: 0, getDeviceCount=fail("InsufficientDriver")))
    expect(cupy_probe.probe(), "no NVIDIA driver is visible", cure="nvidia-smi")


@pytest.mark.parametrize(
    ("driver", "cure"),
    [
        (12040, 'pip uninstall -y cupy-cuda13x && pip install "nnbackend[cuda12]"'),
        (11080, "nvidia-smi"),
    ],
)
def test_an_old_driver(machine: Callable[..., Any], driver: int, cure: str) -> None:
    machine(cupy=fake_cupy(driverGetVersion=lambda: driver))
    shown = f"{driver // 1000}.{driver % 1000 // 10}"
    expect(cupy_probe.probe(), f"supports CUDA {shown}", "cupy-cuda13x needs CUDA 13.0", cure=cure)


@pytest.mark.parametrize("count", [lambda: 0, fail("cudaErrorNoDevice: no device is detected")])
def test_no_device(
    machine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, count: Callable[[], int]
) -> None:
    machine(cupy=fake_cupy(getDeviceCount=count))
    found = cupy_probe.probe()
    expect(found, "no usable GPU", "CUDA_VISIBLE_DEVICES is not set", cure="nvidia-smi")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    found = cupy_probe.probe()
    unset = "set " if sys.platform == "win32" else "unset CUDA_VISIBLE_DEVICES"
    expect(found, "no usable GPU", "CUDA_VISIBLE_DEVICES is '7'", cure=unset)


# ---- the libraries ------------------------------------------------------------------------------

LOADER = 'Failure finding "libx.so.13": No such file: libx.so.13, No such file: libx.so.13\n'


@pytest.mark.parametrize(
    ("broken", "what", "wheel"),
    [
        ("nvrtc", "NVRTC", "nvidia-cuda-nvrtc"),
        ("cublas", "cuBLAS", "nvidia-cublas"),
        ("headers", "CUDA headers", "nvidia-cuda-runtime"),
    ],
)
@pytest.mark.parametrize("cuda", [12, 13])
def test_a_missing_library(
    machine: Callable[..., Any], broken: str, what: str, wheel: str, cuda: int
) -> None:
    cupy = machine(cupy=fake_cupy(runtimeGetVersion=lambda: cuda * 1000))
    if broken == "nvrtc":
        cupy.cuda.nvrtc.getVersion = fail(LOADER)
    elif broken == "cublas":
        cupy.cuda.load_cublas = fail(LOADER, ImportError)
    else:
        advice = "Failed to find CUDA headers. Please install them (pip install something)."
        cupy._core.core.assemble_cupy_compiler_options = fail(advice)
    found = cupy_probe.probe()
    cure = f'pip install "{wheel}==13.*"' if cuda == 13 else f"pip install {wheel}-cu12"
    expect(found, what, wheel, cure=cure)
    assert "No such file" not in found.reason
    assert "pip" not in found.reason


def test_headers_are_not_checked_if_cupy_has_no_function_for_it() -> None:
    cupy = fake_cupy()
    del cupy._core.core.assemble_cupy_compiler_options
    assert cupy_probe.no_headers(cupy) is None


# ---- several causes at once ---------------------------------------------------------------------

ALSO = "or start the container with --gpus all), then "


@pytest.mark.parametrize(
    ("names", "what", "then"),
    [
        ((), "CuPy is not installed", 'pip install "nnbackend[cuda13]"'),
        (
            ("cupy-cuda12x", "cupy-cuda13x"),
            "2 CuPy distributions are installed over each other: cupy-cuda12x, cupy-cuda13x",
            'pip uninstall -y cupy-cuda12x cupy-cuda13x && pip install "nnbackend[cuda13]"',
        ),
    ],
)
def test_without_a_driver_and_without_a_usable_cupy(
    machine: Callable[..., Any], names: tuple[str, ...], what: str, then: str
) -> None:
    machine(names, fail("must not be imported"), importable=bool(names), driver=0)
    found = cupy_probe.probe()
    expect(found, f"{what}; no NVIDIA driver is visible either", cure="nvidia-smi (it must list")
    assert found.cure.endswith(ALSO + then)


def test_without_a_driver_and_without_libraries(machine: Callable[..., Any]) -> None:
    cupy = machine(cupy=fake_cupy(driverGetVersion=lambda: 0), driver=0)
    cupy.cuda.nvrtc.getVersion, cupy.cuda.load_cublas = fail(LOADER), fail(LOADER, ImportError)
    found = cupy_probe.probe()
    expect(
        found, "no NVIDIA driver is visible", "NVRTC, the compiler of the kernels, is missing",
        "cuBLAS, for matrix products, is missing", cure="nvidia-smi (it must list",
    )  # fmt: skip
    then = 'pip install "nvidia-cuda-nvrtc==13.*" "nvidia-cublas==13.*"'
    assert found.cure.endswith(ALSO + then)


def test_one_command_installs_all_libraries(machine: Callable[..., Any]) -> None:
    cupy = machine()
    cupy.cuda.nvrtc.getVersion, cupy.cuda.load_cublas = fail(LOADER), fail(LOADER, ImportError)
    found = cupy_probe.probe()
    expect(found, "NVRTC", "cuBLAS", cure='pip install "nvidia-cuda-nvrtc==13.*" "nvidia-cublas')


def test_libraries_are_not_checked_if_cupy_must_be_replaced(machine: Callable[..., Any]) -> None:
    cupy = machine(cupy=fake_cupy(driverGetVersion=lambda: 12040))
    cupy.cuda.nvrtc.getVersion = fail(LOADER)
    found = cupy_probe.probe()
    expect(found, "supports CUDA 12.4", cure="pip uninstall -y cupy-cuda13x && pip install")
    assert "NVRTC" not in found.reason


# ---- never raising ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("distributions", "is_importable", "driver_version", "import_cupy", "not_installed"),
        *("several_installed", "not_cupy", "too_old", "no_driver", "old_driver", "no_device"),
        *("no_compiler", "no_blas", "no_headers"),
    ],
)
def test_the_probe_never_raises(
    machine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    machine()
    monkeypatch.setattr(cupy_probe, name, fail("out of the blue", ValueError))
    expect(cupy_probe.probe(), "ValueError: out of the blue", cure="p")


@pytest.mark.parametrize("name", ["driverGetVersion", "runtimeGetVersion", "getDeviceCount"])
def test_the_probe_handles_a_broken_runtime(machine: Callable[..., Any], name: str) -> None:
    machine(cupy=fake_cupy(**{name: fail("")}))
    expect(cupy_probe.probe(), "RuntimeError", cure="")


# ---- the first use ------------------------------------------------------------------------------


def test_the_first_use_of_a_working_device(machine: Callable[..., Any]) -> None:
    machine()
    cupy_probe.check_first_use(1)


@pytest.mark.parametrize(
    ("error", "cure"),
    [
        ("cudaErrorNoKernelImageForDevice: no kernel image is available", "pip uninstall -y"),
        ("nvrtc: error: invalid value for --gpu-architecture (-arch)", "pip uninstall -y"),
        ("cudaErrorMemoryAllocation: out of memory", "nvidia-smi"),
        ("cudaErrorLaunchFailure: unspecified launch failure", "pip install --force-reinstall"),
    ],
)
def test_the_first_use_fails(machine: Callable[..., Any], error: str, cure: str) -> None:
    machine().arange = fail(error)
    with pytest.raises(BackendUnavailableError) as caught:
        cupy_probe.check_first_use(0)
    assert f"cupy:0 was found, but its first use failed: RuntimeError: {error}" in str(caught.value)
    assert f"-> {cure}" in str(caught.value)


def test_the_first_use_gives_wrong_numbers(machine: Callable[..., Any]) -> None:
    machine().arange = lambda n, dtype: np.ones(n, dtype).view(HostArray)
    with pytest.raises(BackendUnavailableError, match="wrong numbers"):
        cupy_probe.check_first_use(0)


# ---- through the public functions ---------------------------------------------------------------


def test_the_error_has_cause_and_cure(machine: Callable[..., Any]) -> None:
    machine(("cupy-cuda12x", "cupy-cuda13x"))
    registry.refresh()
    try:
        with pytest.raises(BackendUnavailableError) as caught:
            get_backend("gpu")
        (row,) = (row for row in registry.backends() if row.name == "cupy")
    finally:
        registry.refresh()
    assert "cupy-cuda12x, cupy-cuda13x -> pip uninstall -y" in str(caught.value)
    assert not row.usable
    assert row.cure.endswith('pip install "nnbackend[cuda13]"')


def test_the_spec() -> None:
    assert (SPEC.name, SPEC.kind, SPEC.priority) == ("cupy", "gpu", 10)
    assert isinstance(SPEC.version(), str)
    found = SPEC.probe()  # of the real machine
    assert (found.device_count > 0) == (found.reason == "") == (found.cure == "")


def test_importing_the_spec_imports_no_cupy() -> None:
    heavy = ["cupy", "cupyx", "nnbackend_cupy.probe", "nnbackend_cupy.backend"]
    code = (
        "import json, sys, nnbackend, nnbackend_cupy; nnbackend_cupy.SPEC; "
        f"print(json.dumps([m for m in {heavy} if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


# ---- the real CuPy, if installed ----------------------------------------------------------------


@needs_cupy
def test_the_namespace_has_the_functions_of_the_kernels() -> None:
    cupy_probe.import_cupy()
    from nnbackend_cupy.namespace import STAND_INS, xp

    used = "abs all argmax astype exp expm1 finfo log log1p max ones_like reshape sign sqrt stack"
    used += " sum take tanh where zeros zeros_like bool float32 float64 int32 int64 uint64"
    for name in [*used.split(), *STAND_INS]:
        assert hasattr(xp, name), name
    assert not hasattr(xp, "no_such_function")


@needs_cupy
def test_every_kernel_has_the_signature_of_the_base_class() -> None:
    cupy_probe.import_cupy()
    from nnbackend.backend import Backend
    from nnbackend_cupy.backend import CuPyBackend

    for name, method in inspect.getmembers(Backend, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.signature(getattr(CuPyBackend, name)) == inspect.signature(method), name


@needs_cupy
def test_the_real_cupy_has_the_functions_of_the_probe() -> None:
    cupy = cupy_probe.import_cupy()
    assert cupy_probe.not_cupy(cupy, []) is None
    assert cupy_probe.too_old(cupy, []) is None
    assert cupy.cuda.runtime.runtimeGetVersion() >= 12000
    assert cupy.cuda.runtime.driverGetVersion() >= 0
    assert hasattr(cupy._core.core, "assemble_cupy_compiler_options")
    if cupy.cuda.runtime.driverGetVersion() == 0:
        expect(cupy_probe.probe(), "no NVIDIA driver", cure="nvidia-smi")
