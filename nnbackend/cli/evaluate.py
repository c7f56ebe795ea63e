"""`nnbackend evaluate`: loss and scores of a trained network, on rows not used in training."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nnbackend.cli.parts import Known, all_rows, fingerprint, read_data, read_known, split_test
from nnbackend.cli.places import check_places, check_same_rows
from nnbackend.cli.run_folder import Run, open_run, to_json
from nnbackend.data import Dataset
from nnbackend.errors import ArgumentError, DataError, Fault
from nnbackend.metrics import METRICS, advice, is_pinball, metrics_of
from nnbackend.model.labels import decode_labels
from nnbackend.model.model import Model
from nnbackend.plots import confusion_matrix, count_confusions

logger = logging.getLogger("nnbackend")
TWO = 2  # classes
PARTS = ("train", "test", "all")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `evaluate`."""
    add_run_and_data(parser)
    parser.add_argument(
        "--part", choices=PARTS,
        help="rows to evaluate (default: test if the data has a test part, else all)",
    )  # fmt: skip
    parser.add_argument(
        "--metric", metavar="NAME,...",
        help=f"metrics to print: {', '.join(METRICS)} (default: all that suit the model)",
    )  # fmt: skip
    parser.add_argument("--confusion", action="store_true", help="print the confusion matrix")
    parser.add_argument(
        "--confusion-plot", metavar="FILE", help="write the confusion matrix as a picture"
    )
    parser.add_argument("--json", action="store_true", help="end stdout with one line of JSON")


