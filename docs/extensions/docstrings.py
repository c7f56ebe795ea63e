"""Docstrings of the house style as reStructuredText: prose, a parameter table, errors, examples.

The style (shared by all modules): `name: what it is.`, for several names `a, b: ...`; lines that
begin with Raises, Shapes or Source; formulas indented by four; doctests at the end.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from public_names import Entry, documented

import nnbackend

LABELS = {"Raises", "Shapes", "Source"}
NAME = r"[A-Za-z_]\w*(?: \([^():]*\))?"  # a shape may follow
NAMES = rf"{NAME}(?:, {NAME})*"
START = re.compile(rf"(?:^|(?<=\. )|(?<=\.  ))({NAMES}): (?=\S)")
CODE = re.compile(r"`([^`]+)`")
ERRORS = re.compile(r"\b(\w+Error|KeyboardInterrupt|SystemExit)\b")
SPECIAL = re.compile(r"([\\*|_`])")
PAGE = re.compile(r"docs/([\w-]+)\.md")
WORD = re.compile(r"[A-Za-z_][\w.]*")
# Names of types that say less than these words.
ALIASES = {
    "Activations": "str, Activation or a list",
    "Data": "array, sparse matrix or table",
    "EvalSet": "(X, y), (X, y, sample_weight) or None",
    "Units": "int, layer or a sequence",
    "Validation": "(x, y), (x, y, sample_weight), float or None",
    "Weight": "array or None",
}
MOST_SHOWN = 9  # parameters in a signature
NUMPYDOC = "Parameters\n----------"


@dataclass
class Part:
    """A part of a docstring. kind: text, formula, entry, label or example."""

    kind: str
    lines: list[str] = field(default_factory=list)
    names: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Its lines as one."""
        return " ".join(line.strip() for line in self.lines)


def parse(text: str, known: set[str]) -> list[Part]:
    """Return the parts of a docstring; only known names and labels begin an entry."""
    parts: list[Part] = []
    current: Part | None = None
    for line in text.partition(NUMPYDOC)[0].rstrip().split("\n"):
        is_inside = current is not None and current.kind in ("entry", "label")
        if not line.strip():
            current = None
        elif current is not None and current.kind == "example":
            current.lines.append(line)
        elif line.startswith(">>>"):
            current = _add(parts, Part("example", [line]))
        elif line.startswith("    ") and not is_inside:
            is_formula = current is not None and current.kind == "formula"
            current = current if is_formula else _add(parts, Part("formula"))
            current.lines.append(line[4:])
        else:
            for names, piece in _pieces(line.strip(), known):
                ended = current is not None and current.text.endswith(".")
                if names:
                    kind = "label" if names[0] in LABELS else "entry"
                    current = _add(parts, Part(kind, [piece], names))
                elif current is None or current.kind == "formula" or (is_inside and ended):
                    current = _add(parts, Part("text", [piece]))
                else:
                    current.lines.append(piece)
    return parts


def _add(parts: list[Part], part: Part) -> Part:
    parts.append(part)
    return part


