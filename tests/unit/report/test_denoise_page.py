"""Runs of a denoising plan, as tables and as a page."""

import json
import re
from dataclasses import replace

import pytest

from tests.unit.diffusion.known import a_run
from weft.report.denoise_page import run_html, run_speedup, run_summary, run_table, run_text


def test_a_row_tells_what_a_step_did_and_why_not_as_planned():
    table = run_table(a_run())
    assert [row[2] for row in table.rows] == [
        "full",
        "full",
        "cfg linear",
        "full",
        "step reuse",
        "full small",
    ]
    assert table.rows[3] == (
        "3",
        "550",
        "full",
        "block was planned <of nothing>",
        "2",
        "20",
        "cfg 0.125",
        "1 s",
    )


def test_speed_is_over_the_runs_own_full_steps_but_for_the_first():
    # Six steps of 1 s, over 6.75 s that were taken.
    assert run_speedup(a_run()) == pytest.approx(6 / 6.75)


def test_without_a_full_step_nothing_is_said_of_speed():
    run = a_run()
    short = replace(run, steps=run.steps[4:])
    assert run_speedup(short) is None
    assert "speed" not in run_summary(short)


def test_the_summary_tells_work_speed_and_memory():
    # 20 + 20 + 10 + 20 + 0 + 20 / 4 blocks of 120.
    expected = "38% of the work saved, 0.89 times the speed of full steps, 3.0 MiB kept"
    assert run_summary(a_run()).startswith(expected)
    assert run_text([a_run(), a_run()]).count(expected) == 2


def test_the_page_draws_each_step_as_high_as_its_work():
    page = run_html([a_run()], {})
    bars = re.findall(
        r'<rect x="[^"]+" y="[^"]+" width="[^"]+" height="([^"]+)" class="([^"]+)"', page
    )
    assert [style for _, style in bars] == [
        "fill-full",
        "fill-full",
        "fill-cfg",
        "fill-full",
        "fill-step",
        "fill-small-full",
    ]
    heights = [float(height) for height, _ in bars]
    assert heights[2] == heights[0] / 2 and 0 < heights[4] < heights[2]
    assert "full: everything computed, small model</li>" in page


def test_names_in_the_page_are_escaped_and_its_records_can_be_read():
    page = run_html([a_run()], {})
    assert "<of nothing>" not in page.split("<details>")[0]
    assert "&lt;of nothing&gt;" in page
    text = page.split("<pre>")[1].split("</pre>")[0]
    records = [
        json.loads(line.replace("&lt;", "<").replace("&gt;", ">")) for line in text.splitlines()
    ]
    assert [r["kind"] for r in records] == ["denoise_run", *["denoise_step"] * 6]
    assert records[0]["fields"]["work"] == pytest.approx(75 / 120)


def test_every_colour_of_the_strip_is_in_the_style_sheet():
    page = run_html([a_run()], {})
    style, body = page.split("</style>")
    for name in set(re.findall(r'class="(?:patch )?(fill-[a-z-]+)"', body)):
        assert f".{name} " in style
