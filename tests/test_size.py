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
# What a student reads to know how a network learns: a folder counts with its files, but not with
# its folders. What else the engine needs is counted apart, by room.
CORE = (
    "nnbackend/errors.py",
    "nnbackend/backend",
    "nnbackend/network",
    *(f"nnbackend/training/{n}.py" for n in ("optimizers", "schedules", "step", "loop", "state")),
)
# Files in these folders that are not part of the core: file -> what it is.
SERVICES = {
    "nnbackend/backend/ranks.py": "sums over several processes",
    "nnbackend/backend/spec.py": "how a backend describes itself to the registry of devices",
    "nnbackend/network/printing.py": "networks as text",
    "nnbackend/network/probing.py": "tests of custom formulas on a few numbers",
}
CORE_LIMIT = 1800
MODULE_LIMIT = 300
FUNCTION_LIMIT = 40
# Functions above the limit: name in its file -> reason.
LONG_FUNCTIONS = {
    "nnbackend/devices/first_use.py _requirements": "six checks, each of which relies on the last",
}

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
                yield f"{path} {node.name}", len(lines.intersection(span))


def _package(path: Path) -> str:
    """Return the package: `nnbackend/errors.py` -> errors, `nnbackend/network/x.py` -> network."""
    return path.parts[1].removesuffix(".py") if path.parts[0] == "nnbackend" else path.parts[1]


def test_code_lines() -> None:
    text = (
        '"""Two\nlines."""\n\nx = 1  # why\n# note\n\ndef f():\n    "Doc."\n    return """a\nb"""\n'
    )
    assert code_lines(text) == {4, 7, 9, 10}


def _is_core(path: Path) -> bool:
    name = path.as_posix()
    return name not in SERVICES and (name in CORE or path.parent.as_posix() in CORE)


def test_the_core_is_small() -> None:
    packages: dict[str, int] = {}
    for path, lines in sorted(_sizes().items()):
        packages[_package(path)] = packages.get(_package(path), 0) + len(lines)
        print(f"{len(lines):6}  {path}{'  (core)' if _is_core(path) else ''}")
    print()
    for package, size in packages.items():
        print(f"{size:6}  {package}")
    total = sum(len(lines) for path, lines in _sizes().items() if _is_core(path))
    print(f"{total:6}  core (limit {CORE_LIMIT})")
    assert total <= CORE_LIMIT


def test_the_listed_services_exist() -> None:
    assert all((ROOT / name).is_file() for name in SERVICES)
    assert all((ROOT / name).exists() for name in CORE)


def test_modules_are_short() -> None:
    long = {str(path): len(lines) for path, lines in _sizes().items() if len(lines) > MODULE_LIMIT}
    assert not long


def test_functions_are_short() -> None:
    long = {where: size for where, size in _functions() if size > FUNCTION_LIMIT}
    assert long.keys() == LONG_FUNCTIONS.keys(), long
