"""The live page in a real browser: every control, steps and back, edits, exports, random clicks.

Needs Playwright and a chromium that is installed beside it; skipped with the reason without them.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnbackend as nn
from nnbackend.cli import main

pytest.importorskip("uvicorn", reason="needs the extra live")
pytest.importorskip("wsproto", reason="needs the extra live")
playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")

ROOT = Path(__file__).resolve().parent.parent.parent
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")])}
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs a chromium on the PATH")
SOCKET = """
(() => {
  const Real = WebSocket;
  window.WebSocket = class extends Real {
    constructor(...all) {
      super(...all);
      window.frames_ = window.shown_ = 0;
      window.waiting_ = new Set();
      this.addEventListener('message', (e) => {
        if (typeof e.data !== 'string') window.frames_++;
        else window.waiting_.delete(JSON.parse(e.data).id);
      });
    }
    send(text) {
      if (text === 'shown') window.shown_++;
      else window.waiting_.add(JSON.parse(text).id);
      super.send(text);
    }
  };
})();
"""
# Nothing is awaited for 50 ms; or half a second has passed, if frames come all the time.
SETTLED = """async () => {
  let quiet = 0;
  for (let i = 0; quiet < 5 && i < 500; i++) {
    await new Promise((go) => setTimeout(go, 10));
    const isQuiet = !window.waiting_.size && (window.frames_ === window.shown_ || i > 50);
    quiet = isQuiet ? quiet + 1 : 0;
  }
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def address() -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "nnbackend", "live", "--no-browser", "--device", "numpy",
         "--dtype", "float64"],
        env=ENVIRONMENT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    assert found is not None
    yield found[0]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 0


