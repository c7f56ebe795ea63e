"""Targets of the fuzzer: all readers of untrusted files, with valid files as seeds.

Parquet is excluded: pyarrow allocates memory by claimed sizes, which would end the fuzzer.
A target takes bytes; any exception other than NNBackendError is a fault.
"""

from __future__ import annotations

import atexit
import gzip
import io
import json
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

import nnbackend as nn
from nnbackend.cli import main
from nnbackend.cli.settings import read_config, to_toml
from nnbackend.config import Settings
from nnbackend.data.csv_files import read_csv
from nnbackend.data.idx_files import read_idx
from nnbackend.data.preprocessing import Preprocessing
from nnbackend.data.readers import load as load_data
from nnbackend.errors import NNBackendError
from nnbackend.persistence.checkpoints import checkpoint_paths, read_checkpoint
from nnbackend.persistence.container import encode, read_model

X = np.random.default_rng(0).normal(size=(12, 2))
LABELS = np.array([0, 1] * 6)
COLUMNS = {"columns": [{"name": "a"}]}
TABLE = b"a,b,kind\n1,yes,no\n2.5,no,yes\n3,no,yes\n"
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)

Target = Callable[[bytes], object]


def _model(columns: Any = COLUMNS) -> nn.Model:
    layers = [2, nn.Dense(3, "elu"), nn.Dropout(0.1), nn.Maxout(2), nn.Dense(2, "softmax")]
    known = Preprocessing(classes=("no", "yes"), columns=columns)
    return nn.Model.from_parts(nn.Network(layers, device="numpy"), known)


def _checkpoint() -> Path:
    folder = FOLDER / "run"
    if not folder.exists():
        model = nn.Model(_model().network, scale="unit")
        model.fit(X, LABELS, epochs=2, batch_size=5, schedule="warm_up",
                  early_stopping=nn.EarlyStopping(9),
                  callbacks=[nn.Checkpoints(folder)])  # fmt: skip
    return checkpoint_paths(folder)[-1]


def _file(data: bytes, name: str = "file") -> Path:
    path = FOLDER / name
    path.write_bytes(data)
    return path


def model(data: bytes) -> None:
    nn.load(_file(data), "numpy")


def checkpoint(data: bytes) -> None:
    read_checkpoint(_file(data))


def _forge(data: bytes, path: Path) -> bytes:
    """Return a file with these bytes as description and a valid checksum."""
    try:
        described = json.loads(data)
    except (ValueError, RecursionError):  # not JSON
        return b""
    if not isinstance(described, dict):
        return b""
    described.pop("format", None)
    return encode(described, read_model(path)[1])


def forged_model(data: bytes) -> None:
    model(_forge(data, _saved()))


def forged_checkpoint(data: bytes) -> None:
    folder = FOLDER / "forged"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    (folder / "checkpoint-000000000006.safetensors").write_bytes(_forge(data, _checkpoint()))
    nn.resume(folder, X, LABELS, device="numpy", epochs=2)


def csv(data: bytes) -> None:
    read_csv(_file(data, "table.csv"))
    load_data(str(_file(data, "table.csv")))


def csv_gz(data: bytes) -> None:
    read_csv(_file(data, "table.csv.gz"))


def idx(data: bytes) -> None:
    read_idx(_file(data, "train-images-idx3-ubyte"))


def idx_gz(data: bytes) -> None:
    read_idx(_file(data, "train-images-idx3-ubyte.gz"))


def npz(data: bytes) -> None:
    load_data(str(_file(data, "data.npz")))


def npy(data: bytes) -> None:
    """Load bytes as memory-mapped features and targets."""
    _file(data, "y.npy")
    load_data(str(_file(data, "x.npy")))


def forged_npz(data: bytes) -> None:
    """Load bytes as features or targets in an archive with valid checksums."""
    sound = io.BytesIO()
    np.save(sound, LABELS if len(data) % 2 else X)
    x, y = (data, sound.getvalue()) if len(data) % 2 else (sound.getvalue(), data)
    with zipfile.ZipFile(FOLDER / "forged.npz", "w") as archive:
        archive.writestr("x.npy", x)
        archive.writestr("y.npy", y)
    load_data(str(FOLDER / "forged.npz"))


