"""The regressor."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from sklearn.base import RegressorMixin, _fit_context
from sklearn.metrics import r2_score
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import column_or_1d, validate_data

from nnbackend.data.scalers import Scaler, fit_scaler
from nnbackend.errors import ArgumentError, DataError
from nnbackend.estimators.base import BaseMLP
from nnbackend.estimators.fit_data import like, on_host
from nnbackend.estimators.fit_tasks import with_callbacks
from nnbackend.estimators.step_by_step import OnlyStepByStep
from nnbackend.network.losses import Loss, get_loss
from nnbackend.network.network import Network

LOSSES = {
    "squared_error": "quadratic",
    "absolute_error": "absolute",
    **{name: name for name in ("poisson", "huber", "quantile")},
}


def _numbers(y: np.ndarray) -> np.ndarray:
    """Return values as numbers; raise an error for text, even for digits."""
    if y.dtype.kind in "US":
        raise DataError(
            f"y must hold numbers. Received: text (y.dtype={y.dtype}). "
            "Convert it, or use MLPClassifier for classes."
        )
    return y.astype(np.float64) if y.dtype == object else y


class MLPRegressor(RegressorMixin, BaseMLP):
    """A multilayer perceptron regressor with scikit-learn's interface.

    It has the parameters, attributes and methods of scikit-learn's MLPRegressor, on any device, and
    further ones: see docs/estimators.md. loss can also be an nnbackend loss, such as
    `nn.losses.quantile(0.9)`.
    >>> model = MLPRegressor(solver="lbfgs", random_state=0).fit([[0.0], [1.0]], [0.0, 2.0])
    >>> model.predict([[0.5]]).shape
    (1,)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseMLP._parameter_constraints,
        "loss": [StrOptions(set(LOSSES)), Loss],
    }
    _stratifies = False

    def __init__(
        self,
        loss: Any = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        device: Any = None,
        dtype: str | None = None,
        dropout: Any = 0.0,
        l1: float = 0.0,
        weight_decay: float = 0.0,
        max_norm: Any = None,
        clip_norm: float | None = None,
        ema: float | None = None,
        schedule: Any = None,
        monitor: str | None = None,
        callbacks: Any = None,
        preset: str | None = None,
        n_members: int = 4,
    ) -> None:
        self._set(locals())

    # ---- targets ----------------------------------------------------------------------------

    def _validate_input(
        self, X: Any, y: Any, incremental: bool, reset: bool
    ) -> tuple[Any, np.ndarray, None]:
        """Check X and y."""
        X, y = validate_data(
            self, X, y, accept_sparse=["csr", "csc"], multi_output=True, y_numeric=True,
            dtype=(np.float64, np.float32), reset=reset,
        )  # fmt: skip
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, _numbers(y), None

    def _eval_targets(self, y: np.ndarray) -> np.ndarray:
        return _numbers(y)

    def _engine_targets(self, Y: np.ndarray) -> np.ndarray:
        return Y

    def _truth(self, Y: np.ndarray) -> np.ndarray:
        return Y

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

    def _loss_share(self) -> float:
        """Return the factor to scikit-learn's loss: a mean over outputs, but for Poisson."""
        return 1.0 if self._output() == "exp" else 1.0 / float(self.n_outputs_)

    def _decoded(self, out: np.ndarray) -> np.ndarray:
        return out.ravel() if out.shape[1] == 1 else out

    def _validation_score(self, net: Network, rows: Any) -> float:
        return self._score_of(net, rows, r2_score)

    def _target_scaler(self, y: np.ndarray) -> Scaler | None:
        """Return the target scaler; None for an exponential output (targets of at least 0)."""
        return None if self._output() == "exp" else fit_scaler("standard", y)

    # ---- the methods ------------------------------------------------------------------------

    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, eval_set: Any = None) -> Any:
        """Fit to rows X (n, n_features) with values y (n,) or (n, n_outputs).

        eval_set: (X, y) or (X, y, sample_weight) for validation and early stopping.
        """
        return self._fit(X, y, sample_weight, eval_set)

    @OnlyStepByStep
    @with_callbacks
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, eval_set: Any = None) -> Any:
        """Train for one more epoch."""
        return self._fit(X, y, sample_weight, eval_set, incremental=True)

    def predict(self, X: Any) -> np.ndarray:
        """Return the values for rows X (n, n_features)."""
        values: np.ndarray = like(self, X, self._decoded(self._outputs(X)))
        return values

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R2 on rows X with values y."""
        X, y, sample_weight = (on_host(self, part) for part in (X, y, sample_weight))
        return float(super().score(X, y, sample_weight))
