"""The picture of likeness over speed."""

from __future__ import annotations

from xml.etree import ElementTree

from benchmarks.denoise.picture import draw, points_of
from benchmarks.denoise.run import Point

SVG = "{http://www.w3.org/2000/svg}"


def result(*rows):
    return {"points": {"wan": [[*row, 0.9, 1.0] for row in rows]}}


WEFT = ("weft", "target_speedup 2", 2.0, 0.5, 50.0)
FULL = ("full", "", 1.0, 1.0, 126.0)
OTHER = ("PAB", "2/6", 1.5, 0.7, 40.0)


def test_what_a_result_tells_is_read_back():
    (point, *_) = points_of(result(WEFT, FULL))["wan"]
    assert point == Point(
        name="weft",
        setting="target_speedup 2",
        speedup=2.0,
        work=0.5,
        psnr_db=50.0,
        ssim=0.9,
        adherence=1.0,
    )


def test_every_contestant_has_a_line_and_a_name_but_not_all_steps_in_full():
    root = ElementTree.fromstring(draw(points_of(result(WEFT, FULL, OTHER))))
    assert root.tag == f"{SVG}svg"
    names = [text.text for text in root.findall(f".//{SVG}text")]
    assert "weft" in names and "PAB" in names and "full" not in names
    assert len(root.findall(f".//{SVG}circle")) == 2
    assert "prefers-color-scheme" in root.find(f"{SVG}style").text


def test_the_picture_says_that_weft_leads_only_where_it_does():
    better = ("PAB", "2/6", 2.5, 0.4, 60.0)
    led, beaten = (draw(points_of(result(WEFT, other))) for other in (OTHER, better))
    assert "above all others" in led and "above all others" not in beaten
