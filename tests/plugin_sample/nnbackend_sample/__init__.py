"""The entry point's spec: light to import; `load` imports the array library."""

from nnbackend.backend import Backend, BackendSpec, Probe


def probe() -> Probe:
    return Probe(device_count=1)


def load(index: int) -> Backend:
    from nnbackend_sample.backend import SampleBackend

    return SampleBackend(index)


SPEC = BackendSpec(name="sample", kind="cpu", priority=1, probe=probe, load=load)
