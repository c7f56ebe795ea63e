"""Convert the JSON of `benchmarks.gpu_check` to a page of Markdown tables and a picture of curves.

    python -m benchmarks.gpu_table FILE.json [--out DIR]

The page lists all errors, wrong answers, answers left out and parts that did not run.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_answers import Parts, network, plain, problem, table
from benchmarks.gpu_check import PARTS
from benchmarks.gpu_process import Answer
from benchmarks.gpu_rows import parse_row
from benchmarks.gpu_times import launches_of, rows_of, speed_table, variants_tables
from nnbackend.bench.report import number

PRECISIONS = ("float32", "tf32", "bf16")
HASH = re.compile(r"_[0-9a-f]{8}$")  # at the end of a kernel's name
GPU, CPU = "#d1402f", "#9db8d6"


def write(path: Path, folder: Path | None = None) -> list[Path]:
    """Write the page, and the picture if there are curves; return their paths."""
    content = json.loads(path.read_text(encoding="utf-8"))
    folder = folder or path.parent
    folder.mkdir(parents=True, exist_ok=True)
    page, picture = folder / f"{path.stem}.md", folder / f"{path.stem}.png"
    curves = curves_of(content["parts"])
    if curves:
        draw(curves, picture)
    page.write_text(markdown(content, picture.name if curves else ""), encoding="utf-8")
    return [page, picture] if curves else [page]


def markdown(content: Answer, picture: str = "") -> str:
    """Return the whole page."""
    parts: Parts = content["parts"]
    rows = rows_of(parts, bool(content.get("emulated")))
    variants = variants_tables(parts, rows) or ["No variant was timed."]
    blocks = [
        "# Training on a GPU",
        facts(content),
        "## What ran",
        *what_ran(content),
        "## A training step in float32, in µs",
        "Median [least–most] of five measurements, data and batch order on the device. The fastest "
        "is bold. Last column: medians; below 1, ours is faster. Floor: the larger of arithmetic, "
        "at the measured rate of one large product, and of memory: 6 passes over the parameters "
        "and the rows of the batch, at the measured rate of copies. A step can be a little below "
        "it: other shapes can have a better rate, and the L2 cache can hold small networks.",
        speed_table(parts, rows, "float32"),
        "## A training step in TF32, in µs",
        "The kernel for narrow networks (1 launch for all steps) computes in float32 here too.",
        speed_table(parts, rows, "tf32"),
        "## With and without, in µs",
        "Each variant and its time divided by ours (above 1: the variant is slower), or by ours in "
        "the precision of the heading. Empty: not measured.",
        *variants,
        "## Where a step goes",
        *profile(parts),
        "## Numbers",
        *numbers(parts),
        "## Training on real data",
        *training(parts, picture),
    ]
    return "\n\n".join(blocks) + "\n"


def bullets(lines: Sequence[str]) -> str:
    """Return a list."""
    return "\n".join(f"- {line}" for line in lines)


# ---- the head -----------------------------------------------------------------------------------


def facts(content: Answer) -> str:
    """Return the machine and the versions as a list."""
    parts: Parts = content["parts"]
    found = parts.get("first", {}).get("facts", {})
    scales = (("memory_bytes", 30, "GiB"), ("l2_bytes", 20, "MiB of L2"))
    sizes = [f"{found[key] / 2**power:.0f} {unit}" for key, power, unit in scales if key in found]
    if "multiprocessors" in found:
        sizes.append(f"{found['multiprocessors']} multiprocessors")
    names = ("CUDA driver", "CUDA runtime", "NVRTC")
    versions = [f"{name} {found[name]}" for name in names if name in found]
    if "cublasLt" in found:
        n = int(found["cublasLt"])
        versions.append(f"cuBLASLt {n // 10_000}.{n // 100 % 100}.{n % 100}")
    names = ("cupy", "python", "numpy")
    titles = {"cupy": "CuPy", "python": "Python", "numpy": "NumPy"}
    versions += [f"{titles[name]} {found[name]}" for name in names if name in found]
    answers = [a for part in ("peers", "compiled") for a in parts.get(part, {}).values()]
    peers = {a.get("measured", a).get("version") for a in answers} - {None}
    return bullets(
        [
            ", ".join([found.get("device", "device unknown: no facts in the file"), *sizes]),
            ", ".join(versions) or "versions unknown",
            "peers: " + (", ".join(sorted(peers)) or "none measured"),
            f"begun {content.get('begun', 'at an unknown time')}",
            *(["on the stand-in, without a GPU: no time says anything about one"]
              if content.get("emulated") else []),
        ]
    )  # fmt: skip


def what_ran(content: Answer) -> list[str]:
    """Return each part with its counts, and every answer that is not good."""
    parts: Parts = content["parts"]
    ended, lines = content.get("ended", {}), []
    reasons: dict[tuple[str, str], list[str]] = {}
    for part in dict.fromkeys([*PARTS, *parts]):
        if part not in parts:
            lines.append([part, "not run", "-", "-", "-"])
            continue
        bad = {name: why for name, answer in parts[part].items() if (why := problem(answer))}
        for name, why in bad.items():
            reasons.setdefault((part, why), []).append(f"`{name}`")
        left_out = sum(why.startswith("left out") for why in bad.values())
        seconds = ended.get(part)
        when = "**cut off before its end**" if seconds is None else f"{seconds:.0f} s"
        counts = (len(parts[part]) - len(bad), len(bad) - left_out, left_out)
        lines.append([part, when, *map(str, counts)])
    known = table(("part", "time", "good answers", "failures", "left out"), lines)
    bad_ones = [f"{part}: {', '.join(names)}: {why}" for (part, why), names in reasons.items()]
    bad_ones += [f"{part}: cut off before its end" for part in parts if part not in ended]
    notes = [bullets(content["notes"])] if content.get("notes") else []
    return [known, *notes, bullets(bad_ones) if bad_ones else "No failure, and nothing left out."]


# ---- launches and numbers -----------------------------------------------------------------------


def profile(parts: Parts) -> list[str]:
    """Return a table of launches for each row."""
    if not parts.get("profile"):
        return ["The part profile has not run." if "profile" not in parts else "No answer."]
    blocks = [
        "Each launch alone, replayed many times in a row; the step itself with separate kernels, "
        "where launches may overlap."
    ]
    for row, answer in parts["profile"].items():
        name = f"{network(row)}, batch {parse_row(row)[1]}" if ":" in row else row
        blocks.append(f"### {name}")
        if why := problem(answer):
            blocks.append(why)
        if "parts" not in answer:
            continue
        spread = f"{number(answer['us'])} µs [{number(answer['least'])}–{number(answer['most'])}]"
        whole = answer["sum"]
        blocks.append(f"Step {spread}; {answer['launches']} launches, sum {number(whole)} µs.")
        lines = [
            (HASH.sub("", label), number(us), f"{us / whole:.0%}" if whole else "-")
            for label, us in answer["parts"]
        ]
        blocks.append(table(("launch", "µs", "of the sum"), lines))
    return blocks


def numbers(parts: Parts) -> list[str]:
    """Return rates, errors of the products, launches, captures and results of the tests."""
    first = parts.get("first", {})
    captures = captures_table({n: a for n, a in first.items() if n.startswith("capture")})
    return [products_table(first), launches_table(first), captures, tests(parts)]


def products_table(first: dict[str, Answer]) -> str:
    """Return the rate and the errors of each precision's products."""
    lines = []
    for precision in PRECISIONS:
        rate, made = first.get(f"rate {precision}", {}), first.get(f"products {precision}", {})
        lines.append(
            [precision, value(rate, "tflops"), value(made, "cases"), error(made, "largest_error"),
             listed(made, "refused"), listed(made, "without_epilogue"), verdict(made)]
        )  # fmt: skip
    head = ("products", "TFLOP/s", "cases", "largest error", "refused", "without epilogue", "")
    return table(head, lines)


