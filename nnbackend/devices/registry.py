"""The registry of backends: discovery, selection by device string, reasons for unusable ones.

Backends are found through the entry-point group `nnbackend.backends`; the table BUILT_IN replaces
it in a checkout that is not installed. An entry point is a `BackendSpec`, which is light to import
and reports whether a device is usable. There is no silent fallback: only "auto" may choose between
GPU and CPU, and a device is used only if its views are writable and its self-test passes.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata

from nnbackend.backend.base import API_VERSION, Backend
from nnbackend.backend.spec import BackendRow, BackendSpec, Device, Probe
from nnbackend.devices import first_use
from nnbackend.errors import (
    ArgumentError,
    BackendError,
    BackendUnavailableError,
    BackendVersionError,
    Fault,
    Mention,
    UnknownBackendError,
)
from nnbackend.suggestions import suggest

logger = logging.getLogger("nnbackend")

GROUP = "nnbackend.backends"
VARIABLE = "NNBACKEND_DEVICE"
KINDS = ("auto", "cpu", "gpu")
CHOICES = "Use 'auto', 'cpu', 'gpu', 'gpu:1' or a backend's name."
Asked = tuple[Mention, str]  # the asked device, and where the word is from
OTHERS = (
    *("Use ", Mention("device", "cpu"), ", or ", Mention("device", "auto")),
    " for the best usable device.",
)
BUILT_IN = {
    "numpy": "nnbackend_numpy:SPEC",
    "numba": "nnbackend_numba:SPEC",
    "cupy": "nnbackend_cupy:SPEC",
    "torch": "nnbackend_torch:SPEC",
}


# NAME or NAME:N, NAME:TYPE or NAME:TYPE:N.
WORD = re.compile(r"(?P<name>[^:]*)(:(?P<type>[a-z][a-z0-9_]*))?(:(?P<number>[0-9]+))?")
NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class _Entry:
    """The result of discovery for one name: its spec, or the error."""

    name: str
    distribution: str
    spec: BackendSpec | None = None
    error: BackendError | None = None


def _load_entry(name: str, target: str, distribution: str) -> _Entry:
    """Import one spec; store an error in the entry, to be raised only on use."""
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
            f"Received: {spec!r}. Fix or remove {distribution}."
        ))  # fmt: skip
    if spec.api_version != API_VERSION:
        old = distribution if spec.api_version < API_VERSION else "nnbackend"
        return _Entry(name, distribution, spec, BackendVersionError(
            f"backend {name!r} ({distribution}) implements API {spec.api_version}, "
            f"nnbackend needs {API_VERSION}; upgrade {old}."
        ))  # fmt: skip
    return _Entry(name, distribution, spec)


@cache
def _entries() -> dict[str, _Entry]:
    """Return every backend by name; a name of two distributions raises on use."""
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
        elif not NAME.fullmatch(name) or name in KINDS:
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
    """Return the cached probe of a backend; an exception in the probe becomes its reason."""
    entry = _entries()[name]
    if entry.error is not None or entry.spec is None:
        return Probe(0, reason=str(entry.error))
    try:
        found = entry.spec.probe()
        if wrong := [d for d in found.devices if d.kind not in KINDS[1:] or not NAME.match(d.type)]:
            return Probe(reason=f"its probe listed {wrong[0]}, expected a type and kind cpu or gpu")
        return found
    except Exception as error:
        return Probe(0, reason=f"its probe failed with {type(error).__name__}: {error}")


def _devices(name: str) -> tuple[Device, ...]:
    """Return a backend's devices on this machine; `type` is empty if they are only counted."""
    probe, spec = _probe(name), _entries()[name].spec
    kind = spec.kind if spec else ""
    return probe.devices or tuple(Device("", kind, i) for i in range(probe.device_count))


def _device_string(name: str, device: Device) -> str:
    """Return the device string, equal to `Backend.device`."""
    return ":".join(filter(None, (name, device.type, str(device.index))))


