"""Draw the pictures of architecture.md, products.md and lesson 1: python docs/drawings/draw.py.

Names of files, classes and functions are looked up in the source as they are drawn. The build of
the site calls `check`, which raises for a name or a path that no longer exists, also a path that a
page links to, for floors that are not those of the test, and for a picture that differs from the
one that this program draws.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from canvas import (  # noqa: E402
    CORE,
    DATA,
    DEVICE,
    EDGES,
    GREY,
    PALE,
    SERVICE,
    SIZE,
    Box,
    Canvas,
    Line,
    code,
    note,
)
from lesson import layers, perceptron  # noqa: E402
from products import products  # noqa: E402
from source import ROOT, constant, defined  # noqa: E402

BLUE, ORANGE = EDGES[CORE], EDGES[DEVICE]


# ---- names in the source ------------------------------------------------------------------------


def named(name: str, file: str, *more: str) -> list[Line]:
    """Return the lines of a box: a name, the file that defines it, and notes.

    file: below nnbackend/. Raises: LookupError if the file does not define the name.
    """
    if name.partition("(")[0] not in defined(f"nnbackend/{file}"):
        raise LookupError(f"nnbackend/{file} does not define {name}")
    where = Line(file, mono=True, size=SIZE - 1.5, colour=GREY)
    return [code(name), where, *map(note, more)]


def floors_of_the_test() -> list[set[str]]:
    """Return the packages by floors, the highest first, without __main__."""
    layers: list[set[str]] = list(constant("LAYERS", "tests/test_structure.py"))
    return [floor for floor in reversed(layers) if floor != {"__main__"}]


def kernels(*names: str) -> str:
    """Return the names of kernels; raise LookupError if Backend has no such method."""
    for name in names:
        if f"Backend.{name}" not in defined("nnbackend/backend/base.py"):
            raise LookupError(f"Backend has no method {name}")
    return ", ".join(names)


# ---- the rooms ----------------------------------------------------------------------------------

# The floors from the top: rooms (name, purpose), or one room in two parts (core, services).
FLOORS: list[list[tuple[str, str]]] = [
    [("cli", "the command nnbackend, its options and run folders (also as __main__)")],
    [("live_page", "a network in training on a local web page, for nnbackend live")],
    [
        ("explain", "one sample, by steps"),
        ("search", "settings, by trials"),
        ("serving", "answers by HTTP"),
    ],
    [
        ("estimators", "scikit-learn's API"),
        ("plots", "of runs, networks"),
        ("testing", "gradient check, kit"),
        ("bench", "measures speed"),
    ],
    [("model", "Model: raw rows and tables in, labels out; resuming, exporting")],
    [("persistence", "model files and checkpoints; ONNX")],
    [("training", "")],
    [("distributed", "several processes: what they say to each other, by MPI")],
    [("network", "")],
    [("config", "the options of a run: default, check and help of each, once")],
    [("validation", "checks of what users pass: rows, targets, weights, sizes")],
    [("data", "files, tables, coding of text columns, scaling of rows")],
    [("devices", "finds the backends, chooses one, tests it before its first use")],
    [("backend", "")],
    [("named", "objects by name, such as step:every=10")],
    [
        ("options", "declares and checks options"),
        ("metrics", "figures of predictions"),
    ],
    [
        ("suggestions", "hints in errors about unknown names"),
        ("machine", "CPU, BLAS, versions"),
    ],
    [("errors", "the exceptions, one tree")],
]
# Rooms with a part in the core: what the core part has, what the services have.
SHARED = {
    "training": ("optimizers, schedules, step, loop, state", "options, data, batches, L-BFGS, ..."),
    "network": ("layers, activations, losses, workspace", "evaluation/, printing, probing"),
    "backend": ("the interface, a reference of each kernel", "spec: a backend's description"),
}


def rooms() -> Canvas:
    """Draw the packages by floors."""
    c = Canvas(
        860, 912, "The rooms of nnbackend",
        "The packages by floors, the highest first. Each imports from lower floors only. "
        "errors, backend, network and a part of training are the core; the backends are beside.",
    )  # fmt: skip
    left, width, height, gap = 60, 566, 40, 8
    places: dict[str, Box] = {}
    for i, floor in enumerate(FLOORS):
        y = 40 + i * (height + gap)
        c.text(left - 12, y + height / 2 + 4, note(str(len(FLOORS) - 1 - i)), "end")
        w = (width - gap * (len(floor) - 1)) / len(floor)
        for j, (name, purpose) in enumerate(floor):
            folder = ROOT / "nnbackend" / name
            if not (folder.is_dir() or folder.with_suffix(".py").is_file()):
                raise LookupError(f"no package {name}")
            x = left + j * (w + gap)
            places[name] = _room(c, Box(x, y, w, height), name, purpose)
    top, bottom = places["cli"].y, places["errors"].y + height
    c.arrow((26, top), (26, bottom), colour=GREY)
    c.text(left - 40, 24, note("imports go down only, never up, and in no circle"))

    _backends(c, places)
    x, y = 662, 44
    for fill, *texts in (
        (CORE, "core: about 1 800 lines,", "how a network learns"),
        (SERVICE, "services: what users", "need besides"),
        (DEVICE, "backends: separate packages"),
    ):
        c.box(x, y, 18, 14, fill=fill)
        for text in texts:
            c.text(x + 25, y + 11, note(text, size=11))
            y += 15
        y += 9
    return c


def _room(c: Canvas, place: Box, name: str, purpose: str) -> Box:
    """Draw a room, the ones of the core in two parts."""
    x, y, w, h = place.x, place.y, place.w, place.h
    if name in SHARED:
        core, services = SHARED[name]
        cut = 340
        c.box(x, y, w, h, fill=SERVICE, edge=BLUE)
        c.box(x, y, cut, h, fill=CORE)
        c.text(x + 10, y + 25, code(name))
        c.text(x + 84, y + 25, note(core))
        c.text(x + cut + 10, y + 25, note(services))
        return place
    fill = CORE if name == "errors" else SERVICE
    if w < 300:
        return c.box(x, y, w, h, [code(name), note(purpose)], fill=fill)
    c.box(x, y, w, h, fill=fill)
    c.text(x + 10, y + 25, code(name))
    c.text(x + 116, y + 25, note(purpose))
    return place


def _backends(c: Canvas, places: dict[str, Box]) -> None:
    """Draw the backends beside the rooms."""
    devices, backend, network = places["devices"], places["backend"], places["network"]
    x, w = 662, 190
    outer = c.box(x, network.y - 116, w, 214, fill="#fffaf3", edge=ORANGE)
    c.text(x + w / 2, outer.y + 19, code("backends/"), "middle")
    c.text(x + w / 2, outer.y + 35, note("arrays and fast kernels"), "middle")
    last = Box(0, 0, 0, 0)
    for i, (name, text) in enumerate(
        (("cupy", "CUDA GPU"), ("numba", "CPU, compiled loops"), ("numpy", "CPU, plain NumPy"))
    ):
        if not (ROOT / "backends" / f"nnbackend_{name}").is_dir():
            raise LookupError(name)
        y = outer.y + 46 + 56 * i
        last = c.box(x + 12, y, w - 24, 44, [code(f"nnbackend_{name}"), note(text)], fill=DEVICE)
        if name == "numpy":
            c.arrow((x + w / 2, y - 12), (x + w / 2, y), colour=ORANGE)
    assert last.y + last.h < outer.y + outer.h
    c.arrow(devices.right, (x + 60, devices.right[1]), (x + 60, outer.y + outer.h), dashed=True)
    c.text(x - 30, devices.y + 13, note("loads"))
    c.arrow((x + 150, outer.y + outer.h), (x + 150, backend.right[1]), backend.right, colour=ORANGE)
    c.text(x - 26, backend.right[1] + 17, note("import only backend, errors"))


# ---- one mini-batch -----------------------------------------------------------------------------


def mini_batch() -> Canvas:
    """Draw the way of a mini-batch from nn.train to the updated weights."""
    c = Canvas(
        860, 1146, "The way of one mini-batch",
        "Once per run nn.train checks options and data and makes the Trainer. At the start of an "
        "epoch the order of the rows and the learning rates go to the device. Each mini-batch is "
        "one step: gather rows, feed forward, loss, backpropagate, update, each by kernels of the "
        "backend. At the end of an epoch the sums come back, and the network is validated.",
    )  # fmt: skip
    trainer = _once_per_run(c, 10)
    begin, capture = _start_of_epoch(c, 298)
    c.arrow((begin.top[0], trainer.y + trainer.h), begin.top)
    c.text(begin.top[0] + 8, begin.y - 12, code("run()", bold=False, size=SIZE - 1))
    step = _step(c, 440)
    c.arrow(capture.bottom, (capture.bottom[0], 426), (step.top[0], 426), step.top)
    c.text(
        step.top[0] + 8,
        421,
        note("run(n): n steps, each a call of step or the replay of its recording"),
    )
    end, last = _end_of_epoch(c, 1008)
    c.arrow(step.bottom, (step.bottom[0], end.y))
    c.text(step.bottom[0] + 8, end.y - 38, note("after the last step of the epoch"))
    gutter, low = 22, last.y + last.h + 20
    c.arrow(last.bottom, (last.bottom[0], low), (gutter, low), (gutter, begin.left[1]),
            begin.left, colour=GREY)  # fmt: skip
    c.text(gutter + 12, low - 5, note("next epoch"))
    return c


def _band(c: Canvas, y: float, h: float, title: str) -> None:
    c.box(4, y, 852, h, fill="#fbfcfd", edge=PALE)
    c.text(842, y + 21, Line(title, bold=True, colour=GREY), "end")


def _once_per_run(c: Canvas, y: float) -> Box:
    """Draw what happens once per run; return the box of the Trainer."""
    _band(c, y, 276, "once per run")
    row, h = y + 32, 64
    boxes = [
        c.box(x, row, w, h, named(*lines))
        for x, w, *lines in (
            (40, 190, "train(net, x, y)", "training/api.py", "what the user calls"),
            (262, 242, "TrainConfig.checked", "training/config.py", "the options, validated"),
            (536, 306, "prepare_data", "training/preparation.py",
             "rows validated and split, scaler fitted"),
        )
    ]  # fmt: skip
    c.badge(boxes[1].x, row, 1)
    c.badge(boxes[2].x, row, 1)
    for a, b in pairwise(boxes):
        c.arrow(a.right, b.left)
    outer = c.box(40, row + h + 26, 802, 136, fill=CORE)
    c.arrow(boxes[2].bottom, (boxes[2].bottom[0], outer.y))
    c.badge(outer.x, outer.y, 2)
    name, where, _ = named("Trainer", "training/loop.py", "")
    c.text(60, outer.y + 22, name)
    c.text(60 + name.width + 12, outer.y + 22, where)
    at, w = outer.y + 34, 184
    for i, (fill, *lines) in enumerate((
        (SERVICE, "BatchLoader", "training/batching.py", "x and y on the device,", "copied once"),
        (DATA, "TrainState", "training/state.py", "weights, optimizer's", "vectors, clock, sums"),
        (SERVICE, "StepRunner", "training/step_runner.py", "runs the steps of", "an epoch"),
        (DATA, "StepBuilder", "training/step.py", "builds the step on", "arrays made once"),
    )):  # fmt: skip
        c.box(60 + i * (w + 9), at, w, 90, named(*lines), fill=fill, edge=BLUE)
    return outer


def _start_of_epoch(c: Canvas, y: float) -> tuple[Box, Box]:
    """Draw the start of an epoch; return the first and the last box."""
    _band(c, y, 108, "start of an epoch")
    row, h = y + 32, 64
    first = c.box(40, row, 150, h, named("Trainer.run", "training/loop.py", "the loop of epochs"),
                  fill=CORE)  # fmt: skip
    runner = c.box(214, row, 214, h, named("StepRunner.run_epoch", "training/step_runner.py",
                                           "order, rates, clock: copied"))  # fmt: skip
    builder = c.box(452, row, 188, h, named("StepBuilder.new_step", "training/step.py",
                                            "once per batch size"), fill=CORE)  # fmt: skip
    capture = c.box(664, row, 178, h, named("Backend.capture", "backend/base.py",
                                            "may record the step"), fill=DEVICE)  # fmt: skip
    c.badge(runner.x, row, 3)
    for a, b in ((first, runner), (runner, builder), (builder, capture)):
        c.arrow(a.right, b.left)
    return first, capture


# The rows of a step: boxes between the step and the seam, kernels, what they compute, the number.
STEP: tuple[tuple[list[tuple[str, str]], tuple[str, ...], str, int], ...] = (
    ([], ("tick",), "count the step; its learning rate", 4),
    ([("BatchLoader.load", "training/batching.py")], ("gather_rows", "scale_rows"),
     "x (B, I) and y of this mini-batch", 4),
    ([("Workspace.forward", "network/workspace.py"), ("Dense.forward", "network/layers.py")],
     ("dense_forward",), "z = x W + b,  a = \u03c6(z)", 4),
    ([], ("loss_and_delta",), "sums += loss;  \u03b4 of the output", 4),
    ([("Workspace.backward", "network/workspace.py"), ("Dense.backward", "network/layers.py")],
     ("dense_backward",), "dW = x\u1d40\u03b4,  db,  dx = \u03b4W\u1d40", 4),
    ([], ("add_penalty", "clip_norm"), "if asked for: l1, l2; a limit", 5),
    ([("Adam.recurrence", "training/optimizers.py")], ("optimizer_step",),
     "the new weights \u03b8, in place", 5),
    ([], ("max_norm", "average"), "if asked for: a limit; mean of \u03b8", 5),
)  # fmt: skip


def _step(c: Canvas, y: float) -> Box:
    """Draw one step: the engine on the left, the kernels on the right; return the step's box."""
    pitch, h = 60, 46
    _band(c, y, 546, "each mini-batch")
    top = y + 56
    step = c.box(40, top, 132, pitch * len(STEP) - pitch + h, fill=CORE)
    middle = step.y + step.h / 2
    c.text(step.top[0], middle - 22, code("step"), "middle")
    c.text(step.top[0], middle - 6, Line("training/step.py", mono=True, size=10.5, colour=GREY),
           "middle")  # fmt: skip
    for i, text in enumerate(("what new_step", "returned; once", "per mini-batch")):
        c.text(step.top[0], middle + 14 + 15 * i, note(text, size=11), "middle")
    seam, x = 584, 606
    c.arrow((seam, y + 12), (seam, y + 534), colour=ORANGE, dashed=True, has_head=False)
    c.text(seam - 10, y + 42, note("engine: nnbackend/"), "end")
    c.text(seam + 10, y + 42, Line("device: kernels of the Backend", size=11.5, colour=ORANGE))
    for i, (between, names, what, number) in enumerate(STEP):
        row = top + pitch * i
        kernel = c.box(x, row, 236, h, [code(kernels(*names)), note(what)], fill=DEVICE)
        c.badge(step.x + step.w, row + h / 2, number)
        begin = (step.x + step.w + 10, row + h / 2)
        widths = [184] if len(between) == 1 else [184, 160]
        at = 200.0
        for (name, file), w in zip(between, widths, strict=False):
            fill = SERVICE if name.startswith("BatchLoader") else CORE
            box = c.box(at, row, w, h, _short(name, file), fill=fill)
            c.arrow(begin, box.left)
            begin, at = box.right, at + w + 20
        c.arrow(begin, kernel.left)
    return step


