"""A session whose messages are collected, and commands as the page sends them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from live_outlet import Collected

from nnbackend.live_page.commands import read
from nnbackend.live_page.frames import decode
from nnbackend.live_page.options import PageOptions
from nnbackend.live_page.session import Session
from nnbackend.live_page.sources import Source, toy


class Page:
    """A session with the page's side of it."""

    def __init__(self, source: Source | None = None, **options: Any) -> None:
        self.outlet = Collected()
        fixed = options.pop("fixed", None)
        given = PageOptions().changed({"device": "numpy", **options}, ("numpy",))
        source = source or toy("spirals", 120)
        self.session = Session(
            source, given, fixed=fixed, devices=("numpy",), outlet=self.outlet
        )  # fmt: skip
        self.session.start()
        self.session.call(lambda: None).result(60)  # after the first frame

    def do(self, name: str, **fields: Any) -> dict[str, Any]:
        """Carry out a command and return the facts of the frame after it."""
        self.session.send(read(json.dumps({"do": name, **fields}))).result(60)
        return self.facts

    @property
    def facts(self) -> dict[str, Any]:
        return decode(self.outlet.frame)[0]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        return decode(self.outlet.frame)[1]

    @property
    def controls(self) -> Any:
        return self.session.controls

    @property
    def theta(self) -> np.ndarray:
        """The parameters, on the host."""
        return self.session.call(
            lambda: self.controls.phase.net.backend.to_host(self.controls.phase.state.theta)
        ).result(60)

    def wait_for(self, is_true: Callable[[dict[str, Any]], bool], seconds: float = 20.0) -> None:
        end = time.monotonic() + seconds
        while not (self.outlet.frame and is_true(self.facts)):
            assert time.monotonic() < end, self.facts
            time.sleep(0.01)


@pytest.fixture
def new_page() -> Iterator[Callable[..., Page]]:
    """Make pages whose sessions end with the test."""
    pages: list[Page] = []

    def make(*args: Any, **options: Any) -> Page:
        pages.append(Page(*args, **options))
        return pages[-1]

    yield make
    for page in pages:
        page.session.close()
