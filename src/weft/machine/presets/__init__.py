"""Machines known by name: data-sheet figures with the share of them that software reaches.

The files beside this module are machine files of one node; a name such as `dgx-h100x8` takes
`dgx-h100.yaml` with eight nodes.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from functools import cache
from importlib import resources
from pathlib import Path

from weft.core.errors import InputError
from weft.core.provenance import derived
from weft.machine.model import MAX_NODES, Machine
from weft.machine.yaml import load_machine_file, machine_from_text

__all__ = ["load_machine", "preset", "preset_names"]

_SUFFIX = ".yaml"


def load_machine(name_or_path: str | Path, memory: float | None = None) -> Machine:
    """A preset by name, or a machine file by path.

    Args:
        name_or_path: such as "dgx-h100x8", or a path with a slash or the ending .yaml or .yml.
        memory: memory of each device to plan with instead of what the machine says [bytes].

    Raises:
        FileError: the file is missing or cannot be used.
        InputError: no preset has this name; the error lists those that resemble it.

    Example:
        >>> load_machine("dgx-h100x8").num_devices
        64
    """
    text = str(name_or_path)
    is_path = isinstance(name_or_path, Path) or "/" in text or text.endswith((".yaml", ".yml"))
    machine = load_machine_file(name_or_path) if is_path else preset(text)
    return machine if memory is None else _with_memory(machine, memory)


def preset(name: str) -> Machine:
    """The machine of that name: STEMxNODES for machines of equal nodes, else as it stands.

    Raises:
        InputError: there is none, or the number of nodes is outside 1 to 4,096.

    Example:
        >>> preset("dgx-a100x2").groups[0].num_nodes
        2
    """
    stem, _, count = name.rpartition("x")
    template = _template(name) if name in _stems() else None
    if template is not None and not template.is_uniform:
        return template
    if stem not in _stems() or not count.isdecimal() or not _template(stem).is_uniform:
        raise _unknown(name)
    machine = _template(stem)
    if not 1 <= int(count) <= MAX_NODES:
        raise InputError(
            need=f"1 to {MAX_NODES} nodes",
            got=repr(name),
            hint=f"{stem}x1 is one node of {machine.groups[0].devices_per_node} devices",
        )
    group = replace(machine.groups[0], num_nodes=int(count))
    return replace(machine, name=name, groups=(group,))


@cache
def preset_names() -> tuple[str, ...]:
    """Names of the presets; those that scale stand with 8 nodes."""
    return tuple(f"{stem}x8" if _template(stem).is_uniform else stem for stem in _stems())


@cache
def _stems() -> tuple[str, ...]:
    files = (entry.name for entry in resources.files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in files if name.endswith(_SUFFIX)))


@cache
def _template(stem: str) -> Machine:
    text = resources.files(__name__).joinpath(stem + _SUFFIX).read_text(encoding="utf-8")
    return machine_from_text(text, stem + _SUFFIX)


def _unknown(name: str) -> InputError:
    near = [known for known in preset_names() if name.lower() in known]
    near = near or difflib.get_close_matches(name.lower(), preset_names(), n=3, cutoff=0.4)
    return InputError(
        need=f"a preset ({', '.join(preset_names())}; any number of nodes after the x) "
        "or the path of a machine file",
        got=repr(name),
        hint=f"did you mean {' or '.join(near)}?" if near else "a path holds a / or ends in .yaml",
    )


def _with_memory(machine: Machine, memory_bytes: float) -> Machine:
    if not 0 < memory_bytes < float("inf"):
        raise InputError(
            need="a memory size above 0 bytes",
            got=f"{memory_bytes}",
            hint="for example 40 * 2**30",
        )
    given = derived(memory_bytes, "B", "given by the caller instead of the machine's own")
    groups = tuple(
        replace(group, device=replace(group.device, memory_bytes=given)) for group in machine.groups
    )
    return replace(machine, groups=groups)
