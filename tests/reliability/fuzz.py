"""Fuzz one target for a given time.

    python tests/reliability/fuzz.py TARGET SECONDS [CORPUS]

CORPUS is a folder in which atheris keeps the inputs that reached new code, for later runs.

Uses atheris if it is installed, guided by the coverage of our readers. Otherwise, or with a number
of inputs such as `300x` in place of the seconds, it applies random changes to valid files. An input
that raises anything but one of our errors is written to `crash-TARGET`, and the script fails.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path


def change(data: bytes, rng: random.Random) -> bytes:
    """Return a valid file with a few random changes."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 8])):
        place = rng.randrange(len(changed) + 1)
        kind = rng.randrange(6)
        if kind == 0:
            del changed[place : place + rng.randrange(1, 9)]
        elif kind == 1:
            changed[place:place] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 2 and changed:
            changed[place % len(changed)] ^= 1 << rng.randrange(8)
        elif kind == 3:
            words = [b"0", b"-1", b"99999999999999999999", b"NaN", b"null", b"true", b"[]", b"{}",
                     b'"x"', b",", b"\n", b"\0", b"1e999", b"\xff\xff\xff\xff", b"1.5"]  # fmt: skip
            changed[place : place + rng.randrange(4)] = rng.choice(words)
        elif kind == 4:
            part = changed[place : place + rng.randrange(1, 40)]
            other = rng.randrange(len(changed) + 1)
            changed[other:other] = part
        else:
            del changed[place:]
    return bytes(changed)


def at_random(target: str, seconds: float, most: float) -> dict[str, object]:
    """Try random changes until the time is over or `most` inputs were tried."""
    from targets import seeds, try_one

    rng, originals = random.Random(7), list(seeds(target))
    accepted = sum(try_one(target, original) for original in originals)
    assert accepted, "all seeds are refused"
    tried = n_accepted = 0
    end = time.monotonic() + seconds
    while tried < most and time.monotonic() < end:
        data = change(rng.choice(originals), rng)
        tried += 1
        try:
            n_accepted += try_one(target, data)
        except BaseException:
            Path(f"crash-{target}").write_bytes(data)
            traceback.print_exc()
            return {"target": target, "tried": tried, "crash": f"crash-{target}"}
    return {"target": target, "tried": tried, "accepted": n_accepted, "crash": None}


def with_atheris(target: str, seconds: int, corpus: Path) -> None:
    """Run atheris, which ends the process itself."""
    import atheris

    with atheris.instrument_imports(include=["nnbackend"]):
        from targets import seeds, try_one
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(seeds(target)):
        (corpus / f"seed-{number}").write_bytes(data)
    options = [f"-max_total_time={seconds}", "-max_len=20000", "-rss_limit_mb=2048", "-timeout=10",
               f"-artifact_prefix=crash-{target}-", "-print_final_stats=1",
               str(corpus)]  # fmt: skip
    atheris.Setup([sys.argv[0], *options], lambda data: try_one(target, data) and None)
    atheris.Fuzz()


if __name__ == "__main__":
    name, amount, *corpus = sys.argv[1:]
    if amount.endswith("x"):
        result = at_random(name, 3600.0, float(amount[:-1]))
    else:
        try:
            import atheris as _  # noqa: F401
        except ImportError:
            result = at_random(name, float(amount), float("inf"))
        else:
            with tempfile.TemporaryDirectory(prefix=f"corpus-{name}-") as fresh:
                with_atheris(name, int(amount), Path(*corpus or [fresh]))
    print(json.dumps(result))
    sys.exit(result["crash"] is not None)
