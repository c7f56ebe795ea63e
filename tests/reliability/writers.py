"""The writers under test: our writer, and naive ones that must fail.

    python tests/reliability/writers.py KIND PATH STEPS

writes PATH for steps 1, 2, ... STEPS. The file of a step holds the step number as a stamp and in
every weight, so that a mixture of two files is detected. It prints one line of JSON at the end.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import nnbackend as nn
from nnbackend.data.preprocessing import Preprocessing
from nnbackend.persistence import read_model_file, write_model_file
from nnbackend.persistence.container import encode
from nnbackend.persistence.description import describe_model, model_tensors

SIZE = int(os.environ.get("WRITER_WIDTH", "200"))  # 200: a file of 160 kB


def _parts(step: int) -> tuple[nn.Network, Preprocessing]:
    net = nn.Network([SIZE, SIZE], device="numpy")
    net.theta[:] = step
    return net, Preprocessing(columns={"step": step})


def ours(path: Path, step: int) -> None:
    write_model_file(*_parts(step), path)


def savez(path: Path, step: int) -> None:
    """Write in place with np.savez."""
    with open(path, "wb") as file:
        np.savez(file, step=step, theta=np.full(SIZE * (SIZE + 1), step, np.float32))


def in_place(path: Path, step: int) -> None:
    """Write a model file in place."""
    parts = _parts(step)
    path.write_bytes(encode(describe_model(*parts), model_tensors(*parts)))


def renamed(path: Path, step: int) -> None:
    """Write a temporary file and rename it, without a sync to disk."""
    temporary = path.with_name("temporary")
    in_place(temporary, step)
    temporary.replace(path)


WRITERS: dict[str, Callable[[Path, int], None]] = {
    f.__name__: f for f in (ours, savez, in_place, renamed)
}


def read(kind: str, path: Path) -> int:
    """Return the step of a file.

    Raises: errors of the reader; AssertionError when stamp and content differ.
    """
    if kind == "savez":
        with np.load(path, allow_pickle=False) as stored:
            step, theta = int(stored["step"]), stored["theta"]
    else:
        net, known = read_model_file(path, "numpy")
        assert known.columns is not None
        step, theta = known.columns["step"], net.theta
    assert (theta == step).all(), "a mixture of two files"
    return step


def _write_out(text: str) -> None:
    """Print even if every fifth write fails."""
    data = text.encode()
    while data:
        try:
            data = data[os.write(1, data) :]
        except OSError:
            continue


def main(kind: str, path: str, steps: str) -> None:
    saved, failed, kinds, last = 0, 0, set(), 0
    for step in range(1, int(steps) + 1):
        try:
            WRITERS[kind](Path(path), step)
        except (OSError, MemoryError) as error:
            failed += 1
            kinds.add(getattr(error, "errno", None) or type(error).__name__)
            if getattr(error, "filename", None) == str(Path(path).parent):
                last = step  # only the sync of the folder failed
        else:
            saved, last = saved + 1, step
    _write_out(
        json.dumps({"saved": saved, "failed": failed, "kinds": len(kinds), "last": last}) + "\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
