"""Plots of networks and of training, one module each.

They use matplotlib's objects without global state or a window; matplotlib is imported at the first
plot. The suffix of the file sets the format.
"""

from nnbackend.plots.boundary import BoundaryFilm, decision_boundary
from nnbackend.plots.confusion import confusion_matrix, count_confusions
from nnbackend.plots.curves import curves
from nnbackend.plots.dependence import dependence_plot
from nnbackend.plots.diagram import network_diagram
from nnbackend.plots.histograms import SignalRecorder, signal_histograms
from nnbackend.plots.importance import importance_plot
from nnbackend.plots.quality import (
    calibration_curve,
    precision_recall_curve,
    residual_plot,
    roc_curve,
)
from nnbackend.plots.rates import learning_rate_curve
from nnbackend.plots.trials import trials
from nnbackend.plots.weights import first_layer_weights

__all__ = [
    "BoundaryFilm",
    "SignalRecorder",
    "calibration_curve",
    "confusion_matrix",
    "count_confusions",
    "curves",
    "decision_boundary",
    "dependence_plot",
    "first_layer_weights",
    "importance_plot",
    "learning_rate_curve",
    "network_diagram",
    "precision_recall_curve",
    "residual_plot",
    "roc_curve",
    "signal_histograms",
    "trials",
]
