"""Labels of classes: learned from targets, converted to codes of the outputs and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from nnbackend.data.numeric import as_array
from nnbackend.data.stream import Stream
from nnbackend.errors import ArgumentError, DataError, Fault, ShapeError
from nnbackend.network.network import Network

SHOWN = 10  # labels in a message
KINDS = "biufUSTO"  # of arrays that can hold labels
LABELS = (str, bytes, int, float, bool)


def has_labels(net: Network, y: np.ndarray) -> bool:
    """Return True if targets y are labels of classes for the network, not values."""
    if y.ndim != 1:
        return False
    if y.dtype.kind not in KINDS or not len(y):
        return False
    if y.dtype.kind == "f" and not np.array_equal(y, np.rint(y)):  # also NaN: refused later
        return False
    return net.n_out > 1 or net.loss.name in ("cross_entropy", "binary_cross_entropy")


def find_labels(net: Network, y: np.ndarray) -> tuple[Any, ...]:
    """Return the labels of the network's classes, in the order of their codes.

    Whole numbers from 0 are codes already; other labels are sorted.
    Raises: DataError if the targets have another number of classes than the network; ShapeError
    for one label where the network answers yes or no several times.
    """
    if net.loss.name == "binary_cross_entropy" and net.n_out > 1:
        raise ShapeError(
            f"y must have {net.n_out} columns of 0 and 1 for binary_cross_entropy with "
            f"{net.n_out} outputs. Received: y.shape={y.shape}. For one label of several classes "
            "use cross_entropy."
        )
    n, found = n_classes(net), _distinct(y)
    if any(label is None or label != label for label in found):  # NaN is not equal to itself
        raise DataError(
            "y must have a label in every row. Received: missing values (None or NaN). "
            "Drop those rows."
        )
    if all(type(label) in (int, float) and label in range(n) for label in found):
        return tuple(range(n))
    if len(found) != n:
        shown = ", ".join(repr(label) for label in found[:SHOWN])
        raise DataError(
            f"y must hold {n} classes, as many as the network has outputs. Received: {len(found)} "
            f"different labels: {shown}{', ...' if len(found) > SHOWN else ''}. Build the network "
            "with one output for each class, or pass Model(..., classes=[...])."
        )
    return tuple(found)


def stream_labels(net: Network, stream: Stream) -> tuple[Any, ...] | None:
    """Return the codes 0, 1, ... as the labels of a stream; None for values.

    Raises: DataError for other labels, of which the first batch may lack some.
    """
    first = next(stream.batches(0), None)
    y = np.zeros(1) if first is None else target_array(first.y)
    if not has_labels(net, y):
        return None
    codes = tuple(range(n_classes(net)))
    found = _distinct(y)
    if not set(found) <= set(codes):
        raise DataError(
            f"The labels of a stream must be the codes 0 to {codes[-1]}, or be known before. "
            f"Received: {found[0]!r}. Pass Model(..., classes=[...])."
        )
    return codes


def check_labels(net: Network, classes: Iterable[Any]) -> tuple[Any, ...]:
    """Return given labels as plain Python objects; raise ArgumentError for a wrong number."""
    if isinstance(classes, (str, bytes, Set, Mapping)):
        raise ArgumentError(
            "classes must be a list, in the order of the outputs. "
            f"Received: {type(classes).__name__}."
        )
    plain = tuple(c.item() if isinstance(c, np.generic) else c for c in classes)
    if not all(isinstance(label, LABELS) for label in plain):
        raise ArgumentError(Fault("classes", "text, numbers or booleans", plain))
    if not len(plain) == len(set(plain)) == n_classes(net):
        expected = f"{n_classes(net)} different labels, one for each class"
        raise ArgumentError(Fault("classes", expected, plain))
    return plain


def n_classes(net: Network) -> int:
    """Return the number of classes that the outputs represent: two for one output."""
    return max(net.n_out, 2)


def encode_labels(y: np.ndarray, classes: Sequence[Any]) -> np.ndarray:
    """Return the codes of labels: y (n,), result (n,) int64.

    Raises: DataError for a label that is not one of the classes.
    """
    codes = {label: code for code, label in enumerate(classes)}
    by_text = {str(label): code for code, label in enumerate(classes)}
    different = np.unique(y) if y.dtype.kind != "O" else y  # many rows, but few labels
    try:
        # As text: a label 7 of one table is "7" in another. Cells of tables have no blanks around.
        found = [codes[v] if v in codes else by_text[str(v).strip()] for v in different.tolist()]
    except KeyError as error:
        known = ", ".join(repr(label) for label in classes[:SHOWN])
        raise DataError(
            f"y must hold labels of the model's classes: {known}"
            f"{', ...' if len(classes) > SHOWN else ''}. Received: {error.args[0]!r}."
        ) from None
    result = np.array(found, np.int64)
    return result if different is y else result[np.searchsorted(different, y)]


def decode_labels(codes: np.ndarray, classes: Sequence[Any]) -> np.ndarray:
    """Return the labels of codes (n,)."""
    # Labels of one type get an array of that type; mixed labels get an array of objects.
    is_one_type = len({type(c) for c in classes}) == 1
    labels = np.empty(len(classes), object)
    labels[:] = classes
    result: np.ndarray = (np.asarray(list(classes)) if is_one_type else labels)[codes]
    return result


def target_array(y: Any) -> np.ndarray:
    """Return targets as a host array; (n, 1) becomes (n,)."""
    array = y if isinstance(y, np.ndarray) else as_array(y, "y")
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _distinct(y: np.ndarray) -> list[Any]:
    """Return the different labels, sorted: numbers as int where they are whole."""
    cells = (y if y.dtype.kind == "O" else np.unique(y)).tolist()
    values = {int(v) if isinstance(v, float) and v.is_integer() else v for v in cells}
    try:
        return sorted(values)
    except TypeError:  # of several types
        return sorted(values, key=str)
