"""Options, declared once as fields of dataclasses; keywords, command line and docs read the fields.

A field's default and type are Python's; its `Option` states which values are accepted, how they are
written as text, and the help. `config` has the options of a run.
"""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, wraps
from textwrap import fill, indent
from types import MappingProxyType
from typing import Any, ClassVar, Concatenate, ParamSpec, Self, TypeVar

from nnbackend.errors import ArgumentError, Fault
from nnbackend.suggestions import suggest

P = ParamSpec("P")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
Options = TypeVar("Options")
R = TypeVar("R")


@dataclass(frozen=True)
class Kind:
    """A set of values: `accepts` tests a Python value, `parse` reads a text.

    expected: ends the sentence "the option must be ..."; in_text: the same for a text.
    parse raises ValueError for other texts; its message is shown if it begins with "Known".
    none: the text that None is written as, if None is accepted.  names: the known names.
    """

    expected: str
    accepts: Callable[[Any], bool]
    parse: Callable[[str], Any]
    none: str | None = None
    in_text: str = ""
    names: Callable[[], Iterable[str]] = tuple

    def text(self, value: Any) -> str:
        """Return the text of a value, which `parse` reads."""
        if value is None:
            return self.none or ""
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, tuple):
            return ",".join(map(self.text, value)) or "none"
        return f"{value:g}" if isinstance(value, float) else str(value)

    def is_good(self, value: Any) -> bool:
        """Return True if a Python value is accepted."""
        if value is None:
            return self.none is not None
        try:
            return bool(self.accepts(value))
        except (TypeError, ValueError, AttributeError):
            return False


def number(
    expected: str,
    low: float = -math.inf,
    high: float = math.inf,
    closed: str = "",
    is_whole: bool = False,
) -> Kind:
    """Return the kind of the finite numbers between two limits.

    closed: the included limit, "low" or "high"; by default neither.
    """

    def accepts(value: Any) -> bool:
        if isinstance(value, (bool, str)):
            return False
        value = operator.index(value) if is_whole else float(value)
        above = low <= value if closed == "low" else low < value
        below = value <= high if closed == "high" else value < high
        return above and below and math.isfinite(value)

    def parse(text: str) -> Any:
        value = int(text) if is_whole else float(text)
        if not accepts(value):
            raise ValueError
        return value

    return Kind(expected, accepts, parse)


def or_none(kind: Kind, text: str) -> Kind:
    """Return the kind that accepts None too, which is written as `text`; "0" stands for any 0."""

    def parse(given: str) -> Any:
        if given == text or (text == "0" and float(given) == 0):
            return None
        return kind.parse(given)

    words = f"{kind.expected}, or {text}{' for none' if text == '0' else ''}"
    return replace(
        kind, expected=f"{kind.expected}, or None", parse=parse, none=text, in_text=words
    )


def choice(*names: str) -> Kind:
    """Return the kind of a few names."""

    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(suggest(text, names))
        return text

    return Kind(f"one of {', '.join(names)}", lambda v: isinstance(v, str) and v in names, parse,
                in_text="a known name", names=lambda: names)  # fmt: skip


def list_of(kind: Kind, expected: str, or_empty: bool = False) -> Kind:
    """Return the kind of tuples, written with commas; "none" is the empty one if `or_empty`."""

    def parse(text: str) -> tuple[Any, ...]:
        if or_empty and text.strip().lower() in ("", "none"):
            return ()
        return tuple(kind.parse(part.strip()) for part in text.split(","))

    return Kind(expected, lambda v: all(kind.is_good(item) for item in v), parse, names=kind.names)


def _any_text(text: str) -> str:
    if not text:
        raise ValueError
    return text


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError
    return text == "yes"


