"""Writing under faults: kills, errors and limits at every moment of a save.

Each fault is also let loose on a naive writer, which must fail: else the fault proves nothing.
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


@pytest.mark.parametrize("kind", ["savez", "in_place"])
def test_naive_writers_do_not_survive_kills(
    kind: str, script: Script, count: Count, note: Note, tmp_path: Path
) -> None:
    found = script("kill_loop.py", kind, count(60, 1000), tmp_path)
    note(f"{found}")
    assert found["unreadable"] > 0


def strace(*words: str) -> list[str]:
    """Give the beginning of a command under strace, or skip where it cannot trace."""
    program = command("strace")
    if subprocess.run([program, "-qq", "-e", "trace=none", "true"], check=False).returncode:
        pytest.skip("strace may not trace here")
    return [program, "-f", "-qq", *words]


def test_killed_exactly_at_the_rename(script: Script, tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert script("writers.py", "ours", path, 1)["saved"] == 1
    under = strace("-e", "trace=/^rename", "-e", "inject=/^rename:signal=KILL:when=1")
    done = script("writers.py", "ours", path, 2, under=under)
    assert done["code"] != 0
    assert read("ours", path) == 1


def test_an_error_of_fsync_leaves_the_older_file(script: Script, tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert script("writers.py", "ours", path, 1)["saved"] == 1
    under = strace("-e", "trace=fsync", "-e", "inject=fsync:error=EIO")
    done = script("writers.py", "ours", path, 3, under=under)
    assert (done["saved"], done["failed"]) == (0, 3)
    assert read("ours", path) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["file"]  # no temporary file is left


CALL = re.compile(r"(write|fsync|fdatasync|rename|renameat|renameat2)\((.*)")


def _is_safe(log: str, folder: Path) -> bool:
    """Whether the file was written, brought to the disk, renamed, and the folder then, too."""
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
    """What survives a power cut cannot be tried here; that the disk is asked in order can."""
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
    """Also a tenth of fsync and rename; the errors are of many kinds."""
    path, steps = tmp_path / "file", count(60, 1000)
    assert script("writers.py", kind, path, 1)["saved"] == 1
    under = [command("fiu-run"), "-x"]
    for name, probability in (("rw/write", 0.2), ("sync/fsync", 0.1), ("dir/rename", 0.1)):
        under += ["-c", f"enable_random name=posix/io/{name},probability={probability}"]
    found = script("writers.py", kind, path, steps, under=under)
    note(f"{found['saved']} saved, {found['failed']} failed with {found['kinds']} kinds of error")
    assert found["failed"] > 0  # how many is chance: `fiu-run` takes no seed
    if kind == "ours":
        assert found["saved"] > 0
        assert read(kind, path) == max(found["last"], 1)
        assert [p.name for p in tmp_path.iterdir()] == ["file"]
    else:  # what was there is gone with the first failure: some step of many ends in no file
        assert _loses_its_file(script, tmp_path, under)


def _loses_its_file(script: Script, folder: Path, under: list[str]) -> bool:
    for attempt in range(200):
        path = folder / f"file{attempt}"
        script("writers.py", "in_place", path, 1)
        if script("writers.py", "in_place", path, 1, under=under)["failed"]:
            try:
                read("in_place", path)
            except Exception:  # of whatever kind
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
        pytest.skip(f"a small disk cannot be made: {done.stderr.strip()}")
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
        with pytest.raises(ValueError, match=r"cut off|fill the file"):
            read(kind, path)


def limited(limit: int, most: int, kind: str, path: Path, steps: int) -> str:
    """Write under a limit of the system; give what was printed."""
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
        with pytest.raises(ValueError, match=r"cut off|fill the file"):
            read(kind, path)


def test_a_limit_of_memory(script: Script, tmp_path: Path) -> None:
    """Memory that runs out while saving is an error like any other; the older file stays."""
    path = tmp_path / "file"
    assert script("writers.py", "ours", path, 1, WRITER_WIDTH="3100")["saved"] == 1  # 38 MB
    outcomes = set()
    for extra in range(0, 240, 30):
        out = limited_extra(extra * 1_000_000, path)
        outcomes.add(out)
        assert read("ours", path) in (1, 2)
        assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert outcomes == {"saved", "failed"}  # both were seen, so the limit bit within a save


def limited_extra(extra: int, path: Path) -> str:
    """Save with only so much more memory than is in use already.

    The arrays are so large that the C library gives them back to the system when they are freed.
    """
    code = f"""
import resource, sys
from pathlib import Path
import writers
net = writers._network(2)
net.save(Path({str(path.parent / "other")!r}))  # everything is imported by now
Path({str(path.parent / "other")!r}).unlink()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {extra}, resource.RLIM_INFINITY))
try:
    net.save(Path({str(path)!r}))
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
