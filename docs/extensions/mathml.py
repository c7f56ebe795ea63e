"""Formulas of the pages as MathML, made when the site is built: readers need no network."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from docutils import nodes
from latex2mathml.converter import convert

# Signs that latex2mathml takes for identifiers: it would set them in italics with wide spaces.
PRIME = ("<msup><mi>&#x003C6;</mi><mi>&#x02032;</mi></msup>",
         "<msup><mi>&#x003C6;</mi><mo>&#x02032;</mo></msup>")  # fmt: skip


LONG = 14  # parts of a formula, from which a line may break within it
BREAKS = {"=", "+", "−", "-", "←", "<", ">"}
SUMS = {"\N{N-ARY SUMMATION}", "\N{N-ARY PRODUCT}"}
LIMITS = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}
TALL = {"mfrac", "munder", "munderover"}
NAMESPACE = "http://www.w3.org/1998/Math/MathML"


def parts(made: str) -> str:
    """Return a long formula as several elements, so that a narrow page breaks it at its signs."""
    ElementTree.register_namespace("", NAMESPACE)
    root = ElementTree.fromstring(made)
    children = list(root[0])
    if len(root) != 1 or len(children) < LONG:
        return made
    rows: list[list[ElementTree.Element]] = [[]]
    depth = 0
    for child in children:
        text = (child.text or "").strip()
        depth += (text in ("(", "{")) - (text in (")", "}"))
        if text in BREAKS and depth == 0 and len(rows[-1]) > 1:
            child.set("form", "infix")
            rows.append([])
        rows[-1].append(child)
    found = []
    for i, row in enumerate(rows):
        piece = ElementTree.Element(f"{{{NAMESPACE}}}math", root.attrib if i == 0 else {})
        ElementTree.SubElement(piece, f"{{{NAMESPACE}}}mrow").extend(row)
        found.append(ElementTree.tostring(piece, encoding="unicode"))
    return "<wbr>".join(found)


def displayed(made: str) -> str:
    """Return a formula in the style of a line of its own.

    The indices of sums stand beneath and above them. Fences around fractions and sums are larger:
    only a font for mathematics, which not every reader has, lets them grow by themselves.
    """
    ElementTree.register_namespace("", NAMESPACE)
    root = ElementTree.fromstring(made)
    root.set("displaystyle", "true")
    for each in root.iter():
        if _name(each) in LIMITS and each[0].text in SUMS:
            each.tag = f"{{{NAMESPACE}}}{LIMITS[_name(each)]}"
    for each in root.iter():
        if each.attrib.pop("minsize", None):  # of binomials
            del each.attrib["maxsize"]
            each.set("mathsize", "170%")
        if len(each) > 2 and each[0].get("fence") == each[-1].get("fence") == "true":
            inside = {_name(part) for child in each[1:-1] for part in child.iter()}
            for fence in (each[0], each[-1]):
                fence.set("symmetric", "true")
                if inside & TALL:
                    fence.set("mathsize", "170%")
    return ElementTree.tostring(root, encoding="unicode")


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def formula(tex: str, display: str = "inline") -> str:
    """Return a formula of TeX as a MathML element, with its TeX for readers who copy it.

    display: inline, block, or card: inline, in the style of a block.
    """
    made = convert(tex, display="block" if display == "block" else "inline").replace(*PRIME)
    text = nodes.unescape(tex).replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    made = made.replace("<math ", f'<math alttext="{text}" ', 1)
    made = made if display == "inline" else displayed(made)
    return made if display == "block" else parts(made)


def visit_inline(translator: Any, node: nodes.math) -> None:
    """Write a formula within a line."""
    table: Any = node.parent
    while table is not None and not isinstance(table, nodes.table):
        table = table.parent
    is_in_card = table is not None and "code-lines" in table["classes"]
    translator.body.append(formula(node.astext(), "card" if is_in_card else "inline"))
    raise nodes.SkipNode


def visit_block(translator: Any, node: nodes.math_block) -> None:
    """Write a formula on a line of its own."""
    translator.body.append(f'<div class="formula">{formula(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    """Register the renderer; conf.py selects it by `html_math_renderer`."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