TEXT = Kind("a text", lambda v: isinstance(v, str) and bool(v), _any_text)
YES_OR_NO = Kind("True or False", lambda v: isinstance(v, bool), _yes_or_no, in_text="yes or no")
ABOVE_0 = number("a number above 0", 0)
AT_LEAST_0 = number("a number, at least 0", 0, closed="low")
BELOW_1 = number("a number of at least 0 and below 1", 0, 1, "low")
INSIDE_0_AND_1 = number("a number between 0 and 1", 0, 1)
AT_LEAST_1 = number("a whole number, at least 1", 1, closed="low", is_whole=True)
WHOLE = number("a whole number, at least 0", 0, closed="low", is_whole=True)
SEED = number("a whole number from 0 to 2^64 - 1", 0, 1 << 64, "low", is_whole=True)


@dataclass(frozen=True)
class Option:
    """What the front ends know about an option.

    help: what it does; "{names}" stands for the known names, "{none}" for None.  topic: its group.
    metavar: its value in the command's help; "" for an option that only Python has.
    shown: the default in words, if it depends on something.
    """

    kind: Kind
    help: str
    topic: str = ""
    metavar: str = ""
    shown: str | None = None

    def help_text(self, none: str | None = None) -> str:
        """Return the help with the known names; none: how None is written, as by the kind."""
        none = self.kind.none or "" if none is None else none
        names = ", ".join(self.kind.names())
        return self.help.replace("{names}", names).replace("{none}", none)


def option(default: Any, kind: Kind, help: str, **about: Any) -> Any:
    """Return the dataclass field of an option; about: the other fields of `Option`."""
    return field(default=default, metadata={"option": Option(kind, help, **about)})


def like(options: type, name: str, default: Any, **about: Any) -> Any:
    """Return an option of a class with another default; about: what differs in its `Option`."""
    return field(default=default, metadata={"option": replace(table(options)[name], **about)})


def table(options: Any) -> Mapping[str, Option]:
    """Return the options of a dataclass by name, those of the class before those of its bases."""
    return _table(options if isinstance(options, type) else type(options))


@cache
def _table(options: Any) -> Mapping[str, Option]:
    about = {f.name: f.metadata["option"] for f in fields(options) if "option" in f.metadata}
    return {name: about[name] for name in _names(options) if name in about}


def _names(options: Any) -> dict[str, None]:
    classes = inspect.getmro(options)
    return dict.fromkeys(name for c in classes for name in inspect.get_annotations(c))


def faults_of(options: Any) -> list[Fault]:
    """Return a fault for each invalid value of a dataclass of options."""
    faults: list[Fault] = []
    for name, about in table(options).items():
        value, kind = getattr(options, name), about.kind
        if not kind.is_good(value):
            faults.append(Fault(name, kind.expected, value))
        elif isinstance(value, str):
            try:
                kind.parse(value)  # a name with parameters
            except ArgumentError as error:
                faults += error.faults
    return faults


def check(
    name: str, value: Any, is_good: Callable[[Any], bool], expected: str, of: str = ""
) -> None:
    """Raise ArgumentError unless is_good(value); an error in is_good counts as False.

    >>> check("momentum", 0.9, lambda v: 0 <= v < 1, "at least 0 and below 1")
    """
    try:
        good = not isinstance(value, str) and bool(is_good(value))
    except (TypeError, ValueError, AttributeError):
        good = False
    if not good:
        raise ArgumentError(Fault(name, expected, value, of=of))


def all_of(*checks: Callable[[], Any]) -> list[Any]:
    """Return the results of several calls; raise the ArgumentErrors of all that fail as one.

    >>> all_of(lambda: int("1"), lambda: abs(-2))
    [1, 2]
    """
    results, errors = [], []
    for call in checks:
        try:
            results.append(call())
        except ArgumentError as error:
            errors.append(error)
    raise_all(errors)
    return results


def raise_all(errors: Iterable[Fault | ArgumentError]) -> None:
    """Raise one ArgumentError with the messages of all; do nothing if there are none."""
    parts: dict[Any, Fault | ArgumentError] = {}  # a value may be found invalid twice
    for error in errors:
        several = error.args if isinstance(error, ArgumentError) and error.is_several else (error,)
        for part in several:
            is_fault = isinstance(part, Fault)
            parts.setdefault((part.option, repr(part.received)) if is_fault else str(part), part)
    found = list(parts.values())
    if len(found) == 1 and isinstance(found[0], ArgumentError):
        raise found[0]
    if found:
        raise ArgumentError(*found)


