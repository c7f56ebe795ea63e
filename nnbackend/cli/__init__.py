"""The command line: `nnbackend VERB ...`, a thin layer over the library, one module for each verb.

Progress and errors go to stderr, results to stdout. Exit codes: 0 good; 1 a run that failed
(diverged, out of memory, target missed, a check not passed, a file that cannot be written);
2 wrong usage; 130 after Ctrl-C, 143 after SIGTERM, with everything saved. Only the module of the
verb that was asked for is imported.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import re
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

from nnbackend.bench.machine import ask_for_best_kernels
from nnbackend.cli.console import abandon, escaping, lenient_stderr, present
from nnbackend.errors import (
    ArgumentError,
    DeviceLostError,
    DeviceMemoryError,
    DivergedError,
    NNBackendError,
    nearest,
    suggest,
)

GOOD, FAILED, WRONG_USAGE, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141
FEWER = "Use fewer rows, a smaller network or a smaller --batch-size."
SIGNALLED = 128  # and the signal's number: 130 after Ctrl-C


class Verb(NamedTuple):
    """What the list of verbs says of one, and an example of its use."""

    help: str
    example: str


VERBS = {
    "train": Verb(
        "learn from data and write a run folder",
        "nnbackend train digits --hidden 100,50 --dropout 0.2 --seed 1",
    ),
    "evaluate": Verb(
        "loss and accuracy of a trained network, class by class",
        "nnbackend evaluate runs/digits-001 digits --confusion",
    ),
    "predict": Verb(
        "labels or values for the rows of a file",
        "nnbackend predict runs/flowers-001 new.csv --proba > answers.csv",
    ),
    "summary": Verb(
        "what a run folder or a model file holds",
        "nnbackend summary runs/digits-001",
    ),
    "plot": Verb(
        "pictures of a run: curves, boundary, film, confusion, weights, diagram, signals, rates",
        "nnbackend plot runs/digits-001 --kind weights",
    ),
    "explain": Verb(
        "feed-forward and backpropagation of one row, step by step with its numbers",
        "nnbackend explain runs/iris-001 0 --html explained.html",
    ),
    "export": Verb(
        "write a trained network as ONNX or NPZ, for other programs",
        "nnbackend export runs/digits-001 --out digits.onnx",
    ),
    "devices": Verb(
        "which devices there are, and why others cannot be used",
        "nnbackend devices",
    ),
    "bench": Verb(
        "time per training step on this machine, beside other libraries where asked",
        "nnbackend bench --compare sklearn,torch",
    ),
    "check": Verb(
        "backpropagation against finite differences, on this machine",
        "nnbackend check --device cpu",
    ),
}


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are raised, and whose options cannot be abbreviated."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        choice = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)$", message)
        near = choice and nearest(choice[1], re.findall(r"[\w.-]+", choice[2]))
        hint = f" Did you mean {near!r}?" if near else ""
        raise ArgumentError(f"{message}.{hint} See: {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code. Never raises for what a user can do wrong."""
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
        _say("interrupted")
        return INTERRUPTED
    except (DivergedError, DeviceLostError, DeviceMemoryError) as error:
        _say(f"failed: {error}")
        return FAILED
    except NNBackendError as error:
        _say(f"error: {error}")
        return WRONG_USAGE
    except MemoryError as error:
        what = str(error).rstrip(".") or "an allocation failed"
        _say(f"failed: the machine is out of memory: {what}. {FEWER}")
        return FAILED
    except OSError as error:
        _say(f"failed: {error or type(error).__name__}")
        return FAILED


def _run(words: list[str]) -> int:
    """Hand over to the verb's own module, the only one that is imported."""
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    name = next((word for word in words if not word.startswith("-")), None)
    if name is not None and name not in VERBS:
        raise ArgumentError(f"no verb {name!r}. {suggest(name, VERBS)}")
    ask_for_best_kernels()
    top = Parser(
        prog="nnbackend",
        description="Multilayer perceptrons on NumPy or on a CUDA GPU.",
        epilog=f"example:\n  {VERBS['train'].example}",
    )
    top.add_argument("--version", action=_Version)
    verbs = top.add_subparsers(title="verbs", metavar="VERB", dest="verb", parser_class=Parser)
    module = None
    for verb, (text, example) in VERBS.items():
        parser = verbs.add_parser(
            verb, help=text, description=text.capitalize() + ".", epilog=f"example:\n  {example}"
        )
        if verb == name:
            module = importlib.import_module(f"nnbackend.cli.{verb}")
            module.configure(parser)
    arguments, strangers = top.parse_known_args(words)
    if strangers:
        raise ArgumentError(_stranger(strangers[0], name, verbs.choices.get(name or "", top)))
    if module is None or name is None:
        top.print_help()
        return WRONG_USAGE
    from nnbackend.cli.wording import in_options_of

    with in_options_of(verbs.choices[name]):
        return int(module.run(arguments))


def _stranger(word: str, verb: str | None, parser: argparse.ArgumentParser) -> str:
    """Say that a word means nothing here, and which option may have been meant."""
    word = word.partition("=")[0]
    near = nearest(word, parser._option_string_actions) if word.startswith("-") else None
    hint = f"Did you mean {near!r}?" if near else f"See: {parser.prog} --help"
    if not word.startswith("-"):
        hint = f"Several values are written with commas and no blanks, as 100,50. {hint}"
    return f"{verb or 'nnbackend'} has no option or argument {word!r}. {hint}"


class _Version(argparse.Action):
    """Print the version, which is looked up only then."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *rest: Any) -> None:
        from nnbackend import __version__

        print(f"nnbackend {__version__}")
        parser.exit()


def _say(message: str) -> None:
    # Nobody may be listening any more.
    with contextlib.suppress(OSError, ValueError):
        print(f"nnbackend: {message}", file=sys.stderr, flush=True)
