"""Errors and notes of the library with their options as the command line spells them.

The library's messages mention options as objects, `errors.Mention`. If the command has an option of
that name, missing='drop' is printed as --missing drop.
"""

from __future__ import annotations

import argparse
import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nnbackend.errors import Mention, NNBackendError


@contextmanager
def spelled_for(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Spell the options of errors raised and messages logged inside the context for a command."""

    def spell(mention: Mention) -> str:
        option = f"--{mention.option.replace('_', '-')}"
        if option not in parser._option_string_actions:
            return str(mention)
        return option if mention.value is ... else f"{option} {_word(mention.value)}"

    def rewrite(record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(spell(a) if isinstance(a, Mention) else a for a in record.args)
        if record.levelno >= logging.WARNING:
            record.msg = f"nnbackend: note: {record.msg}"
        return True

    logger = logging.getLogger("nnbackend")
    logger.addFilter(rewrite)
    try:
        yield
    except NNBackendError as error:
        error.args = (error.spelled(spell),)
        raise
    finally:
        logger.removeFilter(rewrite)


def _word(value: Any) -> str:
    """Return a Python value as one word of a shell.

    >>> _word(["a b", "c"]), _word(True), _word(0.5), _word(None)
    ("'a b,c'", 'yes', '0.5', 'none')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        value = ",".join(map(str, value))
    return "none" if value is None else shlex.quote(str(value))
