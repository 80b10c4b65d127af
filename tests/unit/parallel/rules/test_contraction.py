from tests.unit.parallel.rules.calls import A, B, f32, rule_texts

LINEAR = {"P <- P,R", "P <- R,P"}


def test_a_linear_layer_is_split_by_batch_sequence_columns_or_rows():
    found = rule_texts("einsum", ("btd,ed->bte", A, B), f32(4, 8, 16), f32(32, 16))
    data, sequence, column, row = "S0 <- S0,R", "S1 <- S1,R", "S2 <- R,S0", "P <- S2,S1"
    assert found == LINEAR | {"R <- R,R", data, sequence, column, row}


def test_megatrons_pair_needs_no_movement_between_its_two_products():
    up = rule_texts("einsum", ("btd,hd->bth", A, B), f32(4, 8, 16), f32(64, 16))
    act = rule_texts("gelu.default", (A,), f32(4, 8, 64))
    down = rule_texts("einsum", ("bth,dh->btd", A, B), f32(4, 8, 64), f32(16, 64))
    assert "S2 <- R,S0" in up
    assert "S2 <- S2" in act
    assert "P <- S2,S1" in down


def test_a_weight_gradient_sums_over_the_batch():
    found = rule_texts("einsum", ("btd,bte->ed", A, B), f32(4, 8, 16), f32(4, 8, 32))
    assert {"P <- S0,S0", "P <- S1,S1", "S0 <- R,S2", "S1 <- S2,R"} <= found


def test_experts_are_cut_in_tokens_and_weights_alike():
    found = rule_texts("einsum", ("ecd,edf->ecf", A, B), f32(4, 8, 16), f32(4, 16, 32))
    assert "S0 <- S0,S0" in found


def test_a_letter_summed_in_one_operand_leaves_summands():
    assert "P <- S0,R" in rule_texts("einsum", ("ab,bc->c", A, B), f32(4, 6), f32(6, 8))


def test_two_sums_are_never_multiplied():
    assert "P <- P,P" not in rule_texts("einsum", ("a,a->a", A, B), f32(4), f32(4))
