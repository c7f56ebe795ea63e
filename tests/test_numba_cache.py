"""Kernels work if numba's disk cache is not writable, full or damaged."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nnbackend as nn
from nnbackend.devices import registry
from nnbackend.errors import BackendUnavailableError

numba = pytest.importorskip("numba", reason="numba is not installed")
numba_caching = pytest.importorskip("numba.core.caching")
caching = pytest.importorskip("nnbackend_numba.caching")

ROOT = Path(__file__).resolve().parents[1]
C_TYPE = "float64(float64)"


def doubled(x: Any) -> Any:
    return 2.0 * x


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point numba's cache at a folder of the test and reset what has been logged."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(caching, "_logged", set())
    return tmp_path


def files(folder: Path, ending: str) -> list[Path]:
    found = list(folder.rglob(f"*{ending}"))
    assert found
    return found


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def corrupt(path: Path) -> None:
    """Change the compiled code in the middle of a file, which remains a valid pickle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


DAMAGES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "code empty": (".nbc", lambda path: path.write_bytes(b"")),
    "code truncated": (".nbc", truncate),
    "code of zeros": (".nbc", lambda path: path.write_bytes(bytes(path.stat().st_size))),
    "code changed": (".nbc", corrupt),
    "code deleted": (".nbc", lambda path: path.unlink()),
    "index empty": (".nbi", lambda path: path.write_bytes(b"")),
    "index truncated": (".nbi", truncate),
    "index of text": (".nbi", lambda path: path.write_text("numba")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_replaced(
    damage: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ending, harm = DAMAGES[damage]
    assert caching.jit(doubled)(1.5) == 3.0
    for path in files(folder, ending):
        harm(path)
    with caplog.at_level(logging.INFO, "nnbackend"):
        assert caching.jit(doubled)(1.5) == 3.0
    assert caplog.text.count("damaged file, which is replaced") == (damage != "code deleted")
    again = caching.jit(doubled)
    assert again(1.5) == 3.0
    assert sum(again.stats.cache_hits.values()) == 1


def test_a_damaged_file_of_a_c_function_is_replaced(folder: Path) -> None:
    assert caching.c_function(C_TYPE, doubled).ctypes(1.5) == 3.0
    for path in files(folder, ".nbc"):
        truncate(path)
    assert caching.c_function(C_TYPE, doubled).cache_hits == 0
    again = caching.c_function(C_TYPE, doubled)
    assert again.ctypes(1.5) == 3.0
    assert again.cache_hits == 1


def test_a_full_disk_is_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail_to_write(self: Any, path: str) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(numba_caching.IndexDataCacheFile, "_open_for_write", fail_to_write)
    assert caching.jit(doubled)(1.5) == 3.0
    assert caching.c_function(C_TYPE, doubled).ctypes(1.5) == 3.0
    (record,) = (r for r in caplog.records if "cannot cache" in r.message)  # logged once
    assert record.levelno == logging.WARNING
    assert os.strerror(errno.ENOSPC) in record.message
    assert "Set NUMBA_CACHE_DIR to a writable folder" in record.message


def test_no_writable_folder_is_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "file").touch()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(folder / "file" / "within"))
    only = [numba_caching.UserProvidedCacheLocator]
    monkeypatch.setattr(numba_caching.CacheImpl, "_locator_classes", only)
    assert caching.jit(doubled)(1.5) == 3.0
    assert caching.c_function(C_TYPE, doubled).ctypes(1.5) == 3.0
    assert [r.levelno for r in caplog.records if "cannot cache" in r.message] == [logging.WARNING]


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="the folders are POSIX's")
def test_a_read_only_installation_and_home(tmp_path: Path) -> None:
    """Files replace the cache folders, so that no user can write there, not even root."""
    package = tmp_path / "nnbackend_numba"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "backends" / "nnbackend_numba", package, ignore=ignored)
    package.chmod(0o755)  # the checkout may be read-only
    (package / "__pycache__").touch()
    (tmp_path / "home").touch()
    code = (
        "import nnbackend as nn; net = nn.Network([2, 1], device='cpu');"
        "print(net.predict([[1.0, 2.0]]).shape, net.backend.device);"
        "import nnbackend_numba; print(nnbackend_numba.__file__)"
    )
    home = str(tmp_path / "home")
    path = os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "backends")))
    done = run(code, PYTHONPATH=path, HOME=home, XDG_CACHE_HOME=home, NUMBA_CACHE_DIR="")
    assert done.stdout.splitlines() == ["(1,) numba:0", str(package / "__init__.py")], done.stderr
    assert done.stderr.count("cannot cache compiled kernels") == 1
    assert done.stderr.count("numba compiles kernels for this machine; this") == 1


def test_a_disabled_compiler_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(registry.VARIABLE, raising=False)
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    registry.refresh()
    try:
        assert nn.get_backend("cpu").device == "numpy:0"
        (row,) = (row for row in nn.backends() if row.name == "numba")
        assert not row.usable
        assert "NUMBA_DISABLE_JIT" in row.reason
        assert row.cure == "unset NUMBA_DISABLE_JIT"
        with pytest.raises(BackendUnavailableError, match="unset NUMBA_DISABLE_JIT"):
            nn.get_backend("numba")
    finally:
        registry.refresh()


def test_a_numba_that_cannot_be_imported_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs NumPy 2.0 or less')\n")
    code = (
        "import nnbackend as nn; print(nn.get_backend('cpu').device);"
        "print([row.reason for row in nn.backends() if row.name == 'numba'])"
    )
    path = os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "backends")))
    done = run(code, PYTHONPATH=path, NNBACKEND_DEVICE="")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("numpy:0\n")
    assert "cannot be imported (ImportError: Numba needs NumPy 2.0 or less)" in done.stdout