def launches_table(first: dict[str, Answer]) -> str:
    """Return the times of launches and copies."""
    alignment, launch, copies = (first.get(n, {}) for n in ("alignment", "launches", "copies"))
    keeps = {True: "yes", False: "no"}.get(launch.get("relu_epilogue_keeps_nan"), "-")
    lines = [
        ("a launch from Python, µs", value(launch, "launch_us")),
        ("a recorded launch, µs", value(launch, "graph_node_us")),
        ("the order of 60 000 rows to the device, µs", value(launch, "order_to_device_us")),
        ("reading an epoch's sums, µs", value(launch, "read_totals_us")),
        ("copy within the device, read and written, GB/s", value(copies, "device_gbps")),
        ("copy to the device, GB/s", value(copies, "to_device_gbps")),
        ("copy to the host, GB/s", value(copies, "to_host_gbps")),
        ("ReLU's epilogue keeps NaN", keeps),
        ("largest error at odd addresses", error(alignment, "largest_error")),
    ]
    return table(("", "measured"), lines)


def captures_table(captures: dict[str, Answer]) -> str:
    """Return the differences of captured and called steps."""
    if not captures:
        return "No captured steps were compared with called ones."
    lines = [
        (name.removeprefix("capture "), {True: "yes", False: "no"}.get(a.get("equal"), "-"),
         error(a, "difference"), launches_of(a), verdict(a))
        for name, a in captures.items()
    ]  # fmt: skip
    head = ("captured against called steps", "bits equal", "largest difference", "launches", "")
    return table(head, lines)


