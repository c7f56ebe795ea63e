"""All CUDA kernels: those of `Backend` except the matrix products, and a few that fuse others.

They have the names and semantics of the methods of `Backend`. Each file has the records of its
kernels and the methods that launch them.
"""

from __future__ import annotations

from nnbackend.backend import Backend
from nnbackend_cupy.batches import BatchKernels
from nnbackend_cupy.layers import LayerKernels
from nnbackend_cupy.losses import LossKernels
from nnbackend_cupy.updates import UpdateKernels


class Kernels(LayerKernels, LossKernels, UpdateKernels, BatchKernels):
    """The kernels of one device."""


# The methods that replace those of a backend.
CUDA_KERNELS = tuple(name for name in dir(Kernels) if name[0] != "_" and hasattr(Backend, name))
