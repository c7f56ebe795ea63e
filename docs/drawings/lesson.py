"""The two pictures of lesson 1, in both languages: a perceptron, and a network of layers."""

from __future__ import annotations

from canvas import CORE, DATA, DEVICE, EDGES, GREY, SERVICE, Canvas, Line, note

WORDS = {
    "en": (
        ("input", "weight", "bias", "sum", "activation", "output"),
        ("input layer", "hidden layer", "output layer"),
        "The six parts of a perceptron",
        "Three inputs, each with a weight, and a bias lead to a sum, then the activation function, "
        "then the output.",
        "A network of three layers",
        "Two inputs, three hidden units, two outputs. The weight w of layer 3 with the index 2, 1 "
        "leads to unit 2 of layer 3 from unit 1 of layer 2.",
        "to unit 2 of layer 3, from unit 1 of layer 2",
        "layer",
    ),
    "es": (
        ("entrada", "peso", "bias", "sumatoria", "activación", "salida"),
        ("capa de entrada", "capa oculta", "capa de salida"),
        "Las seis partes de un perceptrón",
        "Tres entradas, cada una con un peso, y un bias llegan a una sumatoria, luego a la función "
        "de activación, luego a la salida.",
        "Una red de tres capas",
        "Dos entradas, tres unidades ocultas, dos salidas. El peso w de la capa 3 con el índice "
        "2, 1 va a la unidad 2 de la capa 3 desde la unidad 1 de la capa 2.",
        "a la unidad 2 de la capa 3, desde la unidad 1 de la capa 2",
        "capa",
    ),
}
SUB, SUPER = "₀₁₂₃", "⁰¹²³"  # digits
BLUE, ORANGE = EDGES[CORE], EDGES[DEVICE]


def perceptron(lang: str) -> Canvas:
    """Return the drawing of a perceptron, with its parts numbered as in the lesson's table."""
    parts, _, title, text, *_ = WORDS[lang]
    c = Canvas(640, 250, title, text)
    total, phi, y = (330, 130), (450, 130), (565, 130)
    for i, at in enumerate((60, 130, 200), start=1):
        c.line((82, at), total, GREY, cut=30)
        c.circle(60, at, 22, [Line(f"x{SUB[i]}", size=15)], DATA)
        c.text(165, at + (130 - at) * 0.39 - 11, Line(f"w{SUB[i]}", size=15, colour=BLUE), "middle")
    c.line((330, 205), total, GREY, cut=30)
    c.circle(330, 222, 18, [Line("b", size=15)], SERVICE)
    c.line((360, 130), phi, GREY, cut=28)
    c.line((478, 130), y, GREY, cut=22)
    c.circle(*total, 28, [Line("Σ", size=20)], CORE)
    c.circle(*phi, 26, [Line("φ", size=19)], DEVICE)
    c.circle(*y, 22, [Line("y", size=15)], DATA)
    c.text(390, 118, Line("z", size=14, colour=GREY), "middle")
    places = ((48, 20), (150, 20), (375, 222), (310, 75), (430, 75), (545, 75))
    for number, (name, (x, at)) in enumerate(zip(parts, places, strict=True), start=1):
        c.badge(x - 14, at, number)
        c.text(x, at + 4.5, note(name, size=13))
    return c


def layers(lang: str) -> Canvas:
    """Return the drawing of a network of layers, with one weight and its indices."""
    *_, title, text, which, layer = WORDS[lang]
    names, xs = WORDS[lang][1], (100, 320, 540)
    units = [[(xs[0], y) for y in (105, 195)], [(xs[1], y) for y in (75, 150, 225)],
             [(xs[2], y) for y in (105, 195)]]  # fmt: skip
    c = Canvas(640, 310, title, text)
    for lower, upper in ((0, 1), (1, 2)):
        for k, start in enumerate(units[lower]):
            for j, end in enumerate(units[upper]):
                if (upper, j, k) != (2, 1, 0):
                    c.line(start, end, "#aab4be", cut=22)
    c.line(units[1][0], units[2][1], ORANGE, cut=22, width=3.0)
    for level, column in enumerate(units, start=1):
        for j, (x, y) in enumerate(column, start=1):
            fill = (DATA, CORE, DEVICE)[level - 1]
            c.circle(x, y, 22, [Line(f"a{SUPER[level]}{SUB[j]}", size=14)], fill)
        c.text(xs[level - 1], 22, Line(f"{layer} {level}", bold=True), "middle")
        c.text(xs[level - 1], 40, note(names[level - 1]), "middle")
    weight = Line("w³₂₁", size=16, bold=True, colour=ORANGE)
    c.text(432, 112, weight)
    c.text(150, 288, weight, "end")
    c.text(160, 287, note(which, size=13))
    return c
