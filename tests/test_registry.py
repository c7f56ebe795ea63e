"""Device strings, their errors, and plug-ins of every kind."""

from __future__ import annotations

import logging
import sys
import types
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.backend import API_VERSION, BackendSpec, Device, Probe
from nnbackend.devices import registry
from nnbackend.errors import (
    ArgumentError,
    BackendError,
    BackendUnavailableError,
    BackendVersionError,
    UnknownBackendError,
)
from nnbackend.testing.reference import ReferenceBackend


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(registry.VARIABLE, raising=False)
    registry.refresh()
    yield
    registry.refresh()


class Numbered(ReferenceBackend):
    def __init__(self, name: str, index: int) -> None:
        self.name, self.device = name, f"{name}:{index}"


class Plugins:
    """Entry points of a test, with numpy as the only built-in backend."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.points: list[Any] = []
        self.monkeypatch = monkeypatch
        monkeypatch.setattr(registry, "BUILT_IN", {"numpy": "nnbackend_numpy:SPEC"})
        monkeypatch.setattr(metadata, "entry_points", self._find)
        self._anonymous = 0

    def _find(self, *, group: str) -> list[Any]:
        return self.points if group == registry.GROUP else []

    def add(self, name: str, spec: Any = None, *, value: str = "", owner: str = "plug") -> None:
        """Install an entry point that names `spec`, in a separate module."""
        if not value:
            self._anonymous += 1
            module = types.ModuleType(f"plugin_{self._anonymous}")
            module.SPEC = spec  # type: ignore[attr-defined]
            self.monkeypatch.setitem(sys.modules, module.__name__, module)
            value = f"{module.__name__}:SPEC"
        dist = types.SimpleNamespace(name=owner, version="1.2")
        self.points.append(types.SimpleNamespace(name=name, value=value, dist=dist))
        registry.refresh()

    def device(self, name: str, count: int = 1, *, kind: str = "gpu", priority: int = 5,
               reason: str = "", cure: str = "", **options: Any) -> None:  # fmt: skip
        """Install a working backend with `count` devices, over NumPy."""
        self.add(name, BackendSpec(
            name=name, kind=kind, priority=priority,
            probe=options.pop("probe", lambda: Probe(count, reason, cure)),
            load=options.pop("load", lambda index: Numbered(name, index)), **options,
        ))  # fmt: skip


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Plugins:
    return Plugins(monkeypatch)


# ---- the grammar ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "device"),
    [
        ("numpy", "numpy:0"), ("numpy:0", "numpy:0"), ("NumPy", "numpy:0"), (" numpy ", "numpy:0"),
        ("cpu", "numpy:0"), ("cpu:0", "numpy:0"), ("gpu", "fast:0"), ("gpu:1", "fast:1"),
        ("GPU:0", "fast:0"), ("fast", "fast:0"), ("fast:2", "fast:2"), ("auto", "fast:0"),
        (None, "fast:0"),
    ],
)  # fmt: skip
def test_device_strings(word: str | None, device: str, plugins: Plugins) -> None:
    plugins.device("fast", 3)
    assert nn.get_backend(word).device == device


def test_a_backend_is_returned_unchanged_and_a_device_is_one_object(plugins: Plugins) -> None:
    plugins.device("fast", 2)
    backend = nn.get_backend("fast:1")
    assert nn.get_backend(backend) is backend
    assert nn.get_backend("gpu:1") is backend
    assert nn.get_backend("fast:0") is not backend


@pytest.mark.parametrize(
    "word",
    [
        "gpu:",
        "gpu:x",
        "gpu:-1",
        "gpu:1.5",
        "numpy:0:1",
        "gpu: 1",
        "many:",
        "many:mps:",
        "many:mps:x",
        "many:mps:0:1",
        "cpu:cpu",
    ],
)
def test_invalid_device_strings(word: str) -> None:
    expected = rf"WORD, WORD:NUMBER or NAME:TYPE:NUMBER. Received: device='{word}'"
    with pytest.raises(ArgumentError, match=expected):
        nn.get_backend(word)


@pytest.mark.parametrize("thing", [0, 1.5, True, np, ["cpu"], b"cpu"], ids=str)
def test_devices_that_are_no_strings(thing: Any) -> None:
    with pytest.raises(ArgumentError, match=r"device must be a string or a Backend. Received"):
        nn.get_backend(thing)


@pytest.mark.parametrize(("word", "near"), [("numpi", "numpy"), ("nunpy:0", "numpy")])
def test_an_unknown_name_suggests_the_closest(word: str, near: str) -> None:
    with pytest.raises(UnknownBackendError, match=rf"no backend .*Did you mean '{near}'") as caught:
        nn.get_backend(word)
    assert isinstance(caught.value, ValueError)
    assert "auto, cpu, gpu" in str(caught.value)


def test_an_index_out_of_range(plugins: Plugins) -> None:
    plugins.device("fast", 2)
    for word in ("fast:2", "gpu:2", "fast:999999999999"):
        with pytest.raises(BackendUnavailableError, match=r"has 2 devices \(fast:0, fast:1\)"):
            nn.get_backend(word)
    with pytest.raises(BackendUnavailableError, match="no CPU device has the number 9"):
        nn.get_backend("cpu:9")
    with pytest.raises(BackendUnavailableError, match=r"numpy has 1 device \(numpy:0\)"):
        nn.get_backend("cpu:1")


# ---- the environment --------------------------------------------------------------------------


def test_the_environment_is_the_default_of_the_argument(
    monkeypatch: pytest.MonkeyPatch, plugins: Plugins
) -> None:
    plugins.device("fast", 2)
    monkeypatch.setenv("NNBACKEND_DEVICE", "fast:1")
    assert nn.get_backend().device == "fast:1"
    assert nn.get_backend("numpy").device == "numpy:0"
    assert nn.Network([2, 1]).backend.device == "fast:1"
    monkeypatch.setenv("NNBACKEND_DEVICE", "")
    assert nn.get_backend().device == "fast:0"


@pytest.mark.parametrize(
    ("value", "kind"),
    [("numpi", UnknownBackendError), ("gpu:x", ArgumentError), ("numpy:7", BackendUnavailableError),
     ("gpu", BackendUnavailableError)],
)  # fmt: skip
def test_errors_name_the_environment_variable(
    value: str, kind: type[Exception], monkeypatch: pytest.MonkeyPatch, plugins: Plugins
) -> None:
    plugins.device("fast", 0, reason="no driver")
    monkeypatch.setenv("NNBACKEND_DEVICE", value)
    with pytest.raises(kind, match="from NNBACKEND_DEVICE"):
        nn.get_backend()
    with pytest.raises(kind) as caught:
        nn.get_backend(value)
    assert "NNBACKEND_DEVICE" not in str(caught.value)


# ---- the choice -------------------------------------------------------------------------------


def test_auto_logs_its_choice_and_the_reasons(
    plugins: Plugins, caplog: pytest.LogCaptureFixture
) -> None:
    plugins.device("first", 0, priority=9, reason="no driver", cure="install one")
    plugins.device("second", 0, priority=8, reason="too old")
    with caplog.at_level(logging.INFO, logger="nnbackend"):
        assert nn.get_backend("auto").device == "numpy:0"
    (record,) = [r for r in caplog.records if r.name == "nnbackend"]
    assert record.levelno == logging.INFO
    text = record.getMessage()
    assert text.startswith("device 'auto' is numpy:0; skipped:")
    assert text.index("first (plug 1.2): no driver -> install one") < text.index("second (plug")
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="nnbackend"):
        nn.get_backend("numpy")
    assert not caplog.records


def test_auto_prefers_a_gpu_and_the_highest_priority(plugins: Plugins) -> None:
    plugins.device("quick", kind="cpu", priority=99)
    assert nn.get_backend("auto").device == "quick:0"
    assert nn.get_backend("cpu").device == "quick:0"
    plugins.device("slow", priority=1)
    plugins.device("fast", priority=2)
    assert nn.get_backend("auto").device == "fast:0"
    assert nn.get_backend("gpu").device == "fast:0"
    assert nn.get_backend("cpu").device == "quick:0"


def test_gpu_and_names_never_fall_back(plugins: Plugins) -> None:
    plugins.device("fast", 0, reason="no driver was found", cure="install the driver")
    for word in ("gpu", "gpu:0", "fast"):
        with pytest.raises(BackendUnavailableError) as caught:
            nn.get_backend(word)
        for words in (f"device={word!r}", "fast (plug 1.2): no driver was found", "install the",
                      "device='cpu'"):  # fmt: skip
            assert words in str(caught.value)


def test_without_any_gpu_backend(plugins: Plugins) -> None:
    with pytest.raises(BackendUnavailableError, match=r"no GPU backend is usable:\n  none is inst"):
        nn.get_backend("gpu")


def test_auto_skips_a_device_that_fails_at_first_use(
    plugins: Plugins, caplog: pytest.LogCaptureFixture
) -> None:
    def load(index: int) -> Any:
        raise BackendUnavailableError("the device is lost")

    plugins.device("fast", load=load)
    with caplog.at_level(logging.INFO, logger="nnbackend"):
        assert nn.get_backend("auto").device == "numpy:0"
    assert "fast:0: the device is lost" in caplog.text
    with pytest.raises(
        BackendUnavailableError, match=r"no GPU backend .*\n  fast:0: the device is"
    ):
        nn.get_backend("gpu")  # never selects another kind
    plugins.device("slow", priority=1)
    assert nn.get_backend("auto").device == nn.get_backend("gpu").device == "slow:0"
    with pytest.raises(BackendUnavailableError, match=r"^the device is lost$"):
        nn.get_backend("fast")


def test_an_exception_in_load_does_not_affect_other_plug_ins(
    plugins: Plugins, caplog: pytest.LogCaptureFixture
) -> None:
    plugins.device("fast", load=lambda index: 1 / 0)
    with caplog.at_level(logging.WARNING, logger="nnbackend"):
        assert nn.get_backend("auto").device == "numpy:0"
    assert "fast:0 (plug 1.2) could not be loaded: ZeroDivisionError" in caplog.text


def test_a_backend_with_another_device_string_is_refused(plugins: Plugins) -> None:
    plugins.device("fast", 2, load=lambda index: Numbered("fast", 0))
    assert nn.get_backend("fast").device == "fast:0"
    with pytest.raises(BackendError, match=r"whose `device` is 'fast:1'.*Received: 'fast:0'"):
        nn.get_backend("fast:1")


# ---- several types of devices in one spec -------------------------------------------------------


class Typed(ReferenceBackend):
    def __init__(self, device: Device) -> None:
        self.name, self.device = "many", f"many:{device.type}:{device.index}"


MANY = (Device("cpu", "cpu"), Device("mps", "gpu"), Device("cuda", "gpu"), Device("cuda", "gpu", 1))


@pytest.fixture
def many(plugins: Plugins) -> Plugins:
    plugins.device("many", kind="cpu", priority=20, probe=lambda: Probe(devices=MANY),
                   load=lambda n: Typed(MANY[n]))  # fmt: skip
    return plugins


@pytest.mark.parametrize(
    ("word", "device"),
    [
        ("many", "many:cpu:0"), ("many:0", "many:cpu:0"), ("many:3", "many:cuda:1"),
        ("many:mps", "many:mps:0"), ("MANY:CUDA", "many:cuda:0"), ("many:cuda:1", "many:cuda:1"),
        ("many:gpu", "many:mps:0"), ("many:gpu:2", "many:cuda:1"), ("gpu", "many:mps:0"),
        ("gpu:1", "many:cuda:0"), ("cpu", "many:cpu:0"), ("auto", "many:mps:0"),
    ],
)  # fmt: skip
def test_device_strings_with_types(word: str, device: str, many: Plugins) -> None:
    backend = nn.get_backend(word)
    assert backend.device == device
    assert nn.get_backend(backend.device) is backend


def test_missing_types_and_numbers(many: Plugins) -> None:
    seen = r"many has 4 devices \(many:cpu:0, many:mps:0, many:cuda:0, many:cuda:1\)"
    for word in ("many:xpu", "many:cuda:2", "many:4", "gpu:3"):
        with pytest.raises(BackendUnavailableError, match=seen):
            nn.get_backend(word)


def test_each_device_is_listed_with_its_kind(many: Plugins) -> None:
    row = next(row for row in nn.backends() if row.name == "many")
    assert row.devices == ("many:cpu:0", "many:mps:0", "many:cuda:0", "many:cuda:1")
    assert row.kinds == ("cpu", "gpu", "gpu", "gpu")


def test_gpu_searches_every_spec(many: Plugins) -> None:
    many.device("fast", 1, priority=30)
    assert nn.get_backend("gpu").device == "fast:0"
    assert nn.get_backend("gpu:2").device == "many:cuda:1"  # the first backend with 3 devices
    assert nn.get_backend("cpu").device == "many:cpu:0"


@pytest.mark.parametrize("wrong", [Device("mps", "npu"), Device("MPS", "gpu"), Device("", "gpu")])
def test_devices_with_invalid_types_are_refused(wrong: Device, plugins: Plugins) -> None:
    plugins.device("many", probe=lambda: Probe(devices=(wrong,)))
    assert_isolated("many", BackendUnavailableError, "its probe listed Device")


# ---- checks before first use --------------------------------------------------------------------


class CopiedSlices(np.ndarray):
    """An array whose slices are copies, as in JAX."""

    def __getitem__(self, key: Any) -> Any:
        return np.array(super().__getitem__(key)).view(CopiedSlices)


class Immutable(np.ndarray):
    """An array that cannot be written to, as in JAX."""

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError("arrays are immutable")


class CopiesReshaped:
    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def reshape(self, x: Any, shape: Any) -> Any:
        return np.array(np.reshape(x, shape))


class Other(Numbered):
    """A backend with another array class."""

    array: type[np.ndarray] = np.ndarray

    def empty(self, shape: Any, dtype: str) -> Any:
        return np.empty(shape, dtype).view(self.array)

    def zeros(self, shape: Any, dtype: str) -> Any:
        return np.zeros(shape, dtype).view(self.array)


class GivesViews(Numbered):
    def to_host(self, array: Any) -> Any:
        return array


class IgnoresOut(Numbered):
    def to_device(self, host: Any, out: Any = None) -> Any:
        return np.array(host)


def over(array: type[np.ndarray]) -> Any:
    return type("Over", (Other,), {"array": array})


UNWRITABLE = {
    "a slice of an array is a view": over(CopiedSlices),
    "value writes into the array.*TypeError: arrays are immutable": over(Immutable),
    "xp.reshape of a slice is a view": type("Copies", (Numbered,), {"xp": CopiesReshaped()}),
    "to_host returns a new copy": GivesViews,
    "out=view": IgnoresOut,
}


@pytest.mark.parametrize("missing", list(UNWRITABLE))
def test_a_library_without_writable_views_is_refused(
    missing: str, plugins: Plugins, caplog: pytest.LogCaptureFixture
) -> None:
    plugins.device("copies", load=lambda n: UNWRITABLE[missing]("copies", n))
    with pytest.raises(BackendError, match=f"(?s)copies:0 cannot be used.*{missing}"):
        nn.get_backend("copies")
    with caplog.at_level(logging.INFO, logger="nnbackend"):
        assert nn.get_backend("auto").device == "numpy:0"
    assert "copies:0: copies:0 cannot be used" in caplog.text


class WrongProducts(Numbered):
    def dense_forward(self, x: Any, W: Any, b: Any, phi: Any, z: Any, a: Any) -> None:
        super().dense_forward(x, W, b, phi, z, a)
        a *= 1.01


class WrongClock(Numbered):
    def tick(self, clock: Any, rates: Any, hyper: Any) -> None:
        super().tick(clock, rates, hyper)
        hyper[2] = 0.0


class Broken(Numbered):
    def dense_backward(self, *args: Any) -> None:
        raise RuntimeError("an illegal instruction was met")


FINDINGS = {
    WrongProducts: "a layer's output is off by 1.0e-02 of its size, in float32",
    WrongClock: "a step's clock and rates became",
    Broken: "RuntimeError: an illegal instruction was met",
}


@pytest.mark.parametrize("kind", list(FINDINGS))
def test_a_device_with_wrong_results_is_skipped(
    kind: Any, plugins: Plugins, caplog: pytest.LogCaptureFixture
) -> None:
    plugins.device("wrong", 1, load=lambda n: kind("wrong", n), priority=9)
    with pytest.raises(BackendUnavailableError, match="failed its self-test") as caught:
        nn.get_backend("wrong")
    for words in (FINDINGS[kind], "report this to the authors of plug 1.2", "nnbackend devices"):
        assert words in str(caught.value)
    with caplog.at_level(logging.WARNING, logger="nnbackend"):
        assert nn.get_backend("auto").device == "numpy:0"
    assert FINDINGS[kind] in caplog.text
    plugins.device("right", 1)
    assert nn.get_backend("gpu").device == "right:0"
    plugins.device("slow", 1, load=lambda n: kind("slow", n), kind="cpu", priority=99)
    assert nn.get_backend("cpu").device == "numpy:0"


def test_the_next_device_of_a_backend_is_selected(plugins: Plugins) -> None:
    kinds = [WrongProducts, Numbered]
    plugins.device("fast", 2, load=lambda n: kinds[n]("fast", n))
    assert nn.get_backend("gpu").device == "fast:1"
    with pytest.raises(BackendUnavailableError, match="failed its self-test"):
        nn.get_backend("gpu:0")


def test_the_self_test_runs_once_per_process(plugins: Plugins) -> None:
    seen = []

    class Counting(Numbered):
        def dense_forward(self, *args: Any) -> None:
            seen.append(1)
            super().dense_forward(*args)

    plugins.device("fast", load=lambda n: Counting("fast", n))
    for word in ("auto", "gpu", "fast", "fast:0"):
        nn.get_backend(word)
    assert len(seen) == 1


# ---- plug-ins ---------------------------------------------------------------------------------


def assert_isolated(name: str, kind: type[BackendError], text: str) -> None:
    """Assert that only the broken backend raises, and that `backends()` lists the reason."""
    with pytest.raises(kind, match=text):
        nn.get_backend(name)
    assert nn.get_backend("cpu").device == "numpy:0"
    assert nn.get_backend("auto").device == "numpy:0"
    row = next(row for row in nn.backends() if row.name == name)
    assert not row.usable
    assert row.reason


def test_a_plug_in_that_cannot_be_imported(plugins: Plugins) -> None:
    plugins.add("broken", value="no_such_module_at_all:SPEC", owner="broken-plug")
    assert_isolated("broken", BackendUnavailableError,
                    r"broken-plug 1.2\) could not be imported: ModuleNotFound")  # fmt: skip


def test_a_plug_in_without_its_spec(plugins: Plugins) -> None:
    plugins.add("broken", value="math:SPEC")
    assert_isolated("broken", BackendUnavailableError, "could not be imported: AttributeError")


@pytest.mark.parametrize("wrong", [None, 3, "spec", Probe(1)], ids=str)
def test_a_plug_in_that_names_something_else(wrong: Any, plugins: Plugins) -> None:
    plugins.add("broken", wrong)
    assert_isolated("broken", BackendUnavailableError, "must name a BackendSpec called 'broken'")


def test_a_spec_of_another_name(plugins: Plugins) -> None:
    spec = BackendSpec("other", "cpu", 1, lambda: Probe(1), lambda index: ReferenceBackend())
    plugins.add("broken", spec)
    assert_isolated("broken", BackendUnavailableError, "must name a BackendSpec called 'broken'")


@pytest.mark.parametrize(("off", "cure"), [(-1, "upgrade plug 1.2"), (1, "upgrade nnbackend")])
def test_a_spec_of_another_version(off: int, cure: str, plugins: Plugins) -> None:
    plugins.device("old", api_version=API_VERSION + off)
    text = f"implements API {API_VERSION + off}, nnbackend needs {API_VERSION}; {cure}"
    assert_isolated("old", BackendVersionError, text)


def test_a_name_claimed_twice(plugins: Plugins) -> None:
    plugins.device("twice")
    plugins.add("twice", value="math:pi", owner="rival")
    assert_isolated("twice", BackendUnavailableError,
                    r"claimed by more than one distribution: plug 1.2 .*rival 1.2")  # fmt: skip


def test_another_distribution_with_a_built_in_name(plugins: Plugins) -> None:
    plugins.add("numpy", value="math:pi", owner="rival")
    with pytest.raises(BackendUnavailableError, match="'numpy' is claimed by more than one"):
        nn.get_backend("numpy")


def test_built_in_entry_points_count_once(plugins: Plugins) -> None:
    plugins.add("numpy", value="nnbackend_numpy:SPEC", owner="nnbackend")
    assert nn.get_backend("numpy").device == "numpy:0"


@pytest.mark.parametrize("name", ["auto", "gpu", "cpu", "Upper", "with-dash", "1st", "a:b"])
def test_invalid_backend_names(name: str, plugins: Plugins) -> None:
    plugins.device(name)
    row = next(row for row in nn.backends() if row.name == name)
    assert not row.usable
    assert "must be lower-case letters" in row.reason
    assert nn.get_backend("auto").device == "numpy:0"


def test_an_exception_in_a_probe_becomes_the_reason(plugins: Plugins) -> None:
    def probe() -> Probe:
        raise OSError("libcuda is missing")

    plugins.device("fast", probe=probe)
    assert_isolated("fast", BackendUnavailableError,
                    "its probe failed with OSError: libcuda is missing")  # fmt: skip


def test_a_probe_runs_once(plugins: Plugins) -> None:
    asked = []

    def probe() -> Probe:
        asked.append(1)
        return Probe(1)

    plugins.device("fast", probe=probe)
    for _ in range(3):
        nn.get_backend("gpu")
        nn.backends()
    assert len(asked) == 1
    registry.refresh()
    nn.get_backend("gpu")
    assert len(asked) == 2


# ---- the list ---------------------------------------------------------------------------------


def test_rows(plugins: Plugins) -> None:
    plugins.device("fast", 2, version=lambda: "Fast 9", probe=lambda: Probe(
        2, details=(("memory", "80 GB"),)))  # fmt: skip
    plugins.device("gone", 0, reason="no driver", cure="install one")
    rows = {row.name: row for row in nn.backends()}
    assert set(rows) == {"numpy", "fast", "gone"}
    assert rows["fast"].devices == ("fast:0", "fast:1")
    assert (rows["fast"].kind, rows["fast"].usable, rows["fast"].version) == ("gpu", True, "Fast 9")
    assert rows["fast"].details == (("memory", "80 GB"),)
    assert rows["fast"].distribution == "plug 1.2"
    assert (rows["gone"].usable, rows["gone"].reason, rows["gone"].cure) == (
        False, "no driver", "install one",
    )  # fmt: skip
    assert rows["numpy"].version == f"NumPy {np.__version__}"
    usable = [row.usable for row in nn.backends()]
    assert usable == sorted(usable, reverse=True)


def test_the_list_of_this_machine() -> None:
    rows = {row.name: row for row in nn.backends()}
    assert rows["numpy"].usable
    assert rows["numpy"].devices == ("numpy:0",)
    assert all(row.usable or row.reason for row in rows.values())


def test_a_network_trains_on_a_plug_in(plugins: Plugins) -> None:
    """Train with the default kernels only; the weights equal NumPy's up to rounding."""
    plugins.device("fast")
    x = np.random.default_rng(0).normal(size=(30, 3))
    ends = []
    for device in ("fast", "numpy"):
        net = nn.Network([3, nn.Maxout(4, 2), nn.Dropout(0.3), nn.Dense(5, "gelu"), 2],
                         "cross_entropy", device=device, dtype="float64", seed=1)  # fmt: skip
        nn.Model(net, scale="standard").fit(
            x, (x[:, 0] > 0).astype(int), epochs=5, batch_size=8, l2=0.01, clip_norm=1.0,
            max_norm=2.0, ema=0.9, validation=0.2,
        )  # fmt: skip
        ends.append(net.theta.copy())
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-9, atol=1e-12)