def _device_strings(name: str) -> tuple[str, ...]:
    return tuple(_device_string(name, device) for device in _devices(name))


def _version(entry: _Entry) -> str:
    """Return a backend's version, or "" if it cannot be determined."""
    try:
        return entry.spec.version() if entry.spec and not entry.error else ""
    except Exception:
        return ""


@cache
def _backend(name: str, place: int) -> Backend:
    """Load a device of a usable backend, once; check that its views are writable.

    Raises: BackendError, also for any exception of the plug-in.
    """
    entry, expected = _entries()[name], _device_strings(name)[place]
    assert entry.spec is not None
    try:
        backend = entry.spec.load(place)
    except BackendError:
        raise
    except Exception as error:
        raise BackendUnavailableError(
            f"{expected} ({entry.distribution}) could not be loaded: {type(error).__name__}: "
            f"{error}."
        ) from error
    if backend.device not in (expected, name if expected == f"{name}:0" else expected):
        raise BackendError(
            f"load({place}) of {name} ({entry.distribution}) must return a backend whose `device` "
            f"is {expected!r}. Received: {backend.device!r}. Fix or remove {entry.distribution}."
        )
    if name != "numpy":
        first_use.check_views(backend)
    return backend


@cache
def _finding(name: str, place: int) -> str:
    """Return the fault that a device's self-test found, once per process, or ""."""
    if name == "numpy":  # the reference
        return ""
    # The test suite covers the built-in kernels; loading them may take longer than this test.
    kernels = Backend if name in BUILT_IN else type(_backend(name, place))
    return first_use.self_test(_backend(name, place), kernels)


def _open(name: str, place: int) -> Backend:
    """Return a device that passes its self-test.

    Raises: BackendError when its views are not writable, or its self-test fails.
    """
    backend = _backend(name, place)
    try:
        finding = _finding(name, place)
    except Exception as error:  # not cached: the cause may be temporary, such as a lack of memory
        finding = f"{type(error).__name__}: {error}"
    if finding:
        owner = _entries()[name].distribution
        raise BackendUnavailableError(
            f"{backend.device} ({owner}) failed its self-test: {finding}. Use another device, and "
            f"report this to the authors of {owner}, with what `nnbackend devices` prints."
        )
    return backend


def refresh() -> None:
    """Clear the caches, so that newly installed plug-ins are found."""
    for cached in (_entries, _probe, _backend, _finding):
        cached.cache_clear()


def backends() -> list[BackendRow]:
    """Return a row for every known backend, with the reason if it is not usable.

    >>> "numpy" in {row.name for row in backends() if row.usable}
    True
    """
    rows = []
    for name, entry in _entries().items():
        probe, spec = _probe(name), entry.spec
        kinds = tuple(device.kind for device in _devices(name))
        rows.append(
            BackendRow(
                name=name,
                kind=kinds[0] if kinds else spec.kind if spec else "?",
                usable=probe.device_count > 0,
                reason=probe.reason,
                cure=probe.cure,
                version=_version(entry),
                devices=_device_strings(name),
                distribution=entry.distribution,
                details=probe.details,
                kinds=kinds,
            )
        )
    order = {
        name: -(entry.spec.priority if entry.spec else -1) for name, entry in _entries().items()
    }
    return sorted(rows, key=lambda row: (not row.usable, row.kind, order[row.name]))


