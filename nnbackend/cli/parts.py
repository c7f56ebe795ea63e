"""Read data and split it into a training and a test part.

The split depends only on the rows, the seed and the fraction, so `evaluate` finds the rows that
`train` held out. A fingerprint of the data detects other rows.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnbackend.cli.places import NAMES, OWN, is_file_setting
from nnbackend.config import Settings
from nnbackend.data import BUILTIN, ColumnCoding, Dataset, NumberColumn, load
from nnbackend.data.keys import Keys
from nnbackend.data.readers import TEXT_TABLES
from nnbackend.data.shards import (
    exists,
    find_shards,
    is_parquet,
    name_of,
    read_parquet_shards,
)
from nnbackend.data.splits import split_rows
from nnbackend.data.sql_tables import absolute, is_url
from nnbackend.data.table_datasets import code_dataset
from nnbackend.data.table_sources import TableSource
from nnbackend.errors import ArgumentError, DataError, Mention

logger = logging.getLogger("nnbackend")
TWO, TWO_THIRDS = 2, 2 / 3
TEST_SHARE = 0.2  # held out if the data has no test part
FINGERPRINT_BYTES = 1 << 26  # a larger x is sampled at evenly spaced rows


@dataclass(frozen=True)
class Parts:
    """The training rows and the test rows, which only the final evaluation uses."""

    training: Dataset
    test: Dataset | None


# ---- reading ------------------------------------------------------------------------------------


def read_data(settings: Settings) -> Dataset:
    """Read the training data.

    Raises: DataError for data without a target, or with only one class.
    """
    if not settings.data:
        raise ArgumentError("DATA is missing: a built-in set such as digits, or a file.")
    task: Any = settings.task
    decimal: Any = settings.decimal
    group = settings.group if _may_be_table(settings.data) else None
    data = load(
        settings.data, target=settings.target, task=task, missing=settings.missing,
        header=settings.header, column=settings.column, group=group, positive=settings.positive,
        categorical=settings.categorical, ignore=settings.ignore, decimal=decimal,
        encoding=settings.encoding, query=settings.query,
        training=lambda data: training_positions(data, settings),
    )  # fmt: skip
    if data.y is None:
        raise DataError(
            f"{data.name}: training needs a target. Received: only features. Add the targets: "
            "the array y in a .npz file, or the file NAME_y.npy beside NAME_x.npy."
        )
    if data.task == "regression" and len(data.y) > 1 and (data.y == data.y[0]).all():
        raise DataError(
            f"{data.name}: the target must have at least two values. Received: {data.y[0]:g} in "
            "all rows. Name another target."
        )
    if data.task == "classification" and data.n_classes == 1:
        raise DataError(
            f"{data.name}: the target must have at least two classes. Received: only "
            f"{(data.classes or ('?',))[0]!r}. Add rows of another class, or name another target."
        )
    if settings.threshold is not None and data.classes is not None and data.n_classes == TWO:
        share = float((data.y == 1).mean())
        if share > TWO_THIRDS:
            logger.warning(
                "the threshold is that of %r, which %.0f%% of the rows have; to find the rows of "
                "%r, pass %s", data.classes[1], 100 * share, data.classes[0],
                Mention("positive", data.classes[0]),
            )  # fmt: skip
    return data


def read_more(source: str, data: Dataset, settings: Settings) -> Dataset:
    """Read another file in the format of the training data, for validation or test."""
    known = Known(
        data.n_features,
        data.classes,
        None if data.columns is None else data.columns.to_dict(),
    )
    more = read_known(source, known, settings)
    if more.y is None:
        raise DataError(f"{source}: the file must have the target. Received: only features.")
    return more


@dataclass(frozen=True)
class Known:
    """Facts about its data that a trained network stores."""

    n_features: int
    classes: tuple[Any, ...] | None
    columns: Mapping[str, Any] | None


def read_known(
    source: str,
    known: Known,
    settings: Settings | None,
    missing: str | None = None,
    with_target: bool = True,
    encoding: str | None = None,
) -> Dataset:
    """Read data in the same way as a network's training data; the target may be absent.

    `-` reads a table from stdin. missing: None means as for training. with_target: False ignores
    a table's target, which may then have missing values.
    Raises: DataError if the data does not suit the network.
    """
    if source == "-":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "stdin.csv"
            path.write_bytes(sys.stdin.buffer.read())
            return read_known(str(path), known, settings, missing, with_target, encoding)
    missing = missing or (settings.missing if settings else "fill")
    if _is_table(source):
        if known.columns is not None:
            coding = ColumnCoding.from_dict(known.columns)
            if not with_target:
                coding = replace(coding, target=None)
            return load(source, coding=coding, missing=missing, encoding=encoding)
        return _read_plain_table(source, known, missing, with_target)
    target = settings.target if settings and source.lower().endswith(".npz") else None
    task: Any = None
    if settings is not None and source not in BUILTIN:
        task = settings.task
    shards = find_shards(source) if source not in BUILTIN else []
    if shards:
        target = settings.target if settings else None
    if is_parquet(shards):
        data = read_parquet_shards(
            shards, name_of(source), target=target, task=task, n_features=known.n_features
        )
    else:
        data = load(source, target=target, task=task, missing=missing)
    if data.n_features != known.n_features:
        raise DataError(
            f"{data.name}: the data must have the {known.n_features} features that the network was "
            f"trained on. Received: {data.n_features} features."
        )
    return data if known.classes is None else data.recode(known.classes)


def _may_be_table(source: str) -> bool:
    return source not in BUILTIN and (_is_table(source) or not exists(source))


def _is_table(source: str) -> bool:
    is_table = source.lower().removesuffix(".gz").endswith((*TEXT_TABLES, ".parquet"))
    return is_url(source) or (is_table and Path(source).is_file())


def _read_plain_table(source: str, known: Known, missing: str, with_target: bool) -> Dataset:
    """Read a table for a network not trained on a table: features, and optionally the target."""
    kind = "parquet" if source.lower().endswith(".parquet") else "csv"
    table_source = TableSource(source, "sql" if is_url(source) else kind)
    table = table_source.read()
    n, width = known.n_features, len(table.names)
    if width not in (n, n + 1):
        raise DataError(
            f"{table.where}: the table must have {n} columns, the features of the network, or "
            f"{n + 1} with the target as the last. Received: {width} columns."
        )
    if table.has_header:
        print(
            f"nnbackend: note: the model stores no column names; the columns of {table.where} are "
            f"used in their order, {table.names[0]!r} first",
            file=sys.stderr,
        )
    coding = ColumnCoding(
        columns=tuple(NumberColumn(name) for name in table.names[:n]),
        target=table.names[n] if width > n and with_target else None,
        task="regression" if known.classes is None else "classification",
        classes=known.classes,
        has_header=table.has_header,
        target_position=n if width > n else None,
    )
    return code_dataset(table, table_source.name, coding, missing=missing)


# ---- splitting ----------------------------------------------------------------------------------


def split_test(data: Dataset, settings: Settings) -> Parts:
    """Split the data by the settings; `test` None means the distributed part, else a fraction."""
    test = _test_choice(settings, data)
    if test == OWN:
        if data.test is None:
            raise ArgumentError(
                f"--test own needs data that is distributed with a test part. Received: "
                f"{data.name}, which has none. Use a fraction or a file."
            )
        return Parts(replace(data, test=None), data.test)
    if isinstance(test, str):
        return Parts(data, read_more(test, data, settings))
    if test == 0.0:
        return Parts(data, None)
    rest, held_out = data.split_positions(test, settings.seed, keys_of(data, settings))
    return Parts(data.rows(rest), data.rows(held_out))


def keys_of(data: Dataset, settings: Settings) -> Keys | None:
    """Return which rows belong together."""
    return data.keys(settings.group, settings.time)


def split_validation(data: Dataset, settings: Settings) -> tuple[Dataset, Dataset | None]:
    """Return the training rows, and the validation rows of a file or of a column's division.

    Otherwise training itself holds out rows at random, and there are none here.
    """
    if isinstance(settings.validation, str):  # its features are fitted to the training rows
        return data, read_more(settings.validation, data, settings)
    keys, share = keys_of(data, settings), settings.validation
    if keys is None or not share:
        return data, None
    rest, held_out = data.split_positions(share, settings.seed, keys)
    return data.rows(rest), data.rows(held_out)


def training_positions(data: Dataset, settings: Settings) -> NDArray[np.int64]:
    """Return the positions of the rows that train the network, without validation and test rows."""
    test, validation = _test_choice(settings, data), settings.validation
    rows, keys = np.arange(data.n_samples), keys_of(data, settings)
    if isinstance(test, float) and test:
        rows = data.split_positions(test, settings.seed, keys)[0]
    if keys is not None and isinstance(validation, float) and validation:
        labels = data.y if data.task == "classification" else None
        return rows[split_rows(len(rows), validation, settings.seed, labels, keys.take(rows))[0]]
    if settings.preset is not None:  # each member holds out other rows
        return rows
    if isinstance(validation, float) and validation:  # as training.preparation holds them out
        # The one output of two classes has targets of 0 and 1, which are no labels there.
        is_one_output = (settings.loss or "").startswith("binary_cross_entropy")
        is_stratified = data.task == "classification" and not is_one_output
        labels = data.y[rows] if data.y is not None and is_stratified else None
        rows = rows[split_rows(len(rows), validation, settings.seed, labels)[0]]
    return rows


def resolve_sources(settings: Settings, data: Dataset) -> Settings:
    """Fill in the sources of the rows, so that the settings are valid in any working folder."""
    columns = data.columns
    if columns is not None:
        named = columns.has_header
        target = columns.target if named else str(columns.target_position)
        settings = replace(settings, target=target)
        if not settings.data.lower().endswith(".parquet") and not is_url(settings.data):
            settings = replace(settings, header=named)
    settings = replace(settings, test=_test_choice(settings, data))
    places = {name: getattr(settings, name) for name in NAMES}
    files: dict[str, Any] = {
        k: str(Path(v).resolve()) for k, v in places.items() if is_file_setting(v)
    }
    urls: dict[str, Any] = {k: absolute(v) for k, v in places.items() if is_url(v)}
    return replace(settings, **files, **urls)


def _test_choice(settings: Settings, data: Dataset) -> float | str:
    """Return the source of the test rows; the default depends on the data."""
    if settings.test is not None:
        return settings.test
    return OWN if data.test is not None else TEST_SHARE


def all_rows(data: Dataset) -> Dataset:
    """Return all rows, the distributed test part after the others."""
    if data.test is None:
        return data
    x = np.concatenate([data.x, data.test.x])
    both = data.y, data.test.y
    y = None if both[0] is None or both[1] is None else np.concatenate([both[0], both[1]])
    return replace(data, x=x, y=y, test=None)


def fingerprint(data: Dataset) -> str:
    """Return a hash of the rows and their order."""
    digest = hashlib.blake2b(digest_size=16)
    every = max(1, -(-data.x.nbytes // FINGERPRINT_BYTES))
    x = data.x[::every]
    if data.columns is not None and data.columns.is_of_target.any():
        x = x[:, ~data.columns.is_of_target]  # the others are the same for training and new rows
    for values in (x, data.y):
        if values is not None:
            digest.update(f"{values.shape} {values.dtype.str} {data.n_samples}".encode())
            digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
