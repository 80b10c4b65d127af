import pytest

from tests.unit.report.plot.drawing import elements, outside, overlaps
from weft.parallel.placement import Mesh
from weft.report.plot import mesh_plot


def squares(plot):
    return {e[0].text: e for e in elements(plot, "rect")}


def test_every_device_has_a_square_that_says_its_rank_and_node():
    found = squares(mesh_plot(Mesh((4, 2)), ("data", "tensor"), 4))
    assert set(found) == {f"rank {r}, node {r // 4}" for r in range(8)}


def test_neighbours_on_the_last_axis_stand_below_each_other():
    found = squares(mesh_plot(Mesh((4, 2)), ("data", "tensor"), 4))
    a, b = found["rank 0, node 0"], found["rank 1, node 0"]
    assert a.get("x") == b.get("x")
    assert float(a.get("y")) < float(b.get("y"))


SHAPES = [((4, 2), 4), ((4, 16), 8), ((4, 12), 8), ((5, 3), 2), ((6, 4), 6), ((9, 7), 3)]


@pytest.mark.parametrize(("shape", "per_node"), SHAPES)
def test_a_node_has_one_shade_and_those_beside_it_have_others(shape, per_node):
    found = squares(mesh_plot(Mesh(shape), ("data", "tensor"), per_node))
    shade = {int(n.split()[1].strip(",")): e.get("class") for n, e in found.items()}
    for rank in range(len(shade)):
        for other in (rank + shape[1], rank + 1 if (rank + 1) % shape[1] else rank):
            if other in shade:
                same_node = rank // per_node == other // per_node
                assert (shade[rank] == shade[other]) is same_node
    assert set(shade.values()) <= {f"node-{n}" for n in range(4)}


def labels(plot):
    return [e.text for e in elements(plot, "text") if e.get("class") != "rank"]


def test_nodes_have_their_names_and_axes_their_sizes():
    found = labels(mesh_plot(Mesh((2, 2, 16)), ("data1", "data2", "tensor"), 8))
    assert [text for text in found if text.startswith("node")] == [f"node {n}" for n in range(8)]
    assert "data1 = 2 x data2 = 2 →" in found
    assert "tensor = 16 ↓" in found


def test_where_names_would_touch_every_fourth_node_has_its_name():
    found = labels(mesh_plot(Mesh((64, 8)), ("data", "tensor"), 8))
    assert [text for text in found if text.startswith("node")] == [
        f"node {n}" for n in range(0, 64, 4)
    ]


def test_a_mesh_that_is_too_large_is_cut_and_says_so():
    plot = mesh_plot(Mesh((128, 32)), ("data", "tensor"), 8)
    assert len(squares(plot)) == 64 * 16
    assert "the first 1024 of 4096 devices" in plot


def test_labels_keep_apart_and_inside():
    for shape, names in (
        ((2,), ("data",)),
        ((4, 2, 8), ("data", "expert", "tensor")),
        ((4, 16), ("data1", "data2")),
        ((64, 32), ("data", "tensor")),
        ((4, 12), ("data", "tensor")),
    ):
        plot = mesh_plot(Mesh(shape), names, 8)
        assert overlaps(plot) == []
        assert outside(plot) == []
