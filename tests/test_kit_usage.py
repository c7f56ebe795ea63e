"""Use of the conformance kit: by subclass, and on an installed backend from any folder."""

from __future__ import annotations

import os
import re
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
    """Run pytest in an empty folder, with this project on its path only."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "backends")])
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NNBACKEND", "PYTEST"))}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *arguments],
        cwd=folder, env=environment | {"PYTHONPATH": path} | variables,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


STILL = """
from nnbackend.testing import ReferenceBackend
from nnbackend.testing.update_checks import UpdateChecks

class Still(ReferenceBackend):
    def average(self, theta, ema_weights, decay, hyper):
        pass

class TestStill(UpdateChecks):
    make_backend = staticmethod(Still)
    expected_failures = {EXPECTED}
"""

WITHOUT_PYTEST = """
import sys
sys.modules["pytest"] = sys.modules["_pytest"] = None  # importing one raises ModuleNotFoundError
import numpy as np
import nnbackend as nn
from nnbackend import testing

SUITES = {name for name in testing.__all__ if name.lower().endswith(("conformance", "classes"))}
assert len(SUITES) == 6
for name in testing.__all__:
    try:
        getattr(testing, name)
    except ModuleNotFoundError as error:
        assert name in SUITES and "pip install 'nnbackend[kit]'" in str(error), name
    else:
        assert name not in SUITES, name
x, y = np.eye(4, 3), np.eye(4, 2)
for device in (testing.ReferenceBackend(), testing.GhostBackend(limit=99_999)):
    net = nn.Network([3, 5, 2], activation="tanh", device=device, dtype="float64", seed=0)
    assert testing.check_gradients(net, x, y)
assert testing.ghost_spec().probe().device_count == 2
"""


def test_only_the_suites_need_pytest(tmp_path: Path) -> None:
    path = os.pathsep.join([str(ROOT), str(ROOT / "backends")])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_PYTEST],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


INSTALLED = ("-p", "nnbackend.testing.plugin", "--pyargs", "nnbackend.testing")
FEW = ("-k", "Registration or test_round_trip or test_loss_with_output or adagrad")


def test_the_kit_runs_on_an_installed_backend_from_an_empty_folder(tmp_path: Path) -> None:
    done = run(tmp_path, *INSTALLED, *FEW, NNBACKEND_TEST="numpy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "numpy    " in done.stdout.partition("conformance")[2], done.stdout


def test_the_option_names_the_backend(tmp_path: Path) -> None:
    done = run(tmp_path, *INSTALLED, "--nnb-backend", "numpy,numpy", "-k", "test_attributes")
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_nothing_is_collected_without_a_name(tmp_path: Path) -> None:
    done = run(tmp_path, *INSTALLED)
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout + done.stderr


def test_an_unknown_name_fails(tmp_path: Path) -> None:
    done = run(tmp_path, *INSTALLED, "-k", "test_attributes", NNBACKEND_TEST="numppy")
    assert done.returncode == 2, done.stdout  # one usage error, before any test
    assert "Did you mean 'numpy'?" in done.stdout


def run_files(
    folder: Path, texts: list[str], *arguments: str
) -> tuple[list[str], subprocess.CompletedProcess[str]]:
    """Run pytest once over a file of each text; return what it reports of each file."""
    names = [f"test_file{i}.py" for i in range(len(texts))]
    for name, text in zip(names, texts, strict=True):
        (folder / name).write_text(text)
    done = run(folder, "-rA", "--continue-on-collection-errors", *arguments)
    # Failures and errors have a section each, with a heading that the file's class ends.
    sections = re.split(r"^_{3,} (.+?) _{3,}$", done.stdout, flags=re.MULTILINE)
    found = []
    for i, name in enumerate(names):
        lines = [line for line in done.stdout.splitlines() if name in line]
        parts = [
            text
            for heading, text in zip(sections[1::2], sections[2::2], strict=True)
            if f"Number{i}." in heading or name in heading
        ]
        found.append("\n".join([*lines, *parts]))
    return found, done


def test_expected_failures_are_strict(tmp_path: Path) -> None:
    cases = {
        '{"test_maxout_backward": "halves"}': "XFAIL",
        '{"test_maxout_backward": "halves", "test_maxout_forward": "?"}': "XPASS(strict)",
        "{}": "dz is wrong",
        '{"test_no_such": "?"}': "there is no test 'test_no_such'",
    }
    texts = [
        OWN_TESTS.replace("{EXPECTED}", expected).replace("TestHalf", f"TestNumber{i}")
        for i, expected in enumerate(cases)
    ]
    found, done = run_files(tmp_path, texts, "-k", "maxout")
    for said, outcome in zip(found, cases.values(), strict=True):
        assert outcome in said, done.stdout + done.stderr
    assert found[0].count("XFAIL") == 4
    assert "FAILED" not in found[0]


def test_single_cases_can_be_expected_failures(tmp_path: Path) -> None:
    cases = {f"test_average[{dtype}-{count}]": "it is still"
             for dtype in ("float32", "float64") for count in (1, 50, 10000)}  # fmt: skip
    one = "test_average[float32-50]"
    expected: list[tuple[dict[str, str], str]] = [
        (cases, "XFAIL"),
        ({k: v for k, v in cases.items() if k != one}, f"FAILED test_file1.py::TestNumber1::{one}"),
        (cases | {"test_clip_norm[float32-0.9]": "it is not"}, "XPASS(strict)"),
        (cases | {"test_average[float32-4]": "?"}, "has no case test_average[float32-4]"),
        (cases | {one: " "}, "needs a reason"),
    ]
    texts = [
        STILL.replace("{EXPECTED}", repr(case)).replace("TestStill", f"TestNumber{i}")
        for i, (case, _) in enumerate(expected)
    ]
    found, done = run_files(tmp_path, texts)
    for said, (_, outcome) in zip(found, expected, strict=True):
        assert outcome in said, done.stdout + done.stderr
    assert [said.count("FAILED ") for said in found[:2]] == [0, 1]
    assert found[0].count("XFAIL") == 6
    # A deselected case does not count as one that does not exist.
    done = run(tmp_path, "test_file0.py", "-k", "test_average and float32 and 50")
    assert "1 xfailed" in done.stdout, done.stdout


BOXED = """
import numpy as np
from nnbackend.backend import BackendSpec, Probe
from nnbackend.testing import ReferenceBackend

