"""From what providers, gateways and traces write down to calls with usage by class."""

from __future__ import annotations

from weft.tokens.adapters.formats import FORMATS, detect, read_call, read_calls, read_usage
from weft.tokens.adapters.own import call_plain
from weft.tokens.adapters.shapes import SHAPES

__all__ = [
    "FORMATS",
    "SHAPES",
    "call_plain",
    "detect",
    "read_call",
    "read_calls",
    "read_usage",
]
