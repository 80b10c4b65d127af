"""The CLIP recipe against an independent implementation."""

from __future__ import annotations

import pytest
import torch
from clip import CLIP, Config, Tower, clip_tiny, contrastive_loss
from torch.nn import functional as F

TINY = Config(
    vision=Tower(num_layers=2, width=32, num_heads=4, hidden=48),
    text=Tower(num_layers=2, width=24, num_heads=2, hidden=40),
    embedding=16,
    image=8,
    patch=2,
    context=8,
    vocabulary=64,
    quick_gelu=True,
)


@pytest.mark.filterwarnings("ignore")
def test_fits_equal_those_of_transformers_with_the_same_weights():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    ours = CLIP(TINY).double()
    shared = {"projection_dim": TINY.embedding, "hidden_act": "quick_gelu"}
    text = {"vocab_size": TINY.vocabulary, "max_position_embeddings": TINY.context}
    text |= {"eos_token_id": TINY.vocabulary - 1, "bos_token_id": 0, "pad_token_id": 1}
    config = transformers.CLIPConfig(
        text_config=text | shared | _sizes(TINY.text),
        vision_config={"image_size": TINY.image, "patch_size": TINY.patch}
        | shared
        | _sizes(TINY.vision),
        projection_dim=TINY.embedding,
    )
    theirs = transformers.CLIPModel(config).double()
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    state = {_name_in_transformers(n): value for n, value in ours.state_dict().items()}
    project = "vision_model.embeddings.patch_embedding.weight"
    state[project] = state[project].reshape(-1, 3, TINY.patch, TINY.patch)
    theirs.load_state_dict(state)
    images = torch.randn(3, 3, TINY.image, TINY.image).double()
    tokens = torch.randint(TINY.vocabulary - 1, (3, TINY.context))
    tokens[torch.arange(3), torch.tensor([2, 7, 4])] = TINY.vocabulary - 1
    wanted = theirs(input_ids=tokens, pixel_values=images).logits_per_image
    torch.testing.assert_close(ours(images, tokens), wanted, rtol=1e-9, atol=1e-9)


def _sizes(tower: Tower) -> dict[str, int]:
    return {
        "hidden_size": tower.width,
        "intermediate_size": tower.hidden,
        "num_hidden_layers": tower.num_layers,
        "num_attention_heads": tower.num_heads,
    }


def _name_in_transformers(name: str) -> str:
    for ours, theirs in (
        ("log_scale", "logit_scale"),
        ("text.out.", "text_projection."),
        ("vision.out.", "visual_projection."),
        ("text.tokens", "text_model.embeddings.token_embedding"),
        ("text.positions", "text_model.embeddings.position_embedding.weight"),
        ("vision.positions", "vision_model.embeddings.position_embedding.weight"),
        ("vision.token", "vision_model.embeddings.class_embedding"),
        ("vision.project.", "vision_model.embeddings.patch_embedding."),
        ("vision.first_norm", "vision_model.pre_layrnorm"),
        ("vision.norm", "vision_model.post_layernorm"),
        ("text.norm", "text_model.final_layer_norm"),
        ("vision.layers", "vision_model.encoder.layers"),
        ("text.layers", "text_model.encoder.layers"),
        ("attention_norm", "layer_norm1"),
        ("mlp_norm", "layer_norm2"),
        ("attention.query", "self_attn.q_proj"),
        ("attention.key", "self_attn.k_proj"),
        ("attention.value", "self_attn.v_proj"),
        ("attention.out", "self_attn.out_proj"),
        (".up.", ".mlp.fc1."),
        (".down.", ".mlp.fc2."),
    ):
        name = name.replace(ours, theirs)
    return name


def test_the_loss_is_least_where_each_image_fits_its_own_text_best():
    fit = 20 * torch.eye(4)
    batch = {"images": fit, "tokens": fit}

    class Given(torch.nn.Module):
        def forward(self, images, tokens):
            return images

    assert contrastive_loss(Given(), batch) < 1e-6
    wrong = {"images": fit.roll(1, 0), "tokens": fit}
    assert contrastive_loss(Given(), wrong) > 19


def test_the_loss_counts_images_and_texts_alike():
    workload = clip_tiny()
    torch.manual_seed(0)
    model, batch = workload.model().double(), workload.batch(0)
    batch = {**batch, "images": batch["images"].double()}
    fit = model(batch["images"], batch["tokens"])
    own = torch.arange(len(fit))
    wanted = (F.cross_entropy(fit, own) + F.cross_entropy(fit.T, own)) / 2
    torch.testing.assert_close(workload.loss(model, batch), wanted)


def test_what_stands_after_the_end_of_a_text_does_not_count():
    torch.manual_seed(0)
    model = clip_tiny().model().double()
    tokens = clip_tiny().batch(0)["tokens"]
    ends = (tokens == 128).long().argmax(dim=1)
    changed = tokens.clone()
    for row, end in zip(changed, ends.tolist(), strict=True):
        row[end + 1 :] = 7
    assert not torch.equal(tokens, changed)
    torch.testing.assert_close(model.text(tokens), model.text(changed))
