"""How the conformance kit is used: by subclass, and on an installed backend from anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnbackend.testing import BackendConformance, conformance_classes

ROOT = Path(__file__).resolve().parent.parent

OWN_TESTS = """
from nnbackend.testing import BackendConformance, ReferenceBackend

class Half(ReferenceBackend):
    float_dtypes = ("float64",)
    def maxout_backward(self, delta, which, dz):
        dz[...] = 0.5

class TestHalf(BackendConformance):
    make_backend = staticmethod(Half)
    label = "half"
    expected_failures = {EXPECTED}
"""


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a folder that knows nothing of this project but its path."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "backends")])
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NNBACKEND", "PYTEST"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *arguments],
        cwd=folder, env=environment | {"PYTHONPATH": path} | variables,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


INSTALLED = ("-p", "nnbackend.testing.plugin", "--pyargs", "nnbackend.testing")
FEW = ("-k", "Registration or test_round_trip or test_loss_with_output or adagrad")


def test_on_an_installed_backend_from_an_empty_folder(tmp_path: Path) -> None:
    done = run(tmp_path, *INSTALLED, *FEW, NNBACKEND_TEST="numpy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "numpy    " in done.stdout.partition("conformance")[2], done.stdout


def test_the_option_names_it_too(tmp_path: Path) -> None:
    done = run(tmp_path, *INSTALLED, "--nnb-backend", "numpy", "-k", "test_attributes")
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_nothing_is_collected_without_a_name(tmp_path: Path) -> None:
    done = run(tmp_path, *INSTALLED)
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout + done.stderr


def test_an_unknown_name_fails(tmp_path: Path) -> None:
    done = run(tmp_path, *INSTALLED, "-k", "test_attributes", NNBACKEND_TEST="numppy")
    assert done.returncode == 2, done.stdout  # one error of use, before any test
    assert "Did you mean 'numpy'?" in done.stdout


def test_expected_failures_are_strict(tmp_path: Path) -> None:
    for expected, outcome in (
        ('{"test_maxout_backward": "halves"}', "4 xfailed"),
        ('{"test_maxout_backward": "halves", "test_maxout_forward": "?"}', "XPASS(strict)"),
        ("{}", "dz is wrong"),
        ('{"test_no_such": "?"}', "there is no test 'test_no_such'"),
    ):
        (tmp_path / "test_mine.py").write_text(OWN_TESTS.replace("{EXPECTED}", expected))
        done = run(tmp_path, "-k", "maxout")
        assert outcome in done.stdout, done.stdout


def test_skips_tell_their_reason_and_can_be_forbidden(tmp_path: Path) -> None:
    expected = '{"test_maxout_backward": "halves"}'
    (tmp_path / "test_mine.py").write_text(OWN_TESTS.replace("{EXPECTED}", expected))
    done = run(tmp_path, "-k", "test_max_norm", "-p", "nnbackend.testing.plugin")
    assert "half     1 passed, 1 skipped" in done.stdout, done.stdout
    assert "half: 1 x float32 is not in float_dtypes of defaults" in done.stdout
    done = run(tmp_path, "-k", "test_max_norm", NNBACKEND_REQUIRE="other,defaults")
    assert "may not be skipped: float32 is not in float_dtypes" in done.stdout, done.stdout


def test_classes_are_collected_by_subclass_only() -> None:
    assert not BackendConformance.__name__.startswith("Test")
    classes = conformance_classes("mine", expected_failures={"test_tick": "why"})
    assert [c.expected_failures for c in classes.values()] == [{"test_tick": "why"}, {}, {}, {}, {}]
