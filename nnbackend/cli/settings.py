"""The settings of a run, read from the command line and the config file.

Both use the same parser, so `--hidden 100,50` and `hidden = [100, 50]` are checked alike. The
command line overrides the file, the file overrides the defaults.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnbackend.config import DEFAULTS, SETTINGS, Settings
from nnbackend.errors import ArgumentError, Fault
from nnbackend.model.building import parse
from nnbackend.options import raise_all
from nnbackend.suggestions import suggest

# Data sets that the general defaults do not suit, and their own defaults. One hidden layer winds
# around the spirals only slowly, and early stopping would end the run before.
DATA_DEFAULTS: dict[str, dict[str, Any]] = {
    "spirals": {"hidden": (32, 32), "learning_rate": 0.01, "epochs": 300, "patience": 100},
}


def resolve(given: Mapping[str, str], config: str | None) -> Settings:
    """Return the settings of a command line, given as {option name: text}.

    Raises: as `explicit`.
    """
    values = explicit(given, config)
    return Settings(**defaults_of(values) | values)


def defaults_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of the data set that explicit settings name, where it has its own."""
    own = dict(DATA_DEFAULTS.get(str(values.get("data")), {}))
    if values.get("preset") is not None:
        return {}
    if "optimizer" in values:  # the learning rate is one for Adam
        own.pop("learning_rate", None)
    return own


def explicit(given: Mapping[str, str], config: str | None) -> dict[str, Any]:
    """Return the values of a command line and its config file, without the defaults.

    Raises: ArgumentError for invalid values, all at once, or a config file that cannot be read.
    """
    values: dict[str, Any] = {}
    errors: list[ArgumentError] = []
    try:
        values = {} if config is None else read_config(Path(config))
    except ArgumentError as error:
        errors.append(error)
    for name, text in given.items():
        try:
            values[name] = parse(name, text)
        except ArgumentError as error:
            errors.append(error)
    raise_all(errors)
    return values


# ---- the config file ----------------------------------------------------------------------------


def read_config(path: Path) -> dict[str, Any]:
    """Read the settings of a config file, by name.

    Raises: ArgumentError if it cannot be read, or has an unknown key or an invalid value.
    """
    try:
        with path.open("rb") as file:
            stored = tomllib.load(file)
    except OSError as error:
        raise ArgumentError(f"--config must be a readable file. Received: {error}.") from error
    except (ValueError, RecursionError) as error:  # also for too long numbers, too deep nesting
        raise ArgumentError(f"{path}: the file must be TOML. Received: {error}.") from error
    values: dict[str, Any] = {}
    errors: list[ArgumentError] = []
    for key, value in stored.items():
        try:
            values[key] = parse(key, _text(key, value))
        except ArgumentError as error:
            errors.append(ArgumentError(f"{path}: {error}"))
    raise_all(errors)
    return values


def _text(key: str, value: Any) -> str:
    """Return a value of a config file as the text of an option."""
    if key not in SETTINGS:
        raise ArgumentError(f"unknown key {key!r}. {suggest(key, SETTINGS)}")
    items = value if isinstance(value, list) else [value]
    if isinstance(value, bool) and SETTINGS[key].kind.in_text.startswith("yes"):
        return "yes" if value else "no"
    if any(isinstance(i, bool) or not isinstance(i, (str, int, float)) for i in items):
        raise ArgumentError(Fault(key, "text, a number or a list of them", value))
    if any(isinstance(item, int) and abs(item) >= 1 << 64 for item in items):
        raise ArgumentError(f"{key} must be a 64-bit number. Received: a larger one.")
    return ",".join(map(str, items))


def to_toml(settings: Settings) -> str:
    """Return the text of a config file; settings without a value do not apply and are omitted."""
    lines = ["# All settings of a run, defaults included. Repeat it: nnbackend train --config FILE"]
    topic = ""
    for name, about in SETTINGS.items():
        value = getattr(settings, name)
        if value is None and about.kind.none is None:
            continue
        if about.topic != topic:
            topic = about.topic
            lines += ["", f"# {topic}"]
        off = 0 if about.kind.none == "0" else about.kind.none
        lines.append(f"{name} = {_toml(off if value is None else value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        if not _is_unicode(value):
            raise ArgumentError(
                "names of files and folders must be text in UTF-8, as config.toml is. Received: "
                f"{value!r}. Rename it, or set PYTHONUTF8=1 if the system's locale is not UTF-8."
            )
        # A JSON string is a TOML string, except that JSON does not escape DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def _is_unicode(text: str) -> bool:
    """Return True if there are no bytes of a file name in it that are no characters."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def default_text(name: str) -> str:
    """Return a default as text for the help."""
    about, value = SETTINGS[name], DEFAULTS[name]
    own = [
        f"; {about.kind.text(others[name])} for {data}"
        for data, others in DATA_DEFAULTS.items()
        if name in others
    ]
    if about.shown is not None:
        return "".join([about.shown, *own])
    text = about.kind.text(value)
    return "".join([f"{text} for none" if value is None and text == "0" else text, *own])
