"""Objects by name: "relu", "huber:2" or "step:every=10,gamma=0.5", the same on every front end.

Each family of formulas registers its table of factories here, under the name of the option.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from nnbackend.errors import ArgumentError, Fault
from nnbackend.options import Kind
from nnbackend.suggestions import suggest


class Family(NamedTuple):
    """The factories of a family by name; `expected` ends "the option must be ..."."""

    known: Mapping[str, Callable[..., Any]]
    expected: str


FAMILIES: dict[str, Family] = {}  # by the name of the option


def make_named(family: str, choice: Any, *params: Any, **options: Any) -> Any:
    """Return the object of a family for a name, which may end in :NUMBER or :KEY=NUMBER,... .

    params, options: the factory's arguments.
    Raises: ArgumentError for an unknown name or parameter, with the closest known name.
    """
    known, expected = FAMILIES[family]
    name, colon, text = choice.partition(":") if isinstance(choice, str) else (str(choice), "", "")
    if not isinstance(choice, str) or name not in known:
        raise ArgumentError(Fault(family, expected, choice, (suggest(name, known),)))
    try:
        arguments = _arguments(known[name], text) if colon else {}
    except ValueError as error:
        raise ArgumentError(Fault(family, expected, choice, (f"{name} {error}",))) from None
    return known[name](*params, **options, **arguments)


def _arguments(factory: Callable[..., Any], text: str) -> dict[str, Any]:
    """Return the arguments in a text of NUMBER or KEY=VALUE,... ; raise ValueError for others."""
    defaults = {k: p.default for k, p in inspect.signature(factory).parameters.items()}
    if not defaults:
        raise ValueError("has no parameters.")
    arguments: dict[str, Any] = {}
    for item in text.split(","):
        key, equals, value = item.partition("=")
        key, value = (key.strip(), value.strip()) if equals else (next(iter(defaults)), item)
        if key not in defaults:
            raise ValueError(f"has no parameter {key!r}. {suggest(key, defaults)}")
        try:
            arguments[key] = _value(value, defaults[key])
        except ValueError:
            raise ValueError(f"needs a number for {key}.") from None
    return arguments


def _value(text: str, default: Any) -> Any:
    """Return a text as a value of the default's type."""
    if isinstance(default, bool):
        return {"yes": True, "no": False}[text] if text in ("yes", "no") else bool(float(text))
    if isinstance(default, str):
        return text
    return int(text) if isinstance(default, int) else float(text)


def name_of(family: str) -> Kind:
    """Return the kind of an option that names an object of a family; objects are checked later."""

    def parse(text: str) -> str:
        make_named(family, text)
        return text

    words = "a name, which may end in :NUMBER or :KEY=NUMBER,..."
    return Kind(
        words, lambda value: not isinstance(value, bool), parse,
        names=lambda: FAMILIES[family].known,
    )  # fmt: skip
