"""Recipes on images: ViT, ResNet, VGG, MLP."""

from __future__ import annotations

import torch
from mlp import mlp_tiny
from resnet import resnet_tiny
from torch._subclasses import FakeTensorMode
from vgg import vgg19
from vit import Config, PatchEmbedding, vit_tiny


def test_patch_embedding_equals_a_convolution_with_stride():
    config = Config(num_layers=1, width=6, num_heads=1, hidden=4, patch=2, channels=3)
    torch.manual_seed(0)
    embed = PatchEmbedding(config).double()
    images = torch.randn(2, 3, 8, 8).double()
    kernel = embed.project.weight.reshape(6, 3, 2, 2)
    patches = torch.conv2d(images, kernel, embed.project.bias, stride=2)
    torch.testing.assert_close(embed(images) - embed.positions, patches.flatten(2).transpose(1, 2))


def test_a_permutation_of_positions_and_patches_changes_no_logits():
    torch.manual_seed(0)
    model = vit_tiny().model().double()
    images = torch.randn(2, 1, 8, 8).double()
    logits = model(images)
    with torch.no_grad():
        # Rows of patches upside down, in the image as in the positions.
        flipped = images.unflatten(2, (4, 2)).flip(2).flatten(2, 3)
        positions = model.embedding.positions
        positions.copy_(positions.unflatten(0, (4, 4)).flip(0).flatten(0, 1))
    torch.testing.assert_close(model(flipped), logits)


def test_vgg19_has_its_published_size():
    workload = vgg19()
    with FakeTensorMode():
        model = workload.model()
    assert sum(p.numel() for p in model.parameters()) == 143_667_240
    assert (
        len([m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]) == 19
    )


def test_resnet_keeps_running_statistics_of_every_norm():
    workload = resnet_tiny()
    model = workload.model()
    before = {name: b.clone() for name, b in model.named_buffers()}
    workload.loss(model, workload.batch(0))
    assert before
    assert all(not torch.equal(b, before[name]) for name, b in model.named_buffers())


def test_resnet_halves_the_image_once_a_stage_after_the_first():
    model = resnet_tiny().model()
    sizes = []
    for layer in model.layers:
        layer.register_forward_hook(lambda *call: sizes.append(tuple(call[2].shape[1:])))
    model(torch.randn(2, 1, 8, 8))
    assert sizes == [(8, 8, 8), (16, 4, 4)]


def test_the_mlp_reads_all_64_pixels():
    workload = mlp_tiny()
    model = workload.model()
    images = workload.batch(0)["images"].requires_grad_()
    workload.loss(model, {**workload.batch(0), "images": images}).backward()
    assert (images.grad.abs().amax(dim=0) > 0).all()