def _pieces(line: str, known: set[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (names, text) for the beginnings of entries in a line; no names for other text."""
    at, names = 0, ()
    for found in START.finditer(line):
        new = tuple(re.findall(r"(?:^|, )(\w+)", found[1]))
        if new[0] in LABELS or all(name in known for name in new):
            if found.start() > at:
                yield names, line[at : found.start()].strip()
            shape = re.search(r"\(.*\)", found[1])
            at, names = found.end() if shape is None else found.start(1) + shape.start(), new
    yield names, line[at:].strip()


def prose(text: str, own: str = "", without: frozenset[str] = frozenset()) -> str:
    """Return text with escaped marks; names in backticks become links.

    own: the class that the text belongs to, whose members need no prefix.
    without: names of parameters, which are no links.
    """
    pieces = []
    for i, piece in enumerate(CODE.split(text)):
        pieces.append(_code(piece, own, without) if i % 2 else _plain(piece))
    return "".join(pieces)


def _plain(text: str) -> str:
    pieces = []
    for i, piece in enumerate(PAGE.split(text)):
        pieces.append(f":doc:`/{piece}`" if i % 2 else SPECIAL.sub(r"\\\1", piece))
    return "".join(pieces)


def _code(text: str, own: str, without: frozenset[str]) -> str:
    name = text.partition("(")[0].removeprefix("nn.").removeprefix("nnbackend.")
    known = documented()
    target = known.get(f"{own}.{name}") or known.get(name)
    if target and text not in without and target != own:
        return f":py:obj:`{text} <{target}>`"
    return f"``{text}``"


def type_text(annotation: Any) -> str:
    """Return a type as text with links."""
    if annotation is inspect.Parameter.empty:
        return ""
    text = ALIASES.get(str(annotation), annotation)
    text = text if isinstance(text, str) else inspect.formatannotation(text)
    text = re.sub(r"\b(typing|collections\.abc|np|os|NDArray)\.(?=[A-Z])", "", text).strip("'")
    pieces, at = [], 0
    for found in WORD.finditer(text):
        target = documented().get(found[0])
        if target and found[0][0].isupper():
            pieces += [_plain(text[at : found.start()]), f":py:obj:`{found[0]} <{target}>`"]
            at = found.end()
    return "\\ ".join(piece for piece in [*pieces, _plain(text[at:])] if piece)


def default_text(parameter: inspect.Parameter) -> str:
    """Return a default as code, after a sign; "" without one."""
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return ""
    text = repr(parameter.default)
    return "" if text.startswith("<") else f" = ``{text}``"


def parameters_of(thing: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function or class, without self; none for other things."""
    if isinstance(thing, property) or not callable(thing):
        return {}
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return {}
    try:
        given = inspect.signature(thing).parameters
    except (TypeError, ValueError):
        return {}
    return {name: each for name, each in given.items() if name not in ("self", "cls")}


def section_of(text: str) -> dict[str, str]:
    """Return the meanings of a docstring's section "Parameters", by name."""
    found: dict[str, str] = {}
    name = ""
    for line in text.partition(f"{NUMPYDOC}\n")[2].rstrip().split("\n"):
        if line.startswith("    "):
            found[name] = f"{found.get(name, '')} {line.strip()}".strip()
        else:
            name = line
    return found


def sentence(text: str) -> str:
    """Return a text with a capital letter, unless it begins with a name."""
    return text[:1].upper() + text[1:] if re.match(r"[a-z]+[ ,;.]", text) else text


def _table(rows: list[tuple[str, str]], head: tuple[str, str]) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", "   :class: parameters", ""]
    for first, second in [head, *rows]:
        lines += [f"   * - {first}", f"     - {second}".rstrip()]
    return [*lines, ""]


def meanings_of(thing: Any, parts: list[Part], given: Iterable[str]) -> dict[str, str]:
    """Return what each parameter and attribute means, by name."""
    found: dict[str, str] = {}
    if "communicator" in given and thing is not nnbackend.train:  # the keywords of `train`
        known = parameters_of(nnbackend.train)
        parts_of_train = parse(inspect.getdoc(nnbackend.train) or "", set(known))
        shared = meanings_of(nnbackend.train, parts_of_train, known)
        found |= {name: text for name, text in shared.items() if name in given}
    found |= section_of(inspect.getdoc(thing) or "")
    for part in parts:
        if part.kind == "entry":
            found |= dict.fromkeys(part.names, part.text)
    return {name: sentence(text) for name, text in found.items()}


def translate(name: str, what: str, thing: Any, lines: list[str]) -> list[str]:
    """Return a docstring as reStructuredText."""
    own = name if what in ("class", "exception") else name.rpartition(".")[0]
    given = parameters_of(thing)
    known = set(given)
    if inspect.isclass(thing):
        known |= {*dir(thing), *getattr(thing, "__annotations__", {})}
    parts = parse("\n".join(lines), known)
    say = partial(prose, own=own, without=frozenset(given))
    meanings = {key: say(text) for key, text in meanings_of(thing, parts, given).items()}
    out: list[str] = []
    for part in parts:
        if part.kind == "text":
            out += [say(part.text), ""]
        elif part.kind == "formula":
            out += [".. code-block:: text", "", *(f"   {line}" for line in part.lines), ""]
    out += _parameters(given, meanings)
    attributes = [(f"``{key}``", text) for key, text in meanings.items() if key not in given]
    out += _table(attributes, ("attribute", "meaning")) if attributes else []
    for part in parts:
        if part.kind == "label":
            text = ERRORS.sub(r"`\1`", part.text) if part.names[0] == "Raises" else part.text
            out += [f"**{part.names[0]}:** {say(text)}", ""]
    for part in parts:
        out += [*part.lines, ""] if part.kind == "example" else []
    return out


def _parameters(given: dict[str, inspect.Parameter], meanings: dict[str, str]) -> list[str]:
    """Return the table of parameters, or a line if the text above it says what they mean."""
    if not given:
        return []
    marks = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    rows, items = [], []
    for name, each in given.items():
        shown, default = f"``{marks.get(each.kind, '')}{name}``", default_text(each)
        kind = type_text(each.annotation)
        rows.append((f"{shown}{default} |br| {kind}", meanings.get(name, "")))
        items.append(f"{shown} {kind}{default}")
    if not any(text for _, text in rows):
        return [f"**Parameters:** {'; '.join(items)}", ""]
    return _table(rows, ("parameter", "meaning"))


def shorten(
    app: Any, what: str, name: str, thing: Any, options: Any, signature: str, returns: str
) -> tuple[str, str] | None:
    """Return a signature without its keywords if they are many; the table has them all."""
    given = parameters_of(thing)
    if len(given) <= MOST_SHOWN:
        return None
    keyword = inspect.Parameter.KEYWORD_ONLY
    shown = [str(each.replace(annotation=each.empty)) for each in given.values()
             if each.kind is not keyword]  # fmt: skip
    if len(shown) == len(given):
        return None
    return f"({', '.join(shown)}, *, ...)", ""


def process(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Replace the lines of a docstring; a handler of autodoc."""
    if what == "data":  # the docstring would be that of its type
        lines[:] = [prose(Entry(name, thing).text), ""]
        return
    lines[:] = translate(name, what, thing, lines)
    if what in ("function", "method"):
        returns = inspect.signature(thing).return_annotation
        text = "" if returns in (None, "None", inspect.Signature.empty) else type_text(returns)
        lines += [f"**Returns:** {text}", ""] if text else []


def setup(app: Any) -> dict[str, bool]:
    """Connect the handlers."""
    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-process-signature", shorten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
