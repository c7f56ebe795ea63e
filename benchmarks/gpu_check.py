"""The check of a machine with a GPU: `python -m benchmarks.gpu_check`, in under 9 minutes.

Conformance on the real device, capture against eager bit for bit, compute-sanitizer where it is
found, what the device can do, and the speed table. Each part runs in a process of its own. One
JSON is written after every part, so that a machine that is taken away leaves what there was.
`--emulated` runs tiny sizes on the stand-in without a GPU: it checks this program, not a GPU.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUDGET = 520.0  # seconds for everything
CONFORMANCE = 240.0  # of them, at most
ROWS = (
    *("784-100-10:128", "784-512-512-10:128", "784-512-512-10:1024"),
    "784-2500-2000-1500-1000-500-10:100",
    *("64-64-64-64-1:65536", "4096-4096-4096-4096-4096-4096-4096-4096-4096:8192"),
)
TINY = ("8-6-3:16", "8-6-6-1:64")
CONTENDERS = ("ours", "ours-tf32", "torch", "torch-compile", "torch-graphs", "jax")
Answer = dict[str, Any]


class Check:
    """One run: the time that is left, and the file that grows."""

    def __init__(self, out: Path, is_emulated: bool, budget: float) -> None:
        self.is_emulated, self._end = is_emulated, time.monotonic() + budget
        now = datetime.datetime.now(datetime.UTC)
        kind = "emulated" if is_emulated else "gpu"
        out.mkdir(parents=True, exist_ok=True)
        self.path = out / f"gpu-check-{kind}-{now:%Y-%m-%d}.json"
        self.result: Answer = {
            "date": now.isoformat(timespec="seconds"),
            "emulated": is_emulated,
            "complete": False,
        }

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self._end - time.monotonic()

    def note(self, name: str, answer: Any) -> None:
        """Enter an answer and write the file."""
        self.result[name] = answer
        self.path.write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {json.dumps(answer)[:160]}", flush=True)

    def run(self, command: Sequence[str], patience: float) -> tuple[int, str]:
        """Run a command; give its exit code and what it said. 124: it took too long."""
        folders = [ROOT, ROOT / "backends", ROOT / "tests", ROOT / "tests" / "cuda"]
        known = os.environ.get("PYTHONPATH")
        path = os.pathsep.join([*map(str, folders), *([known] if known else [])])
        required = {} if self.is_emulated else {"NNBACKEND_REQUIRE": "cupy"}
        patience = min(patience, self.left)
        if patience <= 1:
            return 124, "no time left"
        try:
            done = subprocess.run(
                command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path, **required},
                capture_output=True, text=True, check=False, timeout=patience,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return 124, f"no end after {patience:.0f} s"
        return done.returncode, done.stdout + done.stderr

    def part(self, *words: str, before: Sequence[str] = (), patience: float = 60.0) -> Answer:
        """Run a part in a process of its own; give its answer, or the error."""
        command = [*before, sys.executable, "-m", "benchmarks.gpu_parts", *words]
        code, said = self.run(command + ["--emulated"] * self.is_emulated, patience)
        lines = [line for line in said.splitlines() if line.startswith("ANSWER ")]
        if code or not lines:
            return {"error": f"exit code {code}: {said.strip()[-400:]}"}
        answer: Answer = json.loads(lines[-1].removeprefix("ANSWER "))
        return answer


def conformance(check: Check) -> Answer:
    """Run the kit and the matrix on the device; a skip is a failure."""
    # Of the stand-in only the suites that end soon: all of them run with the other tests.
    chosen = "(TestCupy or cupy) and not CupyEmulated and not cupy_emulated"
    if check.is_emulated:
        chosen = "CupyEmulatedRegistration or CupyEmulatedCapture"
    files = ["tests/test_conformance.py", "tests/test_cross_backend.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", chosen]
    code, said = check.run(command, CONFORMANCE)
    counts = {
        # The last: the kit's own table counts before pytest does.
        word: int(found[-1]) if (found := re.findall(rf"(\d+) {word}", said)) else 0
        for word in ("passed", "failed", "skipped", "error")
    }
    failures = re.findall(r"^(?:FAILED|ERROR|SKIPPED).*", said, re.MULTILINE)
    is_good = code == 0 and counts["passed"] > 0 and counts["skipped"] == 0
    return {"ok": is_good, "exit_code": code, **counts, "failures": failures[:30],
            **({} if is_good else {"said": said[-1500:]})}  # fmt: skip


def sanitizer(check: Check) -> Answer:
    """Run the captured steps under compute-sanitizer, where it is installed."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        return {"left_out": "compute-sanitizer is not on the PATH"}
    answers = {}
    for name in ("memcheck", "racecheck"):
        before = [tool, "--tool", name, "--error-exitcode", "9"]
        answers[name] = check.part("capture", before=before, patience=45.0)
    return answers


def speed(check: Check) -> None:
    """Measure every row with every contender, in processes of their own."""
    table: dict[str, Answer] = {}
    for row in TINY if check.is_emulated else ROWS:
        table[row] = {}
        for contender in CONTENDERS:
            if check.left < 8:
                table[row][contender] = {"left_out": "no time left"}
            else:
                table[row][contender] = check.part("speed", row, contender, patience=75.0)
            check.note("speed", table)


def failures(result: Answer) -> list[str]:
    """Give what went wrong in what is ours."""
    wrong = [n for n in ("facts", "numbers", "capture") if "error" in result.get(n, {})]
    wrong += ["conformance"] * (not result["conformance"]["ok"])
    wrong += ["capture"] * (not result["capture"].get("equal", False))
    tools = [a for a in result["sanitizer"].values() if isinstance(a, dict)]
    wrong += ["sanitizer"] * any("error" in answer for answer in tools)
    for row, answers in result.get("speed", {}).items():
        wrong += [f"{c} on {row}" for c, a in answers.items() if c[:4] == "ours" and "error" in a]
    return wrong


def main(argv: Sequence[str] | None = None) -> int:
    """Check and write; exit 1 when something of ours failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", allow_abbrev=False)
    parser.add_argument("--emulated", action="store_true", help="tiny sizes on the stand-in")
    parser.add_argument("--out", metavar="DIR", default=str(ROOT / "benchmarks" / "results"))
    parser.add_argument("--seconds", type=float, default=BUDGET, help="for everything")
    args = parser.parse_args(argv)
    check = Check(Path(args.out), args.emulated, args.seconds)
    check.note("facts", check.part("facts"))
    check.note("capture", check.part("capture"))
    check.note("numbers", check.part("numbers"))
    check.note("conformance", conformance(check))
    check.note("sanitizer", sanitizer(check))
    speed(check)
    wrong = failures(check.result)
    check.note("failures", wrong)
    check.note("complete", True)
    print(check.path)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
