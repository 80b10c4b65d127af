"""What holds for the time of operators and collectives on every machine that weft knows."""

from dataclasses import replace

import pytest

from weft.core.provenance import measured
from weft.cost.collective import collective_seconds
from weft.cost.fusion import Paid
from weft.cost.roofline import COLUMN_SUM, TRAFFIC, operator_seconds
from weft.machine.curve import Curve
from weft.machine.model import COLLECTIVES, CollectiveCurve, Device, Machine
from weft.machine.presets import preset, preset_names
from weft.machine.topology import axis_group
from weft.program.graph import Arg, Value
from weft.program.operators import OPERATORS, Kind
from weft.program.types import DType, TensorType


def measured_machine() -> Machine:
    """A host as a probe describes it: curves for operators and collectives, no fusion."""
    machine = preset("dgx-a100x1")
    curve = Curve(sizes_bytes=(1e3, 1e6, 1e8), seconds=(3e-6, 3e-5, 3e-3), source="test")
    group = machine.groups[0]
    device = replace(
        group.device,
        kind="cpu",
        fuses=False,
        operator_curves=dict.fromkeys((TRAFFIC, "tanh.default", "sum", COLUMN_SUM), curve),
        matmul_traffic=measured(2.5, "B/B", "test"),
    )
    link = replace(
        group.link,
        curves=tuple(
            CollectiveCurve(collective=kind, num_devices=8, curve=curve) for kind in COLLECTIVES
        ),
    )
    return replace(
        machine,
        name="measured",
        groups=(replace(group, device=device, link=link),),
        overlap=measured(0.3, "share", "test"),
    )


MACHINES = {name: preset(name) for name in preset_names()} | {"measured": measured_machine()}
DEVICES = {
    f"{name} {group.device.name}": group.device
    for name, machine in MACHINES.items()
    for group in machine.groups
}
POINTWISE = sorted(name for name, row in OPERATORS.items() if row.kind is Kind.POINTWISE)

devices = pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES)
machines = pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)

Case = tuple[str, tuple[Arg, ...], tuple[TensorType, ...], tuple[TensorType, ...]]


def cases(rows: int) -> list[Case]:
    """One operator of each costly kind, on `rows` rows."""

    def t(*shape: int, dtype: DType = DType.F32) -> TensorType:
        return TensorType(dtype, shape)

    x, w, lse = t(rows, 256), t(256), t(1, 4, rows)
    heads, ids, image = t(1, 4, rows, 64), t(rows, dtype=DType.I64), t(1, 16, rows, 16)
    v = [Value(i) for i in range(8)]
    convolution = (v[0], v[1], None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1)
    return [
        ("einsum", ("mk,nk->mn", v[0], v[1]), (x, t(512, 256)), (t(rows, 512),)),
        ("attention", (v[0], v[1], v[2], True, 0.1), (heads,) * 3, (heads, lse)),
        (
            "attention_backward",
            (*v[:6], True, 0.1),
            (heads, heads, heads, heads, heads, lse),
            (heads,) * 3,
        ),
        ("convolution.default", convolution, (image, t(16, 16, 3, 3)), (image,)),
        ("tanh.default", (v[0],), (x,), (x,)),
        ("sum", (v[0], (1,), False), (x,), (t(rows),)),
        ("sum", (v[0], (0,), False), (x,), (t(256),)),
        ("_softmax.default", (v[0], 1, False), (x,), (x,)),
        (
            "native_layer_norm.default",
            (v[0], (256,), v[1], v[2], 1e-5),
            (x, w, w),
            (x, t(rows, 1), t(rows, 1)),
        ),
        ("embedding.default", (v[0], v[1]), (t(5000, 256), ids), (x,)),
        ("cat", ((v[0], v[1]), 1), (x, x), (t(rows, 512),)),
        ("full", ((rows, 256), 0.0, "f32"), (), (x,)),
    ]


IDS = [case[0] for case in cases(1)]


@devices
@pytest.mark.parametrize("index", range(len(IDS)), ids=IDS)
def test_every_kind_of_operator_takes_time_that_grows_with_its_size(
    device: Device, index: int
) -> None:
    small, large = (operator_seconds(*cases(rows)[index], device) for rows in (64, 64 * 1024))
    assert 0.0 < small < large < 60.0


@devices
@pytest.mark.parametrize("index", range(len(IDS)), ids=IDS)
def test_a_part_is_never_slower_than_the_whole(device: Device, index: int) -> None:
    times = [operator_seconds(*cases(rows)[index], device) for rows in (64, 128, 1024, 4096)]
    assert times == sorted(times)


@devices
def test_every_pointwise_operator_has_a_price(device: Device) -> None:
    x = TensorType(DType.F32, (1024, 1024))
    for op in POINTWISE:
        assert 0.0 < operator_seconds(op, (Value(0),), (x,), (x,), device) < 1.0, op


@devices
def test_fusing_never_costs(device: Device) -> None:
    x = TensorType(DType.F32, (4096, 256))
    alone = operator_seconds("add.Tensor", (Value(0), Value(1)), (x, x), (x,), device)
    for reads in ((True, True), (True, False), (False, False)):
        for writes in ((True,), (False,)):
            paid = Paid(reads, writes)
            args = (Value(0), Value(1))
            assert operator_seconds("add.Tensor", args, (x, x), (x,), device, paid) <= alone


@machines
@pytest.mark.parametrize("kind", COLLECTIVES)
def test_collectives_over_the_whole_machine_grow_with_their_payload(
    machine: Machine, kind: str
) -> None:
    group = axis_group(machine, (machine.num_devices,), 0)
    times = [collective_seconds(kind, size, group) for size in (0.0, 1e3, 1e6, 1e9)]
    assert times[0] >= 0.0
    assert times == sorted(times)
    assert times[-1] < 60.0


@machines
@pytest.mark.parametrize("kind", COLLECTIVES)
def test_neighbours_are_never_slower_than_the_whole_machine(machine: Machine, kind: str) -> None:
    count = machine.num_devices
    pair = axis_group(machine, (count // 2, 2), 1)
    whole = axis_group(machine, (count,), 0)
    # The same bytes held by each device, so that the payload grows with the group.
    assert collective_seconds(kind, 2e6, pair) <= collective_seconds(kind, 1e6 * count, whole)
