"""Malicious files for the loaders of models and checkpoints.

Each must raise ModelFileError quickly and with little memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nnbackend.persistence.container import HEADER_LIMIT

TEXT = json.dumps({"format": 1, "sha256": "0" * 64})


def raw(header: str | bytes, body: bytes = b"", length: int | None = None) -> bytes:
    header = header.encode() if isinstance(header, str) else header
    return (len(header) if length is None else length).to_bytes(8, "little") + header + body


def tensor(shape: list[int], begin: int, end: int, name: str = "weights.0") -> dict[str, Any]:
    return {name: {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}}


def described(*tensors: dict[str, Any], text: str = TEXT, body: bytes = b"") -> bytes:
    header: dict[str, Any] = {"__metadata__": {"nnbackend": text}}
    for entry in tensors:
        header |= entry
    return raw(json.dumps(header), body)


def files() -> Iterator[tuple[str, bytes]]:
    """Yield the hostile files as (name, content)."""
    huge = HEADER_LIMIT - 100
    yield "empty", b""
    yield "header of 2^63 bytes", raw("{}", length=2**63)
    yield "header of 10 MB of blanks", raw(b"{" + b" " * huge + b"}")
    yield "header of 10 MB of brackets", raw(b"[" * huge)
    yield "header of 10 MB of objects", raw(b'{"a":' * (huge // 5))
    yield "header of 10 MB in one key", raw(b'{"' + b"k" * huge + b'": 1}')
    yield "header of 10 MB of digits", raw(b'{"a": ' + b"9" * huge + b"}")
    yield (
        "header of 10 MB of keys",
        raw(b"{" + b",".join(b'"%d":0' % i for i in range(800_000)) + b"}"),
    )
    yield "header of 10 MB of double keys", raw(b"{" + b",".join([b'"a":0'] * 1_600_000) + b"}")
    yield (
        "a million tensors",
        raw(b"{" + b",".join(b'"%x":{"dtype":"F32"}' % i for i in range(350_000)) + b"}"),
    )
    yield "shape bomb", described(tensor([2**31, 2**31], 0, 2**64), body=bytes(8))
    yield "shape that wraps", described(tensor([2**63, 4], 0, 0), body=bytes(8))
    yield "negative shape", described(tensor([-1, -1], 0, 4), body=bytes(4))
    yield "overlap", described(tensor([2], 0, 8), tensor([2], 4, 12, "b"), body=bytes(12))
    yield "gap", described(tensor([1], 0, 4), tensor([1], 8, 12, "b"), body=bytes(12))
    yield "beyond the end", described(tensor([10**9], 0, 4 * 10**9), body=bytes(12))
    yield "duplicate keys", raw('{"__metadata__": {}, "__metadata__": {}}')
    yield "wrong UTF-8", raw(b'{"\xff\xfe\xfa": 1}')
    yield "UTF-16", raw("{}".encode("utf-16"))
    yield "deep JSON in the description", described(text='{"format": 1, "x": ' + "[" * 10**6)
    yield "version 999", described(text=json.dumps({"format": 999, "sha256": "0" * 64}))
    yield "path as a name", described(tensor([1], 0, 4, "../../../etc/passwd"), body=bytes(4))
    yield "absolute path as a name", described(tensor([1], 0, 4, "/tmp/evil"), body=bytes(4))
    yield "name of 1 MB", described(tensor([1], 0, 4, "w" * 10**6), body=bytes(4))
    yield "description of 9 MB", described(text='{"format": 1, "x": "' + "y" * 9 * 10**6 + '"}')
    yield "wrong checksum", described(tensor([1], 0, 4), body=bytes(4))
    yield "pickle", b"\x80\x05\x95" + bytes(200) + b"cos\nsystem\n(S'true'\ntR."
    yield "zip", b"PK\x03\x04" + bytes(400)
    yield "zeros", bytes(10**6)


def write(folder: Path) -> int:
    """Write the files, some links, a pipe and a sparse file; return the number of entries."""
    for number, (name, data) in enumerate(files()):
        (folder / f"{number:02d} {name}").write_bytes(data)
    for name, target in {"loop": "loop", "zero": "/dev/zero", "passwd": "/etc/passwd"}.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe")
    with (folder / "terabyte").open("wb") as file:  # sparse
        file.truncate(2**40)
    return len(list(folder.iterdir()))
