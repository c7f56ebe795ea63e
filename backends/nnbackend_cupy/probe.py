"""Find out why no GPU is usable: each cause with the one command that fixes it.

CuPy reports these causes late and unclearly: without a driver its import succeeds and the first
array raises an error about versions; a missing compiler raises at the first kernel. So this module
checks for each cause in the order in which it would occur. A check returns None or a Probe with
reason and cure; several causes found at once are all named. Only `check_first_use` raises.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

from nnbackend.backend import Probe
from nnbackend.errors import BackendUnavailableError

OLDEST = (14, 0)  # the first CuPy with `astype` and NumPy 2's rules of promotion

# Distributions that all install the folder `cupy`, so that they exclude each other.
CUDA_DISTRIBUTIONS = (
    *("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x", "cupy-cuda14x"),
    *(f"cupy-cuda{n}" for n in (102, 110, 111, 112, 113, 114, 115, 116, 117)),
)
ROCM_DISTRIBUTIONS = (
    *(f"cupy-rocm-{v}" for v in ("4-0", "4-2", "4-3", "5-0", "6-0", "7-0", "7-1", "7-14")),
    "amd-cupy",
)

PIP = "pip install "
NO_DRIVER = "no NVIDIA driver is visible"
NO_DRIVER_CURE = (
    "nvidia-smi (it must list a GPU: install the NVIDIA driver R580 or newer, "
    "or start the container with --gpus all)"
)
OLD_DRIVER_CURE = "nvidia-smi (shows the driver: update it to R580 or newer)"


# ---- what is installed --------------------------------------------------------------------------


def distributions() -> list[str]:
    """Return the installed distributions that contain CuPy."""
    found = []
    for name in (*CUDA_DISTRIBUTIONS, *ROCM_DISTRIBUTIONS):
        try:
            metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found


def version() -> str:
    """Return the installed CuPy's version as "CuPy 14.2.0", or an empty string."""
    try:
        return f"CuPy {metadata.version(distributions()[0])}"
    except Exception:  # no CuPy, or one without metadata
        return ""


def is_importable() -> bool:
    """Return True if `import cupy` would find a module, without importing it."""
    return "cupy" in sys.modules or importlib.util.find_spec("cupy") is not None


def import_cupy() -> Any:
    """Import CuPy without its warnings, whose causes the probe reports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("cupy")


def driver_version() -> int:
    """Return the CUDA version that the driver supports, such as 13000; 0 without a driver."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        number = ctypes.c_int(0)
        return number.value if library.cuDriverGetVersion(ctypes.byref(number)) == 0 else 0
    except (OSError, AttributeError):
        return 0


# ---- texts --------------------------------------------------------------------------------------


def _line(error: BaseException, last: bool = False) -> str:
    """Return the first or the last line of an error's message that is not empty."""
    lines = [line.strip() for line in str(error).splitlines() if re.search(r"\w", line)]
    name = type(error).__name__
    text = lines[-1 if last else 0] if lines else ""
    return text if text.startswith(name) else f"{name}: {text}".rstrip(": ")


