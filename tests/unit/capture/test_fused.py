"""Fused parameters: which are found, and that the program with them in factors is the same."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.unit.capture.harness import assert_same_step
from weft.capture import SGD, Adafactor, AdamW, Workload, capture
from weft.capture.fused import factorise, fused_dims
from weft.capture.program import _by_full_trace
from weft.capture.trace import first_batch, make_model
from weft.machine.presets import preset
from weft.parallel.experts import expert_plan
from weft.parallel.local import Collective, CollectiveKind
from weft.parallel.validate import validate
from weft.program.graph import Phase
from weft.program.verify import verify

B, T, D, H = 4, 6, 16, 4
N = D // H


class Attention(nn.Module):
    """Attention that takes query, key and value out of a fused projection in its own way."""

    def __init__(self, taken, *, width=3 * D, bias=True, before=nn.Identity, out=D):
        super().__init__()
        self.qkv = nn.Linear(D, width, bias=bias)
        self.before, self.taken = before(), taken
        self.out = nn.Linear(out, D)

    def forward(self, x):
        q, k, v = self.taken(self.before(self.qkv(x)))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).flatten(2))


def by_heads(x):
    return x.unflatten(-1, (-1, N)).transpose(1, 2)


def chunk(x):
    return map(by_heads, x.chunk(3, dim=-1))


def split(x):
    return map(by_heads, x.split((D, D, D), dim=-1))


def slices(x):
    return by_heads(x[..., :D]), by_heads(x[..., D : 2 * D]), by_heads(x[..., 2 * D :])


def unbind_of_unflatten(x):
    return (part.transpose(1, 2) for part in x.unflatten(-1, (3, H, N)).unbind(2))


def index_of_view(x):
    x = x.view(B, T, 3, H, N)
    return (x[:, :, part].transpose(1, 2) for part in range(3))


def permute_first(x):
    return x.reshape(B, T, 3, H, N).permute(2, 0, 3, 1, 4).unbind(0)


def rearranged(x):
    return x.view(B, T, 3, D).permute(2, 0, 1, 3).chunk(3, dim=0)


def blocks_then_heads(x):
    return (part.squeeze(0).unflatten(-1, (H, N)).transpose(1, 2) for part in rearranged(x))


def of_each_head(x):
    return (part.transpose(1, 2) for part in x.view(B, T, H, 3 * N).chunk(3, dim=-1))


def of_each_head_unflattened(x):
    return (part.transpose(1, 2) for part in x.view(B, T, H, 3, N).unbind(3))


FUSED = {
    f.__name__: f
    for f in (
        *(chunk, split, slices, unbind_of_unflatten, index_of_view, permute_first),
        blocks_then_heads,
    )
}
BY_HEADS = {f.__name__: f for f in (of_each_head, of_each_head_unflattened)}
"""Layouts of which the outer part of a row is the head: a plain split does."""


def workload(model, optimizer=None, width=D, **others):
    def batch(step):
        x = torch.randn(B, T, width, generator=torch.Generator().manual_seed(step))
        return {"x": x.double()}

    return Workload(
        name="fused",
        model=lambda: model().double(),
        loss=lambda module, batch: module(batch["x"]).square().mean(),
        batch=batch,
        optimizer=optimizer or AdamW(lr=1e-2),
        **others,
    )


def held(program):
    """Shape that the program holds of each input with dims in factors."""
    return {
        i.name: program.nodes[i.node].outputs[0].shape
        for i in program.inputs
        if i.shape is not None
    }


def collectives(program, **degrees):
    """How often each collective of forward and backward runs under an expert's plan."""
    local = validate(expert_plan(program, preset("dgx-h100x1"), **degrees), program)
    return Counter(
        step.kind
        for step in local.instructions
        if isinstance(step, Collective) and step.phase is not Phase.UPDATE
    )


WEIGHT = {"qkv.weight": (3, D, D), "qkv.bias": (3, D)}
SLOTS = ("", "optimizer.exp_avg.", "optimizer.exp_avg_sq.")
ALL = {slot + name: shape for slot in SLOTS for name, shape in WEIGHT.items()}


