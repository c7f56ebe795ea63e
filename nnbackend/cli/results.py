"""What `nnbackend train` says of a run: its header, its facts, its results and the verdict."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from nnbackend.cli import FAILED, GOOD
from nnbackend.cli.console import print_message
from nnbackend.cli.evaluate import labels_of
from nnbackend.cli.parts import Parts, fingerprint
from nnbackend.cli.plan import Plan
from nnbackend.cli.run_folder import MODEL, to_json, write_environment
from nnbackend.cli.settings import DATA_DEFAULTS
from nnbackend.config import SETTINGS, Settings
from nnbackend.data import ColumnCoding, Dataset
from nnbackend.data.deciding import PLAIN
from nnbackend.data.row_order import Shuffle, window_of
from nnbackend.metrics import advice, metrics_of
from nnbackend.model.model import Model
from nnbackend.training.history import Row

logger = logging.getLogger("nnbackend")
SCORES = ("accuracy", "r2")
TWO = 2  # classes
SHOWN = 30  # columns in the header


def header(plan: Plan, folder: Path) -> str:
    """Return the header of the output: data, parts, network, device, folder."""
    trainer, settings = plan.trainer, plan.settings
    sizes = [f"train {len(trainer.data.rows):,}"]
    if trainer.data.validation is not None:
        sizes.append(f"validation {len(trainer.data.validation[1]):,}")
    if plan.parts.test is not None:
        sizes.append(f"test {plan.parts.test.n_samples:,}")
    is_table = plan.data.columns is not None and plan.data.columns.has_header
    hint = "preset     none; for tables --preset tabular is usually more accurate"
    rule = f"{trainer.config.optimizer}, schedule {settings.schedule}"
    return "\n".join([
        *described_data(plan.data, settings.missing == "drop"),
        f"parts      {', '.join(sizes)} rows",
        *([hint] if is_table else []),
        *_own_defaults(settings),
        f"scale      {settings.scale}",
        *_shuffled(trainer.config.shuffle),
        f"optimizer  {rule}, batches of {trainer.state.history.batch_size}",
        f"epochs     {_length(settings)}",
        f"device     {plan.net.backend.device}",
        f"folder     {folder}",
        "",
        plan.net.summary(),
        "",
    ])  # fmt: skip


def _shuffled(shuffle: Shuffle) -> list[str]:
    """Return a line on a window shuffle."""
    rows = window_of(shuffle)
    return [f"shuffle    window: {rows:,} rows at a time"] if rows else []


def _own_defaults(settings: Settings) -> list[str]:
    """Return a line on the defaults that are those of the data set."""
    own = DATA_DEFAULTS.get(settings.data, {})
    used = [
        f"--{name.replace('_', '-')} {SETTINGS[name].kind.text(value)}"
        for name, value in own.items()
        if getattr(settings, name) == value
    ]
    return [f"defaults   for {settings.data}: {' '.join(used)}"] if used else []


def _length(settings: Settings) -> str:
    """Return the number of epochs and when the run stops before."""
    n, patience = settings.epochs, settings.patience
    return f"at most {n}; stops after {patience} without improvement" if patience else str(n)


def described_data(data: Dataset, is_dropping: bool) -> list[str]:
    """Return the lines of the header on the data and its columns.

    is_dropping: whether rows with missing values are dropped, not only those without a target.
    """
    kind = f"{data.n_classes} classes" if data.n_classes else "regression"
    if data.columns is not None:
        kind += f" of {data.columns.target!r}"
    why = "missing values" if is_dropping else "no target"
    dropped = f", {data.n_dropped:,} rows with {why} dropped" if data.n_dropped else ""
    return [
        f"data       {data.name}: {data.n_samples:,} rows, {data.n_features:,} features, {kind}"
        f"{dropped}",
        *_columns(data.columns),
    ]


def _columns(coding: ColumnCoding | None) -> list[str]:
    """Return what the columns of a table became, a line for each that is not plain numbers."""
    if coding is None or not coding.has_header:
        return []
    kinds = Counter(column.kind for column in coding.columns)
    lines = [f"columns    {', '.join(f'{n} {kind}' for kind, n in kinds.most_common())}"]
    shown = [column for column in coding.columns if column.why != PLAIN]
    width = max((len(column.name) for column in shown[:SHOWN]), default=0)
    for column in shown[:SHOWN]:
        n = len(column.feature_names)
        what = f"{column.kind}, {n} features" if n > 1 else column.kind
        lines.append(f"  {column.name:<{width}}  {what}: {column.why}")
    if len(shown) > SHOWN:
        lines.append(f"  and {len(shown) - SHOWN} more")
    return lines


def facts(plan: Plan) -> dict[str, Any]:
    """Return the entry of environment.json on the data."""
    validation = plan.trainer.data.validation
    return data_facts(plan.data, plan.parts) | {
        "rows_train": len(plan.trainer.data.rows),
        "rows_validation": 0 if validation is None else len(validation[1]),
    }


def data_facts(data: Dataset, parts: Parts) -> dict[str, Any]:
    """Return the facts on the data that do not depend on the network."""
    return {
        "name": data.name,
        "rows": data.n_samples,
        "features": data.n_features,
        "classes": data.n_classes,
        "rows_test": 0 if parts.test is None else parts.test.n_samples,
        "rows_dropped": data.n_dropped,
        "fingerprint": fingerprint(data),
    }


def figures(plan: Plan) -> dict[str, Any]:
    """Return the results of the best epoch and of the test part, which is used only here."""
    history, test = plan.trainer.state.history, plan.parts.test
    best: Row = history.best if history.rows else {}
    results: dict[str, Any] = {
        "best_epoch": int(best.get("epoch", 0)),
        "epochs": len(history),
        "stop_reason": history.stop_reason,
        "train_loss": best.get("train_loss"),
    }
    results |= {name: value for name, value in best.items() if name.startswith("valid_")}
    return results | test_figures(plan.model, test)


def test_figures(model: Model, test: Dataset | None) -> dict[str, Any]:
    """Return the scores of the test part, and print a note where accuracy is the majority's."""
    if test is None:
        return {}
    assert test.y is not None
    found = model.evaluate(test.x, labels_of(model, test.y))
    if model.classes is not None and len(model.classes) == TWO and model.has_probabilities:
        found |= metrics_of(test.y, model.predict_proba(test.x), TWO, ["roc_auc"])
    if model.threshold is not None and model.classes is not None:
        found |= {"threshold": model.threshold, "positive": model.classes[1]}
        names = ["f1", "balanced_accuracy"]
        found |= metrics_of(
            test.y, model.predict_proba(test.x), TWO, names, threshold=model.threshold
        )
    elif model.classes is not None and (note := advice(test.y, found["accuracy"], model.classes)):
        logger.warning("test %s", note)
    own = ("threshold", "positive")
    return {n if n in own else f"test_{n}": value for n, value in found.items()}


