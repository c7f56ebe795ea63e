"""The data set that every reader returns: rows, targets and their description.

The arrays keep their stored dtype and location (bytes for images, a memory map for a `.npy` file),
so that a large set uses memory once at most. Scaling and batching come later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.data.coding import ColumnCoding
from nnbackend.data.file_rows import selected
from nnbackend.data.keys import Keys, keys_of
from nnbackend.data.many_levels import target_values
from nnbackend.data.raw_tables import RawTable
from nnbackend.data.splits import split_rows
from nnbackend.data.targets import Label, Task
from nnbackend.errors import DataError, Mention, ShapeError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples as rows, with their targets.

    Class code i in `y` stands for `classes[i]`; for regression `classes` is None. `y` and `task`
    are None if the file has no target. `columns` is the coding of a table's columns as features.
    `test` is the test part, if one was distributed with the data. `n_dropped` counts the rows
    dropped because of missing values; `kept` is then a mask over the rows of the file. `ids` are
    columns of a table that identify its rows, by name. `raw` are the cells of a table that was read
    for training.

    Shapes: x (n_samples, n_features); y (n_samples,) or (n_samples, n_outputs).
    Raises: ShapeError when the shapes of the arrays do not match.
    """

    x: NDArray[Any]
    y: NDArray[Any] | None
    name: str
    task: Task | None
    classes: tuple[Label, ...] | None = None
    feature_names: tuple[str, ...] | None = None
    columns: ColumnCoding | None = None
    test: Dataset | None = None
    n_dropped: int = 0
    kept: NDArray[np.bool_] | None = None
    ids: Mapping[str, Sequence[str | None]] = field(default_factory=dict, repr=False)
    raw: RawTable | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.x.ndim != 2:
            raise ShapeError(
                f"x must have two dimensions (rows, features). Received: x.shape={self.x.shape}. "
                "Reshape to (n_samples, -1)."
            )
        if self.y is not None and len(self.y) != len(self.x):
            raise ShapeError(
                f"x and y must have the same number of rows. Received: x.shape={self.x.shape}, "
                f"y.shape={self.y.shape}. Give one target for each row of x."
            )
        if self.feature_names is not None and len(self.feature_names) != self.n_features:
            raise ShapeError(
                f"feature_names must name each of the {self.n_features} columns of x. "
                f"Received: {len(self.feature_names)} names. Give one for each column, or None."
            )

    @property
    def n_samples(self) -> int:
        """Number of rows."""
        return int(self.x.shape[0])

    @property
    def n_features(self) -> int:
        """Number of columns of x."""
        return int(self.x.shape[1])

    @property
    def n_classes(self) -> int | None:
        """Number of classes; None for regression and without a target."""
        return None if self.classes is None else len(self.classes)

    @property
    def labels(self) -> NDArray[Any] | None:
        """The targets with class codes replaced by labels; y itself for regression."""
        if self.y is None or self.classes is None:
            return self.y
        result: NDArray[Any] = np.array(self.classes)[self.y]
        return result

    def rows(self, indices: Any) -> Dataset:
        """Return the rows selected by an index array, mask or slice, without the test part."""
        y = None if self.y is None else self.y[indices]
        ids = {name: np.array(cells, object)[indices] for name, cells in self.ids.items()}
        raw = None if self.raw is None else self.raw.take(indices)
        return replace(
            self, x=selected(self.x, indices), y=y, test=None, kept=None, ids=ids, raw=raw
        )

    def fitted_to(self, training: NDArray[np.int64]) -> Dataset:
        """Return the same rows, with features that are fitted to some of them.

        The medians, categories and mean targets of a table's columns then come from the rows at
        the positions `training` alone; the features of arrays stay as they are. The mean targets
        of a training row are those of other training rows: see `many_levels`.
        """
        if self.raw is None or self.columns is None or self.y is None:
            return self
        mask = np.zeros(self.n_samples, dtype=bool)
        mask[training] = True
        target = target_values(self.y, self.classes)
        columns, x = self.raw.fit(self.columns, mask, target)
        return replace(self, x=x, columns=columns, feature_names=columns.feature_names)

    def split_positions(
        self, fraction: float, seed: int, keys: Keys | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the positions of the rows of `split`: (rest, held_out).

        keys: groups to keep together, or times of which the latest are held out.
        """
        labels = self.y if self.task == "classification" else None
        return split_rows(self.n_samples, fraction, seed, labels, keys)

    def with_positive(self, label: str | None) -> Dataset:
        """Return the data with a class as the second of two; None leaves it as it is.

        Raises: DataError for other than two classes, or a class that does not exist.
        """
        if label is None:
            return self
        names = [str(name) for name in self.classes or ()]
        if len(names) != 2 or label not in names:
            received = f"{len(names)} classes" if names else "a regression"
            received = f"{label!r}, and the classes {names}" if len(names) == 2 else received
            raise DataError(
                Mention("positive"), f" must be one of two classes. Received: {received}."
            )
        assert self.classes is not None
        classes = tuple(sorted(self.classes, key=lambda name: str(name) == label))
        data = self.recode(classes)
        columns = None if data.columns is None else replace(data.columns, classes=classes)
        return replace(data, columns=columns)

    def keys(self, group: str | None, time: str | None) -> Keys | None:
        """Return how the rows belong together, by the name of a column of the table."""
        decimal = "." if self.columns is None else self.columns.decimal
        return keys_of(self.raw, self.name, group, time, decimal)

    def split(self, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
        """Split into (rest, held_out), where held_out has about `fraction` of the rows.

        For classification the split is stratified (to within one row per class), and the rest
        keeps a row of every class if possible. The same seed gives the same rows; both parts
        keep the order of the file. The distributed test part stays with the rest.

        The features of a table are fitted again, to the rest alone.

        Raises: ArgumentError when fraction is not between 0 and 1; DataError for fewer than 2 rows.
        """
        # Index arrays, not a mask: on a memory map they read only the selected rows.
        rest, held_out = self.split_positions(fraction, seed)
        data = self.fitted_to(rest)
        return replace(data.rows(rest), test=self.test), data.rows(held_out)

    def with_test(self, test: Dataset) -> Dataset:
        """Return the data with a test part; both use the same class codes.

        Raises: DataError when the numbers of features differ.
        """
        if test.n_features != self.n_features:
            raise DataError(
                f"{self.name}: training and test rows must have the same size. "
                f"Received: {self.n_features} and {test.n_features} features."
            )
        labels = {*(self.classes or ()), *(test.classes or ())}
        classes = sorted(labels, key=lambda label: (isinstance(label, str), label))
        return replace(self.recode(classes), test=test.recode(classes))

    def recode(self, classes: Sequence[Label]) -> Dataset:
        """Return the same data with class codes that index `classes`, such as a trained model's.

        Raises: DataError when the data has a class that is not in `classes`.
        """
        if self.y is None or self.classes is None or self.classes == tuple(classes):
            return self
        # Classes are compared as text: 7 in one format may be "7" in another.
        position = {str(label): code for code, label in enumerate(classes)}
        unknown = [label for label in self.classes if str(label) not in position]
        if unknown:
            raise DataError(
                f"The classes of {self.name!r} must be among {_list_labels(classes)}. "
                f"Received: also {_list_labels(unknown)}. Remove those rows, or train with them."
            )
        codes = np.array([position[str(label)] for label in self.classes], dtype=np.int64)
        test = None if self.test is None else self.test.recode(classes)
        return replace(self, y=codes[self.y], classes=tuple(classes), test=test)


def _list_labels(labels: Sequence[Label], most: int = 10) -> str:
    """Return the labels for a message, at most `most` of them."""
    shown = ", ".join(repr(label) for label in labels[:most])
    return shown if len(labels) <= most else f"{shown}, ... ({len(labels)} in total)"
