"""weft's single-axis rules against those of torch.distributed.tensor, both ways.

Whatever one side has and the other lacks is in one of the two tables below, with its reason.
"""

import re

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.contract.dtensor_adapter import dtensor_einsum_rules, dtensor_rules, pretended_mesh
from tests.property.rule_calls import NAMES, calls
from weft.parallel.placement import PARTIAL, PARTIAL_MAX, REPLICATED
from weft.parallel.rules import rules
from weft.program.types import DType

AXIS = 3

RENAMED = {
    "view": "view.default", "permute": "permute.default", "expand": "expand.default",
    "slice": "slice.Tensor", "slice_backward": "slice_backward.default", "cat": "cat.default",
    "sum": "sum.dim_IntList", "amax": "amax.default", "cumsum": "cumsum.default",
    "cast": "_to_copy.default", "attention": "_scaled_dot_product_flash_attention.default",
    "attention_backward": "_scaled_dot_product_flash_attention_backward.default",
}  # fmt: skip
WITHOUT_ATEN = {"full", "iota", "uniform", "uniform_part", "accumulate", "send", "einsum"}
WITHOUT_DTENSOR = {"avg_pool2d_backward.default", "floor_divide.Scalar"}


# --- what DTensor has and weft lacks ---------------------------------------------------------


def is_maximum(sample, outputs, operands):
    return PARTIAL_MAX in outputs + operands


def sums_truth_values(sample, outputs, operands):
    """A sum of bools is no bool."""
    pairs = zip(outputs + operands, sample.outputs + sample.operands, strict=True)
    return any(p == PARTIAL and t.dtype is DType.BOOL for p, t in pairs)


def truncates_summands(sample, outputs, operands):
    """The truncation of a sum is not the sum of truncations."""
    return PARTIAL in operands and not sample.outputs[0].dtype.is_float


def masks_a_gather(sample, outputs, operands):
    """x cut along the gathered dim needs shifted and masked indices: only lookups in tables do."""
    along = sample.args[1]
    return outputs == (PARTIAL,) and operands == (along, REPLICATED)


def misaligns_the_index(sample, outputs, operands):
    """An index smaller than x or the source along the cut dim meets the wrong part of them."""
    sizes = {t.shape[p] for p, t in zip(operands, sample.operands, strict=True)}
    return min(operands) >= 0 and len(sizes) > 1


MAXIMUM = "maxima pass what a softmax over a cut dim needs, and no more", is_maximum
LACKED = {
    **dict.fromkeys(
        ("index_select.default", "add.Tensor", "sub.Tensor",
         "sign.default", "exp.default", "tanh.default", "erf.default", "sigmoid.default",
         "relu.default", "floor.default", "minimum.default"),
        (MAXIMUM,),
    ),
    "cast": (("bools are not summed", sums_truth_values), MAXIMUM,
             ("casts to integers truncate", truncates_summands)),
    "sum": (("bools are not summed", sums_truth_values),),
    "gather.default": (("lookups are masked in tables only", masks_a_gather),
                       ("wrong in DTensor", misaligns_the_index)),
    "scatter_add.default": (("wrong in DTensor", misaligns_the_index),),
}  # fmt: skip


# --- what weft has and DTensor lacks ---------------------------------------------------------


def is_linear(sample, outputs, operands):
    return PARTIAL in operands


def creates_shards(sample, outputs, operands):
    return outputs[0] >= 0 and operands == (REPLICATED,)


def keeps_all(sample, outputs, operands):
    return sample.args[2] == outputs[0] and sample.operands == sample.outputs


def cuts_query_rows(sample, outputs, operands):
    return outputs[0] == 2


def cuts_channels(sample, outputs, operands):
    return operands[0] == 1 or 0 in operands[1:] or 1 in operands[1:]


def cuts_table_rows(sample, outputs, operands):
    return outputs == (0,) and set(operands) == {REPLICATED}


LINEAR = "the operator is linear in this operand", is_linear
EXTRA = {
    **dict.fromkeys(
        ("cumsum", "_softmax_backward_data.default", "native_layer_norm_backward.default",
         "embedding.default", "gather.default", "scatter_add.default", "tanh_backward.default",
         "sigmoid_backward.default", "threshold_backward.default", "gelu_backward.default",
         "silu_backward.default", "where.self", "masked_fill.Scalar"),
        (LINEAR,),
    ),
    "expand": (("what is repeated is cut for free", creates_shards),),
    "slice_backward": (("a slice that keeps a whole dim is none", keeps_all),),
    "attention": (("rows of the query are independent", cuts_query_rows),),
    "attention_backward": (LINEAR, ("rows of the query are independent", cuts_query_rows)),
    "convolution.default": (LINEAR, ("channels are independent", cuts_channels)),
    "convolution_backward.default": (LINEAR, ("channels are independent", cuts_channels)),
    "embedding_dense_backward.default": (("rows of a table are independent", cuts_table_rows),),
}  # fmt: skip


