"""Pictures of a network and of how it learns, a module for each.

Drawn through matplotlib's objects, without its global state and without a window; matplotlib is
imported when the first picture is drawn. A picture's format follows its file's suffix.
"""

from nnbackend.plots.boundary import BoundaryFilm, decision_boundary
from nnbackend.plots.confusion import confusion_matrix, count_confusions
from nnbackend.plots.curves import curves
from nnbackend.plots.diagram import network_diagram
from nnbackend.plots.histograms import SignalRecorder, signal_histograms
from nnbackend.plots.rates import learning_rate_curve
from nnbackend.plots.weights import first_layer_weights

__all__ = [
    "BoundaryFilm",
    "SignalRecorder",
    "confusion_matrix",
    "count_confusions",
    "curves",
    "decision_boundary",
    "first_layer_weights",
    "learning_rate_curve",
    "network_diagram",
    "signal_histograms",
]
