"""What a device computes in one step of a server, operator by operator.

Layers are cut over the devices of a group as usual: heads and the wide side of the feed-forward
layer along, one sum after attention and one after the feed-forward layer (Shoeybi et al.,
Megatron-LM, arXiv 1909.08053). Heads of keys that are fewer than devices are kept by several.
Queries of a group of heads are the rows of one product, so keys are read once for all of them
(Ainslie et al., GQA, arXiv 2305.13245): those of answers, which attend to all of their context,
and those of prompts, which attend to all that was there before. Prompts attend to themselves
causally. All attention of a layer is one kernel (Ye et al., FlashInfer, arXiv 2501.01005).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from weft.program.graph import Arg, Value
from weft.program.types import DType, TensorType
from weft.tokens.serving.decoder import Decoder

__all__ = [
    "ANSWERS",
    "LAYERS",
    "MOVES",
    "PROMPTS",
    "WORDS",
    "Batch",
    "Executed",
    "executed",
    "kv_bytes",
    "weight_bytes",
]

LAYERS, MOVES, PROMPTS, ANSWERS, WORDS = "layers", "moves", "prompts", "answers", "words"
"""Groups of operators: products that all tokens go through, what is done element by element beside
them, attention of prompts and of answers, and what makes a word."""

_A, _B, _C = Value(0), Value(1), Value(2)
_Types: TypeAlias = tuple[TensorType, ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """A step with alike requests.

    Attributes:
        prompt: tokens of a prompt that are computed; 0 for none.
        before: tokens that these find there.
        sequences: that are answered.
        context: tokens that each of them attends to.
    """

    prompt: int
    before: int
    sequences: int
    context: int

    @property
    def tokens(self) -> int:
        """That go through the layers."""
        return self.prompt + self.sequences

    @property
    def pairs(self) -> float:
        """Of a token that is computed and one that it attends to."""
        prompt = self.prompt * (self.before + 0.5 * self.prompt)
        return prompt + self.sequences * self.context

    @property
    def context_tokens(self) -> int:
        """Whose keys and values are read."""
        return self.before * bool(self.prompt) + self.sequences * self.context


@dataclass(frozen=True, slots=True)
class Executed:
    """An operator of a step; see `weft.cost.roofline.operator_seconds`.

    Attributes:
        group: that it belongs to.
        op, args, operands, outputs: itself.
        times: how often it runs in a step.
        joins: whether it runs in the kernel of another one and leaves its results there.
    """

    group: str
    op: str
    args: tuple[Arg, ...]
    operands: _Types
    outputs: _Types
    times: int
    joins: bool = False


def executed(decoder: Decoder, degree: int, batch: Batch) -> Iterator[Executed]:
    """Operators of one device out of `degree` in one step."""
    d, rows = decoder, batch.tokens
    dtype = d.dtype

    def tensor(*shape: int) -> TensorType:
        return TensorType(dtype, shape)

    def product(group: str, rows: int, depth: int, columns: int, times: int) -> Executed:
        types = tensor(rows, depth), tensor(depth, columns)
        out = (tensor(rows, columns),)
        return Executed(group, "einsum", ("ab,bc->ac", _A, _B), types, out, times)

    def pointwise(op: str, wide: int, times: int) -> Executed:
        x = tensor(rows, wide)
        return Executed(MOVES, op, (_A, _B), (x, x), (x,), times)

    heads, kv = _part(d.heads, degree), _part(d.kv_heads, degree)
    wide, narrow = (heads + 2 * kv) * d.head, _part(d.feed_forward, degree)
    yield product(LAYERS, rows, d.hidden, wide, d.layers)
    yield product(LAYERS, rows, heads * d.head, d.hidden, d.layers)
    yield product(LAYERS, rows, d.hidden, narrow * (2 if d.gated else 1), d.layers)
    yield product(LAYERS, rows, narrow, d.hidden, d.layers)
    # Twice a sum with what came before and a norm; the gate.
    yield pointwise("add.Tensor", d.hidden, 2 * d.layers)
    yield pointwise("mul.Tensor", d.hidden, 2 * d.layers)
    yield pointwise("mul.Tensor", narrow, d.layers)
    if batch.sequences:
        q = tensor(batch.sequences, kv, heads // kv, d.head)
        k = tensor(batch.sequences, kv, max(1, batch.context), d.head)
        yield _attention(ANSWERS, q, k, d.layers)
        yield product(WORDS, batch.sequences, d.hidden, _part(d.vocabulary, degree), 1)
    if batch.prompt:
        q = k = tensor(1, heads, batch.prompt, d.head)
        joins = batch.sequences > 0
        yield _attention(PROMPTS, q, k, d.layers, causal=True, joins=joins)
    if batch.prompt and batch.before:
        q = tensor(1, kv, heads // kv * batch.prompt, d.head)
        k = tensor(1, kv, batch.before, d.head)
        yield _attention(PROMPTS, q, k, d.layers, joins=True)


def _attention(
    group: str,
    q: TensorType,
    k: TensorType,
    times: int,
    *,
    causal: bool = False,
    joins: bool = False,
) -> Executed:
    outputs = (q, TensorType(DType.F32, q.shape[:3]))
    args = (_A, _B, _C, causal, 1.0)
    return Executed(group, "attention", args, (q, k, k), outputs, times, joins)


def weight_bytes(decoder: Decoder, degree: int) -> int:
    """Of the weights that one device holds [bytes]."""
    # A step of one answer reads every weight once, but the words' vectors that go in.
    products = [own for own in executed(decoder, degree, Batch(0, 0, 1, 1)) if own.op == "einsum"]
    read = sum(own.times * own.operands[1].num_bytes for own in products)
    words = TensorType(decoder.dtype, (_part(decoder.vocabulary, degree), decoder.hidden)).num_bytes
    return read + (0 if decoder.tied else words)


def kv_bytes(decoder: Decoder, degree: int) -> int:
    """Of keys and values of one token on one device [bytes]."""
    heads = _part(decoder.kv_heads, degree)
    return 2 * decoder.layers * TensorType(decoder.dtype, (heads, decoder.head)).num_bytes


def _part(size: int, degree: int) -> int:
    return -(-size // degree)