class Window:
    """A page with what it has logged."""

    def __init__(self, browser: Any, address: str, **options: Any) -> None:
        self.context = browser.new_context(locale="en-US", accept_downloads=True, **options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on(
            "console",
            lambda m: self.faults.append(m.text) if m.type in ("error", "warning") else None,
        )
        self.page.add_init_script(SOCKET)
        self.page.goto(address)
        self.wait("window.frames_ > 0 && document.querySelector('.numbers, math')")

    def wait(self, expression: str, seconds: float = 10.0) -> None:
        """Wait until an expression of the page is true; its policy forbids Playwright's own way."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(f"() => Boolean({expression})"):
            assert time.monotonic() < end, expression
            time.sleep(0.02)

    def settle(self) -> None:
        """Wait until the page has drawn the answers to all that it has sent."""
        self.page.evaluate(SETTLED)

    def press(self, selector: str) -> None:
        self.page.click(selector)
        self.settle()

    def text(self, selector: str) -> str:
        return str(self.page.text_content(selector))

    def choose(self, selector: str, value: str) -> None:
        self.page.select_option(selector, value)
        self.settle()

    def fill(self, selector: str, value: str) -> None:
        self.page.fill(selector, value)
        self.page.press(selector, "Tab")
        self.settle()

    def open_details(self) -> None:
        self.page.evaluate(
            "document.querySelectorAll('details').forEach((d) => { d.open = true; })"
        )

    def download(self, selector: str) -> Path:
        self.page.evaluate("document.getElementById('export').open = true")
        with self.page.expect_download() as found:
            self.page.click(selector)
        return Path(found.value.path())


@pytest.fixture
def window(browser: Any, address: str) -> Iterator[Window]:
    made = Window(browser, address, viewport={"width": 1280, "height": 800})
    yield made
    made.context.close()
    assert made.faults == []


def shown(value: float) -> str:
    """Return a number as the page writes it: five digits."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e5 or size < 1e-4:
        digits, power = f"{value:.4e}".split("e")
        return f"{digits}e{int(power):+d}".replace("-", "−")
    left = len(str(int(size))) if size >= 1 else -(len(f"{size:.20f}".split(".")[1]) - len(
        f"{size:.20f}".split(".")[1].lstrip("0")))  # fmt: skip
    rounded = f"{value:.{5 - left}f}"
    if len(rounded.replace("-", "").replace(".", "").lstrip("0")) > 5:  # 9.99999 -> 10.0000
        rounded = f"{value:.{4 - left}f}"
    return rounded.replace("-", "−")


def rebuilt(window: Window, folder: Path) -> tuple[nn.Network, Any]:
    """Return the page's network at its first weights, and its data, from what it exports."""
    window.open_details()
    shutil.copy(window.download("a[href='export/live.csv']"), folder / "live.csv")
    script = window.download("a[href='export/train.py']").read_text()
    data = nn.data.load(str(folder / "live.csv"), target="target", task="classification")
    layers = re.search(r"net = (nn\.Network\(.*?\n\))", script, re.S)
    assert layers is not None
    net: nn.Network = eval(layers[1], {"nn": nn})
    return net, data


def test_steps_back_and_epochs(window: Window) -> None:
    assert window.text("#step") == "0"
    window.press("#do-step")
    window.press("#do-step")
    assert window.text("#step") == "2"
    loss = window.text("[data-figure=train_loss]")
    window.press("#do-back")
    assert window.text("#step") == "1"
    assert window.text("[data-figure=train_loss]") != loss
    window.press("#do-step")
    assert window.text("[data-figure=train_loss]") == loss
    window.press("#do-epoch")
    assert window.text("#epoch") == "1"
    window.press("#run")
    window.wait("Number(document.getElementById('epoch').textContent) > 4")
    window.press("#run")
    stopped = window.text("#step")
    window.settle()
    assert window.text("#step") == stopped
    window.page.click("#curve", position={"x": 60, "y": 40})
    window.settle()
    assert int(window.text("#step")) < int(stopped)
    window.press("#do-reset")
    assert window.text("#step") == "0"


def test_the_numbers_on_the_page_are_those_of_backprop(window: Window, tmp_path: Path) -> None:
    net, data = rebuilt(window, tmp_path)
    x, y, page = data.x, data.y, window.page

    def numbers(name: str) -> Any:
        return page.text_content(f"#algorithm-body [data-n='{name}']")

    for row in (7, 130):
        window.fill("#row", str(row))
        trace, gradient = (
            net.trace(x[row : row + 1]),
            net.backprop(x[row : row + 1], y[row : row + 1]),
        )
        page.click(".unit[data-layer='3'][data-unit='4']")
        page.keyboard.press("Escape")
        page.click("#step-1")
        window.settle()
        assert numbers("x.0") == shown(x[row, 0])
        page.click("#step-2")
        window.settle()
        assert numbers("z") == shown(trace.z[1][0, 4])
        assert numbers("a") == shown(trace.a[1][0, 4])
        assert numbers("loss") == shown(gradient.loss)
        for unit in range(8):
            assert numbers(f"z.{unit}") == shown(trace.z[1][0, unit])
            assert numbers(f"z.{unit}.0") == shown(net.weights[1][unit, 4])
            assert numbers(f"z.{unit}.1") == shown(trace.a[0][0, unit])
        assert page.locator(".phi").count() == 1
        page.click("#step-4")
        window.settle()
        assert numbers("delta") == shown(gradient.deltas[1][0, 4])
        for k in range(2):
            assert numbers(f"d.{k}.0") == shown(net.weights[2][4, k])
            assert numbers(f"d.{k}.1") == shown(gradient.deltas[2][0, k])
        page.click("#step-5")
        window.settle()
        assert numbers("dw") == shown(gradient.weights[1][0, 4])
        page.select_option(".input-of", index=6)
        window.settle()
        assert numbers("dw") == shown(gradient.weights[1][6, 4])
        window.press("#step-2")
        window.press(".link[data-unit='2']")
        assert numbers("z") == shown(trace.z[1][0, 2])
        page.click("#step-3")
        window.settle()
        assert numbers("delta") == shown(gradient.deltas[2][0, 0])
        for unit in range(2):
            assert numbers(f"delta.{unit}") == shown(gradient.deltas[2][0, unit])


def test_a_number_shows_where_it_comes_from(window: Window, tmp_path: Path) -> None:
    """Hovering a z shows its sum term by term, with the network's numbers; the others their own."""
    net, data = rebuilt(window, tmp_path)
    page, row = window.page, 7
    window.fill("#row", str(row))
    trace = net.trace(data.x[row : row + 1])
    gradient = net.backprop(data.x[row : row + 1], data.y[row : row + 1])
    page.click(".unit[data-layer='3'][data-unit='4']")
    page.keyboard.press("Escape")

    def tip(name: str) -> str:
        page.hover(f"#algorithm-body [data-n='{name}']")
        window.settle()
        assert page.locator("#tip").is_visible(), name
        return window.text("#tip").replace("(", "").replace(")", "").strip()

    def terms(first: Any, second: Any) -> list[str]:
        return [f"{shown(u)}·{shown(v)}" for u, v in zip(first, second, strict=True)]

    window.press("#step-2")
    for unit in (0, 4, 7):
        text = tip(f"z.{unit}")
        parts = terms(net.weights[1][:, unit], trace.a[0][0])
        assert "+".join([*parts, shown(net.biases[1][unit])]) in text.replace(" ", "")
        assert text.endswith(f"={shown(trace.z[1][0, unit])}")
        assert f"tanh{shown(trace.z[1][0, unit])}={shown(trace.a[1][0, unit])}" in tip(f"a.{unit}")
    assert "from unit 3 of layer 2 to unit 5 of layer 3" in tip("z.2.0")
    assert "Unit 3 of layer 2" in tip("z.2.1")
    window.press("#step-4")
    for unit in (1, 4):
        text = tip(f"delta.{unit}").replace(" ", "")
        above = terms(gradient.deltas[2][0], net.weights[2][unit])
        assert "+".join(above) in text
        assert text.endswith(f"={shown(gradient.deltas[1][0, unit])}")
    window.press("#step-3")
    text = tip("delta.1").replace(" ", "")
    assert text.endswith(f"={shown(gradient.deltas[2][0, 1])}")
    names = set()
    for step in range(1, 6):
        window.press("#do-substep")
        found = page.eval_on_selector_all(
            "#algorithm-body [data-n]", "(all) => all.map((e) => e.getAttribute('data-n'))"
        )
        names |= set(found)
        for name in dict.fromkeys(found):
            assert tip(name), (step, name)
    assert {"x.0", "y.1", "z", "loss", "dw", "batch_db", "new_w"} <= names
    page.hover("#epoch")
    window.settle()
    assert page.locator("#tip").is_hidden()
    window.press("#language")
    window.press("#step-2")
    assert "entradas ponderadas" in tip("z.0")


def test_the_five_steps(window: Window) -> None:
    for n in range(1, 6):
        window.press("#do-substep")
        assert window.page.get_attribute(f"#step-{n}", "aria-selected") == "true"
        assert window.text("#step") == ("1" if n == 5 else "0")
    assert window.text("[data-n=new_w]") != window.text("[data-n=w]")
    window.press("#do-back")
    assert window.text("#step") == "0"


def test_a_weight_is_edited(window: Window) -> None:
    page = window.page
    loss = window.text("[data-figure=train_loss]")
    page.click(".unit[data-layer='2'][data-unit='1']")
    window.settle()
    assert "Unit 2 of layer 2" in window.text("#editor h3")
    box = page.locator("#editor .number").nth(1)
    box.fill("3.25")
    box.press("Enter")
    window.settle()
    page.keyboard.press("Escape")
    assert page.locator("#editor").is_hidden()
    assert window.text("[data-figure=train_loss]") != loss
    page.hover(".unit[data-layer='2'][data-unit='1']")
    window.settle()
    assert "z = " in window.text("#tip")
    assert "unit 2 of layer 2" in window.text("#result-title").lower()
    page.locator("#epoch").hover()
    line = page.locator(".weights[data-layer='2'] .hit").nth(2)  # from unit 1 to unit 2
    line.dispatch_event("pointerenter")
    window.settle()
    assert window.text("#tip") == "w2: 1 → 2 = 3.2500"
    line.dispatch_event("click")
    window.settle()
    page.locator("#editor input[type=range]").first.evaluate(
        "(e) => { e.value = -2; e.dispatchEvent(new Event('input')); }"
    )
    window.settle()
    line.dispatch_event("pointerenter")
    window.settle()
    assert window.text("#tip") == "w2: 1 → 2 = −2.0000"
    page.keyboard.press("Escape")
    window.press("#do-back")
    window.press("#do-back")
    assert window.text("[data-figure=train_loss]") == loss


@pytest.mark.parametrize("language", ["en", "es"])
def test_number_fields_read_a_decimal_comma_and_refuse_words(window: Window, language: str) -> None:
    window.open_details()
    if language == "es":
        window.press("#language")
    page = window.page
    words = "is not a number" if language == "en" else "no es un número"

    def options() -> dict[str, str]:
        text = window.download("a[href^='export/config.toml']").read_text()
        return {k: str(v) for k, v in tomllib.loads(text).items()}

    window.choose("#o-optimizer", "sgd")
    for name in ("learning_rate", "momentum", "l1", "l2", "weight_decay"):
        window.fill(f"#o-{name}", "0,5")
        assert options()[name] == "0.5"
        for wrong in ("hola", "1.000,5", "1,000.5", "0x10"):
            window.fill(f"#o-{name}", wrong)
            error = page.locator(f".number-field:has(#o-{name}) .field-error")
            assert wrong in error.text_content()
            assert words in error.text_content()
            assert error.is_visible()
            assert page.input_value(f"#o-{name}") == wrong
            assert options()[name] == "0.5"
        window.fill(f"#o-{name}", "0.25")
        assert error.is_hidden()
        assert options()[name] == "0.25"
    whole = {"seed": "0", "epochs": "5000", "batch_size": "32"}
    for name, value in whole.items():
        for wrong in ("hola", "1,5", "1,000", ""):
            window.fill(f"#o-{name}", wrong)
            assert page.locator(f".number-field:has(#o-{name}) .field-error").is_visible()
            assert options()[name] == value
    for selector, index in (("#data-seed", 0), (".drop .number", 1), ("#row", 0)):
        field = page.locator(selector).nth(index)
        field.fill("hola")
        field.press("Tab")
        window.settle()
        assert words.split()[-1] in field.locator("xpath=..").text_content()
        assert window.text("#error") == ""
    rate = page.locator(".drop .number").nth(1)
    rate.fill("0,5")
    rate.press("Enter")
    window.settle()
    assert options()["dropout"] == "[0.0, 0.5]"
    page.click(".unit[data-layer='2'][data-unit='1']")
    window.settle()
    box = page.locator("#editor .number").nth(1)
    before = box.input_value()
    box.fill("-0,75")
    box.press("Enter")
    window.settle()
    page.keyboard.press("Escape")
    page.click(".unit[data-layer='2'][data-unit='1']")
    assert before != "-0.75"
    assert box.input_value() == "-0.75"
    box.fill("hola")
    box.press("Tab")
    window.settle()
    assert words in window.text("#editor .field-error:not([hidden])")
    assert window.text("#error") == ""


def test_the_editor_shows_whole_numbers_and_the_slides_symbols(window: Window) -> None:
    page = window.page
    page.click(".unit[data-layer='3'][data-unit='1']")
    window.settle()
    box = page.locator("#editor .number").nth(5)
    symbol = page.locator("#editor math").nth(4)  # after the bias, the weights from units 1, 2, ...
    assert symbol.text_content() == "w2,53"
    assert box.get_attribute("aria-label") == "w^3_{2,5}"
    for value, shown_ in (
        ("-0.000749462", "-7.4946e-4"), ("-0.00123457", "-0.00123457"), ("-98765.4", "-98765.4"),
    ):  # fmt: skip
        box.fill(value)
        box.press("Tab")
        window.settle()
        assert box.input_value() == shown_
        assert box.evaluate("(e) => e.scrollWidth <= e.clientWidth"), shown_
    page.keyboard.press("Escape")
    page.locator(".weights[data-layer='3'] .hit").nth(12).dispatch_event("click")
    window.settle()
    assert "unit 5 of layer 2 to unit 2 of layer 3" in window.text("#editor h3")
    assert page.locator("#editor math").text_content() == "w2,53"


def test_every_control_of_the_training(window: Window) -> None:
    window.open_details()
    page = window.page
    for name, value in (
        ("optimizer", "sgd"), ("schedule", "cosine"), ("loss", "quadratic"),
        ("initializer", "normal"), ("scale", "standard"), ("dtype", "float32"),
        ("device", "numpy"), ("loss", ""), ("optimizer", "adam"),
    ):  # fmt: skip
        window.choose(f"#o-{name}", value)
        assert page.locator("#error").is_hidden(), window.text("#error")
        assert page.input_value(f"#o-{name}") == value
    window.choose("#o-optimizer", "sgd")
    for name, value in (
        ("learning_rate", "0.5"), ("momentum", "0.9"), ("batch_size", "full"), ("epochs", "70"),
        ("l1", "0.01"), ("l2", "0.02"), ("weight_decay", "0.03"), ("seed", "5"),
    ):  # fmt: skip
        window.fill(f"#o-{name}", value)
        assert page.locator("#error").is_hidden(), window.text("#error")
        assert page.input_value(f"#o-{name}") == value
    window.fill("#o-learning_rate", "-1")
    assert "learning_rate" in window.text("#error")
    window.fill("#o-learning_rate", "0.1")
    assert page.locator("#error").is_hidden()
    page.evaluate("(() => { const e = document.getElementById('f-validation'); e.value = 0.4;"
                  "e.dispatchEvent(new Event('change')); })()")  # fmt: skip
    window.settle()
    assert page.input_value("#f-validation") == "0.4"
    window.press("#do-step")
    assert window.text("#step") == "1"
    for speed in range(10):
        page.evaluate("(v) => { const e = document.getElementById('speed'); e.value = v;"
                      "e.dispatchEvent(new Event('input')); }", speed)  # fmt: skip
    assert "fast" in window.text("#speed-shown")
    page.evaluate("(() => { const e = document.getElementById('speed'); e.value = 5;"
                  "e.dispatchEvent(new Event('input')); })()")  # fmt: skip
    for name, value in (("dtype", "float64"), ("scale", "none"), ("initializer", "auto")):
        window.choose(f"#o-{name}", value)


def test_every_control_of_the_network(window: Window) -> None:
    page = window.page
    units = lambda: page.locator(".unit").count()  # noqa: E731
    assert units() == 20
    page.locator(".count button").nth(1).click()
    window.settle()
    assert units() == 21
    page.locator(".count button").nth(0).click()
    window.settle()
    window.press("#add-layer")
    assert units() == 28
    for name in ("relu", "maxout:2", "sigmoid", "elu"):
        page.locator(".head select.activation").nth(1).select_option(name)
        window.settle()
        window.press("#do-step")
        assert page.locator("#error").is_hidden(), window.text("#error")
    page.locator(".drop input").nth(0).fill("0.3")
    page.locator(".drop input").nth(0).press("Enter")
    window.settle()
    assert page.locator(".drop input").nth(0).input_value() == "0.3"
    window.press("#remove-layer")
    window.press("#remove-layer")
    assert units() == 12
    page.locator("#output-activation").select_option("sigmoid")
    window.settle()
    assert page.locator("#error").is_hidden(), window.text("#error")
    window.press("#do-epoch")
    page.locator("#output-activation").select_option("")
    window.settle()
    page.locator(".head select.activation").nth(0).select_option("tanh")
    window.press("#add-layer")


def test_data_sets_and_a_csv(window: Window, tmp_path: Path) -> None:
    page = window.page
    for name in ("circles", "blobs", "xor", "wave", "spirals"):
        window.press(f"[data-set={name}]")
        assert page.get_attribute(f"[data-set={name}]", "aria-checked") == "true"
        window.press("#do-epoch")
        assert window.text("#epoch") == "1"
        assert page.locator("#error").is_hidden(), window.text("#error")
    page.evaluate(
        "(() => { const e = document.getElementById('f-noise'); e.value = 0.2;"
        "e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change')); })()"
    )
    window.settle()
    assert window.text("#epoch") == "0"
    window.fill("#data-seed", "3")
    rng = np.random.default_rng(1)
    lines = ["a,b,c,kind"]
    lines += [
        f"{a:.3f},{b:.3f},{c:.3f},{'yes' if a * c > 0 else 'no'}"
        for a, b, c in rng.normal(size=(80, 3))
    ]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    (tmp_path / "bad.csv").write_text("nothing")
    page.set_input_files("#csv-file", tmp_path / "bad.csv")
    page.wait_for_selector("#error:not([hidden])")
    assert "422" in window.faults.pop()
    page.set_input_files("#csv-file", tmp_path / "mine.csv")
    page.wait_for_selector("#error[hidden]", state="attached")
    window.settle()
    assert page.locator(".unit.input").count() == 3
    window.choose("#axis-1", "2")
    window.press("#do-epoch")
    window.press("#two-columns")
    assert page.locator(".unit.input").count() == 2
    window.press("#all-columns")
    assert page.locator(".unit.input").count() == 3
    window.press("[data-set=xor]")


def test_language_theme_keyboard_and_phone(window: Window, browser: Any, address: str) -> None:
    page = window.page
    window.press("#language")
    assert page.get_attribute("html", "lang") == "es"
    assert "Entrenar" in window.text("#run")
    assert "paso a paso" in window.text("#algorithm h2")
    window.press("#language")
    colour = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(colour)
    window.press("#theme")
    assert page.evaluate(colour) != before
    window.press("#theme")
    page.evaluate("document.activeElement.blur()")
    for key, step in (("s", "1"), ("s", "2"), ("b", "1"), ("r", "0"), ("n", "0")):
        page.keyboard.press(key)
        window.settle()
        assert window.text("#step") == step, key
    assert page.get_attribute("#step-1", "aria-selected") == "true"
    page.focus("#step-1")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#step-2", "aria-selected") == "true"
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, select, input, a[href]')].filter((e) => "
        "!(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).length"
    )
    assert unnamed == 0
    phone = Window(browser, address, viewport={"width": 390, "height": 844}, has_touch=True)
    wide = phone.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390
    phone.page.tap("#do-step")
    phone.settle()
    assert phone.faults == []
    phone.context.close()


