"""The model file: loading returns the same network bit for bit, or raises ModelFileError."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import stat
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import nnbackend
from nnbackend.backend import Backend
from nnbackend.data.preprocessing import Preprocessing
from nnbackend.data.scalers import KINDS, Scaler, fit_scaler
from nnbackend.errors import ArgumentError, BackendError, ModelFileError
from nnbackend.model.model import Model, as_model, load
from nnbackend.network.activations import ACTIVATIONS, Activation, get_activation
from nnbackend.network.initializers import INITIALIZERS, Initializer, get_initializer
from nnbackend.network.layers import LAYERS, AbstractLayer, Dense, Dropout, Maxout
from nnbackend.network.losses import LOSSES, Loss, get_loss
from nnbackend.network.network import Network
from nnbackend.persistence import container
from nnbackend.persistence.building import build_layer
from nnbackend.persistence.container import DTYPES, FORMAT, HEADER_LIMIT, encode, read_model
from nnbackend.persistence.description import describe_layer, describe_model, model_tensors

ROOT = Path(__file__).resolve().parent.parent

cube = Activation("cube", lambda z: z**3, lambda z: 3 * z**2)
doubled = Loss("doubled", lambda a, y, xp: (xp.sum((a - y) ** 2, axis=1), 2 * (a - y)))


def network(layers: list[Any], *args: Any, **options: Any) -> Network:
    return Network(layers, *args, **{"device": "numpy", "seed": 3, **options})


def with_parts(net: Network, **parts: Any) -> Model:
    """Return a model of a network and parts of its preprocessing."""
    return Model.from_parts(net, Preprocessing(**parts))


def small() -> Model:
    net = network([2, Dense(3, "tanh"), Dropout(0.25), 2], "cross_entropy")
    scaler = Scaler("robust", np.array([0.5, -1.0]), np.array([2.0, 0.25]), 3.0)
    return with_parts(net, classes=("no", "yes"), scaler=scaler)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def assert_same(loaded: Model, saved: Model | Network) -> None:
    """Check that all stored attributes are equal, arrays bit for bit."""
    model = as_model(saved)
    net, other = loaded.network, model.network
    assert net.n_in == other.n_in
    assert net.layers == other.layers
    assert net.loss == other.loss
    assert (net.dtype, net.seed) == (other.dtype, other.seed)
    ours, theirs = loaded.preprocessing, model.preprocessing
    assert ours.classes == theirs.classes
    assert [type(c) for c in ours.classes or ()] == [type(c) for c in theirs.classes or ()]
    assert ours.columns == theirs.columns
    found, expected = model_tensors(net, ours), model_tensors(other, theirs)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes(), name
    for name in ("scaler", "target_scaler"):
        one, another = getattr(ours, name), getattr(theirs, name)
        assert (one is None) == (another is None)
        if one is not None:
            assert (one.kind, one.clip) == (another.kind, another.clip)


def round_trip(saved: Model | Network, path: Path, **options: Any) -> Model:
    model = as_model(saved)
    model.save(path)
    assert os.listdir(path.parent) == [path.name]
    loaded = load(path, "numpy", **options)
    assert_same(loaded, model)
    n_in = model.network.n_in
    x = np.linspace(-2, 2, 5 * n_in).reshape(5, n_in)
    np.testing.assert_array_equal(loaded.outputs(x), model.outputs(x))
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    return loaded


# --- round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_round_trip(name: str, dtype: str, path: Path) -> None:
    params = [0.3 for p in get_activation(name).params]
    phi = get_activation(name, *params)
    layers = [phi] if name == "softmax" else [phi, "identity"]
    loaded = round_trip(network([3, *(Dense(2, a) for a in layers)], dtype=dtype), path)
    (first, *_) = loaded.network.layers
    assert isinstance(first, Dense)
    assert first.activation.params == tuple(params)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_round_trip(name: str, dtype: str, path: Path) -> None:
    loss = get_loss(name, *[0.3 for p in get_loss(name).params])
    loaded = round_trip(network([3, 4, 2], loss, dtype=dtype), path)
    assert loaded.network.loss.params == loss.params
    assert (
        loaded.network.for_training()[1].kernel == network([3, 4, 2], loss).for_training()[1].kernel
    )


@pytest.mark.parametrize("name", sorted(INITIALIZERS))
def test_initializers_round_trip(name: str, path: Path) -> None:
    draw = get_initializer(name, *[0.3 for p in get_initializer(name).params])
    net = network([3, Dense(4, "relu", draw, draw), Maxout(3, 2, draw, draw), 1])
    loaded = round_trip(net, path)
    loaded.network.initialize(9)
    net.initialize(9)
    assert_same(loaded, net)


LAYER_EXAMPLES: dict[str, AbstractLayer] = {
    "dense": Dense(3, "elu", "normal", 0.5),
    "dropout": Dropout(0.125),
    "maxout": Maxout(2, 3, "lecun_normal"),
}


@pytest.mark.parametrize("kind", sorted(LAYERS))
def test_layers_round_trip(kind: str, path: Path) -> None:
    layer = LAYER_EXAMPLES[kind]
    described = json.loads(json.dumps(describe_layer(layer)))
    assert described["kind"] == kind
    assert build_layer(described, {}) == layer
    round_trip(network([4, 3, layer, Dropout(0), Dense(2, "identity")]), path)


@pytest.mark.parametrize("clip", [None, 2.5])
@pytest.mark.parametrize("kind", KINDS)
def test_scalers_round_trip(kind: Any, clip: float | None, path: Path, rng: Any) -> None:
    scaler = Scaler(kind, rng.normal(size=4), np.array([0.1, 1 / 3, 0.0, 5e-324]), clip)
    of_targets = fit_scaler("standard", rng.normal(size=(9, 2)))
    round_trip(with_parts(network([4, 5, 2]), scaler=scaler, target_scaler=of_targets), path)


@pytest.mark.parametrize(
    "classes",
    [
        ["", "naïve", "\ud800 \x7f\0\n\"\\/"],
        [0, -7, 2**63],
        [True, False, 2],
        [0.1, -0.0, 1e300],
        [np.str_("a"), np.int64(4), np.bool_(True)],
        ["1", 1, 1.5],
    ],
)  # fmt: skip
def test_classes_keep_their_types(classes: list[Any], path: Path) -> None:
    model = Model(network([2, 3], "cross_entropy"), classes=classes)
    model.save(path)
    loaded = load(path, "numpy")
    assert loaded.classes is not None
    assert [*map(repr, loaded.classes)] == [*map(repr, model.classes or ())]


def test_classes_found_in_training_round_trip(path: Path) -> None:
    model = Model(network([2, 4, 3], "quadratic"), scale="standard")
    x = np.arange(12.0).reshape(6, 2) / 12
    model.fit(x, np.array([0, 1, 2, 0, 1, 2]), epochs=1, seed=0)
    assert model.classes == (0, 1, 2)
    round_trip(model, path)


def test_a_fitted_model_is_fitted_when_it_is_loaded(path: Path) -> None:
    model = Model(network([2, 4, 2], "cross_entropy"), scale="standard")
    x = np.arange(12.0).reshape(6, 2)
    model.fit(x, ["a", "b"] * 3, epochs=1)
    loaded = round_trip(model, path)
    for each in (model, loaded):
        each.fit(x, ["b", "a"] * 3, epochs=2)
    assert_same(loaded, model)


def test_columns_and_seed_round_trip(path: Path) -> None:
    columns = {"columns": [{"name": "größe", "x": [1.5, None, True]}], "format": {"sha256": ""}}
    loaded = round_trip(with_parts(network([2, 1], seed=2**63), columns=columns), path)
    assert loaded.preprocessing.columns == columns


def test_nan_payloads_and_infinities_round_trip(path: Path) -> None:
    net = network([2, 2])
    bits = np.array([[0x7FC01234, 0xFF800000], [0x80000000, 0x00000001]], np.uint32)
    net.set_parameters([bits.view(np.float32)], [np.array([np.inf, -0.0])])
    Model(net).save(path)
    assert_same(load(path, "numpy"), net)


def test_infinite_parameters_round_trip(path: Path) -> None:
    round_trip(network([2, Dense(1, "identity", "normal")], get_loss("huber", np.inf)), path)


def test_a_custom_activation_must_be_passed_again(path: Path) -> None:
    net = network([2, Dense(3, cube), Maxout(2), Dense(1, cube)])
    round_trip(net, path, activations=[cube])
    with pytest.raises(ModelFileError, match=r"'cube'.*load\(path, activations=\[\.\.\.\]"):
        load(path, "numpy")
    other = Activation("cube", cube.f, cube.df, params=(2.0,))
    with pytest.raises(ModelFileError, match="'cube' must have the saved parameters"):
        load(path, "numpy", activations=[other])
    with pytest.raises(ArgumentError, match="activations must be a list"):
        load(path, "numpy", activations=["cube"])  # type: ignore[list-item]
    with pytest.raises(ArgumentError, match="losses must be a list"):
        load(path, "numpy", losses=[cube])  # type: ignore[list-item]


def test_a_custom_loss_must_be_passed_again(path: Path) -> None:
    round_trip(network([2, 3, 1], doubled), path, losses=(doubled,))
    with pytest.raises(ModelFileError, match=r"'doubled'.*load\(path, losses=\[\.\.\.\]"):
        load(path, "numpy", activations=[cube])


def test_a_custom_formula_may_have_a_built_in_name(path: Path) -> None:
    mine = Activation("relu", cube.f, cube.df)
    net = network([2, Dense(3, mine), Dense(3, "relu"), 1])
    loaded = round_trip(net, path, activations=[mine])
    assert [getattr(layer, "activation", None) is mine for layer in loaded.network.layers] == [
        *(True, False, False)
    ]
    with pytest.raises(ModelFileError, match="'relu'"):
        load(path, "numpy")


def test_a_custom_initializer_is_not_needed_to_load(path: Path) -> None:
    ones = Initializer("ones", lambda rng, shape, fan_in, fan_out: np.ones(shape))
    net = network([2, Dense(3, "relu", ones, ones), Dense(1, "identity")])
    Model(net).save(path)
    loaded = load(path, "numpy").network
    np.testing.assert_array_equal(loaded.weights[0], np.ones((2, 3)))
    np.testing.assert_array_equal(loaded.biases[0], np.ones(3))
    assert loaded.layers[0] == Dense(3, "relu")


def test_the_public_functions_are_these(path: Path) -> None:
    assert nnbackend.load is load
    assert nnbackend.Model is Model
    small().save(str(path))
    assert_same(load(str(path)), small())


def test_a_loaded_network_trains_like_the_saved_one(path: Path) -> None:
    net = small().network
    Model(net).save(path)
    loaded = load(path, "numpy")
    x, y = np.arange(8.0).reshape(4, 2), np.array([0, 1, 1, 0])
    for each in (net, loaded.network):
        nnbackend.train(each, x, y, epochs=2, batch_size=2, seed=1)
    assert_same(loaded, net)


def test_outputs_are_the_same_in_another_process(path: Path, rng: Any) -> None:
    net = network([6, Dense(9, "gelu"), Dropout(0.5), Maxout(5, 3), 3], "cross_entropy")
    model = with_parts(net, scaler=fit_scaler("robust", rng.normal(size=(50, 6))))
    x = rng.normal(size=(40, 6))
    model.save(path)
    np.save(path.with_name("x.npy"), x)
    code = (
        "import sys, numpy, nnbackend; model = nnbackend.load(sys.argv[1], 'numpy');"
        "numpy.save(sys.argv[3], model.outputs(numpy.load(sys.argv[2])))"
    )
    files = [str(path), str(path.with_name("x.npy")), str(path.with_name("out.npy"))]
    where = os.pathsep.join([str(ROOT), str(ROOT / "backends")])
    subprocess.run(
        [sys.executable, "-c", code, *files], env={**os.environ, "PYTHONPATH": where}, check=True
    )
    assert np.load(files[2]).tobytes() == model.outputs(x).tobytes()


def test_files_of_one_device_load_on_another(backend: Backend, path: Path, rng: Any) -> None:
    """The values are equal bit for bit, from the backend to NumPy and back."""
    x = rng.normal(size=(12, 4)).astype("float32")
    net = Network([4, Dense(5, "tanh"), Dropout(0.2), Maxout(3), 2], device=backend)
    model = Model(net, scale="standard", scale_targets=True)
    model.fit(x, x[:, :2], epochs=1)
    model.save(path)
    there = load(path, "numpy")
    assert_same(there, model)
    there.save(path)
    back = load(path, backend)
    assert_same(back, model)
    np.testing.assert_array_equal(back.predict(x), model.predict(x))


def test_the_same_network_gives_the_same_file(path: Path) -> None:
    small().save(path)
    first = path.read_bytes()
    load(path, "numpy").save(path)
    assert path.read_bytes() == first


def test_any_safetensors_reader_reads_it(path: Path) -> None:
    model = small()
    model.save(path)
    tensors = safetensors.numpy.load_file(path)
    assert {name: a.dtype.name for name, a in tensors.items()} == {
        **dict.fromkeys(["weights.0", "biases.0", "weights.1", "biases.1"], "float32"),
        **dict.fromkeys(["scaler.shift", "scaler.factor"], "float64"),
    }
    np.testing.assert_array_equal(tensors["weights.1"], model.network.weights[1])
    assert b"pickle" not in path.read_bytes()


def test_an_unknown_device_raises_backend_error(path: Path) -> None:
    small().save(path)
    with pytest.raises(BackendError):
        load(path, "nosuchdevice")


# --- networks that cannot be saved ----------------------------------------------------------------


class Strange(Dropout):
    """A custom layer."""


Spoil = Callable[[Model], object]


def known(**parts: Any) -> Spoil:
    """Return a function that replaces parts of a model's preprocessing."""
    return lambda m: setattr(m, "preprocessing", replace(m.preprocessing, **parts))


