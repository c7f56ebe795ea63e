"""Find the files of a run after its folder or its data has moved.

`config.toml` stores absolute paths, and `environment.json` the original run folder. A file that is
no longer at its path is searched at the same path relative to the run folder, then by its name
beside the run folder, in it and in the working folder. The fingerprint of the data, also stored in
`environment.json`, detects other rows.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnbackend.config import Settings
from nnbackend.data import BUILTIN
from nnbackend.data.shards import exists
from nnbackend.data.sql_tables import is_url
from nnbackend.errors import ArgumentError

logger = logging.getLogger("nnbackend")
NAMES = ("data", "validation", "test")  # the settings that may name a file
OWN = "own"  # the test part that was distributed with the data


NEW_PATH = "Give its new path (train DATA --resume RUN; plot RUN --data DATA),"


def is_file_setting(place: Any) -> bool:
    """Return True if the value of a setting names a file: no built-in set, URL or fraction."""
    is_name = isinstance(place, str) and bool(place) and not is_url(place)
    return is_name and place not in BUILTIN and place != OWN


def relocated(settings: Settings, folder: Path, environment: Mapping[str, Any]) -> Settings:
    """Return the settings with the new path of every moved file that is found."""
    found: dict[str, Any] = {}
    for name in NAMES:
        place = getattr(settings, name)
        if not is_file_setting(place) or exists(place):
            continue
        paths = candidates(place, folder, environment)[1:]
        now = next((path for path in paths if exists(path)), None)
        if now is not None:
            found[name] = str(now)
    return replace(settings, **found)


def announce(stored: Settings, now: Settings) -> None:
    """Log a warning for every file that is read from another path than the stored one."""
    for name in NAMES:
        if getattr(stored, name) != getattr(now, name):
            places = getattr(stored, name), getattr(now, name)
            logger.warning("%s is no longer at %s; reading %s", name, *places)


def candidates(place: str, folder: Path, environment: Mapping[str, Any]) -> list[Path]:
    """Return the possible paths of a file of a run, the stored one first."""
    paths = [Path(place)]
    if isinstance(written := environment.get("folder"), str):
        with contextlib.suppress(ValueError):  # Windows: on another drive
            paths.append(folder / os.path.relpath(place, written))
    name = re.split(r"[\\/]", place.rstrip("\\/"))[-1]  # also of a path of another system
    around = (folder.resolve().parent, folder, Path())
    return list(dict.fromkeys([*paths, *(parent / name for parent in around)]))


def check_places(settings: Settings, folder: Path, environment: Mapping[str, Any]) -> None:
    """Raise ArgumentError, with the paths tried, for a file that is not found."""
    for name in NAMES:
        place = getattr(settings, name)
        if is_file_setting(place) and not exists(place):
            tried = ", ".join(map(str, candidates(place, folder, environment)))
            cure = f"{NEW_PATH} or correct" if name == "data" else "Correct"
            raise ArgumentError(
                f"the {name} of the run must be at its path in config.toml, or beside the run. "
                f"Received: no file at {tried}. {cure} {name!r} in {folder / 'config.toml'}."
            )


def check_same_rows(found: str, environment: Mapping[str, Any], source: str) -> None:
    """Raise ArgumentError if the fingerprint of the data differs from that of the run."""
    facts = environment.get("data")
    known = facts.get("fingerprint") if isinstance(facts, Mapping) else None
    if known is not None and found != known:
        raise ArgumentError(
            f"the data must be the rows that the run was trained on, in the same order. Received: "
            f"other rows from {source}. Pass the right file with --data."
        )
