"""The lines of an explanation: a number, how it is computed, and its value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One number: its name, how it is computed, its value.

    parts: the formula in symbols, then with numbers; each may be "".
    """

    name: str
    parts: tuple[str, ...]
    value: float
    note: str = ""
    sign: str = "="

    @property
    def text(self) -> str:
        """The line as plain text."""
        note = f"   ({self.note})" if self.note else ""
        known = [part for part in self.parts if part]
        return f"{self.name} {self.sign} {' = '.join([*known, number(self.value)])}{note}"


def number(value: float) -> str:
    """Return a number with six digits; -0 is 0."""
    return f"{value + 0.0:.6g}"


def factor(value: float) -> str:
    return f"({number(value)})" if value < 0 else number(value)


def grouped(text: str) -> str:
    """Put a negative number in parentheses."""
    return f"({text})" if text.startswith("-") else text
