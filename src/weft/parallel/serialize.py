"""Plans as files: versioned JSON, small because equal strategies are written once.

A file is read strictly: beyond its checksum, which only tells damage, every field has to be there
and to be of its type and range, and no other may. What a plan means for its program is the
business of `weft.parallel.validate`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Protocol, TypedDict, TypeVar, cast

from weft.core import files
from weft.core.digest import canonical_json, digest
from weft.core.errors import FileError, InputError
from weft.parallel.placement import Mesh, Sharding, format_sharding, parse_sharding
from weft.parallel.plan import Alternative, Copy, Hop, Level, ParallelPlan, Prediction, Strategy
from weft.parallel.reading import (
    count_reader,
    list_reader,
    read_amount,
    read_fixed,
    read_number,
    read_record,
    read_text,
    shortened,
    unreadable,
)
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
        "alternatives": list_reader(_alternative)(raw["alternatives"], "alternatives"),
        "planner": read_text(raw["planner"], "planner"),
        "level": _level(raw["level"], "level"),
        "search_s": read_amount(raw["search_s"], "search_s"),
        "notes": list_reader(read_text)(raw["notes"], "notes"),
    }


def plan_digest(plan: ParallelPlan) -> str:
    """Content digest of what the plan decides: mesh, strategies, copies, recomputation."""
    raw = plan_to_plain(plan)
    decided = ("program_digest", "mesh", "homes", "strategies", "choice", "copies", "recompute")
    return digest({key: raw[key] for key in decided if key in raw})


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


def content_of(text: str, key: str, *versions: int) -> object:
    """What a plan file of either kind holds, its format and checksum checked.

    Args:
        text: of the file.
        key: its entry that gives the version of the format.
        versions: of the format that can be read.

    Raises:
        FileError: the text is no such file, is damaged, or comes from a newer weft.
    """
    outer = _outer(text, key)
    found = outer[key]
    if found not in versions or type(found) is not int:
        raise FileError(
            need=f"a plan of format {' or '.join(map(str, versions))}",
            got=f"format {shortened(found)}",
            hint="use the version of weft that wrote it, or plan again",
        )
    raw = cast("object", outer.get("plan"))
    try:
        intact = outer.get("checksum") == digest(raw)
    except (InputError, RecursionError) as error:
        raise unreadable("plan", "plain JSON with finite numbers", type(error).__name__) from error
    if not intact:
        raise FileError(
            need="a plan whose content has the checksum it was written with",
            got=f"checksum {shortened(outer.get('checksum'))}",
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
    strategies, choice = _interned(map(_strategy_to_plain, plan.strategies))
    return {
        "program": [plan.program_name, plan.program_digest],
        "program_digest": plan.program_digest,
        "machine": [plan.machine_name, plan.machine_digest],
        "mesh": _mesh_to_plain(plan.mesh),
        **({"homes": list(map(_mesh_to_plain, plan.homes))} if plan.homes else {}),
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
    several = isinstance(raw, dict) and "homes" in cast("dict[str, object]", raw)
    plan = read_record(cast("object", raw), "plan", _FIELDS | {"homes"} if several else _FIELDS)
    mesh = _mesh(plan["mesh"], "mesh")
    homes = _homes(plan["homes"]) if several else ()
    program, machine = (_pair(plan[key], key) for key in ("program", "machine"))
    if plan["program_digest"] != program[1]:
        raise unreadable("program_digest", f"{program[1]}, as in program", plan["program_digest"])
    table = list_reader(_strategy(mesh, len(homes)))(plan["strategies"], "strategies")
    strategies = _chosen(table, plan["choice"])
    try:
        return ParallelPlan(
            program_name=program[0],
            program_digest=program[1],
            machine_name=machine[0],
            machine_digest=machine[1],
            mesh=mesh,
            homes=homes,
            strategies=strategies,
            copies=list_reader(_copy(mesh, len(homes), strategies))(plan["copies"], "copies"),
            recompute=_recompute(plan["recompute"], len(strategies)),
            memory_limit_bytes=read_amount(plan["memory_limit_bytes"], "memory_limit_bytes"),
            prediction=_prediction(plan["prediction"], "prediction"),
            **search_from_plain(plan),
        )
    except InputError as error:
        raise unreadable("homes", error.need, error.got) from error


_FIELDS = frozenset(
    {"program", "program_digest", "machine", "mesh", "strategies", "choice", "copies"}
    | {"recompute", "memory_limit_bytes", "prediction", "alternatives", "planner", "level"}
    | {"search_s", "notes"}
)
_WORD = re.compile("R|P|Pmax|S(0|[1-9][0-9]{0,2})", re.ASCII)


def _mesh_to_plain(mesh: Mesh) -> object:
    """The shape, with the shares where there are any."""
    shape = list(mesh.shape)
    return shape if mesh.is_even else {"shape": shape, "shares": list(map(list, mesh.shares))}


def _mesh(raw: object, key: str) -> Mesh:
    shares: tuple[tuple[int, ...], ...] = ()
    if isinstance(raw, dict):
        plain = read_record(cast("dict[str, object]", raw), key, ("shape", "shares"))
        raw, shares = (
            plain["shape"],
            list_reader(list_reader(count_reader(0)))(plain["shares"], key),
        )
    shape = list_reader(count_reader(1))(raw, key)
    if not shape:
        raise unreadable(key, "at least one axis", raw)
    try:
        return Mesh(shape, shares)
    except InputError as error:
        raise unreadable(key, error.need, error.got) from error


def _homes(raw: object) -> tuple[Mesh, ...]:
    homes = list_reader(_mesh)(raw, "homes")
    if not homes:
        raise unreadable("homes", "at least one, or no such field", raw)
    return homes


def _pair(raw: object, key: str) -> tuple[str, str]:
    name, its_digest = read_fixed(raw, key, 2)
    return read_text(name, f"{key}[0]"), read_text(its_digest, f"{key}[1]")


def _level(raw: object, key: str) -> Level:
    names = {level.value: level for level in Level}
    level = names.get(raw) if isinstance(raw, str) else None
    if level is None:
        raise unreadable(key, f"one of {', '.join(names)}", raw)
    return level


def _prediction(raw: object, key: str) -> Prediction:
    plain = read_record(raw, key, (f.name for f in fields(Prediction)))
    # Of the solver's two figures the bound can lie a rounding error below 0.
    loose = ("objective_s", "bound_s")
    figures = {
        name: (read_number if name in loose else read_amount)(item, f"{key}.{name}")
        for name, item in plain.items()
    }
    if figures["step_s"] <= 0:
        raise unreadable(f"{key}.step_s", "a time above 0", figures["step_s"])
    return Prediction(**figures)


def _alternative(raw: object, key: str) -> Alternative:
    plain = read_record(raw, key, (f.name for f in fields(Alternative)))
    if not isinstance(plain["fits"], bool):
        raise unreadable(f"{key}.fits", "true or false", plain["fits"])
    return Alternative(
        name=read_text(plain["name"], f"{key}.name"),
        step_s=read_amount(plain["step_s"], f"{key}.step_s"),
        peak_bytes=read_amount(plain["peak_bytes"], f"{key}.peak_bytes"),
        fits=plain["fits"],
        note=read_text(plain["note"], f"{key}.note"),
    )


def _sharding(num_axes: int) -> Callable[[object, str], Sharding]:
    def read_sharding(raw: object, key: str) -> Sharding:
        words = raw.split(",") if isinstance(raw, str) else []
        if len(words) != num_axes or not all(_WORD.fullmatch(word) for word in words):
            raise unreadable(key, f"{num_axes} of R, P, Pmax, S0, S1, ... between commas", raw)
        return parse_sharding(",".join(words))

    return read_sharding


def _strategy_to_plain(strategy: Strategy) -> list[Any]:
    made = [format_sharding(s) for s in strategy.outputs]
    read = [format_sharding(s) for s in strategy.operands]
    return [made, read, *([strategy.home] if strategy.home else [])]


def _strategy(mesh: Mesh, num_homes: int) -> Callable[[object, str], Strategy]:
    shardings = list_reader(_sharding(mesh.num_axes))

    def read_strategy(raw: object, key: str) -> Strategy:
        (outputs, operands), homes = _with_homes(raw, key, 2, num_homes)
        made = shardings(outputs, f"{key}[0]")
        if not made:
            raise unreadable(f"{key}[0]", "at least one output", made)
        return Strategy(
            outputs=made, operands=shardings(operands, f"{key}[1]"), home=homes[0] if homes else 0
        )

    return read_strategy


def _with_homes(
    raw: object, key: str, size: int, num_homes: int
) -> tuple[tuple[object, ...], tuple[int, ...]]:
    """A list of so many items, and after them the number of a home other than 0, or none."""
    items = list_reader(lambda item, _: item)(raw, key)
    if num_homes and len(items) == size + 1:
        return items[:size], (count_reader(1, num_homes + 1)(items[size], f"{key}[{size}]"),)
    return read_fixed(raw, key, size), ()


def _chosen(table: tuple[Strategy, ...], raw: object) -> tuple[Strategy, ...]:
    """Strategy of each node; the table lists them in order of appearance, each once."""
    choice = list_reader(count_reader(0, len(table)))(raw, "choice")
    if tuple(dict.fromkeys(choice)) != tuple(range(len(table))):
        raise unreadable(
            "choice", f"all of 0 to {len(table) - 1}, each first after those below it", choice
        )
    return tuple(table[n] for n in choice)


def _recompute(raw: object, num_strategies: int) -> tuple[int, ...]:
    nodes = list_reader(count_reader(0))(raw, "recompute")
    if len(set(nodes)) != len(nodes):
        raise unreadable("recompute", "each node once", nodes)
    # A clone can take the place of its node, so the program may have that many nodes more.
    end = num_strategies + len(nodes)
    if max(nodes, default=0) >= end:
        raise unreadable("recompute", f"nodes below {end}", nodes)
    return nodes


def _copy_to_plain(copy: Copy) -> list[Any]:
    return [
        [copy.value.node, copy.value.output],
        copy.phase.value,
        format_sharding(copy.origin),
        list(map(_hop_to_plain, copy.hops)),
        int(copy.kept),
        *([copy.origin_home] if copy.origin_home else []),
    ]


def _hop_to_plain(hop: Hop) -> list[Any]:
    """Axis, placement, and the home that it leads to, from 1 on as in a list with home 0 first."""
    return [
        hop.axis,
        format_sharding((hop.placement,)),
        *([hop.home + 1] if hop.home >= 0 else []),
    ]


def _copy(
    mesh: Mesh, num_homes: int, strategies: tuple[Strategy, ...]
) -> Callable[[object, str], Copy]:
    phases = {phase.value: phase for phase in Phase}
    axis_of, word_of = count_reader(0, mesh.num_axes), _sharding(1)

    def read_hop(raw: object, key: str) -> Hop:
        led = num_homes + 1 if num_homes else 0
        (axis, placement), homes = _with_homes(raw, key, 2, led)
        return Hop(
            axis_of(axis, f"{key}[0]"),
            word_of(placement, f"{key}[1]")[0],
            homes[0] - 1 if homes else -1,
        )

    def read_copy(raw: object, key: str) -> Copy:
        (value, phase, origin, hops, kept), homes = _with_homes(raw, key, 5, num_homes)
        at = read_fixed(value, f"{key}[0]", 2)
        node = count_reader(0, len(strategies))(at[0], f"{key}[0][0]")
        output = count_reader(0, len(strategies[node].outputs))(at[1], f"{key}[0][1]")
        if not isinstance(phase, str) or phase not in phases:
            raise unreadable(f"{key}[1]", f"one of {', '.join(phases)}", phase)
        start = _sharding(mesh.num_axes)(origin, f"{key}[2]")
        path = list_reader(read_hop)(hops, f"{key}[3]")
        target, first = start, homes[0] if homes else 0
        home = first
        for hop in path:
            target = (*target[: hop.axis], hop.placement, *target[hop.axis + 1 :])
            home = home if hop.home < 0 else hop.home
        kept = bool(count_reader(0, 2)(kept, f"{key}[4]"))
        value = Value(node, output)
        return Copy(value, phases[phase], start, target, path, kept, first, home)

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
