"""The book on one page (for printing): give that builder the handlers that HTML has.

sphinx-exercise registers handlers for `singlehtml` alone, and Sphinx then ignores those that other
extensions registered for `html`: without this the build of one page ends in "unknown node type".
"""

from __future__ import annotations

from sphinx.application import Sphinx


def merge_handlers(app: Sphinx) -> None:
    """Add the handlers for `html` that `singlehtml` does not have."""
    handlers = app.registry.translation_handlers
    handlers["singlehtml"] = {**handlers.get("html", {}), **handlers.get("singlehtml", {})}


def setup(app: Sphinx) -> dict[str, object]:
    """Register the extension with Sphinx."""
    app.connect("builder-inited", merge_handlers)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
