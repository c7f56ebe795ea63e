"""Which backends there are, which one a word means, and why one cannot be had.

Backends are found through the entry-point group `nnbackend.backends`, ours as anyone's; a table
of our own stands in for it in a checkout that is not installed. An entry point is a light
`BackendSpec`: it says whether the device is usable without loading the array library for good.
Nothing falls back silently: only "auto" may choose.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata

from nnbackend.backend.base import API_VERSION, Backend
from nnbackend.errors import (
    ArgumentError,
    BackendError,
    BackendUnavailableError,
    BackendVersionError,
    UnknownBackendError,
    suggest,
)

logger = logging.getLogger("nnbackend")

GROUP = "nnbackend.backends"
VARIABLE = "NNBACKEND_DEVICE"
KINDS = ("auto", "cpu", "gpu")
BUILT_IN = {
    "numpy": "nnbackend_numpy:SPEC",
    "numba": "nnbackend_numba:SPEC",
    "cupy": "nnbackend_cupy:SPEC",
}


@dataclass(frozen=True)
class Probe:
    """What a backend found out about this machine, without raising.

    reason and cure say why there is no device and the one command that mends it; details are
    figures worth showing, as ("BLAS", "OpenBLAS 0.3.31").
    """

    device_count: int
    reason: str = ""
    cure: str = ""
    details: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class BackendSpec:
    """What an entry point of the group names: light to import, heavy only when loaded.

    kind is "cpu" or "gpu"; a higher priority wins within a kind. probe() never raises. load(n)
    gives the backend of device n.
    """

    name: str
    kind: str
    priority: int
    probe: Callable[[], Probe]
    load: Callable[[int], Backend]
    version: Callable[[], str] = field(default=lambda: "")
    api_version: int = API_VERSION


@dataclass(frozen=True)
class BackendRow:
    """One line of `nnbackend.backends()`."""

    name: str
    kind: str
    usable: bool
    reason: str
    cure: str
    version: str
    devices: tuple[str, ...]
    distribution: str
    details: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Entry:
    """A name that was found: its spec, or the error that came instead."""

    name: str
    distribution: str
    spec: BackendSpec | None = None
    error: BackendError | None = None


def _load_entry(name: str, target: str, distribution: str) -> _Entry:
    """Import one spec; whatever goes wrong is kept, to be shown only when asked for."""
    try:
        module, _, attribute = target.partition(":")
        spec = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a broken plug-in must not break the others
        cause = f"{type(error).__name__}: {error}"
        return _Entry(name, distribution, error=BackendUnavailableError(
            f"the plug-in of backend {name!r} ({distribution}) could not be imported: {cause}. "
            f"Reinstall or remove {distribution}."
        ))  # fmt: skip
    if not isinstance(spec, BackendSpec) or spec.name != name:
        return _Entry(name, distribution, error=BackendUnavailableError(
            f"entry point {target!r} of {distribution} must name a BackendSpec called {name!r}. "
            f"Received: {spec!r}. Mend or remove {distribution}."
        ))  # fmt: skip
    if spec.api_version != API_VERSION:
        old = distribution if spec.api_version < API_VERSION else "nnbackend"
        return _Entry(name, distribution, spec, BackendVersionError(
            f"backend {name!r} ({distribution}) speaks API {spec.api_version}, "
            f"nnbackend needs {API_VERSION}; upgrade {old}."
        ))  # fmt: skip
    return _Entry(name, distribution, spec)


@cache
def _entries() -> dict[str, _Entry]:
    """Find every backend by name; two distributions with one name are refused at use."""
    found: dict[str, dict[str, str]] = {
        name: {target: "nnbackend"} for name, target in BUILT_IN.items()
    }
    for point in metadata.entry_points(group=GROUP):
        owner = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown distribution"
        found.setdefault(point.name, {})[point.value] = owner
    entries = {}
    for name, targets in found.items():
        (target, owner), *others = targets.items()
        if others:
            owners = ", ".join(f"{o} ({t})" for t, o in targets.items())
            error = BackendUnavailableError(
                f"backend name {name!r} is claimed by more than one distribution: {owners}. "
                "Uninstall all but one."
            )
            entries[name] = _Entry(name, owners, error=error)
        elif not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in KINDS:
            error = BackendUnavailableError(
                f"a backend's name must be lower-case letters, digits and _, and none of "
                f"{', '.join(KINDS)}. Received: {name!r} from {owner}. Rename it there."
            )
            entries[name] = _Entry(name, owner, error=error)
        else:
            entries[name] = _load_entry(name, target, owner)
    return entries


@cache
def _probe(name: str) -> Probe:
    """Ask a backend about this machine, once; an exception in a probe is a reason too."""
    entry = _entries()[name]
    if entry.error is not None or entry.spec is None:
        return Probe(0, reason=str(entry.error))
    try:
        return entry.spec.probe()
    except Exception as error:
        return Probe(0, reason=f"its probe failed with {type(error).__name__}: {error}")


def _version(entry: _Entry) -> str:
    """Give what a backend says of its version; one that cannot tell is shown without."""
    try:
        return entry.spec.version() if entry.spec and not entry.error else ""
    except Exception:
        return ""


@cache
def _backend(name: str, index: int) -> Backend:
    """Load a usable backend, once per device."""
    spec = _entries()[name].spec
    assert spec is not None
    return spec.load(index)


def refresh() -> None:
    """Forget what was found, so that the next look finds plug-ins installed since."""
    for remembered in (_entries, _probe, _backend):
        remembered.cache_clear()


def backends() -> list[BackendRow]:
    """List every known backend: usable or not, and why not.

    >>> "numpy" in {row.name for row in backends() if row.usable}
    True
    """
    rows = []
    for name, entry in _entries().items():
        probe, spec = _probe(name), entry.spec
        rows.append(
            BackendRow(
                name=name,
                kind=spec.kind if spec else "?",
                usable=probe.device_count > 0,
                reason=probe.reason,
                cure=probe.cure,
                version=_version(entry),
                devices=tuple(f"{name}:{i}" for i in range(probe.device_count)),
                distribution=entry.distribution,
                details=probe.details,
            )
        )
    order = {
        name: -(entry.spec.priority if entry.spec else -1) for name, entry in _entries().items()
    }
    return sorted(rows, key=lambda row: (not row.usable, row.kind, order[row.name]))


def get_backend(device: str | Backend | None = None) -> Backend:
    """Give the backend that a word means: auto, cpu, gpu, gpu:N, NAME, NAME:N, or a Backend.

    None asks the environment variable NNBACKEND_DEVICE, and then means "auto".
    Raises: UnknownBackendError, BackendUnavailableError, BackendVersionError; ArgumentError when
    the word does not follow the grammar.
    >>> get_backend("numpy")
    <backend numpy:0>
    """
    if isinstance(device, Backend):
        return device
    origin = ""
    if device is None:
        device = os.environ.get(VARIABLE) or "auto"
        origin = f" (from {VARIABLE})" if os.environ.get(VARIABLE) else ""
    if not isinstance(device, str):
        raise ArgumentError(
            f"device must be a string or a Backend. Received: device={device!r}. "
            "Use 'auto', 'cpu', 'gpu', 'gpu:1' or a backend's name."
        )
    word, colon, number = device.strip().lower().partition(":")
    if colon and not number.isdecimal():
        raise ArgumentError(
            f"device must be WORD or WORD:NUMBER. Received: device={device!r}{origin}. "
            "Use for example 'gpu:0'."
        )
    index = int(number) if colon else 0
    if word in KINDS:
        return _choose(word, index, device, origin)
    return _named(word, index, device, origin)


def _named(name: str, index: int, device: str, origin: str) -> Backend:
    """Give one backend by its name, or say why it cannot be had."""
    if name not in _entries():
        raise UnknownBackendError(
            f"no backend {name!r}{origin}; kinds: {', '.join(KINDS)}. {suggest(name, _entries())}"
        )
    entry, probe = _entries()[name], _probe(name)
    if entry.error is not None:
        raise entry.error
    if probe.device_count == 0:
        raise BackendUnavailableError(
            f"device={device!r}{origin} but {name} is not usable:\n{_reason(name)}\n"
            "Use device='cpu', or device='auto' to take the best one found."
        )
    if index >= probe.device_count:
        seen = ", ".join(f"{name}:{i}" for i in range(probe.device_count))
        raise BackendUnavailableError(
            f"device={device!r}{origin} asked for, but {name} sees {probe.device_count} "
            f"device{'s' if probe.device_count > 1 else ''} ({seen})."
        )
    return _backend(name, index)


def _choose(kind: str, index: int, device: str, origin: str) -> Backend:
    """Give the best usable backend of a kind; "auto" prefers a GPU and says what it chose."""
    specs = [e.spec for e in _entries().values() if e.spec is not None and e.error is None]
    candidates = [s for s in specs if kind in ("auto", s.kind)]
    candidates.sort(key=lambda s: (s.kind != "gpu", -s.priority))
    passed_over: list[str] = []
    for spec in candidates:
        if _probe(spec.name).device_count == 0:
            passed_over.append(_reason(spec.name))
            continue
        try:
            chosen = _named(spec.name, index, device, origin)
        except BackendUnavailableError as error:
            if kind != "auto":
                raise
            passed_over.append(f"  {spec.name}: {error}")
            continue
        if kind == "auto":
            why = "; passed over:\n" + "\n".join(passed_over) if passed_over else ""
            logger.info("device 'auto' is %s%s", chosen.device, why)
        return chosen
    reasons = "\n".join(passed_over) or "  none is installed"
    raise BackendUnavailableError(
        f"device={device!r}{origin} but no {kind.upper()} backend is usable:\n{reasons}\n"
        "Use device='cpu', or device='auto' to take the best one found."
    )


def _reason(name: str) -> str:
    """Give one indented line: the backend, why it is not usable, and the cure."""
    probe, entry = _probe(name), _entries()[name]
    cure = f" -> {probe.cure}" if probe.cure else ""
    return f"  {name} ({entry.distribution}): {probe.reason}{cure}"
