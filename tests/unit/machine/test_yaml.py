"""Laws of machine files."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from weft.core.errors import FileError
from weft.core.provenance import derived, measured
from weft.machine.curve import Curve
from weft.machine.model import CollectiveCurve, Machine
from weft.machine.presets import preset, preset_names
from weft.machine.yaml import load_machine_file, machine_from_text, machine_to_text, save_machine


def full_machine() -> Machine:
    """A machine in which every optional field is set."""
    machine = preset("dgx-h100x2")
    curve = Curve(sizes_bytes=(1e3, 2.5e6), seconds=(1e-5, 1.0 / 3.0), source="bench, today")
    group = machine.groups[0]
    device = replace(
        group.device,
        operator_curves={"exp.default": curve, "traffic": curve},
        operator_launch_s={"einsum": derived(1e-5, "s", "test")},
    )
    link = replace(
        group.link, curves=(CollectiveCurve(collective="all-reduce", num_devices=2, curve=curve),)
    )
    network = replace(machine.network, latency_s=derived(1e-3, "s", "test"))
    group = replace(group, device=device, link=link, network=network)
    return replace(machine, groups=(group,), notes="line one\nline: two")


MACHINES = {name: preset(name) for name in preset_names()} | {"full": full_machine()}


@pytest.mark.parametrize("name", MACHINES)
def test_a_round_trip_keeps_everything(name: str, tmp_path: Path) -> None:
    machine = MACHINES[name]
    save_machine(machine, tmp_path / "m.yaml")
    read = load_machine_file(tmp_path / "m.yaml")
    assert read == machine
    assert read.digest == machine.digest


@given(st.floats(1e-300, 1e300))
@settings(max_examples=50)
def test_numbers_come_back_bit_for_bit(value: float) -> None:
    machine = preset("dgx-h100x1")
    group = machine.groups[0]
    rate = measured(value, "op/s", "test: a source with 'quotes' and #")
    device = replace(group.device, vector_flops_per_s=rate)
    machine = replace(machine, groups=(replace(group, device=device),))
    assert machine_from_text(machine_to_text(machine), "test") == machine


def test_numbers_written_without_a_dot_are_numbers() -> None:
    text = machine_to_text(preset("dgx-h100x1")).replace("0.85", "8.5e-1").replace("3.0e-6", "3e-6")
    assert "8.5e-1" in text
    assert machine_from_text(text, "test").digest == preset("dgx-h100x1").digest


def test_a_measured_figure_says_so_in_the_file() -> None:
    assert "origin: derived" in machine_to_text(preset("dgx-h100x1"))


def edited(change: str, to: str) -> str:
    text = machine_to_text(preset("dgx-h100x1"))
    assert change in text
    return text.replace(change, to, 1)


@pytest.mark.parametrize(
    ("change", "to", "key"),
    [
        ("weft_machine: 1", "weft_machine: 2", "weft_machine: format 1"),
        ("weft_machine: 1\n", "", "weft_machine: format 1"),
        ("name: dgx-h100x1", "name: 7", "name: a text"),
        ("name: dgx-h100x1\n", "", "missing: name"),
        ("num_nodes: 1", "num_nodes: 1.5", "groups[0].num_nodes: a whole number"),
        ("num_nodes: 1", "num_nodes: true", "groups[0].num_nodes: a whole number"),
        ("num_nodes: 1", "num_nodes: 0", "groups[0]: at least one node"),
        ("num_nodes: 1", "num_node: 1", "did you mean num_nodes?"),
        ("kind: cuda", "kind: abacus", "groups[0].device: a device of kind"),
        ("value: 0.85", "value: most", "overlap.value: a number"),
        ("value: 0.85", "value: .nan", "overlap: a finite value"),
        ("value: 0.85", "value: 1.5", "an overlap from 0 to 1"),
        ("origin: ported", "origin: guessed", "one of derived, ported, measured"),
        ("unit: share", "units: share", "attention_share: the keys"),
        ("groups:", "groups: {}\nrest:", "unknown: rest"),
        ("weft_machine: 1", "weft_machine: true", "weft_machine: format 1"),
        ("weft_machine: 1", "weft_machine: 1.0", "weft_machine: format 1"),
        ("value: 0.85", "value: " + "9" * 400, "overlap.value: a number below"),
        ("value: 0.85", "value: " + "9" * 5000, "YAML"),
        ("value: 0.85", "value: " + "[" * 3000, "nested too deeply"),
        ("value: 0.85", "value: " + "[" * 30 + "]" * 30, "overlap.value: a number"),
        ("name: dgx-h100x1", "name: 2026-13-45", "YAML"),
        ("name: dgx-h100x1", "name: ''", "name: a name of printable characters"),
        ("name: dgx-h100x1", "name: ' '", "name: a name of printable characters"),
        ("name: dgx-h100x1", "name: a\nname: b", "'name' stands twice"),
        ("value: 0.85", "value: 0.85, value: 0.9", "'value' stands twice"),
        ("unit: B/s", "unit: GB/s", "bytes_per_s.unit: B/s, the unit of this figure"),
        ("unit: share", "unit: percent", ".unit: share, the unit"),
        ("num_nodes: 1", "num_nodes: 0777", "groups[0].num_nodes: a whole number"),
        ("num_nodes: 1", "num_nodes: 0x10", "groups[0].num_nodes: a whole number"),
        ("num_nodes: 1", "num_nodes: 3_6", "groups[0].num_nodes: a whole number"),
        ("num_nodes: 1", "num_nodes: 1:30", "groups[0].num_nodes: a whole number"),
        ("value: 0.85", "value: 0.8_5", "overlap.value: a number"),
        ("value: 0.85", "value: '0.85'", "overlap.value: a number"),
        ("num_nodes: 1", "num_nodes: 4097", "groups: at most 4096 nodes"),
        ("num_nodes: 1", "num_nodes: " + "9" * 400, "groups: at most 4096 nodes"),
        ("devices_per_node: 8", "devices_per_node: 1000000", "131072 devices"),
        ("bf16:", "bfloat16:", "groups[0].device: matmul rates for f64, f32, bf16, f16"),
    ],
)
def test_a_wrong_key_is_named_with_its_file(change: str, to: str, key: str) -> None:
    with pytest.raises(FileError) as caught:
        machine_from_text(edited(change, to), "own.yaml")
    assert key in str(caught.value)
    assert "own.yaml" in str(caught.value)
    assert caught.value.hint


def test_a_flag_is_true_or_false() -> None:
    plain = yaml.safe_load(machine_to_text(preset("dgx-h100x1")))
    plain["groups"][0]["device"]["fuses"] = "maybe"
    with pytest.raises(FileError, match=r"groups\[0\]\.device\.fuses: true or false"):
        machine_from_text(yaml.safe_dump(plain), "own.yaml")


@pytest.mark.parametrize("field", ["groups", "network", "overlap"])
@pytest.mark.parametrize("value", [None, 3, "text", [1], {"a": 1}, []])
def test_nonsense_in_any_place_is_a_file_error(field: str, value: object) -> None:
    plain = yaml.safe_load(machine_to_text(preset("dgx-h100x1")))
    plain[field] = value
    with pytest.raises(FileError):
        machine_from_text(yaml.safe_dump(plain), "own.yaml")


@pytest.mark.parametrize("text", ["", "[]", "text", "a: [", "\t", "1: 2", "weft_machine: 1"])
def test_what_is_no_machine_file_is_refused(text: str) -> None:
    with pytest.raises(FileError, match=r"own\.yaml"):
        machine_from_text(text, "own.yaml")


def test_files_that_cannot_be_read_or_written_name_the_path(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"missing\.yaml"):
        load_machine_file(tmp_path / "missing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match=r"binary\.yaml: not a text file"):
        load_machine_file(tmp_path / "binary.yaml")
    with pytest.raises(FileError, match="no/such") as caught:
        save_machine(preset("dgx-h100x1"), tmp_path / "no/such/folder.yaml")
    assert caught.value.hint
    with pytest.raises(FileError, match="null"):
        load_machine_file("a\0b.yaml")


@pytest.mark.parametrize("spelling", ["1.5e1", "15", "15.", "+15", "1.5E+1", "150e-1"])
def test_decimal_numbers_may_be_spelt_in_any_way(spelling: str) -> None:
    text = machine_to_text(preset("dgx-h100x1"))
    latency = "latency_s: {value: 4.0e-06,"
    assert latency in text
    read = machine_from_text(text.replace(latency, f"latency_s: {{value: {spelling},"), "own.yaml")
    assert read.network.latency_s.value == 15.0


def test_anchors_repeat_what_is_alike_and_a_bomb_of_them_is_cut_short() -> None:
    bomb = "".join(f"- &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
    with pytest.raises(FileError) as caught:
        machine_from_text(f"weft_machine: 1\nname:\n- &a0 [x]\n{bomb}", "own.yaml")
    assert len(str(caught.value)) < 500


def test_a_file_replaces_the_old_one_and_follows_links(tmp_path: Path) -> None:
    path, link = tmp_path / "m.yaml", tmp_path / "link.yaml"
    save_machine(preset("dgx-a100x1"), path)
    link.symlink_to(path)
    save_machine(preset("dgx-h100x1"), link)
    assert load_machine_file(path) == preset("dgx-h100x1")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.yaml", "m.yaml"]
