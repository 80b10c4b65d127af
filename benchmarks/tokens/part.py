"""A part of `weft bench tokens`: what one file of it measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from weft.report.bench import Claim

__all__ = ["COLUMNS", "Part", "Row"]

Row = tuple[str, str, str, str]
"""Part, what was measured, by whom, and what came out."""
COLUMNS = ("part", "what", "by", "result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Claims, rows of the table that all parts share, and further facts."""

    claims: tuple[Claim, ...]
    rows: tuple[Row, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict[str, object])
