"""What is fuzzed: every reader of files that a stranger may have written, with files to begin from.

A target takes bytes; whatever but an error of our own escapes from it is a fault.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import nnbackend as nn
from nnbackend.cli.settings import Settings, read_config, to_toml
from nnbackend.data.csv_files import read_csv
from nnbackend.data.idx_files import read_idx
from nnbackend.data.readers import load as load_data
from nnbackend.errors import NNBackendError
from nnbackend.persistence.checkpoints import checkpoint_paths, read_checkpoint
from nnbackend.persistence.container import encode, read_model

X = np.random.default_rng(0).normal(size=(12, 2))
LABELS = np.array([0, 1] * 6)
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))

Target = Callable[[bytes], object]


def _network() -> nn.Network:
    layers = [2, nn.Dense(3, "elu"), nn.Dropout(0.1), nn.Maxout(2), nn.Dense(2, "softmax")]
    net = nn.Network(layers, device="numpy", classes=["no", "yes"])
    net.columns = {"columns": [{"name": "a"}]}
    return net


def _checkpoint() -> Path:
    folder = FOLDER / "run"
    if not folder.exists():
        nn.train(_network(), X, LABELS, epochs=2, batch_size=5, schedule="warm_up", scale="unit",
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
    """Give a file with these bytes for a description, and a checksum that is right."""
    try:
        described = json.loads(data)
    except (ValueError, RecursionError):  # no JSON: nothing to forge with
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


def config(data: bytes) -> None:
    Settings(**read_config(_file(data, "config.toml")))


TARGETS: dict[str, Target] = {
    f.__name__: f
    for f in (model, checkpoint, forged_model, forged_checkpoint, csv, csv_gz, idx, idx_gz, npz,
              config)
}  # fmt: skip


def _saved() -> Path:
    path = FOLDER / "saved"
    if not path.exists():
        _network().save(path)
    return path


def _description(path: Path) -> bytes:
    return json.dumps(read_model(path)[0]).encode()


def seeds(target: str) -> Iterator[bytes]:
    """Give whole files, from which a fuzzer finds its way to broken ones."""
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
        "config": [to_toml(Settings(data="digits")).encode()],
    }
    yield from made[target]


def try_one(target: str, data: bytes) -> bool:
    """Feed a target; give whether it took the bytes. Anything but our own errors goes on up."""
    try:
        TARGETS[target](data)
    except NNBackendError:
        return False
    return True
