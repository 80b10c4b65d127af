from tests.unit.parallel.rules.calls import A, B, C, D, E, G, f32, rule_texts

Q, KV, LSE = f32(2, 4, 8, 16), f32(2, 4, 6, 16), f32(2, 4, 8)
BATCH_AND_HEADS = {"R,R <- R,R,R", "S0,S0 <- S0,S0,S0", "S1,S1 <- S1,S1,S1"}


def test_attention_is_cut_by_batch_head_and_query_rows():
    found = rule_texts("attention", (A, B, C, False, 1.0), Q, KV, KV)
    assert found == BATCH_AND_HEADS | {"S2,S2 <- S2,R,R"}


def test_rows_under_a_causal_mask_are_cut_where_each_has_its_key():
    found = rule_texts("attention", (A, B, C, True, 1.0), Q, Q, Q)
    assert found == BATCH_AND_HEADS | {"S2,S2 <- S2,R,R"}


def test_other_rows_under_a_causal_mask_stay_together():
    assert rule_texts("attention", (A, B, C, True, 1.0), Q, KV, KV) == BATCH_AND_HEADS


def test_gradients_of_shared_keys_are_summed_over_query_rows():
    args = (A, B, C, D, E, G)
    types = (Q, Q, KV, KV, Q, LSE)
    rows = "S2,P,P <- S2,S2,R,R,S2,S2"
    assert rows in rule_texts("attention_backward", (*args, False, 1.0), *types)
    assert rows not in rule_texts("attention_backward", (*args, True, 1.0), *types)


def test_gradients_of_attention_are_linear_in_the_gradient():
    found = rule_texts("attention_backward", (A, B, C, D, E, G, True, 1.0), Q, Q, KV, KV, Q, LSE)
    assert {text for text in found if "P" in text} == {"P,P,P <- P,R,R,R,R,R"}
