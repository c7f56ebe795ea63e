"""JAX as a backend of nnbackend: the spec, which is light to import."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec

from nnbackend.backend import Backend, BackendSpec, Device, Probe


def probe() -> Probe:
    """Return JAX's devices: its GPUs and TPUs, then the CPU."""
    if find_spec("jax") is None:
        return Probe(reason="JAX is not installed", cure="pip install jax")
    # GPUs and TPUs need a package of their own; without one, importing JAX (a second) is needless.
    has_accelerators = find_spec("jax_plugins") or find_spec("libtpu")
    accelerators = _accelerators() if has_accelerators else ()
    return Probe(devices=(*accelerators, Device("cpu", "cpu")))


def _accelerators() -> tuple[Device, ...]:
    """Return the devices of JAX's default type, unless that is the CPU. Not run by us."""
    import jax

    found = [device.platform for device in jax.local_devices() if device.platform != "cpu"]
    return tuple(Device(platform, "gpu", index) for index, platform in enumerate(found))


def load(index: int) -> Backend:
    """Return the backend of a device, by its place in the probe's list."""
    from nnbackend_jax.backend import JaxBackend

    device = probe().devices[index]
    return JaxBackend(device.type, device.index)


SPEC = BackendSpec(
    name="jax",
    kind="cpu",
    priority=1,
    probe=probe,
    load=load,
    version=lambda: f"JAX {version('jax')}",
    api_version=2,
)
