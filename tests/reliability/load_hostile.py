"""Load every hostile file of a folder, and print the largest CPU time and memory.

    python tests/reliability/load_hostile.py FOLDER

Prints a line of JSON: number of files, files that were accepted, largest time, peak memory.
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
    """Return the peak memory of this process, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000.0


def main(folder: Path) -> dict[str, object]:
    before, accepted, times = memory(), [], {}
    for path in [*sorted(folder.iterdir()), folder]:
        for read in (lambda p: nn.load(p, "numpy"), read_checkpoint):
            begin = time.process_time()  # not affected by other processes
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
