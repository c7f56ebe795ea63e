"""Estimators with scikit-learn's interface over the engine."""

from nnbackend.estimators.classifier import MLPClassifier as MLPClassifier
from nnbackend.estimators.regressor import MLPRegressor as MLPRegressor
