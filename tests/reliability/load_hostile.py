"""Open every file of a folder, all hostile, and print the worst time of the CPU and memory.

    python tests/reliability/load_hostile.py FOLDER

A line of JSON: how many there are, those not refused, the longest time, the most memory.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import nnbackend as nn
from nnbackend.errors import ModelFileError
from nnbackend.persistence.checkpoints import read_checkpoint


def memory() -> float:
    """Return the most memory this process ever had, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000.0


def main(folder: Path) -> dict[str, object]:
    before, accepted, times = memory(), [], {}
    for path in [*sorted(folder.iterdir()), folder]:
        for read in (lambda p: nn.load(p, "numpy"), read_checkpoint):
            begin = time.process_time()  # that of others on the machine does not count
            try:
                read(path)
            except ModelFileError:
                pass
            except BaseException as error:
                accepted.append(f"{path.name}: {error!r}")
            else:
                accepted.append(path.name)
            times[path.name] = max(time.process_time() - begin, times.get(path.name, 0.0))
    slowest = max(times, key=times.__getitem__)
    return {
        "files": len(times),
        "accepted": accepted,
        "slowest": slowest,
        "seconds": round(times[slowest], 4),
        "megabytes": round(memory() - before, 1),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
