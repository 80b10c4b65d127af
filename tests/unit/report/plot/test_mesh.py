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


def test_nodes_alternate_in_shade():
    found = squares(mesh_plot(Mesh((4, 2)), ("data", "tensor"), 4))
    assert {e.get("class") for n, e in found.items() if n.endswith("node 0")} == {"node-0"}
    assert {e.get("class") for n, e in found.items() if n.endswith("node 1")} == {"node-1"}


def test_a_mesh_that_is_too_large_is_cut_and_says_so():
    plot = mesh_plot(Mesh((128, 32)), ("data", "tensor"), 8)
    assert len(squares(plot)) == 64 * 16
    assert "the first 1024 of 4096 devices" in plot


def test_labels_keep_apart_and_inside():
    for shape, names in (((2,), ("data",)), ((4, 2, 8), ("data", "expert", "tensor"))):
        plot = mesh_plot(Mesh(shape), names, 8)
        assert overlaps(plot) == []
        assert outside(plot) == []