def unknown_keywords(
    owner: str,
    given: Mapping[str, Any],
    known: Iterable[str],
    elsewhere: Mapping[str, str] = MappingProxyType({}),
) -> list[ArgumentError]:
    """Return an error for each keyword that is not known, with the closest known one.

    elsewhere: the cures for keywords that are known elsewhere.
    """
    known = list(known)
    return [
        ArgumentError(
            f"{owner} has no option {name!r}. Received: ", f"{name}={value!r:.60}", ". ",
            elsewhere.get(name) or suggest(name, known),
        )
        for name, value in given.items()
        if name not in known
    ]  # fmt: skip


def known_keywords(call: Callable[P, R]) -> Callable[P, R]:
    """Return a function or constructor that raises ArgumentError for an unknown keyword."""
    signature = inspect.signature(call)
    owner = call.__qualname__.removesuffix(".__init__").rpartition(".")[2]
    known = [name for name in signature.parameters if name != "self"]

    @wraps(call)
    def checked(*args: P.args, **keywords: P.kwargs) -> R:
        raise_all(unknown_keywords(owner, keywords, known))
        return call(*args, **keywords)

    return checked


class Checked:
    """Base of dataclasses that raise one ArgumentError for all unknown and invalid arguments.

    limits: the kinds of the fields, by name.
    """

    limits: ClassVar[Mapping[str, Kind]] = {}

    def __new__(cls, *args: Any, **keywords: Any) -> Self:
        if keywords:
            known = inspect.signature(cls).parameters
            if not any(p.kind is p.VAR_KEYWORD for p in known.values()):
                raise_all(unknown_keywords(cls.__name__, keywords, known))
        return super().__new__(cls)

    def __post_init__(self) -> None:
        raise_all(
            Fault(f.name, self.limits[f.name].expected, getattr(self, f.name))
            for f in fields(self)  # type: ignore[arg-type]
            if f.name in self.limits and not self.limits[f.name].is_good(getattr(self, f.name))
        )


def keywords_of(
    options: Callable[P, Options],
) -> Callable[[Callable[[A, B, C, Options], R]], Callable[Concatenate[A, B, C, P], R]]:
    """Return a decorator: the last argument of a function is built from keywords, the options.

    They appear in the function's signature, and their help for "{options}" in its docstring.
    An unknown keyword raises ArgumentError, together with invalid values. The function itself
    checks the values otherwise, see `faults_of`.
    """
    about = table(options)
    given = inspect.signature(options).parameters
    elsewhere: Mapping[str, str] = getattr(options, "ELSEWHERE", {})
    of_options = [given[name] for name in _names(options) if name in given]

    def decorate(
        function: Callable[[A, B, C, Options], R],
    ) -> Callable[Concatenate[A, B, C, P], R]:
        own = inspect.signature(function)
        first = list(own.parameters.values())[:3]
        signature = own.replace(parameters=[*first, *of_options])
        known = signature.parameters

        @wraps(function)
        def call(*args: Any, **keywords: Any) -> R:
            strange = {k: v for k, v in keywords.items() if k not in known}
            unknown = unknown_keywords(function.__name__, strange, given, elsewhere)
            keywords = {k: v for k, v in keywords.items() if k in known}
            bound = keywords
            if len(args) != len(first):
                bound = dict(signature.bind(*args, **keywords).arguments)
                args = tuple(bound.pop(p.name) for p in first)
            x, y, z = args
            made: Any = options(**bound)  # type: ignore[call-arg]
            raise_all([*unknown, *faults_of(made)] if unknown else [])
            return function(x, y, z, made)

        call.__signature__ = signature  # type: ignore[attr-defined]
        lines = "\n".join(
            fill(f"{p.name}: {about[p.name].help_text('None')}.", 96, subsequent_indent="    ")
            for p in of_options
            if p.name in about
        )
        call.__doc__ = (call.__doc__ or "").replace("{options}", indent(lines, "    ").lstrip())
        return call

    return decorate
