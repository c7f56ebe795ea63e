"""Check properties of random training runs for a time, and print the shortest failing programs.

    python -m nnbackend.testing.soak --minutes 60
    python -m nnbackend.testing.soak --minutes 5 --property devices_agree --devices numpy,mine

Exit status 1 if a run lacks a property.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import HealthCheck, Phase, given, reject, seed, settings
from hypothesis.errors import Unsatisfiable

from nnbackend.devices import get_backend
from nnbackend.errors import BackendError
from nnbackend.testing.run_bounds import Unsuitable
from nnbackend.testing.run_cases import RunCase
from nnbackend.testing.run_properties import PROPERTIES
from nnbackend.testing.strategies import cases_for

EXAMPLES = 100  # of a property in one round


class _TimeOver(BaseException):
    """The end of the time: no Exception, which Hypothesis would take as a failing run."""


@dataclass
class Tally:
    """The counts of one property: runs, those it does not apply to, seconds, disagreements.

    failures: the message and the shortest program of each disagreement.
    """

    runs: int = 0
    skipped: int = 0
    seconds: float = 0.0
    failures: list[tuple[str, str]] = field(default_factory=list)


def check_random_runs(
    name: str, devices: tuple[str, ...], tally: Tally, *,
    examples: int = EXAMPLES, start: int | None = 0, until: float = float("inf"),
) -> None:  # fmt: skip
    """Check one property of random runs; add the counts and the shortest failing run to a tally.

    start: the seed of the runs.  until: the time.monotonic() after which no run begins.
    """
    last: list[tuple[RunCase, Exception]] = []
    begin = time.monotonic()

    @seed(start)
    @settings(
        max_examples=examples, deadline=None, database=None, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip
    @given(cases_for(name, devices))
    def check(case: RunCase) -> None:
        if time.monotonic() > until and not last:
            raise _TimeOver
        tally.runs += 1
        try:
            PROPERTIES[name](case)
        except Unsuitable:
            tally.skipped += 1
            reject()
        except Exception as error:
            last.append((case, error))
            raise

    try:
        check()
    except (Unsatisfiable, _TimeOver):
        pass
    except Exception:
        if not last:
            raise
        case, error = last[-1]  # Hypothesis runs the shortest one last
        tally.failures.append((f"{type(error).__name__}: {error}", case.program(name)))
    tally.seconds += time.monotonic() - begin


def soak(
    names: Sequence[str], devices: tuple[str, ...], minutes: float, start: int
) -> dict[str, Tally]:
    """Check properties in turn with new random runs, until the time is over."""
    until = time.monotonic() + 60.0 * minutes
    tallies = {name: Tally() for name in names}
    while time.monotonic() < until:
        for name, tally in tallies.items():
            if time.monotonic() > until:
                break
            known = list(tally.failures)
            check_random_runs(name, devices, tally, start=start, until=until)
            for message, program in tally.failures[len(known) :]:
                if (message, program) not in known:
                    print(f"# {message}\n{program}", flush=True)
        start += 1
    return tallies


def _devices(text: str) -> tuple[str, ...]:
    if text:
        return tuple(text.split(","))
    found = ["numpy", "reference", "ghost"]
    for name in ("numba", "torch:cpu"):
        try:
            get_backend(name)
            found.append(name)
        except BackendError:
            pass
    return tuple(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the soak of the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m nnbackend.testing.soak", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=60.0, help="how long (60)")
    parser.add_argument("--seed", type=int, default=None, help="seed of the runs (the time)")
    parser.add_argument(
        "--property", action="append", choices=list(PROPERTIES), help="only this one; repeatable"
    )
    parser.add_argument("--devices", default="", help="names with commas (all CPU devices)")
    chosen = parser.parse_args(arguments)
    start = int(time.time()) if chosen.seed is None else chosen.seed
    logging.getLogger("nnbackend").setLevel(logging.ERROR)
    devices = _devices(chosen.devices)
    print(f"seed {start}, devices {', '.join(devices)}", flush=True)
    tallies = soak(chosen.property or list(PROPERTIES), devices, chosen.minutes, start)
    print(f"{'property':<24} {'runs':>8} {'skipped':>8} {'disagreements':>13} {'seconds':>8}")
    total = Tally()
    for name, tally in [*tallies.items(), ("all", total)]:
        row = f"{name:<24} {tally.runs:>8} {tally.skipped:>8} {len(tally.failures):>13}"
        print(f"{row} {tally.seconds:>8.0f}")
        total.runs, total.skipped = total.runs + tally.runs, total.skipped + tally.skipped
        total.seconds += tally.seconds
        total.failures += tally.failures if tally is not total else []
    return int(any(tally.failures for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
