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

A file is read strictly: a missing, unknown or ill-typed key is an error that names it. Knows
the format of the model's classes; does not know any machine.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import TypeVar, cast

import yaml

from weft.core.errors import FileError, InputError
from weft.core.provenance import Origin, Quantity
from weft.machine.curve import Curve
from weft.machine.model import CollectiveCurve, Device, Link, Machine, NodeGroup

__all__ = ["load_machine_file", "machine_from_text", "machine_to_text", "save_machine"]

VERSION = 1

_T = TypeVar("_T")
_Read = Callable[[object, str], object]


def save_machine(machine: Machine, path: str | Path) -> None:
    """Write a machine file; reading it gives an equal machine with the same digest.

    Raises:
        FileError: the file cannot be written.
    """
    try:
        Path(path).write_text(machine_to_text(machine), encoding="utf-8")
    except OSError as error:
        raise FileError(
            need="a place to write a machine file", got=f"{path}: {error.strerror}"
        ) from error


def load_machine_file(path: str | Path) -> Machine:
    """Read a machine file.

    Raises:
        FileError: the file is missing, is not YAML, was written by a newer weft, or has a key
            that is missing, unknown or ill-typed; the error names the file and the key.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(
            need="a machine file",
            got=f"{path}: {getattr(error, 'strerror', None) or 'not a text file'}",
            hint="name a preset such as dgx-h100x8, or a YAML file",
        ) from error
    return machine_from_text(text, str(path))


def machine_from_text(text: str, where: str) -> Machine:
    """Read the text of a machine file; `where` names it in errors."""
    try:
        raw = cast(object, yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise FileError(
            need="a machine file in YAML", got=f"{where}: {error}".replace("\n", " ")
        ) from error
    try:
        plain = _require_mapping(raw, "")
        version = plain.pop("weft_machine", None)
        if version != VERSION:
            raise _bad("weft_machine", f"format {VERSION}", version)
        return _machine(plain, "")
    except FileError as error:
        raise error.within(where) from error.__cause__


def machine_to_text(machine: Machine) -> str:
    """Text of a machine file."""
    plain: dict[str, object] = {"weft_machine": VERSION}
    plain |= cast(dict[str, object], _plain(machine))
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, width=10**6, allow_unicode=True)


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
    text = repr(got)
    return FileError(
        need=f"{key or 'machine file'}: {need}",
        got=text if len(text) < 80 else text[:77] + "...",
        hint="the machine file reference in the documentation lists every key",
    )


def _text(raw: object, key: str) -> str:
    if not isinstance(raw, str):
        raise _bad(key, "a text", raw)
    return raw


def _flag(raw: object, key: str) -> bool:
    if not isinstance(raw, bool):
        raise _bad(key, "true or false", raw)
    return raw


def _count(raw: object, key: str) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise _bad(key, "a whole number", raw)
    return raw


def _number(raw: object, key: str) -> float:
    # YAML 1.1 takes 1e9 for a text; people mean the number.
    if isinstance(raw, int | float | str) and not isinstance(raw, bool):
        try:
            return float(raw)
        except ValueError:
            pass
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
_curve = _record(
    Curve,
    {"sizes_bytes": _list_of(_number), "seconds": _list_of(_number), "source": _text},
)
_collective_curve = _record(
    CollectiveCurve, {"collective": _text, "num_devices": _count, "curve": _curve}
)
_link = _record(
    Link,
    {"bytes_per_s": _quantity, "latency_s": _quantity, "curves": _list_of(_collective_curve)},
)
_device = _record(
    Device,
    {
        "name": _text,
        "kind": _text,
        "matmul_flops_per_s": _mapping_of(_quantity),
        "vector_flops_per_s": _quantity,
        "memory_bytes": _quantity,
        "memory_bytes_per_s": _quantity,
        "launch_s": _quantity,
        "fuses": _flag,
        "matmul_half_width": _quantity,
        "matmul_half_depth": _quantity,
        "attention_share": _quantity,
        "attention_block": _quantity,
        "operator_curves": _mapping_of(_curve),
    },
)
_group = _record(
    NodeGroup,
    {"num_nodes": _count, "devices_per_node": _count, "link": _link, "device": _device},
)
_machine = _record(
    Machine,
    {
        "name": _text,
        "groups": _list_of(_group),
        "network": _link,
        "overlap": _quantity,
        "notes": _text,
    },
)
