"""The data of the page: a toy set, a file that was sent, or arrays from Python."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnbackend.data import Dataset, load
from nnbackend.data.toys import TOYS
from nnbackend.errors import ArgumentError, DataError, Fault

MAX_ROWS, MAX_COLUMNS = 20_000, 200  # of a file that is sent
NOISE = {"spirals": 0.02, "circles": 0.06, "xor": 0.1, "blobs": 0.2, "wave": 0.1}
ROWS = 400
SHOWN_ROWS = 1000  # points that the page draws


@dataclass(frozen=True)
class Source:
    """A data set, and how the page made it.

    kind: "toy", "file" or "given".  about: the toy's rows, noise and seed.
    whole: the data before columns were chosen.  columns: the chosen ones, or () for all.
    """

    data: Dataset
    kind: str
    about: Mapping[str, Any] = field(default_factory=dict)
    whole: Dataset | None = None
    columns: tuple[int, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the features."""
        return self.data.feature_names or tuple(f"x{i + 1}" for i in range(self.data.n_features))

    def select(self, columns: tuple[int, ...]) -> Source:
        """Return the source with some of its features; () for all.

        Raises: ArgumentError for a column that does not exist.
        """
        whole = self.whole or self.data
        if len(set(columns)) != len(columns) or any(c >= whole.n_features for c in columns):
            expected = f"different columns from 0 to {whole.n_features - 1}"
            raise ArgumentError(Fault("columns", expected, columns))
        if not columns:
            return replace(self, data=whole, whole=whole, columns=())
        names = Source(whole, self.kind).names
        part = replace(
            whole, x=np.ascontiguousarray(whole.x[:, list(columns)]), columns=None, raw=None,
            feature_names=tuple(names[c] for c in columns),
        )  # fmt: skip
        return replace(self, data=part, whole=whole, columns=columns)


def toy(name: str, rows: int = ROWS, noise: float | None = None, seed: int = 0) -> Source:
    """Return a toy set."""
    noise = NOISE[name] if noise is None else noise
    data = TOYS[name](rows, noise, seed)
    return Source(data, "toy", {"set": name, "rows": rows, "noise": noise, "seed": seed})


def from_csv(content: bytes, name: str) -> Source:
    """Return the table of a CSV file's content; its last column is the target.

    Raises: DataError for content that is no table or that is too large.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        path.write_bytes(content)
        try:
            data = load(str(path))
        except DataError as error:  # whose text names the temporary file
            raise DataError(str(error).replace(str(path), "the file")) from None
    return Source(_checked(replace(data, name=name or "data")), "file")


def _checked(data: Dataset) -> Dataset:
    if data.n_samples > MAX_ROWS or data.n_features > MAX_COLUMNS:
        raise DataError(
            f"The page takes at most {MAX_ROWS} rows and {MAX_COLUMNS} features. Received: "
            f"{data.n_samples} rows, {data.n_features} features. Use nnbackend train for more."
        )
    assert data.y is not None
    if data.n_classes == 1 or (data.task == "regression" and len(np.unique(data.y)) == 1):
        raise DataError(
            "The target, the last column, must have at least two values. Received: one. Move "
            "another column to the end."
        )
    return data


def from_arrays(x: Any, y: Any, n_classes: int | None, name: str = "data") -> Source:
    """Return arrays from Python: x (n, n_in), y (n,) or (n, n_out), codes if n_classes is given."""
    x, y = np.asarray(x), np.asarray(y)
    classes = None if n_classes is None else tuple(range(n_classes))
    task: Any = "regression" if classes is None else "classification"
    return Source(Dataset(x, y, name, task, classes), "given")


def to_csv(data: Dataset) -> str:
    """Return the rows as CSV with the target last; numbers are written so that they read back."""
    names = [n.replace(",", " ") for n in Source(data, "").names]
    out = io.StringIO()
    out.write(",".join([*names, "target"]) + "\n")
    labels = data.labels
    assert labels is not None
    for row, label in zip(np.asarray(data.x[:]).tolist(), labels.tolist(), strict=True):
        out.write(",".join([*map(repr, row), str(label).replace(",", " ")]) + "\n")
    return out.getvalue()


def telling_features(data: Dataset) -> tuple[int, int]:
    """Return the two features that differ most with the target, in their order."""
    if data.n_features <= 2 or data.y is None:
        return (0, 1)
    x = np.asarray(data.x[:MAX_ROWS], np.float64)
    y = np.asarray(data.y[:MAX_ROWS], np.float64)
    total = x.var(axis=0)
    if data.classes is None:
        y = y if y.ndim == 1 else y[:, 0]
        found = np.abs(((x - x.mean(axis=0)) * (y - y.mean())[:, None]).mean(axis=0)) ** 2
        found /= np.where(total > 0, total, np.inf)
    else:
        means = np.stack([x[y == code].mean(axis=0) for code in np.unique(y)])
        found = means.var(axis=0) / np.where(total > 0, total, np.inf)
    first, second = sorted(np.argsort(-found, kind="stable")[:2].tolist())
    return first, second