def test_exports_and_the_replay(window: Window, browser: Any, tmp_path: Path) -> None:
    for _ in range(3):
        window.press("#do-epoch")
    picture = window.download("#png")
    assert picture.read_bytes()[:4] == b"\x89PNG"
    config = window.download("a[href='export/config.toml']")
    shutil.copy(config, tmp_path / "config.toml")
    window.press("#add-layer")
    window.page.set_input_files("#config-file", tmp_path / "config.toml")
    window.wait("document.querySelectorAll('.count').length === 2")
    for _ in range(2):
        window.press("#do-epoch")
    replay = tmp_path / "replay.html"
    shutil.copy(window.download("#replay"), replay)
    context = browser.new_context(offline=True, locale="en-US")
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    page.goto(replay.as_uri())
    page.wait_for_selector(".unit")
    assert page.text_content("#epoch") == "2"
    page.evaluate("(() => { const e = document.getElementById('moment'); e.value = 0;"
                  "e.dispatchEvent(new Event('input')); })()")  # fmt: skip
    assert page.text_content("#epoch") == "0"
    page.click("#run")
    page.wait_for_function("document.getElementById('epoch').textContent === '2'", timeout=3000)
    page.click("#language")
    assert "Red" in str(page.text_content("#network h2"))
    assert faults == []
    context.close()


