"""Writing under faults: kills, errors and resource limits during a save.

Each fault is also applied to a naive writer, which must fail: else the test proves nothing.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ENVIRONMENT, HERE, Script, command
from writers import read

from nnbackend.errors import ModelFileError

Count = Callable[[int, int], int]
Note = Callable[[str], None]


# ---- kills ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ours", "checkpoints"])
def test_killed_at_random_moments(
    kind: str, script: Script, count: Count, note: Note, tmp_path: Path
) -> None:
    found = script("kill_loop.py", kind, count(60, 1000), tmp_path)
    note(f"{found}")
    assert found["code"] == 0, found["stderr"]
    assert (found["unreadable"], found["mixed"]) == (0, 0)
    assert found["kills"] >= count(60, 1000)


@pytest.mark.parametrize("kind", ["savez", "in_place", "checkpoints_in_place"])
def test_naive_writers_do_not_survive_kills(
    kind: str, script: Script, count: Count, note: Note, tmp_path: Path
) -> None:
    """The short form stops at the first broken file."""
    words = ["until-unreadable"] if count(1, 0) else []
    found = script("kill_loop.py", kind, count(3000, 1000), tmp_path, *words)
    note(f"{found}")
    assert found["unreadable"] > 0


def strace(*words: str) -> list[str]:
    """Return the prefix of a command under strace, or skip the test if it cannot trace."""
    program = command("strace")
    if subprocess.run([program, "-qq", "-e", "trace=none", "true"], check=False).returncode:
        pytest.skip("strace has no permission to trace")
    return [program, "-f", "-qq", *words]


@pytest.mark.parametrize(("kind", "call"), [("ours", "/^rename"), ("in_place", "write")])
def test_killed_at_the_critical_call(kind: str, call: str, script: Script, tmp_path: Path) -> None:
    """Kill our writer at the rename, and the in-place writer at its write."""
    path = tmp_path / "file"
    assert script("writers.py", kind, path, 1)["saved"] == 1
    of_the_file = [] if kind == "ours" else ["-P", str(path)]
    under = strace(*of_the_file, "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when=1")
    done = script("writers.py", kind, path, 2, under=under)
    assert done["code"] != 0
    if kind == "ours":
        assert read(kind, path) == 1
    else:
        with pytest.raises(ModelFileError):
            read(kind, path)


def test_an_error_of_fsync_keeps_the_older_file(script: Script, tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert script("writers.py", "ours", path, 1)["saved"] == 1
    under = strace("-e", "trace=fsync", "-e", "inject=fsync:error=EIO")
    done = script("writers.py", "ours", path, 3, under=under)
    assert (done["saved"], done["failed"]) == (0, 3)
    assert read("ours", path) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["file"]  # no temporary file is left
    # A writer without fsync does not notice the error.
    assert script("writers.py", "renamed", path, 3, under=under)["saved"] == 3


CALL = re.compile(r"(write|fsync|fdatasync|rename|renameat|renameat2)\((.*)")


def _is_safe(log: str, folder: Path) -> bool:
    """Return True if the file was written, synced and renamed, and then the folder synced."""
    order = []
    for line in log.splitlines():
        match = CALL.search(line)
        if match and str(folder) in match[2]:
            call = match[1].rstrip("at2")
            is_folder = re.search(rf"<{re.escape(str(folder))}>", match[2]) is not None
            order.append("folder" if call == "fsync" and is_folder else call)
    kept = [call for call, after in zip(order, [*order[1:], ""], strict=True) if call != after]
    return kept == ["write", "fsync", "rename", "folder"]


@pytest.mark.parametrize(("kind", "safe"), [("ours", True), ("renamed", False), ("savez", False)])
def test_the_order_of_system_calls(kind: str, safe: bool, script: Script, tmp_path: Path) -> None:
    """A power failure cannot be tested here, but the order of the system calls can."""
    log, folder = tmp_path / "log", tmp_path / "there"
    folder.mkdir()
    under = strace("-y", "-e", "trace=/^(write|fsync|rename)", "-o", str(log))
    assert script("writers.py", kind, folder / "file", 1, under=under)["saved"] == 1
    assert _is_safe(log.read_text(), folder) == safe


# ---- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ours", "in_place"])
def test_every_fifth_write_fails(
    kind: str, script: Script, count: Count, note: Note, tmp_path: Path
) -> None:
    """Also every tenth fsync and rename fails, with various errors."""
    path, steps = tmp_path / "file", count(60, 1000)
    assert script("writers.py", kind, path, 1)["saved"] == 1
    under = [command("fiu-run"), "-x"]
    for name, probability in (("rw/write", 0.2), ("sync/fsync", 0.1), ("dir/rename", 0.1)):
        under += ["-c", f"enable_random name=posix/io/{name},probability={probability}"]
    found = script("writers.py", kind, path, steps, under=under)
    note(f"{found['saved']} saved, {found['failed']} failed with {found['kinds']} kinds of error")
    assert found["failed"] > 0  # `fiu-run` has no seed
    if kind == "ours":
        assert found["saved"] > 0
        assert read(kind, path) == max(found["last"], 1)
        assert [p.name for p in tmp_path.iterdir()] == ["file"]
    else:  # the first failure destroys the older file
        assert _loses_its_file(script, tmp_path, under)


def _loses_its_file(script: Script, folder: Path, under: list[str]) -> bool:
    for attempt in range(200):
        path = folder / f"file{attempt}"
        script("writers.py", "in_place", path, 1)
        if script("writers.py", "in_place", path, 1, under=under)["failed"]:
            try:
                read("in_place", path)
            except Exception:  # of any type
                return True
    return False


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        [command("mount"), "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


WIDE = {"WRITER_WIDTH": "1400"}  # a file of 7.8 MB: one fits on the disk, two do not


@pytest.mark.parametrize("kind", ["ours", "in_place"])
def test_a_full_disk(kind: str, script: Script, small_disk: Path) -> None:
    path = small_disk / "file"
    assert script("writers.py", "ours", path, 1, **WIDE)["saved"] == 1
    wider = {"WRITER_WIDTH": "1800"}  # 13 MB
    found = script("writers.py", kind, path, 2, **(wider if kind == "in_place" else WIDE))
    assert (found["saved"], found["failed"]) == (0, 2)
    if kind == "ours":
        assert read(kind, path) == 1
        assert [p.name for p in small_disk.iterdir()] == ["file"]
    else:
        with pytest.raises(ValueError, match=r"truncated|fill the file"):
            read(kind, path)


def limited(limit: int, most: int, kind: str, path: Path, steps: int) -> str:
    """Write files under a resource limit and return the output."""
    done = subprocess.run(
        [sys.executable, str(HERE / "writers.py"), kind, str(path), str(steps)],
        env={**ENVIRONMENT, **WIDE}, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(limit, (most, resource.RLIM_INFINITY)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["ours", "in_place"])
def test_a_limit_of_file_size(kind: str, script: Script, tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert script("writers.py", "ours", path, 1, **WIDE)["saved"] == 1
    assert '"saved": 0, "failed": 2' in limited(resource.RLIMIT_FSIZE, 1_000_000, kind, path, 2)
    if kind == "ours":
        assert read(kind, path) == 1
        assert [p.name for p in tmp_path.iterdir()] == ["file"]
    else:
        with pytest.raises(ValueError, match=r"truncated|fill the file"):
            read(kind, path)


def test_a_limit_of_memory(script: Script, tmp_path: Path) -> None:
    """Running out of memory during a save is an error; the older file stays."""
    path = tmp_path / "file"
    assert script("writers.py", "ours", path, 1, WRITER_WIDTH="3100")["saved"] == 1  # 38 MB
    outcomes = set()
    for extra in range(0, 240, 30):
        out = limited_extra("ours", extra * 1_000_000, path)
        outcomes.add(out)
        assert read("ours", path) in (1, 2)
        assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert outcomes == {"saved", "failed"}  # both occur, so the limit applies within a save
    assert limited_extra("savez", 0, path) == "failed"
    with pytest.raises(EOFError):
        read("savez", path)


def test_a_limit_of_memory_while_training() -> None:
    """Batches and rows to predict are divided when memory is short."""
    code = """
