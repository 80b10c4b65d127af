from tests.unit.parallel.rules.calls import A, B, C, f32, i64, rule_texts

IMAGE, POOLED = f32(4, 6, 8, 8), f32(4, 6, 4, 4)
WINDOW = ((2, 2), (2, 2), (0, 0))


def test_windows_are_never_cut():
    found = rule_texts("max_pool2d_with_indices.default", (A, *WINDOW), IMAGE)
    assert found == {"R,R <- R", "S0,S0 <- S0", "S1,S1 <- S1"}
    assert rule_texts("avg_pool2d.default", (A, *WINDOW), IMAGE) == {
        "R <- R", "S0 <- S0", "S1 <- S1", "P <- P",
    }  # fmt: skip


def test_one_image_without_a_batch_is_cut_by_channel():
    found = rule_texts("max_pool2d_with_indices.default", (A, *WINDOW), f32(6, 8, 8))
    assert found == {"R,R <- R", "S0,S0 <- S0"}


def test_gradients_of_pools_are_linear_in_the_gradient_alone():
    args = (A, B, *WINDOW, (1, 1), False, C)
    indices = i64(4, 6, 4, 4)
    found = rule_texts("max_pool2d_with_indices_backward.default", args, POOLED, IMAGE, indices)
    assert found == {"R <- R,R,R", "S0 <- S0,S0,S0", "S1 <- S1,S1,S1", "P <- P,R,R"}
