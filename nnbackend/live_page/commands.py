"""The commands of the page: their names, their fields, and the check of each message."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nnbackend.data.toys import TOYS
from nnbackend.errors import ArgumentError, Fault
from nnbackend.options import AT_LEAST_0, SEED, Kind, choice, number, raise_all
from nnbackend.suggestions import suggest

MAX_MESSAGE = 16_384  # bytes
INDEX = number("a whole number from 0", 0, 1 << 31, "low", is_whole=True)
VALUE = number("a number from -1e6 to 1e6", -1e6, 1e6, "low")
TEXTS = Kind("texts by name", lambda v: isinstance(v, dict) and all(map(_is_text, v)), str)
INDICES = Kind(
    "a list of at most 200 columns",
    lambda v: isinstance(v, list) and len(v) <= 200 and all(map(INDEX.is_good, v)), str,
)  # fmt: skip


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def optional(kind: Kind) -> Kind:
    """Return the kind that accepts None too."""
    return Kind(kind.expected, lambda v: v is None or kind.is_good(v), kind.parse, none="")


# Every command with its fields; a field may be omitted if its kind accepts None.
COMMANDS: Mapping[str, Mapping[str, Kind]] = {
    "run": {}, "pause": {}, "step": {}, "epoch": {}, "substep": {}, "back": {},
    "goto": {"step": INDEX},
    "reset": {},
    "speed": {"value": optional(number("a number above 0", 0, 1e9))},
    "set": {"options": TEXTS},
    "data": {
        "set": choice(*TOYS),
        "rows": number("a whole number from 10 to 5000", 10, 5000 + 1, "low", is_whole=True),
        "noise": number("a number from 0 to 2", 0, 2 + 1e-9, "low"),
        "seed": SEED,
    },
    "columns": {"columns": INDICES},
    "plane": {"features": INDICES},
    "row": {"row": optional(INDEX)},
    "focus": {"layer": INDEX, "unit": INDEX, "input": INDEX, "piece": optional(INDEX)},
    "weight": {
        "layer": INDEX, "unit": INDEX, "input": INDEX, "piece": optional(INDEX), "value": VALUE,
    },
    "bias": {"layer": INDEX, "unit": INDEX, "piece": optional(INDEX), "value": VALUE},
}  # fmt: skip
TICKET = optional(AT_LEAST_0)  # the page's number of a message, repeated in the reply


def read(text: str | bytes) -> dict[str, Any]:
    """Return a message as a command: {"do": name, "id": its number or None, field: value}.

    Raises: ArgumentError for anything but a known command with valid fields.
    """
    if len(text) > MAX_MESSAGE:
        raise ArgumentError(
            f"A message may have {MAX_MESSAGE} characters. Received: {len(text)}. Send fewer."
        )
    try:
        message = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise ArgumentError("A message must be JSON. Received: other text.") from None
    if not isinstance(message, dict) or not isinstance(message.get("do"), str):
        raise ArgumentError('A message must be an object with "do". Received: another value.')
    name = message["do"]
    if name not in COMMANDS:
        raise ArgumentError(f"unknown command {name[:40]!r}. {suggest(name[:40], COMMANDS)}")
    fields = {**COMMANDS[name], "id": TICKET}
    unknown = [key for key in message if key not in fields and key != "do"]
    faults = [
        Fault(key[:40], f"a field of {name}: {', '.join(fields)}", "another") for key in unknown
    ]
    for key, kind in fields.items():
        if not _is_good(kind, message.get(key)):
            faults.append(Fault(key, kind.expected, str(message.get(key))[:40]))
    raise_all(faults)
    return {"do": name} | {key: message.get(key) for key in fields}


def ticket(text: str) -> Any:
    """Return the number of a message, also of one that `read` refuses; None without one."""
    if len(text) > MAX_MESSAGE:
        return None
    try:
        message = json.loads(text)
        found = message["id"]
    except (ValueError, RecursionError, TypeError, KeyError):
        return None
    return found if _is_good(TICKET, found) else None


def _is_good(kind: Kind, value: Any) -> bool:
    try:
        return not isinstance(value, bool) and kind.is_good(value)
    except OverflowError:
        return False


def _refuse(constant: str) -> None:
    raise ValueError(constant)
