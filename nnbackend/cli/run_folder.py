"""The folder of a run: what training leaves behind, and how the other verbs find it again.

model.safetensors (the best weights), last.safetensors (the last ones), config.toml,
history.csv (a row at the end of every epoch), curves.png and environment.json; checkpoints/, of
which the last stays, so that more epochs can follow. Every file but the growing history is written
whole or not at all.
"""

from __future__ import annotations

import csv
import importlib
import json
import math
import os
import platform
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nnbackend.backend import Backend, backends
from nnbackend.cli.places import NAMES, announce, check_places, relocated
from nnbackend.cli.settings import Settings, read_config, resolve, to_toml
from nnbackend.errors import ArgumentError, ModelFileError
from nnbackend.network.network import Network
from nnbackend.persistence import load
from nnbackend.persistence.atomic_file import atomic_write
from nnbackend.persistence.checkpoints import Checkpoint, checkpoint_paths, newest_checkpoint
from nnbackend.training.history import Row

MODEL, LAST, CONFIG = "model.safetensors", "last.safetensors", "config.toml"
HISTORY, CURVES, ENVIRONMENT = "history.csv", "curves.png", "environment.json"
CHECKPOINTS = "checkpoints"  # a folder
PARENT = Path("runs")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


# ---- writing ------------------------------------------------------------------------------------


def check_out(out: str | None) -> None:
    """Refuse a folder that holds something, before any work is done."""
    if out is None:
        return
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"--out must be a folder. Received: {out}, which is a file.")
    if folder.is_dir() and any(folder.iterdir()):
        raise ArgumentError(
            f"--out must be a new or empty folder. Received: {out}, which holds "
            f"{len(list(folder.iterdir()))} files. Name another one, remove it, or leave --out "
            "out to get a new number."
        )


def new_folder(out: str | None, name: str) -> Path:
    """Make the folder of a run: the one asked for, or runs/NAME-001 with the next free number."""
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        return Path(out)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "run"
    PARENT.mkdir(exist_ok=True)
    used = [re.fullmatch(rf"{re.escape(name)}-(\d+)", path.name) for path in PARENT.iterdir()]
    number = max((int(match[1]) for match in used if match), default=0) + 1
    while True:
        folder = PARENT / f"{name}-{number:03d}"
        try:
            folder.mkdir()
        except FileExistsError:  # another run began at the same moment
            number += 1
        else:
            return folder


def write_text(path: Path, text: str) -> None:
    """Write a text file whole; bytes of file names that are no characters as JSON escapes."""
    atomic_write(path, text.encode(errors="backslashreplace"))


