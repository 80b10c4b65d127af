"""The page of runs of asynchronous training, as it is read."""

import json
import math
import re

import numpy as np
import pytest

from tests.unit.report.rl_known import write_run
from tests.unit.report.test_page import Reader
from weft.core.errors import FileError
from weft.report.rl_page import rl_page
from weft.report.rl_result import sentence
from weft.report.rl_runs import read_runs
from weft.report.rl_stats import grouped


def several(tmp_path, *runs):
    return [write_run(tmp_path / str(n), **run) for n, run in enumerate(runs)]


def level(value, seed, steps=60):
    """Rewards that reach a value and stay, with noise."""
    make = np.random.default_rng(seed)
    return value * (1 - np.exp(-np.arange(1, steps + 1) / 4)) + 0.01 * make.standard_normal(steps)


def compared(tmp_path, seeds=3, ends=(0.9, 0.5)):
    runs = [
        {"method": method, "staleness": 8, "seed": seed, "rewards": level(end + 0.02 * seed, seed)}
        for method, end in zip(("gac", "none"), ends, strict=True)
        for seed in range(seeds)
    ]
    runs += [{"method": "none", "staleness": 0, "rewards": level(0.95, 9), "seed": 9}]
    return several(tmp_path, *runs)


def heading(page):
    return "".join(Reader(page).text["h1"]).replace("\u00a0", " ")


def test_the_sentence_tells_the_best_at_the_highest_staleness_and_what_it_beat(tmp_path):
    words = heading(rl_page(compared(tmp_path)))
    assert words.startswith("At a staleness of 8, gac ended at a reward of 0.9")
    assert "of the next best, none" in words and "a difference of 0.4" in words
    assert "without staleness, none ended at 0.9" in words


def test_what_seeds_cannot_tell_apart_is_not_called_better(tmp_path):
    assert "the seeds do not tell apart" in heading(
        rl_page(compared(tmp_path / "a", ends=(0.9, 0.895)))
    )
    assert "one seed cannot tell apart" in heading(rl_page(compared(tmp_path / "b", seeds=1)))


def test_each_method_is_judged_at_its_best_learning_rate(tmp_path):
    paths = several(
        tmp_path,
        {"method": "gac", "rate": 1e-3, "rewards": level(0.7, 0)},
        {"method": "none", "rate": 1e-3, "rewards": level(0.2, 1)},
        {"method": "none", "rate": 3e-3, "rewards": level(0.8, 2)},
    )
    words = sentence(grouped(read_runs(paths)))
    assert "none ended at a reward of 0.8" in words and "against 0.698" in words


def test_every_picture_is_there_and_every_element_closes(tmp_path):
    page = rl_page(compared(tmp_path))
    reader = Reader(page)
    assert reader.open == [] and reader.unbalanced == []
    order = [
        *("Reward", "Gradients", "Age of samples", "Drift and entropy", "Tokens"),
        *("Groups", "Runs", "Settings", "Where the numbers come from"),
    ]
    assert reader.text["h2"] == order
    assert {
        *("Cosine of the raw gradient", "Cosine of what was applied", "Steps by regime"),
        *(
            "Samples by lag, over whole runs of all methods",
            "Entropy",
            "Tokens per sample",
            "Price of a token",
        ),
    } <= set(reader.text["h3"])


def test_nothing_is_fetched_nothing_runs_and_every_colour_is_in_the_style_sheet(tmp_path):
    page = rl_page(compared(tmp_path))
    style, body = page.split("</style>")
    assert "<script" not in body and not re.search(r"url\(|@import|https?://", page)
    used = {name for words in re.findall(r'class="([^"]*)"', body) for name in words.split()}
    assert {"hue-0", "hue-rest", "band", "key"} <= used
    for name in used:
        assert re.search(rf"\.{name}\b", style)


def bands(page):
    return page.count('class="band ')


def test_seeds_make_bands_and_a_single_seed_a_line(tmp_path):
    alone = several(tmp_path / "a", {"seed": 0})
    assert bands(rl_page(alone)) == 0
    both = several(tmp_path / "b", {"seed": 0}, {"seed": 1})
    page = rl_page(both)
    assert bands(page) > 3 and "95 % interval" in page.replace("\u00a0", " ")