@pytest.mark.parametrize("language", ["en", "es"])
def test_a_replay_opens_in_the_language_of_its_page(
    window: Window, browser: Any, tmp_path: Path, language: str
) -> None:
    """The browser that opens it has the other language."""
    if language == "es":
        window.press("#language")
    shutil.copy(window.download("#replay"), tmp_path / "replay.html")
    context = browser.new_context(offline=True, locale="es-MX" if language == "en" else "en-US")
    page = context.new_page()
    page.goto((tmp_path / "replay.html").as_uri())
    page.wait_for_selector(".unit")
    assert page.text_content("#network h2") == {"en": "Network", "es": "Red"}[language]
    context.close()


def test_a_hint_names_a_page_of_the_course(window: Window) -> None:
    window.choose("#o-initializer", "zeros")
    for folder in ("docs/course", "docs/es/course"):
        text = window.text("#hints")
        found = re.search(r"docs/\S+\.md", text)
        assert found is not None
        assert (ROOT / found[0]).is_file()
        assert found[0].startswith(folder)
        title = re.search(r"[“«](.+?)[”»]", text)
        first = (ROOT / found[0]).read_text(encoding="utf-8").splitlines()[0]
        assert title is not None
        assert first.endswith(title[1])
        window.press("#language")


def test_errors_of_the_session_are_in_the_language_of_the_page(
    window: Window, tmp_path: Path
) -> None:
    window.open_details()
    window.press("#language")
    for name, value, error in (
        ("learning_rate", "-1", "Tasa η debe ser un número mayor que 0. Recibido: '-1'."),
        ("batch_size", "0", "Batch b debe ser un número entero, 1 o más, o full. Recibido: '0'."),
        ("epochs", "999999", "Épocas debe ser a lo más 100000. Recibido: 999999."),
        ("l1", "-2", "L1 debe ser un número mayor o igual que 0. Recibido: '-2'."),
    ):
        window.fill(f"#o-{name}", value)
        assert window.text("#error") == error
    window.fill("#row", "99999")
    assert window.text("#error") == "Fila debe ser menor que 400. Recibido: 99999."
    (tmp_path / "bad.csv").write_text("nothing")
    window.page.set_input_files("#csv-file", tmp_path / "bad.csv")
    window.wait("document.getElementById('error').textContent.includes('encabezado')")
    assert "422" in window.faults.pop()
    window.press("#language")
    window.fill("#o-learning_rate", "-1")
    assert window.text("#error").startswith("learning_rate must be a number above 0.")