def _cuda(number: int) -> str:
    """Return a CUDA version as text: "13.2" for 13020."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _extra(driver: int) -> str:
    """Return the extra for a driver: CUDA 13 needs the driver R580 or newer."""
    return "cuda12" if 12000 <= driver < 13000 else "cuda13"


def _install(extra: str) -> str:
    return f'pip install "nnbackend[{extra}]"'


def _replace(names: Sequence[str], extra: str) -> str:
    """Return the command that replaces CuPy.

    It uninstalls all distributions: they share files, and removing one of two damages the other.
    """
    return f"pip uninstall -y {' '.join(names)} && {_install(extra)}"


def _reinstall(names: Sequence[str]) -> str:
    return f"pip install --force-reinstall {names[0]}" if names else _install("cuda13")


# ---- causes: the installation -------------------------------------------------------------------


def not_installed(names: Sequence[str], importable: bool, driver: int) -> Probe | None:
    """Check that CuPy is installed; if not, also that the driver is new enough for one."""
    if names or importable:
        return None
    reason = "CuPy is not installed"
    if 0 < driver < 12000:
        reason += f", and the NVIDIA driver (CUDA {_cuda(driver)}) is too old for it"
        return Probe(0, reason, OLD_DRIVER_CURE)
    return Probe(0, reason, _install(_extra(driver)))


def several_installed(names: Sequence[str], driver: int) -> Probe | None:
    """Check that only one distribution has written into the folder `cupy`."""
    if len(names) < 2:
        return None
    reason = f"{len(names)} CuPy distributions are installed over each other: {', '.join(names)}"
    return Probe(0, reason, _replace(names, _extra(driver)))


def for_rocm(names: Sequence[str], driver: int) -> Probe | None:
    """Check that CuPy is not built for GPUs of AMD."""
    if not set(names) & set(ROCM_DISTRIBUTIONS):
        return None
    reason = f"{names[0]} is built for ROCm, and this backend needs CUDA"
    return Probe(0, reason, _replace(names, _extra(driver)))


def import_failed(error: BaseException, names: Sequence[str]) -> Probe:
    """Return the cause for an error of `import cupy`."""
    reason = f"CuPy is installed but cannot be imported: {_line(error, last=True)}"
    return Probe(0, reason, _reinstall(names))


def not_cupy(cupy: Any, names: Sequence[str]) -> Probe | None:
    """Check that `cupy` is not the rest of an uninstalled CuPy, or another file of that name."""
    if hasattr(cupy, "ndarray") and hasattr(cupy, "cuda"):
        return None
    where = getattr(cupy, "__file__", None) or next(iter(getattr(cupy, "__path__", [])), "?")
    is_script = os.path.basename(where) == "cupy.py"
    cure = f'mv "{where}" "{where}.away"' if is_script else _reinstall(names)
    return Probe(0, f"`import cupy` imports {where}, which is not a complete CuPy", cure)


def too_old(cupy: Any, names: Sequence[str]) -> Probe | None:
    """Check that CuPy has the functions that the kernels use."""
    numbers = re.match(r"(\d+)\.(\d+)", str(cupy.__version__))
    if numbers is None or tuple(map(int, numbers.groups())) >= OLDEST:
        return None
    oldest = ".".join(map(str, OLDEST))
    name = names[0] if names else "cupy"
    reason = f"CuPy {cupy.__version__} is too old: {oldest} or newer is needed"
    return Probe(0, reason, f'pip install --upgrade "{name}>={oldest}"')


# ---- causes: the driver and the device ----------------------------------------------------------


def no_driver(runtime: Any) -> Probe | None:
    """Check for libcuda, missing without an NVIDIA GPU or in a container started without it."""
    if runtime.driverGetVersion() > 0:
        return None
    return Probe(0, f"{NO_DRIVER} (libcuda.so.1 cannot be loaded)", NO_DRIVER_CURE)


def and_no_driver(cause: Probe, driver: int) -> Probe:
    """Add a missing driver to another cause, and put it first in the cure.

    Without a driver, large downloads would be useless.
    """
    if driver > 0:
        return cause
    return Probe(0, f"{cause.reason}; {NO_DRIVER} either", f"{NO_DRIVER_CURE}, then {cause.cure}")


def old_driver(runtime: Any, names: Sequence[str]) -> Probe | None:
    """Check that the driver supports CuPy's CUDA major version."""
    driver, wanted = runtime.driverGetVersion(), runtime.runtimeGetVersion() // 1000 * 1000
    if driver >= wanted:
        return None
    name = names[0] if names else "CuPy"
    reason = f"the NVIDIA driver supports CUDA {_cuda(driver)}, {name} needs CUDA {_cuda(wanted)}"
    if driver >= 12000:
        return Probe(0, reason, _replace(names or ["cupy"], _extra(driver)))
    return Probe(0, reason, OLD_DRIVER_CURE)


