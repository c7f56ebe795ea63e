"""The study of a search: its file, its trials, and the loop that runs them.

The study file is Optuna's journal. Any number of processes may append to it, and a search that was
stopped continues from it. Workers are processes of joblib.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import time
import uuid
import warnings
from collections.abc import Callable, Generator, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from nnbackend.errors import ArgumentError, DeviceLostError, DivergedError, NNBackendError
from nnbackend.machine import usable_cpus
from nnbackend.search.objective import COMPLETE, INTERRUPTED, LATE, Problem, run_trial
from nnbackend.search.rows import ERROR, STATE, VALUE, Row, row_of
from nnbackend.search.sampler import NumberedSampler
from nnbackend.search.space import default_values
from nnbackend.training.interrupt import InterruptGuard

NAME = "nnbackend"  # of the study in its file
STARTUP = 5  # complete trials before others are pruned
LOCK_SECONDS = 3  # after which the lock of a killed process is removed
ENOUGH = 8  # complete trials show which settings are important
FAILED, MOST_FAILURES = "failed", 3  # before any trial works
KEPT = 75.0  # per cent: worse trials are pruned; a half would end most of those that are alike
WARM_UP = 5  # a trial is not pruned in the first epochs // WARM_UP epochs
OWNER = "owner"  # attribute of a trial: the search that runs it
FACTS = "search"  # attribute of a study: what the search is about

# ---- the study ----------------------------------------------------------------------------------


def open_study(problem: Problem, path: str | None, facts: dict[str, str]) -> Study:
    """Return the study in a file, which is created if it does not exist; without a path, a new one.

    facts: what the search is about, by name; a study that exists must have the same.
    Raises: ArgumentError for another study or another file.
    """
    with _quiet_optuna():
        study = optuna.create_study(
            storage=_storage(path), study_name=NAME, load_if_exists=True,
            sampler=NumberedSampler(problem.settings.seed), pruner=_pruner(problem),
            direction="maximize" if problem.is_maximised else "minimize",
        )  # fmt: skip
    known = study.user_attrs.get(FACTS)
    if known is None:
        study.set_user_attr(FACTS, facts)
        settings = problem.settings_of({})
        if first := default_values(problem.space, settings):
            study.enqueue_trial(first)
    elif known != facts:
        changed = [name for name in facts if facts[name] != known.get(name)]
        shown = ", ".join(f"{name} {facts[name]!r:.80} (was {known.get(name)!r:.80})"
                          for name in changed)  # fmt: skip
        raise ArgumentError(
            f"the study in {path} must be continued with what it began with. Received: other "
            f"{shown}. Use another file for another search."
        )
    return study


def _storage(path: str | None) -> BaseStorage:
    if path is None:
        return InMemoryStorage()
    if not Path(path).parent.is_dir():
        raise ArgumentError(
            f"study must be a file in a folder that exists. Received: {path}. Create "
            f"{Path(path).parent} first."
        )
    if os.path.exists(path):
        _check_file(path)
    return JournalStorage(JournalFileBackend(path, lock_obj=_lock(path)))


def _lock(path: str) -> JournalFileOpenLock:
    return JournalFileOpenLock(path, grace_period=LOCK_SECONDS)


def _check_file(path: str) -> None:
    """Raise ArgumentError for a file that is no study; remove a last line that a kill has cut."""
    lock = _lock(path)
    lock.acquire()
    try:
        with open(path, "r+b") as file:
            first = file.readline()
            try:
                is_study = not first or "op_code" in json.loads(first)
            except (ValueError, TypeError):
                is_study = False
            if not is_study:
                raise ArgumentError(
                    "study must be a file that a search has written, or a new one. Received: "
                    f"{path}, which is another file. Choose another name."
                )
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
    finally:
        lock.release()


def _pruner(problem: Problem) -> optuna.pruners.BasePruner:
    return optuna.pruners.PercentilePruner(
        KEPT, n_startup_trials=STARTUP, n_warmup_steps=problem.settings.epochs // WARM_UP
    )


@contextlib.contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Hide Optuna's messages about each study and trial inside the context."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def rows_of(study: Study) -> list[Row]:
    """Return the trials that have ended, in their order."""
    found = study.get_trials(deepcopy=False)
    return [row_of(trial) for trial in found if trial.state.is_finished()]


def n_tried(study: Study) -> int:
    """Return the number of trials that count: all that ended, except by an interrupt or a limit."""
    return sum(row["state"] not in (INTERRUPTED, LATE) for row in rows_of(study))


def in_memory(study: Study) -> Study:
    """Return a copy of a study that needs no file."""
    storage = InMemoryStorage()
    with _quiet_optuna():
        optuna.copy_study(from_study_name=NAME, from_storage=study._storage, to_storage=storage)
        return optuna.load_study(study_name=NAME, storage=storage)


# ---- one trial ----------------------------------------------------------------------------------


def one_trial(study: Study, problem: Problem, deadline: float | None, owner: str) -> Row:
    """Run one trial, store its result in the study, and return it.

    owner: the search that runs the trial, one of several that may share the study.
    A trial that fails ends as a row with the error.
    Raises: KeyboardInterrupt if the trial was interrupted; it does not count.
    """
    with _quiet_optuna():
        trial = study.ask()
        trial.set_user_attr(OWNER, owner)
        try:
            state, value, attributes = _result(problem, trial, deadline)
        except BaseException:
            _end(study, trial)
            raise
        if attributes[STATE] == INTERRUPTED:
            _end(study, trial)
            raise KeyboardInterrupt
        for name, fact in attributes.items():
            trial.set_user_attr(name, fact)
        study.tell(trial, value, state)
    return row_of(study.get_trials(deepcopy=False)[trial.number])


def _result(
    problem: Problem, trial: optuna.Trial, deadline: float | None
) -> tuple[TrialState, float | None, dict[str, Any]]:
    """Return the state for the sampler, the value, and what a row shows."""
    try:
        outcome = run_trial(problem, trial, deadline)
    except DivergedError as error:  # counts as the worst: the sampler avoids such settings
        return TrialState.PRUNED, None, {STATE: "diverged", ERROR: str(error)}
    except DeviceLostError:  # no further trial could run
        raise
    except (NNBackendError, MemoryError) as error:
        return TrialState.FAIL, None, {STATE: FAILED, ERROR: str(error)}
    value = outcome.value
    shown = {STATE: outcome.state, VALUE: value, **outcome.facts}
    if outcome.state == COMPLETE:
        if value is None or not math.isfinite(value):
            about = f"the metric {problem.metric} is {value} on the validation rows"
            return TrialState.FAIL, None, {**shown, STATE: FAILED, VALUE: None, ERROR: about}
        return TrialState.COMPLETE, value, shown
    return TrialState.PRUNED, None, shown


def _end(study: Study, trial: optuna.Trial | FrozenTrial) -> None:
    """End an interrupted trial, and queue its settings for the next search of the study."""
    study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    if trial.params:
        study.enqueue_trial(trial.params)


# ---- the loop -----------------------------------------------------------------------------------


def search(
    study: Study,
    problem: Problem,
    path: str | None,
    *,
    trials: int,
    deadline: float | None,
    workers: int,
    show: Callable[[Row], None],
) -> bool:
    """Run trials until the study has as many, or until the deadline; return True if interrupted.

    show: called with each trial that has ended.
    """
    n_failed, works, owner = 0, False, uuid.uuid4().hex
    if workers == 1:
        ended = _alone(study, problem, trials, deadline, owner)
    else:
        assert path is not None
        ended = _parallel(study, problem, path, trials, deadline, workers, owner)
    try:
        with contextlib.closing(ended):
            for row in ended:
                show(row)
                n_failed += row[STATE] == FAILED
                works = works or row[STATE] != FAILED
                if n_failed == MOST_FAILURES and not works:  # for the same reason, it seems
                    break
    except KeyboardInterrupt:
        with _quiet_optuna():  # workers that were ended have left their trials
            if path is not None:
                _check_file(path)
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if trial.user_attrs.get(OWNER, owner) == owner:  # or it had just begun
                    _end(study, trial)
        return True
    return False


def _alone(
    study: Study, problem: Problem, trials: int, deadline: float | None, owner: str
) -> Generator[Row]:
    """Yield the trials as they end."""
    with InterruptGuard() as guard:
        while n_tried(study) < trials and not _is_over(study, deadline):
            yield one_trial(study, problem, deadline, owner)
            if guard.requested:
                raise KeyboardInterrupt


def _parallel(
    study: Study, problem: Problem, path: str, trials: int, deadline: float | None, workers: int,
    owner: str,
) -> Generator[Row]:  # fmt: skip
    """Yield the trials of worker processes as they end."""
    from joblib import Parallel, delayed, parallel_config

    n = trials - n_tried(study)
    threads = max(1, len(usable_cpus()) // workers)
    with parallel_config(backend="loky", inner_max_num_threads=threads):
        jobs = Parallel(n_jobs=workers, return_as="generator_unordered", pre_dispatch=workers)
        job = delayed(_in_worker)(path, problem, deadline, trials, owner)
        rows = jobs(job for _ in range(n))
        try:
            yield from filter(None, rows)
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it cancels the trials under way
                rows.close()


def _in_worker(
    path: str, problem: Problem, deadline: float | None, trials: int, owner: str
) -> Row | None:
    """Run one trial in a worker process; return None if the search is over."""
    if hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process ends its workers
    study = _study_of(path, problem.settings.seed, owner)
    if n_tried(study) >= trials or _is_over(study, deadline):
        return None
    study.pruner = _pruner(problem)
    return one_trial(study, problem, deadline, owner)


@lru_cache(maxsize=1)
def _study_of(path: str, seed: int, owner: str) -> Study:
    """Return the study in a file, opened once in each worker of a search."""
    with _quiet_optuna():
        return optuna.load_study(
            storage=_storage(path), study_name=NAME, sampler=NumberedSampler(seed)
        )


def _is_over(study: Study, deadline: float | None) -> bool:
    """Return True after the deadline; at least one trial runs."""
    return deadline is not None and time.time() > deadline and bool(rows_of(study))


def importances(study: Study) -> dict[str, float]:
    """Return the importance of each setting for the value, in descending order; {} if unknown."""
    if sum(row[STATE] == COMPLETE for row in rows_of(study)) < ENOUGH:
        return {}
    with _quiet_optuna(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all values may be equal
        try:
            return dict(optuna.importance.get_param_importances(study))
        except (ValueError, RuntimeError):
            return {}
