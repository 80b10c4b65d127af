"""Laws of machines as data."""

from dataclasses import replace

import pytest

from weft.core.errors import InputError
from weft.core.provenance import derived
from weft.machine.curve import Curve
from weft.machine.model import CollectiveCurve, Link, Machine
from weft.machine.presets import preset

MACHINE = preset("dgx-h100x2")
DEVICE = MACHINE.groups[0].device
ZERO = derived(0.0, "FLOP/s", "test")
CURVE = Curve(sizes_bytes=(1.0,), seconds=(1.0,), source="test")


def test_a_machine_needs_nodes() -> None:
    with pytest.raises(InputError, match="at least one node group"):
        replace(MACHINE, groups=())


def test_no_more_than_the_whole_of_a_collective_can_be_hidden() -> None:
    with pytest.raises(InputError, match=r"overlap 1\.5"):
        replace(MACHINE, overlap=derived(1.5, "share", "test"))


@pytest.mark.parametrize("field", ["devices_per_node", "num_nodes"])
def test_a_group_needs_a_device(field: str) -> None:
    with pytest.raises(InputError, match="at least one node with at least one device"):
        replace(MACHINE.groups[0], **{field: 0})


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "tpu"},
        {"matmul_flops_per_s": {}},
        {"matmul_flops_per_s": {"bf16": ZERO}},
        {"vector_flops_per_s": ZERO},
        {"memory_bytes_per_s": ZERO},
        {"attention_share": ZERO},
        {"memory_bytes": ZERO},
    ],
)
def test_a_device_that_cannot_work_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match="memory and rates above 0"):
        replace(DEVICE, **change)


def test_a_share_in_per_cent_is_refused() -> None:
    with pytest.raises(InputError, match="at most 8"):
        replace(DEVICE, attention_share=derived(80.0, "share", "test"))


def test_an_element_type_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="bfloat16"):
        replace(DEVICE, matmul_flops_per_s={"bfloat16": derived(1.0, "FLOP/s", "test")})


def test_a_link_without_bandwidth_is_refused() -> None:
    with pytest.raises(InputError, match="bandwidth above 0"):
        Link(bytes_per_s=ZERO, latency_s=ZERO)


@pytest.mark.parametrize(("kind", "num_devices"), [("broadcast", 2), ("all-reduce", 1)])
def test_only_known_collectives_of_several_are_measured(kind: str, num_devices: int) -> None:
    with pytest.raises(InputError, match="all-to-all"):
        CollectiveCurve(collective=kind, num_devices=num_devices, curve=CURVE)


def with_device(machine: Machine, **change: object) -> Machine:
    group = machine.groups[0]
    return replace(machine, groups=(replace(group, device=replace(group.device, **change)),))


@pytest.mark.parametrize(
    "change",
    [
        {"fuses": False},
        {"matmul_half_width": derived(1.0, "elements", "test")},
        {"attention_block": None},
        {"operator_curves": {"traffic": CURVE}},
        {"launch_s": derived(1.0, "s", "test")},
        {"operator_launch_s": {"einsum": derived(1.0, "s", "test")}},
    ],
)
def test_whatever_changes_a_prediction_changes_the_digest(change: dict[str, object]) -> None:
    assert with_device(MACHINE, **change).digest != MACHINE.digest


def test_a_measured_collective_changes_the_digest() -> None:
    curve = CollectiveCurve(collective="all-reduce", num_devices=2, curve=CURVE)
    network = replace(MACHINE.network, curves=(curve,))
    assert replace(MACHINE, network=network).digest != MACHINE.digest


def test_a_way_to_the_network_of_its_own_changes_the_digest() -> None:
    def digest_with(network: Link | None) -> str:
        return replace(MACHINE, groups=(replace(MACHINE.groups[0], network=network),)).digest

    slow = replace(MACHINE.network, bytes_per_s=derived(1e9, "B/s", "test"))
    assert len({MACHINE.digest, digest_with(MACHINE.network), digest_with(slow)}) == 3
    assert digest_with(None) == MACHINE.digest


def test_machines_from_before_groups_had_ways_of_their_own_keep_their_digest() -> None:
    assert MACHINE.digest == "31488f382f16e34f"


def test_sources_do_not_change_the_digest() -> None:
    launch = derived(DEVICE.launch_s.value, "s", "another source")
    assert with_device(MACHINE, launch_s=launch).digest == MACHINE.digest