@pytest.mark.parametrize("layout", FUSED)
def test_a_fused_projection_is_held_in_blocks_with_its_state(layout):
    given = workload(lambda: Attention(FUSED[layout]))
    program = capture(given)
    verify(program)
    assert held(program) == ALL
    assert_same_step(given, program)


@pytest.mark.parametrize("layout", [*FUSED, *BY_HEADS])
@pytest.mark.parametrize("tp", [2, 4])
def test_tensor_parallelism_moves_no_part_of_it(layout, tp):
    program = capture(workload(lambda: Attention({**FUSED, **BY_HEADS}[layout])))
    found = collectives(program, tp=tp)
    assert found[CollectiveKind.ALL_GATHER] == found[CollectiveKind.ALL_TO_ALL] == 0
    assert found[CollectiveKind.REDUCE_SCATTER] == 0
    # Of the output and of the gradient of the input, which is a batch entry here: none.
    assert found[CollectiveKind.ALL_REDUCE] == 1


@pytest.mark.parametrize("layout", BY_HEADS)
def test_layouts_by_heads_stay_as_they_are(layout):
    given = workload(lambda: Attention(BY_HEADS[layout]))
    assert held(capture(given)) == {}


@pytest.mark.parametrize("layout", FUSED)
def test_without_bias(layout):
    given = workload(lambda: Attention(FUSED[layout], bias=False))
    program = capture(given)
    assert held(program).keys() == {name for name in ALL if name.endswith("weight")}
    assert_same_step(given, program)


def test_what_is_element_wise_between_product_and_slices_is_done_in_blocks():
    given = workload(lambda: Attention(chunk, before=nn.GELU))
    program = capture(given)
    assert held(program) == ALL
    assert_same_step(given, program)


def test_parameters_that_are_cast_for_compute_are_held_in_blocks():
    # AdamW would amplify the rounding of a gradient that is nearly 0, as that of keys' biases.
    given = workload(lambda: Attention(chunk), SGD(lr=0.1), compute_dtype=torch.float32)
    program = capture(given)
    assert held(program) == WEIGHT
    assert_same_step(given, program, rtol=1e-4, atol=1e-6)


