"""What fusion makes of a model, as a table, as JSON and as a page."""

import pytest

from weft.fusion.explained import ExplainedPhase, ExplainedRegion, Explanation
from weft.fusion.plan import FusionPlan, PlannedPhase
from weft.report.fusion_page import fusion_plain, fusion_table, write_fusion_page


def plan(num_bytes):
    return FusionPlan(
        region="abc",
        planner="beam",
        threads=2,
        streams=False,
        phases=(PlannedPhase(tasks=(0,), outer=((0, 1),), seconds=2e-5, num_bytes=num_bytes),),
        seconds=2e-5,
        bound_s=1e-5,
        unfused_bytes=4 * num_bytes,
        once_bytes=num_bytes,
        operators=2,
    )


def region(left="", inductor_s=None):
    phase = ExplainedPhase(
        shared_out="64 over 2 threads", nests=("100: sum",), seconds=2e-5, num_bytes=1024.0
    )
    return ExplainedRegion(
        operators=("exp.default", "sum"),
        plan=plan(1024.0),
        phases=(phase,),
        source="float exp<&>;",
        left=left,
        inductor_s=inductor_s,
    )


@pytest.fixture
def explained():
    refused = ExplainedRegion(operators=("sort",), plan=None, left="no rule for sort")
    return Explanation(
        name="toy",
        regions=(region(), region(left="slower"), refused),
        graphs=((0, "aten.mm.default", "aten.mm.default", 1), (2,)),
    )


def test_the_table_has_a_row_for_each_region(explained):
    rows = fusion_table(explained).rows
    assert [row[0] for row in rows] == ["0", "1", "2"]
    assert rows[0][3:] == ("weft", "20 us", "", "10 us", "1.0 KiB", "4.0 KiB")
    assert [row[3] for row in rows] == ["weft", "Inductor", "Inductor"]
    assert rows[2][4:] == ("",) * 5


def test_regions_that_are_alike_are_told_once():
    alike = Explanation(
        regions=(region(inductor_s=3e-5), region(inductor_s=5e-5), region(inductor_s=3e-5)),
        graphs=((0, 1, 2),),
    )
    rows = fusion_table(alike).rows
    assert [row[0] for row in rows] == ["0 and 1 alike", "1"]
    assert [row[5] for row in rows] == ["30 us", "50 us"]
    assert "regions 0, 2: 2 operators in 1 phase, 20 us predicted; Inductor 30 us" in str(alike)
    assert str(alike).endswith(alike.sentence)


def test_where_nothing_gains_that_is_said():
    left = Explanation(regions=(region(left="slower"),), graphs=((0,),))
    assert left.sentence == "No kernel of weft's gains anything here: Inductor compiles it all."


def test_words_say_what_is_left_and_why(explained):
    text = str(explained)
    assert "3 regions; Inductor keeps aten.mm.default 2" in text
    assert "region 2: 1 operator left to Inductor: no rule for sort" in text


def test_json_counts_what_inductor_keeps(explained):
    plain = fusion_plain(explained)
    assert plain["inductor"] == {"aten.mm.default": 2}
    first, _, last = plain["regions"]
    assert (first["bytes"], first["unfused_bytes"]) == (1024.0, 4096.0)
    assert (last["bytes"], last["left"]) == (None, "no rule for sort")


def test_the_page_counts_kernels_that_are_there(explained, tmp_path):
    path = tmp_path / "fused.html"
    write_fusion_page(explained, path)
    page = path.read_text()
    assert "2 memory-bound operators become 1 kernel, which move 75% fewer bytes." in page
    assert "float exp&lt;&amp;&gt;;" in page
    assert "no rule for sort" in page
