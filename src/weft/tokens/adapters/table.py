"""Rows of a table, of which the caller says what each column is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from weft.core.errors import InputError
from weft.tokens.adapters.envelope import Plain, about, content_id, seconds, tier_name
from weft.tokens.adapters.providers import provider_name, provider_of_model
from weft.tokens.adapters.shapes import SHAPES
from weft.tokens.adapters.solve import read_numbers
from weft.tokens.call import Call

__all__ = ["COLUMNS", "Columns", "parse_columns"]

_COUNTS = ("input", "cached", "output", "reasoning")
_NAMES = ("id", "model", "provider", "payer", "agent", "task", "session", "parent", "tier", "arm")
COLUMNS = ("at", *_COUNTS, *_NAMES, "seconds", "passed")
"""What a column can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which column is what.

    Attributes:
        names: column by what it is.
        fixed: what is the same in every row, as "model=gpt-4" says of the model.
    """

    names: Mapping[str, str]
    fixed: Mapping[str, str]

    def calls(self, row: Plain, at: float | None) -> Iterator[Call]:
        """The call that a row is about; `row` has "#", its number, beside its columns.

        Raises:
            InputError: a column is missing or holds something else.
        """
        self.check(row, f"row {row.get('#')}")
        if None in row or None in row.values():
            raise InputError(
                need="as many values as there are columns", got=f"row {row.get('#')} of others"
            )
        said = {**self.fixed, **{what: row[name] for what, name in self.names.items()}}
        said = {what: value for what, value in said.items() if value not in ("", None)}
        counts = {name: said[name] for name in _COUNTS if name in said}
        model = str(said.get("model", "unknown")).lower()
        if at is None and "at" not in said:
            raise InputError(
                need="a time in each row",
                got=f"row {row.get('#')} without one",
                hint="--column at=NAME names the column; --at gives one time for all rows",
            )
        yield Call(
            id=str(said.get("id") or content_id(sorted(row.items()))),
            source="table",
            at=seconds(said["at"]) if "at" in said else float(at or 0.0),
            model=model,
            provider=provider_name(str(said.get("provider", ""))) or provider_of_model(model),
            usage=read_numbers(SHAPES["plain"], counts),
            tier=tier_name(said.get("tier")),
            **about(said, said),
        )

    def check(self, there: Iterable[str], where: str) -> None:
        """See that all columns are there.

        Args:
            there: names of columns of a table; none for an empty one.
            where: it is, for errors.

        Raises:
            InputError: some are not.
        """
        found = [name for name in there if name != "#"]
        missing = sorted(set(self.names.values()) - set(found))
        if found and missing:
            raise InputError(
                need=f"rows with the columns {', '.join(self.names.values())}",
                got=f"{where}: no {', '.join(missing)}; there are {', '.join(map(str, found))}",
                hint="--column at=TIMESTAMP says which column is what",
            )


def parse_columns(words: Sequence[str]) -> Columns:
    """Columns from words such as at=TIMESTAMP, or model=:gpt-4 for what every row has.

    Raises:
        InputError: a word is something else.

    Example:
        >>> parse_columns(["at=TIMESTAMP", "cached=:0"])
        Columns(names={'at': 'TIMESTAMP'}, fixed={'cached': '0'})
    """
    names: dict[str, str] = {}
    fixed: dict[str, str] = {}
    for word in words:
        what, _, name = word.partition("=")
        if what not in COLUMNS or not name:
            raise InputError(
                need=f"WHAT=COLUMN, or WHAT=:VALUE; WHAT is one of {', '.join(COLUMNS)}",
                got=repr(word),
                hint="for example --column at=TIMESTAMP --column model=:gpt-4",
            )
        if name.startswith(":"):
            fixed[what] = name[1:]
        else:
            names[what] = name
    return Columns(names=names, fixed=fixed)
