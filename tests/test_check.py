"""check.py and what calls it: .ci/run, the pre-commit hooks, the workflow, the pages.

The whole of .ci/run is not run here; each test of a file compares its commands with what exists.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import nnbackend

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CALL = re.compile(r"check\.py\"?((?: +[a-z]+)*)")


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _module(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = _module("check.py")
other_pythons = _module(".ci/other_pythons.py")


# --- the entry ------------------------------------------------------------------------------------


def test_it_stops_at_the_first_stage_that_fails(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stages = {"good": ("-c", "print('ran good')"), "bad": ("-c", "raise SystemExit(3)")}
    monkeypatch.setattr(check, "STAGES", stages)
    assert check.main(["good"]) == 0
    assert re.search(r"ran good\n\n +\d+\.\d s  good\n$", capfd.readouterr().out)
    assert check.main(["bad", "good"]) == 1
    out = capfd.readouterr().out
    assert "FAILED in stage: bad (exit 3)\nnot run: good" in out
    assert "ran good" not in out


def test_an_unknown_stage_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        check.main(["lint", "lnt"])
    assert stop.value.code == 2
    assert "unknown stage 'lnt'" in capsys.readouterr().err


def test_every_stage_names_an_installed_tool_and_existing_files() -> None:
    assert set(check.DEFAULT) == check.STAGES.keys() - {"quick"}
    for option, tool, *words in check.STAGES.values():
        assert option == "-m"
        assert importlib.util.find_spec(tool) is not None, tool
        for word in words:
            assert not word.startswith("tests/") or (ROOT / word).is_file(), word


def test_ruff_of_this_environment_has_the_version_of_the_extra() -> None:
    (wanted,) = (r for r in PROJECT["project"]["optional-dependencies"]["test"] if "ruff" in r)
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[1].startswith(wanted.removeprefix("ruff==").removesuffix("*"))


@pytest.mark.parametrize(
    "name", [".ci/run", ".pre-commit-config.yaml", ".github/workflows/ci.yml", "CONTRIBUTING.md",
             "README.md", ".github/pull_request_template.md", "docs/dependencies.md"],
)  # fmt: skip
def test_the_stages_that_a_file_calls_exist(name: str) -> None:
    calls = [stage for words in CALL.findall(_read(name)) for stage in words.split()]
    assert set(calls) <= check.STAGES.keys()
    assert "check.py" in _read(name)
    # No second definition of a check, whose options or versions could differ.
    assert not re.search(r"ruff(\"| )(check|format --check)|mypy|sphinx -", _read(name)) or (
        name in ("README.md", "docs/dependencies.md", "CONTRIBUTING.md")
    )


# --- .ci/run and the other Pythons ----------------------------------------------------------------


def test_ci_runs_every_check() -> None:
    text = _read(".ci/run")
    called = {stage for words in CALL.findall(text) for stage in words.split()}
    assert {"format", "lint", "types", "docs"} <= called
    assert "readme_command test" in text  # the stage `tests`, literally as README has it
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)


def _python(folder: Path, text: str) -> None:
    """Write an executable that stands for Python 3.12."""
    folder.mkdir()
    path = folder / "python3.12"
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder `bin` the only place of Pythons, and return it."""
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "bin"), "/usr/bin", "/bin"]))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setattr(other_pythons, "MINORS", [12])
    monkeypatch.setattr(other_pythons, "OWN", 11)
    (tmp_path / "checkout").mkdir()
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "checkout"), "false"])
    return tmp_path / "bin"


@pytest.mark.skipif(os.name == "nt", reason="the stand-ins are shell scripts")
@pytest.mark.parametrize(
    ("script", "outcome", "code"),
    [
        ("echo 'command not found' >&2; exit 127", "does not start: command not found", 0),
        ("echo \"ModuleNotFoundError: No module named 'ensurepip'\" >&2; exit 1", "no venv", 0),
        ("echo $0", "FAILED", 1),  # starts, but README's command fails
    ],
)
def test_a_python_is_skipped_with_the_reason_or_fails(
    script: str, outcome: str, code: int, only: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _python(only, script)
    assert other_pythons.main() == code
    out = capsys.readouterr().out
    assert outcome in out.splitlines()[-1]
    assert code or "SKIPPED" in out


@pytest.mark.skipif(os.name == "nt", reason="runs a shell")
def test_a_missing_wheel_is_no_failure(tmp_path: Path) -> None:
    said = "echo 'ERROR: No matching distribution found for numba>=0.62'; exit 1"
    with pytest.raises(other_pythons.Skipped, match="no wheel of numba"):
        other_pythons.run(["bash", "-c", said], tmp_path, dict(os.environ))
    with pytest.raises(subprocess.CalledProcessError):
        other_pythons.run(["bash", "-c", "echo 'a test failed'; exit 1"], tmp_path, {})


# --- hooks, workflow, templates, pages ------------------------------------------------------------


def test_the_hooks_call_the_entry() -> None:
    (repository,) = yaml.safe_load(_read(".pre-commit-config.yaml"))["repos"]
    assert repository["repo"] == "local"  # so the version of ruff is in pyproject.toml only
    for hook in repository["hooks"]:
        assert hook["entry"] == f"python check.py {hook['id']}"
        assert hook["id"] in check.STAGES
        assert hook["language"] == "system"
        assert hook["pass_filenames"] is False


def test_the_workflow_runs_ci_and_states_that_it_was_not_run() -> None:
    text = _read(".github/workflows/ci.yml")
    assert text.startswith("# Not run by us")
    jobs = yaml.safe_load(text)["jobs"]
    steps = {name: [step.get("run") for step in job["steps"]] for name, job in jobs.items()}
    assert "bash .ci/run" in steps["linux"]
    assert "python check.py tests" in steps["others"]
    assert jobs["others"]["strategy"]["matrix"]["os"] == ["macos-latest", "windows-latest"]
    versions = set(re.findall(r"^ +(3\.\d+)$", text, re.MULTILINE))
    classified = {c.split(" :: ")[-1] for c in PROJECT["project"]["classifiers"] if ":: 3." in c}
    assert versions == classified


def test_the_templates_ask_for_what_the_command_line_prints() -> None:
    from nnbackend.cli import COMMANDS

    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").iterdir():
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert {"name", "description", "body"} <= form.keys()
    commands = re.findall(r"`nnbackend ([a-z]+)", _read(".github/ISSUE_TEMPLATE/bug.yml"))
    assert commands == ["devices", "check"]
    assert set(commands) <= COMMANDS.keys()


def test_the_version_is_the_same_everywhere() -> None:
    assert PROJECT["project"]["version"] == nnbackend.__version__


def test_the_commands_of_a_release_exist() -> None:
    text = _read("docs/releasing.md")
    modules = re.findall(r"python -m (benchmarks\.\w+)", text)
    assert len(modules) >= 5
    for name in modules:
        assert importlib.util.find_spec(name) is not None, name
    for path in re.findall(r"[\w/.]+/\w+\.(?:py|md)\b|\.ci/run", text):
        assert (ROOT / path).exists(), path
