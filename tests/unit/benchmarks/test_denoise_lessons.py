"""What denoisers are taught: the answers of a teacher in their own terms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from benchmarks.denoise.lessons import Lessons
from recipes.moving_shapes import scale


class Oracle(nn.Module):
    """A Wan that knows the videos and the noise of every lesson, and checks what it is shown."""

    def __init__(self, clean: Tensor, noise: Tensor) -> None:
        super().__init__()
        self.clean, self.noise = clean, noise

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        return_dict: bool,
    ) -> tuple[Tensor]:
        level = timestep[:, None, None, None, None] / 1000
        straight = (1 - level) * self.clean + level * self.noise
        torch.testing.assert_close(hidden_states, straight, atol=1e-4, rtol=1e-4)
        return (self.noise - self.clean,)


@pytest.mark.parametrize("name", ["wan_small", "cogvideo", "cogvideo_small"])
def test_a_teacher_that_knows_the_truth_teaches_it(name: str) -> None:
    torch.manual_seed(0)
    lessons = Lessons(name, "cpu", 6, None)
    lesson = lessons._drawn()
    if lessons._kept is None:
        level = lesson.times[:, None, None, None, None] / 1000
        clean = lesson.noisy - level * lesson.target
        noise = clean + lesson.target
    else:
        kept = lessons._kept[lesson.times][:, None, None, None, None]
        noise = (1 - kept).sqrt() * lesson.noisy + kept.sqrt() * lesson.target
        clean = (kept.sqrt() * lesson.noisy - (1 - kept).sqrt() * lesson.target) / scale(name)
    taught = lessons._taught(Oracle(clean, noise), lesson)
    torch.testing.assert_close(taught, lesson.target, atol=1e-4, rtol=1e-4)
