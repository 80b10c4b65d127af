"""Laws of the machines that are known by name."""

from pathlib import Path

import pytest

from weft.core.errors import FileError, InputError
from weft.core.provenance import Origin
from weft.machine.model import Machine
from weft.machine.presets import load_machine, preset, preset_names
from weft.machine.yaml import save_machine


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_under_its_own_name(name: str) -> None:
    assert preset(name).name == name


@pytest.mark.parametrize("nodes", [1, 8, 512, 4096])
def test_the_number_after_the_x_is_the_number_of_nodes(nodes: int) -> None:
    machine = load_machine(f"dgx-h100x{nodes}")
    assert (machine.groups[0].num_nodes, machine.num_devices) == (nodes, 8 * nodes)


def test_figures_are_those_of_the_data_sheets_times_a_stated_share() -> None:
    # Peaks of the data sheets; a device reaches less, but not less than half.
    peaks = {
        "dgx-a100x1": (312e12, 2.039e12, 80 * 2**30, 300e9, 25e9),
        "dgx-h100x1": (989e12, 3.35e12, 80 * 2**30, 450e9, 50e9),
        "dgx-h200x1": (989e12, 4.8e12, 141 * 2**30, 450e9, 50e9),
    }
    for name, (flops, bandwidth, memory, nvlink, nic) in peaks.items():
        machine = preset(name)
        group = machine.groups[0]
        reached = (
            (group.device.matmul_flops_per_s["bf16"].value, flops),
            (group.device.memory_bytes_per_s.value, bandwidth),
            (group.device.memory_bytes.value, memory),
            (group.link.bytes_per_s.value, nvlink),
            (machine.network.bytes_per_s.value, nic),
        )
        for value, peak in reached:
            assert 0.5 * peak <= value < peak, name


def test_the_h200_differs_from_the_h100_in_memory_only() -> None:
    h100, h200 = (preset(f"dgx-{chip}x1").groups[0].device for chip in ("h100", "h200"))
    assert h200.matmul_flops_per_s["bf16"].value == h100.matmul_flops_per_s["bf16"].value
    assert h200.memory_bytes.value > 1.7 * h100.memory_bytes.value
    assert h200.memory_bytes_per_s.value > 1.4 * h100.memory_bytes_per_s.value


def test_the_mixed_cluster_has_sixteen_devices_of_three_kinds() -> None:
    machine = preset("mixed-v100-p100-1080ti")
    kinds = {g.device.name.split("-")[0]: g.num_devices for g in machine.groups}
    assert kinds == {"v100": 4, "gtx": 8, "p100": 4}
    assert not machine.is_uniform


def test_devices_of_the_mixed_cluster_share_the_network_of_their_machine() -> None:
    machine = preset("mixed-v100-p100-1080ti")
    for group in machine.groups:
        way = machine.network_of(group)
        assert way.bytes_per_s.value * group.devices_per_node == pytest.approx(2.81e9)


def test_old_devices_have_no_rate_for_bf16() -> None:
    for group in preset("mixed-v100-p100-1080ti").groups:
        assert "bf16" not in group.device.matmul_flops_per_s


@pytest.mark.parametrize("name", preset_names())
def test_no_preset_claims_to_be_measured(name: str) -> None:
    machine = preset(name)
    group = machine.groups[0]
    quantities = [*group.device.matmul_flops_per_s.values(), group.link.bytes_per_s]
    assert all(q.origin is not Origin.MEASURED for q in [*quantities, machine.overlap])


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("dgx-h100", "dgx-h100x8"),
        ("dgx_h100x8", "dgx-h100x8"),
        ("DGX-H100x8", "dgx-h100x8"),
        ("dgx-h10x8", "dgx-h100x8"),
        ("dgx-h200x", "dgx-h200x8"),
        ("dgx-a100x-1", "dgx-a100x8"),
        ("mixed", "mixed-v100-p100-1080ti"),
        ("mixed-v100-p100-1080tix2", "mixed-v100-p100-1080ti"),
    ],
)
def test_a_near_miss_is_told_what_it_missed(name: str, near: str) -> None:
    with pytest.raises(InputError) as caught:
        preset(name)
    assert repr(name) in caught.value.got
    assert near in caught.value.hint


@pytest.mark.parametrize("name", ["dgx-h100x0", "dgx-h100x4097"])
def test_too_many_or_too_few_nodes_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="1 to 4096 nodes"):
        preset(name)


def test_a_name_like_nothing_lists_the_presets() -> None:
    with pytest.raises(InputError) as caught:
        load_machine("zzz")
    assert all(name in caught.value.need for name in preset_names())


def test_a_path_is_read_as_a_file(tmp_path: Path) -> None:
    machine = preset("dgx-a100x2")
    save_machine(machine, tmp_path / "own.yaml")
    assert load_machine(tmp_path / "own.yaml") == machine
    assert load_machine(str(tmp_path / "own.yaml")) == machine


def test_a_missing_file_is_a_file_error() -> None:
    with pytest.raises(FileError, match=r"nowhere\.yaml"):
        load_machine("nowhere.yaml")


def test_given_memory_replaces_that_of_every_device() -> None:
    machine = load_machine("mixed-v100-p100-1080ti", memory=2**33)
    values = {g.device.memory_bytes.value for g in machine.groups}
    assert values == {float(2**33)}
    assert machine.digest != load_machine("mixed-v100-p100-1080ti").digest


@pytest.mark.parametrize("memory", [0.0, -1.0, float("nan"), float("inf")])
def test_memory_that_is_no_size_is_refused(memory: float) -> None:
    with pytest.raises(InputError, match="memory size above 0"):
        load_machine("dgx-h100x1", memory=memory)


def test_names_do_not_change_the_digest_but_figures_do() -> None:
    digests = {preset(name).digest for name in ("dgx-h100x1", "dgx-h100x2", "dgx-h200x1")}
    assert len(digests) == 3

    def renamed(machine: Machine) -> Machine:
        return Machine(
            name="other",
            groups=machine.groups,
            network=machine.network,
            overlap=machine.overlap,
            notes="other",
        )

    assert renamed(preset("dgx-h100x2")).digest == preset("dgx-h100x2").digest