def _short(name: str, file: str) -> list[Line]:
    """Return the lines of a box; `recurrence` of an optimizer is an attribute, not a method."""
    if name == "Adam.recurrence":
        named("Optimizer.recurrence", file)
    else:
        named(name, file)
    return [code(name), Line(file, mono=True, size=SIZE - 1.5, colour=GREY)]


def _end_of_epoch(c: Canvas, y: float) -> tuple[Box, Box]:
    """Draw the end of an epoch; return its first and its last box."""
    _band(c, y, 130, "end of an epoch")
    row, h = y + 32, 64
    boxes = [
        c.box(x, row, w, h, named(*lines), fill=fill)
        for x, w, fill, *lines in (
            (40, 200, CORE, "TrainState.mean_loss", "training/state.py", "four sums come up"),
            (264, 320, SERVICE, "DataSetMethods.evaluate_prepared",
             "network/evaluation/methods.py", "loss and score of the validation rows"),
            (608, 234, CORE, "Trainer._end_epoch", "training/loop.py",
             "history, best weights, stop"),
        )
    ]  # fmt: skip
    for a, b in pairwise(boxes):
        c.arrow(a.right, b.left)
    return boxes[0], boxes[-1]


# ---- one prediction -----------------------------------------------------------------------------


def prediction() -> Canvas:
    """Draw the way of a prediction: down to the device on the left, up to a label on the right."""
    c = Canvas(
        860, 690, "The way of one prediction",
        "Model.predict codes a row of a table as numbers; the network validates and scales it and "
        "feeds it forward on the device; the outputs return to the host and become a label.",
    )  # fmt: skip
    for y, h, title in ((58, 190, "Model: raw rows and labels"), (258, 320, "Network: arrays"),
                        (588, 94, "device: kernels")):  # fmt: skip
        _band(c, y, h, "")
        c.text(430, y + 21, Line(title, bold=True, colour=GREY), "middle")
    left, right, w, h = 24, 556, 280, 56
    steps = [  # a box, and the value on the arrow to the next
        (c.box(left, 8, w, 34, [code('{"size": 8, "colour": "red"}')], fill=DATA), ""),
        (c.box(left, 84, w, h, named("Model.predict", "model/model.py")), ""),
        (c.box(left, 172, w, h, named("code_table", "model/tables.py")), "[[8, 0, 1]]  float64"),
        (c.box(left, 282, w, h, named("DataSetMethods.outputs", "network/evaluation/methods.py")),
         ""),
        (c.box(left, 356, w, h, named("finite_rows", "validation.py")), "n_in columns, no NaN"),
        (c.box(left, 430, w, h, named("RowPasses.run", "network/evaluation/passes.py")),
         "at most 4 096 rows at once"),
        (c.box(left, 504, w, h, named("RowScaler.scale", "data/row_scaler.py")), ""),
        (c.box(left, 622, w, 44, [code(kernels("scale_rows")), note("to float32, into x")],
               fill=DEVICE), ""),
        (c.box(right, 622, w, 44, [code(kernels("dense_forward")),
               note("z = x W + b,  a = \u03c6(z)")], fill=DEVICE), ""),
        (c.box(right, 504, w, h, named("Dense.forward", "network/layers.py"), fill=CORE),
         "the next layer, ..."),
        (c.box(right, 430, w, h, named("Workspace.forward", "network/workspace.py"), fill=CORE),
         "the last layer's a"),
        (c.box(right, 282, w, h, named("all_outputs", "network/evaluation/passes.py")),
         "[[0.12, 0.88]]  on the host"),
        (c.box(right, 172, w, h, named("Model.predict", "model/model.py")), "1, the largest"),
        (c.box(right, 84, w, h, named("decode_labels", "model/labels.py")), ""),
        (c.box(right, 8, w, 34, [code('array(["low"])')], fill=DATA), ""),
    ]  # fmt: skip
    for (a, value), (b, _) in pairwise(steps):
        if a.y == b.y:
            c.arrow(a.right, b.left)
            c.text((a.right[0] + b.left[0]) / 2, a.right[1] - 8, note("[[0.96, -1, 1]]"), "middle")
            continue
        is_down = a.y < b.y
        begin, end = (a.bottom, b.top) if is_down else (a.top, b.bottom)
        c.arrow(begin, end)
        side = (10, "start") if is_down else (-10, "end")
        c.text(begin[0] + side[0], min(begin[1], end[1]) + 13.5, note(value, size=11), side[1])
    return c