def part_of_network(name: str, value: Any) -> Spoil:
    """Return a function that replaces an attribute of a model's network."""
    return lambda m: setattr(m.network, name, value(m.network) if callable(value) else value)


OTHER_CUBE = Activation("cube", lambda z: z, lambda z: 1 + 0 * z)
BAD_MODELS: dict[str, tuple[Spoil, str]] = {
    "columns": (known(columns={"a": object()}), "plain data"),
    "columns with nan": (known(columns={"a": np.nan}), "plain data"),
    "columns with twins": (known(columns={1: 0, "1": 0}), "twice"),
    "columns of a list": (known(columns=[1]), "columns must be"),
    "columns of pairs": (known(columns=[("a", 1)]), "columns must be"),
    "classes": (known(classes=("a",)), "2 different labels"),
    "equal classes": (known(classes=("a", "a")), "2 different labels"),
    "a label": (known(classes=(b"a", b"b")), "classes must be"),
    "a label of nan": (known(classes=(0.0, np.nan)), "finite"),
    "a huge label": (known(classes=(0, 1 << 70)), "whole number"),
    "scaler": (
        known(scaler=Scaler("unit", np.zeros(1), np.ones(1))),
        "scaler.shift must be float64 of shape",
    ),
    "layer": (part_of_network("layers", lambda net: (Strange(0.1), *net.layers)), "Strange"),
    "two cubes": (
        part_of_network("layers", (Dense(3, cube), Dense(2, OTHER_CUBE))),
        "two different ones",
    ),
    "a long header": (known(columns={"a": "x" * HEADER_LIMIT}), "length of its header"),
    "a parameter": (
        part_of_network("loss", Loss("mine", doubled.formula, ("x",))),  # type: ignore[arg-type]
        "must be a number",
    ),
}


