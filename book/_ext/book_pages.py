"""Last touches on the written pages, for readers on the web and from the disk (file://) alike.

- The theme asks the browser to preload its icon fonts and scripts a moment before it loads them.
  From the disk each font hint is an error in the console, since such a page has no origin to check;
  over http the scripts' hints may go unused, which is a warning. All loads without the hints.
- The search page fetches each page that it found, to show a few lines of it. From the disk a page
  may fetch nothing: there the search lists titles only.
- The button that downloads a notebook downloads it, where some servers would show it as text.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

NO_FETCH = 'if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;'
PRELOAD = re.compile(r"[ \t]*<link rel=\"preload\"[^>]*>\n?")
SOURCE_LINK = re.compile(r'(<a href="[^"]*_sources/[^"]*\.ipynb") target="_blank"')


def touch_up(html: str) -> str:
    """One page without preload hints, its notebook to be downloaded."""
    return SOURCE_LINK.sub(r"\1 download", PRELOAD.sub("", html))


def touch_up_all(app: Sphinx, error: Exception | None) -> None:
    """Rewrite the pages that change."""
    if error is not None or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        better = touch_up(html)
        if better != html:
            page.write_text(better, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, object]:
    """Register the extension with Sphinx."""
    app.add_js_file(None, body=NO_FETCH)
    app.connect("build-finished", touch_up_all)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
