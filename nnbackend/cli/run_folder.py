"""The run folder: the files that training writes and the other commands read.

model.safetensors (best weights), last.safetensors (last weights), config.toml, history.csv (a row
per epoch), curves.png, environment.json, and checkpoints/, of which the last one remains so that a
run can be extended. All files except the growing history are written atomically.
"""

from __future__ import annotations

import csv
import json
import math
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nnbackend.backend import Backend
from nnbackend.cli.places import NAMES, announce, check_places, relocated
from nnbackend.cli.settings import read_config, resolve, to_toml
from nnbackend.config import Settings
from nnbackend.devices import backends
from nnbackend.errors import ArgumentError, ModelFileError
from nnbackend.machine import machine_facts, thread_settings
from nnbackend.model.model import Model, load
from nnbackend.persistence.atomic_file import atomic_write
from nnbackend.persistence.checkpoints import Checkpoint, checkpoint_paths, newest_checkpoint
from nnbackend.training.history import Row

MODEL, LAST, CONFIG = "model.safetensors", "last.safetensors", "config.toml"
HISTORY, CURVES, ENVIRONMENT = "history.csv", "curves.png", "environment.json"
CHECKPOINTS = "checkpoints"  # a folder
DATA_FILES = (".csv", ".tsv", ".txt", ".data", ".parquet", ".npy", ".npz")
PARENT = Path("runs")


# ---- writing ------------------------------------------------------------------------------------


def check_out(out: str | None) -> None:
    """Raise ArgumentError for an output folder that is not empty, before any work is done."""
    if out is None:
        return
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ArgumentError(f"--out must be a folder. Received: {out}, which is a file.")
    if folder.is_dir() and any(folder.iterdir()):
        raise ArgumentError(
            f"--out must be a new or empty folder. Received: {out}, which holds "
            f"{len(list(folder.iterdir()))} files. Choose another folder, remove this one, or "
            "omit --out to get the next number."
        )


def new_folder(out: str | None, name: str) -> Path:
    """Create the folder of a run: `out`, or runs/NAME-001 with the next free number."""
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
        except FileExistsError:  # created by another run in the meantime
            number += 1
        else:
            return folder


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically; undecodable bytes of file names become JSON escapes."""
    atomic_write(path, text.encode(errors="backslashreplace"))


def to_json(value: Any) -> str:
    """Return one line of JSON; infinities and NaN become null."""
    return json.dumps(_finite(value), allow_nan=False)  # ASCII, for consoles of any encoding


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_environment(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write environment.json, one indented entry per line."""
    text = json.dumps(_finite(dict(facts)), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(folder / ENVIRONMENT, text + "\n")


def environment(
    backend: Backend, seed: int, data: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """Return the environment of a run: versions, device, processor, threads, command and data."""
    machine = machine_facts()
    row = next((row for row in backends() if row.name == backend.device.partition(":")[0]), None)
    return {
        "command": shlex.join(["nnbackend", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "folder": str(folder.resolve()),
        "seed": seed,
        "data": dict(data),
        "device": backend.device,
        "backend": dict(row.details, version=row.version) if row else {},
        "versions": machine["versions"],
        "system": machine["system"],
        "cpu": machine["cpu"],
        "cpus": machine["cpus"],
        "cpus_allowed": machine["usable_cpus"],
        "threads": thread_settings(),
    }


def relocated_config(settings: Settings, folder: Path) -> Settings:
    """Return the settings of a config file in a folder, with the new paths of moved files."""
    now = relocated(settings, folder, _read_environment(folder / ENVIRONMENT))
    announce(settings, now)
    return now


def settings_of_run(folder: Path, given: Mapping[str, str], other: str | None) -> Settings:
    """Return the settings of a run to resume; only DATA's path, device and epochs may change.

    Raises: ArgumentError for other settings, a folder without a run, or data that is not found.
    """
    names = sorted(given.keys() - {"data", "device", "epochs"})
    fixed = [f"--{name.replace('_', '-')}" for name in names]
    fixed += ["--out or --config"] if other else []
    if fixed:
        raise ArgumentError(
            "--resume uses the settings of the run folder; only DATA (the new path of the same "
            "rows), --device and --epochs may change. "
            f"Received: {', '.join(fixed)}. Omit them, or start a new run."
        )
    config = folder / CONFIG
    if not config.is_file():
        raise ArgumentError(
            f"--resume must be a run folder. Received: {folder}, which has no {CONFIG}."
        )
    facts = _read_environment(folder / ENVIRONMENT)
    stored = resolve(given, str(config))
    settings = relocated(stored, folder, facts)
    announce(stored, settings)
    check_places(settings, folder, facts)
    return settings


def save_changes(folder: Path, now: Settings) -> None:
    """Write the epochs and the data paths of a resumed run to its config.toml."""
    stored = resolve({}, str(folder / CONFIG))
    changed = replace(stored, **{name: getattr(now, name) for name in ("epochs", *NAMES)})
    if changed != stored:
        write_text(folder / CONFIG, to_toml(changed))


def checkpoint_of_run(folder: Path) -> Checkpoint:
    """Return the newest checkpoint of a run to resume."""
    checkpoints = folder / CHECKPOINTS
    if not checkpoints.is_dir() or not checkpoint_paths(checkpoints):
        raise ArgumentError(
            f"--resume needs a checkpoint. Received: {folder}, which has none: the run was killed "
            "before the first one was due (see --checkpoint), or they were removed. Restart it "
            f"with: nnbackend train --config {folder / CONFIG}"
        )
    return newest_checkpoint(checkpoints)


# ---- reading ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A run folder, or a model file alone, which has no settings and no history."""

    model: Path
    settings: Settings | None
    environment: Mapping[str, Any]
    history: list[Row]

    @property
    def folder(self) -> Path:
        """The folder that holds the model."""
        return self.model.parent

    def load(self, device: str | None = None) -> Model:
        """Load the model."""
        return load(self.model, device=device)


def open_run(path: str) -> Run:
    """Open a run by its folder or its model file.

    Raises: ModelFileError if there is no model.
    """
    given = Path(path)
    if given.suffix.lower() in DATA_FILES:
        raise ModelFileError(
            f"RUN must be a run folder or a model file. Received: {path}, which is data. RUN comes "
            "before DATA, as in: nnbackend predict RUN DATA"
        )
    model = given / MODEL if given.is_dir() else given
    if not model.is_file():
        what = f"a folder without {MODEL}" if given.is_dir() else "which does not exist"
        raise ModelFileError(
            f"RUN must be a run folder or a model file. Received: {path}, {what}. "
            "Create one with: nnbackend train DATA"
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
    """Read history.csv and skip a truncated last line.

    Raises: ArgumentError if the file is not the history of a run.
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
