"""README's Python runs, and the verbs and options of its commands exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    blocks = _blocks("python")
    assert len(blocks) >= 2
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'backends'}"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    accuracy = float(re.search(r"'accuracy': ([0-9.]+)", done.stdout)[1])  # type: ignore[index]
    assert accuracy > 0.95
    assert "passed: largest error" in done.stdout


@pytest.mark.parametrize(
    "line", [line for block in _blocks("sh") for line in block.splitlines() if "nnbackend " in line]
)
def test_the_commands_of_the_readme_exist(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    from nnbackend.cli import main

    words = re.search(r"nnbackend ([a-z]+)([^#>]*)", line)
    assert words is not None
    verb, rest = words.groups()
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr().out
    for option in re.findall(r"--[a-z-]+", rest):
        assert option in shown
