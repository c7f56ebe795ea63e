"""`benchmarks.gpu_table`: floors and ratios by hand, and a reason for every failed answer."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_answers
from benchmarks.gpu_answers import network, our_time, peer_time, problem
from benchmarks.gpu_check import PARTS
from benchmarks.gpu_rows import TABLE
from benchmarks.gpu_table import main, markdown, what_ran
from benchmarks.gpu_times import floor_us, launches_of, ratio, speed_table, variants_tables

SMALL, NARROW, LAST = "784-100-10:128", "20-64-64-2:32", TABLE[-1]
Answer = dict[str, Any]


def ours(us: float, **more: Any) -> Answer:
    ran = {"recorded": [{"16": 256, "1": 16}], "ok": True, "wrong": []}
    return {"us": us, "least": us - 1, "most": us + 1, **ran, **more}


def peer(float32: float, tf32: float, version: str = "torch 9") -> Answer:
    spread = {"min": float32 - 2, "max": float32 + 2}
    return {
        "us_per_step": {"float32": float32, "tf32": tf32},
        "spread": {"float32": spread, "tf32": spread},
        "version": version,
    }


@pytest.fixture
def content() -> Answer:
    """Return a report with good, wrong, absent and left-out answers, and errors."""
    product = {"ok": True, "cases": 26, "largest_error": 6e-6, "refused": []}
    narrow = {"recorded": [], "narrow": ["Grid(0)"]}
    run = {"seconds": [9.0, 0.25, 0.5], "device": "x:0", "test_accuracy": 0.875}
    first = {
        "facts": {"device": "GPU 1", "cublasLt": 130100, "cupy": "14.2.0", "CUDA driver": "13.0"},
        "rate float32": {"size": 8192, "tflops": 1.0},
        "rate tf32": {"error": "no rate"},
        "products float32": product,
        "copies": {"device_gbps": 100.0},
        "launches": {"launch_us": 18.0, "relu_epilogue_keeps_nan": False, "ok": True},
        "capture relu plain fused": {"ok": True, "equal": False, "difference": 1e-7, **narrow},
    }
    speed = {
        f"{SMALL} ours": ours(42.0),
        f"{SMALL} ours-tf32": ours(20.0),
        f"{SMALL} ours-tf32-tuned": ours(25.0),
        f"{SMALL} ours-general": ours(84.0),
        f"{SMALL} ours-unfused": {"left_out": "no time left"},
        f"{SMALL} ours-grid-32": ours(21.0, **narrow),
        f"{NARROW} ours": ours(10.0, ok=False, wrong=["the loss does not fall"]),
        f"{NARROW} ours-tf32": ours(9.0, **narrow),
        f"{LAST} ours": {"error": "RuntimeError: broken\n (/opt/somewhere/blas.py:3)"},
    }
    peers = {
        f"{SMALL} torch-graphs": peer(84.0, 40.0),
        f"{SMALL} jax": peer(60.0, 10.0, "jax 1"),
        f"{NARROW} torch-graphs": {
            "error": "OutOfMemory: tf32",
            "measured": {"us_per_step": {"float32": 30.0}, "version": "torch 9"},
        },
        "jax": {"error": "exit code -9"},
    }
    profile = {
        SMALL: {
            **ours(30.0),
            "launches": 2,
            "sum": 40.0,
            "parts": [["slope_relu_2c48c8fe", 10.0], ["product 1 x 2 x 3", 30.0]],
        },
        NARROW: {"error": "illegal address"},
    }
    train = {
        "digits": {
            "ok": True,
            "loss_apart": 1e-6,
            "gpu": {**run, "train_loss": [2.0, 1.0, 0.5]},
            "cpu": {**run, "train_loss": [2.0, 1.0, 0.5]},
        },
        "mnist": {"left_out": "no IDX folder"},
    }
    conformance = {"counts": {"ok": False, "ended": True, "passed": 7, "bad": ["FAILED t::x"]}}
    parts = {"first": first, "conformance": conformance, "speed": speed}
    parts |= {"peers": peers, "profile": profile, "train": train}
    ended = {"first": 30.4, "conformance": 2, "speed": 90, "profile": 9, "train": 8}
    return {"begun": "2026-01-02", "emulated": False, "ended": ended, "parts": parts}


def line_of(text: str, *begins: str) -> list[str]:
    """Return the cells of the first line that begins with the given ones."""
    for line in text.splitlines():
        cells = [cell.strip().replace("**", "") for cell in line.strip("|").split(" | ")]
        if tuple(cells[: len(begins)]) == begins:
            return cells
    raise AssertionError(f"no line {begins} in\n{text}")


def test_floor_by_hand() -> None:
    # Products 20*64 + 64*64 + 64*2 = 1280 + 4096 + 128 = 5504; one step 32 * (3*5504 - 1280) =
    # 487 424 multiplications, 974 848 operations: 0.974848 us at 1 TFLOP/s.
    # Parameters 5504 + 130 = 5634; bytes 24 * 5634 + 4 * 32 * 22 = 135 216 + 2816 = 138 032.
    assert floor_us(NARROW, 1.0, 1000.0) == pytest.approx(0.974848)  # memory: 0.138
    assert floor_us(NARROW, 1.0, 100.0) == pytest.approx(1.38032)
    assert floor_us(NARROW, 100.0, 1000.0) == pytest.approx(0.138032)


def test_speed_table(content: Answer) -> None:
    text = speed_table(content["parts"], list(TABLE), "float32")
    # 128 * (3*79400 - 78400) * 2 = 40.9 million operations at 1 TFLOP/s
    small = line_of(text, "784-100-10", "128")
    assert small[2:5] == ["40.9", "16", "42.0 [41.0–43.0]"]
    assert small[5:] == ["84.0 [82.0–86.0]", "60.0 [58.0–62.0]", "0.70"]
    assert "**42.0 [41.0–43.0]**" in text
    assert len([line for line in text.splitlines() if line.startswith("| ")]) == 2 + len(TABLE)
    # A wrong answer is shown, but not bold and not compared; measurements before an error count.
    narrow = line_of(text, "20-64-64-2", "32")
    assert narrow[4].startswith("10.0 [9.00–11.0] (")
    assert narrow[5].startswith("30.0 [30.0–30.0] (")
    assert narrow[6].startswith("- (")
    assert narrow[7] == "-"
    for reason in (
        "ours: wrong: `['the loss does not fall']`",
        "ours: error: `RuntimeError: broken (blas.py:3)`",
        "ours: no answer in the part speed",
        "torch-graphs: error: `OutOfMemory: tf32`",
        "torch-graphs: no answer in the part peers",
        "jax: error: `exit code -9`",
    ):
        assert f") {reason}" in text


def test_speed_table_in_tf32(content: Answer) -> None:
    text = speed_table(content["parts"], list(TABLE), "tf32")
    small = line_of(text, "784-100-10", "128")
    assert (small[4], small[-1]) == ("20.0 [19.0–21.0]", "2.00")
    assert small[2].startswith("- (")
    assert "floor: rate tf32: error: `no rate`" in text
    assert line_of(text, "20-64-64-2", "32")[3] == "1 for all steps"


def test_other_peers_have_a_column_if_they_have_an_answer(content: Answer) -> None:
    parts = content["parts"]
    parts["peers"][f"{SMALL} torch"] = peer(50.0, 50.0)
    parts["compiled"] = {f"{SMALL} torch-compile": peer(21.0, 9.0)}
    text = speed_table(parts, [SMALL], "float32")
    head = line_of(text, "network", "batch")
    assert head[5:9] == ["torch-graphs", "jax", "torch", "torch-compile"]
    assert head[9] == "ours / fastest peer measured"
    assert line_of(text, "784-100-10")[-1] == "2.00"


def test_variants(content: Answer) -> None:
    switches, grids = variants_tables(content["parts"], list(TABLE))
    head, line = line_of(switches, "network"), line_of(switches, "784-100-10", "128")
    found = dict(zip(head, line, strict=True))
    assert found["ours"] == "42.0"
    assert found["ours-general"] == "84.0, 2.00×"
    assert found["ours-tf32-tuned / ours-tf32"] == "25.0, 1.25×"
    assert found["ours-unfused"].startswith("- (")
    assert "ours-unfused: left out: `no time left`" in switches
    assert line_of(grids, "784-100-10", "128")[2:] == ["42.0", "21.0, 0.50×"]
    # The answer to compare with is wrong: no quotient.
    narrow = dict(zip(head, line_of(switches, "20-64-64-2", "32"), strict=True))
    assert narrow["ours-tf32"] == "9.00"


def test_every_failed_answer_is_listed(content: Answer) -> None:
    table, reasons = what_ran(content)
    assert line_of(table, "first")[1:] == ["30 s", "6", "1", "0"]
    assert line_of(table, "speed")[1:] == ["90 s", "6", "2", "1"]
    assert line_of(table, "peers")[1:] == ["cut off before its end", "2", "2", "0"]
    left_out = {p for p in PARTS if "not run" in line_of(table, p)}
    assert left_out == {"ranks", "compiled", "sanitizer"}
    bad = [
        (part, name, why)
        for part, answers in content["parts"].items()
        for name, answer in answers.items()
        if (why := problem(answer))
    ]
    assert len(bad) == 9
    assert reasons.endswith("\n- peers: cut off before its end")
    for part, name, why in bad:
        assert any(
            line.startswith(f"- {part}: ") and f"`{name}`" in line and line.endswith(why)
            for line in reasons.splitlines()
        )


def test_the_page(content: Answer) -> None:
    page = markdown(content, "x.png")
    for text in (
        "GPU 1",
        "cuBLASLt 13.1.0",
        "peers: jax 1, torch 9",
        "Step 30.0 µs [29.0–31.0]; 2 launches, sum 40.0 µs.",
        "| slope_relu | 10.0 | 25% |",
        "error: `illegal address`",
        "| float32 | 1.00 | 26 | 6.0e-06 | 0 | - | good |",
        "| ReLU's epilogue keeps NaN | no |",
        "| relu plain fused | no | 1.0e-07 | 1 for all steps | good |",
        "- conformance tests: passed 7; wrong: `['FAILED t::x']`",
        "| digits | x:0 | 3 | 500 | 0.50000 | 0.8750 | 1.0e-06 |",
        "mnist: left out: `no IDX folder`",
        "![Training loss on both devices](x.png)",
        "compute-sanitizer: not run",
    ):
        assert text in page


def test_files_are_written(
    content: Answer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gpu-check.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    assert main([str(path)]) == 0
    page = (tmp_path / "gpu-check.md").read_text(encoding="utf-8")
    assert page in capsys.readouterr().out
    assert (tmp_path / "gpu-check.png").read_bytes().startswith(b"\x89PNG")
    del content["parts"]["train"]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert main([str(path), "--out", str(tmp_path / "there" / "new")]) == 0
    assert [p.name for p in (tmp_path / "there" / "new").iterdir()] == ["gpu-check.md"]


def test_an_empty_report() -> None:
    page = markdown({"parts": {}})
    assert "ours: the part speed has not run" in page
    assert "torch-graphs: the part peers has not run" in page
    assert "rate float32: the part first has not run" in page
    assert page.count("| not run |") == len(PARTS)
    for name in ("profile", "train"):
        assert f"The part {name} has not run." in page
        assert "No answer." in markdown({"parts": {name: {}}})


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_another_file_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="utf-8")
    for file in (path, tmp_path / "nowhere.json"):
        with pytest.raises(SystemExit) as end:
            main([str(file)])
        assert end.value.code == 2
        assert "expected a JSON file of benchmarks.gpu_check" in capsys.readouterr().err


def test_answers_without_figures() -> None:
    parts = {"speed": {f"{SMALL} ours": {"ok": True}}, "peers": {f"{SMALL} jax": {}}}
    assert our_time(parts, SMALL, "ours").why == "ours: the answer has no time"
    assert peer_time(parts, SMALL, "jax", "tf32").why == "jax: the answer has no time in tf32"
    assert ratio(our_time(parts, SMALL, "ours"), peer_time(parts, SMALL, "jax", "tf32")) == "-"
    assert launches_of({"recorded": [{"1": None}, {"1": 9}, {"1": 9}, {}]}) == "?, 9"
    assert problem({"ok": False, "ended": False, "bad": []}) != ""
    assert network(LAST) == "4096 (9 times)"


def test_doctests() -> None:
    assert doctest.testmod(gpu_answers).failed == 0
