"""What a service says about its model and itself: for programs, and for people."""

from __future__ import annotations

import html
import json
from typing import Any

import numpy as np

from nnbackend import __version__
from nnbackend.data import ColumnCoding
from nnbackend.model.model import Model

ANSWER = {
    "type": "object",
    "properties": {
        "predictions": {"type": "array"},
        "probabilities": {"type": "array", "items": {"type": "object"}},
        "intervals_90": {"type": "array"},
        "ids": {"type": "object"},
        "notes": {"type": "array", "items": {"type": "string"}},
    },
}
ERROR = {"type": "object", "properties": {"error": {"type": "string"}}}
FAILURES = {
    "400": "not JSON",
    "413": "too many rows or bytes",
    "415": "neither JSON nor CSV",
    "422": "rows that do not suit the model",
}


def described_model(model: Model) -> dict[str, Any]:
    """Return the facts on a model: its columns, classes, size and version."""
    known = model.preprocessing.columns
    columns: Any = None
    if known is not None:
        coding = ColumnCoding.from_dict(known)
        columns = [
            {"name": c.name, "kind": c.kind, "why": c.why, "is_used": bool(c.feature_names)}
            for c in coding.columns
        ]
    return {
        "columns": columns,
        "n_features": model.n_features,
        "classes": None if model.classes is None else [str(c) for c in model.classes],
        "parameters": int(sum(w.size for part in model.network.get_parameters() for w in part)),
        "versions": {"nnbackend": __version__, "numpy": np.__version__},
    }


def example_row(model: Model) -> Any:
    """Return a row as a client sends it."""
    known = model.preprocessing.columns
    if known is None:
        return [0.0] * model.n_features
    examples = {"number": 1.5, "yes/no": "yes", "date": "2026-01-31", "category": "a"}
    used = ColumnCoding.from_dict(known).used
    return {column.name: examples.get(column.kind, "text") for column in used}


def openapi(model: Model, title: str) -> dict[str, Any]:
    """Return the description of the service in OpenAPI 3.1."""
    row: dict[str, Any] = {"type": "array", "items": {"type": "number"}}
    if isinstance(example := example_row(model), dict):
        cells = {
            name: {"type": ["number" if isinstance(value, float) else "string", "null"]}
            for name, value in example.items()
        }
        row = {"type": "object", "properties": cells}
    body = {"oneOf": [row, {"type": "array", "items": row}]}
    failures = {code: _described(text, ERROR) for code, text in FAILURES.items()}
    predict = {
        "summary": "Predict rows",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": body, "example": [example]},
                "text/csv": {"schema": {"type": "string"}},
            },
        },
        "responses": {"200": _described("predictions", ANSWER), **failures},
    }
    plain = {"responses": {"200": {"description": "JSON"}}}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__},
        "paths": {
            "/predict": {"post": predict},
            "/model": {"get": {"summary": "Columns, classes and versions", **plain}},
            "/health": {"get": {"summary": "Whether the service answers", **plain}},
        },
    }


def _described(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def page(model: Model, title: str) -> str:
    """Return the page for people. It loads nothing."""
    example = html.escape(json.dumps([example_row(model)], ensure_ascii=False))
    rows = "".join(
        f"<tr><td>{html.escape(c['name'])}</td><td>{html.escape(c['kind'])}</td>"
        f"<td>{html.escape(c['why'])}</td></tr>"
        for c in described_model(model)["columns"] or ()
    )
    table = f"<h2>Columns</h2><table><tr><th>name<th>kind<th>why</tr>{rows}</table>" if rows else ""
    classes = ", ".join(html.escape(str(c)) for c in model.classes or ())
    answers = f"<p>Classes: {classes}</p>" if classes else ""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>{html.escape(title)}</title><style>body{{font:16px '
        "system-ui;max-width:50rem;margin:2rem auto;padding:0 1rem}pre{background:#f3f3f3;"
        "padding:1rem;overflow:auto}td,th{text-align:left;padding:.2rem 1rem .2rem 0}</style>"
        f"<h1>{html.escape(title)}</h1>{answers}<h2>Predict</h2><pre>curl -H 'content-type: "
        f"application/json' -d '{example}' http://HOST/predict</pre><p>Also CSV, as text/csv. "
        'Descriptions for programs: <a href="openapi.json">openapi.json</a>, '
        f'<a href="model">model</a>, <a href="health">health</a>.</p>{table}</html>'
    )
