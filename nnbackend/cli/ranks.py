"""`mpiexec -n 4 nnbackend train ...`: the same command in several processes, which end together."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

from nnbackend.cli import FAILED, INTERRUPTED, WRONG_USAGE
from nnbackend.cli.console import print_message
from nnbackend.config import Settings
from nnbackend.distributed import Communicator
from nnbackend.errors import ArgumentError, DivergedError, Mention, NNBackendError
from nnbackend.machine import LOCAL_RANKS, versions

T = TypeVar("T")


def check_settings(settings: Settings, communicator: Communicator) -> None:
    """Set the reduction. Raises: ArgumentError for options that need one process."""
    communicator.reduction = settings.reduction
    communicator.check()
    for option in ("cv", "preset"):
        if getattr(settings, option) is not None:
            raise ArgumentError(
                Mention(option), f" runs in one process. Received: {communicator.size} ranks. Omit "
                "it, or start one process without mpiexec.",
            )  # fmt: skip


def on_own_gpu(settings: Settings) -> Settings:
    """Return settings in which the word gpu means the GPU of this rank on its machine."""
    local = next((os.environ[name] for name in LOCAL_RANKS if name in os.environ), None)
    if settings.device == "gpu" and local is not None:
        return replace(settings, device=f"gpu:{int(local)}")
    return settings


def start_together(
    communicator: Communicator, make: Callable[[], T], facts: Callable[[T], Mapping[str, Any]]
) -> T:
    """Return make() of each rank, if it succeeds on all of them with the same facts.

    Raises: on the first rank that has failed, its error, or on rank 0 ArgumentError for different
    facts; SystemExit on the others.
    """
    value: T | None = None
    error: NNBackendError | OSError | None = None
    try:
        value = make()
    except (NNBackendError, OSError) as fault:
        error = fault
    known = {} if value is None else {**facts(value), "versions": versions()}
    found = communicator.share((error is not None, known))
    failed = [rank for rank, (is_failed, _) in enumerate(found) if is_failed]
    if failed:
        if error is not None and communicator.rank == failed[0]:
            raise error
        raise SystemExit(WRONG_USAGE)
    differing = [
        f"{name} of rank {rank}: {other[name]!r}, of rank 0: {found[0][1][name]!r}"
        for rank, (_, other) in enumerate(found)
        for name in other
        if other[name] != found[0][1][name]
    ]
    if differing:
        if communicator.rank:
            raise SystemExit(WRONG_USAGE)
        raise ArgumentError(
            "All ranks must have the same versions, data and options. Received: "
            f"{'; '.join(differing[:5])}."
        )
    assert value is not None
    return value


@contextmanager
def ending_together(communicator: Communicator) -> Iterator[None]:
    """End all ranks if this one fails inside the context: the others would wait for ever.

    A run that diverges does so on all ranks, and rank 0 alone prints it.
    """
    try:
        yield
    except DivergedError:
        if communicator.rank:
            raise SystemExit(FAILED) from None
        raise
    except SystemExit:
        raise
    except KeyboardInterrupt:
        communicator.abort(INTERRUPTED)
    except BaseException as error:
        if not isinstance(error, (NNBackendError, OSError, MemoryError)):
            traceback.print_exc()
        print_message(f"failed on rank {communicator.rank}: {error or type(error).__name__}")
        sys.stderr.flush()
        communicator.abort(FAILED)


def described(communicator: Communicator) -> dict[str, Any]:
    """Return the facts of the ranks, on all of them: their number and hosts, the reduction."""
    hosts = communicator.share(socket.gethostname())
    return {
        "size": communicator.size,
        "hosts": {host: hosts.count(host) for host in dict.fromkeys(hosts)},
        "reduction": communicator.reduction,
    }


def header(facts: Mapping[str, Any]) -> str:
    """Return the line of the output on the ranks."""
    hosts = ", ".join(f"{n} on {host}" for host, n in facts["hosts"].items())
    return f"ranks      {facts['size']}: {hosts}; reduction {facts['reduction']}"
