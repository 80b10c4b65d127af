"""The arithmetic of the denoising benchmark, and its measures of likeness."""

from __future__ import annotations

import pytest
import torch

from benchmarks.denoise.quality import adherence, psnr, ssim
from benchmarks.denoise.run import Point, frontier, quality_at, speed_at
from benchmarks.denoise.work import counted
from recipes.moving_shapes import prompts, videos


def point(speedup, psnr_db, work=0.5, name="one"):
    return Point(
        name=name,
        setting="",
        speedup=speedup,
        work=work,
        psnr_db=psnr_db,
        ssim=1.0,
        adherence=1.0,
    )


POINTS = [point(1.5, 45.0), point(2.0, 40.0), point(1.8, 38.0), point(3.0, 30.0)]


def test_settings_that_another_beats_are_not_on_the_line():
    assert frontier(POINTS, "one") == [(1.5, 45.0), (2.0, 40.0), (3.0, 30.0)]


def test_between_settings_the_line_counts():
    assert quality_at(POINTS, "one", 2.5) == pytest.approx(35.0)
    assert speed_at(POINTS, "one", 35.0) == pytest.approx(2.5)


def test_what_no_setting_reaches_is_not_reached():
    assert quality_at(POINTS, "one", 3.5) == float("-inf")
    assert speed_at(POINTS, "one", 50.0) == 1.0
    assert quality_at(POINTS, "other", 1.5) == float("-inf")


def test_a_setting_that_leaves_nothing_out_is_no_point_of_a_line():
    idle = [*POINTS, point(1.0, 126.0, work=1.0)]
    assert quality_at(idle, "one", 1.2) == pytest.approx(45.0)


def test_likeness_is_that_of_the_error_over_the_range():
    video = torch.rand(2, 3, 4, 16, 16) * 2 - 1
    assert psnr(video + 0.2, video) == pytest.approx(20.0, abs=1e-4)
    assert ssim(video, video) == pytest.approx(1.0)
    assert ssim(torch.rand_like(video), video) < 0.2


def test_clean_videos_show_what_was_asked_for():
    generator = torch.Generator().manual_seed(0)
    asked = prompts(8, generator)
    made = videos(asked, generator)
    assert adherence(made, asked) == 1.0
    assert adherence(made.flip(0), asked) < 1.0


def test_work_is_what_linear_layers_multiply():
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    with counted([model]) as work:
        model(torch.zeros(3, 4))
    assert work.done == 3 * (4 * 8 + 8 * 2)
    model(torch.zeros(3, 4))
    assert work.done == 3 * (4 * 8 + 8 * 2)
