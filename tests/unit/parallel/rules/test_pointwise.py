from tests.unit.parallel.rules.calls import A, B, C, boolean, f32, i64, rule_texts
from weft.program.graph import Value


def test_a_cut_leaves_broadcast_operands_whole():
    found = rule_texts("mul.Tensor", (A, B), f32(4, 6), f32(1, 6))
    assert {"S0 <- S0,R", "S1 <- S1,S1"} <= found
    assert rule_texts("maximum.default", (A, B), f32(4, 6), f32(6)) >= {"S0 <- S0,R", "S1 <- S1,S0"}


def test_sums_pass_an_addition_only_together():
    found = rule_texts("add.Tensor", (A, B), f32(4), f32(4))
    assert {text for text in found if "P" in text} == {"P <- P,P"}


def test_sums_do_not_pass_the_addition_of_a_constant():
    assert rule_texts("add.Tensor", (A, 1.0), f32(4)) == {"R <- R", "S0 <- S0"}


def test_sums_pass_a_product_one_at_a_time():
    found = rule_texts("mul.Tensor", (A, B), f32(4), f32(4))
    assert {text for text in found if "P" in text} == {"P <- P,R", "P <- R,P"}
    assert "P <- P" in rule_texts("mul.Tensor", (A, 2.0), f32(4))


def test_sums_pass_the_numerator_but_not_the_denominator():
    found = rule_texts("div.Tensor", (A, B), f32(4), f32(4))
    assert "P <- P,R" in found
    assert "P <- R,P" not in found


def test_sums_pass_no_activation_but_pass_its_gradient():
    assert rule_texts("gelu.default", (A,), f32(4)) == {"R <- R", "S0 <- S0"}
    found = rule_texts("gelu_backward.default", (A, B), f32(4), f32(4))
    assert {text for text in found if "P" in text} == {"P <- P,R"}


def test_sums_pass_a_selection_by_a_whole_condition():
    found = rule_texts("where.self", (A, B, C), boolean(4), f32(4), f32(4))
    assert {text for text in found if "P" in text} == {"P <- R,P,P"}


def test_sums_pass_a_masked_fill_with_zero_only():
    types = f32(4), boolean(4)
    assert "P <- P,R" in rule_texts("masked_fill.Scalar", (A, B, 0.0), *types)
    assert "P <- P,R" not in rule_texts("masked_fill.Scalar", (A, B, 1.0), *types)


def test_sums_pass_casts_between_floats_but_no_truncation():
    assert "P <- P" in rule_texts("cast", (A, "bf16"), f32(4))
    assert "P <- P" in rule_texts("cast", (A, "f32"), i64(4))
    assert "P <- P" not in rule_texts("cast", (A, "i64"), f32(4))
    assert "P <- P" not in rule_texts("cast", (A, "f32"), boolean(4))


def test_maxima_pass_a_maximum_and_rounding_to_another_float():
    found = rule_texts("maximum.default", (A, B), f32(4), f32(4))
    assert {"Pmax <- Pmax,Pmax", "Pmax <- Pmax,R", "Pmax <- R,Pmax"} <= found
    assert "Pmax <- Pmax" in rule_texts("cast", (A, "bf16"), f32(4))
    assert "Pmax <- Pmax" not in rule_texts("cast", (A, "i64"), f32(4))


def test_a_value_read_twice_may_be_read_in_two_placements():
    assert "P <- P,R" in rule_texts("mul.Tensor", (Value(3), Value(3)), f32(4), f32(4))
