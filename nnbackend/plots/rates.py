"""The learning-rate finder's curve."""

from __future__ import annotations

import os

import numpy as np

from nnbackend.plots.figures import FAINT, INK, TRAIN, VALID, bare, new_figure, save
from nnbackend.training.rate_finder import RateTrial


def learning_rate_curve(trial: RateTrial, path: str | os.PathLike[str]) -> None:
    """Draw a trial's loss over the learning rate, with the suggested rate marked."""
    figure = new_figure(6.0, 4.0)
    axes = figure.subplots()
    axes.plot(trial.rates, trial.losses, color=TRAIN, linewidth=1.8)
    best = int(np.argmin(trial.losses))
    axes.plot(trial.rates[best], trial.losses[best], "o", color=TRAIN, markeredgecolor="white")
    axes.annotate(
        "least loss", (trial.rates[best], trial.losses[best]), xytext=(0, -14),
        textcoords="offset points", ha="center", color=INK, fontsize=9,
    )  # fmt: skip
    axes.axvline(trial.suggestion, color=VALID, linewidth=1.6, linestyle=(0, (4, 2)))
    axes.set_xscale("log")
    axes.margins(y=0.12)
    axes.set_title(
        f"Start with a rate of about {trial.suggestion:.1e} (dashed)", fontsize=11, loc="left"
    )
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss of the mini-batches, smoothed")
    axes.grid(True, color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    bare(axes)
    save(figure, path)
