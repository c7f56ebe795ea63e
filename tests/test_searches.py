"""Searches of scikit-learn over several processes: joblib's loky, and a cluster of dask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import joblib
import pytest
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV

import nnbackend as nn

X, Y = load_iris(return_X_y=True)
GRID = {"hidden_layer_sizes": [(4,), (8,)], "learning_rate_init": [0.01, 0.05]}


@contextmanager
def _loky() -> Iterator[None]:
    with joblib.parallel_config("loky", n_jobs=2):
        yield


@contextmanager
def _dask() -> Iterator[None]:
    distributed = pytest.importorskip("distributed", reason="dask is not installed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1",
        dashboard_address=None,
    )  # fmt: skip
    with cluster, distributed.Client(cluster), joblib.parallel_config("dask"):
        yield


def _searched(**options: Any) -> GridSearchCV:
    model = nn.MLPClassifier(max_iter=20, tol=10.0, random_state=0, device="cpu")
    return GridSearchCV(model, GRID, cv=2, **options).fit(X, Y)


@pytest.mark.parametrize("processes", [_loky, _dask])
def test_a_search_over_processes_finds_the_same(
    processes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))  # for the processes
    expected = _searched()
    with processes():
        found = _searched()
    assert found.best_params_ == expected.best_params_
    scores = [search.cv_results_["mean_test_score"].tolist() for search in (expected, found)]
    assert scores[0] == scores[1]
    assert (found.predict(X) == expected.predict(X)).all()
