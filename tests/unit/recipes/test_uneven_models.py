"""Models that are planned for uneven machines have their published sizes."""

import pytest
import torch
from bert import bert_large, bert_of_two_layers, bert_small, bert_small_wide
from inception import inception_v3
from resnet101 import bottlenecks_of_two_stages, resnet101
from torch._subclasses.fake_tensor import FakeTensorMode
from translator import transformer_base

from weft.capture import capture
from weft.program.verify import verify


def parameters(workload):
    with FakeTensorMode():
        return sum(p.numel() for p in workload.model().parameters())


def test_resnet_101_has_its_published_size():
    assert parameters(resnet101()) == 44_549_160


def test_inception_v3_has_its_published_size():
    # 27,161,264 with the auxiliary classifier, which has 3,326,696.
    assert parameters(inception_v3()) == 23_834_568


def test_berts_are_tables_and_layers():
    tables = parameters(bert_small_wide()) - parameters(bert_small())
    assert tables == (305_220 - 30_522) * (2 * 1024 + 1)
    assert parameters(bert_large()) > 600_000_000


def test_the_transformer_reads_lines_of_ten_words():
    batch = transformer_base(batch=3).batch(0)
    assert {name: tuple(entry.shape) for name, entry in batch.items()} == {
        "source": (3, 10),
        "target": (3, 10),
        "next": (3, 10),
    }


@pytest.mark.parametrize("recipe", [bert_of_two_layers, bottlenecks_of_two_stages])
def test_small_versions_can_be_captured(recipe):
    verify(capture(recipe()))


def test_masked_words_and_no_others_are_asked_for():
    batch = bert_of_two_layers(batch=4).batch(1)
    asked = batch["masked"] >= 0
    assert 0 < asked.sum() < asked.numel() / 2
    assert not batch["words"][asked].any()


def test_images_get_as_small_as_the_head_wants():
    torch.manual_seed(0)
    workload = inception_v3(batch=1, image=96, classes=5)
    with torch.no_grad():
        model = workload.model().eval()
        assert model(workload.batch(0)["images"]).shape == (1, 5)
