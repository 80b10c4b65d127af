"""Served plans as files: a line of JSON with the decoder, the machine and its price."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from weft.core.files import parsed, read_as, read_text, write_whole
from weft.machine.yaml import machine_from_text, machine_to_text
from weft.program.types import DType
from weft.tokens.serving.decoder import Decoder
from weft.tokens.serving.served import ServedPlan

__all__ = [
    "is_served_plan",
    "load_served_plan",
    "save_served_plan",
    "served_plan_from_json",
    "served_plan_to_json",
]

VERSION = 1
KIND = "served plan"
_HINT = "write one: weft tokens price config.json --machine dgx-h100x1 --usd-per-hour 2.5 -o FILE"


def served_plan_to_json(plan: ServedPlan) -> str:
    """The plan as one line of JSON; inverse of `served_plan_from_json`."""
    return json.dumps(
        {
            "weft": KIND,
            "version": VERSION,
            "decoder": {**asdict(plan.decoder), "dtype": plan.decoder.dtype.value},
            "machine": machine_to_text(plan.machine),
            "degree": plan.degree,
            "stages": plan.stages,
            "usd_per_device_hour": plan.usd_per_device_hour,
            "source": plan.source,
            "step_tokens": plan.step_tokens,
        }
    )


def served_plan_from_json(text: str) -> ServedPlan:
    """Inverse of `served_plan_to_json`.

    Raises:
        FileError: the text is no served plan of this version.
    """
    return parsed(text, KIND, VERSION, _plan, hint=_HINT)


def _plan(plain: Mapping[str, Any]) -> ServedPlan:
    decoder: dict[str, Any] = {**plain["decoder"]}
    decoder["dtype"] = DType(decoder["dtype"])
    return ServedPlan(
        decoder=Decoder(**decoder),
        machine=machine_from_text(plain["machine"], KIND),
        degree=_whole(plain["degree"]),
        stages=_whole(plain["stages"]),
        usd_per_device_hour=float(plain["usd_per_device_hour"]),
        source=str(plain["source"]),
        step_tokens=_whole(plain["step_tokens"]),
    )


def _whole(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"a whole number, not {value!r}")
    return value


def save_served_plan(plan: ServedPlan, path: str | Path) -> None:
    """Write a plan to a file.

    Raises:
        FileError: the file cannot be written.
    """
    write_whole(path, served_plan_to_json(plan) + "\n", f"a {KIND}")


def load_served_plan(path: str | Path) -> ServedPlan:
    """Read a plan from a file.

    Raises:
        FileError: the file is missing or holds no served plan of this version.
    """
    return read_as(path, served_plan_from_json, f"a {KIND}", _HINT)


def is_served_plan(path: str | Path) -> bool:
    """Whether a file says that it is a plan of any kind, and not the config.json of a model.

    Raises:
        FileError: the file cannot be read.
    """
    text = read_text(path, f"a {KIND} or a config.json", _HINT)
    try:
        plain: object = json.loads(text)
    except ValueError:
        return False
    return isinstance(plain, dict) and "weft" in plain
