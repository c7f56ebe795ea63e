"""Check a machine with a GPU, in short parts.

    python -m benchmarks.gpu_check --part first [--part conformance ...] --out DIR
    python -m benchmarks.gpu_check --emulated        checks this program itself, without a GPU

Each part has a time budget and runs in separate processes. Answers are written to one JSON file at
once, so that earlier ones survive a part that hangs, a lost device or a lost machine. Running a
part again completes its missing answers. The logs are in the folder of the JSON. It needs a
checkout, Python 3.11, CuPy 14 and pytest, but no installation of the package.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import gpu_process
from benchmarks.gpu_process import Answer
from benchmarks.gpu_report import Report
from benchmarks.gpu_rows import TABLE, TINY
from benchmarks.gpu_speed import CONTENDERS, pairs

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (".", "backends", "tests", "tests/cuda")  # of PYTHONPATH
PEERS = ("torch-graphs", "jax", "torch")
COMPILED = (TABLE[1], TABLE[2])  # rows to measure with torch.compile, which is slow
# A line of pytest -v, with one or several workers, except for the summary at the end.
VERDICT = re.compile(
    r"^(?:\[gw\d+\].*? )?(?:(?P<early>[A-Z]+) )?(?P<test>tests/\S+)(?: (?P<late>[A-Z]+))?"
)
END = re.compile(r"^=+ .*\b(?:passed|failed|errors?)\b.* in [\d.]+s")


ENVIRONMENT = {
    # pytest loads only the requested plug-ins, whatever the machine has installed.
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "JAX_COMPILATION_CACHE_DIR": str(Path(tempfile.gettempdir()) / "nnbackend-jax-cache"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


class Check:
    """A run of some parts: their child processes, time and report."""

    def __init__(
        self, report: Report, is_emulated: bool, each: float, contenders: Sequence[str]
    ) -> None:
        self.report, self.is_emulated = report, is_emulated
        self.each, self.contenders = each, contenders  # none named: all
        self.part, self._end = "", 0.0

    @property
    def left(self) -> float:
        """Seconds until the end of this part's budget."""
        return self._end - time.monotonic()

    def begin(self, part: str, budget: float) -> None:
        """Begin a part."""
        self.part, self._end = part, time.monotonic() + budget

    def child(self, command: Sequence[str], name: str, hear: Callable[[str], None]) -> None:
        """Run a child within the remaining time; enter its failure under its name."""
        if self.left <= 1:
            self.report.enter(self.part, name, {"left_out": "no time left"})
            return
        path = os.pathsep.join(
            [*(str(ROOT / f) for f in FOLDERS), *filter(None, [os.environ.get("PYTHONPATH")])]
        )
        required = {} if self.is_emulated else {"NNBACKEND_REQUIRE": "cupy"}
        env = {**os.environ, "PYTHONPATH": path, **required, **ENVIRONMENT}
        env["NNBACKEND_GPU_EACH"] = str(self.each)
        kind = "emulated" if self.is_emulated else "gpu"
        log = self.report.folder / f"gpu-check-{kind}-{self.part}.log"
        done = gpu_process.run(command, log, self.left, hear, env, ROOT)
        if done.error:
            self.report.enter(self.part, name, {"error": done.error})
        elif self.report.answer(self.part, name).keys() <= {"error", "left_out"}:
            self.report.take(self.part, name)  # of a run before

    def answers(self, command: Sequence[str], name: str, before: str = "") -> None:
        """Run a child and enter its answers by their names, with the prefix `before`."""

        def hear(line: str) -> None:
            answer = gpu_process.answer_in(line)
            if answer is not None:
                default = f"{answer.get('row', '')} {answer.get('contender', '')}"
                own = answer.pop("name", default.strip())
                self.report.enter(self.part, f"{before} {own}".strip(), answer)

        self.child([*command, *["--emulated"] * self.is_emulated], name, hear)


def module(name: str, *words: str) -> list[str]:
    """Return the command that runs a module of this checkout."""
    return [sys.executable, "-m", f"benchmarks.{name}", *words]


