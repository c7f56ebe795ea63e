"""The report of `benchmarks.gpu_check`: one JSON file, rewritten after every answer."""

from __future__ import annotations

import datetime
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_process import Answer

WIDTH = 110  # of the summary's lines


class Report:
    """Answers by part and name. An existing file is resumed."""

    def __init__(self, path: Path, is_emulated: bool) -> None:
        self.path, self.folder = path, path.parent
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._entered: set[str] = set()  # names answered in the current part
        self.content: dict[str, Any] = {
            "begun": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "emulated": is_emulated,
            "ended": {},
            "failures": [],
            "parts": {},
        }
        if path.exists():
            self.content = json.loads(path.read_text(encoding="utf-8"))

    def begin(self, part: str) -> None:
        """Mark a part as begun: until it ends, it counts as cut off.

        Earlier failures and left-out answers stay until their tasks run again.
        """
        self.content["ended"].pop(part, None)
        self.content["parts"].setdefault(part, {})
        self._entered = set()
        self._write()

    def end(self, part: str, seconds: float) -> None:
        """Mark a part as ended."""
        self.content["ended"][part] = round(seconds, 1)
        self._write()

    def enter(self, part: str, name: str, answer: Answer) -> None:
        """Enter an answer and write the file; children may answer at the same time."""
        with self._lock:
            self.content["parts"].setdefault(part, {})[name] = answer
            self._entered.add(name)
            self._write()
        print(f"{part}: {name}: {_short(answer)}"[:WIDTH], flush=True)

    def answer(self, part: str, name: str) -> Answer:
        """Return an answer, or {}."""
        found: Answer = self.content["parts"].get(part, {}).get(name, {})
        return found

    def has(self, part: str, name: str) -> bool:
        """Return True if there is a final answer."""
        answer = self.answer(part, name)
        return bool(answer) and "error" not in answer and "left_out" not in answer

    def lacking(self, part: str, names: Sequence[str]) -> list[str]:
        """Return the names without an answer of this run or a final one of an earlier run."""
        return [n for n in names if n not in self._entered and not self.has(part, n)]

    def take(self, part: str, name: str) -> Answer:
        """Return an answer and remove it."""
        answer: Answer = self.content["parts"].get(part, {}).pop(name, {})
        return answer

    def forget(self, part: str) -> None:
        """Forget a part's answers."""
        self.content["parts"].pop(part, None)

    def failures(self) -> list[str]:
        """Return the failures: errors, wrong answers, parts that were cut off."""
        wrong = []
        for part, answers in self.content["parts"].items():
            for name, answer in answers.items():
                if "error" in answer:
                    wrong.append(f"{part}: {name}: {answer['error']}")
                elif answer.get("ok") is False:
                    why = answer.get("wrong") or answer.get("bad") or answer
                    wrong.append(f"{part}: {name}: {why}")
            if part not in self.content["ended"]:
                wrong.append(f"{part}: cut off before its end")
        return wrong

    def summary(self, parts: Sequence[str]) -> str:
        """Return one screen: what ran, what failed, and what to run next."""
        lines = ["", f"{self.path}"]
        for part, answers in self.content["parts"].items():
            seconds = self.content["ended"].get(part)
            left_out = sum("left_out" in answer for answer in answers.values())
            when = "cut off" if seconds is None else f"{seconds:.0f} s"
            lines.append(f"  {part:12} {len(answers):3} answers, {left_out} left out, {when}")
        failures = self.failures()
        lines.append(f"{len(failures)} failures" if failures else "no failure")
        lines += [f"  {' '.join(str(failure).split())}"[: 4 * WIDTH] for failure in failures[:12]]
        lines += [f"  and {len(failures) - 12} more: {self.path}"] if len(failures) > 12 else []
        todo = [part for part in parts if part not in self.content["ended"]]
        if failures:
            lines.append("next: fix the failures above; the logs are in the folder of the file")
        elif todo:
            lines.append(f"next: --part {todo[0]}")
        return "\n".join(lines)

    def _write(self) -> None:
        self.content["failures"] = [
            failure for failure in self.failures() if not failure.endswith("cut off before its end")
        ]
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
        os.replace(partial, self.path)


def _short(answer: Answer) -> str:
    if "us_per_step" in answer:
        return ", ".join(f"{name} {us:.1f} us" for name, us in answer["us_per_step"].items())
    if "us" in answer and "parts" not in answer:
        return f"{answer['us']:.1f} us" + ("" if answer.get("ok", True) else f" {answer['wrong']}")
    return json.dumps(answer)
