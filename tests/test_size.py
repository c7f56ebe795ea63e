"""Limits on the number of code lines, without blank lines, comments and docstrings.

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
# The plan was 1800. A quarter of the lines are checks with their messages (registry, options,
# data), and the formatter puts each of many arguments on a separate line. A tenth is for resuming
# interrupted runs and for micro-batches. 150 lines are tests of custom formulas and hints
# from names of other libraries; 130 are for running out of memory in the first steps, in L-BFGS
# and in the rate finder; 100 for scaling in float64 on every device and tables as rows;
# 240 for devices without float64, several types of devices and the checks before
# their first use.
ENGINE_LIMIT = 3640
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
    """Return the numbers of the lines of `text` that contain code."""
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
    files = [
        path for package in ("nnbackend", "backends") for path in (ROOT / package).rglob("*.py")
    ]
    assert files
    return {path.relative_to(ROOT): code_lines(path.read_text(encoding="utf-8")) for path in files}


def _functions() -> Iterator[tuple[str, int]]:
    for path, lines in _sizes().items():
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                span = range(node.lineno, (node.end_lineno or 0) + 1)
                yield f"{path}:{node.lineno} {node.name}", len(lines.intersection(span))


def _package(path: Path) -> str:
    """Return the package: `nnbackend/errors.py` -> errors, `nnbackend/network/x.py` -> network."""
    return path.parts[1].removesuffix(".py") if path.parts[0] == "nnbackend" else path.parts[1]


def test_code_lines() -> None:
    text = (
        '"""Two\nlines."""\n\nx = 1  # why\n# note\n\ndef f():\n    "Doc."\n    return """a\nb"""\n'
    )
    assert code_lines(text) == {4, 7, 9, 10}


def test_the_engine_is_small() -> None:
    packages: dict[str, int] = {}
    for path, lines in sorted(_sizes().items()):
        packages[_package(path)] = packages.get(_package(path), 0) + len(lines)
        print(f"{len(lines):6}  {path}")
    print()
    for package, size in packages.items():
        print(f"{size:6}  {package}")
    total = sum(packages[package] for package in ENGINE)
    print(f"{total:6}  {' + '.join(ENGINE)} (limit {ENGINE_LIMIT})")
    for where, size in sorted(_functions(), key=lambda item: -item[1]):
        if size > FUNCTION_AIM:
            print(f"{size:6}  {where} (aim {FUNCTION_AIM})")
    assert total <= ENGINE_LIMIT


def test_modules_are_short() -> None:
    long = {str(path): len(lines) for path, lines in _sizes().items() if len(lines) > MODULE_LIMIT}
    assert not long


def test_functions_are_short() -> None:
    assert not [(where, size) for where, size in _functions() if size > FUNCTION_LIMIT]