def value(answer: Answer, key: str) -> str:
    """Return a number of an answer."""
    found = answer.get(key)
    return "-" if found is None else str(found) if isinstance(found, int) else number(found)


def error(answer: Answer, key: str) -> str:
    """Return a small number of an answer."""
    found = answer.get(key)
    return "-" if found is None else f"{found:.1e}" if found else "0"


def listed(answer: Answer, key: str) -> str:
    """Return the length of a list in an answer."""
    return str(len(answer[key])) if key in answer else "-"


def verdict(answer: Answer) -> str:
    """Return "good", or the reason why an answer is not good."""
    return (problem(answer) or "good") if answer else "no answer"


def tests(parts: Parts) -> str:
    """Return the counts of the tests on the device, and the results of the sanitizer."""
    counts = parts.get("conformance", {}).get("counts", {})
    said = [f"{key} {n}" for key, n in counts.items() if type(n) is int]
    lines = [f"conformance tests: {', '.join(said) or 'no count'}; {verdict(counts)}"]
    lines += [f"bad: {plain(test)}" for test in counts.get("bad", [])]
    lines += [f"{n}: {verdict(answer)}" for n, answer in parts.get("sanitizer", {}).items()]
    return bullets(lines if "sanitizer" in parts else [*lines, "compute-sanitizer: not run"])


# ---- training -----------------------------------------------------------------------------------


def training(parts: Parts, picture: str) -> list[str]:
    """Return epochs, losses and accuracies of both devices."""
    if not parts.get("train"):
        return ["The part train has not run." if "train" not in parts else "No answer."]
    lines, blocks = [], []
    for name, answer in parts["train"].items():
        for device in [d for d in ("gpu", "cpu") if d in answer]:
            run = answer[device]
            seconds = number(1e3 * statistics.median(run["seconds"])) if run["seconds"] else "-"
            loss = f"{run['train_loss'][-1]:.5f}" if run["train_loss"] else "-"
            lines.append([name, run["device"], str(len(run["train_loss"])), seconds, loss,
                          f"{run['test_accuracy']:.4f}", error(answer, "loss_apart")])  # fmt: skip
        if why := problem(answer):
            blocks.append(f"{name}: {why}")
    head = ("data set", "device", "epochs", "ms an epoch", "final loss", "test accuracy")
    text = table((*head, "curves apart, of the first loss"), lines)
    image = [f"![Training loss on both devices]({picture})"] if picture else []
    return [*([text] if lines else []), *([bullets(blocks)] if blocks else []), *image]


def curves_of(parts: Parts) -> dict[str, dict[str, list[float]]]:
    """Return the training losses of each data set and device."""
    found = {
        name: {d: answer[d]["train_loss"] for d in ("cpu", "gpu") if d in answer}
        for name, answer in parts.get("train", {}).items()
    }
    return {name: curves for name, curves in found.items() if any(curves.values())}


def draw(curves: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Draw one panel for each data set: a wide line for the CPU, marks on it for the GPU."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(4.2 * len(curves) + 0.4, 3.4), dpi=150, layout="constrained")
    panels: Any = figure.subplots(1, len(curves), squeeze=False)[0]
    styles = {"cpu": {"color": CPU, "linewidth": 5.0}, "gpu": {"color": GPU, "linewidth": 1.2}}
    for axes, (name, losses) in zip(panels, curves.items(), strict=True):
        for device, loss in losses.items():
            epochs = range(1, len(loss) + 1)
            axes.plot(epochs, loss, marker="o", markersize=4, label=device.upper(),
                      **styles[device])  # fmt: skip
        axes.set_title(name)
        axes.set_xlabel("epoch")
        axes.set_ylabel("mean training loss (nats)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
        axes.grid(True, color="#dddddd", linewidth=0.7)
        axes.legend(frameon=False)
    figure.savefig(path, format="png")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page and print it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_table", allow_abbrev=False)
    parser.add_argument("file", metavar="FILE.json", type=Path, help="of benchmarks.gpu_check")
    parser.add_argument("--out", metavar="DIR", type=Path, help="else beside the file")
    args = parser.parse_args(argv)
    try:
        paths = write(args.file, args.out)
    except (OSError, ValueError, KeyError, TypeError) as error:
        parser.error(f"expected a JSON file of benchmarks.gpu_check; {args.file}: {error!r}")
    print(paths[0].read_text(encoding="utf-8"))
    print("written:", *paths)
    return 0


if __name__ == "__main__":
    sys.exit(main())
