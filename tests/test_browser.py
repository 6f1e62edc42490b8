"""Proves that every page of the built book works in a real browser, with no network.

Each page is opened over http and from file://, at desktop and phone width, light and dark. On each
there must be no console message that warns, no failed and no external request, all math rendered,
all pictures shown, and nothing wider than the page. Search must answer.

    pytest tests/test_browser.py        needs Chromium (Debian: apt-get install chromium)

The browser is the system's, driven by Playwright's Python package. CHROMIUM names another one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is in .venv-dev")

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Whatever a page asks of another host fails at once, and is reported by its request.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
WIDTHS = {"desktop": (1280, 800), "phone": (390, 844)}
VIEWS = [("desktop", "light"), ("desktop", "dark"), ("phone", "light"), ("phone", "dark")]


def chromium() -> str:
    """Path of the browser; a loud skip without one, and a failure where CI should have it."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found:
        return found
    message = (
        "NO BROWSER TEST WAS RUN: there is no Chromium here (Debian: apt-get install chromium)"
    )
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message, allow_module_level=True)


class Quiet(SimpleHTTPRequestHandler):
    """A file server that says nothing."""

    def log_message(self, *_: object) -> None:
        """Print no line for a request."""


@pytest.fixture(scope="module")
def served(built_book: Path) -> Iterator[str]:
    """The address at which the built book is served."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(built_book)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    """One Chromium for all tests of this file."""
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium(), args=FLAGS)


@dataclass
class Visitor:
    """A browser tab that remembers all that went wrong in it."""

    page: sync_api.Page
    base: str
    trouble: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen to everything that a reader with open developer tools would see."""
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.trouble.append(f"exception: {error}"))
        self.page.on("request", self._on_request)
        self.page.on("requestfailed", lambda r: self.trouble.append(f"failed request: {r.url}"))
        self.page.on("response", self._on_response)

    def _on_console(self, message: sync_api.ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            self.trouble.append(f"console {message.type}: {message.text}")

    def _on_request(self, request: sync_api.Request) -> None:
        if not request.url.startswith((self.base, "data:", "blob:")):
            self.trouble.append(f"external request: {request.url}")

    def _on_response(self, response: sync_api.Response) -> None:
        if response.status >= 400:
            self.trouble.append(f"HTTP {response.status}: {response.url}")

    def open(self, path: str, width: str, scheme: str) -> None:
        """Load a page at a width and in a color scheme, and wait until its math is rendered."""
        self.show_as(width, scheme)
        self.page.goto(f"{self.base}/{path}", wait_until="load")
        if path == "index.html":  # it leads to the cover at once
            self.page.wait_for_url("**/intro.html", wait_until="load")
        self.page.evaluate("async () => { await window.MathJax?.startup?.promise }")

    def show_as(self, width: str, scheme: str) -> None:
        """Turn the tab to another width and color scheme, as a reader would."""
        across, down = WIDTHS[width]
        self.page.set_viewport_size({"width": across, "height": down})
        self.page.emulate_media(color_scheme=scheme)
        with contextlib.suppress(sync_api.TimeoutError):  # inspect() says so
            self.page.wait_for_function(FOLLOWED, arg=scheme, timeout=2000, polling=20)

    def inspect(self, path: str, width: str, scheme: str) -> list[str]:
        """What is wrong with the page as it stands, with what went wrong while it loaded."""
        wrong = [*self.trouble, *self.page.evaluate(INSPECT, scheme)]
        self.trouble.clear()
        return [f"{path} ({width}, {scheme}): {item}" for item in wrong]


# The theme follows the system's color scheme a moment after it changes.
FOLLOWED = "(scheme) => (document.documentElement.dataset.theme ?? scheme) === scheme"

# Runs in the page; returns a list of sentences. What scrolls inside itself is no overflow.
INSPECT = """
(scheme) => {
  const wrong = [];
  const root = document.documentElement;
  if (root.dataset.theme !== undefined && root.dataset.theme !== scheme)
    wrong.push(`shown as ${root.dataset.theme}`);
  const math = document.querySelectorAll("span.math, div.math").length;
  const drawn = document.querySelectorAll("mjx-container").length;
  if (drawn < math) wrong.push(`${math} formulas, ${drawn} rendered`);
  for (const error of document.querySelectorAll("mjx-merror"))
    wrong.push(`a formula has an error: ${error.textContent}`);
  for (const image of document.images) {
    if (image.complete && image.naturalWidth === 0) wrong.push(`no picture: ${image.src}`);
    if (getComputedStyle(image).filter !== "none") wrong.push(`changed colors: ${image.src}`);
  }
  if (root.scrollWidth > root.clientWidth) {
    const scrolls = (element) => {
      for (let e = element.parentElement; e && e !== document.body; e = e.parentElement)
        if (getComputedStyle(e).overflowX !== "visible") return true;
      return false;
    };
    const wide = [...document.querySelectorAll("main *")]
      .filter((e) => e.getBoundingClientRect().right > root.clientWidth + 1 && !scrolls(e))
      .map((e) => `${e.tagName.toLowerCase()}.${[...e.classList].join(".")}`);
    wrong.push(`${root.scrollWidth} px wide on ${root.clientWidth}: ${wide.slice(0, 3)}`);
  }
  return wrong;
}
"""


def pages_of(book: Path) -> list[str]:
    """Addresses of all pages that a reader can reach, relative to the book."""
    found = (path.relative_to(book) for path in sorted(book.rglob("*.html")))
    return [path.as_posix() for path in found if path.parts[0] not in ("_static", "_sources")]


@pytest.fixture(params=["http", "file"])
def visitor(
    request: pytest.FixtureRequest, browser: sync_api.Browser, built_book: Path, served: str
) -> Iterator[Visitor]:
    """A fresh tab on the book, over http or straight from the disk."""
    base = served if request.param == "http" else built_book.as_uri()
    context = browser.new_context()
    yield Visitor(context.new_page(), base)
    context.close()


def test_every_page(visitor: Visitor, built_book: Path) -> None:
    """Each page is loaded wide and light or narrow and dark, then turned through all four views."""
    pages = pages_of(built_book)
    assert len(pages) > 3, "the built book has no pages"
    wrong = []
    for number, path in enumerate(pages):
        # Over http and from the disk each page is loaded the other way round.
        views = VIEWS if (number % 2 == 0) == visitor.base.startswith("http") else VIEWS[::-1]
        visitor.open(path, *views[0])
        for view in views:
            visitor.show_as(*view)
            wrong += visitor.inspect(path, *view)
    assert not wrong, "\n".join(wrong)


def test_search_answers(visitor: Visitor) -> None:
    """A search for a word of the book finds pages, and a made-up word finds none."""
    visitor.open("search.html?q=bert", "desktop", "light")
    visitor.page.wait_for_selector("#search-results ul.search li a", timeout=10_000)
    assert visitor.page.locator("#search-results ul.search li").count() >= 1
    visitor.page.wait_for_load_state("networkidle")  # lines of the pages found, over http
    visitor.open("search.html?q=zzyzzxqq", "desktop", "light")
    summary = visitor.page.locator("#search-results .search-summary")
    sync_api.expect(summary).to_contain_text("did not match")
    assert visitor.page.locator("#search-results ul.search li").count() == 0
    assert not visitor.trouble


def test_the_inspection_finds_trouble(browser: sync_api.Browser, tmp_path: Path) -> None:
    """A page with every fault looked for here is reported for each of them."""
    (tmp_path / "bad.html").write_text(
        "<html><body><main><div style='width: 3000px'>wide</div>"
        "<span class='math'>x</span><img src='gone.png'>"
        "<script src='https://example.invalid/x.js'></script>"
        "<script>console.warn('careful'); nothing.here</script></main></body></html>",
        encoding="utf-8",
    )
    context = browser.new_context()
    visitor = Visitor(context.new_page(), tmp_path.as_uri())
    visitor.open("bad.html", "phone", "light")
    report = "\n".join(visitor.inspect("bad.html", "phone", "light"))
    context.close()
    for fault in ("careful", "exception", "external request", "failed request", "px wide",
                  "0 rendered", "no picture"):  # fmt: skip
        assert fault in report, f"{fault!r} was not reported:\n{report}"
