"""Plans as files: versioned JSON, small because equal strategies are written once."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, cast

from weft.core.digest import canonical_json, digest
from weft.core.errors import FileError, InputError
from weft.parallel.placement import Mesh, Sharding, format_sharding, parse_sharding
from weft.parallel.plan import Alternative, Copy, Hop, Level, ParallelPlan, Prediction, Strategy
from weft.program.graph import Phase, Value

__all__ = [
    "load_plan",
    "plan_digest",
    "plan_from_json",
    "plan_to_json",
    "save_plan",
    "write_whole",
]

VERSION = 1
"""Version of the file format; a file of a newer version is refused."""

T = TypeVar("T")


def save_plan(plan: ParallelPlan, path: str | Path) -> None:
    """Write a plan; the file appears whole or not at all.

    Raises:
        FileError: the file cannot be written.
    """
    write_whole(Path(path), plan_to_json(plan) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a plan's file so that it appears whole or not at all.

    Raises:
        FileError: the file cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text)
        partial.replace(path)
    except OSError as error:
        raise FileError(
            need="a file to write the plan to",
            got=f"{path}: {error.strerror}",
            hint="choose a folder that exists and may be written to",
        ) from error


def load_plan(path: str | Path) -> ParallelPlan:
    """Read a plan.

    Raises:
        FileError: the file is missing, is no plan, is damaged, or comes from a newer weft.
    """
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(
            need="a plan file", got=f"{path}: {error}", hint="make one with `weft plan`"
        ) from error
    try:
        return plan_from_json(text)
    except FileError as error:
        raise error.within(str(path)) from error.__cause__


def plan_digest(plan: ParallelPlan) -> str:
    """Content digest of what the plan decides: mesh, strategies, copies, recomputation."""
    raw = _to_plain(plan)
    decided = ("program_digest", "mesh", "strategies", "choice", "copies", "recompute")
    return digest({key: raw[key] for key in decided})


def plan_to_json(plan: ParallelPlan) -> str:
    """Text of a plan file, with a checksum of its content."""
    raw = _to_plain(plan)
    return canonical_json({"weft_plan": VERSION, "checksum": digest(raw), "plan": raw})


def plan_from_json(text: str) -> ParallelPlan:
    """Inverse of `plan_to_json`.

    Raises:
        FileError: the text is no plan, is damaged, or comes from a newer weft.
    """
    try:
        outer = json.loads(text)
        version = outer["weft_plan"]
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(
            need="a weft plan in JSON",
            got=f"{text[:60]!r}",
            hint="the file is damaged or something else; make a plan with `weft plan`",
        ) from error
    if version != VERSION:
        raise FileError(
            need=f"a plan of format {VERSION}",
            got=f"format {version}",
            hint="use the version of weft that wrote it, or plan again",
        )
    raw = cast("dict[str, Any]", outer.get("plan"))
    if outer.get("checksum") != digest(raw):
        raise FileError(
            need="a plan whose content has the checksum it was written with",
            got=f"checksum {outer.get('checksum')}",
            hint="the file is damaged or was edited; plan again",
        )
    try:
        return _from_plain(raw)
    except (KeyError, TypeError, ValueError, IndexError, InputError) as error:
        raise FileError(
            need="the fields of a plan", got=f"{type(error).__name__}: {error}", hint="plan again"
        ) from error


def _to_plain(plan: ParallelPlan) -> dict[str, Any]:
    strategies, choice = _interned(
        [[format_sharding(s) for s in x.outputs], [format_sharding(s) for s in x.operands]]
        for x in plan.strategies
    )
    return {
        "program": [plan.program_name, plan.program_digest],
        "program_digest": plan.program_digest,
        "machine": [plan.machine_name, plan.machine_digest],
        "mesh": list(plan.mesh.shape),
        "strategies": strategies,
        "choice": choice,
        "copies": [_copy_to_plain(copy) for copy in plan.copies],
        "recompute": list(plan.recompute),
        "memory_limit_bytes": plan.memory_limit_bytes,
        "prediction": asdict(plan.prediction),
        "alternatives": [asdict(a) for a in plan.alternatives],
        "planner": plan.planner,
        "level": plan.level.value,
        "search_s": plan.search_s,
        "notes": list(plan.notes),
    }


def _from_plain(raw: dict[str, Any]) -> ParallelPlan:
    table: list[Strategy] = [
        Strategy(
            outputs=tuple(parse_sharding(s) for s in outputs),
            operands=tuple(parse_sharding(s) for s in operands),
        )
        for outputs, operands in raw["strategies"]
    ]
    return ParallelPlan(
        program_name=raw["program"][0],
        program_digest=raw["program"][1],
        machine_name=raw["machine"][0],
        machine_digest=raw["machine"][1],
        mesh=Mesh(tuple(raw["mesh"])),
        strategies=tuple(table[int(n)] for n in raw["choice"]),
        copies=tuple(_copy_from_plain(copy) for copy in raw["copies"]),
        recompute=tuple(raw["recompute"]),
        memory_limit_bytes=raw["memory_limit_bytes"],
        prediction=Prediction(**raw["prediction"]),
        alternatives=tuple(Alternative(**a) for a in raw["alternatives"]),
        planner=raw["planner"],
        level=Level(raw["level"]),
        search_s=raw["search_s"],
        notes=tuple(raw["notes"]),
    )


def _copy_to_plain(copy: Copy) -> list[Any]:
    return [
        [copy.value.node, copy.value.output],
        copy.phase.value,
        format_sharding(copy.origin),
        [[hop.axis, format_sharding((hop.placement,))] for hop in copy.hops],
        int(copy.kept),
    ]


def _copy_from_plain(raw: list[Any]) -> Copy:
    value, phase, origin, hops, kept = raw
    start: Sharding = parse_sharding(origin)
    path = tuple(Hop(axis, parse_sharding(placement)[0]) for axis, placement in hops)
    target = start
    for hop in path:
        target = (*target[: hop.axis], hop.placement, *target[hop.axis + 1 :])
    return Copy(Value(*value), Phase(phase), start, target, path, bool(kept))


def _interned(items: Iterable[T]) -> tuple[list[T], list[int]]:
    """Distinct items in order of appearance, and for each item its number."""
    numbers: dict[str, int] = {}
    distinct: list[T] = []
    choice: list[int] = []
    for item in items:
        key = canonical_json(item)
        if key not in numbers:
            numbers[key] = len(distinct)
            distinct.append(item)
        choice.append(numbers[key])
    return distinct, choice
