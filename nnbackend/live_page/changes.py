"""What was changed while a network was trained.

A program with the last settings cannot repeat such a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MOST_SHOWN = 20


@dataclass(frozen=True)
class Change:
    """A change of options, or an edited weight or bias, after an epoch and a step."""

    epoch: int
    step: int
    text: str


class Changes:
    """The changes since the initial weights, oldest first."""

    def __init__(self) -> None:
        self.items: list[Change] = []

    def set(
        self, epoch: int, step: int, before: Mapping[str, str], after: Mapping[str, str]
    ) -> None:
        """Note the options that differ; before the first step they are simply the settings."""
        names = [name for name in after if before[name] != after[name]]
        if after["schedule"] == before["schedule"] == "constant":
            names = [name for name in names if name != "epochs"]  # which then ends the run, no more
        text = ", ".join(
            f"{name} from {before[name] or 'automatic'} to {after[name] or 'automatic'}"
            for name in names
        )
        if text and step:
            self.items.append(Change(epoch, step, text))

    def edit(self, epoch: int, step: int, text: str) -> None:
        """Note an edited weight or bias."""
        self.items.append(Change(epoch, step, text))

    def cut(self, step: int) -> None:
        """Forget the changes after a step."""
        self.items = [change for change in self.items if change.step <= step]

    def undo(self) -> None:
        """Forget the newest change."""
        del self.items[-1:]

    def lines(self) -> Sequence[str]:
        """Return the changes as sentences; of the edits of one value in a row, the last one."""
        found: dict[tuple[int, str], str] = {}
        for change in self.items:
            where = f"After epoch {change.epoch}, step {change.step}: "
            found[change.step, change.text.partition(" = ")[0]] = f"{where}{change.text}."
        texts = list(found.values())
        left = len(texts) - MOST_SHOWN
        return [*texts[:MOST_SHOWN], *([f"And {left} more changes."] if left > 0 else [])]
