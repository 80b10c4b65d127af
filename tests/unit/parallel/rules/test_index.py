from tests.unit.parallel.rules.calls import A, B, C, f32, i64, rule_texts
from weft.parallel.rules import rules


def test_a_table_is_cut_by_ids_columns_or_rows():
    found = rule_texts("embedding.default", (A, B), f32(100, 16), i64(4, 8))
    ids, columns, rows = {"S0 <- R,S0", "S1 <- R,S1"}, "S2 <- S1,R", "P <- S0,R"
    assert found == {"R <- R,R", columns, rows, "P <- P,R"} | ids


def test_the_gradient_of_a_table_is_summed_over_ids():
    args = (A, B, 100, -1, False)
    found = rule_texts("embedding_dense_backward.default", args, f32(4, 8, 16), i64(4, 8))
    ids, columns, rows = {"P <- S0,S0", "P <- S1,S1"}, "S1 <- S2,R", "S0 <- R,R"
    assert found == {"R <- R,R", columns, rows, "P <- P,R"} | ids


def test_scaling_by_frequency_needs_all_ids():
    args = (A, B, 100, -1, True)
    found = rules("embedding_dense_backward.default", args, (f32(4, 16), i64(4)), (f32(100, 16),))
    assert "P <- S0,S0" not in set(map(str, found))


def test_a_gather_cuts_the_index_where_x_is_whole_and_both_elsewhere():
    found = rule_texts("gather.default", (A, 1, B), f32(4, 6), i64(4, 2))
    assert found == {"R <- R,R", "S0 <- S0,S0", "S1 <- R,S1", "P <- P,R"}
    smaller = rule_texts("gather.default", (A, 1, B), f32(4, 6), i64(2, 2))
    assert "S0 <- S0,S0" not in smaller


def test_a_scatter_shares_out_its_additions_only_into_summands():
    found = rule_texts("scatter_add.default", (A, 1, B, C), f32(4, 6), i64(4, 2), f32(4, 2))
    assert found == {"R <- R,R,R", "S0 <- S0,S0,S0", "P <- P,S1,S1", "P <- P,R,P"}


def test_selected_rows_follow_the_index():
    found = rule_texts("index_select.default", (A, 0, B), f32(6, 4), i64(8))
    assert found == {"R <- R,R", "S0 <- R,S0", "S1 <- S1,R", "P <- P,R"}


def test_the_largest_elements_need_their_dim_whole():
    assert rule_texts("topk.default", (A, 2, 1), f32(4, 6)) == {"R,R <- R", "S0,S0 <- S0"}
