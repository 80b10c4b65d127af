"""Names of a package that load when they are first used.

    __getattr__ = lazy(__name__, _HOME)

Knows modules and names. A package that loads its names so is imported in no time, and what it
would load is loaded only where it is asked for. The root has a loader of its own: it loads nothing
of weft at all, this module included, before interrupts are answered.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping

__all__ = ["lazy"]


def lazy(package: str, home: Mapping[str, str]) -> Callable[[str], object]:
    """What a package's `__getattr__` is to be.

    Args:
        package: its name.
        home: the module in which each of its names lives.

    Example:
        >>> find = lazy("weft.core", {"format_bytes": "weft.core.units"})
        >>> find("format_bytes")(2048)
        '2.0 KiB'
    """

    def find(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(home[name]), name)
        setattr(sys.modules[package], name, found)
        return found

    return find
