"""Every example runs without warnings, in limited time, and prints the expected results."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="the examples draw")

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = {path.name: path for path in sorted((ROOT / "examples").glob("*.py"))}
# Seconds, to detect one that hangs: usually below ten, but kernels may have to be compiled first,
# and the machine may be slow and shared.
TIME_LIMIT = 900


def run(path: Path, out: Path) -> str:
    """Run an example as CI does; return its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path), "--quick", "--device", "cpu", "--out", str(out)],
        cwd=out,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")]),
            "OPENBLAS_NUM_THREADS": "1",  # for such small sizes, more threads are slower
        },
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=TIME_LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def figures(row: str, printed: str) -> list[float]:
    """Return the numbers in the last line that begins with `row`."""
    [*_, line] = [line for line in printed.splitlines() if line.startswith(row)]
    return [float(word.replace(",", "")) for word in re.findall(r"[\d.,]+", line[len(row) :])]


def number(pattern: str, printed: str) -> float:
    """Return the number that matches a pattern's group."""
    found = re.search(pattern, printed)
    assert found is not None, printed
    return float(found[1])


def check_perceptron(printed: str) -> None:
    clouds, xor = printed.split("Rosenblatt's rule on the exclusive or")
    assert "converged after" in clouds
    assert re.search(r"^ +\d+ +0$", clouds, re.MULTILINE), "no epoch without a mistake"
    failure, solution = xor.split("multilayer perceptron")
    assert number(r"most right at the end of any of \d+ epochs: (\d) of 4", failure) < 4
    assert "repeats itself forever" in failure
    assert "right: 4 of 4" in solution


def check_limits_of_regression(printed: str) -> None:
    assert figures("     100", printed.split("test error")[0])[:2] == [4950, 5151]
    # As many rows as terms: least squares fits them all, and is worse than predicting the mean.
    assert figures("  231  quadratic, least squares", printed)[-1] > 1.0
    errors = {
        method: figures(f"  800  {method}", printed)[-1]
        for method in ("linear", "quadratic, ridge", "multilayer perceptron")
    }
    assert errors["multilayer perceptron"] < 0.5 * min(errors["linear"], errors["quadratic, ridge"])


def check_backprop_by_hand(printed: str) -> None:
    assert "28 of 28 numbers agree in 10 decimals" in printed
    assert "DIFFERENT" not in printed


def check_gradient_descent_flavours(printed: str) -> None:
    flavours, rules = printed.split("mini-batches of 32")
    # eta, updates per epoch, final loss, ...
    updates = [figures(name, flavours)[1:3] for name in ("batch (all rows)", "mini-batch (32)")]
    assert [count for count, _ in updates] == [1, 10]
    assert figures("stochastic (1)", flavours)[1] == 300
    assert updates[1][1] < updates[0][1], "more updates an epoch did not help"
    assert figures("Adam", rules)[2] < figures("fixed, too small", rules)[2]


def check_overfitting(printed: str) -> None:
    # parameters, epochs, training loss and accuracy, test loss and accuracy
    uncured = figures("no cure", printed)
    assert uncured[4] > 1.3 * uncured[2]
    for cure in ("fewer layers", "L2 penalty", "dropout", "early stopping"):
        cured = figures(cure, printed)
        assert cured[2] > uncured[2], f"{cure} fitted the training rows even better"
        assert cured[4] < uncured[4], f"{cure} did not help"


def check_digits(printed: str) -> None:
    assert number(r"test accuracy ([\d.]+)", printed) > 0.93
    assert "loaded: the same outputs" in printed


CHECKS: dict[str, Callable[[str], None]] = {
    name.removeprefix("check_") + ".py": function
    for name, function in list(globals().items())
    if name.startswith("check_")
}


def test_every_example_has_a_check_and_a_line_in_the_table() -> None:
    assert EXAMPLES
    assert CHECKS.keys() == EXAMPLES.keys()
    table = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    for name in EXAMPLES:
        assert f"`python examples/{name}`" in table


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str, tmp_path: Path) -> None:
    printed = run(EXAMPLES[name], tmp_path)
    pictures = list(tmp_path.rglob("*.png"))
    assert pictures, "no picture"
    for picture in pictures:
        content = picture.read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert len(content) > 10_000, f"{picture.name} is nearly empty"
    CHECKS[name](printed)
