"""Common parts of all plots: colours, a figure without global state, atomic writing."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnbackend.errors import ArgumentError
from nnbackend.persistence.atomic_file import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TRAIN, VALID, INK, FAINT = "#3b6fb6", "#d1603d", "#333333", "#d9d9d9"
# For classes: distinct with any kind of colour blindness (Okabe and Ito 2008).
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#555555")
SIGNED = "RdBu_r"  # red above 0, blue below, white between: safe for red-green blindness


def new_figure(width: float, height: float) -> Figure:
    """Return a figure of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def bare(axes: Any, *sides: str) -> None:
    """Remove the top and right sides of the frame."""
    for side in sides or ("top", "right"):
        axes.spines[side].set_visible(False)


def as_date_axis(axis: Any) -> None:
    """Label an axis of days since 1970, matplotlib's default epoch, or of dates by dates."""
    from matplotlib import dates

    untyped: Any = dates
    # With these limits it finds ticks for each span from minutes to centuries.
    locator = untyped.AutoDateLocator(minticks=3, maxticks=8)
    axis.axis_date()
    axis.set_major_locator(locator)
    axis.set_major_formatter(untyped.ConciseDateFormatter(locator))


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure atomically in the format of the suffix.

    Raises: ArgumentError for an unknown suffix.
    """
    target = Path(path)
    kind = target.suffix.lower().lstrip(".")
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise ArgumentError(
            f"The suffix of a picture's file must be one of {', '.join(sorted(known))}. "
            f"Received: {str(target)!r}. Use .png."
        )
    content = io.BytesIO()
    figure.savefig(content, format=kind, bbox_inches="tight", pad_inches=0.12)
    atomic_write(target, content.getvalue())