def dtensor_call(sample):
    """The ATen overload and its arguments."""
    name, _, overload = RENAMED.get(sample.op, sample.op).partition(".")
    args, kwargs = sample.args, {}
    if sample.op == "cast":
        args, kwargs = args[:1], {"dtype": torch.float64}
    elif sample.op == "attention":
        args = (*args[:3], 0.0, args[3])
    elif sample.op == "attention_backward":
        rows, keys = (sample.operands[k].shape[2] for k in (1, 2))
        args = (*args[:6], None, None, rows, keys, 0.0, args[6], None, None)
    return getattr(getattr(torch.ops.aten, name), overload), args, kwargs


def comparable(sample, rule):
    """DTensor tells nothing of cuts that do not divide, nor weft of cuts of size 1."""
    outputs, operands = rule
    pairs = zip(outputs + operands, sample.outputs + sample.operands, strict=True)
    return all(
        p < 0 or t.shape == (0,) or (t.shape[p] > 1 and t.shape[p] % AXIS == 0) for p, t in pairs
    )


def rules_of_both(mesh, sample):
    aten, args, kwargs = dtensor_call(sample)
    ours = (
        (rule.outputs, rule.operands)
        for rule in rules(sample.op, sample.args, sample.operands, sample.outputs)
    )
    theirs = dtensor_rules(mesh, aten, args, sample.operands, len(sample.outputs), kwargs)
    return tuple(
        {made_only(sample, rule) for rule in side if comparable(sample, rule)}
        for side in (ours, theirs)
    )


def made_only(sample, rule):
    """The rule with outputs that the output mask leaves out replicated."""
    outputs, operands = rule
    made = zip(outputs, sample.outputs, strict=True)
    return tuple(REPLICATED if t.shape == (0,) else p for p, t in made), operands


def is_more_than_replicas(rule):
    """DTensor leaves the rule with everything replicated out of its tables."""
    return any(p != REPLICATED for side in rule for p in side)


def unexplained(sample, found, reasons):
    return [r for r in found if not any(holds(sample, *r) for _, holds in reasons)]


@pytest.fixture(scope="module")
def mesh():
    with pretended_mesh(AXIS) as made:
        yield made


COMMON = [op for op in NAMES if op not in WITHOUT_ATEN | WITHOUT_DTENSOR]


@pytest.mark.parametrize("op", COMMON)
@settings(max_examples=20)
@given(data=st.data())
def test_each_side_has_the_others_rules_or_a_reason(mesh, op, data):
    sample = data.draw(calls(op))
    ours, theirs = rules_of_both(mesh, sample)
    extra = filter(is_more_than_replicas, ours - theirs)
    assert unexplained(sample, theirs - ours, LACKED.get(op, ())) == []
    assert unexplained(sample, extra, EXTRA.get(op, ())) == []


@settings(max_examples=50)
@given(calls("einsum"))
def test_products_have_the_same_rules_letter_by_letter(sample):
    left, right, out = re.split(",|->", sample.args[0])
    # DTensor knows no letter that one operand alone has and the result has not.
    assume(set(left) ^ set(right) <= set(out))
    theirs = {r for r in dtensor_einsum_rules(sample.args[0]) if comparable(sample, r)}
    # Without a summed or a free letter DTensor lets both operands be summands, which is wrong:
    # (a + b) * (c + d) is not a * c + b * d.
    theirs -= {((PARTIAL,), (PARTIAL, PARTIAL))}
    found = rules(sample.op, sample.args, sample.operands, sample.outputs)
    ours = {(r.outputs, r.operands) for r in found}
    assert {r for r in ours if comparable(sample, r) and is_more_than_replicas(r)} == theirs


def test_operators_said_to_have_no_rules_in_dtensor_have_none(mesh):
    for op in WITHOUT_DTENSOR:
        name, _, overload = op.partition(".")
        with pytest.raises(LookupError):
            dtensor_rules(mesh, getattr(getattr(torch.ops.aten, name), overload), (), (), 1)
