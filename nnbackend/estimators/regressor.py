"""The regressor, and what it shares with the ensemble of regressors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from sklearn.base import RegressorMixin, _fit_context
from sklearn.metrics import r2_score
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if

from nnbackend.errors import ArgumentError, DataError
from nnbackend.estimators.base import BaseMLP, Data, EvalSet, Weight, parameter
from nnbackend.estimators.callbacks import with_callbacks
from nnbackend.estimators.fitting import NetworkMLP, has_partial_fit
from nnbackend.estimators.meanings import with_meanings
from nnbackend.network.losses import Loss, get_loss

LOSSES = {
    "squared_error": "quadratic",
    "absolute_error": "absolute",
    **{name: name for name in ("poisson", "huber", "quantile")},
}


@dataclass(eq=False, repr=False)
class RegressionLoss:
    """The parameter `loss`. As the last base class it comes first, as in scikit-learn."""

    loss: str | Loss = parameter("squared_error", StrOptions(set(LOSSES)), Loss)


@dataclass(eq=False, repr=False)
class Regression(RegressorMixin, BaseMLP, RegressionLoss):
    """Numbers as targets."""

    # ---- targets ----------------------------------------------------------------------------

    def _coded(self, y: np.ndarray) -> np.ndarray:
        """Return values as numbers; raise an error for text, even for digits."""
        if y.dtype.kind in "US":
            raise DataError(
                f"y must hold numbers. Received: text (y.dtype={y.dtype}). "
                "Convert it, or use MLPClassifier for classes."
            )
        return y.astype(np.float64) if y.dtype == object else y

    # ---- the network ------------------------------------------------------------------------

    def _output(self) -> str:
        name = self.loss.name if isinstance(self.loss, Loss) else self.loss
        return "exp" if name == "poisson" else "identity"

    def _loss(self) -> Loss:
        if not isinstance(self.loss, Loss):
            return get_loss(LOSSES[self.loss])
        if self.loss.name in ("cross_entropy", "binary_cross_entropy"):
            raise ArgumentError(
                f"loss must be a regression loss. Received: loss={self.loss!r}. "
                "Use MLPClassifier for classes."
            )
        return self.loss

    def _decoded(self, out: np.ndarray) -> np.ndarray:
        return out.ravel() if out.shape[1] == 1 else out

    def score(self, X: Data, y: Data, sample_weight: Weight = None) -> float:
        """Return R2 on rows X with values y."""
        return float(super().score(*map(self._on_host, (X, y, sample_weight))))


@with_meanings
@dataclass(eq=False, repr=False)
class MLPRegressor(NetworkMLP, Regression):
    """A multilayer perceptron regressor with scikit-learn's interface.

    It has the parameters, attributes and methods of scikit-learn's MLPRegressor, on any device, and
    further ones: see docs/estimators.md. loss can also be an nnbackend loss, such as
    `nn.losses.quantile(0.9)`.
    >>> model = MLPRegressor(solver="lbfgs", random_state=0).fit([[0.0], [1.0]], [0.0, 2.0])
    >>> model.predict([[0.5]]).shape
    (1,)
    """

    _metric = staticmethod(r2_score)

    def _loss_share(self) -> float:
        return 1.0 if self._output() == "exp" else 1.0 / float(self.n_outputs_)

    @available_if(has_partial_fit)
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self, X: Data, y: Data, sample_weight: Weight = None, eval_set: EvalSet = None
    ) -> Self:
        """Train for one more epoch."""
        return self._fit(X, y, sample_weight, eval_set, incremental=True)
