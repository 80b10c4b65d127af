"""How the pages are built. Needs no network: there are no links to other projects' inventories."""

import re
from pathlib import Path

from sphinx.application import Sphinx

_ROOT = (Path(__file__).parents[1] / "src" / "weft" / "__init__.py").read_text()

project = "weft"
author = "the weft developers"
copyright = "2026, the weft developers"
release = re.findall(r'^__version__ = "(.+)"', _ROOT, re.MULTILINE)[0]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"weft {release}"
html_static_path: list[str] = []

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Source", "params_style"), "Example"]

default_role = "literal"  # single backticks in docstrings are code

_SECTIONS = ("Args:", "Attributes:", "Example:", "Raises:", "Returns:", "Source:", "Yields:")


def indented_blocks_are_literal(
    _app: Sphinx, _what: str, _name: str, _object: object, _options: object, lines: list[str]
) -> None:
    """Drawings, tables and formulas stand indented in docstrings; show them as they stand."""
    result: list[str] = []
    for number, line in enumerate(lines):
        starts = line.startswith("    ") and number > 0 and not lines[number - 1].strip()
        above = next((text for text in reversed(result) if text.strip()), "")
        if starts and above[:1].strip() and above not in _SECTIONS and not above.endswith("::"):
            result += ["::", ""]
        result.append(line)
    lines[:] = result


def setup(app: Sphinx) -> None:
    """Run before napoleon, which rewrites the sections."""
    app.connect("autodoc-process-docstring", indented_blocks_are_literal, priority=100)