def run_folder(data: bytes) -> None:
    """Load bytes as one of the files beside a model in a run folder."""
    folder = FOLDER / "run folder"
    if not folder.exists():
        folder.mkdir()
        _model().save(folder / "model.safetensors")
    names = ("environment.json", "history.csv", "config.toml")
    for name, sound in zip(names, _beside(), strict=True):
        (folder / name).write_bytes(sound)
    (folder / names[data[0] % 3 if data else 0]).write_bytes(data[1:])
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        if main(["summary", str(folder), "--device", "numpy"]):
            raise NNBackendError


def forged_columns(data: bytes) -> None:
    """Load bytes as the columns of a model, which `evaluate` uses to read a table."""
    try:
        columns = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise NNBackendError from error
    _model(columns).save(FOLDER / "columns.safetensors")
    table = str(_file(TABLE, "columns.csv"))
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        if main(["evaluate", str(FOLDER / "columns.safetensors"), table, "--device", "numpy"]):
            raise NNBackendError


def _columns() -> bytes:
    coding = load_data(str(_file(TABLE, "columns.csv"))).columns
    assert coding is not None
    return json.dumps(coding.to_dict()).encode()


def _beside() -> tuple[bytes, bytes, bytes]:
    environment = {
        "data": {"fingerprint": "x"},
        "results": {"stop_reason": "epochs", "test_r2": 0.5},
    }
    history = b"epoch,train_loss,valid_loss\n1,0.5,0.25\n2,0.4,nan\n"
    config = to_toml(Settings(data="digits", monitor="valid_loss"))
    return json.dumps(environment).encode(), history, config.encode()


def config(data: bytes) -> None:
    Settings(**read_config(_file(data, "config.toml")))


TARGETS: dict[str, Target] = {
    f.__name__: f
    for f in (model, checkpoint, forged_model, forged_checkpoint, csv, csv_gz, idx, idx_gz, npz,
              npy, forged_npz, run_folder, forged_columns, config)
}  # fmt: skip


def _saved() -> Path:
    path = FOLDER / "saved"
    if not path.exists():
        _model().save(path)
    return path


def _description(path: Path) -> bytes:
    return json.dumps(read_model(path)[0]).encode()


def _saved_arrays() -> list[bytes]:
    saved = []
    for array in (X, LABELS.reshape(-1, 1), LABELS.astype(str), X.astype("f4", order="F")):
        content = io.BytesIO()
        np.save(content, array)
        saved.append(content.getvalue())
    return saved


def seeds(target: str) -> Iterator[bytes]:
    """Yield valid files, from which the fuzzer derives invalid ones."""
    table = b'a,b,kind\n1,2.5,x\n3,,y\n-4e3,NaN,"z, ""w"""\n'
    images = struct.pack(">HBBIII", 0, 8, 3, 2, 2, 2) + bytes(8)
    archive = io.BytesIO()
    np.savez(archive, x=X, y=LABELS)
    made: dict[str, list[bytes]] = {
        "model": [_saved().read_bytes()],
        "checkpoint": [_checkpoint().read_bytes()],
        "forged_model": [_description(_saved())],
        "forged_checkpoint": [_description(_checkpoint())],
        "csv": [table, table.replace(b",", b";"), b"1\t2\n3\t4\n", "ä,b\n1,2\n".encode("utf-16")],
        "csv_gz": [gzip.compress(table)],
        "idx": [images, struct.pack(">HBBI", 0, 13, 1, 2) + bytes(8)],
        "idx_gz": [gzip.compress(images)],
        "npz": [archive.getvalue()],
        "npy": _saved_arrays(),
        "forged_npz": [a + bytes(n) for a in _saved_arrays() for n in (0, 1)],
        "forged_columns": [_columns(), _columns().replace(b"true", b"false")],
        "run_folder": [bytes([n]) + content for n, content in enumerate(_beside())],
        "config": [to_toml(Settings(data="digits")).encode()],
    }
    yield from made[target]


def try_one(target: str, data: bytes) -> bool:
    """Return True if the target accepts the bytes. Only NNBackendError is caught."""
    try:
        TARGETS[target](data)
    except NNBackendError:
        return False
    return True
