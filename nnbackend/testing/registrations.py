"""Registration of a backend: its spec, probe, names and signatures."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest

from nnbackend.backend import API_VERSION, Backend, BackendSpec
from nnbackend.devices import backends, get_backend, registry
from nnbackend.errors import BackendError, DeviceMemoryError, DeviceMismatchError
from nnbackend.network.network import Network
from nnbackend.testing.array_checks import HUGE
from nnbackend.testing.ghost import GhostBackend
from nnbackend.testing.kit import Suite
from nnbackend.testing.skipping import skip

CAPABILITIES = {"uint64", "capture"}
HEAVY = ("cupy", "numba", "torch", "jax", "tensorflow", "mlx", "sklearn", "scipy", "matplotlib")


class RegistrationConformance(Suite):
    """The assumptions of the registry and the engine about a backend."""

    def spec_target(self, backend: Backend) -> str:
        """Return "module:attribute" of the backend's spec; skip if it is not registered."""
        points = metadata.entry_points(group=registry.GROUP, name=backend.name)
        found = {point.value for point in points} or {registry.BUILT_IN.get(backend.name, "")}
        target = found.pop()
        if not target:
            skip(backend.name, f"{backend.name} is not registered in {registry.GROUP}")
        return target

    def spec(self, backend: Backend) -> BackendSpec:
        """Return the backend's spec."""
        module, _, attribute = self.spec_target(backend).partition(":")
        spec = getattr(__import__(module, fromlist=[attribute]), attribute)
        assert isinstance(spec, BackendSpec), f"{module}:{attribute} is not a BackendSpec: {spec!r}"
        return spec

    def test_signatures_equal_the_base_class(self, backend: Backend) -> None:
        drifted = []
        for name, base in inspect.getmembers(Backend, inspect.isfunction):
            own = getattr(type(backend), name)
            if name.startswith("_") or own is base:
                continue
            mine, theirs = _parameters(own), _parameters(base)
            if mine != theirs:
                drifted.append(f"{name}{mine} differs from the base class's {theirs}")
        assert not drifted, "signature drift: " + "; ".join(drifted)

    def test_attributes(self, backend: Backend) -> None:
        name, device = backend.name, backend.device
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name), f"bad name {name!r}"
        assert name not in registry.KINDS, f"the name {name!r} is a kind"
        word = rf"{name}(:[a-z][a-z0-9_]*)?(:\d+)?"
        assert re.fullmatch(word, device), (
            f"device {device!r} is not {name}:NUMBER or {name}:TYPE:N"
        )
        unknown = set(backend.capabilities) - CAPABILITIES
        assert not unknown, f"unknown capabilities {unknown}; known are {CAPABILITIES}"
        assert backend.float_dtypes, "float_dtypes is empty"
        assert backend.sum_dtype in backend.float_dtypes, f"no sums in {backend.sum_dtype}"
        unknown = set(backend.float_dtypes) - {"float32", "float64"}
        assert not unknown, f"unknown float_dtypes {unknown}"

    def test_every_default_is_there(self, backend: Backend) -> None:
        missing = [name for name in dir(Backend) if not hasattr(backend, name)]
        assert not missing, f"methods of the base class are missing: {missing}"

    def test_spec_is_sane(self, backend: Backend) -> None:
        spec = self.spec(backend)
        assert spec.name == backend.name, f"spec {spec.name!r} loads a backend {backend.name!r}"
        assert spec.kind in ("cpu", "gpu"), f"kind must be cpu or gpu, is {spec.kind!r}"
        assert spec.api_version == API_VERSION, f"api_version {spec.api_version} != {API_VERSION}"
        assert isinstance(spec.priority, int), f"priority {spec.priority!r} is not an int"
        assert isinstance(spec.version(), str), "version() does not return text"

    def test_probe_is_calm(self, backend: Backend) -> None:
        spec = self.spec(backend)
        first = spec.probe()
        for _ in range(20):  # includes a slow probe
            assert spec.probe() == first, "probe() returns different results"
        assert first.device_count > 0, f"the backend was loaded but probe() says {first.reason!r}"

    def test_probe_never_raises(self, backend: Backend) -> None:
        # As on a machine without the array libraries: the probe reports it with a cure.
        blocked = f"sys.modules.update(dict.fromkeys({self._heavy(backend)}))"
        shown = "p = spec.probe(); print(json.dumps([p.device_count, p.reason]))"
        found = _elsewhere(f"{blocked}; {shown}", self.spec_target(backend))
        assert isinstance(found, list)
        count, reason = found
        assert count > 0 or reason, f"without its library probe() returns no reason: {found}"

    def test_a_full_device_says_so(self, backend: Backend) -> None:
        with pytest.raises(MemoryError) as raised:
            backend.empty(HUGE, "float64")
        kind, message = type(raised.value), str(raised.value)
        if self.spec(backend).kind == "gpu":  # a CPU backend may raise MemoryError
            assert issubclass(kind, DeviceMemoryError), f"raised {kind.__name__}: {message}"
            assert backend.device in message, f"does not name {backend.device}: {message}"

    def test_spec_is_light_to_import(self, backend: Backend) -> None:
        loaded = _elsewhere(
            f"print(json.dumps([m for m in {self._heavy(backend)} if m in sys.modules]))",
            self.spec_target(backend),
        )
        assert not loaded, f"importing {self.spec_target(backend)} loads {loaded}"

    def _heavy(self, backend: Backend) -> list[str]:
        """Return the array libraries that a spec must not import, including the backend's own.

        Not the package of the spec itself, which may define the class of its arrays.
        """
        kind = type(backend.zeros((1,), backend.float_dtypes[0]))
        library, own = (
            re.split("[.:]", name)[0] for name in (kind.__module__, self.spec_target(backend))
        )
        return sorted({*HEAVY, library} - {"numpy", "nnbackend", own})

    def test_device_strings(self, backend: Backend) -> None:
        spec = self.spec(backend)
        for word in (spec.name, f"{spec.name}:0", f" {spec.name.upper()} "):
            found = get_backend(word)
            assert found.name == spec.name, f"get_backend({word!r}) returned {found!r}"
        assert get_backend(backend) is backend, "get_backend(a Backend) must return it"
        again = get_backend(backend.device)
        assert again.device == backend.device, f"get_backend({backend.device!r}) returned {again!r}"
        with pytest.raises(BackendError, match="device"):
            get_backend(f"{spec.name}:{spec.probe().device_count}")
        row = next(row for row in backends() if row.name == spec.name)
        assert row.usable, f"backends() says that {spec.name} is not usable: {row.reason}"
        assert again.device in (*row.devices, spec.name), f"backends() lists {row.devices}"
        assert len(row.kinds) == len(row.devices), f"backends() lists {row.kinds}"

    def test_foreign_arrays_are_refused(self, backend: Backend) -> None:
        net = Network([2, 3, 1], device=backend)
        foreign = GhostBackend(99).zeros((4, 2), "float32")
        assert not backend.owns(foreign), "owns() is True for an array of ghost:99"
        with pytest.raises(DeviceMismatchError, match=re.escape(backend.device)):
            net.feedforward(foreign)
        if not backend.owns(np.zeros(1)):
            with pytest.raises(DeviceMismatchError, match="to_device"):
                net.feedforward(np.zeros((4, 2), np.float32))


def _parameters(function: object) -> str:
    """Return a signature without its annotations."""
    assert callable(function)
    signature = inspect.signature(function)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


def _elsewhere(code: str, target: str) -> object:
    """Import a spec in a new interpreter, run code there, and return its JSON output."""
    module, _, attribute = target.partition(":")
    program = f"import json, sys; from {module} import {attribute} as spec; {code}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    assert done.returncode == 0, f"importing {target} or its probe failed:\n{done.stderr}"
    answer: object = json.loads(done.stdout)
    return answer
