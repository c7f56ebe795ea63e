"""The picture of the columns' importance."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from nnbackend.plots.figures import INK, TRAIN, bare, new_figure, save

MOST = 30  # columns


def importance_plot(
    losses: Mapping[str, np.ndarray], metric: str, path: str | os.PathLike[str]
) -> None:
    """Draw the mean loss of a metric by column as bars, with the range over the repetitions.

    losses: the result of `permutation_importance`. At most 30 columns are drawn.
    """
    shown = dict(list(losses.items())[:MOST])
    figure = new_figure(6.4, 1.3 + 0.28 * len(shown))
    axes = figure.subplots()
    means = np.array([values.mean() for values in shown.values()])
    ends = np.array([[values.min(), values.max()] for values in shown.values()]).T
    places = np.arange(len(shown))
    axes.barh(places, means, color=TRAIN, alpha=0.75)
    axes.errorbar(
        means, places, xerr=np.abs(ends - means), fmt="none", ecolor=INK, elinewidth=0.9, capsize=2
    )
    axes.set_yticks(places, list(shown))
    axes.invert_yaxis()
    axes.axvline(0.0, color=INK, linewidth=0.8)
    axes.set_xlabel(f"loss of {metric} when the column is shuffled")
    rest = f", first {MOST} of {len(losses)}" if len(losses) > MOST else ""
    axes.set_title(f"Importance of the columns{rest}", fontsize=11)
    bare(axes)
    save(figure, path)
