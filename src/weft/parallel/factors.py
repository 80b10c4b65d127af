"""Sufficient factors: gradients of linear layers sent as the two matrices they are a product of.

The gradient of an m x n weight is a product of what the layer read, R rows of m, and of the
gradient of what it made, R rows of n. Data parallelism makes a summand on each device and
reduces the summands, 2 m n numbers over the ring. Instead every device can gather both factors,
R (m + n) numbers, and make the whole gradient itself, which is the same to the last bits of a
sum in another order. Without latency and with computing for free that is less where

    R (m + n) < 2 m n

Here both are priced: latency, and the product over all rows instead of a device's own. A factor
that several gradients share is gathered once.

Source: sufficient factor broadcasting (Xie et al., arXiv 1409.5705); in TAG (arXiv 2302.06126) an
integer programme chooses the operators after the plan is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from weft.cost.collective import collective_seconds
from weft.cost.roofline import operator_seconds
from weft.machine.model import Device, Machine
from weft.machine.topology import Group, axis_group
from weft.parallel.estimate import slowest_device
from weft.parallel.local import CollectiveKind
from weft.parallel.placement import Mesh
from weft.parallel.weights import parameters_led_to
from weft.program.graph import Phase, Program, Value
from weft.program.operators import Kind, operator

__all__ = ["Product", "gradient_products", "paying_products", "sends_less"]


@dataclass(frozen=True, slots=True)
class Product:
    """A gradient that is a product of two values.

    Attributes:
        node: which makes it.
        factors: what the layer read, and the gradient of what it made, in the operator's order.
        parameter: whose gradient it is.
    """

    node: int
    factors: tuple[Value, Value]
    parameter: int


def sends_less(rows: int, m: int, n: int) -> bool:
    """True if the factors are fewer numbers than a ring all-reduce of the gradient moves.

    Args:
        rows: of the whole batch.
        m, n: of the weight.

    Example:
        >>> sends_less(7042, 25088, 4096), sends_less(7043, 25088, 4096)
        (True, False)
    """
    return rows * (m + n) < 2 * m * n


def gradient_products(program: Program) -> tuple[Product, ...]:
    """All gradients of parameters that are products over the rows of the batch.

    A gradient that is one of several of its parameter is left out: their sum is what is reduced.
    """
    leads_to = parameters_led_to(program)
    found: list[Product] = []
    for number, node in enumerate(program.nodes):
        parameter = leads_to[number]
        is_product = operator(node.op).kind is Kind.CONTRACT and node.phase is Phase.BACKWARD
        if not is_product or parameter < 0:
            continue
        weight = program.nodes[parameter].outputs[0]
        first, second = program.operands(number)
        if node.outputs[0].num_elements == weight.num_elements:
            found.append(Product(number, (first, second), parameter))
    counts: dict[int, int] = {}
    for product in found:
        counts[product.parameter] = counts.get(product.parameter, 0) + 1
    return tuple(product for product in found if counts[product.parameter] == 1)


def paying_products(program: Program, machine: Machine, mesh: Mesh) -> frozenset[int]:
    """Nodes of gradients whose factors should be gathered, on a mesh that cuts the batch.

    Args:
        program: one training step.
        machine: where it runs.
        mesh: of one axis, along which the batch is cut.
    """
    pricing = _Pricing(
        program=program,
        group=axis_group(machine, mesh.shape, 0),
        device=slowest_device(machine),
        share=1.0 / mesh.num_devices if mesh.is_even else max(mesh.shares[0]) / mesh.units(0),
    )
    products = gradient_products(program)
    saved = {product: pricing.saved_s(product) for product in products}
    chosen = [product for product in products if saved[product] > 0]
    # Factors cost what they cost whoever shares them: drop what does not carry its part.
    while chosen:
        users = _users(chosen)
        worth = {
            product: saved[product]
            - sum(pricing.gathering_s(factor) / users[factor] for factor in product.factors)
            for product in chosen
        }
        worst = min(chosen, key=worth.__getitem__)
        if worth[worst] > 0:
            break
        chosen.remove(worst)
    return frozenset(product.node for product in chosen)


def _users(chosen: Sequence[Product]) -> Mapping[Value, int]:
    counts: dict[Value, int] = {}
    for product in chosen:
        for factor in set(product.factors):
            counts[factor] = counts.get(factor, 0) + 1
    return counts


@dataclass(frozen=True)
class _Pricing:
    """What ways of making a gradient cost along one axis."""

    program: Program
    group: Group
    device: Device
    share: float

    def gathering_s(self, factor: Value) -> float:
        """Time to gather a factor [s]."""
        payload = float(self.program.type_of(factor).num_bytes)
        return collective_seconds(CollectiveKind.ALL_GATHER.value, payload, self.group)

    def saved_s(self, product: Product) -> float:
        """What is saved where the factors are at hand: the all-reduce, less the larger product."""
        node = self.program.nodes[product.node]
        whole = tuple(map(self.program.type_of, product.factors))
        reduced_s = collective_seconds(
            CollectiveKind.ALL_REDUCE.value, float(node.outputs[0].num_bytes), self.group
        )
        all_rows_s = operator_seconds(node.op, node.args, whole, node.outputs, self.device)
        return reduced_s - (1.0 - self.share) * all_rows_s
