"""Child processes of `benchmarks.gpu_check`, with time limits.

A part of the check runs in a separate process, because a process may lose its device after a CUDA
error. It prints its answers as lines `ANSWER {json}`. Its output is written to a log at once, so
that nothing is lost if it is killed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MARK = "ANSWER "
TIMED_OUT = 124  # as the exit code of `timeout`
GRACE = 5.0  # seconds between asking a process group to stop and killing it
Answer = dict[str, Any]


@dataclass(frozen=True)
class Done:
    """The result of a child: its exit code (124 after its limit), and the end of its output."""

    code: int
    said: str
    seconds: float

    @property
    def error(self) -> str | None:
        """The error message, or None."""
        if self.code == TIMED_OUT:
            return f"stopped after its limit, {self.seconds:.0f} s: {self.said[-300:]}"
        return f"exit code {self.code}: {self.said[-600:]}" if self.code else None


def run(
    command: Sequence[str],
    log: Path,
    limit: float,
    hear: Callable[[str], None],
    env: Mapping[str, str],
    cwd: Path,
) -> Done:
    """Run a command, and pass each line of its output and errors to `hear` at once.

    After `limit` seconds the whole process group is killed, including grandchildren.
    """
    begin = time.monotonic()
    said: deque[str] = deque(maxlen=40)
    is_late = threading.Event()
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n")
        child = subprocess.Popen(
            command, cwd=cwd, env={**env, "PYTHONUNBUFFERED": "1"}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            start_new_session=True,
        )  # fmt: skip
        timer = threading.Timer(max(limit, 0.0), _stop, (child, is_late))
        timer.start()
        try:
            for line in child.stdout or ():
                file.write(line)
                file.flush()
                said.append(line)
                hear(line.rstrip("\n"))
            child.wait()
        finally:
            timer.cancel()
            _kill(child, signal.SIGKILL)  # remaining grandchildren
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
    code = TIMED_OUT if is_late.is_set() else child.returncode
    return Done(code, "".join(said).strip(), time.monotonic() - begin)


def answer_in(line: str) -> Answer | None:
    """Return the answer in a line, or None."""
    if not line.startswith(MARK):
        return None
    answer: Answer = json.loads(line.removeprefix(MARK))
    return answer


def say(answer: Answer) -> None:
    """Print an answer, in the child."""
    print(MARK + json.dumps(answer), flush=True)


def _stop(child: subprocess.Popen[str], is_late: threading.Event) -> None:
    is_late.set()
    _kill(child, signal.SIGTERM)
    end = time.monotonic() + GRACE
    while child.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    _kill(child, signal.SIGKILL)


def _kill(child: subprocess.Popen[str], how: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, how)  # a new session: the group has the child's id