@pytest.mark.parametrize("what", sorted(BAD_MODELS))
def test_a_model_that_could_not_be_loaded_is_not_written(what: str, path: Path) -> None:
    small().save(path)
    before = path.read_bytes()
    model = small()
    spoil, message = BAD_MODELS[what]
    spoil(model)
    with pytest.raises(ArgumentError, match=message):
        model.save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_the_folder_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="folder of the file must exist"):
        small().save(tmp_path / "nowhere" / "model.safetensors")
    with pytest.raises(ArgumentError, match="must be that of a file"):
        small().save(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX files")
def test_links_permissions_and_devices(tmp_path: Path) -> None:
    original, link, model = tmp_path / "original", tmp_path / "link", tmp_path / "model"
    original.write_text("text")
    link.symlink_to(original)
    small().save(link)
    assert not link.is_symlink()
    assert original.read_text() == "text"
    small().save(model)
    model.chmod(0o600)
    small().save(model)
    assert model.stat().st_mode & 0o777 == 0o600
    model.unlink()
    model.symlink_to(link)
    assert_same(load(model, "numpy"), small())
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArgumentError, match="must be that of a file"):
        small().save(tmp_path / "pipe")
    with pytest.raises(ArgumentError, match="must be that of a file"):
        small().save("/dev/null")


