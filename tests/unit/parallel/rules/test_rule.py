from tests.unit.parallel.rules.calls import A, B, f32
from weft.parallel.placement import PARTIAL
from weft.parallel.rules import Rule
from weft.parallel.rules.rule import Call


def call(*args):
    return Call(op="any", args=args, operands=(f32(2), f32(3)), outputs=(f32(2),))


def test_a_rule_reads_as_outputs_from_operands():
    assert str(Rule((PARTIAL,), (1, -1))) == "P <- S1,R"


def test_operands_are_counted_among_values_only():
    this = call(None, (A, 3), "text", B)
    assert [this.operand(position) for position in range(5)] == [None, None, None, 1, None]


def test_a_negative_dim_counts_from_the_end():
    assert call(A, -1).dim(1, 3) == 2
    assert call(A, 1).dim(1, 3) == 1


def test_an_absent_argument_has_its_default():
    assert call(A).number(1, 7) == 7
    assert call(A, None).numbers(1) == ()
    assert call(A, 5).numbers(1) == (5,)
    assert not call(A, 1).flag(1)


def test_a_rule_leaves_unnamed_operands_whole_and_skips_absent_ones():
    assert call(A, B).rule((0,), {1: 0, None: 5}) == Rule((0,), (-1, 0))
