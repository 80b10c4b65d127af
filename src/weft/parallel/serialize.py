"""Plans as files: versioned JSON, small because equal strategies are written once.

A file is read strictly: beyond its checksum, which only tells damage, every field has to be there
and to be of its type and range, and no other may. What a plan means for its program is the
business of `weft.parallel.validate`.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Protocol, TypedDict, TypeVar, cast

from weft.core import files
from weft.core.digest import canonical_json, digest
from weft.core.errors import FileError, InputError
from weft.parallel.placement import Mesh, Sharding, format_sharding, parse_sharding
from weft.parallel.plan import Alternative, Copy, Hop, Level, ParallelPlan, Prediction, Strategy
from weft.program.graph import Phase, Value

__all__ = [
    "content_of",
    "load_plan",
    "plan_digest",
    "plan_from_json",
    "plan_from_plain",
    "plan_to_json",
    "plan_to_plain",
    "save_plan",
    "search_from_plain",
    "search_to_plain",
]

VERSION = 1
"""Version of the file format; a file of a newer version is refused."""

T = TypeVar("T")


def save_plan(plan: ParallelPlan, path: str | Path) -> None:
    """Write a plan; the file appears whole or not at all.

    Raises:
        FileError: the file cannot be written.
    """
    files.write_whole(path, plan_to_json(plan) + "\n", "a plan")


def load_plan(path: str | Path) -> ParallelPlan:
    """Read a plan.

    Raises:
        FileError: the file is missing, is no plan, is damaged, or comes from a newer weft.
    """
    return files.read_as(path, plan_from_json, "a plan file", "make one with `weft plan`")


class Searched(Protocol):
    """A plan of either kind, as far as it says how it was found."""

    @property
    def alternatives(self) -> tuple[Alternative, ...]: ...
    @property
    def planner(self) -> str: ...
    @property
    def level(self) -> Level: ...
    @property
    def search_s(self) -> float: ...
    @property
    def notes(self) -> tuple[str, ...]: ...


class Search(TypedDict):
    """How a plan was found."""

    alternatives: tuple[Alternative, ...]
    planner: str
    level: Level
    search_s: float
    notes: tuple[str, ...]


def search_to_plain(plan: Searched) -> dict[str, object]:
    """How a plan was found, as JSON values."""
    return {
        "alternatives": [asdict(a) for a in plan.alternatives],
        "planner": plan.planner,
        "level": plan.level.value,
        "search_s": plan.search_s,
        "notes": list(plan.notes),
    }


def search_from_plain(raw: Mapping[str, object]) -> Search:
    """Inverse of `search_to_plain`.

    Raises:
        FileError: a field is missing or of another kind.
    """
    return {
        "alternatives": _list_of(_alternative)(raw["alternatives"], "alternatives"),
        "planner": _text(raw["planner"], "planner"),
        "level": _level(raw["level"], "level"),
        "search_s": _amount(raw["search_s"], "search_s"),
        "notes": _list_of(_text)(raw["notes"], "notes"),
    }


def plan_digest(plan: ParallelPlan) -> str:
    """Content digest of what the plan decides: mesh, strategies, copies, recomputation."""
    raw = plan_to_plain(plan)
    decided = ("program_digest", "mesh", "strategies", "choice", "copies", "recompute")
    return digest({key: raw[key] for key in decided})


def plan_to_json(plan: ParallelPlan) -> str:
    """Text of a plan file, with a checksum of its content."""
    raw = plan_to_plain(plan)
    return canonical_json({"weft_plan": VERSION, "checksum": digest(raw), "plan": raw})


def plan_from_json(text: str) -> ParallelPlan:
    """Inverse of `plan_to_json`.

    Raises:
        FileError: the text is no plan, is damaged, or comes from a newer weft.
    """
    return plan_from_plain(content_of(text, "weft_plan", VERSION))


def content_of(text: str, key: str, version: int) -> object:
    """What a plan file of either kind holds, its format and checksum checked.

    Args:
        text: of the file.
        key: its entry that gives the version of the format.
        version: of the format that can be read.

    Raises:
        FileError: the text is no such file, is damaged, or comes from a newer weft.
    """
    outer = _outer(text, key)
    found = outer[key]
    if found != version or type(found) is not int:
        raise FileError(
            need=f"a plan of format {version}",
            got=f"format {_cut(found)}",
            hint="use the version of weft that wrote it, or plan again",
        )
    raw = cast("object", outer.get("plan"))
    try:
        intact = outer.get("checksum") == digest(raw)
    except (InputError, RecursionError) as error:
        raise _bad("plan", "plain JSON with finite numbers", type(error).__name__) from error
    if not intact:
        raise FileError(
            need="a plan whose content has the checksum it was written with",
            got=f"checksum {_cut(outer.get('checksum'))}",
            hint="the file is damaged or was edited; plan again",
        )
    return raw


def _outer(text: str, key: str) -> dict[str, Any]:
    try:
        outer = json.loads(text)
    except (ValueError, RecursionError):
        outer = None
    if not isinstance(outer, dict) or key not in outer:
        raise FileError(
            need="a weft plan in JSON",
            got=f"{text[:60]!r}",
            hint="the file is damaged or something else; make a plan with `weft plan`",
        )
    return cast("dict[str, Any]", outer)


def plan_to_plain(plan: ParallelPlan) -> dict[str, Any]:
    """The plan as JSON values."""
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
        **search_to_plain(plan),
    }


def plan_from_plain(raw: object) -> ParallelPlan:
    """Inverse of `plan_to_plain`.

    Raises:
        FileError: something is missing, unknown, or of another type or range.
    """
    plan = _record(raw, "plan", _FIELDS)
    mesh = _mesh(plan["mesh"])
    program, machine = (_pair(plan[key], key) for key in ("program", "machine"))
    if plan["program_digest"] != program[1]:
        raise _bad("program_digest", f"{program[1]}, as in program", plan["program_digest"])
    table = _list_of(_strategy(mesh))(plan["strategies"], "strategies")
    strategies = _chosen(table, plan["choice"])
    return ParallelPlan(
        program_name=program[0],
        program_digest=program[1],
        machine_name=machine[0],
        machine_digest=machine[1],
        mesh=mesh,
        strategies=strategies,
        copies=_list_of(_copy(mesh, strategies))(plan["copies"], "copies"),
        recompute=_recompute(plan["recompute"], len(strategies)),
        memory_limit_bytes=_amount(plan["memory_limit_bytes"], "memory_limit_bytes"),
        prediction=_prediction(plan["prediction"], "prediction"),
        **search_from_plain(plan),
    )


_FIELDS = frozenset(
    {"program", "program_digest", "machine", "mesh", "strategies", "choice", "copies"}
    | {"recompute", "memory_limit_bytes", "prediction", "alternatives", "planner", "level"}
    | {"search_s", "notes"}
)
_WORD = re.compile("R|P|Pmax|S(0|[1-9][0-9]{0,2})", re.ASCII)


def _cut(value: object) -> str:
    text = reprlib.repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def _bad(key: str, need: str, got: object) -> FileError:
    return FileError(
        need=f"{key}: {need}",
        got=_cut(got),
        hint="the file was not written by weft, or was edited; plan again",
    )


def _record(raw: object, key: str, names: Iterable[str]) -> dict[str, object]:
    """A mapping with these keys and no others."""
    if not isinstance(raw, dict):
        raise _bad(key, "a mapping", raw)
    plain, known = cast("dict[str, object]", raw), set(names)
    missing, unknown = sorted(known - plain.keys()), sorted(plain.keys() - known)
    if missing or unknown:
        words = f"missing: {missing[:3] or 'none'}; unknown: {unknown[:3] or 'none'}"
        raise FileError(
            need=f"{key}: the fields of a plan of format {VERSION} and no others",
            got=words if len(words) < 200 else words[:197] + "...",
            hint="the file was not written by weft, or was edited; plan again",
        )
    return plain


def _list_of(read: Callable[[object, str], T]) -> Callable[[object, str], tuple[T, ...]]:
    def read_list(raw: object, key: str) -> tuple[T, ...]:
        if not isinstance(raw, list):
            raise _bad(key, "a list", raw)
        items = cast("list[object]", raw)
        return tuple(read(item, f"{key}[{i}]") for i, item in enumerate(items))

    return read_list


def _fixed(raw: object, key: str, size: int) -> tuple[object, ...]:
    items = _list_of(lambda item, _: item)(raw, key)
    if len(items) != size:
        raise _bad(key, f"a list of {size}", items)
    return items


def _text(raw: object, key: str) -> str:
    if not isinstance(raw, str):
        raise _bad(key, "a text", raw)
    return raw


def _mesh(raw: object) -> Mesh:
    shape = _list_of(_count(1))(raw, "mesh")
    if not shape:
        raise _bad("mesh", "at least one axis", raw)
    return Mesh(shape)


def _pair(raw: object, key: str) -> tuple[str, str]:
    name, its_digest = _fixed(raw, key, 2)
    return _text(name, f"{key}[0]"), _text(its_digest, f"{key}[1]")


def _count(least: int, below: float = math.inf) -> Callable[[object, str], int]:
    """Reader of a whole number from `least` to less than `below`."""

    def read_count(raw: object, key: str) -> int:
        if type(raw) is not int or not least <= raw < below:
            end = f", below {below}" if below < math.inf else ""
            raise _bad(key, f"a whole number of at least {least}{end}", raw)
        return raw

    return read_count


def _number(raw: object, key: str) -> float:
    # An integer stays one, so that the plan is written back as it was.
    if type(raw) in (int, float):
        number = cast("float", raw)
        if abs(number) < math.inf and abs(number) <= _LARGEST:
            return number
    raise _bad(key, "a finite number", raw)


_LARGEST = sys.float_info.max


def _amount(raw: object, key: str) -> float:
    number = _number(raw, key)
    if number < 0:
        raise _bad(key, "a number of at least 0", raw)
    return number


def _level(raw: object, key: str) -> Level:
    names = {level.value: level for level in Level}
    level = names.get(raw) if isinstance(raw, str) else None
    if level is None:
        raise _bad(key, f"one of {', '.join(names)}", raw)
    return level


def _prediction(raw: object, key: str) -> Prediction:
    plain = _record(raw, key, (f.name for f in fields(Prediction)))
    # Of the solver's two figures the bound can lie a rounding error below 0.
    loose = ("objective_s", "bound_s")
    figures = {
        name: (_number if name in loose else _amount)(item, f"{key}.{name}")
        for name, item in plain.items()
    }
    if figures["step_s"] <= 0:
        raise _bad(f"{key}.step_s", "a time above 0", figures["step_s"])
    return Prediction(**figures)


def _alternative(raw: object, key: str) -> Alternative:
    plain = _record(raw, key, (f.name for f in fields(Alternative)))
    if not isinstance(plain["fits"], bool):
        raise _bad(f"{key}.fits", "true or false", plain["fits"])
    return Alternative(
        name=_text(plain["name"], f"{key}.name"),
        step_s=_amount(plain["step_s"], f"{key}.step_s"),
        peak_bytes=_amount(plain["peak_bytes"], f"{key}.peak_bytes"),
        fits=plain["fits"],
        note=_text(plain["note"], f"{key}.note"),
    )


def _sharding(num_axes: int) -> Callable[[object, str], Sharding]:
    def read_sharding(raw: object, key: str) -> Sharding:
        words = raw.split(",") if isinstance(raw, str) else []
        if len(words) != num_axes or not all(_WORD.fullmatch(word) for word in words):
            raise _bad(key, f"{num_axes} of R, P, Pmax, S0, S1, ... between commas", raw)
        return parse_sharding(",".join(words))

    return read_sharding


def _strategy(mesh: Mesh) -> Callable[[object, str], Strategy]:
    shardings = _list_of(_sharding(mesh.num_axes))

    def read_strategy(raw: object, key: str) -> Strategy:
        outputs, operands = _fixed(raw, key, 2)
        made = shardings(outputs, f"{key}[0]")
        if not made:
            raise _bad(f"{key}[0]", "at least one output", made)
        return Strategy(outputs=made, operands=shardings(operands, f"{key}[1]"))

    return read_strategy


def _chosen(table: tuple[Strategy, ...], raw: object) -> tuple[Strategy, ...]:
    """Strategy of each node; the table lists them in order of appearance, each once."""
    choice = _list_of(_count(0, len(table)))(raw, "choice")
    if tuple(dict.fromkeys(choice)) != tuple(range(len(table))):
        raise _bad(
            "choice", f"all of 0 to {len(table) - 1}, each first after those below it", choice
        )
    return tuple(table[n] for n in choice)


def _recompute(raw: object, num_strategies: int) -> tuple[int, ...]:
    nodes = _list_of(_count(0))(raw, "recompute")
    if len(set(nodes)) != len(nodes):
        raise _bad("recompute", "each node once", nodes)
    # A clone can take the place of its node, so the program may have that many nodes more.
    end = num_strategies + len(nodes)
    if max(nodes, default=0) >= end:
        raise _bad("recompute", f"nodes below {end}", nodes)
    return nodes


def _copy_to_plain(copy: Copy) -> list[Any]:
    return [
        [copy.value.node, copy.value.output],
        copy.phase.value,
        format_sharding(copy.origin),
        [[hop.axis, format_sharding((hop.placement,))] for hop in copy.hops],
        int(copy.kept),
    ]


def _copy(mesh: Mesh, strategies: tuple[Strategy, ...]) -> Callable[[object, str], Copy]:
    phases = {phase.value: phase for phase in Phase}
    axis_of, word_of = _count(0, mesh.num_axes), _sharding(1)

    def read_hop(raw: object, key: str) -> Hop:
        axis, placement = _fixed(raw, key, 2)
        return Hop(axis_of(axis, f"{key}[0]"), word_of(placement, f"{key}[1]")[0])

    def read_copy(raw: object, key: str) -> Copy:
        value, phase, origin, hops, kept = _fixed(raw, key, 5)
        at = _fixed(value, f"{key}[0]", 2)
        node = _count(0, len(strategies))(at[0], f"{key}[0][0]")
        output = _count(0, len(strategies[node].outputs))(at[1], f"{key}[0][1]")
        if not isinstance(phase, str) or phase not in phases:
            raise _bad(f"{key}[1]", f"one of {', '.join(phases)}", phase)
        start = _sharding(mesh.num_axes)(origin, f"{key}[2]")
        path = _list_of(read_hop)(hops, f"{key}[3]")
        target = start
        for hop in path:
            target = (*target[: hop.axis], hop.placement, *target[hop.axis + 1 :])
        kept = _count(0, 2)(kept, f"{key}[4]")
        return Copy(Value(node, output), phases[phase], start, target, path, bool(kept))

    return read_copy


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
