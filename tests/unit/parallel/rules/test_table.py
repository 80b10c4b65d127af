import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.rule_calls import NAMES, calls
from weft.core.errors import RuleError
from weft.parallel.placement import REPLICATED
from weft.parallel.rules import rules
from weft.parallel.rules.table import FAMILIES
from weft.program.operators import OPERATORS
from weft.program.types import DType, TensorType

OPS = st.sampled_from(NAMES).flatmap(calls)


def rules_of(sample):
    return rules(sample.op, sample.args, sample.operands, sample.outputs)


def test_every_operator_of_the_program_has_rules_and_no_other():
    assert set(FAMILIES) == set(OPERATORS)


def test_an_unknown_operator_is_named():
    with pytest.raises(RuleError, match="fft") as caught:
        rules("fft.default", (), (TensorType(DType.F32, (4,)),), (TensorType(DType.F32, (4,)),))
    assert caught.value.operator == "fft.default"
    assert "f32[4]" in caught.value.got


@settings(max_examples=200)
@given(OPS)
def test_the_first_rule_replicates_everything_and_none_stands_twice(sample):
    found = rules_of(sample)
    assert set(found[0].outputs + found[0].operands) <= {REPLICATED}
    assert len(set(found)) == len(found)


@settings(max_examples=200)
@given(OPS)
def test_a_dim_of_size_one_is_never_cut(sample):
    for rule in rules_of(sample):
        pairs = zip(rule.outputs + rule.operands, sample.outputs + sample.operands, strict=True)
        assert all(p < 0 or t.shape[p] > 1 for p, t in pairs)


def test_an_input_may_lie_in_any_dim_that_is_larger_than_one():
    found = rules("input", ("w",), (), (TensorType(DType.F32, (4, 1, 8)),))
    assert [str(rule) for rule in found] == ["R <- ", "S0 <- ", "S2 <- "]
