"""Rewrite the library's messages for the command line.

Errors and notes of the library name Python arguments, as in missing='drop'. If the command has an
option of that name, this module rewrites the argument as --missing drop.
"""

from __future__ import annotations

import argparse
import ast
import logging
import re
import shlex
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from nnbackend.errors import NNBackendError

VALUE = r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|-?\d+(?:\.\d+)?(?:e[-+]?\d+)?|True|False"
# Phrases that are not an option with its value.
PHRASES = {
    r"\bpredict_proba needs": "--proba needs",
    r"Use outputs\(x\)\.": "Leave --proba out.",
    r"Dense\(1, 'sigmoid'\) with": "--output-activation sigmoid with",
    r"Load with (\w+)=\[\.\.\.\] that holds it\.": r"In Python: nnbackend.load(path, \1=[...]).",
    r"\bmust be None for\b": "must be left out for",
    r",? or None\b": ", or left out",
}


@contextmanager
def in_options_of(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Reword errors raised and messages logged inside the context for a command's options."""
    known = {o[2:].replace("-", "_") for o in parser._option_string_actions if o[:2] == "--"}
    logger = logging.getLogger("nnbackend")

    def reword(record: logging.LogRecord) -> bool:
        record.msg, record.args = in_options(record.getMessage(), known), ()
        if record.levelno >= logging.WARNING:
            record.msg = f"nnbackend: note: {record.msg}"
        return True

    logger.addFilter(reword)
    try:
        yield
    except NNBackendError as error:
        error.args = (in_options(str(error), known), *error.args[1:])
        raise
    finally:
        logger.removeFilter(reword)


def in_options(message: str, known: Collection[str]) -> str:
    """Return a message with its known keywords written as options.

    >>> in_options("Set header=True or max_norm=1.0, y=3", {"header", "max_norm"})
    'Set --header yes or --max-norm 1.0, y=3'
    """
    for pattern, words in PHRASES.items():
        message = re.sub(pattern, words, message)
    names = "|".join(map(re.escape, sorted(known)))
    name = rf"(?<![\w.'-])({names})"
    message = re.sub(rf"{name}=({VALUE})", lambda m: f"{_option(m[1])} {_word(m[2])}", message)
    message = re.sub(rf"{name}=(?=[ ,.;])", lambda m: _option(m[1]), message)
    message = re.sub(rf"(?<!the ){name}(?= must be\b)", lambda m: _option(m[1]), message)
    listed = rf"(?<=Received: )(?:{names})(?:, (?:{names}))*(?=[.,])"
    return re.sub(listed, lambda m: ", ".join(map(_option, m[0].split(", "))), message)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _word(value: str) -> str:
    """Return a Python value in the syntax of a shell."""
    read = ast.literal_eval(value)
    if isinstance(read, bool):
        return "yes" if read else "no"
    if isinstance(read, list):
        return shlex.quote(",".join(map(str, read)))
    return shlex.quote(read) if isinstance(read, str) else value
