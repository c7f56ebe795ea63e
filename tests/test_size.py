"""How much code there is. A line counts when it holds code: no blank, comment or docstring.

`python -m pytest tests/test_size.py -s` prints the table.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENGINE = ("errors", "backend", "network", "training")
# The plan was 1800. A quarter of the lines are checks with their messages (the registry, the
# recipe, the intake), and the formatter gives long argument lists a line each. A tenth is what
# lets a run be interrupted at any step and go on, and a step be divided where memory is short.
# Trying a user's own formulas before they are trained with, and hints from other names, are 150.
# What a device must show before it is used, several types of devices in one spec, and sums without
# float64 are 270.
ENGINE_LIMIT = 3420
MODULE_LIMIT = 400
FUNCTION_LIMIT = 60  # the aim is 40
FUNCTION_AIM = 40

_LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
_SCOPES = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def code_lines(text: str) -> set[int]:
    """Numbers of the lines of `text` that hold code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, _SCOPES) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            lines.difference_update(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
    return lines


@cache
def _sizes() -> dict[Path, set[int]]:
    files = [path for room in ("nnbackend", "backends") for path in (ROOT / room).rglob("*.py")]
    assert files
    return {path.relative_to(ROOT): code_lines(path.read_text(encoding="utf-8")) for path in files}


def _functions() -> Iterator[tuple[str, int]]:
    for path, lines in _sizes().items():
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                span = range(node.lineno, (node.end_lineno or 0) + 1)
                yield f"{path}:{node.lineno} {node.name}", len(lines.intersection(span))


def _room(path: Path) -> str:
    """`nnbackend/errors.py` and `nnbackend/network/layers.py` -> errors, network."""
    return path.parts[1].removesuffix(".py") if path.parts[0] == "nnbackend" else path.parts[1]


def test_counting() -> None:
    text = (
        '"""Two\nlines."""\n\nx = 1  # why\n# note\n\ndef f():\n    "Doc."\n    return """a\nb"""\n'
    )
    assert code_lines(text) == {4, 7, 9, 10}


def test_the_engine_is_small() -> None:
    rooms: dict[str, int] = {}
    for path, lines in sorted(_sizes().items()):
        rooms[_room(path)] = rooms.get(_room(path), 0) + len(lines)
        print(f"{len(lines):6}  {path}")
    print()
    for room, size in rooms.items():
        print(f"{size:6}  {room}")
    total = sum(rooms[room] for room in ENGINE)
    print(f"{total:6}  {' + '.join(ENGINE)} (limit {ENGINE_LIMIT})")
    for where, size in sorted(_functions(), key=lambda item: -item[1]):
        if size > FUNCTION_AIM:
            print(f"{size:6}  {where} (aim {FUNCTION_AIM})")
    assert total <= ENGINE_LIMIT


def test_no_module_is_long() -> None:
    long = {str(path): len(lines) for path, lines in _sizes().items() if len(lines) > MODULE_LIMIT}
    assert not long


def test_no_function_is_long() -> None:
    assert not [(where, size) for where, size in _functions() if size > FUNCTION_LIMIT]
