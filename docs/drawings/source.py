"""Look up names and constants in the source, for the drawings. Nothing is imported for that."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent


@cache
def defined(file: str) -> set[str]:
    """Return the names that a file defines: functions, classes, "Class.method"."""
    path = ROOT / file
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{n.name}" for n in node.body if isinstance(n, ast.FunctionDef)}
    return names


def constant(name: str, file: str) -> Any:
    """Return the value of a constant. Raises: LookupError if the file has none of that name."""
    for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return ast.literal_eval(node.value)
    raise LookupError(f"{file} has no {name}")
