"""An outlet that keeps the messages of a session."""

from __future__ import annotations

import json
from typing import Any


class Collected:
    """An outlet that keeps the newest messages. is_slow: never ready for a frame."""

    def __init__(self) -> None:
        self.setup: Any = None
        self.frame = b""
        self.count = 0
        self.is_slow = False

    def wants_frame(self) -> bool:
        return not self.is_slow

    def send_frame(self, frame: bytes) -> None:
        self.frame, self.count = frame, self.count + 1

    def send_setup(self, text: str) -> None:
        self.setup = json.loads(text)
