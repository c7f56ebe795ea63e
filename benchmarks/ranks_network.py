"""The prediction for ranks checked on two hosts, which are network namespaces of this machine."""

from __future__ import annotations

import datetime
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks import ranks
from benchmarks.cpu_report import default_name
from benchmarks.two_hosts import ENVIRONMENT, TwoHosts, lacking
from nnbackend.machine import machine_facts

LINKS = {"1 Gbit/s, 0.2 ms": (0.2e-3, 125e6), "100 Mbit/s, 1 ms": (1e-3, 12.5e6)}
STEPS = ("784-100-10, 512", "784-512-512-10, 1024")
REDUCTIONS = ("fast", "fixed")


def checked(delay: float, rate: float) -> dict[str, Any]:
    """Return measured and predicted microseconds of exchanges and steps over one link."""
    result: dict[str, Any] = {"exchanges": {}, "steps": {}}
    with TwoHosts(delay, rate) as hosts:
        start = hosts.mpiexec(ranks.mpiexec())
        latency, bandwidth = hosts.measured()
        result |= {"latency": latency, "bandwidth": bandwidth}
        for reduction in REDUCTIONS:
            for size in ranks.SIZES:
                many = [3, 5] if size >= 100_000 else [5, 20]
                took = ranks.run(2, 1, ["exchange", size, reduction, *many], start)
                model = ranks.exchange_us(size, 2, latency, bandwidth, reduction)
                result["exchanges"][f"{size:,} numbers, {reduction}"] = took, model
            for row in STEPS:
                layers, batch = ranks.ROWS[row]
                half = ranks.run(0, 1, ["step", layers, batch // 2, "", 0.3])
                took = ranks.run(2, 1, ["step", layers, batch, reduction, 0.3], start)
                n = ranks.n_parameters(layers)
                model = half + ranks.exchange_us(n, 2, latency, bandwidth, reduction)
                result["steps"][f"{row}, {reduction}"] = took, model
    return result


def report(found: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    lines = [
        "# Ranks on a network: the prediction checked", "",
        f"Measured {found['date']} on {found['machine']['cpu']}: two hosts, which are network "
        "namespaces of one machine with two cores, Open MPI by TCP. A process between them delays "
        "packets of 65 kB and limits the rate; it and the kernel use the same two cores. Latency "
        "and bandwidth of the prediction are those of TCP sockets on the link, with both "
        f"directions in use; the factor {ranks.TURNS} for messages above 64 kB is fitted to these "
        "measurements. A step's prediction adds the measured time of half of the rows.", "",
    ]  # fmt: skip
    for name, link in found["links"].items():
        lines += [
            f"## {name}", "",
            f"Measured latency {link['latency'] * 1e6:,.0f} µs, bandwidth "
            f"{link['bandwidth'] / 1e6:,.1f} MB/s.", "",
            "| | measured, µs | predicted, µs | measured / predicted |", "|---|---:|---:|---:|",
        ]  # fmt: skip
        for title, (took, model) in (link["exchanges"] | link["steps"]).items():
            lines.append(f"| {title} | {took:,.0f} | {model:,.0f} | {took / model:.2f} |")
        lines.append("")
    return "\n".join(lines)


def main(folder: Path) -> int:
    """Measure, and write the report."""
    if reason := lacking():
        print(reason, file=sys.stderr)
        return 1
    os.environ.update(ENVIRONMENT)
    found: dict[str, Any] = {
        "date": str(datetime.date.today()), "machine": machine_facts(),
        "links": {name: checked(*link) for name, link in LINKS.items()},
    }  # fmt: skip
    name = default_name(found).replace("cpu-", "ranks-network-", 1)
    text = json.dumps(found, indent=1)
    (folder / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(report(found), encoding="utf-8")
    print(folder / f"{name}.md")
    return 0
