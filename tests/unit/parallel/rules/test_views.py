from tests.unit.parallel.rules.calls import A, B, f32, rule_texts

PASS = {"R <- R", "P <- P", "Pmax <- Pmax"}


def test_a_merge_keeps_a_cut_of_its_first_dim_only():
    assert rule_texts("view", (A, (32, 16)), f32(4, 8, 16)) == PASS | {"S0 <- S0", "S1 <- S2"}


def test_a_split_keeps_a_cut_in_its_first_dim_only():
    assert rule_texts("view", (A, (4, 8, 16)), f32(32, 16)) == PASS | {"S0 <- S0", "S2 <- S1"}


def test_dims_of_size_one_are_no_factors_of_a_view():
    found = rule_texts("view", (A, (1, 4, 1, 6)), f32(4, 1, 6))
    assert found == PASS | {"S1 <- S0", "S3 <- S2"}


def test_a_regrouping_keeps_a_cut_of_the_first_dim_of_the_group():
    assert rule_texts("view", (A, (6, 4)), f32(4, 6)) == PASS | {"S0 <- S0"}


def test_nothing_is_cut_in_an_empty_view():
    assert rule_texts("view", (A, (0,)), f32(4, 0)) == PASS


def test_a_cut_moves_with_its_dim():
    found = rule_texts("permute", (A, (2, 0, 1)), f32(4, 6, 8))
    assert found == PASS | {"S0 <- S2", "S1 <- S0", "S2 <- S1"}


def test_a_repeated_dim_is_cut_for_free():
    found = rule_texts("expand", (A, (8, 4, 6)), f32(1, 6))
    assert found == PASS | {"S0 <- R", "S1 <- R", "S2 <- S1"}


def test_a_sliced_dim_is_whole_unless_nothing_is_sliced_off():
    assert rule_texts("slice", (A, 1, 0, 3), f32(4, 6)) == PASS | {"S0 <- S0"}
    assert rule_texts("slice", (A, 1, 0, 6), f32(4, 6)) == PASS | {"S0 <- S0", "S1 <- S1"}


def test_a_padded_dim_is_whole():
    found = rule_texts("slice_backward", (A, (4, 6), 1, 0, 3), f32(4, 3))
    assert found == PASS | {"S0 <- S0"}


def test_a_joined_dim_is_whole_and_sums_pass_in_all_operands_together():
    found = rule_texts("cat", ((A, B), 1), f32(4, 6), f32(4, 2))
    assert found == {"R <- R,R", "S0 <- S0,S0", "P <- P,P", "Pmax <- Pmax,Pmax"}
