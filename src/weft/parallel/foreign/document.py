"""The file of a foreign plan: placements by module path, input or node, as JSON.

    {
      "weft_placements": 1,
      "mesh": [16, 4],
      "default": ["R", "R"],
      "entries": [
        {"input": "batch.*", "placements": ["S(0)", "R"]},
        {"module": "layers.*.attention.query", "parameter": "weight",
         "placements": ["S(1)", "S(0)"], "read": ["R", "S(0)"]},
        {"module": "layers.*", "placements": ["S(0)", "S(1)"]},
        {"node": 217, "placements": ["S(0)", "P"]}
      ],
      "recompute": "full",
      "pipeline": {"stages": ["layers.8"], "micro_batches": 8, "schedule": "1f1b", "chunks": 1}
    }

There is one placement for each mesh axis, outermost first, by the names of DTensor: S(d) or
Shard(d), R or Replicate(), P or Partial(). This module knows the form of the file and nothing of
programs: `weft.parallel.foreign.pins` finds what the names mean.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

from weft.core.errors import FileError, InputError
from weft.parallel.degrees import RECOMPUTED
from weft.parallel.placement import PARTIAL, REPLICATED, Mesh, Placement, Sharding

__all__ = ["Entry", "ForeignPlan", "Stages", "Target", "foreign_from_json"]

FORMAT = 1
KEY = "weft_placements"


class Target(Enum):
    """What an entry places."""

    PARAMETER = "parameter"
    OUTPUT = "output"
    """What a module makes."""
    INPUT = "input"
    NODE = "node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Placements of what a pattern names.

    Attributes:
        number: position in the file, from 1, for errors.
        target: what is placed.
        pattern: of dotted names; `*` stands for one part and `**` for any number of parts.
        node: number of a node, for entries of nodes.
        placements: how parameters are stored, or values made.
        read: how the forward and the backward pass read parameters; where it says R, what is
            stored in parts is gathered.
        state: how the optimizer state of parameters is stored, and where the update computes.
        keep: what is gathered stays for all of the step.
    """

    number: int
    target: Target
    pattern: str
    node: int
    placements: Sharding
    read: Sharding
    state: Sharding
    keep: bool

    @property
    def where(self) -> str:
        """The entry, for errors."""
        what = f"%{self.node}" if self.target is Target.NODE else repr(self.pattern)
        return f"entry {self.number} ({self.target.value} {what})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """Stages of a pipeline: module paths at which all but the first one begin."""

    starts: tuple[str, ...]
    micro_batches: int
    schedule: str
    chunks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignPlan:
    """A foreign plan as it stands in its file.

    Attributes:
        mesh: the devices, of one group if there is a pipeline.
        default: placements of parameters that no entry names.
        entries: later ones override earlier ones.
        recompute: what runs again in the backward pass, as in `weft.parallel.degrees`.
        pipeline: its stages, if there are any.
    """

    mesh: Mesh
    default: Sharding
    entries: tuple[Entry, ...]
    recompute: str
    pipeline: Stages | None


def foreign_from_json(text: str) -> ForeignPlan:
    """Read a foreign plan.

    Raises:
        FileError: it is no such file, or one of a newer format.
        InputError: an entry is malformed; names it.

    Example:
        >>> plan = foreign_from_json('{"weft_placements": 1, "mesh": [8], "entries": []}')
        >>> plan.mesh.num_devices, plan.default
        (8, (-1,))
    """
    try:
        raw: object = json.loads(text)
    except ValueError as error:
        raise FileError(need="placements as JSON", got=str(error), hint=_SEE) from error
    if not isinstance(raw, dict) or KEY not in raw:
        raise FileError(need=f'an object with "{KEY}": {FORMAT}', got=f"{text[:60]!r}", hint=_SEE)
    fields = cast("dict[str, Any]", raw)
    if fields[KEY] != FORMAT:
        raise FileError(need=f"format {FORMAT}", got=f"format {fields[KEY]!r}", hint=_SEE)
    _only(fields, (KEY, "mesh", "default", "entries", "recompute", "pipeline"), "the file")
    mesh = Mesh(_counts(fields.get("mesh"), "mesh"))
    default = _sharding(fields.get("default"), mesh, "default", partial=False)
    if any(place == PARTIAL for place in default):
        raise _malformed("default", "S(d) and R", fields["default"])
    recompute = fields.get("recompute", "")
    if recompute not in RECOMPUTED:
        raise _malformed("recompute", f"one of {', '.join(RECOMPUTED[1:])}", recompute)
    entries = fields.get("entries", [])
    if not isinstance(entries, list):
        raise _malformed("entries", "a list", entries)
    return ForeignPlan(
        mesh=mesh,
        default=default,
        entries=tuple(
            _entry(number, entry, mesh)
            for number, entry in enumerate(cast("list[object]", entries), start=1)
        ),
        recompute=recompute,
        pipeline=_stages(fields["pipeline"]) if "pipeline" in fields else None,
    )


_SEE = "the format is described in the guide to foreign plans, docs/guides/foreign_plans.md"


def _entry(number: int, raw: object, mesh: Mesh) -> Entry:
    where = f"entry {number}"
    if not isinstance(raw, dict):
        raise _malformed(where, "an object", raw)
    fields = cast("dict[str, Any]", raw)
    named = [key for key in ("module", "input", "node") if key in fields]
    if len(named) != 1:
        raise _malformed(where, "one of module, input and node", list(fields))
    target, pattern, node = Target(named[0]) if named[0] != "module" else Target.OUTPUT, "", -1
    allowed = [named[0], "placements"]
    if target is Target.NODE:
        node = fields["node"]
        if not isinstance(node, int) or node < 0:
            raise _malformed(where, "the number of a node", node)
    else:
        pattern = _text(fields[named[0]], where)
    if named[0] == "module" and "parameter" in fields:
        target = Target.PARAMETER
        name = _text(fields["parameter"], where)
        pattern = f"{pattern}.{name}" if pattern else name
        allowed += ["parameter", "read", "state", "keep"]
    _only(fields, allowed, where)
    if "placements" not in fields:
        raise _malformed(where, "placements", list(fields))
    partial = target in (Target.OUTPUT, Target.NODE)
    placements = _sharding(fields["placements"], mesh, where, partial=partial)
    keep = fields.get("keep", False)
    if not isinstance(keep, bool):
        raise _malformed(f"{where}, keep", "true or false", keep)
    entry = Entry(
        number=number,
        target=target,
        pattern=pattern,
        node=node,
        placements=placements,
        read=_sharding(fields.get("read", fields["placements"]), mesh, where, partial=partial),
        state=_sharding(fields.get("state", fields["placements"]), mesh, where, partial=partial),
        keep=keep,
    )
    pairs = zip(entry.read, placements, strict=True)
    if not all(read in (REPLICATED, stored) for read, stored in pairs):
        raise _malformed(entry.where, "read as stored, or R, on each axis", fields["read"])
    return entry


def _stages(raw: object) -> Stages:
    if not isinstance(raw, dict):
        raise _malformed("pipeline", "an object", raw)
    fields = cast("dict[str, Any]", raw)
    _only(fields, ("stages", "micro_batches", "schedule", "chunks"), "pipeline")
    starts = _items(fields.get("stages"))
    if not starts:
        raise _malformed("pipeline, stages", "module paths", fields.get("stages"))
    return Stages(
        starts=tuple(_text(path, "pipeline, stages") for path in starts),
        micro_batches=_counts([fields.get("micro_batches")], "pipeline, micro_batches")[0],
        schedule=_text(fields.get("schedule", "1f1b"), "pipeline, schedule"),
        chunks=_counts([fields.get("chunks", 1)], "pipeline, chunks")[0],
    )


_SHARD = re.compile(r"(?:S|Shard)\((?:dim=)?(\d+)\)|S(\d+)")
_PLAIN: Mapping[str, Placement] = {
    "R": REPLICATED,
    "Replicate()": REPLICATED,
    "P": PARTIAL,
    "Partial()": PARTIAL,
    "Partial(sum)": PARTIAL,
}


def _sharding(raw: object, mesh: Mesh, where: str, *, partial: bool) -> Sharding:
    """One placement for each axis; all replicated where there is none."""
    if raw is None:
        return (REPLICATED,) * mesh.num_axes
    places = tuple(map(_placement, _items(raw)))
    if len(places) != mesh.num_axes or None in places or (PARTIAL in places and not partial):
        names = "S(d), R and P" if partial else "S(d) and R"
        raise _malformed(where, f"one of {names} for each of {mesh.num_axes} mesh axes", raw)
    return tuple(place for place in places if place is not None)


def _placement(word: object) -> Placement | None:
    if not isinstance(word, str):
        return None
    found = _SHARD.fullmatch(word)
    return int(found[1] or found[2]) if found else _PLAIN.get(word)


def _counts(raw: object, where: str) -> tuple[int, ...]:
    numbers = _items(raw)
    found = tuple(n for n in numbers if isinstance(n, int) and not isinstance(n, bool) and n > 0)
    if not found or len(found) != len(numbers):
        raise _malformed(where, "positive whole numbers", raw)
    return found


def _items(raw: object) -> list[object]:
    """The items of a list; none of anything else."""
    return cast("list[object]", raw) if isinstance(raw, list) else []


def _text(raw: object, where: str) -> str:
    if not isinstance(raw, str):
        raise _malformed(where, "a name", raw)
    return raw


def _only(fields: Mapping[str, object], allowed: Sequence[str], where: str) -> None:
    unknown = [key for key in fields if key not in allowed]
    if unknown:
        raise _malformed(where, f"no keys but {', '.join(allowed)}", unknown)


def _malformed(where: str, need: str, got: object) -> InputError:
    return InputError(need=f"{where}: {need}", got=json.dumps(got), hint=_SEE)
