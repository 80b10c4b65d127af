"""Program and machine to seconds and bytes: operators, collectives, fusion, the simulated step."""

from weft.cost.collective import collective_seconds
from weft.cost.fit import Measurements, fit_machine
from weft.cost.fusion import Paid, Step, fused_traffic, program_traffic
from weft.cost.roofline import operator_seconds
from weft.cost.simulate import Task, simulate
from weft.cost.timeline import Event, MemoryPoint, Stream, Timeline

__all__ = [
    "Event",
    "Measurements",
    "MemoryPoint",
    "Paid",
    "Step",
    "Stream",
    "Task",
    "Timeline",
    "collective_seconds",
    "fit_machine",
    "fused_traffic",
    "operator_seconds",
    "program_traffic",
    "simulate",
]
