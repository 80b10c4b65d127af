from tests.unit.parallel.rules.calls import A, B, C, f32, rule_texts

IMAGE, KERNEL, BIAS = f32(4, 6, 8, 8), f32(10, 6, 3, 3), f32(10)
STEPS = ((1, 1), (1, 1), (1, 1), False, (0, 0), 1)


def test_channels_of_a_convolution_are_cut_like_those_of_a_product():
    found = rule_texts("convolution.default", (A, B, None, *STEPS), IMAGE, KERNEL)
    linear = {"P <- P,R", "P <- R,P"}
    assert found == linear | {"R <- R,R", "S0 <- S0,R", "S1 <- R,S0", "P <- S1,S1"}


def test_a_bias_is_cut_with_the_output_channels_and_added_once():
    found = rule_texts("convolution.default", (A, B, C, *STEPS), IMAGE, KERNEL, BIAS)
    assert found == {"R <- R,R,R", "S0 <- S0,R,R", "S1 <- R,S0,S0"}


def test_groups_leave_only_the_batch():
    grouped = (*STEPS[:5], 2)
    found = rule_texts("convolution.default", (A, B, None, *grouped), IMAGE, f32(10, 3, 3, 3))
    assert {text for text in found if "S" in text} == {"S0 <- S0,R"}


def test_a_transposed_convolution_makes_the_second_dim_of_its_weight():
    steps = ((1, 1), (1, 1), (1, 1), True, (0, 0), 1)
    found = rule_texts("convolution.default", (A, B, None, *steps), IMAGE, f32(6, 10, 3, 3))
    assert {"S1 <- R,S1", "P <- S1,S0"} <= found


def test_gradients_of_a_cut_batch_are_summed_and_unwanted_ones_are_not():
    grad = f32(4, 10, 8, 8)

    def found(mask):
        args = (A, B, C, (10,), *STEPS, mask)
        return rule_texts("convolution_backward.default", args, grad, IMAGE, KERNEL)

    assert "S0,P,P <- S0,S0,R" in found((True, True, True))
    assert "S0,P,R <- S0,S0,R" in found((True, True, False))
    assert "R,P,R <- S0,S0,R" in found((False, True, False))


def test_a_cut_of_output_channels_cuts_the_gradients_of_weight_and_bias():
    args = (A, B, C, (10,), *STEPS, (True, True, True))
    found = rule_texts("convolution_backward.default", args, f32(4, 10, 8, 8), IMAGE, KERNEL)
    assert {"P,S0,S0 <- S1,R,S0", "S1,S1,R <- R,S1,S1"} <= found
