"""A backend of six methods; it inherits every kernel."""

import numpy as np

from nnbackend.backend import Backend


class SampleBackend(Backend):
    name = "sample"
    xp = np

    def __init__(self, index):
        self.device = f"sample:{index}"

    def empty(self, shape, dtype):
        return np.empty(shape, dtype)

    def zeros(self, shape, dtype):
        return np.zeros(shape, dtype)

    def to_device(self, host, out=None):
        if out is None:
            return np.array(host)
        out[...] = host
        return out

    def to_host(self, array):
        return np.array(array)

    def synchronize(self):
        pass

    def owns(self, array):
        return isinstance(array, np.ndarray)
