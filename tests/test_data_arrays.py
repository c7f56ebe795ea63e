"""NPZ archives, NPY pairs and IDX files: round trips, and damage of every kind."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from nnbackend.data import load
from nnbackend.data.idx_files import read_idx
from nnbackend.errors import ArgumentError, DataError

X = np.arange(12.0).reshape(4, 3) / 8
Y = np.array([5, 7, 5, 7])


def npz(path, compressed=False, **arrays):
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def npy_bytes(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def zip_of(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


# ---------------------------------------------------------------- NPZ


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "uint8", "int16", ">f4"])
def test_npz_round_trip_keeps_the_dtype(tmp_path, compressed, dtype):
    x = (X * 8).astype(dtype)
    data = load(npz(tmp_path / "set.npz", compressed, x=x, y=Y))
    assert data.x.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(data.x, x)
    assert (data.task, data.classes, data.name) == ("classification", (5, 7), "set")
    assert data.y.tolist() == [0, 1, 0, 1]
    assert data.y.dtype == np.int64


def test_npz_flattens_rows_and_reads_fortran_order(tmp_path):
    x = np.arange(24.0).reshape(4, 2, 3)
    assert np.array_equal(load(npz(tmp_path / "a.npz", x=x, y=Y)).x, x.reshape(4, 6))
    x = np.asfortranarray(X)
    assert np.array_equal(load(npz(tmp_path / "f.npz", x=x, y=Y)).x, X)


def test_npz_booleans_do_not_become_bytes(tmp_path):
    assert load(npz(tmp_path / "b.npz", x=X > 0.5, y=Y)).x.dtype == np.float32


@pytest.mark.parametrize(
    ("y", "task", "classes", "coded"),
    [
        (["b", "a", "b", "a"], "classification", ("a", "b"), [1, 0, 1, 0]),
        ([b"b", b"a", b"b", b"a"], "classification", ("a", "b"), [1, 0, 1, 0]),
        ([True, False, True, True], "classification", ("False", "True"), [1, 0, 1, 1]),
        ([1.0, 2.0, 1.0, 2.0], "classification", (1, 2), [0, 1, 0, 1]),
        ([[1], [2], [1], [2]], "classification", (1, 2), [0, 1, 0, 1]),
        ([[0, 1], [1, 0], [0, 1], [0, 1]], "classification", (0, 1), [1, 0, 1, 1]),
        ([0.5, 1.0, 2.0, 3.0], "regression", None, [0.5, 1.0, 2.0, 3.0]),
        (
            [[0.5, 1], [2, 3], [4, 5], [6, 7]],
            "regression",
            None,
            [[0.5, 1], [2, 3], [4, 5], [6, 7]],
        ),
    ],
)
def test_the_task_is_inferred(tmp_path, y, task, classes, coded):
    data = load(npz(tmp_path / "t.npz", x=X, y=np.array(y)))
    assert (data.task, data.classes) == (task, classes)
    assert data.y.tolist() == coded
    assert data.y.dtype == (np.int64 if task == "classification" else np.float64)


def test_the_task_of_whole_numbers_depends_on_the_number_of_distinct_values(tmp_path):
    def of(y, **options):
        return load(npz(tmp_path / "t.npz", x=np.zeros((len(y), 1)), y=y), **options).task

    assert of(np.arange(200) % 20) == "classification"
    assert of(np.array([0, 1])) == "classification"
    assert of(np.arange(202) % 101) == "regression"
    for y in (np.arange(200) % 21, np.arange(200) % 100, np.arange(6)):
        with pytest.raises(DataError, match="task='classification' or task='regression'"):
            of(y)
        assert of(y, task="regression") == "regression"
        assert of(y, task="classification") == "classification"


def test_targets_that_do_not_match_the_task_are_refused(tmp_path):
    path = npz(tmp_path / "t.npz", x=X, y=np.array([0.5, 1, 2, 3]))
    with pytest.raises(DataError, match="fractional part"):
        load(path, task="classification")
    path = npz(tmp_path / "t.npz", x=X, y=np.array(["a", "b", "a", "b"]))
    with pytest.raises(DataError, match="must be numbers"):
        load(path, task="regression")
    path = npz(tmp_path / "t.npz", x=X, y=X)
    with pytest.raises(DataError, match="one-hot"):
        load(path, task="classification")


def test_npz_arrays_by_name(tmp_path):
    path = npz(tmp_path / "set.npz", x=X, labels=Y, other=Y)
    assert load(path, target="labels").classes == (5, 7)
    with pytest.raises(DataError, match=r"'x' and 'y'. Received: labels, other, x"):
        load(path)
    with pytest.raises(DataError, match="'x' and 'none'"):
        load(path, target="none")
    with pytest.raises(DataError, match=r"Received: y\."):
        load(npz(tmp_path / "y.npz", y=Y))
    with pytest.raises(ArgumentError, match="target=1"):
        load(path, target=1)


def test_npz_with_only_x_has_no_target(tmp_path):
    data = load(npz(tmp_path / "x.npz", x=X))
    assert (data.y, data.task, data.classes) == (None, None, None)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X[0], Y, r"rows and columns.*\(3,\)"),
        (np.float64(1), Y, "rows and columns"),
        (X, Y[:3], "same number of rows"),
        (X[:0], Y[:0], "must not be empty"),
        (X[:, :0], Y, "must not be empty"),
        (X.astype(complex), Y, "complex128"),
        (X.astype(str), Y, "real numbers"),
        (X, Y.astype(complex), "y must be"),
        (X, np.zeros((4, 1, 1)), "y must be"),
        (X, np.zeros((4, 0)), "y must be"),
        (X, Y.astype("datetime64[s]"), "y must be"),
        (np.zeros(4, dtype=[("a", "f8")]), Y, "plain numbers"),
    ],
)
def test_npz_with_invalid_arrays_is_refused(tmp_path, x, y, message):
    with pytest.raises(DataError, match=message):
        load(npz(tmp_path / "bad.npz", x=x, y=y))


def test_object_arrays_are_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    trap = np.array([[Trap()]], dtype=object)
    np.save(tmp_path / "x.npy", trap, allow_pickle=True)
    for path in (npz(tmp_path / "o.npz", x=trap, y=Y[:1]), tmp_path / "x.npy"):
        with pytest.raises(DataError, match="unpickling runs code"):
            load(path)
    assert not (tmp_path / "sprung").exists()


def test_infinity_and_nan_in_arrays(tmp_path, monkeypatch):
    monkeypatch.setattr("nnbackend.data.array_files.CHUNK_ELEMENTS", 6)  # two rows
    x = X.copy()
    x[3, 1] = -np.inf
    with pytest.raises(DataError, match=r"x must be finite.*row 3, column 1"):
        load(npz(tmp_path / "i.npz", x=x, y=Y), missing="drop")
    with pytest.raises(DataError, match=r"y must be finite.*row 2"):
        load(npz(tmp_path / "i.npz", x=X, y=np.array([0.5, 0, np.inf, 0])))
    x[3, 1] = np.nan
    path = npz(tmp_path / "n.npz", x=x, y=np.array([np.nan, 0.5, 1.0, 2.0]))
    with pytest.raises(DataError, match="NaN in 2 of 4 rows, first in row 0"):
        load(path)
    data = load(path, missing="drop")
    assert data.n_dropped == 2
    assert np.array_equal(data.x, X[1:3])
    assert data.y.tolist() == [0.5, 1.0]
    with pytest.raises(DataError, match="NaN in 4 of 4"):
        load(npz(tmp_path / "n.npz", x=np.full((4, 1), np.nan), y=Y), missing="drop")


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_truncated_at_every_length(tmp_path, compressed):
    whole = npz(tmp_path / "whole.npz", compressed, x=X, y=Y).read_bytes()
    path = tmp_path / "cut.npz"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.npz"):
            load(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_with_any_byte_changed_is_refused_or_unchanged(tmp_path, compressed):
    whole = npz(tmp_path / "whole.npz", compressed, x=X, y=Y).read_bytes()
    path = tmp_path / "changed.npz"
    refused = 0
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        try:
            data = load(path)
        except DataError:
            refused += 1
            continue
        # Dates may change; with another name for y the set has no target.
        assert np.array_equal(data.x, X)
    assert refused > len(whole) / 3


def test_a_header_that_claims_another_size_is_refused(tmp_path):
    content = npy_bytes(X)
    path = zip_of(tmp_path / "z.npz", x=content + b"more", y=npy_bytes(Y))
    with pytest.raises(DataError, match=r"x\.npy: .*must take 96 bytes. Received: 100"):
        load(path)
    buffer = io.BytesIO()
    claim = {"descr": "<f8", "fortran_order": False, "shape": (4, 300_000_000_000)}
    np.lib.format.write_array_header_1_0(buffer, claim)
    huge = buffer.getvalue() + X.tobytes()
    zip_of(path, x=huge, y=npy_bytes(Y))
    (tmp_path / "x.npy").write_bytes(huge)
    for bad in (path, tmp_path / "x.npy"):
        tracemalloc.start()
        with pytest.raises(
            DataError, match=r"x\.npy.*must take 9600000000000 bytes\. Received: 96"
        ):
            load(bad)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1e6


def test_a_member_larger_than_its_header_is_not_read(tmp_path):
    path = tmp_path / "z.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy_bytes(X) + bytes(50_000_000))
    tracemalloc.start()
    with pytest.raises(DataError, match="Received: 50000096"):
        load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


@pytest.mark.parametrize("code", [0x110000, 0xFFFFFFFF, 0xD800, 0xDFFF])
@pytest.mark.parametrize("order", ["<", ">"])
def test_invalid_code_points_are_refused(tmp_path, code, order):
    """Python raises SystemError for such code points (found by the fuzzer)."""
    labels = np.array(["a", "b", "ab", "\U0010ffff"], f"{order}U2")
    content = npy_bytes(labels)
    path = zip_of(tmp_path / "t.npz", x=npy_bytes(X), y=content)
    assert load(path).classes == ("a", "ab", "b", "\U0010ffff")
    damaged = content[:-4] + code.to_bytes(4, "little" if order == "<" else "big")
    zip_of(path, x=npy_bytes(X), y=damaged)
    (tmp_path / "x.npy").write_bytes(npy_bytes(X))
    (tmp_path / "y.npy").write_bytes(damaged)
    for bad in (path, tmp_path / "x.npy"):
        with pytest.raises(DataError, match="text must be valid Unicode"):
            load(bad)


def test_other_npy_format_versions(tmp_path):
    content = bytearray(npy_bytes(X))
    content[6] = 9
    with pytest.raises(DataError, match=r"version"):
        load(zip_of(tmp_path / "v.npz", x=bytes(content), y=npy_bytes(Y)))
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, X, version=(2, 0))
    assert np.array_equal(load(zip_of(tmp_path / "2.npz", x=buffer.getvalue())).x, X)


# ---------------------------------------------------------------- NPY


@pytest.mark.parametrize(("x", "y", "name"), [("x", "y", "x"), ("toy_x", "toy_y", "toy")])
def test_npy_pair_is_memory_mapped(tmp_path, x, y, name):
    np.save(tmp_path / f"{x}.npy", X)
    np.save(tmp_path / f"{y}.npy", Y)
    data = load(tmp_path / f"{x}.npy")
    assert isinstance(data.x, np.memmap)
    assert not data.x.flags.writeable
    assert np.array_equal(data.x, X)
    assert data.y.tolist() == [0, 1, 0, 1]
    assert data.name == name
    with pytest.raises(DataError, match=rf"Give {x}\.npy"):
        load(tmp_path / f"{y}.npy")


def test_npy_images_stay_a_memory_map_when_flattened(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    data = load(tmp_path / "x.npy")
    assert isinstance(data.x, np.memmap)
    assert data.x.shape == (2, 12)
    assert (data.y, data.task) == (None, None)


def test_npy_fortran_order(tmp_path):
    np.save(tmp_path / "x.npy", np.asfortranarray(X))
    assert np.array_equal(load(tmp_path / "x.npy").x, X)


def test_npy_truncated_at_every_length_and_too_long(tmp_path):
    path = tmp_path / "x.npy"
    whole = npy_bytes(X)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"x\.npy"):
            load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(DataError, match=r"must take 96 bytes. Received: 97"):
        load(path)


def test_npy_with_invalid_arrays_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y[:2])
    with pytest.raises(DataError, match="same number of rows"):
        load(tmp_path / "x.npy")
    with pytest.raises(ArgumentError, match="target"):
        load(tmp_path / "x.npy", target="y")
    np.save(tmp_path / "x.npy", np.zeros((0, 3)))
    with pytest.raises(DataError, match="must not be empty"):
        load(tmp_path / "x.npy")


# ---------------------------------------------------------------- IDX

IMAGES = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
LABELS = np.array([3, 0, 3, 9], dtype=np.uint8)
CODES = {"u1": 8, "i1": 9, ">i2": 11, ">i4": 12, ">f4": 13, ">f8": 14}


def idx_bytes(array, dtype="u1", shape=None):
    shape = array.shape if shape is None else shape
    head = struct.pack(f">BBBB{len(shape)}I", 0, 0, CODES[dtype], len(shape), *shape)
    return head + array.astype(dtype).tobytes()


def write(path, content):
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def mnist(folder, mark="-", gz="", parts=("train", "t10k"), images=IMAGES, labels=LABELS):
    for part in parts:
        n = 4 if part == "train" else 2
        write(folder / f"{part}-images{mark}idx3-ubyte{gz}", idx_bytes(images[:n]))
        write(folder / f"{part}-labels{mark}idx1-ubyte{gz}", idx_bytes(labels[:n]))
    return folder


@pytest.mark.parametrize("mark", ["-", "."])
@pytest.mark.parametrize("gz", ["", ".gz"])
def test_idx_folder_as_distributed(tmp_path, mark, gz):
    data = load(mnist(tmp_path, mark, gz))
    assert data.x.dtype == np.uint8
    assert np.array_equal(data.x, IMAGES.reshape(4, 6))
    assert (data.task, data.classes) == ("classification", (0, 3, 9))
    assert data.y.tolist() == [1, 0, 1, 2]
    assert data.test.x.shape == (2, 6)
    assert data.test.classes == data.classes
    assert data.test.y.tolist() == [1, 0]
    rest, _ = data.split(0.25, 0)
    assert rest.test is data.test


def test_idx_single_files_and_mixed_compression(tmp_path):
    mnist(tmp_path)
    images = tmp_path / "train-images-idx3-ubyte"
    write(tmp_path / "train-images-idx3-ubyte.gz", images.read_bytes())
    images.unlink()
    for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte"):
        data = load(tmp_path / name)
        assert data.x.shape == (4, 6)
        assert data.test is None
    test = load(tmp_path / "t10k-images-idx3-ubyte")
    assert test.classes == (0, 3)
    assert load(mnist(tmp_path, parts=("train",))).n_samples == 4


@pytest.mark.parametrize("dtype", list(CODES))
def test_idx_element_types(tmp_path, dtype):
    values = np.array([[1, 2], [100, 0]])
    path = write(tmp_path / "made-images-idx2-any", idx_bytes(values, dtype))
    read = read_idx(path)
    assert read.dtype == np.dtype(dtype).newbyteorder("=")
    assert np.array_equal(read, values)


def test_idx_companion_missing(tmp_path):
    mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"no train-labels-idx1-ubyte"):
        load(tmp_path)
    mnist(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match=r"no t10k-images-idx3-ubyte"):
        load(tmp_path)


def test_idx_folder_without_training_files(tmp_path):
    with pytest.raises(DataError, match="no IDX file"):
        load(tmp_path)
    with pytest.raises(DataError, match="Received: t10k-images"):
        load(mnist(tmp_path, parts=("t10k",)))


def test_idx_counts_and_sizes_must_agree(tmp_path):
    mnist(tmp_path)
    write(tmp_path / "train-labels-idx1-ubyte", idx_bytes(LABELS[:3]))
    with pytest.raises(DataError, match="4 images and 3 labels"):
        load(tmp_path)
    mnist(tmp_path)
    write(tmp_path / "t10k-images-idx3-ubyte", idx_bytes(IMAGES[:2, :, :2]))
    with pytest.raises(DataError, match="6 and 4 features"):
        load(tmp_path)
    mnist(tmp_path)
    write(tmp_path / "train-labels-idx1-ubyte", idx_bytes(LABELS.reshape(4, 1)))
    with pytest.raises(DataError, match="one whole number"):
        load(tmp_path)
    write(tmp_path / "train-images-idx3-ubyte", idx_bytes(IMAGES[:0]))
    write(tmp_path / "train-labels-idx1-ubyte", idx_bytes(LABELS[:0]))
    with pytest.raises(DataError, match="none of them 0"):
        load(tmp_path)


@pytest.mark.parametrize("gz", ["", ".gz"])
def test_idx_wrong_magic(tmp_path, gz):
    path = mnist(tmp_path, gz=gz) / f"train-images-idx3-ubyte{gz}"
    whole = idx_bytes(IMAGES)
    for magic in (b"\x01\0\x08\x03", b"\0\0\x07\x03", b"\0\0\x08\0", b"PK\3\4"):
        write(path, magic + whole[4:])
        with pytest.raises(DataError, match=f"must begin with.*{magic.hex(' ')}"):
            load(tmp_path)
    write(path, b"\0\0\x08\xff" + b"\0" * 4 * 255)
    with pytest.raises(DataError, match="at most 32 dimensions"):
        load(tmp_path)


def test_idx_compressed_under_a_plain_name(tmp_path):
    path = mnist(tmp_path) / "train-images-idx3-ubyte"
    plain = load(tmp_path)
    path.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(load(tmp_path).x, plain.x)


def test_idx_unpacked_by_a_browser_that_kept_gz_in_the_name(tmp_path):
    plain = load(mnist(tmp_path))
    (tmp_path / "named").mkdir()
    folder = mnist(tmp_path / "named", gz=".gz")
    for path in folder.iterdir():
        path.write_bytes(gzip.decompress(path.read_bytes()))
    data = load(folder)
    np.testing.assert_array_equal(data.x, plain.x)
    np.testing.assert_array_equal(data.test.y, plain.test.y)


def test_idx_beside_folders_of_the_same_names(tmp_path):
    # As unpacked from an archive of MNIST: a file, and a folder of a similar name with a copy.
    plain = load(mnist(tmp_path))
    for path in list(tmp_path.iterdir()):
        inner = tmp_path / path.name
        content = path.read_bytes()
        path.rename(tmp_path / path.name.replace("-idx", ".idx"))
        inner.mkdir()
        (inner / inner.name).write_bytes(content)
    for source in (tmp_path, tmp_path / "train-images.idx3-ubyte"):
        np.testing.assert_array_equal(load(source).x, plain.x)
    assert load(tmp_path).test.n_samples == plain.test.n_samples


def test_mnist_as_keras_distributes_it(tmp_path):
    x, y = np.arange(72, dtype=np.uint8).reshape(6, 3, 4), np.array([7, 9, 7, 8, 9, 8], np.uint8)
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x[:2], y_test=y[2:4])
    data = load(tmp_path / "mnist.npz")
    assert data.x.shape == (6, 12)
    assert data.classes == data.test.classes == (7, 8, 9)
    assert (data.y.tolist(), data.test.y.tolist()) == ([0, 2, 0, 1, 2, 1], [0, 1])


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("which", ["images-idx3", "labels-idx1"])
def test_idx_truncated_at_every_length(tmp_path, gz, which):
    path = mnist(tmp_path, gz=gz) / f"train-{which}-ubyte{gz}"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=path.name):
            load(tmp_path)


def test_idx_truncated_before_compression_at_every_length(tmp_path):
    path = mnist(tmp_path, gz=".gz") / "train-images-idx3-ubyte.gz"
    whole = idx_bytes(IMAGES)
    for length in range(len(whole)):
        write(path, whole[:length])
        with pytest.raises(DataError, match=path.name):
            load(tmp_path)
    write(path, whole[:-1])
    with pytest.raises(DataError, match=r"takes 24 bytes. Received: 23"):
        load(tmp_path)


@pytest.mark.parametrize("gz", ["", ".gz"])
def test_idx_too_long(tmp_path, gz):
    path = mnist(tmp_path, gz=gz) / f"train-images-idx3-ubyte{gz}"
    write(path, idx_bytes(IMAGES) + b"\0")
    with pytest.raises(DataError, match=r"takes 24 bytes. Received: more than 24"):
        load(tmp_path)


def test_idx_gzip_corrupted(tmp_path):
    path = mnist(tmp_path, gz=".gz") / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for at in (0, 2, 12, 15, len(whole) - 8, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with pytest.raises(DataError, match=path.name):
            load(tmp_path)


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("shape", [(2**32 - 1,) * 3, (2**32 - 1,) * 32, (1000, 1000, 1000)])
def test_idx_huge_claimed_sizes_allocate_no_memory(tmp_path, gz, shape):
    path = mnist(tmp_path, gz=gz) / f"train-images-idx3-ubyte{gz}"
    write(path, idx_bytes(IMAGES, shape=shape))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"claims shape.*can hold at most"):
        load(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


def test_idx_huge_sizes_beside_a_size_of_zero_are_refused(tmp_path):
    """Found by a fuzzer: an empty array whose shape is too large for NumPy."""
    path = mnist(tmp_path) / "train-images-idx3-ubyte"
    write(path, idx_bytes(IMAGES[:0], shape=(2**31, 2**31, 0, 2**31)))
    with pytest.raises(DataError, match="which exceeds any memory"):
        read_idx(path)


def test_idx_options_without_effect_are_refused(tmp_path):
    mnist(tmp_path)
    with pytest.raises(ArgumentError, match="target"):
        load(tmp_path, target="label")
    with pytest.raises(ArgumentError, match="header"):
        load(tmp_path, header=True)
    with pytest.raises(ArgumentError, match="'classification' for the set"):
        load(tmp_path, task="regression")


def test_fashion_mnist_as_distributed():
    folder = os.environ.get("NNBACKEND_FASHION_MNIST")
    if not folder:
        pytest.skip(
            "NNBACKEND_FASHION_MNIST is not set; the Debian package dataset-fashion-mnist "
            "has the four files"
        )
    data = load(folder)
    assert data.x.shape == (60000, 784)
    assert data.test.x.shape == (10000, 784)
    assert data.x.dtype == data.test.x.dtype == np.uint8
    assert data.classes == data.test.classes == tuple(range(10))
    assert np.bincount(data.y).tolist() == [6000] * 10
    assert np.bincount(data.test.y).tolist() == [1000] * 10
    # The first pictures are an ankle boot, a T-shirt and another T-shirt.
    assert data.y[:3].tolist() == [9, 0, 0]
    # Mean and standard deviation as published with the set.
    assert data.x.mean() / 255 == pytest.approx(0.2860, abs=5e-5)
    assert data.x.std() / 255 == pytest.approx(0.3530, abs=5e-5)
