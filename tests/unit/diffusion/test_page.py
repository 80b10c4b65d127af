"""Reports of runs as pages, and videos on them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.denoise_matrix.pipelines import PIPELINES
from tests.unit.diffusion.accelerated import accelerated
from tests.unit.diffusion.known import a_profile, a_run
from weft.core.errors import FileError, InputError
from weft.diffusion import (
    MixCache,
    Report,
    load_profile,
    pareto,
    save_profile,
)
from weft.diffusion.page import video_of


def a_report():
    found = Report()
    found.runs.append(a_run())
    return found


def test_a_real_run_is_told_step_by_step_and_saved_with_its_frames(tmp_path):
    run = PIPELINES["Wan 2.1"].build(6)
    full = run(seed=1, output_type="np")
    with accelerated(run.pipe, policy=MixCache()) as found:
        fast = run(seed=1, output_type="np")
    lines = found.table().splitlines()
    assert len(lines) == 3 + 6 + 1
    assert lines[0].startswith("WanPipeline, 6 steps MixCache")
    assert f"{1 - found.runs[0].work:.0%} of the work saved" in lines[-1]
    found.save(tmp_path / "run.html", frames={"full": full, "accelerated": fast})
    page = (tmp_path / "run.html").read_text()
    assert page.count("data:image/png;base64,") == 12
    assert "dB like full." in page and "<script" not in page and "http" not in page


def test_a_report_without_frames_has_no_pictures(tmp_path):
    a_report().save(tmp_path / "run.html")
    page = (tmp_path / "run.html").read_text()
    assert "<img" not in page and "Frames" not in page


def test_a_report_of_nothing_says_what_to_do(tmp_path):
    for call in (Report().table, lambda: Report().save(tmp_path / "run.html")):
        with pytest.raises(InputError, match="inside of `with weft"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(FileError, match="no_folder"):
        a_report().save(tmp_path / "no_folder" / "run.html")


def ramp(frames=5, height=4, width=6):
    values = np.linspace(0, 1, frames * height * width * 3, dtype=np.float32)
    return values.reshape(frames, height, width, 3)


@pytest.mark.parametrize(
    "given",
    [
        lambda v: v,
        torch.from_numpy,
        lambda v: torch.from_numpy(v)[None],
        lambda v: v.transpose(3, 0, 1, 2),
        lambda v: torch.from_numpy(v).permute(0, 3, 1, 2),
        lambda v: v * 2 - 1,
        list,
        lambda v: np.round(v * 255).astype(np.uint8),
        lambda v: [Image.fromarray(frame) for frame in np.round(v * 255).astype(np.uint8)],
        lambda v: [[Image.fromarray(frame) for frame in np.round(v * 255).astype(np.uint8)]],
        lambda v: torch.from_numpy(v).bfloat16(),
    ],
    ids=[
        *("array", "tensor", "batch of one", "channels first", "frames first", "signed", "list"),
        *("bytes", "PIL", "list of PIL", "bfloat16"),
    ],
)
def test_videos_come_in_many_shapes_and_mean_the_same(given):
    np.testing.assert_allclose(video_of(given(ramp())), ramp(), atol=4e-3)


def test_grey_is_repeated_and_transparency_left_out():
    grey = video_of(ramp()[..., :1])
    assert grey.shape == ramp().shape and (grey[..., 0] == grey[..., 2]).all()
    clear = np.concatenate([ramp(), ramp()[..., :1]], axis=3)
    np.testing.assert_array_equal(video_of(clear), ramp())


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (torch.zeros(16, 3, 8, 8)[:, :2], r"shape \[16, 2, 8, 8\]"),
        (np.zeros((2, 4, 3)), r"shape \[2, 4, 3\]"),
        ("video.mp4", "str"),
        ([ramp()[0], ramp()[0, :2]], "list"),
        (ramp() * np.nan, "finite"),
    ],
)
def test_what_is_no_video_is_refused_by_its_name(given, word):
    with pytest.raises(InputError, match=f"(?s)fast: .*{word}"):
        video_of(given, "fast")


def test_the_page_of_a_profile_has_what_others_reach():
    page = pareto(a_profile(), [("another cache", 1.8, 25.5)], effort=60)
    assert "another cache" in page and "4 steps" in page


def test_fewer_steps_survive_the_file_and_may_be_missing(tmp_path):
    path = tmp_path / "profile.json"
    save_profile(a_profile(), path)
    assert load_profile(path).fewer_steps == a_profile().fewer_steps
    plain = json.loads(path.read_text())
    del plain["fewer_steps"]
    path.write_text(json.dumps(plain))
    assert load_profile(path).fewer_steps == ()
