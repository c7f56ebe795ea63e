"""The pages of the API reference, for autodoc: a table of names, then each with its docstring."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

from docstrings import prose
from public_names import PAGES, Entry, Page, entries, undocumented


def write(folder: Path) -> None:
    """Write the pages of the reference, for autodoc."""
    if missing := undocumented():
        raise ValueError(
            f"docs/extensions/public_names.py: put {', '.join(missing)} on a page of PAGES"
        )
    folder.mkdir()
    for page in PAGES:
        (folder / f"{page.name}.rst").write_text("\n".join(_page(page)), encoding="utf-8")
    lines = [*_title("Python reference", "="), "Every public name, by page.", ""]
    for page in PAGES:
        links = ", ".join(_link(entry) for entry in entries(page))
        lines += [f":doc:`{page.title} <{page.name}>`", f"   {links}", ""]
    lines += [".. toctree::", "   :hidden:", "", *(f"   {page.name}" for page in PAGES), ""]
    (folder / "index.rst").write_text("\n".join(lines), encoding="utf-8")


def _title(text: str, line: str) -> list[str]:
    return [text, line * len(text), ""]


def _link(entry: Entry) -> str:
    short = entry.name.removeprefix("nnbackend.")
    return f":py:obj:`{short} <{entry.name}>`"


def _page(page: Page) -> Iterator[str]:
    yield from (*_title(page.title, "="), page.about, "")
    yield from (".. list-table::", "   :class: names", "   :widths: 30 70", "")
    for entry in entries(page):
        first = entry.text.partition("\n")[0]
        yield f"   * - {_link(entry)}"
        yield f"     - {prose(first)}".rstrip()
    yield ""
    for entry in entries(page):
        yield from _title(entry.name.removeprefix("nnbackend."), "-")
        yield f".. {entry.directive}:: {entry.name}"
        if entry.directive == "autodata":
            yield "   :no-value:"
        yield ""
        for member in entry.members:
            is_property = isinstance(inspect.getattr_static(entry.value, member), property)
            kind = "autoproperty" if is_property else "automethod"
            yield from (f"   .. {kind}:: {entry.name}.{member}", "")