def test_nothing_is_cut_off(window: Window, browser: Any, address: str) -> None:
    """A name in a choice; and on a phone the hints above what is longer than they."""
    page = window.page
    window.open_details()
    free = page.eval_on_selector(
        "#o-loss",
        """(e) => {
          const context = document.createElement('canvas').getContext('2d');
          const style = getComputedStyle(e);
          context.font = style.font;
          const arrow = 18;
          const text = context.measureText('cross_entropy').width;
          return e.clientWidth - parseFloat(style.paddingLeft) - arrow - text;
        }""",
    )
    assert free >= 0
    window.press("#do-step")
    window.press("#language")
    assert "Momentum" in str(page.get_attribute("#o-optimizer", "title"))
    phone = Window(browser, address, viewport={"width": 390, "height": 844}, has_touch=True)
    top = {
        name: phone.page.eval_on_selector(f"#{name}", "(e) => e.getBoundingClientRect().top")
        for name in ("result", "insight", "algorithm", "side")
    }
    assert sorted(top, key=lambda name: top[name]) == ["result", "insight", "algorithm", "side"]
    phone.context.close()


def test_two_hundred_random_clicks_leave_no_error(window: Window) -> None:
    """The fixture asserts that nothing was logged; errors of the session are shown on the page."""
    window.open_details()
    rng, page = random.Random(4), window.page
    script = """async (numbers) => { for (const n of numbers) {
      await new Promise((go) => setTimeout(go, 8));
      const all = [...document.querySelectorAll(
        'button:not(:disabled), select, input:not([type=file]), .hit, #plane, #curve, summary')]
        .filter((e) => e.id !== 'png' && e.getClientRects().length);
      const e = all[n % all.length];
      if (e.tagName === 'SELECT' && e.id !== 'o-device') {
        e.selectedIndex = n % e.options.length; e.dispatchEvent(new Event('change'));
      } else if (e.type === 'range') {
        e.value = Number(e.min) + (n % 7) / 7 * (e.max - e.min);
        e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change'));
      } else if (e.classList.contains('number')) {
        e.value = (n % 5) / 4; e.dispatchEvent(new Event('change'));
      } else {
        const box = e.getBoundingClientRect();
        const [clientX, clientY] = [box.x + box.width / 2, box.y + box.height / 3];
        const at = { bubbles: true, clientX, clientY };
        e.dispatchEvent(new PointerEvent('pointerenter', at));
        e.dispatchEvent(new MouseEvent('click', at));
      }
    } }"""
    page.evaluate(script, [rng.randrange(1 << 30) for _ in range(200)])
    window.settle()
    window.press("[data-set=circles]")
    window.wait("document.getElementById('step').textContent === '0'")
    window.press("#do-step")
    assert window.text("#step") == "1"


