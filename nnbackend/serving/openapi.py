"""Descriptions of a served model: as JSON, as an OpenAPI document, and as a page for people."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from nnbackend.data.coding import ColumnCoding
from nnbackend.data.columns import (
    CategoryColumn,
    CodedColumn,
    DateColumn,
    NumberColumn,
    YesNoColumn,
)
from nnbackend.machine import versions
from nnbackend.model.model import Model
from nnbackend.serving.rows import class_names

SHOWN = 20  # levels of a column in a description


def describe(model: Model, name: str) -> dict[str, Any]:
    """Return the facts of a model: its columns, classes and versions."""
    known, coding = model.preprocessing, _coding(model)
    return {
        "name": name,
        "task": "classification" if model.is_classifier else "regression",
        "target": None if coding is None else coding.target,
        "columns": None if coding is None else [_column(c) for c in coding.used],
        "ids": [] if coding is None else list(coding.ids),
        "n_features": model.n_features,
        "classes": None if known.classes is None else list(known.classes),
        "has_probabilities": model.has_probabilities,
        "threshold": known.threshold,
        "has_intervals": known.intervals is not None,
        "versions": versions(),
    }


def openapi(model: Model, name: str, max_rows: int) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a served model."""
    facts, row = describe(model, name), _row_schema(model)
    rows = {"oneOf": [row, {"type": "array", "items": row, "maxItems": max_rows}]}
    answer = _reply("Predictions in the order of the rows", _answer_schema(model))
    codes = {"400": "The body is no JSON or no rows", "413": "Too many rows or bytes",
             "415": "Neither JSON nor CSV", "422": "Rows that the model does not take"}  # fmt: skip
    errors = {code: _reply(text, _ERROR) for code, text in codes.items()}
    level = {
        "name": "interval", "in": "query", "required": False,
        "description": "also return the bounds that hold this share of the true values",
        "schema": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    }  # fmt: skip
    post: dict[str, Any] = {
        "summary": "Predict rows",
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": rows, "example": example(model)},
                "text/csv": {"schema": {"type": "string"}},
            },
        },
        "responses": {"200": answer, **errors},
    }
    if facts["has_intervals"]:
        post["parameters"] = [level]
    facts_of = {"/health": "Whether the server answers", "/model": "Columns, classes, versions"}
    anything: dict[str, Any] = {"type": "object"}
    gets = {
        path: {"get": {"summary": text, "responses": {"200": _reply(text, anything)}}}
        for path, text in facts_of.items()
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": f"nnbackend: {name}", "version": facts["versions"]["nnbackend"]},
        "paths": {"/predict": {"post": post}, **gets},
    }


def example(model: Model) -> Any:
    """Return an example of a row."""
    coding = _coding(model)
    if coding is None:
        return [0.0] * model.n_features
    return {column.name: _example(column) for column in coding.used}


def page(model: Model, name: str, max_rows: int, max_bytes: int) -> str:
    """Return an HTML page on the served model that loads nothing from the network."""
    facts = describe(model, name)
    columns = [
        f"<tr><td>{escape(c['name'])}</td><td>{escape(c['kind'])}</td>"
        f"<td>{escape(', '.join(c.get('levels', [])))}</td></tr>"
        for c in facts["columns"] or []
    ]
    table = f"<table><tr><th>column<th>kind<th>levels</tr>{''.join(columns)}</table>"
    if not columns:
        table = f"<p>Rows are lists of {model.n_features} numbers.</p>"
    classes = ", ".join(map(str, facts["classes"] or []))
    labels = f"<p>Classes: {escape(classes)}</p>" if classes else ""
    row = escape(json.dumps(example(model), ensure_ascii=False))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(name)}</title>
<style>body {{font: 16px sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em}}
td, th {{text-align: left; padding: 0 1em .2em 0; vertical-align: top}}
pre {{background: #eee; padding: 1em; white-space: pre-wrap}}</style></head><body>
<h1>{escape(name)}</h1>
<p>A model for {facts["task"]}{f" of {escape(facts['target'])}" if facts["target"] else ""},
served by nnbackend {escape(facts["versions"]["nnbackend"])}.</p>
{labels}{table}
<h2>Predict</h2>
<p>POST /predict takes one row or a list of rows as JSON (application/json), or CSV (text/csv):
at most {max_rows} rows and {max_bytes} bytes. Every row has all columns; null is no value.</p>
<pre>curl -H "Content-Type: application/json" --data @row.json URL/predict</pre>
<p>row.json:</p><pre>{row}</pre>
<p>Also: <a href="health">/health</a>, <a href="model">/model</a>,
<a href="openapi.json">/openapi.json</a>.</p>
</body></html>
"""


_ERROR: dict[str, Any] = {"type": "object", "properties": {"error": {"type": "string"}}}


def _coding(model: Model) -> ColumnCoding | None:
    columns = model.preprocessing.columns
    return None if columns is None else ColumnCoding.from_dict(columns)


def _reply(text: str, schema: Any) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _column(column: CodedColumn) -> dict[str, Any]:
    levels = column.levels if isinstance(column, CategoryColumn) else ()
    shown = [*levels[:SHOWN], *["..."] * (len(levels) > SHOWN)]
    return {"name": column.name, "kind": column.kind, **({"levels": shown} if shown else {})}


def _row_schema(model: Model) -> dict[str, Any]:
    """Return the JSON schema of a row."""
    coding, n = _coding(model), model.n_features
    if coding is None:
        return {"type": "array", "items": {"type": "number"}, "minItems": n, "maxItems": n}
    return {
        "type": "object",
        "properties": {column.name: _cell_schema(column) for column in coding.used},
        "required": [column.name for column in coding.used],
        "additionalProperties": True,
    }


def _cell_schema(column: CodedColumn) -> dict[str, Any]:
    types = {"number": ["number", "string", "null"], "date": ["string", "null"]}
    others = ["string", "number", "boolean", "null"]
    levels = column.levels if isinstance(column, CategoryColumn) else ()
    known = f": {', '.join(levels[:SHOWN])}" if levels else ""
    return {"type": types.get(column.kind, others), "description": f"{column.kind}{known}"}


def _answer_schema(model: Model) -> dict[str, Any]:
    texts, numbers = {"type": "string"}, {"type": "number"}
    is_text = any(isinstance(label, str) for label in model.classes or ())
    properties: dict[str, Any] = {
        "predictions": {"type": "array", "items": texts if is_text else {}},
        "ids": {"type": "object", "description": "the columns that identify rows"},
        "notes": {"type": "array", "items": texts, "description": "what was unusual in the rows"},
    }
    if model.has_probabilities:
        shares = dict.fromkeys(class_names(model), numbers)
        properties["probabilities"] = {
            "type": "array", "items": {"type": "object", "properties": shares}
        }  # fmt: skip
    if model.preprocessing.intervals is not None:
        pair = {"type": "array", "items": numbers, "minItems": 2, "maxItems": 2}
        properties["intervals"] = {"type": "array", "items": pair}
    return {"type": "object", "properties": properties}


def _example(column: CodedColumn) -> Any:
    if isinstance(column, CategoryColumn):
        return next(iter(column.levels), "text")
    if isinstance(column, DateColumn):
        return {"ymd": "2024-03-31", "dmy": "31/03/2024"}.get(column.order, "03/31/2024")
    if isinstance(column, YesNoColumn):
        return "yes"
    return float(f"{column.fill:.3g}") if isinstance(column, NumberColumn) else "text"