def rows(page, heading):
    part = page.split(f"<h2>{heading}</h2>")[1].split("</section>")[0]
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", part)][
        1:
    ]


def test_tables_tell_finals_collapses_speed_and_what_is_odd(tmp_path):
    falling = [*np.linspace(0.1, 0.9, 30), *np.linspace(0.9, 0.0, 30)]
    paths = several(
        tmp_path,
        {"rewards": level(0.8, 0), "seed": 0},
        {"rewards": noisy(falling), "seed": 1},
        {"rewards": [0.3] * 10 + [math.nan] * 20, "seed": 1},
        {"steps": 0, "seed": 3, "method": "none"},
    )
    page = rl_page(paths)
    table = rows(page, "Groups")
    assert [row[:5] for row in table] == [
        ["gac", "4", "0.001", "3", "30 to 60"],
        ["none", "4", "0.001", "1", "0"],
    ]
    assert table[0][8] == "2 of 3" and table[0][9] == "128" and table[1][5:8] == [""] * 3
    remarks = [row[-1] for row in rows(page, "Runs")]
    assert remarks[0] == ""
    assert remarks[1] == "collapsed; seed 1 2 times"
    assert remarks[2] == ("collapsed; no number in 20 steps; ended 30 steps early; seed 1 2 times")
    assert remarks[3] == "no steps"


def noisy(values, seed=0):
    return np.array(values) + 0.01 * np.random.default_rng(seed).standard_normal(len(values))


def test_a_run_without_steps_has_a_page(tmp_path):
    page = rl_page(several(tmp_path, {"steps": 0}))
    assert heading(page) == "This run tells of no reward yet."
    assert "No run tells of a reward." in page and "<svg" not in page
    two = rl_page(several(tmp_path / "b", {"steps": 0}, {"steps": 0, "seed": 1}))
    assert heading(two) == "None of 2 runs tells of a reward yet."


def test_what_nobody_knows_is_left_out(tmp_path):
    from weft.core.records import RecordLog

    log = RecordLog(tmp_path / "records.jsonl")
    log.append("rl-run", method="gac")
    for step in (1, 2, 3):
        log.append("rl-step", step=step, reward=0.1 * step)
    page = rl_page([tmp_path])
    assert Reader(page).text["h2"] == [
        *("Reward", "Groups", "Runs", "Settings", "Where the numbers come from")
    ]
    assert heading(page) == "gac ended at a reward of 0.300 (one run)."


def test_hostile_names_stay_text(tmp_path):
    name = "<img src=x onerror=alert(1)>"
    page = rl_page(several(tmp_path, {"method": name, "task": name}))
    assert "<img" not in page and Reader(page).unbalanced == []


def test_a_budget_is_a_level_beside_the_tokens(tmp_path):
    page = rl_page(several(tmp_path, {"token_budget": 32}))
    assert "The dashed line is the budget: 32." in page
    assert "<title>budget of 32</title>" in page
    assert "the budget" not in rl_page(several(tmp_path / "b", {}))


def test_fifty_long_runs_make_a_page_of_bounded_size(tmp_path):
    runs = [
        {
            "method": f"m{n % 10}",
            "rate": 1e-3 * (1 + n // 10),
            "staleness": 4,
            "seed": n,
            "steps": 1000,
        }
        for n in range(50)
    ]
    page = rl_page(several(tmp_path, *runs))
    assert len(page) < 1_500_000
    assert "42 groups are in the tables only" in page
    assert len(rows(page, "Groups")) == len(rows(page, "Runs")) == 50


def test_the_numbers_of_the_tables_lie_in_the_page_as_records(tmp_path):
    paths = compared(tmp_path)
    page = rl_page(paths)
    lines = "".join(Reader(page).text["pre"]).splitlines()
    records = [json.loads(line)["fields"] for line in lines]
    assert {record["source"] for record in records} == {str(p / "records.jsonl") for p in paths}
    finals = [f"{record['final_reward']:.3f}" for record in records]
    assert finals == [row[5] for row in rows(page, "Runs")]


def test_a_file_that_is_no_run_is_an_error_that_names_it(tmp_path):
    (tmp_path / "plan.json").write_text("{}\n")
    with pytest.raises(FileError, match=r"plan\.json"):
        rl_page([tmp_path / "plan.json"])
