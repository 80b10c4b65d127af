"""How good a ledger is: what is unknown in it, what was met twice, what could not be read."""

from __future__ import annotations

from dataclasses import dataclass

from weft.tokens.classes import INPUT, OUTPUT, TokenClass
from weft.tokens.ledger.ledger import Bad, Ledger

__all__ = ["Quality", "Skew", "quality"]

_SHOWN = 20
"""Examples of each kind that a report shows. Chosen."""
_APART_S = 0.001
"""Clocks of one machine are read in milliseconds by many; less is no skew. Chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skew:
    """A call whose times cannot be: where it is from, which it is, and what is wrong."""

    source: str
    id: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What to know before figures of a ledger are believed.

    Attributes:
        calls: in all.
        inexact: calls of which it is not known how much was read or generated.
        unbounded: those of them where nothing limits it.
        unsplit_input: calls of which that is known, but not how much was from caches, or audio.
        unsplit_output: calls whose reasoning is not told apart from answers.
        records: that were read from files.
        duplicates: calls that were met again, and not counted.
        ignored: records about something else than a call.
        quarantined: records that could not be read.
        bad: examples of them.
        skewed: calls whose times cannot be.
        skews: examples of them.
        without: calls that do not say what belongs to them, by its name: task, agent, payer.
    """

    calls: int
    inexact: int
    unbounded: int
    unsplit_input: int
    unsplit_output: int
    records: int
    duplicates: int
    ignored: int
    quarantined: int
    bad: tuple[Bad, ...]
    skewed: int
    skews: tuple[Skew, ...]
    without: dict[str, int]


_EARLY = (
    "SELECT c.source, c.id, printf('began %.3f s before the call that led to it', p.at - c.at)"
    " FROM calls c JOIN calls p ON p.source = c.source AND p.id = c.parent"
    f" WHERE c.parent <> '' AND c.skew = '' AND c.at < p.at - {_APART_S}"
)
_NOTED = "SELECT source, id, skew FROM calls WHERE skew <> ''"


def quality(ledger: Ledger) -> Quality:
    """Look at all of a ledger."""
    one = ledger.connection.execute
    names = ("task", "agent", "payer")
    missing = ", ".join(f"SUM({name} = '')" for name in names)
    calls, *counts = one(
        "SELECT COUNT(*), SUM(input_more IS NOT 0 OR output_more IS NOT 0),"
        " SUM(input_more IS NULL OR output_more IS NULL),"
        f" SUM(input_more IS 0 AND ({_loose(INPUT)})),"
        f" SUM(output_more IS 0 AND ({_loose(OUTPUT)})), {missing} FROM calls"
    ).fetchone()
    inexact, unbounded, unsplit_input, unsplit_output, *without = (own or 0 for own in counts)
    files = ledger.files()
    (quarantined,) = one("SELECT COUNT(*) FROM quarantine").fetchone()
    every = f"{_NOTED} UNION ALL {_EARLY}"
    (skewed,) = one(f"SELECT COUNT(*) FROM ({every})").fetchone()
    examples = one(f"SELECT * FROM ({every}) LIMIT {_SHOWN}")
    return Quality(
        calls=calls,
        inexact=inexact,
        unbounded=unbounded,
        unsplit_input=unsplit_input,
        unsplit_output=unsplit_output,
        records=sum(file.records for file in files),
        duplicates=sum(file.duplicates for file in files),
        ignored=sum(file.ignored for file in files),
        quarantined=quarantined,
        bad=ledger.quarantine(_SHOWN),
        skewed=skewed,
        skews=tuple(Skew(source=s, id=i, what=w) for s, i, w in examples),
        without=dict(zip(names, without, strict=True)),
    )


def _loose(leaves: frozenset[TokenClass]) -> str:
    """Whether any of some classes is not known exactly, in SQL."""
    return " OR ".join(f"{leaf.value}_more IS NOT 0" for leaf in sorted(leaves))
