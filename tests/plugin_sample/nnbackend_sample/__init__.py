"""What the entry point names: light to import, the array library comes with `load`."""

from nnbackend.backend import Backend, BackendSpec, Probe


def probe() -> Probe:
    return Probe(device_count=1)


def load(index: int) -> Backend:
    from nnbackend_sample.backend import SampleBackend

    return SampleBackend(index)


SPEC = BackendSpec(name="sample", kind="cpu", priority=1, probe=probe, load=load)
