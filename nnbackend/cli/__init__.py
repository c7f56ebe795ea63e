"""The command line: `nnbackend COMMAND ...`, a thin layer over the library.

Each command has its own module; only the module of the requested command is imported. Progress and
errors go to stderr, results to stdout. Exit codes: 0 success; 1 failure (diverged, out of memory,
target missed, check failed, file not writable); 2 wrong usage; 130 after Ctrl-C and 143 after
SIGTERM, with everything saved.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

from nnbackend.cli.console import abandon, escaping, lenient_stderr, present, print_message
from nnbackend.errors import (
    ArgumentError,
    DeviceLostError,
    DeviceMemoryError,
    DivergedError,
    NNBackendError,
)
from nnbackend.machine import ask_for_best_kernels, rank_starter, started_ranks, use_one_thread
from nnbackend.suggestions import nearest, suggest

GOOD, FAILED, WRONG_USAGE, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141
FEWER = "Use fewer rows, a smaller network or a smaller --batch-size."
SIGNALLED = 128  # and the signal's number: 130 after Ctrl-C
# Dependencies that predicting does without, by the names of their modules.
NOT_ALWAYS = {"sklearn": "scikit-learn", "scipy": "scipy", "matplotlib": "matplotlib"}


# Cures for likely options that a command does not have.
ELSEWHERE = {
    "metric": "To choose the best epoch by a metric: --monitor NAME. To print one: nnbackend "
    "evaluate RUN DATA --metric NAME",
    "search": "To search for good settings: nnbackend tune DATA",
    "delimiter": "The delimiter of a table is detected.",
    "sep": "The delimiter of a table is detected.",
    "folds": "To judge settings on folds: nnbackend train DATA --cv K",
    "proba": "To write probabilities: nnbackend predict RUN DATA --proba",
    "ranks": "Start ranks with: mpiexec -n N nnbackend train DATA",
}


class Command(NamedTuple):
    """Help text and example of a command."""

    help: str
    example: str


COMMANDS = {
    "train": Command(
        "train a network and write a run folder",
        "nnbackend train digits --hidden 100,50 --dropout 0.2 --seed 1",
    ),
    "tune": Command(
        "search for good settings, and train the best into a run folder",
        "nnbackend tune digits --trials 30 --epochs 40",
    ),
    "evaluate": Command(
        "report loss and accuracy of a trained network, in total and for each class",
        "nnbackend evaluate runs/digits-001 digits --confusion",
    ),
    "predict": Command(
        "predict labels or values for the rows of a file",
        "nnbackend predict runs/flowers-001 new.csv --proba > answers.csv",
    ),
    "summary": Command(
        "show the contents of a run folder or a model file",
        "nnbackend summary runs/digits-001",
    ),
    "plot": Command(
        "plot a run: its training, the quality of its predictions, what they depend on",
        "nnbackend plot runs/digits-001 --kind weights",
    ),
    "explain": Command(
        "show feed-forward and backpropagation of one row, step by step, with all numbers",
        "nnbackend explain runs/iris-001 0 --html explained.html",
    ),
    "export": Command(
        "export a trained network as ONNX or NPZ",
        "nnbackend export runs/digits-001 --out digits.onnx",
    ),
    "convert": Command(
        "write a large table of numbers as a folder of shards, to train on without loading it",
        "nnbackend convert clicks.csv clicks --target bought",
    ),
    "serve": Command(
        "answer requests over HTTP with the predictions of a trained network",
        "nnbackend serve runs/flowers-001 --port 8000",
    ),
    "live": Command(
        "watch a network learn on a local web page, step by step",
        "nnbackend live spirals",
    ),
    "devices": Command(
        "list the devices, and why others cannot be used",
        "nnbackend devices",
    ),
    "bench": Command(
        "measure the time per training step on this machine, also that of scikit-learn",
        "nnbackend bench --compare sklearn",
    ),
    "check": Command(
        "check backpropagation against finite differences, on this machine",
        "nnbackend check --device cpu",
    ),
}


class Parser(argparse.ArgumentParser):
    """An argument parser that raises its errors and accepts no abbreviated options."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        choice = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)$", message)
        near = choice and nearest(choice[1], re.findall(r"[\w.-]+", choice[2]))
        hint = f" Did you mean {near!r}?" if near else ""
        raise ArgumentError(f"{message}.{hint} See: {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code. User errors are printed, not raised."""
    with present(), escaping(), lenient_stderr():
        return _main(list(sys.argv[1:] if argv is None else argv))


def _main(words: list[str]) -> int:
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse has printed --help or --version
        return int(stop.code or GOOD)
    except BrokenPipeError:
        abandon(sys.stdout)
        return PIPE_CLOSED
    except KeyboardInterrupt:
        print_message("interrupted")
        return INTERRUPTED
    except (DivergedError, DeviceLostError, DeviceMemoryError) as error:
        print_message(f"failed: {error}")
        return FAILED
    except NNBackendError as error:
        print_message(f"error: {error}")
        return WRONG_USAGE
    except MemoryError as error:
        what = str(error).rstrip(".") or "an allocation failed"
        print_message(f"failed: the machine is out of memory: {what}. {FEWER}")
        return FAILED
    except OSError as error:
        print_message(f"failed: {error or type(error).__name__}")
        return FAILED
    except ModuleNotFoundError as error:
        package = NOT_ALWAYS.get((error.name or "").partition(".")[0])
        if package is None:
            raise
        print_message(
            f"error: this command needs the package {package}. Received: it is not installed. "
            "Install nnbackend with all it needs: pip install nnbackend"
        )
        return WRONG_USAGE


def _refuse_ranks(name: str | None) -> None:
    """Raise ArgumentError on rank 0, SystemExit on the others, for a command of one process."""
    rank, size = started_ranks()
    if size > 1 and name not in (None, "train"):
        if rank:
            raise SystemExit(WRONG_USAGE)
        raise ArgumentError(
            f"{name} runs in one process. Received: {size} ranks. Start it without mpiexec; "
            "`train` runs on several."
        )


def _run(words: list[str]) -> int:
    """Import the module of the command, the only one imported, and run it."""
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    name = next((word for word in words if not word.startswith("-")), None)
    if name is not None and name not in COMMANDS:
        raise ArgumentError(f"unknown command {name!r}. {suggest(name, COMMANDS)}")
    ask_for_best_kernels()
    if rank_starter() is not None:
        use_one_thread()
        _refuse_ranks(name)
    top = Parser(
        prog="nnbackend",
        description="Multilayer perceptrons on NumPy or on a CUDA GPU.",
        epilog=f"example:\n  {COMMANDS['train'].example}",
    )
    top.add_argument("--version", action=_Version)
    commands = top.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", parser_class=Parser
    )
    module = None
    for command, (text, example) in COMMANDS.items():
        parser = commands.add_parser(
            command,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=f"example:\n  {example}",
        )
        if command == name:
            module = importlib.import_module(f"nnbackend.cli.{command}")
            module.configure(parser)
    arguments, unknown = top.parse_known_args(words)
    if module is None or name is None:
        _refuse_unknown(unknown, name, top)
        top.print_help()
        return WRONG_USAGE
    from nnbackend.cli.spelling import spelled_for

    with spelled_for(commands.choices[name]):
        faults = module.faults(arguments) if unknown and hasattr(module, "faults") else ()
        _refuse_unknown(unknown, name, commands.choices[name], faults)
        return int(module.run(arguments))


