"""Views, permutations, expansions, slices and casts that do nothing, or do it twice, vanish."""

from __future__ import annotations

from tests.unit.capture.simplify.programs import Draft, made, simplified


def only(op, *chain, shape=(2, 3, 4)):
    """Nodes of an operator that are left of a chain of operators on one input."""
    draft = Draft()
    value = draft.input(*shape)
    for name, *args in chain:
        value = draft.add(name, value, *args)
    program = simplified(draft, draft.add("tanh.default", value))
    return [node.args[1:] for node in made(program, op) if node.outputs[0].shape != (24,)]


def test_a_view_of_a_view_is_one_view():
    assert only("view", ("view", (6, 4)), ("view", (4, 6))) == [((4, 6),)]


def test_a_view_there_and_back_is_none():
    assert only("view", ("view", (6, 4)), ("view", (2, 3, 4))) == []


def test_a_permutation_of_a_permutation_is_one():
    assert only("permute", ("permute", (1, 2, 0)), ("permute", (1, 0, 2))) == [((2, 1, 0),)]


def test_a_permutation_there_and_back_is_none():
    assert only("permute", ("permute", (1, 2, 0)), ("permute", (2, 0, 1))) == []


def test_moving_a_dim_of_size_one_is_a_view():
    chain = (("view", (2, 1, 12)), ("permute", (1, 0, 2)))
    assert only("permute", *chain) == []


def test_dims_of_size_one_stay_out_of_permutations():
    chain = (("view", (2, 1, 3, 4)), ("permute", (2, 1, 0, 3)))
    assert only("permute", *chain) == [((1, 0, 2),)]


def test_a_whole_slice_is_the_value_itself():
    assert only("slice", ("slice", 1, 0, 3, 1)) == []


def test_a_cast_to_the_own_type_is_none():
    assert only("cast", ("cast", "f64")) == []


def test_a_reduction_and_a_view_that_drops_its_dims_are_one_reduction():
    draft = Draft()
    kept = draft.add("sum", draft.input(2, 3), (1,), True)
    program = simplified(draft, draft.add("tanh.default", draft.add("view", kept, (2,))))
    assert made(program, "sum")[0].args[1:] == ((1,), False)


def test_a_view_of_random_numbers_is_random_numbers_of_another_shape():
    draft = Draft()
    seed = draft.builder.input("seed", *_seed())
    draft.shapes["seed"] = ((), _seed()[1].dtype)
    kept = draft.add("ge.Scalar", draft.add("uniform", seed, 3, (6, 4)), 0.5)
    mask = draft.add("cast", draft.add("view", kept, (2, 3, 4)), "f64")
    program = simplified(draft, draft.add("mul.Tensor", mask, draft.input(2, 3, 4)))
    assert made(program, "uniform")[0].args[1:] == (3, (2, 3, 4))


def _seed():
    from weft.program.graph import Role
    from weft.program.types import DType, TensorType

    return Role.SEED, TensorType(DType.I64, ())
