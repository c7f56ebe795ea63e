"""Draw the picture of docs/products.md: a tile, and the panels of a batch in two products."""

from __future__ import annotations

from canvas import CORE, DATA, DEVICE, EDGES, GREY, PALE, SERVICE, Canvas, Line, code, note
from source import ROOT, constant, defined

FOLDER = "backends/nnbackend_numba"
BLUE = EDGES[CORE]
CELL, PITCH = 13, 17  # a number's box, and the distance to the next one's
VECTOR = 112  # the width of a vector
ROWS, UNITS = 43, 8  # of the drawn batch: the last panel has padding lanes


def function(name: str, file: str = "products.py") -> str:
    """Return the name of a function. Raises: LookupError if the file does not define it."""
    if name not in defined(f"{FOLDER}/{file}"):
        raise LookupError(f"{FOLDER}/{file} does not define {name}")
    return name


def products() -> Canvas:
    """Draw a tile on the left, panels on the right."""
    c = Canvas(
        860, 596, "Matrix products on the CPU",
        "Left: a tile of C, whose sums stay in registers. Each round of the loop over k reads one "
        "number of each row of A, which is copied to all lanes, and two vectors of a row of B. "
        "Right: a batch in panels, drawn side by side. In the forward product they are B: a round "
        "reads the vectors of one unit. In the gradient of the weights they are A: a round reads "
        "one row of the batch, a number of each unit.",
    )  # fmt: skip
    size, rows = constant("REGISTERS", f"{FOLDER}/tiles.py")["zmm"]
    pair, lanes = constant("PAIR", f"{FOLDER}/tiles.py"), size // 4
    for x, w, file, title in (
        (4, 402, "tiles.py", "a tile of C = A B"), (414, 442, "panels.py", "the batch x in panels")
    ):  # fmt: skip
        if not (ROOT / FOLDER / file).is_file():
            raise LookupError(f"no {FOLDER}/{file}")
        c.box(x, 4, w, 588, fill="#fbfcfd", edge=PALE)
        c.text(x + 14, 26, Line(title, bold=True, colour=GREY))
        c.text(x + w - 14, 26, Line(file, mono=True, size=11, colour=GREY), "end")
    _tile(c, rows, pair, lanes)
    c.text(428, 50, note(f"panels[q, j, s]: unit j of row {lanes} q + s. A bar is a vector,"))
    c.text(428, 66, note(f"panels[q, j], of {lanes} lanes; in memory they follow each other."))
    _as_b(c, 144, lanes, pair)
    _as_a(c, 386, lanes)
    return c


def _tile(c: Canvas, rows: int, pair: int, lanes: int) -> None:
    """Draw a tile of C between its rows of A and its columns of B."""
    width, shown, now = 104, 6, 2  # of a vector; of k: how many, and the present one
    x, y = 176, 218
    left, top = x - 22 - shown * PITCH, y - 22 - shown * PITCH
    low = y + rows * PITCH
    for k in range(shown):
        fill = CORE if k == now else SERVICE
        for i in range(rows):
            c.box(left + k * PITCH, y + i * PITCH, CELL, CELL, fill=fill, radius=2)
        for j in range(pair):
            c.box(x + j * (width + 4), top + k * PITCH, width, CELL, fill=fill, radius=2)
    for i in range(rows):
        for j in range(pair):
            c.box(x + j * (width + 4), y + i * PITCH, width, CELL, fill=DEVICE, radius=2)
    c.arrow((left, low + 6), (x - 24, low + 6), colour=BLUE)
    c.text(left - 12, low + 10, Line("k", bold=True, colour=BLUE))
    c.arrow((x - 10, top), (x - 10, y - 26), colour=BLUE)
    c.text(x - 24, top + 10, Line("k", bold=True, colour=BLUE))
    c.text(18, 50, code(function("tile", "tiles.py"), size=12))
    c.text(54, 50, note("a round of its loop reads a column of A and a row of B:"))
    c.text(18, 66, note("sum[i, j] += (number i of A, in all lanes) x (vector j of B)"))
    c.text(x, top - 8, note(f"B: {pair} vectors of a row"))
    for i, text in enumerate(("A: a number", "of each row")):
        c.text(left, y - 23 + 15 * i, note(text))
    c.text(x, low + 14, note(f"C: {rows} x {pair} vectors of sums"))
    c.text(18, low + 60, note("In registers during the whole loop, with AVX-512:"))
    used = rows * pair + pair + 1
    c.text(
        18, low + 76, note(f"{rows} x {pair} sums + {pair} vectors of B + 1 of A = {used} of 32.")
    )
    c.text(18, low + 92, note(f"A vector has {lanes} lanes of float32."))


def _panels(c: Canvas, y: float, lanes: int) -> None:
    """Draw the panels of the batch side by side, the padding lanes dashed."""
    for q in range(-(-ROWS // lanes)):
        x, filled = _place(q), min(lanes, ROWS - q * lanes) * VECTOR / lanes
        c.text(x + VECTOR / 2, y - 7, note(f"panel q = {q}"), "middle")
        for j in range(UNITS):
            c.box(x, y + j * PITCH, filled, CELL, radius=2)
            if filled < VECTOR:
                c.box(x + filled, y + j * PITCH, VECTOR - filled, CELL, fill=DATA, dashed=True,
                      radius=2)  # fmt: skip
    for j in range(UNITS):
        c.text(_place(0) - 6, y + j * PITCH + 11, note(f"j = {j}" if j == 0 else str(j)), "end")


def _place(q: int) -> float:
    return 482 + q * (VECTOR + 8)


def _as_b(c: Canvas, y: float, lanes: int, pair: int) -> None:
    """Draw the panels as B of the forward product: a round reads the same unit of two panels."""
    c.text(428, y - 44, code(function("forward"), size=12))
    c.text(488, y - 44, note("z\u1d40 = W\u1d40 x\u1d40: the panels are B, k are the units"))
    _panels(c, y, lanes)
    now = 2
    for q in range(pair):
        for s in range(lanes):
            w = VECTOR / lanes
            c.box(_place(q) + s * w, y + now * PITCH, w, CELL, fill=CORE, radius=1)
    c.arrow((440, y), (440, y + UNITS * PITCH), colour=BLUE)
    c.text(426, y + 10, Line("k", bold=True, colour=BLUE))
    low = y + UNITS * PITCH + 12
    c.text(_place(0), low, note(f"a round reads unit k of {pair} panels: {pair} vectors"))
    c.text(_place(2) + VECTOR, low, note("padding"), "end")


def _as_a(c: Canvas, y: float, lanes: int) -> None:
    """Draw the panels as A of the gradient: a round reads a number of each unit, of one row."""
    c.text(428, y - 44, code(function("weight_gradient"), size=12))
    c.text(548, y - 44, note("dW = x\u1d40 \u03b4: the panels are A, k are the rows"))
    _panels(c, y, lanes)
    low, w = y + UNITS * PITCH, VECTOR / lanes
    for j in range(UNITS):
        c.box(_place(1) + 5 * w, y + j * PITCH, w, CELL, fill=CORE, radius=1)
    for q in range(3):
        end = _place(q) + min(lanes, ROWS - q * lanes) * w
        c.arrow((_place(q), low + 8), (end, low + 8), colour=BLUE)
    c.text(_place(0) - 12, low + 12, Line("k", bold=True, colour=BLUE))
    c.text(428, low + 32, note("a round reads row k of the batch, one number of each unit;"))
    c.text(428, low + 47, note(f"after {lanes} rows A continues in the next panel"))
