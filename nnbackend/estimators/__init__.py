"""Estimators with scikit-learn's interface over the engine."""

from nnbackend.estimators.classifier import MLPClassifier as MLPClassifier
from nnbackend.estimators.regressor import MLPRegressor as MLPRegressor
from nnbackend.estimators.tabular import TabularMLPClassifier as TabularMLPClassifier
from nnbackend.estimators.tabular import TabularMLPRegressor as TabularMLPRegressor