def get_backend(device: str | Backend | None = None) -> Backend:
    """Return the backend of a device string; return a Backend unchanged.

        auto   cpu   gpu   gpu:N   NAME   NAME:N   NAME:TYPE   NAME:TYPE:N

    None means the environment variable NNBACKEND_DEVICE, or "auto" if it is not set. "auto" prefers
    a GPU; "cpu" and "gpu" mean the best device of the kind. These three skip unusable devices and
    log it. A backend's name, with the number or type of one of its devices, means only that device.
    Raises: UnknownBackendError, BackendUnavailableError, BackendVersionError; BackendError for a
    library without writable views; ArgumentError when the string does not follow the grammar.
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
        raise ArgumentError(Fault("device", "a string or a Backend", device, (CHOICES,)))
    parts = WORD.fullmatch(device.strip().lower())
    if parts is None or (parts["type"] and parts["name"] in KINDS):
        raise ArgumentError(
            Mention("device"), " must be WORD, WORD:NUMBER or NAME:TYPE:NUMBER. Received: ",
            Mention("device", device), f"{origin}. Use for example 'gpu:0'.",
        )  # fmt: skip
    number = int(parts["number"]) if parts["number"] else None
    asked = Mention("device", device), origin
    if parts["name"] in KINDS:
        return _choose(parts["name"], number, asked)
    return _named(parts["name"], parts["type"], number or 0, asked)


def _named(name: str, type: str | None, number: int, asked: Asked) -> Backend:
    """Return one device of one backend; raise BackendError with the reason if it is unusable."""
    if name not in _entries():
        raise UnknownBackendError(
            f"no backend {name!r}: ", *asked, f"; kinds: {', '.join(KINDS)}. "
            f"{suggest(name, _entries())}",
        )  # fmt: skip
    entry, devices = _entries()[name], _devices(name)
    if entry.error is not None:
        raise entry.error
    if not devices:
        raise BackendUnavailableError(
            *asked, f" but {name} is not usable:\n{_reason(name)}\n", *OTHERS
        )
    places = [i for i, d in enumerate(devices) if type in (None, d.type, d.kind)]
    if number >= len(places):
        raise BackendUnavailableError(*asked, f", but {_device_list(name)}.")
    return _open(name, places[number])


def _device_list(name: str) -> str:
    found = _device_strings(name)
    return f"{name} has {len(found)} device{'s' if len(found) > 1 else ''} ({', '.join(found)})"


def _choose(kind: str, number: int | None, asked: Asked) -> Backend:
    """Return the best usable device of a kind; "auto" prefers a GPU."""
    skipped: list[str] = []
    failed = False
    for device_kind in ("gpu", "cpu") if kind == "auto" else (kind,):
        for name, place in _candidates(device_kind, number, skipped):
            try:
                chosen = _open(name, place)
            except BackendError as error:
                skipped.append(f"  {_device_strings(name)[place]}: {error}")
                failed = True
                continue
            if kind == "auto" or failed:
                why = "; skipped:\n" + "\n".join(skipped) if skipped else ""
                level = logging.WARNING if failed else logging.INFO
                logger.log(level, "device %r is %s%s", kind, chosen.device, why)
            return chosen
    reasons = "\n".join(skipped) or "  none is installed"
    what = "" if kind == "auto" else f"{kind.upper()} "
    lacking = (
        f"no {what}device has the number {number}" if number else f"no {what}backend is usable"
    )
    raise BackendUnavailableError(*asked, f" but {lacking}:\n{reasons}\n", *OTHERS)


def _candidates(kind: str, number: int | None, skipped: list[str]) -> Iterator[tuple[str, int]]:
    """Yield (name, place) of each device of a kind, the best first; record backends without one."""
    specs = [e.spec for e in _entries().values() if e.spec is not None and e.error is None]
    for spec in sorted(specs, key=lambda spec: -spec.priority):
        devices = _devices(spec.name)
        places = [place for place, device in enumerate(devices) if device.kind == kind]
        if not devices and spec.kind == kind:
            skipped.append(_reason(spec.name))
        elif places and number is not None and number >= len(places):
            skipped.append(f"  {_device_list(spec.name)}")
        chosen = places if number is None else places[number : number + 1]
        yield from ((spec.name, place) for place in chosen)


def _reason(name: str) -> str:
    """Return one indented line: the backend, why it is not usable, and the cure."""
    probe, entry = _probe(name), _entries()[name]
    cure = f" -> {probe.cure}" if probe.cure else ""
    return f"  {name} ({entry.distribution}): {probe.reason}{cure}"
