"""Commands write characters that the console cannot encode as escapes, and tables as UTF-8."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnbackend.cli import main
from nnbackend.cli.console import escaping, utf8_stdout

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run whose classes are not ASCII."""
    folder = tmp_path_factory.mktemp("pets")
    values = np.random.default_rng(0).normal(size=(60, 2))
    rows = "".join(f"{a:.3f},{b:.3f},{'猫' if a > 0 else 'Hündin'}\n" for a, b in values)
    (folder / "pets.csv").write_text("a,b,kind\n" + rows, encoding="utf-8")
    words = ["train", str(folder / "pets.csv"), "--epochs", "30", "--hidden", "4", "--quiet"]
    assert (
        main([*words, "--device", "numpy", "--learning-rate", "0.05", "--out", str(folder / "run")])
        == 0
    )
    return folder


def stream(encoding: str) -> tuple[io.BytesIO, io.TextIOWrapper]:
    content = io.BytesIO()
    return content, io.TextIOWrapper(content, encoding=encoding, newline="\r\n")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp949", "utf-16"])
@pytest.mark.parametrize("command", ["explain", "predict", "evaluate", "summary"])
def test_no_command_fails_for_a_character(
    pets: Path, command: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, out = stream(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    words = {"explain": ["0"], "summary": []}.get(command, [str(pets / "pets.csv")])
    more = ["--json"] if command == "evaluate" else []
    assert main([command, str(pets / "run"), *words, *more]) == 0
    out.flush()
    if command == "predict":
        assert set(content.getvalue().decode("utf-8").split("\n")) >= {"prediction", "猫", "Hündin"}
        assert b"\r" not in content.getvalue()
    if command == "evaluate":
        last = content.getvalue().decode(encoding).splitlines()[-1]
        assert "猫" in json.loads(last)["classes"]


def test_the_streams_are_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    _, out = stream("ascii")
    monkeypatch.setattr(sys, "stdout", out)
    with escaping():
        print("φ")
    assert out.errors == "strict"
    with utf8_stdout() as table:
        table.write("φ\n")
    print("after")  # the stream beneath is still open
    out.flush()
    assert out.buffer.getvalue() == "\\u03c6\r\nφ\nafter\r\n".encode()  # type: ignore[attr-defined]


def test_a_stream_that_is_not_a_console(monkeypatch: pytest.MonkeyPatch) -> None:
    text = io.StringIO()
    monkeypatch.setattr(sys, "stdout", text)
    with escaping(), utf8_stdout() as table:
        table.write("φ")
    assert text.getvalue() == "φ"


def test_a_process_under_an_old_locale(pets: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")]),
        "PYTHONIOENCODING": "cp1252",
        "PYTHONUTF8": "0",
        "LC_ALL": "C",
    }
    words = [
        sys.executable,
        "-m",
        "nnbackend",
        "predict",
        str(pets / "run"),
        str(pets / "pets.csv"),
    ]
    done = subprocess.run(words, env=environment, capture_output=True, check=True)
    assert "猫" in done.stdout.decode("utf-8")


class _Full(io.StringIO):
    """A stream on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_stderr_that_cannot_be_written_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", _Full())
    words = ["--device", "numpy", "--epochs", "2", "--hidden", "4", "--out", str(tmp_path / "run")]
    assert main(["train", "iris", *words]) == 0
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert isinstance(sys.stderr, _Full)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_of_bytes_that_are_no_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/l\xe4ufe"))
    words = ["--device", "numpy", "--epochs", "1", "--hidden", "4", "--quiet"]
    assert main(["train", "iris", *words, "--out", str(odd / "run")]) == 0
    environment = json.loads((odd / "run" / "environment.json").read_text(encoding="utf-8"))
    assert environment["folder"] == str(odd / "run")
    (odd / "data.csv").write_text("a,b\n" + "1,2\n2,3.5\n3,4\n" * 9)
    assert main(["train", str(odd / "data.csv"), *words, "--out", str(tmp_path / "other")]) == 2
    assert "must be text in UTF-8" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
