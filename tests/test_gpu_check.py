"""`benchmarks.gpu_check` runs every part on the stand-in, and reports each injected fault."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from emulator import LACKING
from mpi_processes import lacking

from benchmarks.gpu_check import PARTS, ROOT, main, verdict_in
from benchmarks.gpu_report import Report
from benchmarks.gpu_rows import TINY
from benchmarks.gpu_speed import pairs

pytestmark = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))
# A PyTorch that hangs at its import, with a child that hangs too.
HANGS = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
print(f"grandchild {child.pid}", flush=True)
time.sleep(600)
"""


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder at the start of the children's path, which injects faults."""
    folder = tmp_path / "faults"
    (folder / "torch").mkdir(parents=True)
    (folder / "torch" / "__init__.py").write_text(HANGS, encoding="utf-8")
    shutil.copy(ROOT / "tests" / "gpu_faults.py", folder / "sitecustomize.py")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def found(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("*.json")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def ran(folder: Path, *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["--emulated", "--out", str(folder), *words])
    return code, found(folder)


def test_every_part_runs_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, content = ran(tmp_path)
    assert content["failures"] == []
    assert code == 0
    assert set(content["ended"]) == set(content["parts"]) == set(PARTS)
    first = content["parts"]["first"]
    assert first["launches"]["relu_epilogue_keeps_nan"] is False  # as in the stand-in's model
    assert first["products float32"]["largest_error"] < 1e-6
    captures = {name: answer for name, answer in first.items() if name.startswith("capture")}
    assert all(answer["equal"] for name, answer in captures.items() if name.endswith("separate"))
    assert captures["capture relu plain narrow"]["narrow"]
    assert content["parts"]["conformance"]["counts"]["passed"] >= 20
    assert set(content["parts"]["speed"]) == set(pairs(is_emulated=True))
    peers = [name.split() for name in content["parts"]["peers"]]
    assert {words[-2] for words in peers} == set(TINY)
    assert {words[-1] for words in peers} == {"jax", "torch", "torch-graphs"}
    apart = content["parts"]["speed"][f"{TINY[0]} ours-unfused"]
    assert apart["epilogues"]["bias gradient"] == 2  # one of each layer
    parts = content["parts"]["profile"][TINY[0]]["parts"]
    assert [name for name, _ in parts if name.startswith("product")]
    digits = content["parts"]["train"]["digits"]
    assert digits["gpu"]["test_accuracy"] == pytest.approx(digits["cpu"]["test_accuracy"], abs=0.01)
    if not lacking():
        assert content["parts"]["ranks"]["2 fixed"]["ok"]
    summary = capsys.readouterr().out.splitlines()[-len(PARTS) - 3 :]
    assert summary[-1] == "no failure"


@pytest.mark.parametrize(
    ("fault", "part", "said"),
    [
        (
            "recording",
            "speed",
            "not recorded: recording failed: RuntimeError: a capture that fails",
        ),
        ("library", "speed", "matmul fell back on CuPy: cuBLASLt cannot be used"),
        ("epilogue", "speed", "product refused: bias gradient"),
        ("epilogue", "first", "'epilogue': 'bias gradient'"),
        ("killed", "first", "exit code -9"),
    ],
)
def test_a_fault_is_a_failure(
    tmp_path: Path, faults: Path, monkeypatch: pytest.MonkeyPatch, fault: str, part: str, said: str
) -> None:
    monkeypatch.setenv("NNBACKEND_FAULT", fault)
    # One contender with separate products, which are where these faults are.
    code, content = ran(tmp_path, "--part", part, "--contender", "ours-unfused")
    assert code == 1
    assert [failure for failure in content["failures"] if said in failure]
    if fault == "killed":  # earlier answers are present
        assert content["parts"]["first"]["alignment"]["ok"]


def test_a_peer_that_hangs_is_a_failure_until_it_runs_again(tmp_path: Path, faults: Path) -> None:
    code, _ = ran(tmp_path, "--part", "peers", "--seconds", "3", "--contender", "torch-graphs")
    assert code == 1
    log = (tmp_path / "gpu-check-emulated-peers.log").read_text(encoding="utf-8")
    pids = [int(pid) for pid in re.findall(r"grandchild (\d+)", log)]
    assert pids
    end = time.monotonic() + 10
    while any(map(is_alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(is_alive, pids))
    code, content = ran(tmp_path, "--part", "peers", "--contender", "jax")
    assert code == 1
    assert [f for f in content["failures"] if f.startswith("peers: torch-graphs: stopped after")]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # a zombie has ended


def test_a_killed_check_keeps_its_answers_and_resumes(tmp_path: Path) -> None:
    words = ["--part", "speed", "--contender", "ours", "--contender", "ours-unforked"]
    wanted = [pair for pair in pairs(is_emulated=True) if pair.split()[1] in words]
    child = subprocess.Popen(
        [*(sys.executable, "-m", "benchmarks.gpu_check", "--emulated"), *words, "--out", tmp_path],
        cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    end = time.monotonic() + 60
    while time.monotonic() < end and child.poll() is None:
        if list(tmp_path.glob("*.json")) and len(found(tmp_path)["parts"].get("speed", {})) >= 2:
            break
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    before = found(tmp_path)
    (path,) = tmp_path.glob("*.json")
    assert "speed: cut off before its end" in Report(path, is_emulated=True).failures()
    answers = before["parts"]["speed"]
    assert 2 <= len(answers) < len(wanted)
    code, content = ran(tmp_path, *words)
    assert code == 0
    assert set(content["parts"]["speed"]) == set(wanted)
    assert {name: content["parts"]["speed"][name] for name in answers} == answers


def test_without_time_every_task_is_left_out(tmp_path: Path) -> None:
    _, content = ran(tmp_path, "--part", "first", "--seconds", "0")
    assert content["parts"]["first"]["first"] == {"left_out": "no time left"}


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ("[gw3] [ 10%] PASSED tests/test_conformance.py::TestCupy::test_a[x] ", "PASSED"),
        ("tests/test_conformance.py::TestCupy::test_a[x] FAILED          [  4%]", "FAILED"),
        ("FAILED tests/test_conformance.py::TestCupy::test_a[x] - AssertionError", ""),
        ("SKIPPED [1] tests/test_conformance.py:12: no GPU", ""),
        ("tests/test_conformance.py::TestCupy::test_a[x] ", ""),
        ("===== 16 passed in 10.37s =====", ""),
    ],
)
def test_verdicts_of_pytest(line: str, verdict: str) -> None:
    assert verdict_in(line)[0] == verdict


def test_an_unknown_contender_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        ran(tmp_path, "--part", "speed", "--contender", "ours-tf23")
    assert error.value.code == 2
    assert "ours-tf32" in capsys.readouterr().err


def test_without_a_gpu_there_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert main(["--out", str(tmp_path), "--part", "first", "--part", "speed"]) == 1
    said = capsys.readouterr().out
    assert "cupy is not usable" in said
    assert "--emulated" in said
    assert found(tmp_path)["failures"]
    assert "speed" not in found(tmp_path)["parts"]
