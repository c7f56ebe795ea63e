"""The whole kit on an installed backend, when one is named; see `plugin`.

    NNBACKEND_TEST=mine pytest -p nnbackend.testing.plugin --pyargs nnbackend.testing

Without a name there is nothing to collect here; an unknown one is a single error.
"""

from __future__ import annotations

from nnbackend.testing.plugin import chosen

if chosen():
    import pytest

    from nnbackend.devices import get_backend
    from nnbackend.errors import BackendUnavailableError, UnknownBackendError
    from nnbackend.testing.suite import conformance_classes

    for _name in chosen():
        try:
            get_backend(_name)
        except UnknownBackendError as _error:
            raise pytest.UsageError(str(_error)) from None
        except BackendUnavailableError:
            pass  # the tests skip with the reason, or fail where the backend is required
        globals().update(conformance_classes(_name))
