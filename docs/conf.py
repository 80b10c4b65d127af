"""How the pages are built. Needs no network: there are no links to other projects' inventories."""

import re
from pathlib import Path

_ROOT = (Path(__file__).parents[1] / "src" / "weft" / "__init__.py").read_text()

project = "weft"
author = "the weft developers"
copyright = "2026, the weft developers"
release = re.findall(r'^__version__ = "(.+)"', _ROOT, re.MULTILINE)[0]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
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