def is_usable(check: Check) -> bool:
    """Return True if CuPy can use a GPU; else print the reason once."""
    said: list[str] = []
    check.begin("usable", 60.0)
    check.report.begin("usable")
    load = "from nnbackend.devices import get_backend; get_backend('cupy')"
    check.child([sys.executable, "-c", load], "cupy", said.append)
    check.report.end("usable", 0.0)
    answer = check.report.answer("usable", "cupy")
    if not answer:
        check.report.enter("usable", "cupy", {"ok": True})
        return True
    print("\n".join(said[-3:]))
    print("Run this on a machine with a GPU, or add --emulated to check the program itself.")
    return False


# ---- the parts ----------------------------------------------------------------------------------


def first(check: Check) -> None:
    """Measure the device, every product, capture against eager, and the raw rates."""
    check.answers(module("gpu_parts", "first"), "first")
    check.answers(module("gpu_parts", "capture"), "capture")


def conformance(check: Check) -> None:
    """Run the kit and the cross-backend matrix on the device, several tests at a time."""
    # With the stand-in only the fast suites: all of them run with the other tests.
    chosen = "(TestCupy or cupy) and not CupyEmulated and not cupy_emulated"
    if check.is_emulated:
        chosen = "CupyEmulatedRegistration or CupyEmulatedCapture"
    files = ["tests/test_conformance.py", "tests/test_cross_backend.py"]
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *files]
    workers = min(8, os.cpu_count() or 1)
    if importlib.util.find_spec("xdist") and workers > 2:
        command += ["-p", "xdist", "-n", str(workers)]
    counts: dict[str, int] = {}
    bad: list[str] = []

    def hear(line: str) -> None:
        verdict, test = verdict_in(line)
        if verdict:
            counts[verdict.lower()] = counts.get(verdict.lower(), 0) + 1
            if verdict != "PASSED":
                bad.append(f"{verdict} {test}")
        counts["ended"] = counts.get("ended", 0) or int(bool(END.match(line)))

    check.child([*command, "-k", chosen], "pytest", hear)
    ended = bool(counts.pop("ended", 0))
    is_good = ended and not bad and counts.get("passed", 0) > 0
    answer: Answer = {"ok": is_good, "ended": ended, **counts, "bad": sorted(set(bad))[:60]}
    check.report.enter(check.part, "counts", answer)


def verdict_in(line: str) -> tuple[str, str]:
    """Return the verdict and the name of a test from a line of pytest -v; else "" and ""."""
    found = VERDICT.match(line)
    if found is None or not (line.startswith("[gw") or found["late"]):
        return "", ""
    return found["early"] or found["late"] or "", found["test"]


def speed(check: Check) -> None:
    """Measure our step on every row, with and without each optimization."""
    wanted = [
        pair
        for pair in pairs(check.is_emulated)
        if not check.contenders or pair.split()[1] in check.contenders
    ]
    while todo := check.report.lacking(check.part, wanted):
        check.answers(module("gpu_parts", "speed", *todo), "speed")
        left = check.report.lacking(check.part, wanted)
        end = check.report.take(check.part, "speed")
        if "error" in end and left:
            # The child ended at the first missing answer: a new process continues after it.
            check.report.enter(check.part, left.pop(0), end)
        if not end or check.left <= 1:
            for name in left:
                check.report.enter(check.part, name, {"left_out": "no time left"})


def peers(check: Check) -> None:
    """Measure the step of PyTorch and JAX on every row, in one process per contender."""
    rows = TINY if check.is_emulated else TABLE
    todo = {
        contender: [row for row in rows if not check.report.has(check.part, f"{row} {contender}")]
        for contender in PEERS
    }
    for contender, left in todo.items():
        if check.contenders and contender not in check.contenders:
            continue
        if contender == "jax" and left:
            # XLA compiles for up to a minute a row: several rows at a time, into a disk cache.
            with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 3)) as pool:
                commands = [module("gpu_peers", "jax", "--prepare", row) for row in left]
                list(pool.map(lambda words: check.answers(words, "prepare", "prepare"), commands))
        if left:
            check.answers(module("gpu_peers", contender, *left), contender)