class Conv1D(nn.Module):
    """A linear layer with its weight the other way round, as GPT-2 of transformers has it."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(D, width) * 0.1)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        flat = torch.addmm(self.bias, x.view(-1, D), self.weight)
        return flat.view(*x.shape[:-1], -1)


def test_a_fused_dim_may_be_the_last_one():
    class Transposed(Attention):
        def __init__(self):
            super().__init__(split)
            self.qkv = Conv1D(3 * D)

    given = workload(Transposed)
    program = capture(given)
    assert held(program)["qkv.weight"] == (D, 3, D)
    assert_same_step(given, program)
    assert collectives(program, tp=2)[CollectiveKind.ALL_GATHER] == 0


class Gated(nn.Module):
    """A gated MLP with a fused first layer."""

    def __init__(self):
        super().__init__()
        self.into, self.out = nn.Linear(D, 4 * D), nn.Linear(2 * D, D)

    def forward(self, x):
        gate, up = self.into(x).chunk(2, dim=-1)
        return self.out(F.silu(gate) * up)


def test_gate_and_up_of_an_mlp_are_two_blocks():
    given = workload(Gated)
    program = capture(given)
    assert held(program)["into.weight"] == (2, 2 * D, D)
    assert_same_step(given, program)
    found = collectives(program, tp=2)
    assert found[CollectiveKind.ALL_GATHER] == 0
    assert found[CollectiveKind.ALL_REDUCE] == 1


def grouped(x):
    """Two queries for a key: groups of heads are blocks, and keys repeat as a whole."""
    q, k, v = x.view(B, T, 4, H // 2, N).split((2, 1, 1), dim=2)
    q = q.flatten(2, 3).transpose(1, 2)
    return q, *(p.expand(-1, -1, 2, -1, -1).flatten(2, 3).transpose(1, 2) for p in (k, v))


def test_groups_of_queries_are_blocks_where_a_view_makes_them():
    given = workload(lambda: Attention(grouped, width=2 * D, out=D))
    program = capture(given)
    assert held(program)["qkv.weight"] == (4, D // 2, D)
    assert_same_step(given, program)


def unequal(x):
    q, k, v = x.split((D, D // 2, D // 2), dim=-1)
    return by_heads(q), *(by_heads(p).repeat_interleave(2, dim=1) for p in (k, v))


def test_unequal_blocks_stay_as_they_are():
    given = workload(lambda: Attention(unequal, width=2 * D))
    program = capture(given)
    assert held(program) == {}
    assert_same_step(given, program)


def test_adafactor_keeps_rows_and_columns_of_the_models_weight():
    given = workload(lambda: Attention(chunk, bias=False), Adafactor(lr=1e-2))
    program = capture(given)
    shapes = held(program)
    assert shapes["qkv.weight"] == (3, D, D)
    assert shapes["optimizer.row_var.qkv.weight"] == (3, D, 1)
    assert "optimizer.col_var.qkv.weight" not in shapes
    assert_same_step(given, program)


@pytest.mark.parametrize("seen", [lambda w: w, lambda w: (2 * w).t()], ids=["plain", "turned"])
def test_a_weight_that_is_also_read_whole_stays_as_it_is(seen):
    class Both(Attention):
        def forward(self, x):
            looked_up = F.embedding(torch.arange(3), seen(self.qkv.weight))
            return super().forward(x).sum() + looked_up.sin().sum()

    given = replace(workload(lambda: Both(chunk), SGD(lr=0.1)), loss=lambda m, b: m(b["x"]))
    program = capture(given)
    # And its bias with it: what both make is one tensor.
    assert held(program) == {}
    assert_same_step(given, program)


def test_slices_that_overlap_or_leave_a_rest_are_no_blocks():
    def windows(x):
        return (
            by_heads(x[..., :D]),
            by_heads(x[..., D // 2 : D + D // 2]),
            by_heads(x[..., 2 * D :]),
        )

    assert held(capture(workload(lambda: Attention(windows)))) == {}


def test_a_program_without_fused_parameters_is_returned_itself():
    program = capture(workload(lambda: nn.Linear(D, D)))
    assert not fused_dims(program)
    assert factorise(program) is program
    fused = capture(workload(lambda: Attention(chunk)))
    assert factorise(fused).digest == fused.digest


class Stacked(nn.Module):
    """Layers of fused attention, deep enough to be captured from few of them."""

    def __init__(self, depth):
        super().__init__()
        self.layers = nn.ModuleList(Attention(chunk) for _ in range(depth))

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x


def test_deep_models_are_held_in_blocks_in_every_layer(caplog):
    given = workload(lambda: Stacked(17))
    with caplog.at_level("INFO", logger="weft.capture"):
        program = capture(given)
    assert "traced whole" not in caplog.text
    wanted = {f"layers.{n}.{name}": shape for n in range(17) for name, shape in WEIGHT.items()}
    assert wanted.items() <= held(program).items()
    assert program.digest == _by_full_trace(given, make_model(given), first_batch(given)).digest


def test_gpt2_of_transformers_is_held_in_blocks():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=16,
        n_positions=T,
        n_embd=D,
        n_layer=1,
        n_head=H,
        bos_token_id=None,
        eos_token_id=None,
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    )

    def batch(step):
        tokens = torch.randint(16, (B, T), generator=torch.Generator().manual_seed(step))
        return {"tokens": tokens}

    def loss(model, batch):
        logits = model(input_ids=batch["tokens"], use_cache=False).logits
        return F.cross_entropy(logits.flatten(0, 1), batch["tokens"].flatten())

    given = Workload(
        name="gpt2",
        model=lambda: transformers.GPT2LMHeadModel(config).double(),
        loss=loss,
        batch=batch,
        optimizer=SGD(lr=0.1),
    )
    program = capture(given)
    weight, bias = (f"transformer.h.0.attn.c_attn.{name}" for name in ("weight", "bias"))
    assert held(program) == {weight: (D, 3, D), bias: (3, D)}
    assert_same_step(given, program)
    # One gathers what is looked up in the table of tokens, as without fusion.
    assert collectives(program, tp=2)[CollectiveKind.ALL_GATHER] <= 1