def no_device(runtime: Any, environ: Mapping[str, str]) -> Probe | None:
    """Check for a GPU that this process can use."""
    try:
        if runtime.getDeviceCount() > 0:
            return None
        why = "it counts 0 devices"
    except Exception as error:
        why = _line(error)
    hidden = environ.get("CUDA_VISIBLE_DEVICES")
    shown = "is not set" if hidden is None else f"is {hidden!r}"
    reason = f"an NVIDIA driver is present, but no usable GPU: {why}; CUDA_VISIBLE_DEVICES {shown}"
    if hidden is None:
        return Probe(0, reason, "nvidia-smi (it must list a GPU and no error)")
    unset = "set CUDA_VISIBLE_DEVICES=" if sys.platform == "win32" else "unset CUDA_VISIBLE_DEVICES"
    return Probe(0, reason, unset)


# ---- causes: the libraries ----------------------------------------------------------------------


def _wheel(name: str, cuda: int) -> str:
    """Return the name of NVIDIA's wheel for a CUDA version; for CUDA 13 it has no suffix."""
    return f"{name}-cu12" if cuda < 13 else name


def _missing(what: str, wheel: str, runtime: Any, load: Callable[[], Any]) -> Probe | None:
    try:
        load()
    except Exception as error:
        cuda = runtime.runtimeGetVersion() // 1000
        name = _wheel(wheel, cuda)
        pin = (
            f'"{name}=={cuda}.*"' if cuda >= 13 else name
        )  # cu12 wheels have other version numbers
        # The loader's message repeats itself, and CuPy's advice ignores the CUDA version.
        why = re.split(r": No such file|\. ", _line(error))[0]
        return Probe(0, f"{what} missing (wheel {name}): {why}", PIP + pin)
    return None


def no_compiler(cupy: Any) -> Probe | None:
    """Check for NVRTC, which compiles every kernel."""
    runtime, load = cupy.cuda.runtime, lambda: cupy.cuda.nvrtc.getVersion()
    return _missing("NVRTC, the compiler of the kernels, is", "nvidia-cuda-nvrtc", runtime, load)


def no_blas(cupy: Any) -> Probe | None:
    """Check for cuBLAS, which CuPy loads at its first use."""
    runtime, load = cupy.cuda.runtime, lambda: cupy.cuda.cublas
    return _missing("cuBLAS, for matrix products, is", "nvidia-cublas", runtime, load)


def no_headers(cupy: Any) -> Probe | None:
    """Check for the CUDA headers, which CuPy's kernels include."""
    find = getattr(cupy._core.core, "assemble_cupy_compiler_options", None)
    if find is None:  # private: if it is missing, `check_first_use` finds the cause
        return None
    runtime, load = cupy.cuda.runtime, lambda: find(())
    return _missing("the CUDA headers are", "nvidia-cuda-runtime", runtime, load)


def no_libraries(cupy: Any) -> Probe | None:
    """Check for the three libraries; return one cause and one command for all missing ones."""
    found = [cause for cause in (no_compiler(cupy), no_blas(cupy), no_headers(cupy)) if cause]
    if not found:
        return None
    wheels = [cause.cure.removeprefix(PIP) for cause in found]
    return Probe(0, "; ".join(cause.reason for cause in found), PIP + " ".join(wheels))


# ---- the probe ----------------------------------------------------------------------------------


def probe() -> Probe:
    """Return how many GPUs CuPy can use; for none, the reason and the cure. Never raise."""
    try:
        return _diagnose()
    except Exception as error:
        cure = 'python -c "import cupy; cupy.show_config()" (shows what CuPy sees)'
        return Probe(0, f"looking for a GPU failed: {_line(error)}", cure)


