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
from itertools import product
from math import isfinite
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from weft.core.errors import InfeasibleError, InputError
from weft.core.nonnegative import nonnegative_fit
from weft.cost.collective import collective_seconds
from weft.cost.fusion import Paid
from weft.cost.roofline import operator_seconds
from weft.machine.model import Device, Machine
from weft.machine.topology import axis_group
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
from weft.tokens.serving.steps import ResourceTime, StepTimes

Floats: TypeAlias = NDArray[np.float64]

__all__ = ["PricedSteps", "ServedPlan", "priced_steps", "step_seconds"]

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
        machine: of which one server takes `degree` devices.
        degree: devices that share every layer.
        usd_per_device_hour: what a device costs [usd].
        source: where that is from.
        step_tokens: most tokens of prompts in a step.

    Raises:
        InputError: more devices than there are, a price that is none, or no source of it.
    """

    decoder: Decoder
    machine: Machine
    degree: int = 1
    usd_per_device_hour: float
    source: str
    step_tokens: int = STEP_TOKENS

    def __post_init__(self) -> None:
        if not 1 <= self.degree <= min(self.machine.num_devices, self.decoder.heads):
            raise InputError(
                need=f"1 to {min(self.machine.num_devices, self.decoder.heads)} devices for a "
                f"server on {self.machine.name}",
                got=str(self.degree),
                hint="a device needs a head of its own",
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
    def usd_per_s(self) -> float:
        """Of one server [usd/s]."""
        return self.usd_per_device_hour * self.degree / 3600.0


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
    """How long a step takes by the cost model [s]."""
    device = _device(plan.machine)
    own = executed(plan.decoder, plan.degree, batch)
    return sum(_seconds(one, device) for one in own) + _network_s(plan, batch)


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
        _resource(name, _line(batches, took)) for name, took in sums.items() if name in greatest
    )
    times = StepTimes(resources, _cache_tokens(plan, device))
    return PricedSteps(
        times=times,
        farthest=max(_off(plan, times, batch) for batch in (*batches, *_others(plan))),
        weight_bytes=weight_bytes(plan.decoder, plan.degree),
        kv_bytes=kv_bytes(plan.decoder, plan.degree),
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
    own = executed(plan.decoder, plan.degree, batch)
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
    """Two sums in each layer; one device has nobody to wait for [s]."""
    if plan.degree == 1:
        return 0.0
    payload = TensorType(plan.decoder.dtype, (batch.tokens, plan.decoder.hidden)).num_bytes
    group = axis_group(plan.machine, (plan.degree,), 0)
    return 2 * plan.decoder.layers * collective_seconds("all-reduce", float(payload), group)


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


def _line(batches: Sequence[Batch], took: Floats) -> Floats:
    """Coefficients of what a step holds, by relative errors [5]."""
    held = np.array(
        [[1.0, b.tokens, b.sequences, b.pairs, b.context_tokens] for b in batches], dtype=np.float64
    )
    return nonnegative_fit(held / took[:, None], np.ones(len(took)))


def _resource(name: str, line: Floats) -> ResourceTime:
    fixed, token, sequence, pair, context = (float(x) for x in line)
    return ResourceTime(name, fixed, token, sequence, pair, context)


def _off(plan: ServedPlan, times: StepTimes, batch: Batch) -> float:
    told = max(
        own.fixed_s
        + own.token_s * batch.tokens
        + own.sequence_s * batch.sequences
        + own.pair_s * batch.pairs
        + own.context_token_s * batch.context_tokens
        for own in times.resources
    )
    return abs(told / step_seconds(plan, batch) - 1.0)


def _cache_tokens(plan: ServedPlan, device: Device) -> int:
    """Tokens whose keys and values fit beside the weights and the largest step."""
    left = _left_bytes(plan.decoder, plan.degree, plan.step_tokens, device)
    tokens = int(left / kv_bytes(plan.decoder, plan.degree))
    if tokens >= 1:
        return tokens
    enough = [
        degree
        for degree in DEGREES
        if degree <= plan.decoder.heads
        and _left_bytes(plan.decoder, degree, plan.step_tokens, device) > 0
    ]
    raise InfeasibleError(
        need=f"{plan.decoder.name}: {weight_bytes(plan.decoder, plan.degree) / 2**30:.1f} GiB of "
        f"weights on each of {plan.degree} devices",
        got=f"{device.memory_bytes.value / 2**30:.1f} GiB of memory",
        options=(
            f"{enough[0]} devices for a server" if enough else "devices with more memory",
            "a type of fewer bytes",
        ),
    )


def _left_bytes(decoder: Decoder, degree: int, step_tokens: int, device: Device) -> float:
    step = executed(decoder, degree, Batch(step_tokens, 0, 1, 1))
    largest = max(sum(t.num_bytes for t in own.outputs) + own.operands[0].num_bytes for own in step)
    return device.memory_bytes.value - weight_bytes(decoder, degree) - largest
