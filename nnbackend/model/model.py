"""A model answers for raw rows: preprocessing, network and labels in one object."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from nnbackend import validation
from nnbackend.backend import Backend
from nnbackend.data.preprocessing import Preprocessing
from nnbackend.data.scalers import KINDS, Scaler
from nnbackend.data.stream import Stream
from nnbackend.errors import ArgumentError, DivergedError, Fault
from nnbackend.model.labels import (
    check_labels,
    decode_labels,
    encode_labels,
    find_labels,
    has_labels,
    n_classes,
    stream_labels,
    target_array,
)
from nnbackend.model.tables import code_table, code_target, encoded, fit_table, split_table
from nnbackend.network.activations import Activation
from nnbackend.network.layers import Dense
from nnbackend.network.losses import Loss
from nnbackend.network.network import Network
from nnbackend.options import all_of, check, keywords_of, known_keywords
from nnbackend.persistence import read_model_file, write_model_file
from nnbackend.suggestions import suggest
from nnbackend.training.api import FitOptions, new_trainer
from nnbackend.training.callbacks import Callback
from nnbackend.training.config import TrainConfig
from nnbackend.training.history import History
from nnbackend.training.loop import Trainer
from nnbackend.training.preparation import Validation, encode_targets, score_for, training_rows

ROWS_AT_ONCE = 65_536  # encoded at once
PROBABILITIES = ("softmax", "sigmoid")  # output activations whose outputs are probabilities


class Model:
    """Preprocessing, a network and labels: what is fitted, saved, loaded, exported and served.

    scale: how `fit` scales the columns: "standard", "robust", "unit", None, or a fitted Scaler.
    scale_targets: True to scale the targets of a regression to mean 0 and deviation 1.
    classes: the labels of the outputs 0, 1, ...; by default `fit` learns them.

    Rows may be an array (n, n_in), a frame of pandas, polars or Arrow, a dictionary of columns, one
    row as a dictionary, or a list of such rows. Columns of text become one feature per category.
    >>> net = Network([2, 8, 2], loss="cross_entropy", device="numpy")
    >>> model = Model(net, scale="standard")
    >>> rows, labels = [[0, 1], [3, 9], [1, 0], [9, 4]], ["low", "high", "low", "high"]
    >>> history = model.fit(rows, labels, epochs=300)
    >>> model.predict([[8, 8], [0, 0]]).tolist()
    ['high', 'low']
    """

    @known_keywords
    def __init__(
        self,
        network: Network,
        *,
        scale: str | Scaler | None = None,
        scale_targets: bool = False,
        classes: Iterable[Any] | None = None,
    ) -> None:
        if not isinstance(network, Network):
            raise ArgumentError(f"network must be an nnbackend.Network. Received: {network!r:.80}.")
        *_, labels = all_of(
            lambda: check(
                "scale_targets", scale_targets, lambda v: v in (True, False), "True or False"
            ),
            lambda: _check_scale(scale),
            lambda: None if classes is None else check_labels(network, classes),
        )
        self.network, self.scale, self.scale_targets = network, scale, scale_targets
        given = scale if isinstance(scale, Scaler) else None
        self.preprocessing = Preprocessing(scaler=given, classes=labels)
        self._is_fitted = False

    @classmethod
    def from_parts(cls, network: Network, preprocessing: Preprocessing) -> Model:
        """Return a model of a trained network and the preprocessing of its training."""
        model = cls(network, classes=preprocessing.classes)
        model.preprocessing, model._is_fitted = preprocessing, True
        return model

    # ---- training ---------------------------------------------------------------------------

    @keywords_of(FitOptions)
    def fit(self, x: Any, y: Any, options: FitOptions) -> History:
        """Fit the preprocessing to the training rows, and train the network; return the history.

        y: labels or values (n,), targets (n, n_out), or the name of a column of the table x.
        The keywords are those of `nnbackend.train`, such as epochs, optimizer and validation.
        A second call continues the training, with the preprocessing of the first.

        Raises: as `nnbackend.train`; after an error in the data the model is as before.
        """
        trainer = self.new_trainer(
            x, y, TrainConfig.of(options),
            validation=options.validation, sample_weight=options.sample_weight,
            callbacks=options.callbacks, communicator=options.communicator,
        )  # fmt: skip
        before = self.preprocessing, self._is_fitted
        self.preprocessing, self._is_fitted = trainer.data.preprocessing, True
        try:
            return trainer.run()
        except BaseException as error:
            has_first_weights = isinstance(error, DivergedError) and not trainer.state.history.rows
            if has_first_weights or not trainer.state.step:  # nothing is trained
                self.preprocessing, self._is_fitted = before
            raise

    def new_trainer(
        self,
        x: Any,
        y: Any,
        config: TrainConfig,
        *,
        validation: Validation = None,
        sample_weight: Any = None,
        callbacks: Sequence[Callback] = (),
        communicator: Any = None,
    ) -> Trainer:
        """Return the Trainer of `fit`, before its first step."""
        known, codes = self.preprocessing, y
        if isinstance(x, Stream):
            if not (known.classes or self._is_fitted):
                known = replace(known, classes=stream_labels(self.network, x))
            x = x.with_targets(partial(_codes, known=known))
        else:
            x, codes, known = self._learn(x, y, validation, config.seed)
        known = replace(known, columns=with_labels(known.columns, known.classes))
        if isinstance(validation, (tuple, list)) and len(validation) in (2, 3):
            valid_x, valid_y, *weight = validation
            valid_y = code_target(valid_x, valid_y, known.columns)
            valid_x = self._encoded(code_table(valid_x, known.columns))
            validation = (valid_x, _codes(valid_y, known), *weight)
        return new_trainer(
            self.network, x, codes, config,
            sample_weight=sample_weight, validation=validation, preprocessing=known,
            scale=None if self._is_fitted else self.scale,
            scale_targets=self.scale_targets and not self._is_fitted, callbacks=callbacks,
            communicator=communicator,
        )  # fmt: skip

    def _learn(
        self, x: Any, y: Any, validation_set: Validation, seed: Any
    ) -> tuple[Any, Any, Preprocessing]:
        """Return the features and encoded targets of training data, and what was learned of it."""
        known, table, name = self.preprocessing, None, None
        if self._is_fitted:
            x, y = self._features(x), code_target(x, y, known.columns)
        else:
            table, name, y = split_table(x, y)
        y = target_array(y) if _is_on_host(y) else y
        if known.classes is None and _is_on_host(y) and has_labels(self.network, y):
            labels = find_labels(self.network, y)
            # A fitted model without labels knows codes: such as one that nnbackend.train trained.
            if not self._is_fitted or labels != tuple(range(n_classes(self.network))):
                known = replace(known, classes=labels)
        codes = _codes(y, known)
        if table is not None:
            rows = training_rows(self.network, codes, known, validation_set, seed)
            x, columns = fit_table(table, name, codes, known.classes, rows, self.network.n_in)
            known = replace(known, columns=columns)
        return x, codes, known

    # ---- prediction and evaluation ----------------------------------------------------------

    def outputs(self, x: Any) -> np.ndarray:
        """Return the network's outputs for raw rows: (n, n_out) on the host."""
        known = self.preprocessing
        if known.encoder is None:
            return self.network.outputs(self._features(x), known.scaler)
        self.check_fitted()
        features = code_table(x, known.columns)  # encoded in parts: they may take much memory
        rows = validation.finite_rows(
            features, known.encoder.n_columns, "float64", self.network.backend
        )
        parts = (
            self.network.outputs(self._encoded(rows[start : start + ROWS_AT_ONCE]))
            for start in range(0, int(rows.shape[0]), ROWS_AT_ONCE)
        )
        return np.concatenate(list(parts))

    def predict(self, x: Any) -> np.ndarray:
        """Return the predictions for raw rows, on the host.

        A classifier returns labels (n,); with several yes-or-no outputs 0 or 1 (n, n_out); a
        regression values (n,) or (n, n_out), in float64 if the targets were scaled.
        """
        net, known, out = self.network, self.preprocessing, self.outputs(x)
        is_yes_or_no = net.loss.name == "binary_cross_entropy"
        threshold = known.threshold or 0.5
        if net.n_out == 1 and (self.is_classifier or is_yes_or_no):
            return self._labels((out[:, 0] > threshold).astype(np.int64))
        if is_yes_or_no:
            return (out > 0.5).astype(np.int64)
        if known.threshold is not None:
            return self._labels((out[:, 1] > threshold).astype(np.int64))
        if self.is_classifier:
            return self._labels(out.argmax(axis=1))
        values = out if known.target_scaler is None else known.target_scaler.inverse(out)
        return values[:, 0] if net.n_out == 1 else values

    def predict_interval(self, x: Any, level: float = 0.9) -> np.ndarray:
        """Return the lower and upper bounds of a regression's values for raw rows: (n, 2).

        A share `level` of the true values lies between them, in rows like those of the fit.
        Raises: ArgumentError for a model that was not fitted by a preset for tables.
        """
        known = self.preprocessing.intervals
        if known is None:
            raise ArgumentError(
                "predict_interval needs a regression by TabularMLPRegressor, or by train --preset "
                f"tabular. Received: {self!r}."
            )
        return known.bounds(self.predict(x), level)

    @property
    def threshold(self) -> float | None:
        """The probability above which the second of two classes is the answer; None: 0.5.

        Set it where the errors cost differently, or the classes have very different shares.
        `nnbackend.model.thresholds.choose_threshold` finds the best one for a metric or a cost.
        """
        return self.preprocessing.threshold

    @threshold.setter
    def threshold(self, value: float | None) -> None:
        if value is not None:
            check("threshold", value, lambda v: 0.0 < v < 1.0, "a number between 0 and 1, or None")
            is_yes_or_no = self.network.n_out == 1 and self.network.loss.name.startswith("binary")
            if not self.has_probabilities or not (
                is_yes_or_no or (self.is_classifier and self.network.n_out <= 2)
            ):
                raise ArgumentError(
                    "A threshold needs the probabilities of two classes. "
                    f"Received: {self!r}. Leave it out."
                )
            value = float(value)
        self.preprocessing = replace(self.preprocessing, threshold=value)

    @property
    def has_probabilities(self) -> bool:
        """Whether the outputs are probabilities: softmax or sigmoid."""
        last = self.network.layers[-1]
        return isinstance(last, Dense) and last.activation.name in PROBABILITIES

    def predict_proba(self, x: Any) -> np.ndarray:
        """Return the class probabilities of raw rows: (n, n_classes), or (n, n_out) of yes-or-no.

        Raises: ArgumentError unless the output is softmax or sigmoid.
        """
        if not self.has_probabilities:
            raise ArgumentError(
                "predict_proba needs a softmax or sigmoid output, which returns probabilities. "
                f"Received: a network that ends in {self.network.layers[-1]!r}. Use outputs(x)."
            )
        out = self.outputs(x)
        is_one = self.network.n_out == 1 and self.is_classifier
        return np.concatenate([1.0 - out, out], axis=1) if is_one else out

    def evaluate(self, x: Any, y: Any = None, sample_weight: Any = None) -> dict[str, float]:
        """Return the mean "loss" and the score, "accuracy" or "r2", of raw rows.

        y: labels or values, or a column's name; by default the column that was the target of `fit`.
        """
        net, known, rows = self.network, self.preprocessing, x
        x, y = self._features(x), code_target(x, y, known.columns)
        if y is None:
            raise ArgumentError("evaluate needs targets y. Received: none, and no target column.")
        x = validation.finite_rows(x, net.n_in, net.dtype, net.backend)
        n = int(x.shape[0])
        target = encode_targets(net, _codes(y, known), n, known)
        weight = validation.sample_weights(sample_weight, n, net.dtype, net.backend)
        score = score_for(net, target, known)
        found = net.evaluate_prepared(x, target, weight, score, scaler=known.scaler)
        if known.threshold is not None:
            is_second = (target if target.ndim == 1 else target[:, -1]) > 0
            hits = (self.outputs(rows)[:, -1] > known.threshold) == is_second
            found["accuracy"] = float(np.average(hits, weights=weight))
        return found

    def inputs(self, x: Any) -> np.ndarray:
        """Return raw rows as the first layer sees them: (n, n_in), scaled and rounded."""
        net, scaler = self.network, self.preprocessing.scaler
        rows = self._features(x)
        rows = validation.finite_rows(rows, net.n_in, net.dtype, net.backend)
        host = net.backend.to_host(rows) if net.backend.owns(rows) else np.asarray(rows[:])
        if scaler is not None:
            return scaler.transform(host, net.dtype)
        return np.ascontiguousarray(host, net.dtype)

    def targets(self, y: Any) -> np.ndarray:
        """Return targets as the loss expects them: codes (n,), or (n, n_out), scaled."""
        codes = _codes(y, self.preprocessing)
        return encode_targets(self.network, codes, len(codes), self.preprocessing)

    # ---- facts ------------------------------------------------------------------------------

    @property
    def classes(self) -> tuple[Any, ...] | None:
        """The labels of the outputs; None for a regression and for one-hot targets."""
        return self.preprocessing.classes

    @property
    def n_features(self) -> int:
        """The number of features of a row: of an array's columns, or of a table's features."""
        encoder = self.preprocessing.encoder
        return self.network.n_in if encoder is None else encoder.n_columns

    @property
    def is_classifier(self) -> bool:
        """True if the outputs represent classes."""
        return self.network.loss.name == "cross_entropy" or self.classes is not None

    def to(self, device: str | Backend) -> Model:
        """Return a copy of the model on another device."""
        model = Model(
            self.network.to(device), scale=self.scale, scale_targets=self.scale_targets,
            classes=self.classes,
        )  # fmt: skip
        model.preprocessing, model._is_fitted = self.preprocessing, self._is_fitted
        return model

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one file in an existing folder; an older file is replaced atomically.

        A custom activation or loss is stored by name. A link at `path` is replaced, not followed.
        Raises: ArgumentError for a model that cannot be saved; OSError when writing fails, in which
        case the older file is unchanged.
        """
        self.check_fitted()
        write_model_file(self.network, self.preprocessing, path)

    def check_fitted(self) -> None:
        """Raise ArgumentError if the scales must be fitted before the model is used."""
        needs_fit = isinstance(self.scale, str) and self.scale != "none"
        if not self._is_fitted and (needs_fit or self.scale_targets):
            raise ArgumentError(
                "The scales of a model must be fitted before it is used. Received: "
                f"{self!r}, which is not fitted. Call fit, or build Model(net) without scales."
            )

    def summary(self) -> str:
        """Return a table of the network's layers, and the preprocessing."""
        known, lines = self.preprocessing, [self.network.summary()]
        if known.scaler is not None:
            lines.append(f"scale {known.scaler.kind}")
        if known.classes is not None:
            lines.append(f"classes {', '.join(map(str, known.classes))}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        scaler = self.preprocessing.scaler
        kind = self.scale if scaler is None else scaler.kind
        targets = " scale_targets=True" if self.scale_targets else ""
        return f"<Model scale={kind!r}{targets} {self.network!r}>"

    def _features(self, x: Any) -> Any:
        """Return the features of x, an array or a table."""
        self.check_fitted()
        return self._encoded(code_table(x, self.preprocessing.columns))

    def _encoded(self, features: Any) -> Any:
        return encoded(features, self.preprocessing.encoder, self.network.backend)

    def _labels(self, codes: np.ndarray) -> np.ndarray:
        return codes if self.classes is None else decode_labels(codes, self.classes)


def load(
    path: str | os.PathLike[str],
    device: str | Backend | None = None,
    activations: Iterable[Activation] = (),
    losses: Iterable[Loss] = (),
) -> Model:
    """Return the model that `Model.save` wrote, on any device, with the same values bit for bit.

    activations, losses: the custom ones that the network uses; the file stores only their names.
    Custom initializers are not needed: if you call `initialize`, it uses "auto" for weights and
    zeros for biases in their place.

    Raises: ModelFileError for a file that is not a valid model; BackendError for a device.
    """
    return Model.from_parts(*read_model_file(path, device, activations, losses))


def as_model(model: Network | Model) -> Model:
    """Return a model; a network becomes one without preprocessing."""
    return Model(model) if isinstance(model, Network) else model


def _check_scale(scale: Any) -> None:
    if scale is not None and not isinstance(scale, Scaler) and scale not in (*KINDS, "none"):
        cure = suggest(str(scale), (*KINDS, "none"))
        raise ArgumentError(Fault("scale", "a known kind or a fitted Scaler", scale, (cure,)))


def _codes(y: Any, known: Preprocessing) -> Any:
    """Return targets with labels replaced by codes."""
    if known.classes is None or not _is_on_host(y):
        return y
    array = target_array(y)
    return encode_labels(array, known.classes) if array.ndim == 1 else array


def _is_on_host(y: Any) -> bool:
    return isinstance(y, np.ndarray) or not hasattr(y, "__cuda_array_interface__")


def with_labels(columns: Any, classes: Any) -> Any:
    """Return a column coding with the task and the classes of the target."""
    if columns is None:
        return None
    if classes is None:
        return {**columns, "task": "regression", "classes": None}
    # Readers of files compare labels as text.
    labels = [label if type(label) in (str, int) else str(label) for label in classes]
    return {**columns, "task": "classification", "classes": labels}
