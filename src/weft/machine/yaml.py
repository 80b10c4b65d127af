"""Machine files: YAML in and out, every figure with its unit and its origin.

    weft_machine: 1
    name: two-ranks
    overlap: {value: 0.5, unit: share, origin: measured, source: ...}
    network: {bytes_per_s: {...}, latency_s: {...}}
    groups:
    - num_nodes: 1
      devices_per_node: 2
      link: {bytes_per_s: {...}, latency_s: {...}, curves: [...]}
      device: {name: ..., kind: cpu, matmul_flops_per_s: {f32: {...}}, ...}

A file is read strictly: a key that is missing, unknown, ill-typed or given twice is an error that
names it, and so is a figure in another unit than its field has. Numbers are decimal: of the forms
that YAML 1.1 would turn into others, such as 1:30, 0777 and 3_6, none is a number. Knows the
format of the model's classes; does not know any machine.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import TypeVar, cast

import yaml

from weft.core.errors import FileError, InputError
from weft.core.files import read_text, write_whole
from weft.core.provenance import Origin, Quantity
from weft.core.yaml import OnceLoader, load_once
from weft.machine.curve import Curve
from weft.machine.model import MAX_NODES, CollectiveCurve, Device, Link, Machine, NodeGroup

__all__ = ["load_machine_file", "machine_from_text", "machine_to_text", "save_machine"]

VERSION = 1
MAX_DEVICES = 2**17
"""Most devices in a file: more than any published cluster has; the topology lists them all."""

_T = TypeVar("_T")
_Read = Callable[[object, str], object]


def save_machine(machine: Machine, path: str | Path) -> None:
    """Write a machine file, whole or not at all; it reads back as an equal machine.

    Raises:
        FileError: the file cannot be written.
    """
    write_whole(path, machine_to_text(machine), "a machine file")


def load_machine_file(path: str | Path) -> Machine:
    """Read a machine file.

    Raises:
        FileError: the file is missing, is not YAML, was written by a newer weft, or has a key
            that is missing, unknown or ill-typed; the error names the file and the key.
    """
    hint = "name a preset such as dgx-h100x8, or a YAML file"
    return machine_from_text(read_text(path, "a machine file", hint), str(path))


def machine_from_text(text: str, where: str) -> Machine:
    """Read the text of a machine file; `where` names it in errors.

    Raises:
        FileError: see `load_machine_file`.
    """
    try:
        raw = load_once(text, _Loader)
    except yaml.YAMLError as error:
        raise FileError(
            need="a machine file in YAML",
            got=f"{where}: {' '.join(str(error).split())}",
            hint="mend the line that is named; the machine file reference shows a whole file",
        ) from error
    try:
        plain = _require_mapping(raw, "")
        version = plain.pop("weft_machine", None)
        if version != VERSION or type(version) is not int:
            raise _bad("weft_machine", f"format {VERSION}", version)
        machine = _machine(plain, "")
        _require_size(machine)
        return machine
    except FileError as error:
        raise error.within(where) from error.__cause__


def _require_size(machine: Machine) -> None:
    if machine.num_nodes > MAX_NODES or machine.num_devices > MAX_DEVICES:
        raise _bad(
            "groups",
            f"at most {MAX_NODES} nodes and {MAX_DEVICES} devices in all",
            f"{machine.num_nodes} nodes and {machine.num_devices} devices",
        )


def machine_to_text(machine: Machine) -> str:
    """Text of a machine file."""
    plain: dict[str, object] = {"weft_machine": VERSION}
    plain |= cast(dict[str, object], _plain(machine))
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, width=10**6, allow_unicode=True)


class _Loader(OnceLoader):
    """Takes decimal numbers only."""


def _decimal_resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """The loader's own, with numbers in decimal only."""
    kept = {
        first: [pair for pair in pairs if not pair[0].endswith((":int", ":float"))]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    whole = re.compile(r"[-+]?(0|[1-9][0-9]*)$")
    number = re.compile(
        r"[-+]?(((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|\.(inf|Inf|INF))$"
        r"|\.(nan|NaN|NAN)$"
    )
    for first in "-+.0123456789":
        pairs = [("tag:yaml.org,2002:int", whole), ("tag:yaml.org,2002:float", number)]
        kept[first] = pairs + kept.get(first, [])
    return kept


_Loader.yaml_implicit_resolvers = _decimal_resolvers()


class _Line(dict[str, object]):
    """A mapping that is written on one line."""


class _Dumper(yaml.SafeDumper):
    """Repeats what occurs twice instead of pointing at it."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_Dumper.add_representer(
    _Line,
    lambda dumper, line: dumper.represent_mapping("tag:yaml.org,2002:map", line, flow_style=True),
)


def _plain(value: object) -> object:
    """Plain YAML data of a model object; fields at their defaults are left out."""
    if isinstance(value, Origin):
        return value.value
    if isinstance(value, Mapping):
        items = cast(Mapping[str, object], value)
        return {key: _plain(item) for key, item in items.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in cast(tuple[object, ...], value)]
    if isinstance(value, Quantity | Curve | CollectiveCurve | Link | Device | NodeGroup | Machine):
        plain = {
            f.name: _plain(getattr(value, f.name))
            for f in fields(value)
            if not _is_default(f, getattr(value, f.name))
        }
        return _Line(plain) if isinstance(value, Quantity | Curve) else plain
    return value


def _is_default(field: Field[object], value: object) -> bool:
    if field.default_factory is not MISSING:
        return value == field.default_factory()
    return field.default is not MISSING and value == field.default


def _bad(key: str, need: str, got: object) -> FileError:
    # Anchors can make a small file into a huge value, so no value is written out in full.
    text = got if isinstance(got, str) and "\n" not in got else reprlib.repr(got)
    return FileError(
        need=f"{key or 'machine file'}: {need}",
        got=text if len(text) < 80 else text[:77] + "...",
        hint="the machine file reference in the documentation lists every key",
    )


def _text(raw: object, key: str) -> str:
    if not isinstance(raw, str):
        raise _bad(key, "a text", raw)
    return raw


def _name(raw: object, key: str) -> str:
    text = _text(raw, key)
    if not text.strip() or not text.isprintable():
        raise _bad(key, "a name of printable characters", repr(text))
    return text


def _flag(raw: object, key: str) -> bool:
    if not isinstance(raw, bool):
        raise _bad(key, "true or false", raw)
    return raw


def _count(raw: object, key: str) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise _bad(key, "a whole number", raw)
    return raw


def _number(raw: object, key: str) -> float:
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        try:
            return float(raw)
        except OverflowError:
            raise _bad(key, "a number below 1.8e308", f"{len(str(raw))} digits") from None
    raise _bad(key, "a number", raw)


def _origin(raw: object, key: str) -> Origin:
    try:
        return Origin(raw)
    except ValueError:
        raise _bad(key, f"one of {', '.join(o.value for o in Origin)}", raw) from None


def _list_of(read: Callable[[object, str], _T]) -> Callable[[object, str], tuple[_T, ...]]:
    def read_list(raw: object, key: str) -> tuple[_T, ...]:
        if not isinstance(raw, list):
            raise _bad(key, "a list", raw)
        items = cast(list[object], raw)
        return tuple(read(item, f"{key}[{i}]") for i, item in enumerate(items))

    return read_list


def _mapping_of(read: Callable[[object, str], _T]) -> Callable[[object, str], dict[str, _T]]:
    def read_mapping(raw: object, key: str) -> dict[str, _T]:
        items = _require_mapping(raw, key)
        return {name: read(item, f"{key}.{name}") for name, item in items.items()}

    return read_mapping


def _require_mapping(raw: object, key: str) -> dict[str, object]:
    if not isinstance(raw, dict):
        raise _bad(key, "a mapping", raw)
    items = cast(dict[object, object], raw)
    if not all(isinstance(name, str) for name in items):
        raise _bad(key, "a mapping whose keys are texts", items)
    return cast(dict[str, object], items)


def _record(kind: Callable[..., _T], readers: Mapping[str, _Read]) -> Callable[[object, str], _T]:
    """Reader of one class of the model: a field without default must be there, no other may."""
    required = {
        f.name
        for f in fields(kind)  # pyright: ignore[reportArgumentType]
        if f.default is MISSING and f.default_factory is MISSING
    }

    def read_record(raw: object, key: str) -> _T:
        plain = _require_mapping(raw, key)
        missing, unknown = sorted(required - plain.keys()), sorted(plain.keys() - readers.keys())
        if missing or unknown:
            near = difflib.get_close_matches(unknown[0], readers, n=1) if unknown else []
            raise _bad(
                key,
                f"the keys {', '.join(readers)}",
                f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}"
                + (f" (did you mean {near[0]}?)" if near else ""),
            )
        values = {
            name: readers[name](item, f"{key}.{name}" if key else name)
            for name, item in plain.items()
        }
        try:
            return kind(**values)
        except FileError:
            raise
        except InputError as error:
            raise FileError(
                need=f"{key or 'machine file'}: {error.need}", got=error.got, hint=error.hint
            ) from error

    return read_record


_quantity = _record(Quantity, {"value": _number, "unit": _text, "origin": _origin, "source": _text})


def _in(unit: str, *same: str) -> Callable[[object, str], Quantity]:
    """Reader of a figure that has to be in this unit, under one of its names; none is converted."""

    def read_figure(raw: object, key: str) -> Quantity:
        figure = _quantity(raw, key)
        if figure.unit not in (unit, *same):
            raise _bad(f"{key}.unit", f"{unit}, the unit of this figure", repr(figure.unit))
        return figure

    return read_figure


_curve = _record(
    Curve,
    {"sizes_bytes": _list_of(_number), "seconds": _list_of(_number), "source": _text},
)
_collective_curve = _record(
    CollectiveCurve, {"collective": _text, "num_devices": _count, "curve": _curve}
)
_link = _record(
    Link,
    {"bytes_per_s": _in("B/s"), "latency_s": _in("s"), "curves": _list_of(_collective_curve)},
)
_device = _record(
    Device,
    {
        "name": _name,
        "kind": _text,
        "matmul_flops_per_s": _mapping_of(_in("FLOP/s")),
        "vector_flops_per_s": _in("op/s", "FLOP/s"),
        "memory_bytes": _in("B"),
        "memory_bytes_per_s": _in("B/s"),
        "launch_s": _in("s"),
        "fuses": _flag,
        "matmul_half_width": _in("elements"),
        "matmul_half_depth": _in("elements"),
        "matmul_few_columns": _in("elements"),
        "matmul_traffic": _in("B/B"),
        "attention_share": _in("share"),
        "attention_block": _in("elements"),
        "attention_row_s": _mapping_of(_in("s")),
        "attention_score_s": _mapping_of(_in("s")),
        "operator_curves": _mapping_of(_curve),
        "operator_launch_s": _mapping_of(_in("s")),
    },
)
_group = _record(
    NodeGroup,
    {
        "num_nodes": _count,
        "devices_per_node": _count,
        "link": _link,
        "network": _link,
        "device": _device,
    },
)
_machine = _record(
    Machine,
    {
        "name": _name,
        "groups": _list_of(_group),
        "network": _link,
        "overlap": _in("share"),
        "notes": _text,
    },
)
