"""Objects by name: "relu", "huber:2" or "step:every=10,gamma=0.5", the same on every front end.

Each family of formulas registers its table of factories here, under the name of the option.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from nnbackend.errors import ArgumentError, Fault
from nnbackend.options import YES_OR_NO, Kind
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
        is_class = isinstance(choice, type) and choice in known.values()
        cure = f"Call it: {choice.__name__}()." if is_class else suggest(name, known)
        raise ArgumentError(Fault(family, expected, choice, (cure,)))
    if not colon:
        return known[name](*params, **options)
    try:
        return known[name](*params, **options | _arguments(known[name], text))
    except ArgumentError as error:
        raise ArgumentError(Fault(family, expected, choice, (str(error),))) from None
    except ValueError as error:
        raise ArgumentError(Fault(family, expected, choice, (f"{name} {error}",))) from None


def _arguments(factory: Callable[..., Any], text: str) -> dict[str, Any]:
    """Return the arguments in a text of NUMBER or KEY=VALUE,... ; raise ValueError for others."""
    defaults = {k: p.default for k, p in inspect.signature(factory).parameters.items()}
    if not defaults:
        raise ValueError("has no parameters.")
    arguments: dict[str, Any] = {}
    for k, item in enumerate(text.split(",")):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals and k > 0:
            raise ValueError(f"takes its first parameter only without a name. Received: {key!r}.")
        key, value = (key, value) if equals else (next(iter(defaults)), key)
        if key not in defaults:
            raise ValueError(f"has no parameter {key!r}. {suggest(key, defaults)}")
        if key in arguments:
            raise ValueError(f"has {key} twice.")
        arguments[key] = _value(key, value, defaults[key])
    return arguments


def _value(key: str, text: str, default: Any) -> Any:
    """Return a text as a value of the default's type; raise ValueError for others."""
    if isinstance(default, str):
        return text
    parse: Callable[[str], Any] = float
    what = "a number"
    if isinstance(default, bool):
        parse, what = YES_OR_NO.parse, YES_OR_NO.in_text
    elif isinstance(default, int):
        parse, what = int, "a whole number"
    try:
        return parse(text)
    except ValueError:
        raise ValueError(f"needs {what} for {key}.") from None


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
