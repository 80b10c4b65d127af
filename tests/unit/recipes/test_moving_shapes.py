"""What is asked of a video can be read off it again."""

from __future__ import annotations

import torch

from recipes.moving_shapes import Direction, embedding, prompts, seen, videos


def test_what_a_video_shows_is_seen():
    generator = torch.Generator().manual_seed(0)
    asked = prompts(100, generator)
    assert [seen(video) for video in videos(asked, generator)] == asked


def test_some_noise_is_no_trouble_for_colour_and_direction():
    generator = torch.Generator().manual_seed(1)
    asked = prompts(60, generator)
    noisy = videos(asked, generator)
    noisy += 0.2 * torch.randn(noisy.shape, generator=generator)
    found = [seen(video) for video in noisy]
    assert [f.colour for f in found] == [a.colour for a in asked]
    assert [f.direction for f in found] == [a.direction for a in asked]


def test_noise_alone_shows_nothing_in_particular():
    generator = torch.Generator().manual_seed(2)
    asked = prompts(60, generator)
    noise = torch.randn(60, 3, 8, 16, 16, generator=generator)
    right = sum(seen(video) == prompt for video, prompt in zip(noise, asked, strict=True))
    assert right < 10


def test_prompts_that_differ_have_other_tokens():
    generator = torch.Generator().manual_seed(3)
    some = {prompt: embedding(prompt) for prompt in prompts(40, generator)}
    for one in some:
        for other in some:
            assert (one == other) == torch.equal(some[one], some[other])
    assert not embedding(None).any()


def test_directions_move():
    generator = torch.Generator().manual_seed(4)
    asked = prompts(40, generator)
    for prompt, video in zip(asked, videos(asked, generator), strict=True):
        # The ground alone becomes lighter, by less.
        moves = bool((video[:, 0] - video[:, -1]).abs().max() > 1.1)
        assert moves == (prompt.direction is not Direction.STILL)
