"""How plans of both kinds are put in words: a headline, and labelled lines under it."""

from __future__ import annotations

from collections.abc import Iterable

from weft.core.units import format_bytes, format_seconds
from weft.machine.model import Machine
from weft.parallel.plan import Alternative

__all__ = ["headline", "labelled", "lost"]


def headline(
    program_name: str, machine: Machine, step_s: float, peak_bytes: float, limit_bytes: float
) -> str:
    """What a plan is for, and what it takes."""
    devices = ", ".join(f"{group.num_devices} {group.device.name}" for group in machine.groups)
    text = (
        f"{program_name} on {machine.name} ({devices}): {format_seconds(step_s)} a step, "
        f"peak {format_bytes(peak_bytes)} of {format_bytes(limit_bytes)}"
    )
    return text + (", which does not fit" if peak_bytes > limit_bytes else "")


def labelled(first: str, rows: Iterable[tuple[str, str]]) -> str:
    """A headline and rows under it; of rows with one label only the first shows it."""
    lines, before = [first], ""
    for label, text in rows:
        lines.append(f"  {label if label != before else '':<10}{text}")
        before = label
    return "\n".join(lines)


def lost(other: Alternative, step_s: float) -> str:
    """What lost against a plan of `step_s`, and why."""
    fits = "" if other.fits else f", needs {format_bytes(other.peak_bytes)}: does not fit"
    return f"{other.name}: {format_seconds(other.step_s)} ({other.step_s / step_s:.2f}x){fits}"