# --- atomic writes --------------------------------------------------------------------------------


def fail(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def write_in_place(model: Model, path: Path) -> None:
    """Write the file in place, without atomicity, as a counterexample."""
    parts = model.network, model.preprocessing
    data = encode(describe_model(*parts), model_tensors(*parts))
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
        file.flush()
        os.fsync(file.fileno())
        file.write(data[len(data) // 2 :])


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_failing_disk_keeps_the_old_file(
    call: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = small(), Model(network([5, 7, 1]))
    old.save(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="No space left"):
            new.save(path)
    assert_same(load(path, "numpy"), old)
    assert os.listdir(path.parent) == [path.name]
    new.save(path)
    assert_same(load(path, "numpy"), new)


def test_the_same_failure_destroys_a_file_written_in_place(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = small(), Model(network([5, 7, 1]))
    old.save(path)
    write_in_place(new, path)
    assert_same(load(path, "numpy"), new)
    old.save(path)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_in_place(new, path)
    with pytest.raises(ModelFileError):
        load(path, "numpy")


def test_an_interrupt_keeps_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    small().save(path)
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Model(network([5, 7, 1])).save(path)
    assert_same(load(path, "numpy"), small())
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.skipif(os.name == "nt", reason="folders are synced on POSIX only")
@pytest.mark.parametrize(("number", "is_error"), [(22, False), (5, True)])
def test_the_folder_is_synced_last(
    number: int, is_error: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(handle: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)
        if len(calls) == 3:
            raise OSError(number, "no")

    def spy_replace(one: Path, other: Path) -> None:
        calls.append("replace")
        replace(one, other)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    if is_error:
        with pytest.raises(OSError, match="no"):
            small().save(path)
    else:  # EINVAL: the file system does not support it
        small().save(path)
    assert calls == ["file", "replace", "folder"]
    monkeypatch.undo()
    assert_same(load(path, "numpy"), small())


# --- damage ---------------------------------------------------------------------------------------


def error_of(data: bytes, path: Path) -> str:
    """Return the error message of loading `data`."""
    path.write_bytes(data)
    with pytest.raises(ModelFileError) as caught:
        load(path, "numpy")
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message) < 2000
    return message


def test_every_truncation_is_refused(path: Path) -> None:
    small().save(path)
    data = path.read_bytes()
    for length in range(len(data)):
        error_of(data[:length], path)
    error_of(data + b"\0", path)


def test_flipped_bits_are_refused(path: Path, rng: np.random.Generator) -> None:
    small().save(path)
    data = path.read_bytes()
    for bit in rng.choice(8 * len(data), 500, replace=False):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << (bit % 8)
        error_of(bytes(damaged), path)


def test_exchanged_tensors_are_refused(path: Path) -> None:
    Model(network([3, 3, 3])).save(path)
    data = path.read_bytes()
    exchanged = data.replace(b'"weights.0"', b'"weights.x"').replace(b'"weights.1"', b'"weights.0"')
    exchanged = exchanged.replace(b'"weights.x"', b'"weights.1"')
    assert exchanged != data
    assert "checksum" in error_of(exchanged, path)


# --- forged descriptions with valid checksums -----------------------------------------------------


def parts() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    model = small()
    both = model.network, model.preprocessing
    return json.loads(json.dumps(describe_model(*both))), model_tensors(*both)


def test_an_unchanged_forgery_loads(path: Path) -> None:
    path.write_bytes(encode(*parts()))
    assert_same(load(path, "numpy"), small())


def wide(described: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    described["n_in"] = described["layers"][0]["n_out"] = 10**9


def false_sizes(described: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    wide(described, arrays)
    arrays.clear()
    arrays["weights.0"] = np.zeros((1, 1), np.float32)


def edit(*place: Any, value: Any) -> Callable[[dict[str, Any], dict[str, np.ndarray]], None]:
    def change(described: Any, arrays: dict[str, np.ndarray]) -> None:
        for key in place[:-1]:
            described = described[key]
        described[place[-1]] = value

    return change


def put(name: str, array: Any) -> Callable[[dict[str, Any], dict[str, np.ndarray]], None]:
    return lambda described, arrays: arrays.update({name: np.asarray(array)})


FORGERIES: dict[str, tuple[Callable[[dict[str, Any], dict[str, np.ndarray]], object], str]] = {
    "wide": (wide, r"must be float32 of shape \(1000000000, 1000000000\)"),
    "false sizes": (false_sizes, "missing"),
    "newer": (edit("format", value=FORMAT + 1), "newer nnbackend"),
    "format 0": (edit("format", value=0), "format must be a version"),
    "format true": (edit("format", value=True), "format must be a version"),
    "format of text": (edit("format", value="1"), "format must be a version"),
    "a further entry": (edit("code", value="import os"), "must have the entries"),
    "an absent entry": (lambda d, t: d.pop("seed"), "must have the entries"),
    "dtype": (edit("dtype", value="float64"), "must be float64 of shape"),
    "unknown dtype": (edit("dtype", value="object"), "dtype='object'"),
    "seed": (edit("seed", value=-1), "seed must be"),
    "seed of text": (edit("seed", value="1"), "seed must be"),
    "n_in": (edit("n_in", value=0), "n_in must be"),
    "n_in of text": (edit("n_in", value="2"), "n_in must be"),
    "n_in true": (edit("n_in", value=True), "n_in must be"),
    "layers of text": (edit("layers", value="dense"), "list of layers"),
    "no layers": (edit("layers", value=[]), "unexpected"),
    "no layers, no tensors": (
        lambda d, t: (d.update(layers=[], scaler=None), t.clear()),
        "at least one layer",
    ),
    "a layer of text": (edit("layers", 0, value="dense"), "known kind"),
    "a layer of nothing": (edit("layers", 0, value=None), "known kind"),
    "unknown layer": (edit("layers", 0, "kind", value="densse"), "Did you mean 'dense'"),
    "kind of list": (edit("layers", 0, "kind", value=["dense"]), "known kind"),
    "layer's extra": (edit("layers", 0, "bias", value=1), "dense layer must have the entries"),
    "n_out": (edit("layers", 0, "n_out", value=-3), "n_out must be"),
    "n_out of list": (edit("layers", 0, "n_out", value=[3]), "n_out must be numbers"),
    "n_out of fraction": (edit("layers", 0, "n_out", value=3.0), "n_out must be"),
    "n_out too long": (edit("layers", 0, "n_out", value=10**30), "whole number"),
    "drop_rate": (edit("layers", 1, "drop_rate", value=1.0), "drop_rate must be"),
    "drop_rate of text": (edit("layers", 1, "drop_rate", value="0"), "drop_rate must be"),
    "dropout last": (
        lambda d, t: d["layers"].append({"kind": "dropout", "drop_rate": 0.5}),
        "last layer",
    ),
    "hidden softmax": (edit("layers", 0, "activation", "name", value="softmax"), "softmax"),
    "activation": (edit("layers", 0, "activation", value="tanh"), "activation must have"),
    "activation's name": (edit("layers", 0, "activation", "name", value="os"), "known name"),
    "activation's name a list": (edit("layers", 0, "activation", "name", value=[]), "a name"),
    "activation's params": (edit("layers", 0, "activation", "params", value=[1]), "valid param"),
    "params of lists": (edit("layers", 0, "activation", "params", value=[[1]]), "must be numbers"),
    "params of text": (edit("layers", 0, "weights", "params", value="12"), "list of numbers"),
    "own": (edit("layers", 0, "activation", "own", value=1), "true or false"),
    "initializer": (edit("layers", 0, "weights", "name", value="eval"), "known name"),
    "loss": (edit("loss", value={"name": "hinge", "params": [], "own": False}), "known name"),
    "loss's params": (
        edit("loss", value={"name": "huber", "params": [-1], "own": False}),
        "threshold",
    ),
    "classes": (edit("classes", value=["no"]), "2 different labels"),
    "classes of lists": (edit("classes", value=[[1], [2]]), "2 different labels"),
    "classes of text": (edit("classes", value="ny"), "2 different labels"),
    "columns": (edit("columns", value=[]), "columns must be"),
    "scaler": (edit("scaler", value="robust"), "scaler must have the entries"),
    "scaler's kind": (edit("scaler", "kind", value="evil"), "known kind"),
    "scaler's kind a list": (edit("scaler", "kind", value=["unit"]), "known kind"),
    "clip": (edit("scaler", "clip", value=-1), "clip must be"),
    "clip of text": (edit("scaler", "clip", value="3"), "clip of scaler must be numbers"),
    "scaler without tensors": (
        edit("target_scaler", value={"kind": "unit", "clip": None}),
        "missing",
    ),
    "tensors without scaler": (edit("scaler", value=None), "unexpected"),
    "scaler of nan": (put("scaler.shift", [0.0, np.nan]), "finite"),
    "scaler of inf": (put("scaler.factor", [0.0, np.inf]), "finite"),
    "scaler's shape": (put("scaler.shift", [0.0]), r"shape \(2,\)"),
    "scaler's dtype": (put("scaler.shift", np.zeros(2, np.float32)), "must be float64"),
    "absent tensor": (lambda d, t: t.pop("biases.1"), "'biases.1'.*missing"),
    "extra tensor": (put("weights.2", [1.0]), "'weights.2'.*unexpected"),
    "path in a name": (put("../../weights.0", [1.0]), "unexpected"),
    "misshapen": (put("weights.0", np.zeros((3, 2), np.float32)), r"Received: .*\(3, 2\)"),
    "flat": (put("weights.0", np.zeros(6, np.float32)), r"Received: .*\(6,\)"),
    "wrong dtype": (put("weights.0", np.zeros((2, 3))), "Received: float64"),
    "whole numbers": (put("weights.0", np.zeros((2, 3), np.int32)), "F32 or F64"),
    "half precision": (put("weights.0", np.zeros((2, 3), np.float16)), "F32 or F64"),
    "three dimensions": (put("weights.0", np.zeros((1, 2, 3), np.float32)), "one or two sizes"),
    "empty tensor": (put("weights.0", np.zeros((0, 3), np.float32)), "one or two sizes"),
}  # fmt: skip


@pytest.mark.parametrize("what", sorted(FORGERIES))
def test_forgeries_are_refused(what: str, path: Path) -> None:
    described, arrays = parts()
    forge, message = FORGERIES[what]
    forge(described, arrays)

    text = error_of(encode(described, arrays), path)
    assert re.search(message, text), text


def test_no_network_is_built_for_false_sizes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is raised before any array is allocated."""

    def build(*_: object, **__: object) -> None:
        raise AssertionError("a network was built")

    monkeypatch.setattr("nnbackend.persistence.building.Network", build)
    described, arrays = parts()
    wide(described, arrays)
    error_of(encode(described, arrays), path)


# --- forged headers -------------------------------------------------------------------------------

TEXT = json.dumps({"format": FORMAT, "sha256": "0" * 64})
METADATA = json.dumps({"__metadata__": {"nnbackend": TEXT}})[1:-1]


def raw(header: str | bytes, body: bytes = b"", length: int | None = None) -> bytes:
    header = header.encode() if isinstance(header, str) else header
    return (len(header) if length is None else length).to_bytes(8, "little") + header + body


def tensors(entries: str, body: bytes = b"") -> bytes:
    return raw(f"{{{METADATA}, {entries}}}", body)


def tensor(shape: Any, begin: Any, end: Any, name: str = "weights.0", dtype: Any = "F32") -> str:
    return json.dumps({name: {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}})[1:-1]


HEADERS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "nothing in a file of 0 bytes"),
    "short": (b"\x10\0\0", "file of 3 bytes"),
    "zeros": (bytes(64), "length of its header"),
    "text": (b"# not a model, but a page of text that was renamed\n" * 9, "length"),
    "zip": (b"PK\x03\x04" + bytes(200), "length of its header"),
    "pickle": (b"\x80\x05\x95" + bytes(200), "length of its header"),
    "huge header": (raw("{}", length=2**63), "length of its header"),
    "all bits": (b"\xff" * 64, "length of its header"),
    "header longer than the file": (raw("{}", length=3), "length of its header"),
    "header over the limit": (raw(b" " * (HEADER_LIMIT + 1)), "length of its header"),
    "no json": (raw("hello, world"), "valid JSON"),
    "no object": (raw('["__metadata__"]'), "JSON object"),
    "a number": (raw("1234567"), "JSON object"),
    "cut off": (raw('{"__metadata__": {"nnbackend'), "valid JSON"),
    "rubbish after": (raw("{}  {}"), "valid JSON"),
    "wrong utf-8": (raw(b'{"\xff\xfe": 1}'), "UTF-8"),
    "utf-16": (raw("{}".encode("utf-16")), "UTF-8"),
    "lone surrogate": (
        raw(json.dumps({"__metadata__": {"nnbackend": TEXT[:-1] + " \ud800" + TEXT[-1]}})),
        "valid JSON",
    ),
    "surrogate in the text": (
        raw(
            json.dumps(
                {
                    "__metadata__": {
                        "nnbackend": '{"format": 1, "x": "\ud800", "sha256": "' + "0" * 64 + '"}'
                    }
                }
            )
        ),
        "safetensors|checksum",
    ),
    "deep": (raw('{"a":' + "[" * 100_000 + "]" * 100_000 + "}"), "valid JSON"),
    "deep objects": (raw('{"a":' * 100_000 + "1" + "}" * 100_000), "valid JSON"),
    "deep inside": (
        raw(json.dumps({"__metadata__": {"nnbackend": "[" * 100_000}})),
        "description must be valid",
    ),
    "not a number": (raw('{"a": NaN}'), "valid JSON"),
    "infinity": (raw('{"a": 1e999}'), "valid JSON"),
    "a long number": (raw('{"a": ' + "9" * 100_000 + "}"), "valid JSON"),
    "double key": (raw(f"{{{METADATA}, {METADATA}}}"), "twice"),
    "double tensor": (
        tensors(f"{tensor([1], 0, 4)}, {tensor([1], 0, 4)}", bytes(4)),
        "twice",
    ),
    "double key inside": (
        raw(json.dumps({"__metadata__": {"nnbackend": '{"format": 1, "format": 1}'}})),
        "twice",
    ),
    "no metadata": (raw("{" + tensor([1], 0, 4) + "}", bytes(4)), "another program"),
    "metadata of text": (raw('{"__metadata__": "nnbackend"}'), "another program"),
    "other metadata": (raw('{"__metadata__": {"format": "pt"}}'), "another program"),
    "metadata of numbers": (raw('{"__metadata__": {"nnbackend": 1}}'), "another program"),
    "more metadata": (
        raw(json.dumps({"__metadata__": {"nnbackend": TEXT, "x": ""}})),
        "one entry",
    ),
    "no description": (raw('{"__metadata__": {"nnbackend": "[]"}}'), "format must be"),
    "no checksum": (
        raw(json.dumps({"__metadata__": {"nnbackend": '{"format": 1}'}})),
        "end with its checksum",
    ),
    "short checksum": (
        raw(json.dumps({"__metadata__": {"nnbackend": '{"format": 1, "sha256": "00"}'}})),
        "end with its checksum",
    ),
    "checksum first": (
        raw(
            json.dumps(
                {"__metadata__": {"nnbackend": json.dumps({"sha256": "0" * 64, "format": 1})}}
            )
        ),
        "end with its checksum",
    ),
    "newer and otherwise strange": (
        raw('{"__metadata__": {"nnbackend": "{\\"format\\": 2}", "x": "y"}, "t": 1}'),
        "newer nnbackend",
    ),
    "other checksum": (tensors(tensor([1], 0, 4), bytes(4)), "checksum"),
    "claims": (tensors(tensor([10**9, 10**9], 0, 4 * 10**18), bytes(4)), "fill the file"),
    "overflow": (tensors(tensor([2**62, 4], 0, 0), bytes(4)), "that agree"),
    "wrap around": (tensors(tensor([2**63], 0, 2**64 - 1), bytes(4)), "that agree"),
    "too few": (tensors(tensor([1], 0, 4), bytes(3)), "fill the file"),
    "too many": (tensors(tensor([1], 0, 4), bytes(5)), "fill the file"),
    "none": (raw(f"{{{METADATA}}}", bytes(4)), "fill the file"),
    "a gap": (
        tensors(f"{tensor([1], 0, 4)}, {tensor([1], 8, 12, 'b')}", bytes(12)),
        "fill the file",
    ),
    "overlap": (
        tensors(f"{tensor([2], 0, 8)}, {tensor([2], 4, 12, 'b')}", bytes(12)),
        "fill the file",
    ),
    "one place for two": (
        tensors(f"{tensor([1], 0, 4)}, {tensor([1], 0, 4, 'b')}", bytes(4)),
        "fill the file",
    ),
    "backwards": (tensors(tensor([1], 4, 0), bytes(4)), "that agree"),
    "negative": (tensors(tensor([-1], 0, -4), bytes(4)), "that agree"),
    "two negatives": (tensors(tensor([-1, -1], 0, 4), bytes(4)), "that agree"),
    "fraction": (tensors(tensor([1.0], 0, 4), bytes(4)), "that agree"),
    "true": (tensors(tensor([True], 0, 4), bytes(4)), "that agree"),
    "scalar": (tensors(tensor([], 0, 4), bytes(4)), "that agree"),
    "shape of text": (tensors(tensor(["a", 10**18], 0, 4), bytes(4)), "that agree"),
    "shape of lists": (tensors(tensor([[0], 10**18], 0, 4), bytes(4)), "that agree"),
    "shape of an object": (tensors(tensor({"1": 1}, 0, 4), bytes(4)), "that agree"),
    "shape of a number": (tensors(tensor(1, 0, 4), bytes(4)), "that agree"),
    "shape of nothing": (tensors(tensor(None, 0, 4), bytes(4)), "that agree"),
    "offsets of text": (tensors(tensor([1], "0", "4"), bytes(4)), "that agree"),
    "dtype": (tensors(tensor([1], 0, 4, dtype="O"), bytes(4)), "that agree"),
    "dtype of list": (tensors(tensor([1], 0, 4, dtype=["F32"]), bytes(4)), "that agree"),
    "three offsets": (
        tensors('"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}', bytes(4)),
        "that agree",
    ),
    "offsets of a word": (
        tensors('"a": {"dtype": "F32", "shape": [1], "data_offsets": "04"}', bytes(4)),
        "that agree",
    ),
    "further entry": (
        tensors('"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "x": 1}', bytes(4)),
        "that agree",
    ),
    "absent entry": (tensors('"a": {"dtype": "F32", "shape": [1]}', bytes(4)), "that agree"),
    "no entry": (tensors('"a": "F32"', bytes(4)), "that agree"),
}


@pytest.mark.parametrize("what", sorted(HEADERS))
def test_hostile_headers_are_refused(what: str, path: Path) -> None:

    data, message = HEADERS[what]
    text = error_of(data, path)
    assert re.search(message, text), text


@pytest.mark.skipif(os.name == "nt", reason="a file with holes")
def test_a_huge_sparse_file_is_refused_by_its_header(path: Path) -> None:
    """A sparse file of a terabyte is refused without reading it."""
    path.write_bytes(raw("{" + tensor([2**38], 0, 2**40) + "}"))
    os.truncate(path, path.stat().st_size + 2**40)
    with pytest.raises(ModelFileError, match="another program"):
        load(path, "numpy")


# --- paths that are not files ---------------------------------------------------------------------


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"absent: The file must exist"):
        load(tmp_path / "absent")
    with pytest.raises(ModelFileError, match="regular file"):
        load(tmp_path)
    with pytest.raises(ModelFileError, match="must be readable"):
        load(tmp_path / "\0")
    with pytest.raises(ModelFileError, match="must be readable"):
        load(tmp_path / ("x" * 5000))


@pytest.mark.skipif(os.name == "nt", reason="POSIX files")
def test_pipes_devices_sockets_and_loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    monkeypatch.chdir(tmp_path)  # a socket's name must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for name in ("pipe", "null", "socket", "/dev/zero"):
            with pytest.raises(ModelFileError, match="regular file"):
                load(name)
    for name in ("loop", "gone"):
        with pytest.raises(ModelFileError):
            load(name)


def test_a_failing_read_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small().save(path)

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(ModelFileError, match="Permission denied"):
        load(path)


def test_read_model_returns_description_and_arrays(path: Path) -> None:
    """The low-level reader, which other programs may use."""
    small().save(path)
    description, arrays = read_model(path)
    assert description["versions"]["nnbackend"] == nnbackend.__version__
    assert {a.dtype.name for a in arrays.values()} == set(DTYPES.values())
    assert container.FORMAT == description["format"] == 1


# --- files of earlier versions --------------------------------------------------------------------

# A file of format 1 as the safetensors library wrote it, compressed, in base64.
FORMAT_1 = (
    "eNrNVF2OmzAQ5qVSH3uEyM8I2fw6eWj2qeodQkQdMAlawAib3aZRpD1Cj9Aj9Ah7hB6hR+gRdmyzSVakq+1bLY1gPs"
    "9834zN8PmdY9YBZVnDFSuYYlmGFgfUthuW3/K2QAt0SFEp+oapFC1mxJ2l6I73shKt1ADsnoK1nyLsEQ+nSAe2Q9Pt"
    "Lep7oRen6KjhQu07buGyFkwFvg2XnBuOxORmVasdXzs124OmdlcgeFs9azXsqxjUKJaZ1zGjzbqK51yegHtebXfqVD"
    "Nrxgq2teiFyoa20l1aqo71rLFya+2Le1NKyWrJTQebikk+5frGeyHfQAEcL9ooetGd+tBO1jNlOLEXTYJ5K/m1llmu"
    "qjum4GYmhUlRKjirN3b3Xx2VgWohpxQ5MMiMtwoObD+hwh6+XlBeMzlWtAI6YTP3GjEJMmc170e187H3YjPI8Yryuu"
    "o0GnjYUCrWb7nKzpntUNcmUNRDYwflGZI75kex5QySYj6PNxGj8yAOqE8TGm5YQTasDHNCkyThQURJTDAJIpyHBOdJ"
    "SCKe5DjiBaEwTzBRY8VeCR+A6PX4mgGD0f0Uh8jVitpb+WsXmREXZSm5kgBhl8TrM4PcVaX6JwISu4GvGew1e/hFdu"
    "BfZIfT7MB3Q3qRTf6efUU7pG5kqh+/19fEQWhKEMUupZcEr+m7Vyqg1CU4XB+PM7Ps3/T30j4/3Njnn9F3wH+E919L"
    "G2NwwN6Pcc5Hx3kAewRzYG8GdgP2BewB7DvYD7CfyydtbLKa"
)


def test_a_file_of_format_1_is_readable(path: Path) -> None:
    path.write_bytes(zlib.decompress(base64.b64decode(FORMAT_1)))
    model = load(path, "numpy")
    np.testing.assert_array_equal(model.network.theta, np.arange(18) / 8)
    assert model.classes == ("no", "yes")
    assert [type(layer).__name__ for layer in model.network.layers] == [
        "Maxout",
        "Dropout",
        "Dense",
    ]
    scaler = model.preprocessing.scaler
    assert scaler is not None
    assert (scaler.kind, scaler.clip, scaler.factor.tolist()) == ("robust", 3, [0.5, 4])
    expected = [[0.35936415, 0.6406359], [0.46974468, 0.5302553]]
    np.testing.assert_allclose(model.outputs([[1.0, 2.0], [3.0, -1.0]]), expected, rtol=1e-6)
