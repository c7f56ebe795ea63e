"""Every kernel against the base class's default in float64, in several thread orders.

These are the conformance kit's checks of single kernels, on the emulator: odd shapes, one row,
views at odd offsets, strided data, both dtypes, every built-in formula.
"""

from __future__ import annotations

from functools import partial

import pytest
from emulated import EmulatedBackend
from emulator import LACKING, ORDERS

from nnbackend.testing.layer_checks import LayerChecks
from nnbackend.testing.loss_checks import LossChecks
from nnbackend.testing.update_checks import BatchChecks, UpdateChecks

pytestmark = pytest.mark.skipif(LACKING is not None, reason=str(LACKING))


class KernelChecks(LayerChecks, LossChecks, UpdateChecks, BatchChecks):
    """All kernels."""


for _order in ORDERS:
    _body = {"label": "emulated", "make_backend": staticmethod(partial(EmulatedBackend, _order))}
    globals()[f"TestOrder{_order}"] = type(f"TestOrder{_order}", (KernelChecks,), _body)
del KernelChecks
