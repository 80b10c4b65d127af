"""A machine in tables: every figure with its unit and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import cast

from weft.core.provenance import Quantity
from weft.core.units import format_bytes, format_seconds
from weft.machine.curve import Curve
from weft.machine.model import Device, Link, Machine, NodeGroup
from weft.report.table import Table

__all__ = ["describe_machine", "format_quantity", "machine_plain", "machine_tables"]

_WORDS = {
    "matmul_flops_per_s": "matrix products",
    "vector_flops_per_s": "element-wise arithmetic",
    "memory_bytes": "memory",
    "memory_bytes_per_s": "memory bandwidth",
    "launch_s": "start of an operator",
    "operator_launch_s": "start of an operator",
    "matmul_half_width": "product width at half rate",
    "matmul_half_depth": "product depth at half rate",
    "matmul_few_columns": "product columns that take twice as long",
    "matmul_traffic": "traffic of products beside that of other operators",
    "attention_share": "attention, share of product rate",
    "attention_block": "attention, keys in a tile",
    "attention_row_s": "attention, each query",
    "attention_score_s": "attention, each score",
}


def describe_machine(machine: Machine) -> str:
    """One line: "dgx-h100x8 (8 nodes of 8 h100-sxm)"."""
    groups = " + ".join(
        f"{_nodes(g)} of {g.devices_per_node} {g.device.name}" for g in machine.groups
    )
    return f"{machine.name} ({groups})"


def _nodes(group: NodeGroup) -> str:
    return f"{group.num_nodes} node{'s' if group.num_nodes > 1 else ''}"


def format_quantity(quantity: Quantity) -> str:
    """A quantity as people write it: sizes in binary units, rates with a decimal prefix."""
    value, unit = quantity.value, quantity.unit
    if unit in ("B", "bytes"):
        return format_bytes(value)
    if unit == "s":
        return format_seconds(value)
    if unit.endswith("/s"):
        for scale, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
            if value >= scale:
                return f"{value / scale:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def machine_tables(machine: Machine) -> tuple[Table, ...]:
    """One table a node group, one for what joins them, and one a source of measured curves."""
    groups = tuple(_group_table(machine, group) for group in machine.groups)
    shared = {**_link_figures("between nodes", machine.network), "overlap": machine.overlap}
    return (*groups, _figures("between nodes and streams", shared), *_curve_table(machine))


def _group_table(machine: Machine, group: NodeGroup) -> Table:
    fuses = "element-wise operators fuse" if group.device.fuses else "no fusion"
    title = f"{machine.name}: {_nodes(group)} of {group.devices_per_node} {group.device.name}"
    figures = {_label(key): q for key, q in device_figures(group.device).items()}
    figures |= _link_figures("inside a node", group.link)
    if group.network is not None:
        figures |= _link_figures("from these nodes", group.network)
    return _figures(f"{title}, {fuses}", figures)


def device_figures(device: Device) -> dict[str, Quantity]:
    """Every figure of a device by its field; one of several by "field, key"."""
    found: dict[str, Quantity] = {}
    for field in fields(device):
        value: object = getattr(device, field.name)
        if isinstance(value, Quantity):
            found[field.name] = value
        elif isinstance(value, Mapping):
            items = cast("Mapping[str, object]", value).items()
            found |= {f"{field.name}, {k}": q for k, q in items if isinstance(q, Quantity)}
    return found


def _label(key: str) -> str:
    name, comma, rest = key.partition(", ")
    return _WORDS.get(name, name.replace("_", " ")) + comma + rest


def _link_figures(where: str, link: Link) -> dict[str, Quantity]:
    return {f"bandwidth {where}": link.bytes_per_s, f"latency {where}": link.latency_s}


def _figures(caption: str, figures: Mapping[str, Quantity]) -> Table:
    return Table(
        caption=caption,
        columns=("figure", "value", "origin", "source"),
        rows=tuple(
            (name, format_quantity(q), q.origin.value, q.source) for name, q in figures.items()
        ),
    )


def _curve_table(machine: Machine) -> tuple[Table, ...]:
    curves = {
        f"{group.device.name}, {name}": curve
        for group in machine.groups
        for name, curve in group.device.operator_curves.items()
    }
    for where, link in _links(machine).items():
        curves |= {f"{c.collective} of {c.num_devices} {where}": c.curve for c in link.curves}
    columns = ("measured curve", "smallest", "takes", "largest", "takes")
    return tuple(
        Table(
            caption=source,
            columns=columns,
            rows=tuple((n, *_curve_ends(c)) for n, c in curves.items() if c.source == source),
        )
        for source in dict.fromkeys(curve.source for curve in curves.values())
    )


def _links(machine: Machine) -> dict[str, Link]:
    inside = {f"inside a node of {g.device.name}": g.link for g in machine.groups}
    own = {
        f"from nodes of {g.device.name}": g.network for g in machine.groups if g.network is not None
    }
    return {**inside, **own, "between nodes": machine.network}


def _curve_ends(curve: Curve) -> tuple[str, ...]:
    ends = ((curve.sizes_bytes[n], curve.seconds[n]) for n in (0, -1))
    return tuple(
        text for size, time_s in ends for text in (format_bytes(size), format_seconds(time_s))
    )


def machine_plain(machine: Machine) -> dict[str, object]:
    """The machine's figures as JSON values, by group and figure."""
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
                "figures": _plain(device_figures(g.device)),
                "link": _plain(_link_figures("inside a node", g.link)),
                **(
                    {}
                    if g.network is None
                    else {"network": _plain(_link_figures("from these nodes", g.network))}
                ),
            }
            for g in machine.groups
        ],
        "network": _plain(_link_figures("between nodes", machine.network)),
        "overlap": machine.overlap.value,
    }


def _plain(figures: Mapping[str, Quantity]) -> dict[str, object]:
    return {
        name: {"value": q.value, "unit": q.unit, "origin": q.origin.value, "source": q.source}
        for name, q in figures.items()
    }