# ---- files --------------------------------------------------------------------------------------

DRAWINGS: dict[str, Callable[[], Canvas]] = {
    "rooms": rooms, "mini-batch": mini_batch, "prediction": prediction, "products": products,
    **{f"perceptron-{lang}": partial(perceptron, lang) for lang in ("en", "es")},
    **{f"layers-{lang}": partial(layers, lang) for lang in ("en", "es")},
}  # fmt: skip


def check() -> None:
    """Raise LookupError for a path on a page that does not exist, or for an old picture."""
    for page in sorted(HERE.parent.glob("*.md")):
        for path in re.findall(r"\]\(\.\./([^)#]+)[)#]", page.read_text(encoding="utf-8")):
            if not (ROOT / path).exists():
                raise LookupError(f"docs/{page.name} names {path}, which does not exist")
    if [{name for name, _ in floor} for floor in FLOORS] != floors_of_the_test():
        raise LookupError("FLOORS differ from LAYERS in tests/test_structure.py")
    for name, draw in DRAWINGS.items():
        path = HERE / f"{name}.svg"
        if path.read_text(encoding="utf-8") != draw().svg():
            raise LookupError(f"{path.name} is not up to date: run python docs/drawings/draw.py")


if __name__ == "__main__":
    for name, draw in DRAWINGS.items():
        (HERE / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")