def compiled(check: Check) -> None:
    """Measure torch.compile within a captured step, on some rows."""
    rows = TINY if check.is_emulated else COMPILED
    check.answers(module("gpu_peers", "torch-compile", *rows), "torch-compile")


def profile(check: Check) -> None:
    """Measure each launch of a step separately."""
    check.answers(module("gpu_parts", "profile"), "profile")


def train(check: Check) -> None:
    """Train digits, MNIST and Fashion-MNIST on the GPU and on the CPU."""
    check.answers(module("gpu_parts", "train"), "train")


def ranks(check: Check) -> None:
    """Train on two ranks that share the GPU, with NCCL: the bits of one rank."""
    check.answers(module("gpu_parts", "ranks"), "ranks")


def sanitizer(check: Check) -> None:
    """Run captured steps under compute-sanitizer, if installed; a timeout is not a failure."""
    tool = shutil.which("compute-sanitizer")
    for name in ("memcheck", "racecheck"):
        if tool is None or check.left < 2:
            why = "no time left" if tool else "compute-sanitizer is not on the PATH"
            check.report.enter(check.part, name, {"left_out": why})
            continue
        command = [tool, "--tool", name, "--error-exitcode", "9", *module("gpu_parts", "capture")]
        check.report.enter(check.part, name, {"ok": True})
        check.child(command, name, lambda line: None)
        answer = check.report.answer(check.part, name)
        if str(answer.get("error", "")).startswith("stopped after its limit"):
            check.report.enter(check.part, name, {"left_out": answer["error"]})


Part = Callable[[Check], None]
# In the order of execution, with their budgets in seconds.
PARTS: dict[str, tuple[Part, float]] = {
    "first": (first, 90.0),
    "conformance": (conformance, 240.0),
    "speed": (speed, 180.0),
    "peers": (peers, 200.0),
    "profile": (profile, 60.0),
    "train": (train, 90.0),
    "ranks": (ranks, 60.0),
    "compiled": (compiled, 120.0),
    "sanitizer": (sanitizer, 180.0),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts and write the report; exit 1 if something failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check", allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"{n:12} {s:3.0f} s  {part.__doc__}" for n, (part, s) in PARTS.items()),
    )  # fmt: skip
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="may be given several times; default: all"
    )
    parser.add_argument(
        "--out", metavar="DIR", default=str(ROOT / "benchmarks" / "results"),
        help="of the JSON and the logs; default: benchmarks/results of this checkout",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, help="for each part; default: its own, see below")
    parser.add_argument(
        "--contender", action="append", default=[], choices=[*CONTENDERS, *PEERS],
        metavar="NAME", help="of speed and peers; may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--each", type=float, default=0.3, help="seconds of a measurement; default: 0.3"
    )
    parser.add_argument("--emulated", action="store_true", help="tiny sizes on the stand-in")
    parser.add_argument("--again", action="store_true", help="run tasks again that have an answer")
    args = parser.parse_args(argv)
    date = datetime.datetime.now(datetime.UTC).date()
    kind = "emulated" if args.emulated else "gpu"
    report = Report(Path(args.out) / f"gpu-check-{kind}-{date}.json", args.emulated)
    check = Check(report, args.emulated, args.each, args.contender)
    if not args.emulated and not is_usable(check):
        return 1
    for name in args.part or PARTS:
        part, budget = PARTS[name]
        if args.again:
            report.forget(name)
        check.begin(name, budget if args.seconds is None else args.seconds)
        begin = time.monotonic()
        report.begin(name)
        part(check)
        report.end(name, time.monotonic() - begin)
    print(report.summary(list(PARTS)))
    return 1 if report.failures() else 0


if __name__ == "__main__":
    sys.exit(main())
