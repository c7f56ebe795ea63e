"""`nnbackend train`: read the data, build and train a network, and write a run folder."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nnbackend.cli import SIGNALLED
from nnbackend.cli.console import print_message, quiet_logging
from nnbackend.cli.hints import print_hint
from nnbackend.cli.live import refuse, shown
from nnbackend.cli.parts import split_test
from nnbackend.cli.plan import Plan, fit_fold, prepare
from nnbackend.cli.progress import EpochTable, RunWriter
from nnbackend.cli.results import facts as describe_facts
from nnbackend.cli.results import figures, finish, header, verdict
from nnbackend.cli.run_folder import (
    CHECKPOINTS,
    CONFIG,
    CURVES,
    ENVIRONMENT,
    LAST,
    MODEL,
    check_out,
    checkpoint_of_run,
    environment,
    new_folder,
    relocated_config,
    save_changes,
    settings_of_run,
    write_environment,
    write_text,
)
from nnbackend.cli.settings import default_text, explicit, resolve, to_toml
from nnbackend.config import SETTINGS, TOPICS, Settings, interval
from nnbackend.devices import get_backend
from nnbackend.distributed import Communicator, world
from nnbackend.errors import ArgumentError, BackendError, DivergedError
from nnbackend.machine import rank_starter
from nnbackend.model.resuming import device_of
from nnbackend.persistence.atomic_file import sweep
from nnbackend.persistence.checkpoints import (
    Checkpoint,
    Checkpoints,
    checkpoint_paths,
    keep_newest,
    step_in_name,
)
from nnbackend.persistence.restoring import restore
from nnbackend.plots import curves
from nnbackend.training.callbacks import Callback
from nnbackend.training.loop import Trainer


def configure(parser: argparse.ArgumentParser) -> None:
    """Add an option for every setting, grouped by topic."""
    parser.usage = "nnbackend train DATA [options]"
    _add_results(add_settings(parser)["results"])
    parser.epilog = (
        f"{parser.epilog}\n\nCtrl-C, SIGTERM and SIGUSR1 stop training after the current step and "
        "save everything, for\n--resume; the exit codes are 130, 143 and 138. A diverged run or a "
        "missed target exits with 1,\nwrong usage with 2."
    )


def add_settings(
    parser: argparse.ArgumentParser, defaults: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """Add DATA and an option for every setting; return the groups by topic.

    defaults: those that differ from `train`'s, for the help.
    """
    absent: Any = argparse.SUPPRESS
    parser.add_argument(
        "data",
        metavar="DATA",
        nargs="?",
        default=absent,
        help=SETTINGS["data"].help,
    )
    groups = {topic: parser.add_argument_group(topic) for topic in TOPICS}
    for name, about in SETTINGS.items():
        if name != "data":
            default = defaults.get(name, default_text(name))
            help = f"{about.help_text()} (default: {default})".replace("%", "%%")
            option = f"--{name.replace('_', '-')}"
            groups[about.topic].add_argument(
                option, dest=name, metavar=about.metavar, default=absent, help=help
            )
    return groups


def _add_results(group: Any) -> None:
    """Add the options that are no settings of the run."""
    group.add_argument("--out", metavar="DIR", help="run folder to write (default: runs/NAME-001)")
    group.add_argument(
        "--resume",
        metavar="DIR",
        help="resume the run of a folder from its last checkpoint, with its settings; --epochs "
        "extends it",
    )
    group.add_argument(
        "--config", metavar="FILE", help="read the settings from the config.toml of a run"
    )
    group.add_argument("--json", action="store_true", help="end stdout with one line of JSON")
    group.add_argument("--quiet", action="store_true", help="print no progress to stderr")
    group.add_argument("--live", action="store_true", help="show the run on a local web page")


def faults(args: argparse.Namespace) -> list[ArgumentError]:
    """Return the errors of the settings given."""
    try:
        resolve(given(args), args.config)
    except ArgumentError as error:
        return [error]
    return []


def given(args: argparse.Namespace) -> dict[str, str]:
    """Return the settings on the command line, as text."""
    return {name: text for name, text in vars(args).items() if name in SETTINGS}


def run(args: argparse.Namespace) -> int:
    """Train and return the exit code."""
    begin = time.perf_counter()
    if rank_starter() is not None:
        refuse(args.live, "several processes")
        return _run_on_ranks(args, begin)
    with quiet_logging(args.quiet):
        found = given(args)
        settings, checkpoint = _settings(args, found)
        if settings.preset is not None and checkpoint is None:
            from nnbackend.cli import preset  # which imports scikit-learn

            refuse(args.live, f"--preset {settings.preset}")
            stored = explicit(found, args.config)
            plan_ = preset.prepare(settings, stored, found, get_backend(settings.device))
            return preset.run(plan_, args.out, begin, is_quiet=args.quiet, with_json=args.json)
        plan = _plan(settings, found, checkpoint)
        to_toml(plan.settings)  # refuses names of files that have no place in it
        folder = Path(args.resume) if checkpoint else new_folder(args.out, plan.data.name)
        known = {}
        if settings.cv is not None and checkpoint is None:
            known = _cross_validated(plan, settings, folder, args.quiet)
        with shown(plan) if args.live else contextlib.nullcontext():
            return execute(
                plan, folder, checkpoint, begin,
                is_quiet=args.quiet, with_json=args.json, known=known,
            )  # fmt: skip


def _run_on_ranks(args: argparse.Namespace, begin: float) -> int:
    """Train as one of several processes; the first one prints and writes."""
    from nnbackend.cli import ranks

    communicator = world()

    def make() -> tuple[Plan, Checkpoint | None, Path]:
        found = given(args)
        settings, checkpoint = _settings(args, found)
        ranks.check_settings(settings, communicator)
        plan = _plan(ranks.on_own_gpu(settings), found, checkpoint, communicator)
        to_toml(plan.settings)
        if communicator.rank:
            return plan, checkpoint, Path()
        folder = Path(args.resume) if checkpoint else new_folder(args.out, plan.data.name)
        return plan, checkpoint, folder

    with quiet_logging(args.quiet or communicator.rank > 0):
        plan, checkpoint, folder = ranks.start_together(
            communicator, make, lambda made: _same(made[0])
        )
        facts = ranks.described(communicator)  # gathered on all ranks
        with ranks.ending_together(communicator):
            if not (args.quiet or communicator.rank):
                print(ranks.header(facts), file=sys.stderr)
            return _train_on_rank(plan, checkpoint, folder, communicator, args, begin)


def _train_on_rank(
    plan: Plan, checkpoint: Checkpoint | None, folder: Path, communicator: Communicator,
    args: argparse.Namespace, begin: float,
) -> int:  # fmt: skip
    """Train a plan that all ranks share; return the exit code."""
    trainer = plan.trainer
    if communicator.rank == 0:
        return execute(
            plan, folder, checkpoint, begin,
            is_quiet=args.quiet, with_json=args.json, known={"ranks": communicator.size},
        )  # fmt: skip
    if checkpoint is not None:
        restore(trainer, (), checkpoint)
    history = trainer.run()
    number = trainer.interrupt.received or signal.SIGINT
    return SIGNALLED + number if history.stop_reason == "interrupted" else 0


def _same(plan: Plan) -> dict[str, Any]:
    """Return what must be the same on all ranks."""
    own = ("device", "precision")
    values = {n: getattr(plan.settings, n) for n in SETTINGS if n not in own}
    return values | {"rows": describe_facts(plan)["fingerprint"]}


def _cross_validated(plan: Plan, settings: Settings, folder: Path, quiet: bool) -> dict[str, Any]:
    """Return the results of --cv."""
    from nnbackend.cli import cross_validation as cv  # which imports scikit-learn

    fit = partial(fit_fold, settings=settings, backend=plan.net.backend)
    rows = split_test(plan.data, settings).training
    return cv.cross_validate(rows, settings, fit, folder / cv.FIGURES, is_quiet=quiet)


def execute(
    plan: Plan,
    folder: Path,
    checkpoint: Checkpoint | None,
    begin: float,
    *,
    is_quiet: bool,
    with_json: bool,
    known: Mapping[str, Any] = MappingProxyType({}),
) -> int:
    """Train a plan, write its run folder, print the results and return the exit code.

    begin: the `perf_counter` of the command's start.  known: results that precede those of the run.
    """
    facts = environment(plan.net.backend, plan.settings.seed, describe_facts(plan), folder)
    for name in (MODEL, LAST, CONFIG, ENVIRONMENT):  # a kill may leave temporary files
        sweep(folder, name)
    if checkpoint is None:
        write_text(folder / CONFIG, to_toml(plan.settings))
    try:
        write_environment(folder, facts)
        _learn(plan, folder, is_quiet, checkpoint)
        results = {**known, **figures(plan)}
        drawn = _draw(plan.trainer, folder)
    except KeyboardInterrupt:  # after training, which handles the signal itself
        return _interrupted(plan.trainer, folder)
    except (BackendError, RuntimeError, OSError, MemoryError):  # device, disk or host memory
        print_message(_describe_saved(plan.trainer, folder))
        raise
    finish(results, facts, folder, begin, with_json, curves=str(drawn) if drawn else None)
    if plan.trainer.state.history.stop_reason == "interrupted":
        return _interrupted(plan.trainer, folder)
    keep_newest(folder / CHECKPOINTS)
    print_hint(plan, results, is_quiet)
    return verdict(results, plan.settings)


def _settings(
    args: argparse.Namespace, found: Mapping[str, str]
) -> tuple[Settings, Checkpoint | None]:
    """Return the settings of a new run, or of one to resume with its checkpoint."""
    if args.resume is not None:
        settings = settings_of_run(Path(args.resume), found, args.out or args.config)
        return settings, checkpoint_of_run(Path(args.resume))
    settings = resolve(found, args.config)
    if args.config is not None:
        settings = relocated_config(settings, Path(args.config).parent)
    check_out(args.out)
    return settings, None


def _plan(
    settings: Settings,
    found: Mapping[str, str],
    checkpoint: Checkpoint | None,
    communicator: Communicator | None = None,
) -> Plan:
    """Return the plan of a run."""
    if checkpoint is None or "device" in found:
        backend = get_backend(settings.device)
    else:
        backend = device_of(checkpoint)
    if checkpoint and settings.precision not in backend.precisions:
        settings = replace(settings, precision=None)  # as for a model loaded on another device
    return prepare(settings, backend, communicator)


def _learn(plan: Plan, folder: Path, is_quiet: bool, checkpoint: Checkpoint | None) -> None:
    """Train, from a checkpoint if given, and save; the network ends with the best weights."""
    trainer = plan.trainer
    callbacks: list[Callback] = [RunWriter(folder)]
    if not is_quiet:
        print(header(plan, folder), file=sys.stderr)
        callbacks.append(EpochTable(sys.stderr))
    every: Any = interval(plan.settings.checkpoint)
    trainer.callbacks = (*trainer.callbacks, *callbacks, Checkpoints(folder / CHECKPOINTS, **every))
    if checkpoint is not None:
        restore(trainer, trainer.callbacks, checkpoint)
        save_changes(folder, plan.settings)
        if not is_quiet:
            print(f"resuming after step {trainer.state.step} in {folder}\n", file=sys.stderr)
    failure = None
    try:
        trainer.run()
    except DivergedError as error:
        plan.model.save(folder / MODEL)  # the trainer has restored the best weights
        _draw(trainer, folder)
        raise DivergedError(*error.args, f" The results until then are in {folder}.") from error
    except (OSError, MemoryError) as error:
        if not trainer.state.history.stop_reason:  # training has not started
            raise
        failure = error  # of the last checkpoint, which is larger than the files saved here
    plan.model.save(folder / LAST)
    if trainer.state.history.rows:  # else the last weights, of the first epoch, are the best
        trainer.state.restore_best()
    plan.model.save(folder / MODEL)
    if failure is not None:
        print_message(f"the model is saved in {folder}, but the last checkpoint is not")
        raise failure


def _draw(trainer: Trainer, folder: Path) -> Path | None:
    """Draw the curves; if that fails, print a warning and return None."""
    if not trainer.state.history.rows:
        return None
    path = folder / CURVES
    try:
        curves(trainer.state.history.rows, path, monitor=trainer.state.history.monitor)
    except Exception as error:  # matplotlib raises many types
        print_message(f"the curves could not be drawn ({type(error).__name__}: {error})")
        return None
    return path


def _interrupted(trainer: Trainer, folder: Path) -> int:
    """Print how to resume and return the exit code."""
    print_message(f"interrupted; {_describe_saved(trainer, folder)}")
    return SIGNALLED + (trainer.interrupt.received or signal.SIGINT)


def _describe_saved(trainer: Trainer, folder: Path) -> str:
    """Return a message on what is saved of a run, and how to resume it."""
    checkpoints = folder / CHECKPOINTS
    saved = checkpoint_paths(checkpoints) if checkpoints.is_dir() else []
    if not saved:
        has_model = (folder / MODEL).is_file()
        return (
            f"{f'the best weights so far are in {folder}, but ' if has_model else ''}no checkpoint "
            "was written yet (see --checkpoint). Restart with: "
            f"nnbackend train --config {folder / CONFIG}"
        )
    step = step_in_name(saved[-1])
    what = "everything" if step == trainer.state.step else f"the run up to step {step}"
    return f"{what} is saved in {folder}. Resume with: nnbackend train --resume {folder}"