def finish(
    results: dict[str, Any],
    facts: Mapping[str, Any],
    folder: Path,
    begin: float,
    with_json: bool,
    **more: str | None,
) -> None:
    """Add the facts of a finished run to its results; store and print them.

    begin: the `perf_counter` of the command's start.
    """
    results |= {
        "seconds": round(time.perf_counter() - begin, 3),
        "device": facts["device"],
        "model": str(folder / MODEL),
        **more,
    }
    write_environment(folder, {**facts, "results": results})
    report(results, [f"{part}_r2" for part, n in _rows(facts).items() if n == 1])
    if with_json:
        print(to_json(results))
    sys.stdout.flush()


def _rows(facts: Mapping[str, Any]) -> dict[str, int]:
    """Return the numbers of rows of the parts for which scores are printed."""
    data = facts["data"]
    return {"valid": data.get("rows_validation", 0), "test": data["rows_test"]}


def report(results: Mapping[str, Any], undefined: Collection[str] = ()) -> None:
    """Print the results, one per line, with their names in JSON, and deviations behind means.

    undefined: names of scores that one row does not have.
    """
    width = max(map(len, results))
    for name, value in results.items():
        deviation = results.get(f"{name}_sd")
        if name.endswith("_sd") and name.removesuffix("_sd") in results:
            continue
        if name in undefined:
            print(f"{name:<{width}}  -  (needs two rows or more)")
        elif isinstance(value, float):
            digits = ".1f" if name == "seconds" else ".4f" if name.endswith(SCORES) else ".6g"
            spread = "" if deviation is None else f" +- {deviation:.2g}"
            print(f"{name:<{width}}  {value:{digits}}{spread}")
        elif value is not None:
            print(f"{name:<{width}}  {value}")


def verdict(results: Mapping[str, Any], settings: Settings) -> int:
    """Return the exit code: FAILED if the score is below the target accuracy."""
    target = settings.target_accuracy
    names = [f"{part}_{score}" for part in ("test", "valid") for score in SCORES]
    name = next((name for name in names if name in results), None)
    if target is None or name is None or results[name] >= target:
        return GOOD
    missed = target - results[name]
    print_message(f"target missed: {name} {results[name]:.4f} is {missed:.4f} below {target:g}")
    return FAILED
