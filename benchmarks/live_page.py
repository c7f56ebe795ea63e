"""Steps and pictures a second of the live page, beside the engine without it.

    python -m benchmarks.live_page --repeats 3

2-8-8-2 on the spirals, batches of 32, Adam. The page runs at its highest speed in a chromium on the
same machine (Playwright drives it: `pip install playwright`); a picture counts when the page has
drawn it. Runs with and without the page alternate; the medians are printed as one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from typing import Any

import nnbackend as nn
from nnbackend.machine import machine_facts

SECONDS = 5.0
COUNT = """
(() => {
  const send = WebSocket.prototype.send;
  window.drawn = 0;
  WebSocket.prototype.send = function (text) {
    if (text === 'shown') window.drawn++;
    return send.call(this, text);
  };
})();
"""
READ = (
    "() => [window.drawn, Number(document.getElementById('step').textContent), performance.now()]"
)


def without_page() -> float:
    """Return the steps a second of `nnbackend.train`."""
    data = nn.data.load("spirals")
    net = nn.Network(
        [2, nn.Dense(8, "tanh"), nn.Dense(8, "tanh"), 2], loss="cross_entropy", device="cpu"
    )
    options: dict[str, Any] = {
        "optimizer": nn.Adam(0.01), "batch_size": 32, "validation": 0.2,
    }  # fmt: skip
    nn.train(net, data.x, data.y, epochs=100, **options)  # compiles
    epochs, steps = 2000, 10
    begin = time.perf_counter()
    nn.train(net, data.x, data.y, epochs=epochs, **options)
    return epochs * steps / (time.perf_counter() - begin)


def with_page(browser: Any) -> tuple[float, float]:
    """Return the steps and the pictures a second of the page at its highest speed."""
    command = [sys.executable, "-m", "nnbackend", "live", "--no-browser", "--epochs", "100000"]
    process = subprocess.Popen([*command, "--device", "cpu"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found is not None
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.add_init_script(COUNT)
        page.goto(found[0])
        page.wait_for_selector(".unit")
        page.evaluate(
            "() => { const e = document.getElementById('speed'); e.value = e.max;"
            "e.dispatchEvent(new Event('input')); }"
        )
        page.click("#run")
        page.wait_for_timeout(2000)
        first = page.evaluate(READ)
        page.wait_for_timeout(1000 * SECONDS)
        last = page.evaluate(READ)
        page.close()
    finally:
        process.terminate()
        process.communicate(timeout=30)
    seconds = (last[2] - first[2]) / 1000
    return (last[1] - first[1]) / seconds, (last[0] - first[0]) / seconds


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="default: 3")
    repeats = parser.parse_args().repeats
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    alone, steps, pictures = [], [], []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for _ in range(repeats):
            alone.append(without_page())
            made = with_page(browser)
            steps.append(made[0])
            pictures.append(made[1])
        browser.close()
    machine = machine_facts()
    print(
        json.dumps(
            {
                "steps_per_second_without_page": round(statistics.median(alone)),
                "steps_per_second_with_page": round(statistics.median(steps)),
                "pictures_per_second": round(statistics.median(pictures), 1),
                "repeats": repeats, "cpu": machine["cpu"], "cpus": machine["usable_cpus"],
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
