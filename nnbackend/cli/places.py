"""Where the files of a run are now: a run folder and its data may have moved since.

`config.toml` keeps absolute paths, and `environment.json` the folder that the run was written to.
A file that is no longer at its path is looked for at the same place relative to the run folder,
then by its name beside the run folder, in it and in the working folder. The fingerprint of the
data, kept in `environment.json` too, says whether they are the rows of the run.
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

from nnbackend.cli.settings import Settings
from nnbackend.data import BUILTIN
from nnbackend.errors import ArgumentError

logger = logging.getLogger("nnbackend")
NAMES = ("data", "validation", "test")  # the settings that may name a file
OWN = "own"  # the test part that was distributed with the data


NEW_PATH = "Give its new path (train DATA --resume RUN; plot RUN --data DATA),"


def is_file_setting(place: Any) -> bool:
    """Whether the value of a setting names a file, rather than a built-in set or a fraction."""
    return isinstance(place, str) and bool(place) and place not in BUILTIN and place != OWN


def relocated(settings: Settings, folder: Path, environment: Mapping[str, Any]) -> Settings:
    """Return the settings with every file that has moved at its new place, where it is found."""
    found: dict[str, Any] = {}
    for name in NAMES:
        place = getattr(settings, name)
        if not is_file_setting(place) or Path(place).exists():
            continue
        paths = candidates(place, folder, environment)[1:]
        now = next((path for path in paths if path.exists()), None)
        if now is not None:
            found[name] = str(now)
    return replace(settings, **found)


def announce(stored: Settings, now: Settings) -> None:
    """Log a warning for every file that is read from another place than it was stored with."""
    for name in NAMES:
        if getattr(stored, name) != getattr(now, name):
            places = getattr(stored, name), getattr(now, name)
            logger.warning("%s is no longer at %s; %s is read", name, *places)


def candidates(place: str, folder: Path, environment: Mapping[str, Any]) -> list[Path]:
    """Return the paths at which a file of a run may be, the stored one first."""
    paths = [Path(place)]
    if isinstance(written := environment.get("folder"), str):
        with contextlib.suppress(ValueError):  # Windows: on another drive
            paths.append(folder / os.path.relpath(place, written))
    name = re.split(r"[\\/]", place.rstrip("\\/"))[-1]  # also of a path of another system
    around = (folder.resolve().parent, folder, Path())
    return list(dict.fromkeys([*paths, *(parent / name for parent in around)]))


def check_places(settings: Settings, folder: Path, environment: Mapping[str, Any]) -> None:
    """Raise ArgumentError, naming the paths that were tried, for a file that is nowhere."""
    for name in NAMES:
        place = getattr(settings, name)
        if is_file_setting(place) and not Path(place).exists():
            tried = ", ".join(map(str, candidates(place, folder, environment)))
            cure = f"{NEW_PATH} or correct" if name == "data" else "Correct"
            raise ArgumentError(
                f"the {name} of the run must be where config.toml says, or beside the run. "
                f"Received: no file at {tried}. {cure} {name!r} in {folder / 'config.toml'}."
            )


def check_same_rows(found: str, environment: Mapping[str, Any], source: str) -> None:
    """Raise ArgumentError for data that are not those of the run, by their fingerprints."""
    facts = environment.get("data")
    known = facts.get("fingerprint") if isinstance(facts, Mapping) else None
    if known is not None and found != known:
        raise ArgumentError(
            f"the data must be the rows that the run was trained on, in their order. Received: "
            f"other rows from {source}. Name the right file with --data."
        )
