"""A machine in tables: every figure with its unit and where it came from."""

from __future__ import annotations

from collections.abc import Iterator

from weft.core.provenance import Quantity
from weft.core.units import format_bytes, format_count, format_seconds
from weft.machine.model import Link, Machine, NodeGroup
from weft.report.table import Table

__all__ = ["describe_machine", "format_quantity", "machine_plain", "machine_tables"]


def describe_machine(machine: Machine) -> str:
    """One line: "dgx-h100x8 (8 nodes of 8 h100-sxm)"."""
    groups = " + ".join(
        f"{g.num_nodes} node{'s' if g.num_nodes > 1 else ''} of {g.devices_per_node}"
        f" {g.device.name}"
        for g in machine.groups
    )
    return f"{machine.name} ({groups})"


def format_quantity(quantity: Quantity) -> str:
    """A quantity as people write it: bytes in binary units, rates with a prefix."""
    value, unit = quantity.value, quantity.unit.lower()
    if unit in ("bytes", "b", "byte"):
        return format_bytes(value)
    if unit in ("s", "seconds"):
        return format_seconds(value)
    if unit in ("bytes/s", "b/s"):
        return f"{value / 1e9:.3g} GB/s"
    if "/s" in unit:
        return f"{format_count(value)} {quantity.unit}"
    return f"{value:.3g} {quantity.unit}".strip()


def machine_tables(machine: Machine) -> tuple[Table, ...]:
    """One table a node group, and one for what joins them."""
    groups = tuple(_group_table(machine, number) for number in range(len(machine.groups)))
    shared = (*_link_rows("between nodes", machine.network), ("overlap", machine.overlap))
    return (*groups, _figures("between nodes and streams", shared))


def _group_table(machine: Machine, number: int) -> Table:
    group = machine.groups[number]
    device = group.device
    rows = (
        *((f"matrix products, {d}", q) for d, q in device.matmul_flops_per_s.items()),
        ("element-wise arithmetic", device.vector_flops_per_s),
        ("memory", device.memory_bytes),
        ("memory bandwidth", device.memory_bytes_per_s),
        ("start of an operator", device.launch_s),
        *_link_rows("inside a node", group.link),
    )
    return _figures(_title(machine, group), rows)


def _title(machine: Machine, group: NodeGroup) -> str:
    nodes = f"{group.num_nodes} node{'s' if group.num_nodes > 1 else ''}"
    fuses = "element-wise operators fuse" if group.device.fuses else "no fusion"
    return f"{machine.name}: {nodes} of {group.devices_per_node} {group.device.name}, {fuses}"


def _link_rows(where: str, link: Link) -> tuple[tuple[str, Quantity], ...]:
    return (
        (f"bandwidth {where}", link.bytes_per_s),
        (f"latency {where}", link.latency_s),
    )


def _figures(caption: str, rows: tuple[tuple[str, Quantity], ...]) -> Table:
    return Table(
        caption=caption,
        columns=("figure", "value", "origin", "source"),
        rows=tuple((name, format_quantity(q), q.origin.value, q.source) for name, q in rows),
    )


def machine_plain(machine: Machine) -> dict[str, object]:
    """The machine's figures as JSON values, by group and figure."""

    def plain(rows: Iterator[tuple[str, Quantity]]) -> dict[str, object]:
        return {
            name: {"value": q.value, "unit": q.unit, "origin": q.origin.value, "source": q.source}
            for name, q in rows
        }

    def figures(group: NodeGroup) -> Iterator[tuple[str, Quantity]]:
        device = group.device
        for dtype, rate in device.matmul_flops_per_s.items():
            yield f"matmul_{dtype}", rate
        yield "vector", device.vector_flops_per_s
        yield "memory", device.memory_bytes
        yield "memory_bandwidth", device.memory_bytes_per_s
        yield "launch", device.launch_s
        yield "link_bandwidth", group.link.bytes_per_s
        yield "link_latency", group.link.latency_s

    return {
        "name": machine.name,
        "digest": machine.digest,
        "num_devices": machine.num_devices,
        "groups": [
            {
                "device": g.device.name,
                "kind": g.device.kind,
                "devices_per_node": g.devices_per_node,
                "num_nodes": g.num_nodes,
                "figures": plain(figures(g)),
            }
            for g in machine.groups
        ],
        "network": plain(iter(_link_rows("between nodes", machine.network))),
        "overlap": machine.overlap.value,
    }
