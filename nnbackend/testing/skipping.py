"""Skips of tests without a backend, which NNBACKEND_REQUIRE forbids."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

REQUIRED = "NNBACKEND_REQUIRE"  # names of backends, with commas, whose tests may not be skipped


def skip(backend: str, reason: str) -> NoReturn:
    """Skip a test with its reason; fail it where NNBACKEND_REQUIRE names the backend."""
    if backend.partition(":")[0] in os.environ.get(REQUIRED, "").split(","):
        pytest.fail(f"{REQUIRED} asks for {backend}, so this may not be skipped: {reason}")
    pytest.skip(reason)
