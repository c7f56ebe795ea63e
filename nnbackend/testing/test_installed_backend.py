"""The whole kit on an installed backend, when one is named; see `plugin`.

    NNBACKEND_TEST=mine pytest -p nnbackend.testing.plugin --pyargs nnbackend.testing

Without a name there is nothing to collect here.
"""

from __future__ import annotations

from nnbackend.testing.plugin import chosen

if chosen():
    from nnbackend.testing.suite import conformance_classes

    for _name in chosen():
        globals().update(conformance_classes(_name))