class Box(np.ndarray):
    pass

class Boxed(ReferenceBackend):
    name, device = "boxed", "boxed:0"
    def empty(self, shape, dtype):
        return np.empty(shape, dtype).view(Box)
    def zeros(self, shape, dtype):
        return np.zeros(shape, dtype).view(Box)
    def owns(self, array):
        return isinstance(array, Box)

SPEC = BackendSpec("boxed", "cpu", -1, lambda: Probe(1), lambda index: Boxed())
"""


def test_a_plug_in_can_define_its_array_class(tmp_path: Path) -> None:
    info = tmp_path / "boxed-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: boxed\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[nnbackend.backends]\nboxed = boxed:SPEC\n")
    places = [str(tmp_path), str(ROOT), str(ROOT / "backends")]
    for text, outcome in ((BOXED, "2 passed"), ("import scipy\n" + BOXED, "loads ['scipy']")):
        (tmp_path / "boxed.py").write_text(text)
        done = run(
            tmp_path, *INSTALLED, "-k", "test_spec_is_light or test_probe_never",
            NNBACKEND_TEST="boxed", PYTHONPATH=os.pathsep.join(places),
        )  # fmt: skip
        assert outcome in done.stdout, done.stdout + done.stderr


def test_the_page_has_the_current_counts_of_tests(tmp_path: Path) -> None:
    listed = run(tmp_path, *INSTALLED, "--collect-only", NNBACKEND_TEST="numpy").stdout
    counts = [
        len(re.findall(f"::TestNumpy{suite}::", listed))
        for suite in ("Backend", "Gradient", "Training", "Capture", "Registration")
    ]
    page = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")
    matrix = page.partition("backend   backend")[2]
    rows = re.findall(r"^(\w+) +((?:\d+ (?:passed|skipped) *)+)$", matrix, re.MULTILINE)
    assert {"numpy", "numba", "ghost", "defaults", "strict"} <= {name for name, _ in rows}
    for name, cells in rows:
        assert [int(n) for n in re.findall(r"\d+", cells)] == counts, name


def test_skips_have_a_reason_and_can_be_forbidden(tmp_path: Path) -> None:
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
    with pytest.raises(TypeError, match="there is no test 'test_tock'"):
        conformance_classes("mine", expected_failures={"test_tock": "why"})
