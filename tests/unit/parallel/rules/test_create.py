from tests.unit.parallel.rules.calls import A, i64, rule_texts


def test_a_constant_is_cut_anywhere_and_zeros_are_summands_too():
    assert rule_texts("full", ((4, 1, 6), 1.0, "f32")) == {"R <- ", "S0 <- ", "S2 <- "}
    assert rule_texts("full", ((4,), 0.0, "f32")) == {"R <- ", "S0 <- ", "P <- "}
    assert rule_texts("full", ((4,), 0, "bool")) == {"R <- ", "S0 <- "}


def test_random_numbers_are_cut_anywhere_from_a_whole_seed():
    assert rule_texts("uniform", (A, 3, (4, 6)), i64()) == {"R <- R", "S0 <- R", "S1 <- R"}


def test_a_range_is_cut_in_its_only_dim():
    assert rule_texts("iota", (8, 0, 1, "i64")) == {"R <- ", "S0 <- "}
