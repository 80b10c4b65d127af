import json
from dataclasses import replace

import pytest

from tests.unit.report import toy_plan
from weft.core.provenance import measured
from weft.machine.curve import Curve
from weft.machine.model import CollectiveCurve
from weft.report.machine_table import (
    describe_machine,
    format_quantity,
    machine_plain,
    machine_tables,
)


def test_every_figure_stands_with_its_origin_and_source():
    for table in machine_tables(toy_plan.machine()):
        assert table.rows
        assert {row[2:] for row in table.rows} == {("ported", "a data sheet")}


def test_the_description_counts_nodes_and_devices():
    assert describe_machine(toy_plan.machine()) == "toy-box (2 nodes of 2 toy-gpu)"


def test_the_plain_form_is_json_with_the_digest():
    plain = json.loads(json.dumps(machine_plain(toy_plan.machine())))
    assert plain["digest"] == toy_plan.machine().digest
    assert plain["num_devices"] == 4
    figures = plain["groups"][0]["figures"]
    assert figures["matmul_flops_per_s, f32"]["value"] == 1e12


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2.0**30, "bytes", "1.0 GiB"),
        (4.5e11, "B/s", "450 GB/s"),
        (9.89e14, "FLOP/s", "989 TFLOP/s"),
        (5e-6, "s", "5 us"),
        (0.4, "share", "0.4 share"),
    ],
)
def test_quantities_read_as_people_write_them(value, unit, text):
    assert format_quantity(measured(value, unit, "this host, today")) == text


def test_measured_curves_are_listed_with_their_ends():
    machine = toy_plan.machine()
    curve = Curve(sizes_bytes=(1024.0, 2.0**20), seconds=(1e-4, 2e-3), source="this host")
    measured_link = replace(
        machine.network,
        curves=(CollectiveCurve(collective="all-gather", num_devices=2, curve=curve),),
    )
    table = machine_tables(replace(machine, network=measured_link))[-1]
    row = ("all-gather of 2 between nodes", "1.0 KiB", "100 us", "1.0 MiB", "2 ms")
    assert (table.caption, table.rows) == ("this host", (row,))


def test_a_way_to_the_network_of_its_own_stands_with_its_group():
    machine = toy_plan.machine()
    own = replace(machine.network, bytes_per_s=measured(2e7, "B/s", "this host"))
    uneven = replace(machine, groups=(replace(machine.groups[0], network=own),))
    row = ("bandwidth from these nodes", "20 MB/s", "measured", "this host")
    assert row in machine_tables(uneven)[0].rows
    assert row not in machine_tables(machine)[0].rows
    (group,) = json.loads(json.dumps(machine_plain(uneven)))["groups"]
    assert group["network"]["bandwidth from these nodes"]["value"] == 2e7