def to_json(value: Any) -> str:
    """Return one line of JSON; what is infinite or not a number becomes null."""
    return json.dumps(_finite(value), allow_nan=False)  # ASCII, whatever the console's encoding


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_environment(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write environment.json, one indented entry a line."""
    text = json.dumps(_finite(dict(facts)), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(folder / ENVIRONMENT, text + "\n")


def environment(
    backend: Backend, seed: int, data: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Return what a run stands on: versions, device, processor, threads, command, data, folder."""
    from nnbackend import __version__

    row = next((row for row in backends() if row.name == backend.device.partition(":")[0]), None)
    return {
        "command": shlex.join(["nnbackend", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "folder": str(folder.resolve()),
        "seed": seed,
        "data": dict(data),
        "device": backend.device,
        "backend": dict(row.details, version=row.version) if row else {},
        "versions": {
            "nnbackend": __version__,
            "python": platform.python_version(),
            **_versions("numpy", "scikit-learn", "numba", "matplotlib"),
        },
        "system": platform.platform(),
        "cpu": _cpu_model(),
        "cpus": os.cpu_count(),
        "cpus_allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads": _threads(),
    }


def _versions(*names: str) -> dict[str, str | None]:
    from importlib import metadata

    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1] if match else platform.processor()


def _threads() -> dict[str, Any]:
    """Return the thread counts that the environment asks for and those that libraries use."""
    facts: dict[str, Any] = {name: os.environ[name] for name in THREADS if name in os.environ}
    try:
        threadpoolctl: Any = importlib.import_module("threadpoolctl")
    except ImportError:
        return facts
    for pool in threadpoolctl.threadpool_info():
        facts[f"{pool['internal_api']} {pool.get('version') or ''}".strip()] = pool["num_threads"]
    return facts


def at_config(settings: Settings, folder: Path) -> Settings:
    """Return settings from a config file of a folder, with files that moved beside it."""
    now = relocated(settings, folder, _read_environment(folder / ENVIRONMENT))
    announce(settings, now)
    return now


def settings_of_run(folder: Path, given: Mapping[str, str], other: str | None) -> Settings:
    """Return the settings of a run to resume; DATA's place, device and epochs may be others.

    Raises: ArgumentError for other settings, a folder that is no run's, or data that are nowhere.
    """
    strangers = sorted(given.keys() - {"data", "device", "epochs"})
    strangers += ["out or config"] if other else []
    if strangers:
        raise ArgumentError(
            "--resume takes all settings from the run's folder; only DATA (the new path of the "
            "same rows), --device and --epochs may be others. "
            f"Received: {', '.join(strangers)}. Leave them out, or begin a new run."
        )
    config = folder / CONFIG
    if not config.is_file():
        raise ArgumentError(
            f"--resume must be the folder of a run. Received: {folder}, without {CONFIG}."
        )
    facts = _read_environment(folder / ENVIRONMENT)
    stored = resolve(given, str(config))
    settings = relocated(stored, folder, facts)
    announce(stored, settings)
    check_places(settings, folder, facts)
    return settings


def keep_changes(folder: Path, now: Settings) -> None:
    """Put a resumed run's number of epochs and places of its data into its config.toml."""
    stored = resolve({}, str(folder / CONFIG))
    changed = replace(stored, **{name: getattr(now, name) for name in ("epochs", *NAMES)})
    if changed != stored:
        write_text(folder / CONFIG, to_toml(changed))


def checkpoint_of_run(folder: Path) -> Checkpoint:
    """Return the newest checkpoint of a run that is to go on."""
    checkpoints = folder / CHECKPOINTS
    if not checkpoints.is_dir() or not checkpoint_paths(checkpoints):
        raise ArgumentError(
            f"A run goes on from its checkpoints. Received: {folder}, which has none: the run was "
            "killed before the first was due (see --checkpoint), or they were removed. Begin it "
            f"anew with: nnbackend train --config {folder / CONFIG}"
        )
    return newest_checkpoint(checkpoints)


# ---- reading ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A run folder, or a model file by itself, whose settings and history are then not known."""

    model: Path
    settings: Settings | None
    environment: Mapping[str, Any]
    history: list[Row]

    @property
    def folder(self) -> Path:
        """The folder that holds the model."""
        return self.model.parent

    def network(self, device: str | None = None) -> Network:
        """Load the network."""
        return load(self.model, device=device)


def open_run(path: str) -> Run:
    """Find what belongs to a run, given its folder or a model file.

    Raises: ModelFileError when there is no model.
    """
    given = Path(path)
    model = given / MODEL if given.is_dir() else given
    if not model.is_file():
        what = f"a folder without {MODEL}" if given.is_dir() else "which does not exist"
        raise ModelFileError(
            f"RUN must be a run folder or a model file. Received: {path}, {what}. "
            "Make one with: nnbackend train DATA"
        )
    folder = model.parent
    config = folder / CONFIG
    facts = _read_environment(folder / ENVIRONMENT)
    settings = None
    if config.is_file():
        settings = relocated(Settings(**read_config(config)), folder, facts)
    history = read_history(folder / HISTORY) if (folder / HISTORY).is_file() else []
    return Run(model, settings, facts, history)


def read_history(path: Path) -> list[Row]:
    """Read history.csv; a last line that was cut off in the middle is left out.

    Raises: ArgumentError when the file is none.
    """
    rows: list[Row] = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            names = next(reader, [])
            lines = [line for line in reader if len(line) == len(names)]
        if lines and not {"epoch", "train_loss"} <= set(names):
            raise ValueError(f"columns {names[:9]}")
        for line in lines:
            rows.append({name: float(cell) for name, cell in zip(names, line, strict=True)})
    except (OSError, ValueError, csv.Error) as error:
        raise ArgumentError(f"{path} must be the history of a run. Received: {error}.") from error
    return rows


def _read_environment(path: Path) -> Mapping[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    known = facts if isinstance(facts, dict) else {}
    kinds = {"data": dict, "results": dict, "folder": str}
    return {k: known[k] for k, kind in kinds.items() if isinstance(known.get(k), kind)}
