from tests.unit.parallel.rules.calls import A, boolean, f32, rule_texts


def test_a_sum_over_a_cut_dim_is_partial_and_later_dims_move_up():
    found = rule_texts("sum", (A, (1,), False), f32(4, 6, 8))
    assert found == {"R <- R", "S0 <- S0", "P <- S1", "S1 <- S2", "P <- P"}


def test_kept_dims_stay_where_they_are():
    assert "S2 <- S2" in rule_texts("sum", (A, (1,), True), f32(4, 6, 8))


def test_counts_of_truth_values_are_summed_but_truth_values_are_not():
    assert rule_texts("sum", (A, (0,), False), boolean(4)) == {"R <- R", "P <- S0"}


def test_a_maximum_over_a_cut_dim_is_a_partial_maximum():
    found = rule_texts("amax", (A, (1,), False), f32(4, 6))
    assert found == {"R <- R", "S0 <- S0", "Pmax <- S1", "Pmax <- Pmax"}


def test_a_running_sum_needs_its_dim_whole():
    assert rule_texts("cumsum", (A, 1), f32(4, 6)) == {"R <- R", "S0 <- S0", "P <- P"}


def test_the_place_of_a_maximum_needs_its_dim_whole():
    assert rule_texts("argmax.default", (A, 0, False), f32(4, 6)) == {"R <- R", "S0 <- S1"}
    assert rule_texts("argmax.default", (A,), f32(4, 6)) == {"R <- R"}