def _refuse_unknown(
    unknown: Sequence[str],
    command: str | None,
    parser: argparse.ArgumentParser,
    others: Iterable[ArgumentError] = (),
) -> None:
    """Raise ArgumentError for unknown words, together with other errors."""
    options = [word for word in unknown if word.startswith("-")] or unknown[:1]
    if options:
        from nnbackend.options import raise_all

        errors = [ArgumentError(_explain_unknown(word, command, parser)) for word in options]
        raise_all([*errors, *others])


def _explain_unknown(word: str, command: str | None, parser: argparse.ArgumentParser) -> str:
    """Return the message for an unknown word, with the nearest option."""
    word = word.partition("=")[0]
    known = [option.lstrip("-") for option in parser._option_string_actions]
    near = nearest(word.lstrip("-"), known) if word.startswith("-") else None
    if near is None and word.lstrip("-") in ELSEWHERE:
        return f"{command or 'nnbackend'} has no option {word!r}. {ELSEWHERE[word.lstrip('-')]}"
    hint = f"Did you mean '--{near}'?" if near else f"See: {parser.prog} --help"
    if not word.startswith("-"):
        hint = f"Write several values with commas and no blanks, as in 100,50. {hint}"
    return f"{command or 'nnbackend'} has no option or argument {word!r}. {hint}"


class _Version(argparse.Action):
    """Action that prints the version, which is looked up only on request."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> None:
        from nnbackend import __version__

        print(f"nnbackend {__version__}")
        parser.exit()
