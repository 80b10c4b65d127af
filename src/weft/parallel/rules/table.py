"""The table of sharding rules: one family for each operator.

Source: the algebra of each operator; checked by simulation on NumPy devices (tests/property)
and against the rules of torch.distributed.tensor (tests/contract).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from weft.core.errors import RuleError
from weft.parallel.placement import PARTIAL, REPLICATED, Placement
from weft.parallel.rules.attention import attention_backward_rules, attention_rules
from weft.parallel.rules.contraction import einsum_rules
from weft.parallel.rules.convolution import convolution_backward_rules, convolution_rules
from weft.parallel.rules.create import create_rules, full_rules
from weft.parallel.rules.index import (
    embedding_backward_rules,
    embedding_rules,
    gather_rules,
    index_select_rules,
    scatter_add_rules,
    topk_rules,
)
from weft.parallel.rules.normalize import (
    layer_norm_backward_rules,
    layer_norm_rules,
    softmax_backward_rules,
    softmax_rules,
)
from weft.parallel.rules.pointwise import pointwise_rules
from weft.parallel.rules.pool import avg_pool_rules, max_pool_rules, pool_backward_rules
from weft.parallel.rules.reductions import amax_rules, argmax_rules, cumsum_rules, sum_rules
from weft.parallel.rules.rule import Call, Family, Rule
from weft.parallel.rules.views import (
    cat_rules,
    expand_rules,
    permute_rules,
    send_rules,
    slice_backward_rules,
    slice_rules,
    view_rules,
)
from weft.program.graph import Arg
from weft.program.operators import OPERATORS, Kind
from weft.program.types import DType, TensorType

__all__ = ["FAMILIES", "rules"]

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {name: pointwise_rules for name, row in OPERATORS.items() if row.kind is Kind.POINTWISE}
    | {
        "input": create_rules,
        "full": full_rules,
        "iota": create_rules,
        "uniform": create_rules,
        "uniform_part": create_rules,
        "view": view_rules,
        "send": send_rules,
        "permute": permute_rules,
        "expand": expand_rules,
        "slice": slice_rules,
        "slice_backward": slice_backward_rules,
        "cat": cat_rules,
        "sum": sum_rules,
        "amax": amax_rules,
        "cumsum": cumsum_rules,
        "argmax.default": argmax_rules,
        "einsum": einsum_rules,
        "attention": attention_rules,
        "attention_backward": attention_backward_rules,
        "convolution.default": convolution_rules,
        "convolution_backward.default": convolution_backward_rules,
        "_softmax.default": softmax_rules,
        "_softmax_backward_data.default": softmax_backward_rules,
        "native_layer_norm.default": layer_norm_rules,
        "native_layer_norm_backward.default": layer_norm_backward_rules,
        "embedding.default": embedding_rules,
        "embedding_dense_backward.default": embedding_backward_rules,
        "gather.default": gather_rules,
        "scatter_add.default": scatter_add_rules,
        "index_select.default": index_select_rules,
        "topk.default": topk_rules,
        "max_pool2d_with_indices.default": max_pool_rules,
        "max_pool2d_with_indices_backward.default": pool_backward_rules,
        "avg_pool2d.default": avg_pool_rules,
        "avg_pool2d_backward.default": pool_backward_rules,
    }
)
"""The rules of every operator, by name."""

_NOT_SUMMED = frozenset({DType.BOOL, DType.U8})


def rules(
    op: str,
    args: tuple[Arg, ...],
    operands: tuple[TensorType, ...],
    outputs: tuple[TensorType, ...],
) -> tuple[Rule, ...]:
    """All legal rules of one operator along one mesh axis.

    A rule promises: operands laid out along the axis as it says, the same operator applied by
    every device to its own parts, results laid out as it says. Arguments that name sizes (of
    view, expand, full, slice_backward, uniform, num_weights, bias_sizes) become those of the
    device's parts; iota, uniform and causal attention know where their part begins; lookups in a
    table cut by rows shift the ids and give zeros for rows of other devices.

    Rules do not depend on the size of the axis: whether cut dims divide is the caller's to
    check. Rules of several axes combine freely.

    Args:
        op: operator name.
        args: arguments in schema order.
        operands: global type of each value among the arguments, in order, repeats included.
        outputs: global type of each output.

    Returns:
        Distinct rules, the one with everything replicated first.

    Raises:
        RuleError: the operator is not in the table.

    Example:
        >>> from weft.program.graph import Value
        >>> x, y = TensorType(DType.F32, (8, 4)), TensorType(DType.F32, (8,))
        >>> [str(r) for r in rules("sum", (Value(0), (1,), False), (x,), (y,))]
        ['R <- R', 'S0 <- S0', 'P <- S1', 'P <- P']
    """
    family = FAMILIES.get(op)
    if family is None:
        raise RuleError(
            operator=op,
            need="an operator of weft.program.operators",
            got=f"{op!r} on {', '.join(map(str, operands)) or 'nothing'}",
            hint="decompose it during capture, or give it a row in weft.parallel.rules.table",
        )
    call = Call(op=op, args=args, operands=operands, outputs=outputs)
    whole = Rule((REPLICATED,) * len(outputs), (REPLICATED,) * len(operands))
    legal = (rule for rule in family(call) if _is_legal(rule, call))
    return tuple(dict.fromkeys((whole, *legal)))


def _is_legal(rule: Rule, call: Call) -> bool:
    return all(map(_fits, rule.outputs, call.outputs)) and all(
        map(_fits, rule.operands, call.operands)
    )


def _fits(placement: Placement, tensor: TensorType) -> bool:
    """A dim of size 0 or 1 is never cut; truth values and bytes are never summed."""
    if placement >= 0:
        return tensor.shape[placement] > 1
    return placement != PARTIAL or tensor.dtype not in _NOT_SUMMED
