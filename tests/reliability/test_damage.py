"""Damaged and malicious files are refused quickly."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import hostile
import numpy as np
import pytest
import safetensors.numpy
from conftest import Script

import nnbackend as nn
from nnbackend.errors import ModelFileError
from nnbackend.persistence.checkpoints import checkpoint_paths, read_checkpoint

Count = Callable[[int, int], int]
Note = Callable[[str], None]


@pytest.fixture
def saved(tmp_path: Path) -> dict[str, Path]:
    """Return the paths of a model and a checkpoint."""
    x = np.random.default_rng(0).normal(size=(20, 3))
    net = nn.Network([3, 5, nn.Maxout(4), nn.Dropout(0.2), 2], "cross_entropy", device="numpy")
    model = nn.Model(net, scale="standard")
    labels = (x[:, 0] > 0).astype(int)
    model.fit(x, labels, epochs=2, callbacks=[nn.Checkpoints(tmp_path / "run")])
    model.save(tmp_path / "model")
    return {"model": tmp_path / "model", "checkpoint": checkpoint_paths(tmp_path / "run")[-1]}


def reader(kind: str) -> Callable[[Path], object]:
    return read_checkpoint if kind == "checkpoint" else lambda path: nn.load(path, "numpy")


@pytest.mark.parametrize("kind", ["model", "checkpoint"])
def test_every_bit_flip_is_refused(
    kind: str, saved: dict[str, Path], count: Count, note: Note
) -> None:
    data, path, read = saved[kind].read_bytes(), saved[kind], reader(kind)
    rng = np.random.default_rng(1)
    n, n_bits = count(300, 20_000), 8 * len(data)
    bits = range(n_bits) if n >= n_bits else rng.choice(n_bits, n, replace=False)
    for bit in bits:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(ModelFileError):
            read(path)
    note(f"{len(bits)} of {n_bits} bits")
    path.write_bytes(data)
    read(path)


@pytest.mark.parametrize("kind", ["model", "checkpoint"])
def test_every_truncation_is_refused(
    kind: str, saved: dict[str, Path], count: Count, note: Note
) -> None:
    data, path, read = saved[kind].read_bytes(), saved[kind], reader(kind)
    lengths = range(0, len(data), count(11, 1))
    for length in lengths:
        path.write_bytes(data[:length])
        with pytest.raises(ModelFileError):
            read(path)
    note(f"{len(lengths)} lengths of {len(data)}")


def test_a_naive_reader_accepts_damage(saved: dict[str, Path]) -> None:
    """Formats without a checksum, or without a header, do not detect damage."""
    data, rng = saved["model"].read_bytes(), np.random.default_rng(1)
    accepted = 0
    for bit in rng.choice(8 * len(data), 300, replace=False):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with contextlib.suppress(Exception):  # of whatever kind
            accepted += len(safetensors.numpy.load(bytes(changed))) > 0
    assert accepted > 100
    theta = np.arange(30.0)
    for length in range(0, 240, 8):
        saved["model"].write_bytes(theta.tobytes()[:length])
        assert len(np.fromfile(saved["model"])) == length // 8


def test_a_hostile_set_is_refused_within_100_ms_and_100_mb(
    script: Script, note: Note, tmp_path: Path
) -> None:
    """The memory is checked; the time is only reported, because it depends on the load.

    A test below checks the number of calls, which determines the time.
    """
    n = hostile.write(tmp_path)
    found = script("load_hostile.py", tmp_path)
    assert found["code"] == 0, found["stderr"]
    assert (found["files"], found["accepted"]) == (n + 1, [])
    note(f"{n + 1} files, slowest {found['seconds']} s of the CPU ({found['slowest']}), "
         f"{found['megabytes']} MB")  # fmt: skip
    assert found["megabytes"] < 100


def test_a_header_with_too_many_entries_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsing 10 MB of JSON keys takes a second; counting them does not."""

    def parse(*_: object) -> None:
        raise AssertionError("parsed")

    monkeypatch.setattr("nnbackend.persistence.container._parse", parse)
    crowded = {name: data for name, data in hostile.files() if data.count(b",") > 300_000}
    assert len(crowded) == 3
    for data in crowded.values():
        (tmp_path / "file").write_bytes(data)
        with pytest.raises(ModelFileError, match="at most 250000 entries"):
            nn.load(tmp_path / "file")


def calls_to_refuse(path: Path) -> int:
    """Return the number of calls of Python and C functions until the file is refused."""
    calls = 0

    def count(frame: object, event: str, arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        with pytest.raises(ModelFileError):
            nn.load(path, "numpy")
    finally:
        sys.setprofile(before)
    return calls


def test_no_hostile_file_causes_many_calls(tmp_path: Path) -> None:
    """The remaining work is a few passes over at most 10 MB, in C."""
    path, calls = tmp_path / "file", {}
    for name, data in hostile.files():
        path.write_bytes(data)
        calls[name] = calls_to_refuse(path)
    assert max(calls.values()) < 2_000, calls


def test_the_call_count_detects_parsing_of_many_entries(tmp_path: Path) -> None:
    """A header below the limit is parsed entry by entry, which the count shows."""
    crowd = b",".join(b'"%x":{"dtype":"F32"}' % i for i in range(20_000))
    (tmp_path / "file").write_bytes(hostile.raw(b"{" + crowd + b"}"))
    assert calls_to_refuse(tmp_path / "file") > 20_000


def test_pickles_are_not_run(tmp_path: Path) -> None:
    """The refused bytes run code in NumPy's loader with allow_pickle=True."""
    witness = tmp_path / "witness"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (witness,)

    path = tmp_path / "evil.npy"
    np.save(path, np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(ModelFileError):
        nn.load(path)
    assert not witness.exists()
    np.load(path, allow_pickle=True)
    assert witness.exists()