import gc, resource
import numpy as np
import nnbackend as nn

def network():
    return nn.Network([20, 1000, nn.Dropout(0.2), nn.Dense(2, "softmax")], device="numpy", seed=1)

def run(net):
    options = {"batch_size": None, "optimizer": nn.SGD(0.1), "validation": 0.1}
    nn.train(net, x, y, epochs=1, **options)
    return net.theta, net.outputs(x), net.evaluate(x, y)["loss"]

x = np.random.default_rng(0).normal(size=(30_000, 20)).astype(np.float32)
y = (x[:, 0] > 0).astype(int)
expected, net = run(network()), network()
gc.collect()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 20_000_000, resource.RLIM_INFINITY))
found = run(net)
print(max(float(np.abs(a - b).max()) for a, b in zip(found, expected)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1e-5
    assert done.stderr.count("has no memory for a batch of 27000 rows") == 1


def limited_extra(kind: str, extra: int, path: Path) -> str:
    """Save with a limit of `extra` bytes above the memory in use.

    The arrays are so large that the C library returns them to the system when they are freed.
    """
    code = f"""
import resource, sys
from pathlib import Path
import writers
write, other = writers.WRITERS[{kind!r}], Path({str(path.parent / "other")!r})
write(other, 2)  # everything is imported by now
other.unlink()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {extra}, resource.RLIM_INFINITY))
try:
    write(Path({str(path)!r}), 2)
except MemoryError:
    print("failed")
else:
    print("saved")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**ENVIRONMENT, "WRITER_WIDTH": "3100"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
