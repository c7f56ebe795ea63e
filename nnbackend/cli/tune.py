"""`nnbackend tune`: search for good settings by trials, and train the best into a run folder."""

from __future__ import annotations

import argparse
import csv
import io
import signal
import sys
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnbackend.cli import SIGNALLED, train
from nnbackend.cli.console import print_message, quiet_logging
from nnbackend.cli.plan import Source, plan, read
from nnbackend.cli.run_folder import check_out, new_folder, relocated_config, write_text
from nnbackend.cli.settings import read_config, resolve, to_toml
from nnbackend.config import Settings
from nnbackend.devices import get_backend
from nnbackend.errors import ArgumentError, Fault
from nnbackend.metrics import METRICS
from nnbackend.options import ABOVE_0, AT_LEAST_1, Kind, raise_all
from nnbackend.plots.trials import trials as draw_trials
from nnbackend.search.api import require_optuna
from nnbackend.search.objective import JUDGING, Problem, check_folds, check_metric
from nnbackend.search.progress import TrialTable
from nnbackend.search.rows import FACTS, Row, about, best_of, best_row, hash_of, values_of
from nnbackend.search.space import Range, Space, default_space, space_of

STUDY, TABLE, PICTURE = "study.journal", "trials.csv", "trials.png"
SHOWN = 6  # settings in the picture
NUMBERS: dict[str, tuple[Kind, Any, str, str]] = {
    "trials": (AT_LEAST_1, 50, "N", "trials of the study, those of earlier commands included"),
    "minutes": (ABOVE_0, None, "X", "time limit of the search; the best run is trained after it"),
    "folds": (
        AT_LEAST_1,
        None,
        "N",
        "trainings of each trial, judged on different rows by their mean "
        "value (default: 5 where a fifth of the training rows is fewer than 500, else 1)",
    ),
    "workers": (AT_LEAST_1, 1, "N", "processes that run trials at the same time"),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tune`: its own, and those of `train`, which are then not searched."""
    train.add_settings(parser, {"validation": f"{JUDGING:g}; with folds as for train"})
    parser.usage = "nnbackend tune DATA [options]"
    group = parser.add_argument_group("search")
    for name, (_, default, metavar, text) in NUMBERS.items():
        shown = "none" if default is None else default
        text = text if "(default" in text else f"{text} (default: {shown})"
        group.add_argument(f"--{name}", metavar=metavar, help=text)
    group.add_argument(
        "--space", metavar="FILE|NAME=VALUES", action="append", default=[],
        help="what to search instead of the default: a .toml file, or learning_rate=log:1e-4:0.1, "
        'dropout=range:0:0.5, "activation=relu|tanh"; may be repeated',
    )  # fmt: skip
    group.add_argument(
        "--metric", metavar="NAME",
        help=f"figure of the validation rows to improve: loss, {', '.join(METRICS)} (default: "
        "loss)",
    )  # fmt: skip
    group.add_argument(
        "--study", metavar="FILE",
        help=f"file of the trials; the same command continues it (default: {STUDY} in the run "
        "folder)",
    )  # fmt: skip
    group.add_argument("--out", metavar="DIR", help="run folder to write (default: runs/NAME-001)")
    group.add_argument(
        "--config", metavar="FILE", help="settings of a config.toml, which only --space searches"
    )
    group.add_argument("--json", action="store_true", help="end stdout with one line of JSON")
    group.add_argument("--quiet", action="store_true", help="print no progress to stderr")
    parser.epilog = (
        f"{parser.epilog}\n\nCtrl-C and SIGTERM end the search, keep its trials and train the best "
        "settings so far; the exit\ncodes are 130 and 143. A second Ctrl-C ends that training, too."
    )


def faults(args: argparse.Namespace) -> list[ArgumentError]:
    """Return the errors of the options given."""
    try:
        _settings(args)
    except ArgumentError as error:
        return [error]
    return []


def run(args: argparse.Namespace) -> int:
    """Search, train the best settings, and return the exit code."""
    require_optuna()
    begin = time.perf_counter()
    with quiet_logging(args.quiet):
        settings, numbers = _settings(args)
        check_out(args.out)
        backend = get_backend(settings.device)
        source, folds = _source(settings, _fixed(args), numbers.pop("folds"))
        problem = _problem(source, args, backend.device, folds)
        to_toml(source.settings)
        folder = None if args.study else new_folder(args.out, source.data.name)
        study_path = args.study or str(Path(folder or "") / STUDY)
        search = Search(problem, study_path, args.quiet, **numbers)
        folder = folder or new_folder(args.out, source.data.name)
        received = search.run()
        best, chosen = best_of(problem, search.rows)
        files = search.write(folder)
        if not args.quiet:
            print(f"\ntraining the settings of trial {best['trial']}\n", file=sys.stderr)
        code = train.execute(
            plan(source, chosen, backend), folder, None, begin, is_quiet=True, with_json=args.json,
            known={
                "trials": len(search.rows),
                "best_trial": best["trial"],
                f"best_{problem.metric}": best["value"],
                **files,
            },
        )  # fmt: skip
    if received:
        print_message(f"interrupted; continue the search with --study {study_path}")
        return SIGNALLED + received
    return code


class Search:
    """A search: its study, its trials as rows, and the files on them."""

    def __init__(
        self, problem: Problem, study_path: str, is_quiet: bool, *,
        trials: int, minutes: float | None, workers: int,
    ) -> None:  # fmt: skip
        from nnbackend.search import study as studies

        self.problem, self.study_path, self.is_quiet = problem, study_path, is_quiet
        self.trials, self.minutes, self.workers = trials, minutes, workers
        self.about = about(problem, hash_of(problem.data))
        self.study = studies.open_study(problem, study_path, self.about)
        self.rows = studies.rows_of(self.study)

    def run(self) -> int:
        """Run the trials; return the number of the signal that interrupted them, or 0."""
        from nnbackend.search import study as studies

        problem = self.problem
        deadline = None if self.minutes is None else time.time() + 60 * self.minutes
        best = best_row(self.rows, problem.is_maximised)
        table = TrialTable(
            sys.stderr, problem, self.trials - studies.n_tried(self.study), deadline, self.workers,
            best["value"] if best else None,
        )  # fmt: skip
        if not self.is_quiet:
            print(self._header(), file=sys.stderr)
        with _signals() as received:
            is_interrupted = studies.search(
                self.study, problem, self.study_path, trials=self.trials, deadline=deadline,
                workers=self.workers, show=(lambda row: None) if self.is_quiet else table.add,
            )  # fmt: skip
        self.rows = studies.rows_of(self.study)
        self.importances = studies.importances(self.study)
        return (received or [signal.SIGINT])[0] if is_interrupted else 0

    def _header(self) -> str:
        data, limit = self.problem.data, "" if self.minutes is None else f", {self.minutes:g} min"
        facts, n_known = self.about, len(self.rows)
        known = f", {n_known} known" if n_known else ""
        return "\n".join([
            f"data       {data.n_samples:,} training rows, {data.n_features} features, "
            f"judged by {facts['validation']}",
            f"search     {self.trials} trials{known}{limit}, by valid {facts['metric']}",
            *(f"  {line}" for line in facts["space"].split("; ")),
            f"settings   {facts['settings']}",
            f"device     {self.problem.device}",
            f"study      {self.study_path}",
            "",
        ])  # fmt: skip

    def write(self, folder: Path) -> dict[str, str]:
        """Write the table of trials and its picture; return their paths."""
        table, picture = folder / TABLE, folder / PICTURE
        write_text(table, _csv(self.rows))
        files = {"table": str(table)}
        space = self.problem.space
        names = [*self.importances] or sorted({n for row in self.rows for n in values_of(row)})
        try:
            draw_trials(
                self.rows, picture, metric=f"valid {self.problem.metric}",
                is_maximised=self.problem.is_maximised, settings=names[:SHOWN],
                logarithmic=_logarithmic(space),
            )  # fmt: skip
        except Exception as error:  # matplotlib raises many types
            print_message(f"the trials could not be drawn ({type(error).__name__}: {error})")
        else:
            files["picture"] = str(picture)
        return files


def _logarithmic(space: Space) -> set[str]:
    if not isinstance(space, Mapping):
        return set()
    return {name for name, of in space.items() if isinstance(of, Range) and of.is_log}


# ---- the options --------------------------------------------------------------------------------


def _settings(args: argparse.Namespace) -> tuple[Settings, dict[str, Any]]:
    """Return the settings, and the numbers of the search.

    Raises: ArgumentError for all invalid options at once.
    """
    errors: list[Fault | ArgumentError] = []
    numbers: dict[str, Any] = {}
    for name, (kind, default, _, _) in NUMBERS.items():
        text = getattr(args, name)
        try:
            numbers[name] = default if text is None else kind.parse(text)
        except ValueError:
            errors.append(Fault(name, kind.expected, text))
    try:
        settings = resolve(train.given(args), args.config)
        if args.config is not None:
            settings = relocated_config(settings, Path(args.config).parent)
        if not settings.validation:
            expected = "above 0 for a search, which needs rows to judge by"
            errors.append(Fault("validation", expected, settings.validation))
        if settings.preset is not None:
            expected = "none for a search, which is for single networks"
            errors.append(Fault("preset", expected, settings.preset))
        if settings.cv is not None:
            errors.append(Fault("cv", "none for a search, which has folds", settings.cv))
    except ArgumentError as error:
        errors.append(error)
    raise_all(errors)
    return settings, numbers


def _fixed(args: argparse.Namespace) -> set[str]:
    """Return the names of the settings given on the command line or in the config file."""
    in_file = set() if args.config is None else read_config(Path(args.config)).keys()
    return {*train.given(args), *in_file}


def _source(settings: Settings, fixed: set[str], folds: int | None) -> tuple[Source, int]:
    """Read the data; return it and the number of folds, with the validation rows that suit."""
    by_column = settings.group or settings.time
    if by_column and "validation" not in fixed:
        settings = replace(settings, validation=JUDGING)
    source = read(settings)
    is_given = "validation" in fixed or (by_column and folds in (None, 1))
    given = source.validation if is_given else None
    folds, validation = check_folds(folds, source.parts.training, given)
    if given is None and not by_column:
        share: Any = validation
        settings = replace(source.settings, validation=share)
        source = replace(source, settings=settings, validation=validation)
    return source, folds


def _problem(source: Source, args: argparse.Namespace, device: str, folds: int) -> Problem:
    data, settings = source.parts.training, source.settings
    space: Space
    if args.space:  # of settings in the config file too
        space = space_of(_read_space(args.space), train.given(args))
    else:
        space = default_space(settings, data, _fixed(args))
    metric = check_metric(args.metric, data, space)
    return Problem(data, source.validation, settings, space, metric, device, folds)


def _read_space(words: Sequence[str]) -> dict[str, Any]:
    """Return the space of the option --space: files, and NAME=VALUES."""
    space: dict[str, Any] = {}
    for word in words:
        name, equals, values = word.partition("=")
        if equals and not word.endswith(".toml"):
            space[name.replace("-", "_")] = values
            continue
        try:
            with open(word, "rb") as file:
                space |= tomllib.load(file)
        except OSError as error:
            raise ArgumentError(
                f"--space must be a readable .toml file, or NAME=VALUES. Received: {error}."
            ) from error
        except (ValueError, RecursionError) as error:
            raise ArgumentError(f"{word}: the file must be TOML. Received: {error}.") from error
    return space


def _csv(rows: Sequence[Row]) -> str:
    """Return the trials as CSV: their facts, a column for each setting, and the error."""
    settings = dict.fromkeys(name for row in rows for name in values_of(row))
    file = io.StringIO()
    writer = csv.DictWriter(file, [*FACTS, *settings, "error"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Let SIGTERM end the search as Ctrl-C does; yield the list of those received."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # Python delivers none there
        yield received
        return

    def interrupt(number: int, frame: Any) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