def _diagnose() -> Probe:
    names, driver, cupy = distributions(), driver_version(), None
    broken = (
        not_installed(names, is_importable(), driver)
        or several_installed(names, driver)
        or for_rocm(names, driver)
    )
    if broken is None:
        try:
            cupy = import_cupy()
        except Exception as error:
            broken = import_failed(error, names)
        else:
            broken = not_cupy(cupy, names) or too_old(cupy, names)
    return _machine(cupy, names) if broken is None else and_no_driver(broken, driver)


def _machine(cupy: Any, names: Sequence[str]) -> Probe:
    runtime: Any = cupy.cuda.runtime
    driver = no_driver(runtime) or old_driver(runtime, names) or no_device(runtime, os.environ)
    if driver is not None and driver.cure.startswith("pip "):
        return driver  # another CuPy needs other libraries
    libraries = no_libraries(cupy)
    if driver is not None and libraries is not None:
        both = f"{driver.reason}; {libraries.reason}", f"{driver.cure}, then {libraries.cure}"
        return Probe(0, *both)
    return driver or libraries or Probe(runtime.getDeviceCount(), details=_details(cupy))


def _details(cupy: Any) -> tuple[tuple[str, str], ...]:
    """Return the versions and devices to show if everything is installed."""
    runtime, rows = cupy.cuda.runtime, []
    try:
        rows.append(("CUDA driver", _cuda(runtime.driverGetVersion())))
        rows.append(("CUDA runtime", _cuda(runtime.runtimeGetVersion())))
        rows.append(("NVRTC", ".".join(map(str, cupy.cuda.nvrtc.getVersion()))))
        for index in range(runtime.getDeviceCount()):
            facts = runtime.getDeviceProperties(index)
            name, gib = facts["name"].decode(), facts["totalGlobalMem"] / 2**30
            compute = f"{facts['major']}.{facts['minor']}"
            rows.append((f"cupy:{index}", f"{name}, {gib:.0f} GiB, compute {compute}"))
    except Exception:
        pass  # a failed query must not disable the GPU
    return tuple(rows)


# ---- the first use ------------------------------------------------------------------------------


def check_first_use(index: int) -> None:
    """Run a tiny kernel and a tiny matrix product on a device and check their results.

    Raises: BackendUnavailableError with reason and cure if one fails or is wrong.
    """
    try:
        cupy = import_cupy()
        computed = _first_use(cupy, index)
    except Exception as error:
        raise BackendUnavailableError(
            f"cupy:{index} was found, but its first use failed: {_line(error)}.\n"
            f"  -> {_first_use_cure(error)}"
        ) from error
    expected = [[1.0, 2.0, 5.0], [10.0, 17.0, 26.0]], [[5.0, 14.0], [14.0, 50.0]]
    if computed != expected:
        raise BackendUnavailableError(
            f"cupy:{index} was found, but its first use gave wrong numbers: expected {expected}, "
            f"received {computed}.\n  -> {_reinstall(distributions())}"
        )


def _first_use(cupy: Any, index: int) -> tuple[list[list[float]], list[list[float]]]:
    """Return x * x + 1 and x x^T of x = [[0, 1, 2], [3, 4, 5]], exact in any float dtype."""
    with cupy.cuda.Device(index):
        x = cupy.arange(6, dtype="float32").reshape(2, 3)
        return (x * x + 1.0).get().tolist(), (x @ x.T).get().tolist()


def _first_use_cure(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    if re.search("gpu-architecture|[Nn]o ?[Kk]ernel ?[Ii]mage|[Ii]nvalidDevice", text):
        return _replace(distributions() or ["cupy"], "cuda12")  # CUDA 13 dropped the oldest GPUs
    if re.search("[Oo]ut ?[Oo]f ?[Mm]emory|MemoryAllocation|DevicesUnavailable", text):
        return "nvidia-smi (lists the processes that hold the GPU)"
    return _reinstall(distributions())
