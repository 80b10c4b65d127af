"""What a program can run on: devices, links, topology, presets and files."""

from weft.machine.curve import Curve
from weft.machine.model import (
    COLLECTIVES,
    CollectiveCurve,
    Device,
    Link,
    Machine,
    NodeGroup,
)
from weft.machine.presets import load_machine, preset, preset_names
from weft.machine.topology import Group, axis_group, smallest_machine
from weft.machine.yaml import save_machine

__all__ = [
    "COLLECTIVES",
    "CollectiveCurve",
    "Curve",
    "Device",
    "Group",
    "Link",
    "Machine",
    "NodeGroup",
    "axis_group",
    "load_machine",
    "preset",
    "preset_names",
    "save_machine",
    "smallest_machine",
]
