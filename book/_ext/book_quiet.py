"""Nothing in the browser's console, also when the book is read from the disk (file://).

- The theme asks the browser to preload its icon fonts and scripts a moment before it loads them. From
  the disk each font hint is an error, since such a page has no origin to check; over http the
  scripts' hints may go unused, which is a warning. The hints are taken out of the written pages: the
  fonts and scripts load either way.
- The search page fetches each page that it found, to show a few lines of it. From the disk a page may
  fetch nothing: there the search lists titles only.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

NO_FETCH = 'if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;'
PRELOAD = re.compile(r"[ \t]*<link rel=\"preload\"[^>]*>\n?")


def remove_preloads(app: Sphinx, error: Exception | None) -> None:
    """Rewrite each page without its preload hints."""
    if error is not None or app.builder.format != "html":
        return
    for page in Path(app.outdir).rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        quiet = PRELOAD.sub("", html)
        if quiet != html:
            page.write_text(quiet, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, object]:
    """Register the extension with Sphinx."""
    app.add_js_file(None, body=NO_FETCH)
    app.connect("build-finished", remove_preloads)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