def test_the_page_keeps_up(window: Window) -> None:
    """A running network is drawn all the time; how often is measured, not asserted."""
    page = window.page
    page.evaluate("window.frames_ = 0")
    begin = time.perf_counter()
    page.click("#run")
    window.wait("window.frames_ > 20")
    page.click("#run")
    print(json.dumps({"frames": page.evaluate("window.frames_"),
                      "seconds": round(time.perf_counter() - begin, 2)}))  # fmt: skip


@pytest.mark.parametrize("is_under_way", [False, True])
def test_a_run_is_watched(
    browser: Any,
    tmp_path: Path,
    is_under_way: bool,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """A run folder, and `train --live`: curves, weights and rows are shown, nothing is changed."""
    command = [sys.executable, "-m", "nnbackend"]
    train = ["train", "iris", "--hidden", "6,5", "--device", "numpy", "--out", "run", "--quiet"]
    monkeypatch.chdir(tmp_path)
    if is_under_way:
        watch = [*command, *train, "--epochs", "100000", "--patience", "0", "--live"]
    else:
        assert main([*train, "--epochs", "30"]) == 0
        watch = [*command, "live", "run", "--no-browser"]
    process = subprocess.Popen(
        watch, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        # A shell makes background jobs ignore Ctrl-C; this process must not ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    request.addfinalizer(process.kill)
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    assert found is not None
    window = Window(browser, found[0], viewport={"width": 1280, "height": 800})
    page = window.page
    assert page.locator("#run").is_hidden()
    assert page.locator("#options").is_hidden()
    assert page.locator(".unit.input").count() == 4
    window.wait("Number(document.getElementById('epoch').textContent) >= 30")
    assert float(window.text("[data-figure=train_loss]")) < 1.2
    page.click(".unit[data-layer='3'][data-unit='2']")
    window.wait("document.querySelector('.focus-of').textContent.includes('3 of layer 3')")
    assert page.locator("#editor").is_hidden()
    window.choose("#axis-0", "0")
    page.keyboard.press("s")
    reply = page.evaluate("() => document.getElementById('error').hidden")
    assert reply
    if not is_under_way:
        model = nn.load(tmp_path / "run" / "last.safetensors", device="numpy")
        page.hover(".unit[data-layer='3'][data-unit='2']")
        window.settle()
        assert f"b = {shown(float(model.network.biases[1][2]))}" in window.text("#tip")
    assert window.faults == []
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == (130 if is_under_way else 0)
    window.context.close()
    assert (tmp_path / "run" / "checkpoints").is_dir()
