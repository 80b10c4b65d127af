"""TRL's trainer without a GPU: attention over a tree of samples, and what is put back."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AttentionInterface

from tests.unit.rl.tiny import make_model
from weft.core.errors import InputError, MismatchError
from weft.rl.trl import on_cpu
from weft.rl.trl.cpu import tree_attention, tree_mask
from weft.rl.trl.layout import trl_module

SEQUENCES = st.lists(
    st.lists(st.integers(3, 6), min_size=2, max_size=6), min_size=1, max_size=5
).filter(bool)


def packed(sequences):
    """Sequences as TRL lays them out, each token that they share once."""
    row = trl_module("packing").TreeRow()
    for ids in sequences:
        row.add(
            {
                "input_ids": torch.tensor(ids),
                "completion_mask": torch.tensor([0] + [1] * (len(ids) - 1)),
                "old_log_probs": torch.zeros(len(ids)),
                "advantage": 1.0,
                "group_id": 0,
            }
        )
    return row.pack()


def seen_by_walking(pack, window):
    """The mask, one token at a time."""
    index = pack["tree_kv_index"].tolist()
    starts_q, starts_k = (pack[f"tree_cu_seqlens_{one}"].tolist() for one in "qk")
    mask = torch.zeros(starts_q[-1], starts_q[-1], dtype=torch.bool)
    for number in range(len(starts_q) - 1):
        length = starts_q[number + 1] - starts_q[number]
        path = index[starts_k[number] : starts_k[number + 1]]
        for own in range(length):
            sees = path[: len(path) - length + own + 1]
            for other in sees[-window:] if window else sees:
                mask[starts_q[number] + own, other] = True
    return mask


@given(SEQUENCES, st.sampled_from([None, 1, 2, 3]))
def test_a_token_sees_its_path_and_no_other(sequences, window):
    pack = packed(sequences)
    found = tree_mask(
        pack["tree_kv_index"], pack["tree_cu_seqlens_q"], pack["tree_cu_seqlens_k"], window
    )
    assert torch.equal(found, seen_by_walking(pack, window))


def test_a_tree_gives_the_probabilities_of_its_sequences():
    sequences = [[3, 4, 5, 6], [3, 4, 7, 8, 9], [3, 4, 5, 6, 7], [9, 8]]
    pack = packed(sequences)
    model = make_model().eval()
    with on_cpu():
        trl_module("async_grpo_trainer").register_tree_attention()
        tree = make_model().eval()
        tree.config._attn_implementation = "tree_fa3"
        logits = tree(
            input_ids=pack["input_ids"][None],
            position_ids=pack["position_ids"][None],
            use_cache=False,
            **{n: pack[n] for n in ("tree_kv_index", "tree_cu_seqlens_q", "tree_cu_seqlens_k")},
        ).logits[0]
    found = logits.log_softmax(-1)[pack["token_index"]]
    expected = torch.cat(
        [model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1) for ids in sequences]
    )
    assert torch.allclose(found, expected, atol=1e-5)


def test_all_is_as_before_when_the_block_ends():
    trainer = trl_module("async_grpo_trainer")
    before = trainer.get_peak_flops_per_device, trainer.register_tree_attention
    AttentionInterface._global_mapping.pop("tree_fa3", None)

    def fail():
        with on_cpu():
            assert trainer.get_peak_flops_per_device(None, "float32") is None
            trainer.register_tree_attention()
            assert AttentionInterface._global_mapping["tree_fa3"] is tree_attention
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (trainer.get_peak_flops_per_device, trainer.register_tree_attention) == before
    assert "tree_fa3" not in AttentionInterface._global_mapping
    trainer.register_tree_attention()
    theirs = AttentionInterface._global_mapping["tree_fa3"]
    with on_cpu():
        trainer.register_tree_attention()
    assert AttentionInterface._global_mapping["tree_fa3"] is theirs
    AttentionInterface._global_mapping.pop("tree_fa3")


def test_a_soft_cap_is_refused():
    with pytest.raises(InputError, match="soft cap"):
        tree_attention(
            *(None, None, None, None, None),
            tree_kv_index=None,
            tree_cu_seqlens_q=None,
            tree_cu_seqlens_k=None,
            softcap=30.0,
        )


def test_a_trl_without_the_parts_is_named(monkeypatch):
    stranger = SimpleNamespace(TREE_ATTENTION="tree_fa3", __name__="stranger")
    monkeypatch.setattr("weft.rl.trl.cpu.trl_module", lambda name: stranger)
    with pytest.raises(MismatchError, match=r"without get_peak_flops_per_device in stranger"):
        with on_cpu():
            pass
