"""The built book loads nothing from elsewhere: MathJax is copied beside it from its PyPI package.

`sphinx-mathjax-offline` carries all of MathJax 3 (24 MB). Only what a page with TeX can ask for is
copied: one script, the web fonts, and what the accessibility menu loads when a reader turns it on.
"""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

SCRIPT = "tex-chtml-full.js"
PARTS = (SCRIPT, "output/chtml/fonts/woff-v2", "a11y", "sre")


def mathjax_source() -> Path:
    """The folder of MathJax inside the installed package.

    Raises:
        ExtensionError: when the package is not installed.
    """
    # The package's name has hyphens, so it is found by name and never imported.
    spec = find_spec("sphinx-mathjax-offline")
    if spec is None or not spec.submodule_search_locations:
        raise ExtensionError(
            "sphinx-mathjax-offline is not installed: pip install -r requirements.txt"
        )
    return Path(next(iter(spec.submodule_search_locations))) / "static" / "mathjax"


def copy_mathjax(app: Sphinx, error: Exception | None) -> None:
    """Copy MathJax into the built book once the pages are written."""
    if error is not None or app.builder.format != "html":
        return
    source, target = mathjax_source(), Path(app.outdir) / "_static" / "mathjax"
    for part in PARTS:
        if (source / part).is_dir():
            shutil.copytree(source / part, target / part, dirs_exist_ok=True)
        else:
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / part, target / part)


def setup(app: Sphinx) -> dict[str, object]:
    """Register the extension with Sphinx."""
    app.config.mathjax_path = f"mathjax/{SCRIPT}"
    app.connect("build-finished", copy_mathjax)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
