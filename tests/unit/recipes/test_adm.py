"""The ADM recipe: the U-Net of diffusion models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from adm import ADM, Config, adm_tiny, doubled, halved, kept_variance, noise_loss

TINY = Config(
    width=8,
    factors=(1, 2, 2),
    blocks=2,
    image=8,
    attended=(4,),
    head_width=8,
    groups=4,
    channels=1,
    classes=10,
)


def test_doubling_repeats_pixels_and_halving_takes_it_back():
    x = torch.randn(2, 3, 4, 6)
    wide = torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest")
    assert torch.equal(doubled(x), wide)
    torch.testing.assert_close(halved(doubled(x)), x)


def test_the_image_fades_from_almost_whole_to_almost_nothing():
    kept = kept_variance(1000)
    assert kept[0] > 0.9999
    assert 0.49 < kept[499] < 0.51
    assert kept[-1] < 1e-4
    assert (kept.diff() < 0).all()


def test_blocks_attend_and_shrink_where_the_sizes_say():
    model = ADM(TINY)
    sides: dict[str, int] = {}
    for name, module in [*model.down.named_children(), *model.up.named_children()]:
        module.register_forward_hook(
            lambda module, given, made, name=name: sides.update({name: made.shape[-1]})
        )
    model(*adm_batch())
    attending = {n for n, m in model.named_modules() if type(m).__name__ == "Attention"}
    assert sides["level0_step0"] == 8
    assert sides["level1_double"] == 8
    assert sides["level2_step2"] == 2
    assert {name.split(".")[1] for name in attending if "." in name} == {
        "level1_step0",
        "level1_step1",
        "level1_step2",
    }
    assert "middle_attention" in attending


def adm_batch() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images, noise = torch.randn(2, 3, 1, 8, 8, generator=generator)
    return [images, noise, torch.tensor([0, 500, 999]), torch.tensor([1, 2, 3])]


def test_a_new_model_finds_no_noise_and_a_trained_one_reads_time_and_class():
    torch.manual_seed(0)
    model = ADM(TINY).double()
    images, noise, times, labels = adm_batch()
    images, noise = images.double(), noise.double()
    assert not model(images, noise, times, labels).any()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    found = model(images, noise, times, labels)
    assert not torch.allclose(found, model(images, noise, times, labels + 1))
    assert not torch.allclose(found, model(images, noise, times.flip(0), labels))


def test_an_image_is_mixed_with_noise_as_much_as_its_time_says():
    model = ADM(TINY)
    seen: list[torch.Tensor] = []
    model.enter.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    images, noise, times, labels = adm_batch()
    model(images, noise, times, labels)
    torch.testing.assert_close(seen[0][0], images[0], rtol=0, atol=0.05)
    torch.testing.assert_close(seen[0][2], noise[2], rtol=0, atol=0.05)
    half = (images[1] + noise[1]) / 2**0.5
    torch.testing.assert_close(seen[0][1], half, rtol=0, atol=0.05)


def test_the_loss_is_the_mean_square_of_what_is_left_of_the_noise():
    workload = adm_tiny()
    torch.manual_seed(0)
    loss = noise_loss(workload.model(), workload.batch(0))
    torch.testing.assert_close(loss, workload.batch(0)["noise"].square().mean())


@pytest.mark.parametrize("blocks", [1, 3])
def test_the_way_up_has_a_block_for_all_that_came_down(blocks):
    model = ADM(replace(TINY, blocks=blocks))
    came_down = 1 + len(model.down)
    read = [name for name in model.up if not name.endswith("double")]
    assert len(read) == came_down
