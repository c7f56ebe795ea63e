"""Maxout: the largest of each unit's pieces, and the way back through it."""
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from nnbackend_numba.panels import flat
from nnbackend_numba.records import ROWS, operation
from nnbackend_numba.steps import kernel


@kernel
@operation(ROWS, z="in Q K*O L", a="out Q O L", which="out Q O L int32")
def maxout_forward(z, a, which):
    """Compute a = the largest piece, which = its index; ties: the first."""
    n_out = a.shape[1]
    for q in range(a.shape[0]):
        aq, wq, zq = flat(a, q, 0, n_out), flat(which, q, 0, n_out), flat(z, q, 0, n_out)
        for i in range(aq.size):
            aq[i] = zq[i]
            wq[i] = 0
        for k in range(1, z.shape[1] // n_out):
            zq = flat(z, q, k * n_out, (k + 1) * n_out)
            for i in range(aq.size):
                is_larger = zq[i] > aq[i]
                wq[i] = k if is_larger else wq[i]
                aq[i] = zq[i] if is_larger else aq[i]


@kernel
@operation(ROWS, delta="in Q O L", which="in Q O L int32", dz="out Q K*O L")
def maxout_backward(delta, which, dz):
    """dz = delta at the winning piece, 0 at the others."""
    n_out = delta.shape[1]
    for q in range(delta.shape[0]):
        dq, wq = flat(delta, q, 0, n_out), flat(which, q, 0, n_out)
        for k in range(dz.shape[1] // n_out):
            zq = flat(dz, q, k * n_out, (k + 1) * n_out)
            for i in range(dq.size):
                zq[i] = dq[i] if wq[i] == k else delta.dtype.type(0)
