"""`nnbackend train`: read the data, build and train a network, and write a run folder."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnbackend.cli import SIGNALLED, preset
from nnbackend.cli.console import print_message
from nnbackend.cli.plan import Plan, prepare
from nnbackend.cli.progress import EpochTable, RunWriter
from nnbackend.cli.results import data_facts, figures, header, report, test_figures, verdict
from nnbackend.cli.results import facts as describe_facts
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
    to_json,
    write_environment,
    write_text,
)
from nnbackend.cli.settings import default_text, explicit, resolve, to_toml
from nnbackend.config import SETTINGS, TOPICS, Settings, interval
from nnbackend.devices import get_backend
from nnbackend.errors import ArgumentError, BackendError, DivergedError
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
    absent: Any = argparse.SUPPRESS
    parser.usage = "nnbackend train DATA [options]"
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
            help = f"{about.help_text()} (default: {default_text(name)})".replace("%", "%%")
            option = f"--{name.replace('_', '-')}"
            groups[about.topic].add_argument(
                option, dest=name, metavar=about.metavar, default=absent, help=help
            )
    _add_results(groups["results"])
    parser.epilog = (
        f"{parser.epilog}\n\nCtrl-C, SIGTERM and SIGUSR1 stop training after the current step and "
        "save everything, for\n--resume; the exit codes are 130, 143 and 138. A diverged run or a "
        "missed target exits with 1,\nwrong usage with 2."
    )


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


def faults(args: argparse.Namespace) -> list[ArgumentError]:
    """Return the errors of the settings given."""
    try:
        resolve(_given(args), args.config)
    except ArgumentError as error:
        return [error]
    return []


def _given(args: argparse.Namespace) -> dict[str, str]:
    return {name: text for name, text in vars(args).items() if name in SETTINGS}


def run(args: argparse.Namespace) -> int:
    """Train and return the exit code."""
    begin = time.perf_counter()
    with _quiet_logging(args.quiet):
        given = _given(args)
        settings, checkpoint = _settings(args, given)
        if settings.preset is not None and checkpoint is None:
            stored = explicit(given, args.config)
            plan_ = preset.prepare(settings, stored, given, get_backend(settings.device))
            return _train_preset(plan_, args)
        plan = _plan(settings, given, checkpoint)
        config = to_toml(plan.settings)  # refuses names of files that have no place in it
        folder = Path(args.resume) if checkpoint else new_folder(args.out, plan.data.name)
        backend = plan.net.backend
        facts = environment(backend, plan.settings.seed, describe_facts(plan), folder)
        for name in (MODEL, LAST, CONFIG, ENVIRONMENT):  # a kill may leave temporary files
            sweep(folder, name)
        if checkpoint is None:
            write_text(folder / CONFIG, config)
        try:
            write_environment(folder, facts)
            _learn(plan, folder, args.quiet, checkpoint)
            results = figures(plan)
            drawn = _draw(plan.trainer, folder)
        except KeyboardInterrupt:  # after training, which handles the signal itself
            return _interrupted(plan.trainer, folder)
        except (BackendError, RuntimeError, OSError, MemoryError):  # device, disk or host memory
            print_message(_describe_saved(plan.trainer, folder))
            raise
    _report(results, facts, folder, begin, args, curves=None if drawn is None else str(drawn))
    if plan.trainer.state.history.stop_reason == "interrupted":
        return _interrupted(plan.trainer, folder)
    keep_newest(folder / CHECKPOINTS)
    return verdict(results, plan.settings)


def _settings(
    args: argparse.Namespace, given: Mapping[str, str]
) -> tuple[Settings, Checkpoint | None]:
    """Return the settings of a new run, or of one to resume with its checkpoint."""
    if args.resume is not None:
        settings = settings_of_run(Path(args.resume), given, args.out or args.config)
        return settings, checkpoint_of_run(Path(args.resume))
    settings = resolve(given, args.config)
    if args.config is not None:
        settings = relocated_config(settings, Path(args.config).parent)
    check_out(args.out)
    return settings, None


def _plan(settings: Settings, given: Mapping[str, str], checkpoint: Checkpoint | None) -> Plan:
    """Return the plan of a run."""
    if checkpoint is None or "device" in given:
        backend = get_backend(settings.device)
    else:
        backend = device_of(checkpoint)
    if checkpoint and settings.precision not in backend.precisions:
        settings = replace(settings, precision=None)  # as for a model loaded on another device
    return prepare(settings, backend)


def _train_preset(plan: preset.PresetPlan, args: argparse.Namespace) -> int:
    """Train an ensemble, save it as one model, and return the exit code."""
    begin, settings = time.perf_counter(), plan.settings
    config, folder = to_toml(settings), new_folder(args.out, plan.data.name)
    backend = get_backend(settings.device)
    facts = environment(backend, settings.seed, data_facts(plan.data, plan.parts), folder)
    write_text(folder / CONFIG, config)
    write_environment(folder, facts)
    if not args.quiet:
        print(plan.header(folder), file=sys.stderr)
    model = plan.fit(args.quiet)
    model.save(folder / MODEL)
    write_text(folder / CONFIG, to_toml(plan.settings))  # with the epochs that the fit has chosen
    results = plan.results() | test_figures(model, plan.parts.test)
    _report(results, facts, folder, begin, args)
    if plan.is_interrupted:
        n_members = results["members"]
        print_message(f"interrupted; the model of the {n_members} members so far is in {folder}")
        return SIGNALLED + signal.SIGINT
    return verdict(results, settings)


def _report(
    results: dict[str, Any],
    facts: Mapping[str, Any],
    folder: Path,
    begin: float,
    args: argparse.Namespace,
    **more: str | None,
) -> None:
    """Add the facts of a finished run to its results; store and print them."""
    results |= {
        "seconds": round(time.perf_counter() - begin, 3),
        "device": facts["device"],
        "model": str(folder / MODEL),
        **more,
    }
    write_environment(folder, {**facts, "results": results})
    report(results)
    if args.json:
        print(to_json(results))
    sys.stdout.flush()


def _learn(plan: Plan, folder: Path, is_quiet: bool, checkpoint: Checkpoint | None) -> None:
    """Train, from a checkpoint if given, and save; the network ends with the best weights."""
    trainer = plan.trainer
    callbacks: list[Callback] = [RunWriter(folder)]
    if not is_quiet:
        print(header(plan, folder), file=sys.stderr)
        callbacks.append(EpochTable(sys.stderr))
    every: Any = interval(plan.settings.checkpoint)
    trainer.callbacks = (*callbacks, Checkpoints(folder / CHECKPOINTS, **every))
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


@contextlib.contextmanager
def _quiet_logging(is_quiet: bool) -> Iterator[None]:
    """Hide the library's log messages below errors inside the context if `is_quiet`."""
    logger = logging.getLogger("nnbackend")
    before = logger.level
    if is_quiet:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