def add_run_and_data(parser: argparse.ArgumentParser) -> None:
    """Add the arguments shared by `evaluate` and `predict`."""
    parser.add_argument("run", metavar="RUN", help="a run folder or a model file")
    parser.add_argument(
        "data", metavar="DATA",
        help="unscaled data in the format of the training data; - reads a .csv from stdin",
    )  # fmt: skip
    parser.add_argument("--encoding", metavar="NAME", help="as for train (default: decided)")
    parser.add_argument("--device", metavar="DEVICE", help="as for train (default: auto)")
    parser.add_argument(
        "--threshold", metavar="X",
        help="probability above which the second of two classes is the answer (default: that of "
        "the model)",
    )  # fmt: skip
    parser.add_argument(
        "--missing", choices=("fill", "drop", "error"), metavar="fill|drop|error",
        help="rows with missing values: fill a table's, drop them (predict writes an empty line), "
        "or fail (default: as for train)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Evaluate and return the exit code."""
    found = open_run(args.run)
    model = load_model(found, args)
    data = read_for(found, model, args.data, args.missing, encoding=args.encoding)
    part, rows = choose_part(found, data, args.part)
    if rows.y is None:
        target = None if data.columns is None else data.columns.target
        received = "only features" if target is None else f"no column {target!r}"
        raise DataError(
            f"{data.name}: evaluation needs the target. Received: {received}. "
            "To predict without a target, use: nnbackend predict"
        )
    results = {"data": rows.name, "part": part, "rows": rows.n_samples, **_of_two(model)}
    if data.n_dropped:
        results["dropped"] = data.n_dropped
    classes, true = model.classes, labels_of(model, rows.y)
    results.update(model.evaluate(rows.x, true))
    predicted = model.predict(rows.x)
    is_labels = classes is not None and predicted.ndim == 1
    if not is_labels and (args.confusion or args.confusion_plot):
        raise ArgumentError("--confusion needs a classifier. Received: a network without classes.")
    if classes is not None and is_labels:
        counts, labels = count_confusions(true, predicted, classes)
        results["classes"] = per_class(counts, labels)
        if args.confusion:
            results["confusion"] = counts.tolist()
        if args.confusion_plot:
            confusion_matrix(true, predicted, classes, args.confusion_plot)
    results = found_metrics(model, rows, predicted, args.metric) | results
    _print(results)
    note = ""
    if classes and is_labels and model.threshold is None:
        note = advice(rows.y, results["accuracy"], classes)
    if note:
        logger.warning("%s", note)
    if args.json:
        print(to_json(results))
    return 0


def found_metrics(
    model: Model, rows: Dataset, predicted: np.ndarray, names: str | None
) -> dict[str, float]:
    """Return the metrics of predictions, all that suit the model or those of a list of names."""
    assert rows.y is not None
    chosen = None if names is None else [name.strip() for name in names.split(",")]
    if model.classes is not None and predicted.ndim == 1 and model.has_probabilities:
        p, n_classes = model.predict_proba(rows.x), len(model.classes)
        return metrics_of(rows.y, p, n_classes, chosen, threshold=model.threshold)
    if not model.is_classifier and rows.y.shape == predicted.shape:
        return metrics_of(rows.y, predicted, 0, chosen)
    return {}


def labels_of(model: Model, y: np.ndarray) -> np.ndarray:
    """Return the labels of a data set's class codes; values stay as they are."""
    if model.classes is None or y.ndim != 1:
        return y
    return decode_labels(y, model.classes)


def load_model(found: Run, args: argparse.Namespace) -> Model:
    """Return the model of a run, with the threshold of the options."""
    model = found.load(args.device)
    if args.threshold is not None:
        try:
            number = float(args.threshold)
        except ValueError:
            expected = "a number between 0 and 1; train chooses one by a name"
            raise ArgumentError(Fault("threshold", expected, args.threshold)) from None
        model.threshold = number
    return model


def read_for(
    found: Run,
    model: Model,
    source: str,
    missing: str | None = None,
    with_target: bool = True,
    encoding: str | None = None,
) -> Dataset:
    """Read data in the same way as the training data of a run."""
    known = Known(model.n_features, model.classes, model.preprocessing.columns)
    return read_known(source, known, found.settings, missing, with_target, encoding)


def read_data_of(found: Run) -> Dataset:
    """Read the training data of a run, even if the files have moved.

    Raises: ArgumentError if the files are missing or hold other rows.
    """
    assert found.settings is not None
    check_places(found.settings, found.folder, found.environment)
    data = read_data(found.settings)
    check_same_rows(fingerprint(data), found.environment, found.settings.data)
    return data


def choose_part(found: Run, data: Dataset, asked: str | None) -> tuple[str, Dataset]:
    """Return the part's name and its rows.

    The training data is split as for training. Other data has a test part only if it was
    distributed with one.
    Raises: ArgumentError for a part that does not exist.
    """
    known = found.environment.get("data", {})
    is_same = found.settings is not None and known.get("fingerprint") == fingerprint(data)
    training, test = data, data.test
    if is_same and found.settings is not None:
        by_column = found.settings.group or found.settings.time
        if by_column and data.raw is None:  # the column is read for training alone
            data = replace(data, raw=read_data_of(found).raw)
        parts = split_test(data, found.settings)
        training, test = parts.training, parts.test
    if asked is None:
        asked = "all" if test is None else "test"
    if asked == "test" and test is not None:
        return "test", test
    if asked == "all":
        return "all", all_rows(data)
    if asked == "train" and (is_same or data.test is not None):
        return "train", training
    why = (
        "the run held out no rows"
        if is_same
        else "these are not the rows the network was trained on"
    )
    raise ArgumentError(f"{data.name} has no part for --part {asked}: {why}. Use --part all.")


def per_class(counts: np.ndarray, labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return precision, recall, F1 and rows of each class; 0 where a denominator is 0."""
    right = np.diag(counts).astype(np.float64)
    rows, taken = counts.sum(axis=1), counts.sum(axis=0)
    precision = right / np.maximum(taken, 1)
    recall = right / np.maximum(rows, 1)
    f1 = 2 * right / np.maximum(rows + taken, 1)
    return {
        label: {
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "rows": int(rows[i]),
        }
        for i, label in enumerate(labels)
    }


def _of_two(model: Model) -> dict[str, Any]:
    """Return the positive class and the threshold of a model of two classes."""
    if model.classes is None or len(model.classes) != TWO:
        return {}
    threshold = {} if model.threshold is None else {"threshold": model.threshold}
    return {"positive": model.classes[1], **threshold}


def _print(results: dict[str, Any]) -> None:
    n = results.get("dropped")
    dropped = f", {n:,} without value or target dropped" if n else ""
    print(f"{'data':<10}{results['data']}, {results['part']}: {results['rows']:,} rows{dropped}")
    quantiles = [name for name in results if is_pinball(name)]
    shown = [n for n in ("threshold", "loss", *METRICS, *quantiles) if n in results]
    width = max(10, *(len(name) + 2 for name in shown))
    for name in shown:
        digits = ".6g" if name in ("loss", "rmse", "mae") else ".4f"
        print(f"{name:<{width}}{results[name]:{digits}}")
    if "classes" in results:
        width = max(5, *(len(label) for label in results["classes"]))
        print(f"\n{'class':<{width}}  precision  recall      f1   rows")
        for label, of in results["classes"].items():
            print(
                f"{label:<{width}}  {of['precision']:>9.4f}  {of['recall']:>6.4f}  "
                f"{of['f1']:>6.4f}  {of['rows']:>5}"
            )
    if "positive" in results:
        print(f"\nf1, average_precision and the threshold are of {results['positive']!r}")
    if "confusion" in results:
        _print_confusion(results["confusion"], list(results["classes"]))


def _print_confusion(counts: list[list[int]], labels: list[str]) -> None:
    largest = max(map(max, counts))
    left = max(map(len, labels))
    width = max(len(str(largest)), min(left, 8))
    print("\nconfusion matrix: rows are true classes, columns are predicted classes")
    print(" " * left + "".join(f"  {label[:width]:>{width}}" for label in labels))
    for label, row in zip(labels, counts, strict=True):
        print(f"{label:<{left}}" + "".join(f"  {n or '.':>{width}}" for n in row))
