"""The Wide-ResNet recipe."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses import FakeTensorMode
from wide_resnet import (
    Config,
    WideResNet,
    wide_resnet_13b,
    wide_resnet_250m,
    wide_resnet_grouped_tiny,
    wide_resnet_tiny,
)


def test_a_base_of_64_channels_and_factor_1_is_resnet_50():
    config = Config(base=64, factor=1, blocks=(3, 4, 6, 3), classes=1000)
    with FakeTensorMode():
        model = WideResNet(config)
    # The published checkpoint's number of parameters.
    assert sum(p.numel() for p in model.parameters()) == 25_557_032


def test_factor_2_is_the_published_wide_resnet_50_with_narrow_ends():
    # The published one also widens the 1x1 convolution before; Alpa's does not.
    config = Config(base=64, factor=2, blocks=(3, 4, 6, 3), classes=1000)
    with FakeTensorMode():
        block = WideResNet(config).stages["stage3"].first
    shapes = [tuple(c.weight.shape) for c in (block.conv1, block.conv2, block.conv3)]
    assert shapes == [(256, 512, 1, 1), (512, 256, 3, 3), (1024, 512, 1, 1)]


@pytest.mark.parametrize(("recipe", "layers"), [(wide_resnet_250m, 50), (wide_resnet_13b, 101)])
def test_layers_are_counted_along_the_longest_way(recipe, layers):
    with FakeTensorMode():
        model = recipe().model()
    counted = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and "shortcut" not in name
    ]
    assert len(counted) == layers


def test_every_stage_but_the_first_halves_the_image():
    model = wide_resnet_tiny().model()
    sizes = []
    for stage in model.stages.values():
        stage.register_forward_hook(lambda *call: sizes.append(tuple(call[2].shape[1:])))
    model(torch.randn(2, 1, 8, 8))
    assert sizes == [(32, 8, 8), (64, 4, 4)]


def test_groups_keep_images_apart_and_a_batch_does_not():
    for recipe, apart in ((wide_resnet_grouped_tiny, True), (wide_resnet_tiny, False)):
        torch.manual_seed(0)
        model = recipe().model().double()
        images = torch.randn(4, 1, 8, 8).double()
        other = torch.cat((images[:2], 3 * images[2:]))
        assert torch.allclose(model(images)[:2], model(other)[:2]) is apart
