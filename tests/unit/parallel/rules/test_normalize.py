from tests.unit.parallel.rules.calls import A, B, C, D, E, G, f32, rule_texts

X, ROWS, WIDTH = f32(4, 8, 16), f32(4, 8, 1), f32(16)


def test_softmax_needs_its_dim_whole():
    assert rule_texts("_softmax.default", (A, 1, False), f32(4, 6, 8)) == {
        "R <- R", "S0 <- S0", "S2 <- S2",
    }  # fmt: skip
    found = rule_texts("_softmax_backward_data.default", (A, B, 1, "f32"), f32(4, 6), f32(4, 6))
    assert found == {"R <- R,R", "S0 <- S0,S0", "P <- P,R"}


def test_layer_norm_cuts_the_dims_before_those_it_normalises():
    found = rule_texts("native_layer_norm.default", (A, (16,), B, C, 1e-5), X, WIDTH, WIDTH)
    assert found == {
        "R,R,R <- R,R,R", "S0,S0,S0 <- S0,R,R", "S1,S1,S1 <- S1,R,R",
    }  # fmt: skip


def test_gradients_of_the_affine_part_are_summed_over_rows():
    types = (X, X, ROWS, ROWS, WIDTH, WIDTH)
    args = (A, B, (16,), C, D, E, G, (True, True, True))
    found = rule_texts("native_layer_norm_backward.default", args, *types)
    assert {"S1,P,P <- S1,S1,S1,S1,R,R", "P,P,P <- P,R,R,R,R,R"} <= found


def test_gradients_that_the_mask_leaves_out_are_not_summed():
    args = (A, B, (16,), C, D, E, None, (True, True, False))
    found = rule_texts("native_layer_norm_backward.default", args, X, X, ROWS, ROWS, WIDTH)
    assert "S0,P,R <- S0,S0,S0,S0,R" in found
