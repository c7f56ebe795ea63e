"""The site's pages in a real browser: nothing is cut off, on a desktop and on a phone.

Needs Playwright and a chromium on the PATH; skipped with the reason without them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docs_site import built_site

playwright = pytest.importorskip("playwright.sync_api", reason="needs Playwright")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs a chromium on the PATH")
# What reaches beyond the window or its box without a way to scroll there.
CUT_OFF = """() => {
  const found = [];
  const seen = (e) => e.getClientRects().length && getComputedStyle(e).visibility === 'visible';
  const scrolls = (e) => {
    for (; e && e !== document.body; e = e.parentElement) {
      const x = getComputedStyle(e).overflowX;
      if ((x === 'auto' || x === 'scroll') && e.scrollWidth > e.clientWidth) return true;
    }
    return false;
  };
  const parts = 'article table, article td, article th, article pre, article math, article img, '
    + 'article h1, article h2, article h3, article p, article dt, article figure';
  for (const e of document.querySelectorAll(parts)) {
    if (!seen(e) || scrolls(e)) continue;
    const box = e.getBoundingClientRect();
    const isInline = getComputedStyle(e).display.startsWith('inline') || e.tagName === 'math';
    const isTooWide = !isInline && e.scrollWidth > e.clientWidth + 2;
    const isSqueezed = e.tagName === 'P' && box.width < 60 && e.textContent.length > 50;
    if (isSqueezed || box.right > innerWidth + 1 || box.left < -1 || isTooWide) {
      found.push(e.tagName + ': ' + (e.textContent || e.alt || '').trim().slice(0, 60));
    }
  }
  const all = document.scrollingElement;
  if (all.scrollWidth > innerWidth) found.push('the page is ' + all.scrollWidth + ' wide');
  return found;
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_site(tmp_path_factory)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off(site: Path, browser: Any, width: int) -> None:
    context = browser.new_context(offline=True, viewport={"width": width, "height": 800})
    page = context.new_page()
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.url))
    cut: dict[str, list[str]] = {}
    names = sorted(path for path in site.rglob("*.html") if "_static" not in path.parts)
    for path in names:
        page.goto(path.as_uri())
        if found := page.evaluate(CUT_OFF):
            cut[path.relative_to(site).as_posix()] = found
    assert len(names) > 30
    assert cut == {}
    assert failed == []
    context.close()


@pytest.mark.parametrize("name", ["backprop.html", "es/backprop.html"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_equations_need_no_scrolling(site: Path, browser: Any, name: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto((site / name).as_uri())
    wide = "(e) => e.scrollWidth > e.clientWidth + 1 && e.textContent.slice(0, 60)"
    cells = page.query_selector_all("table.code-lines, table.code-lines td, .table-wrapper")
    assert len(cells) > 100
    assert [text for cell in cells if (text := cell.evaluate(wide))] == []
    heights = "[...document.querySelectorAll('table.code-lines math')].map((e) => e.clientHeight)"
    drawn = page.evaluate(
        "[...document.querySelectorAll('math')].filter((e) => e.getBoundingClientRect().height < 5)"
        ".length"
    )
    assert drawn == 0, page.evaluate(heights)
    page.close()
