"""A served model on a machine, as data, and how long its steps take by the cost model.

`weft.cost` says what each operator takes. Asked once with memory that is never waited for and
once with arithmetic that is free, it tells what keeps each of the two busy, which is a line in
what the step holds. A step takes, group of operators by group, as long as the busier of the two;
a sum of greater ones is the greatest of all sums, so these sums are the resources of `StepTimes`.
Each is fitted as a whole: a pair of tokens takes arithmetic in a prompt and memory in an answer,
and only both together are a line in pairs and context. Sums that are never the greatest are left
out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import isfinite
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from weft.core.errors import InfeasibleError, InputError
from weft.core.nonnegative import nonnegative_fit
from weft.core.units import format_bytes
from weft.cost.collective import collective_seconds
from weft.cost.fusion import Paid
from weft.cost.roofline import operator_seconds
from weft.machine.model import Device, Machine
from weft.machine.topology import Group, axis_group, link_between, reference_s, with_nodes
from weft.program.types import TensorType
from weft.tokens.serving.decoder import Decoder
from weft.tokens.serving.layers import (
    ANSWERS,
    LAYERS,
    MOVES,
    PROMPTS,
    WORDS,
    Batch,
    Executed,
    executed,
    kv_bytes,
    weight_bytes,
)
from weft.tokens.serving.steps import ResourceTime, StepLoad, StepTimes

Floats: TypeAlias = NDArray[np.float64]

__all__ = ["PricedSteps", "ServedPlan", "priced_steps", "step_load", "step_seconds"]

STEP_TOKENS = 2048
"""Most tokens of prompts in a step. Chosen: what servers that cut prompts up are often set to."""
DEGREES = (1, 2, 4, 8, 16, 32, 64)
GROUPS = (LAYERS, PROMPTS, ANSWERS, WORDS)
ARITHMETIC, MEMORY = "arithmetic", "memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedPlan:
    """A model, where it is served, and what that costs.

    Attributes:
        decoder: the model.
        machine: of which one server takes devices, all alike.
        degree: devices that share every layer.
        stages: parts of the layers, one after the other, each on so many devices. A server of
            several has as many batches on their way, and a step is one of each.
        usd_per_device_hour: what a device costs [usd].
        source: where that is from.
        step_tokens: most tokens of prompts in a step.

    Raises:
        InputError: more devices than there are, or unlike ones, a price that is none, or no source
            of it.
    """

    decoder: Decoder
    machine: Machine
    degree: int = 1
    stages: int = 1
    usd_per_device_hour: float
    source: str
    step_tokens: int = STEP_TOKENS

    def __post_init__(self) -> None:
        if not self.machine.is_uniform:
            raise InputError(
                need="a machine of alike devices",
                got=f"{self.machine.name}, with {len(self.machine.groups)} groups of them",
                hint="take one of its groups as a machine of its own",
            )
        fits = min(self.degree, self.stages) >= 1 and self.devices <= self.machine.num_devices
        if not fits or self.degree > self.decoder.heads or self.stages > self.decoder.layers:
            raise InputError(
                need=f"1 to {self.machine.num_devices} devices for a server on "
                f"{self.machine.name}, a head for each that share layers, a layer for each stage",
                got=f"{self.stages} stages of {self.degree}",
                hint="a machine of more nodes is PRESETxNODES, such as dgx-h100x2",
            )
        if not (isfinite(self.usd_per_device_hour) and self.usd_per_device_hour > 0):
            raise InputError(
                need="dollars for an hour of a device, above 0",
                got=str(self.usd_per_device_hour),
                hint="take it from your contract or your provider's list",
            )
        if not self.source.strip() or self.step_tokens < 1:
            raise InputError(
                need="where the price is from, and a step of at least one token",
                got=f"source {self.source!r}, {self.step_tokens} tokens",
                hint='such as source: "list price of the provider, 2026-11"',
            )

    @property
    def devices(self) -> int:
        """Of one server."""
        return self.degree * self.stages

    @property
    def usd_per_s(self) -> float:
        """Of one server [usd/s]."""
        return self.usd_per_device_hour * self.devices / 3600.0

    @property
    def stage(self) -> Decoder:
        """The largest stage, with the words that the last of several makes."""
        if self.stages == 1:
            return self.decoder
        layers = -(-self.decoder.layers // self.stages)
        # Words go in at the first stage and come out of the last: neither has both tables.
        return replace(self.decoder, layers=layers, tied=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedSteps:
    """Times of steps as lines, and how far these are from the cost model.

    Attributes:
        times: of steps.
        farthest: largest relative difference from the cost model over steps of all sizes, most of
            which the lines were not fitted to.
        weight_bytes, kv_bytes: of weights, and of keys and values of a token, on one device.
    """

    times: StepTimes
    farthest: float
    weight_bytes: int
    kv_bytes: int


def step_seconds(plan: ServedPlan, batch: Batch) -> float:
    """How long a step takes by the cost model, with `batch` in each stage [s].

    With several stages each batch goes through all of them, as slowly as the slowest.
    """
    device = _device(plan.machine)
    own = executed(plan.stage, plan.degree, batch)
    return plan.stages * (sum(_seconds(one, device) for one in own) + _network_s(plan, batch))


def priced_steps(plan: ServedPlan) -> PricedSteps:
    """Times of steps of a server.

    Raises:
        InfeasibleError: the model does not fit into the memory of that many devices.
    """
    device = _device(plan.machine)
    # Memory that is never waited for, and arithmetic that is free.
    endless = 1e30
    arithmetic = replace(
        device,
        memory_bytes_per_s=replace(device.memory_bytes_per_s, value=endless),
        operator_curves={},
    )
    memory = replace(
        device,
        matmul_flops_per_s={
            name: replace(rate, value=endless) for name, rate in device.matmul_flops_per_s.items()
        },
        vector_flops_per_s=replace(device.vector_flops_per_s, value=endless),
        attention_row_s={},
        attention_score_s={},
    )
    batches = _batches(plan)
    sides = {ARITHMETIC: arithmetic, MEMORY: memory}
    busy = {
        (group, side): np.array([_group_s(plan, batch, group, own) for batch in batches])
        for group in GROUPS
        for side, own in sides.items()
    }
    # What has no second side: passes over memory, and sums over the devices.
    rest = np.array([_group_s(plan, b, MOVES, device) + _network_s(plan, b) for b in batches])
    sums = {
        _name(chosen): rest + sum(busy[own] for own in zip(GROUPS, chosen, strict=True))
        for chosen in product(sides, repeat=len(GROUPS))
    }
    greatest = {max(sums, key=lambda name: sums[name][n]) for n in range(len(batches))}
    resources = tuple(
        _resource(name, _line(plan, batches, plan.stages * took))
        for name, took in sums.items()
        if name in greatest
    )
    times = StepTimes(resources, _cache_tokens(plan, device))
    return PricedSteps(
        times=times,
        farthest=max(_off(plan, times, batch) for batch in (*batches, *_others(plan))),
        weight_bytes=weight_bytes(plan.stage, plan.degree),
        kv_bytes=kv_bytes(plan.stage, plan.degree),
    )


def _device(machine: Machine) -> Device:
    return machine.groups[0].device


def _seconds(own: Executed, device: Device) -> float:
    paid = None
    if own.joins:
        paid = Paid((True,) * len(own.operands), (False,) * len(own.outputs))
    took = operator_seconds(own.op, own.args, own.operands, own.outputs, device, paid)
    return own.times * took


def _group_s(plan: ServedPlan, batch: Batch, group: str, device: Device) -> float:
    own = executed(plan.stage, plan.degree, batch)
    return sum(_seconds(one, device) for one in own if one.group == group)


def _name(chosen: Sequence[str]) -> str:
    """Of a sum: "memory", or "arithmetic of layers, prompts; memory of answers, words"."""
    found = {
        side: ", ".join(group for group, own in zip(GROUPS, chosen, strict=True) if own == side)
        for side in (ARITHMETIC, MEMORY)
    }
    if not all(found.values()):
        return next(side for side, groups in found.items() if groups)
    return "; ".join(f"{side} of {groups}" for side, groups in found.items())


def _network_s(plan: ServedPlan, batch: Batch) -> float:
    """Two sums in each layer of a stage, and what it sends to the next one [s]."""
    rows = TensorType(plan.decoder.dtype, (batch.tokens, plan.decoder.hidden))
    payload, seconds = float(rows.num_bytes), 0.0
    if plan.degree > 1:
        group = axis_group(plan.machine, (plan.stages, plan.degree), 1)
        seconds = 2 * plan.stage.layers * collective_seconds("all-reduce", payload, group)
    if plan.stages > 1:
        starts = range(0, plan.devices, plan.degree)
        links = (link_between(plan.machine, a, b) for a, b in pairwise(starts))
        slowest = max(links, key=reference_s)
        # To send is to gather what one of two has: half of a payload that is twice as large.
        seconds += collective_seconds(
            "all-gather", 2.0 * payload, Group(sizes=(2,), links=(slowest,))
        )
    return seconds


def _batches(plan: ServedPlan) -> tuple[Batch, ...]:
    """Steps that lines are drawn through: some words are made in each."""
    chunk = plan.step_tokens
    pieces = sorted({0, max(1, chunk // 16), max(1, chunk // 4), chunk})
    return tuple(
        Batch(prompt, before, sequences, context)
        for prompt in pieces
        for before in ((0, 2048, 16384) if prompt else (0,))
        for sequences in (1, 8, 32, 128, 256)
        for context in (128, 1024, 8192)
    )


def _others(plan: ServedPlan) -> tuple[Batch, ...]:
    """Steps between and beyond them, some with a prompt alone."""
    chunk = plan.step_tokens
    pieces = sorted({0, max(1, chunk // 32), max(1, chunk // 7), max(1, 3 * chunk // 4)})
    return tuple(
        Batch(prompt, before, sequences, context)
        for prompt in pieces
        for before in ((0, 700, 6000) if prompt else (0,))
        for sequences in ((0, 3, 60, 200) if prompt else (3, 60, 200))
        for context in ((400, 3000, 12000) if sequences else (0,))
    )


def step_load(plan: ServedPlan, batch: Batch) -> StepLoad:
    """What a step holds with `batch` in each stage."""
    held = (batch.tokens, batch.sequences, batch.pairs, batch.context_tokens)
    return StepLoad(*(plan.stages * own for own in held))


def _line(plan: ServedPlan, batches: Sequence[Batch], took: Floats) -> Floats:
    """Coefficients of what a step holds, by relative errors [5]."""
    loads = [step_load(plan, batch) for batch in batches]
    held = np.array(
        [[1.0, own.tokens, own.sequences, own.pairs, own.context_tokens] for own in loads]
    )
    return nonnegative_fit(held / took[:, None], np.ones(len(took)))


def _resource(name: str, line: Floats) -> ResourceTime:
    fixed, token, sequence, pair, context = (float(x) for x in line)
    return ResourceTime(name, fixed, token, sequence, pair, context)


def _off(plan: ServedPlan, times: StepTimes, batch: Batch) -> float:
    return abs(times.seconds(step_load(plan, batch)) / step_seconds(plan, batch) - 1.0)


def _cache_tokens(plan: ServedPlan, device: Device) -> int:
    """Tokens whose keys and values fit beside the weights and the largest step."""
    tokens = int(_left_bytes(plan, device) / kv_bytes(plan.stage, plan.degree))
    if tokens >= 1:
        return tokens
    enough = _enough(plan, device)
    split = "" if enough is None or enough.stages == 1 else f", as {enough.stages} stages"
    raise InfeasibleError(
        need=f"{plan.decoder.name}: {format_bytes(weight_bytes(plan.stage, plan.degree))} of "
        f"weights on each of {plan.devices} devices, and room for a step",
        got=f"{format_bytes(device.memory_bytes.value)} of memory",
        options=(
            f"{enough.devices} devices for a server{split}"
            if enough is not None
            else "devices with more memory",
            "a type of fewer bytes",
        ),
    )


def _enough(plan: ServedPlan, device: Device) -> ServedPlan | None:
    """The fewest devices that hold the model with a request or two, of a machine that is large."""
    nodes = -(-DEGREES[-1] // plan.machine.groups[0].devices_per_node)
    large = with_nodes(plan.machine, max(nodes, plan.machine.num_nodes))
    node = plan.machine.groups[0].devices_per_node
    for devices in DEGREES:
        for degree in sorted((d for d in DEGREES if d <= min(devices, node)), reverse=True):
            stages = devices // degree
            if degree > plan.decoder.heads or stages > plan.decoder.layers:
                continue
            found = replace(plan, machine=large, degree=degree, stages=stages)
            if _left_bytes(found, device) > plan.step_tokens * kv_bytes(found.stage, degree):
                return found
    return None


def _left_bytes(plan: ServedPlan, device: Device) -> float:
    step = executed(plan.stage, plan.degree, Batch(plan.step_tokens, 0, 1, 1))
    largest = max(sum(t.num_bytes for t in own.outputs) + own.operands[0].num_bytes for own in step)
    return device.memory_bytes.value - weight_bytes(plan.stage, plan.degree) - largest
